//! Clients that wait for another client's fill when things go wrong: ends on time, clients that vanish in every way,
//! servers that change their role. No client is stuck, and nothing is left behind.

use std::thread;
use std::time::{Duration, Instant};

use harness::topology::Replicated;
use harness::{Server, host, wait};

use crate::filling::fetching::{Fetched, Waiting, fetch, missed};

/// Longer than any test: what ends earlier was ended by something else.
const LONG: &str = "LEASE 600000 WAIT 600000";

/// Whether this server lets CLIENT UNBLOCK end the wait of a parked client; noted if not.
fn ends_waits() -> bool {
    let ends = host::program().host.can_end_waits();
    host::has(ends, "it cannot end waits safely")
}

#[track_caller]
fn assert_nothing_left(server: &Server) {
    let mut redis = server.session();
    wait::until("no leases and no parked clients", || {
        (redis.stat("leases"), redis.stat("parked_clients")) == (0, 0)
    });
}

#[test]
fn waits_and_leases_end_to_the_millisecond() {
    let server = Server::start();
    let (mut holder, mut waiter) = (server.session(), server.session());
    // A busy machine can delay any one of them: the best of several tells what the server does.
    let (mut wait_over_ms, mut lease_over_ms) = (f64::MAX, f64::MAX);
    let mut trial = 0;
    wait::until("one of each is less than 5 ms late", || {
        trial += 1;
        let ms = 20 + 7 * (trial % 12);
        let over_ms = |began: Instant| began.elapsed().as_secs_f64() * 1000.0 - ms as f64;

        missed(fetch(&mut holder, &format!("wait{trial} LEASE 600000")));
        let began = Instant::now();
        let (state, ..) = fetch(&mut waiter, &format!("wait{trial} WAIT {ms}"));
        let over = over_ms(began);
        assert_eq!(state, "busy");
        assert!(over >= -1.0, "a wait of {ms} ms ended {over} ms late");
        wait_over_ms = wait_over_ms.min(over);

        let began = Instant::now();
        missed(fetch(&mut holder, &format!("lease{trial} LEASE {ms}")));
        missed(fetch(&mut waiter, &format!("lease{trial} WAIT 600000")));
        let over = over_ms(began);
        assert!(over >= -1.0, "a lease of {ms} ms ended {over} ms late");
        lease_over_ms = lease_over_ms.min(over);
        trial >= 12 && wait_over_ms < 5.0 && lease_over_ms < 5.0
    });
    println!("late by, at best: waits {wait_over_ms:.2} ms, leases {lease_over_ms:.2} ms");
}

#[test]
fn each_of_many_waits_ends_in_its_own_time() {
    const CLIENTS: u64 = 100;
    let server = Server::start();
    let mut holder = server.session();
    missed(fetch(&mut holder, "held LEASE 600000"));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            // Neither in order of their ends nor against it.
            let ms = 100 + n * 37 % CLIENTS * 5;
            let mut session = server.session();
            thread::spawn(move || {
                let began = Instant::now();
                let (state, ..) = fetch(&mut session, &format!("held WAIT {ms}"));
                (state, ms, began.elapsed())
            })
        })
        .collect();
    for client in clients {
        let (state, ms, waited) = client.join().expect("a reply");
        assert_eq!(state, "busy");
        assert!(waited >= Duration::from_millis(ms - 1), "{ms}: {waited:?}");
    }
    assert_eq!(holder.stat("parked_clients"), 0);
}

#[test]
fn unblocked_with_an_error_it_leaves_the_line() {
    if !ends_waits() {
        return;
    }
    let server = Server::start();
    let mut redis = server.session();
    let token = missed(fetch(&mut redis, "k LEASE 600000"));
    let unblocked = Waiting::park(&server, &format!("k {LONG}"));
    let next = Waiting::park(&server, &format!("k {LONG}"));
    let line = format!("CLIENT UNBLOCK {} ERROR", unblocked.id);
    assert_eq!(redis.int(&line), 1);
    assert_eq!(
        unblocked.result(),
        Err("UNBLOCKED client unblocked via CLIENT UNBLOCK".to_owned())
    );
    assert_eq!(redis.int(&line), 0, "it is not blocked any more");
    redis.int(&format!("MCACHE.RELEASE k {token}"));
    missed(next.fetched());
}

