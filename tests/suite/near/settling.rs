//! When an invalidation is settled.

use std::thread;

use harness::{Server, Session, wait};

use super::process::{Process, answer};
use super::server;

/// Servers that start have predecessors; a test that is about something else waits until their leases are over.
fn quiet() -> Server {
    let server = server();
    server.session().await_predecessors();
    server
}

fn settle(redis: &mut Session, line: &str) -> (u64, u64, u64) {
    redis.typed(line)
}

fn waits(redis: &mut Session, line: &str) -> (u64, u64, u64) {
    redis.typed(line)
}

#[test]
fn it_is_settled_when_each_near_cache_has_confirmed() {
    let server = quiet();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS t");
    assert_eq!(
        waits(&mut redis, "MCACHE.INVALIDATE NEAR TAGS t"),
        (1, 0, 0)
    );
    let mut near = Process::subscribed(&server);
    redis.ok("MCACHE.SET k 0 v TAGS t");
    assert!(near.read("k"));
    let (invalidated, leases, longest_ms) = waits(&mut redis, "MCACHE.INVALIDATE NEAR TAGS t");
    assert_eq!((invalidated, leases), (1, 1));
    assert!((1..=5_101).contains(&longest_ms), "{longest_ms}");
    assert_eq!(settle(&mut redis, "MCACHE.SETTLE 0"), (0, 0, 1));

    let settling = thread::spawn(move || settle(&mut redis, "MCACHE.SETTLE 60000 PREFIX t"));
    let mut observer = server.session();
    wait::until("SETTLE is parked", || observer.stat("settles_parked") == 1);
    near.feed();
    assert!(!near.holds("k"));
    assert_eq!(
        observer.stat("settles_parked"),
        1,
        "an answer confirms nothing"
    );
    near.feed();
    assert_eq!(settling.join().expect("settled"), (1, 0, 0));
}

#[test]
fn a_parked_near_cache_is_woken_and_settles() {
    let server = quiet();
    let mut near = Process::subscribed(&server);
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS t");
    assert!(near.read("k"));
    near.feed();
    // It calls again and again, as a client does, until it has seen the event and confirmed it.
    let looping = thread::spawn(move || {
        let mut confirmed = false;
        loop {
            let (sent, line) = near.call(300);
            let told = answer(near.redis.run(&line));
            if confirmed {
                return near;
            }
            confirmed = !near.holds("k") || !told.events.is_empty();
            near.answered(&sent, told);
        }
    });
    wait::until("FEED is parked", || redis.stat("feed_parked") == 1);
    redis.run("MCACHE.INVALIDATE TAGS t");
    let (confirmed, ran_out, waiting) = settle(&mut redis, "MCACHE.SETTLE 60000");
    assert_eq!((confirmed + ran_out, waiting), (1, 0));
    assert!(!looping.join().expect("no panic").holds("k"));
}

/// Its connection is killed, its process may go on serving: only time tells.
#[test]
fn a_disconnect_confirms_nothing() {
    let server = quiet();
    let mut near = Process::subscribed(&server);
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS t");
    assert!(near.read("k"));
    near.feed();
    let id = near.redis.int("CLIENT ID");
    let (_, line) = near.call(300);
    let gone = thread::spawn(move || {
        near.redis.try_run(&line).expect_err("killed");
        near
    });
    wait::until("FEED is parked", || redis.stat("feed_parked") == 1);
    redis.run(&format!("CLIENT KILL ID {id}"));
    let near = gone.join().expect("no panic");
    redis.run("MCACHE.INVALIDATE TAGS t");
    let (confirmed, ran_out, waiting) = settle(&mut redis, "MCACHE.SETTLE 60000");
    assert_eq!((confirmed, ran_out, waiting), (0, 1, 0));
    assert_eq!(near.get("k"), None, "its lease is over by now");
    assert_eq!(redis.stat("near_subscribers"), 1);
}

#[test]
fn in_transactions_and_scripts_it_replies_at_once() {
    let server = quiet();
    let near = Process::subscribed(&server);
    let mut redis = server.session();
    redis.run("MCACHE.INVALIDATE TAGS t");
    redis.ok("MULTI");
    redis.run("MCACHE.SETTLE 60000");
    redis.run(&format!("MCACHE.FEED {} WAIT 300", near.subscription()));
    let replies: (Vec<u64>, redis::Value) = redis.typed("EXEC");
    assert_eq!(replies.0, [0, 0, 1]);
    assert_eq!(answer(replies.1).events.len(), 1);
    redis.run("MCACHE.INVALIDATE TAGS t");
    let script = "EVAL \"return redis.call('MCACHE.SETTLE', '60000')\" 0";
    assert_eq!(settle(&mut redis, script), (0, 0, 1));
}

#[test]
fn a_server_that_starts_waits_for_its_predecessors_unless_the_feed_is_off() {
    let server = server();
    let mut redis = server.session();
    let (_, leases, longest_ms) = waits(&mut redis, "MCACHE.INVALIDATE NEAR TAGS t");
    assert_eq!(leases, 1);
    assert!((1..=5_300).contains(&longest_ms), "{longest_ms}");
    let (confirmed, ran_out, waiting) = settle(&mut redis, "MCACHE.SETTLE 60000");
    assert_eq!((confirmed, ran_out, waiting), (0, 1, 0));
    redis.ok("CONFIG SET mcache.feed no");
    redis.ok("CONFIG SET mcache.feed yes");
    assert_eq!(waits(&mut redis, "MCACHE.INVALIDATE NEAR TAGS t").1, 1);

    let server = Server::start();
    let mut redis = server.session();
    assert_eq!(
        waits(&mut redis, "MCACHE.INVALIDATE NEAR TAGS t"),
        (0, 0, 0)
    );
    assert_eq!(settle(&mut redis, "MCACHE.SETTLE 60000"), (0, 0, 0));
}
