//! A client that the module wakes in the same turn of the event loop in which the server itself would end its wait.
//! Servers before Redis 7.4 and Valkey 8 leave it without an answer then, so that each later one is taken for the
//! answer before, or end themselves.

use std::thread;
use std::time::Duration;

use harness::{Server, host, wait};

use crate::filling::fetching::{Waiting, fetch, hit, missed};
use crate::near::process::Process;

/// How much later than its own end the server would end a wait.
const MARGIN: Duration = Duration::from_secs(5);

#[test]
fn a_client_that_is_woken_and_unblocked_in_one_turn_is_answered_once() {
    let server = Server::start();
    let mut redis = server.session();
    for how in ["TIMEOUT", "ERROR"] {
        let token = missed(fetch(&mut redis, "k LEASE 600000"));
        let client = Waiting::park(&server, "k LEASE 600000 WAIT 600000");
        // In one message, so that both are executed in one turn.
        redis.run_all([
            format!("MCACHE.SET k 0 v TOKEN {token}"),
            format!("CLIENT UNBLOCK {} {how}", client.id),
        ]);
        let mut ended = client.ended();
        match ended.result {
            Ok(fetched) => assert_eq!(fetched, hit("v"), "{how}"),
            Err(error) => assert!(error.starts_with("UNBLOCKED"), "{how}: {error}"),
        }
        let next = ended.session.text("ECHO next");
        assert_eq!(next.as_deref(), Some("next"), "{how}");
        redis.int("DEL k");
    }
}

#[test]
fn what_waits_end_on_while_the_server_stands_still_is_answered() {
    let server = Server::builder().feed(5_000).start();
    let mut redis = server.session();
    redis.await_predecessors();
    let token = missed(fetch(&mut redis, "k LEASE 600000"));
    // One that does not confirm, which SETTLE waits for; and one that has nothing to hear.
    let silent = Process::subscribed(&server);
    redis.run("MCACHE.INVALIDATE TAGS t");
    let mut hears = Process::subscribed(&server);
    hears.feed();
    let lines = [
        "MCACHE.FETCH k WAIT 500".to_owned(),
        "MCACHE.SETTLE 500".to_owned(),
        format!("MCACHE.FEED {} WAIT 500", hears.subscription()),
    ];
    let clients: Vec<_> = lines
        .into_iter()
        .map(|line| {
            let mut session = server.session();
            thread::spawn(move || {
                let reply = session.try_run(&line);
                (line, reply, session)
            })
        })
        .collect();
    wait::until("they are parked", || {
        let parked = ["parked_clients", "settles_parked", "feed_parked"];
        parked.iter().all(|stat| redis.stat(stat) == 1)
    });
    server.pause();
    // No condition tells that so much time has passed for a process that does not run.
    thread::sleep(MARGIN + Duration::from_millis(1_500));
    server.resume();
    for client in clients {
        let (line, reply, mut session) = client.join().expect("no panic");
        // It cannot know what it missed, so it grants nothing for a while.
        let refused =
            matches!(&reply, Err(error) if error.starts_with("NONEAR this server did not run"));
        assert!(reply.is_ok() || refused, "{line}: {reply:?}");
        let next = session.text("ECHO next");
        assert_eq!(next.as_deref(), Some("next"), "{line}");
    }
    drop(silent);
    redis.int(&format!("MCACHE.RELEASE k {token}"));
}

/// Elsewhere CLIENT UNBLOCK finds no client that it may wake.
#[test]
fn client_unblock_ends_a_wait_where_that_is_safe() {
    let server = Server::start();
    let mut redis = server.session();
    let token = missed(fetch(&mut redis, "k LEASE 600000"));
    let client = Waiting::park(&server, "k LEASE 600000 WAIT 600000");
    let ends = host::program().host.can_end_waits();
    let woken = redis.int(&format!("CLIENT UNBLOCK {}", client.id));
    assert_eq!(woken, i64::from(ends));
    assert_eq!(redis.stat("parked_clients"), i64::from(!ends));
    redis.ok(&format!("MCACHE.SET k 0 v TOKEN {token}"));
    let (state, ..) = client.fetched();
    assert_eq!(state, if ends { "busy" } else { "hit" });
}