#[test]
fn an_unblocked_connection_is_as_good_as_before() {
    if !ends_waits() {
        return;
    }
    let server = Server::start();
    let mut redis = server.session();
    let token = missed(fetch(&mut redis, "k LEASE 600000"));
    for how in ["TIMEOUT", "ERROR"] {
        let client = Waiting::park(&server, &format!("k {LONG}"));
        redis.int(&format!("CLIENT UNBLOCK {} {how}", client.id));
        let mut session = client.ended().session;
        assert_eq!(session.text("PING").as_deref(), Some("PONG"), "after {how}");
        let again = Waiting::park_as(&server, session, &format!("k {LONG}"));
        redis.ok(&format!("MCACHE.SET k 0 v TOKEN {token}"));
        assert_eq!(again.fetched().0, "hit");
        redis.int("DEL k");
        missed(fetch(&mut redis, "k LEASE 600000"));
    }
}

#[test]
fn a_hundred_holders_in_a_row_vanish_and_the_last_in_line_fills() {
    const HOLDERS: usize = 100;
    let server = Server::start();
    let mut redis = server.session();
    let mut holder = server.session();
    missed(fetch(&mut holder, "k LEASE 600000"));
    let line: Vec<_> = (0..HOLDERS)
        .map(|_| Waiting::park(&server, &format!("k {LONG}")))
        .collect();
    let mut token = String::new();
    for client in line {
        drop(holder);
        // In order of arrival, each with the lease.
        let (fetched, session) = client.connected();
        (token, holder) = (missed(fetched), session);
        assert_eq!(redis.stat("leases"), 1);
    }
    holder.ok(&format!("MCACHE.SET k 0 v TOKEN {token}"));
    assert_nothing_left(&server);
}

#[test]
fn a_client_in_line_behind_itself_vanishes_from_both_places() {
    let server = Server::start();
    let mut twice = server.session();
    missed(fetch(&mut twice, "k LEASE 600000"));
    let twice = Waiting::park_as(&server, twice, &format!("k {LONG}"));
    let next = Waiting::park(&server, &format!("k {LONG}"));
    server
        .session()
        .int(&format!("CLIENT KILL ID {}", twice.id));
    assert!(twice.result().is_err());
    missed(next.fetched());
    assert_nothing_left(&server);
}

#[test]
fn killing_everybody_at_once_leaves_nothing() {
    let server = Server::start();
    let mut redis = server.session();
    let mut holder = server.session();
    missed(fetch(&mut holder, "k LEASE 600000"));
    let clients: Vec<_> = (0..200)
        .map(|_| Waiting::park(&server, &format!("k {LONG}")))
        .collect();
    assert_eq!(redis.stat("parked_clients"), 200);
    // The one who kills is spared.
    assert!(redis.int("CLIENT KILL TYPE normal") >= 201);
    for client in clients {
        assert!(client.result().is_err());
    }
    assert_nothing_left(&server);
}

#[test]
fn a_deleted_user_leaves_line_and_lease() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("ACL SETUSER shop on >secret ~* +@all");
    let mut holder = server.session_as("shop", "secret");
    missed(fetch(&mut holder, "k LEASE 600000"));
    let same_user = Waiting::park_as(
        &server,
        server.session_as("shop", "secret"),
        &format!("k {LONG}"),
    );
    let other_user = Waiting::park(&server, &format!("k {LONG}"));
    assert_eq!(redis.int("ACL DELUSER shop"), 1);
    assert!(same_user.result().is_err());
    missed(other_user.fetched());
    assert_nothing_left(&server);
}

