//! Who grants near leases: a primary that executes writes, and no other server.

use std::thread;

use harness::topology::Replicated;
use harness::{Server, wait};

use super::process::Process;
use super::server;

#[track_caller]
fn refused(near: &mut Process, why: &str) {
    let refusal = near.try_feed().expect_err("no lease");
    assert!(
        refusal.starts_with("NONEAR") && refusal.contains(why),
        "{refusal}"
    );
}

#[test]
fn the_feed_is_off_unless_it_is_switched_on() {
    let server = Server::start();
    let mut near = Process::new(&server, &[]);
    refused(&mut near, "mcache.feed");
    near.redis.ok("CONFIG SET mcache.feed yes");
    near.feed();
    near.redis.ok("CONFIG SET mcache.feed no");
    refused(&mut near, "mcache.feed");
}

#[test]
fn a_replica_grants_nothing_and_a_promoted_one_has_predecessors() {
    let mut servers = Replicated::start_with(1, Server::builder().feed(5_000));
    // What the successor is set to says nothing of what the primary grants.
    let short = "CONFIG SET mcache.near-lease-ms 100";
    servers.replicas[0].session().ok(short);
    let mut near = Process::subscribed(&servers.primary);
    near.redis.ok("MCACHE.SET k 0 v TAGS t");
    assert!(near.read("k"));
    servers.sync();
    let replica = servers.replicas.remove(0);
    let mut elsewhere = Process::new(&replica, &[]);
    refused(&mut elsewhere, "replica");
    let settling = elsewhere.redis.error("MCACHE.SETTLE 10");
    assert!(settling.contains("replica"), "{settling}");

    elsewhere.redis.ok("REPLICAOF NO ONE");
    let (_, leases, longest_ms): (u64, u64, u64) =
        elsewhere.redis.typed("MCACHE.INVALIDATE NEAR TAGS t");
    assert_eq!(leases, 1);
    assert!(longest_ms > 1_000, "{longest_ms}");
    // The former primary's position is a gap here.
    let line = format!("MCACHE.FEED {}", near.subscription());
    let redis::Value::Array(answer) = elsewhere.redis.run(&line) else {
        panic!("an array")
    };
    assert_eq!(answer.len(), 5);

    // And one that becomes a replica grants nothing any more.
    near.redis
        .ok(&format!("REPLICAOF 127.0.0.1 {}", replica.port()));
    refused(&mut near, "replica");
}

#[test]
fn a_primary_that_does_not_execute_writes_grants_nothing() {
    let server = server();
    let mut near = Process::subscribed(&server);
    near.redis.ok("CONFIG SET min-replicas-to-write 1");
    wait::until("it is noticed", || near.try_feed().is_err());
    refused(&mut near, "min-replicas-to-write");
    near.redis.ok("CONFIG SET min-replicas-to-write 0");
    wait::until("it grants again", || near.try_feed().is_ok());
}

#[test]
fn a_server_that_was_frozen_grants_nothing_for_one_lease() {
    let server = Server::builder().feed(5_000).start();
    let mut near = Process::subscribed(&server);
    near.redis.ok("CONFIG SET mcache.near-lease-ms 400");
    server.pause();
    let waiting = thread::spawn(move || {
        let refusal = near.try_feed().expect_err("it was frozen");
        (near, refusal)
    });
    // Longer than a lease.
    thread::sleep(std::time::Duration::from_millis(900));
    server.resume();
    let (mut near, refusal) = waiting.join().expect("no panic");
    assert!(refusal.contains("did not run"), "{refusal}");
    wait::until("it grants again", || near.try_feed().is_ok());
}

#[test]
fn one_subscriber_too_many_is_refused() {
    let server = server();
    let mut first = Process::subscribed(&server);
    first.redis.ok("CONFIG SET mcache.max-subscribers 1");
    let mut second = Process::new(&server, &[]);
    refused(&mut second, "mcache.max-subscribers is 1");
    first.feed();
    let position = first.subscription();
    assert_eq!(first.redis.int(&format!("MCACHE.FEED {position} END")), 1);
    second.feed();
}

/// What a lease is set to now says nothing of those that another server, or a former run, has granted.
#[test]
fn a_shorter_lease_here_does_not_shorten_what_predecessors_granted() {
    let mut server = Server::builder().feed(100).start();
    let longest = |server: &Server| {
        let mut redis = server.session();
        let answer: (u64, u64, u64) = redis.typed("MCACHE.INVALIDATE NEAR TAGS t");
        (answer.1, answer.2)
    };
    wait::until("predecessors' leases are over", || longest(&server).0 == 0);
    server.kill9();
    server.start_again();
    let (leases, longest_ms) = longest(&server);
    assert_eq!(leases, 1);
    assert!(longest_ms > 1_000, "{longest_ms}");
}