#[test]
fn room_is_made_by_whoever_leaves() {
    let server = Server::builder().set("mcache.max-waiters", 2).start();
    let mut redis = server.session();
    missed(fetch(&mut redis, "k LEASE 600000"));
    let first = Waiting::park(&server, &format!("k {LONG}"));
    let second = Waiting::park(&server, &format!("k {LONG}"));
    assert_eq!(fetch(&mut server.session(), &format!("k {LONG}")).0, "busy");
    redis.int(&format!("CLIENT KILL ID {}", first.id));
    assert!(first.result().is_err());
    wait::until("there is room", || redis.stat("parked_clients") == 1);
    let third = Waiting::park(&server, &format!("k {LONG}"));
    redis.ok("MCACHE.SET k 0 v");
    assert_eq!(second.fetched().0, "hit");
    assert_eq!(third.fetched().0, "hit");
}

#[test]
fn a_fill_from_a_script_or_a_transaction_wakes() {
    let server = Server::start();
    let mut redis = server.session();
    for from in ["a script", "a transaction"] {
        let token = missed(fetch(&mut redis, "k LEASE 600000"));
        let client = Waiting::park(&server, &format!("k {LONG}"));
        if from == "a script" {
            let script = "return redis.call('MCACHE.SET', KEYS[1], 0, 'v', 'TOKEN', ARGV[1])";
            redis.call(&["EVAL", script, "1", "k", &token]);
        } else {
            redis.ok("MULTI");
            redis.run(&format!("MCACHE.SET k 0 v TOKEN {token}"));
            redis.run("EXEC");
        }
        let expected = ("hit".to_owned(), Some("v".to_owned()), None);
        assert_eq!(client.fetched(), expected, "{from}");
        redis.int("DEL k");
    }
}

#[test]
fn other_keys_and_other_databases_wake_nobody() {
    let server = Server::start();
    let mut redis = server.session();
    let token = missed(fetch(&mut redis, "k LEASE 600000"));
    let client = Waiting::park(&server, &format!("k {LONG}"));
    redis.ok("SELECT 1");
    let elsewhere = missed(fetch(&mut redis, "k LEASE 600000"));
    redis.ok(&format!("MCACHE.SET k 0 elsewhere TOKEN {elsewhere}"));
    redis.ok("FLUSHDB");
    redis.ok("SELECT 0");
    redis.ok("MCACHE.SET other 0 v");
    redis.int("DEL k other");
    assert_eq!(redis.stat("parked_clients"), 1);
    // A flush refuses fills in all databases; this one hands the key on.
    assert_eq!(
        redis.run(&format!("MCACHE.SET k 0 old TOKEN {token}")),
        redis::Value::Nil
    );
    missed(client.fetched());
}

#[test]
fn what_a_parked_client_sent_after_it_is_answered_after_it() {
    let server = Server::start();
    let mut redis = server.session();
    let token = missed(fetch(&mut redis, "k LEASE 600000"));
    let mut session = server.session();
    let pipelined = thread::spawn(move || {
        redis::pipe()
            .cmd("MCACHE.FETCH")
            .arg(&["k", "WAIT", "600000"])
            .cmd("MCACHE.SET")
            .arg(&["k", "0", "second"])
            .cmd("MCACHE.GET")
            .arg("k")
            .query::<(Fetched, String, String)>(session.connection())
    });
    wait::until("the client is parked", || redis.stat("parked_clients") == 1);
    redis.ok(&format!("MCACHE.SET k 0 first TOKEN {token}"));
    let (fetched, _, value) = pipelined.join().expect("a thread").expect("replies");
    assert_eq!(fetched.1.as_deref(), Some("first"));
    assert_eq!(value, "second");
}

#[test]
fn a_primary_that_becomes_a_replica_sends_everybody_away() {
    let replicated = Replicated::start(1);
    let (primary, replica) = (&replicated.primary, &replicated.replicas[0]);
    let mut holder = primary.session();
    let token = missed(fetch(&mut holder, "k LEASE 600000"));
    let clients: Vec<_> = (0..20)
        .map(|_| Waiting::park(primary, &format!("k {LONG}")))
        .collect();
    let mut promoted = replica.session();
    promoted.ok("REPLICAOF NO ONE");
    let mut demoted = primary.session();
    demoted.ok(&format!("REPLICAOF 127.0.0.1 {}", replica.port()));
    for client in clients {
        let refusal = client.result().expect_err("the fill will not come here");
        assert!(refusal.starts_with("UNBLOCKED"), "{refusal}");
    }
    harness::topology::await_link(primary);
    assert_nothing_left(primary);

    // They ask the new primary; what the old one handed out is worth nothing there, nor here once it is back.
    let fresh = missed(fetch(&mut promoted, &format!("k {LONG}")));
    let fill = |token: &str| format!("MCACHE.SET k 0 v TOKEN {token} TAGS t");
    assert_eq!(promoted.run(&fill(&token)), redis::Value::Nil);
    promoted.ok(&fill(&fresh));
    wait::until("the fill has arrived", || {
        fetch(&mut demoted, &format!("k {LONG}")).0 == "hit"
    });
    demoted.ok("REPLICAOF NO ONE");
    assert_eq!(demoted.run(&fill(&token)), redis::Value::Nil);
    assert_eq!(demoted.run(&fill(&fresh)), redis::Value::Nil);
}

#[test]
fn a_shutdown_does_not_wait_for_a_thousand_parked_clients() {
    const CLIENTS: usize = 1_000;
    let mut server = Server::start();
    let mut redis = server.session();
    missed(fetch(&mut redis, "k LEASE 600000"));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut session = server.session();
            thread::Builder::new()
                .stack_size(128 * 1024)
                .spawn(move || session.try_run("MCACHE.FETCH k LEASE 600000 WAIT 600000"))
                .expect("a thread")
        })
        .collect();
    wait::until("all are parked", || {
        redis.stat("parked_clients") as usize == CLIENTS
    });
    server.stop();
    for client in clients {
        assert!(client.join().expect("it was told").is_err());
    }
    server.start_again();
    assert_nothing_left(&server);
}

#[test]
fn a_key_that_became_another_type_is_handed_on_until_it_is_gone() {
    let server = Server::start();
    let mut holder = server.session();
    let token = missed(fetch(&mut holder, "k LEASE 600000"));
    let parked = Waiting::park(&server, &format!("k {LONG}"));
    holder.ok("SET k foreign");
    let error = holder.error(&format!("MCACHE.SET k 0 v TOKEN {token}"));
    assert!(error.starts_with("WRONGTYPE"), "{error}");
    assert_eq!(holder.int(&format!("MCACHE.RELEASE k {token}")), 1);
    let (fetched, mut next) = parked.connected();
    let token = missed(fetched);
    holder.int("DEL k");
    next.ok(&format!("MCACHE.SET k 0 v TOKEN {token}"));
    assert_nothing_left(&server);
}

#[test]
fn the_module_cannot_be_unloaded_and_a_pause_of_clients_only_delays() {
    let server = Server::builder()
        .set("enable-module-command", "yes")
        .start();
    let mut holder = server.session();
    let mut other = server.session();
    let token = missed(fetch(&mut holder, "k LEASE 600000"));
    let parked = Waiting::park(&server, &format!("k {LONG}"));
    let error = other.error("MODULE UNLOAD mcache");
    assert!(error.contains("unload"), "{error}");
    other.ok("CLIENT PAUSE 100 WRITE");
    assert_eq!(other.stat("parked_clients"), 1);
    holder.ok(&format!("MCACHE.SET k 0 v TOKEN {token}"));
    assert_eq!(parked.fetched().1.as_deref(), Some("v"));
    assert_nothing_left(&server);
}
