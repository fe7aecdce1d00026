//! Of all who miss one key, one fills it; the others wait in the server and get what it filled.

use std::thread;
use std::time::{Duration, Instant};

use harness::topology::Replicated;
use harness::{Server, host, wait};
use redis::{Value, from_redis_value};

use crate::filling::fetching::{Fetched, Waiting, busy, fetch, hit, missed};

#[test]
fn a_hit_is_the_value_and_a_miss_is_a_token() {
    let server = Server::start();
    for mut redis in [server.session(), server.session_resp3()] {
        redis.ok("FLUSHALL");
        let token = missed(fetch(&mut redis, "k"));
        assert_eq!(redis.stat("leases"), 1);
        redis.ok(&format!("MCACHE.SET k 0 v TOKEN {token} TAGS t"));
        assert_eq!(redis.stat("leases"), 0);
        assert_eq!(fetch(&mut redis, "k"), hit("v"));
        assert_eq!(fetch(&mut redis, "k LEASE 10 WAIT 10"), hit("v"));
        assert_eq!(fetch(&mut redis, "k wait 10 lease 10"), hit("v"));
    }
}

#[test]
fn a_brief_hit_is_the_value_alone_and_all_else_is_as_without() {
    let server = Server::start();
    for mut redis in [server.session(), server.session_resp3()] {
        redis.ok("FLUSHALL");
        let token = missed(fetch(&mut redis, "k 30000"));
        let mut other = server.session();
        assert_eq!(fetch(&mut other, "k 30000"), busy());
        let parked = thread::spawn(move || other.try_run("MCACHE.FETCH k 30000 WAIT 30000"));
        wait::until("it is parked", || redis.stat("parked_clients") == 1);
        redis.ok(&format!("MCACHE.SET k 0 v TOKEN {token} TAGS t"));
        let alone = Value::BulkString(b"v".to_vec());
        let woken = parked.join().expect("no panic");
        assert_eq!(woken, Ok(alone.clone()));
        let brief: Value = redis.typed("MCACHE.FETCH k 10 WAIT 10");
        assert_eq!(brief, alone);
        assert_eq!(fetch(&mut redis, "k"), hit("v"));

        redis.ok("MCACHE.SET s 1000 v SWR 1000 TAGS t");
        redis.run("MCACHE.INVALIDATE SOFT TAGS t");
        let (state, value, token) = fetch(&mut redis, "s 30000");
        assert_eq!((&state[..], value.as_deref()), ("stale", Some("v")));
        assert!(token.is_some(), "one refreshes it");
        assert_eq!(
            fetch(&mut redis, "s 30000"),
            ("stale".into(), Some("v".into()), None)
        );

        // So near its end that hardly any reader is not chosen; one that is not gets the value alone.
        redis.ok("MCACHE.SET e 100 v");
        wait::until("a reader is to refresh it", || {
            let answer: Value = redis.typed("MCACHE.FETCH e 30000 EARLY 600000");
            match answer {
                Value::BulkString(_) => false,
                answer => {
                    let (state, _, token): Fetched = from_redis_value(answer).expect("three parts");
                    assert_eq!(state, "hit");
                    token.is_some()
                }
            }
        });
    }
}

#[test]
fn while_one_fills_the_others_are_told_so() {
    let server = Server::start();
    let (mut first, mut second) = (server.session(), server.session());
    missed(fetch(&mut first, "k"));
    assert_eq!(fetch(&mut second, "k"), busy());
    assert_eq!(fetch(&mut second, "k WAIT 0"), busy());
    missed(fetch(&mut second, "other"));
}

#[test]
fn those_who_wait_get_the_value_from_the_fill() {
    let server = Server::start();
    let mut redis = server.session();
    let token = missed(fetch(&mut redis, "k"));
    let waiting: Vec<_> = (0..5)
        .map(|_| Waiting::park(&server, "k WAIT 30000"))
        .collect();
    redis.ok(&format!("MCACHE.SET k 0 v TOKEN {token}"));
    for client in waiting {
        assert_eq!(client.fetched(), hit("v"));
    }
    assert_eq!(redis.stat("parked_clients"), 0);
}

#[test]
fn a_fill_by_somebody_else_wakes_as_well() {
    let server = Server::start();
    let mut redis = server.session();
    missed(fetch(&mut redis, "k"));
    let client = Waiting::park(&server, "k WAIT 30000");
    server.session().ok("MCACHE.SET k 0 other");
    assert_eq!(client.fetched(), hit("other"));
}

#[test]
fn release_makes_the_next_in_line_the_one_who_fills() {
    let server = Server::start();
    let mut redis = server.session();
    let token = missed(fetch(&mut redis, "k"));
    let second = Waiting::park(&server, "k WAIT 30000");
    let third = Waiting::park(&server, "k WAIT 30000");
    assert_eq!(redis.int(&format!("MCACHE.RELEASE k {token}")), 1);
    let (fetched, _holder) = second.connected();
    let next = missed(fetched);
    assert_eq!(
        redis.int(&format!("MCACHE.RELEASE k {token}")),
        0,
        "no longer the holder"
    );
    redis.ok(&format!("MCACHE.SET k 0 v TOKEN {next}"));
    assert_eq!(third.fetched(), hit("v"));
}

#[test]
fn release_with_nobody_in_line_frees_the_key() {
    let server = Server::start();
    let mut redis = server.session();
    let token = missed(fetch(&mut redis, "k"));
    assert_eq!(redis.int(&format!("MCACHE.RELEASE other {token}")), 0);
    assert_eq!(redis.int(&format!("MCACHE.RELEASE k {token}")), 1);
    assert_eq!(redis.stat("leases"), 0);
    missed(fetch(&mut redis, "k"));
}

#[test]
fn a_lease_ends_by_itself() {
    let server = Server::start();
    let mut redis = server.session();
    let token = missed(fetch(&mut redis, "k LEASE 100"));
    missed(fetch(&mut server.session(), "k WAIT 600000"));
    // Late, but nothing was invalidated meanwhile: as good as any.
    redis.ok(&format!("MCACHE.SET k 0 late TOKEN {token}"));
    assert_eq!(fetch(&mut redis, "k"), hit("late"));
}

#[test]
fn the_holders_disconnect_makes_the_next_in_line_the_one_who_fills() {
    let server = Server::start();
    let mut holder = server.session();
    missed(fetch(&mut holder, "k LEASE 600000"));
    let second = Waiting::park(&server, "k WAIT 30000");
    drop(holder);
    missed(second.fetched());
}

#[test]
fn a_killed_holder_is_a_disconnected_one() {
    let server = Server::start();
    let mut holder = server.session();
    let id = holder.int("CLIENT ID");
    missed(fetch(&mut holder, "k LEASE 600000"));
    let second = Waiting::park(&server, "k WAIT 30000");
    assert_eq!(server.session().int(&format!("CLIENT KILL ID {id}")), 1);
    missed(second.fetched());
}

#[test]
fn waiting_ends_on_time() {
    let server = Server::start();
    let mut redis = server.session();
    missed(fetch(&mut redis, "k LEASE 600000"));
    let began = Instant::now();
    assert_eq!(fetch(&mut server.session(), "k WAIT 150"), busy());
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(149), "{waited:?}");
    assert_eq!(redis.stat("parked_clients"), 0);
}

#[test]
fn a_client_that_is_gone_or_unblocked_leaves_the_line() {
    let server = Server::start();
    let mut redis = server.session();
    let token = missed(fetch(&mut redis, "k LEASE 600000"));
    if host::program().host.can_end_waits() {
        let unblocked = Waiting::park(&server, "k WAIT 600000");
        assert_eq!(redis.int(&format!("CLIENT UNBLOCK {}", unblocked.id)), 1);
        assert_eq!(unblocked.fetched(), busy());
    }

    let mut gone = server.session();
    let id = gone.int("CLIENT ID");
    let gone = thread::spawn(move || gone.try_run("MCACHE.FETCH k WAIT 600000"));
    wait::until("the client is parked", || redis.stat("parked_clients") == 1);
    let last = Waiting::park(&server, "k WAIT 600000");
    redis.int(&format!("CLIENT KILL ID {id}"));
    assert!(gone.join().expect("it was told").is_err());
    redis.int(&format!("MCACHE.RELEASE k {token}"));
    missed(last.fetched());
}

#[test]
fn a_refused_fill_hands_the_key_on() {
    let server = Server::start();
    let mut redis = server.session();
    let token = missed(fetch(&mut redis, "k"));
    let second = Waiting::park(&server, "k WAIT 30000");
    redis.int("MCACHE.INVALIDATE TAGS t");
    assert_eq!(
        redis.run(&format!("MCACHE.SET k 0 old TOKEN {token} TAGS t")),
        Value::Nil
    );
    let next = missed(second.fetched());
    redis.ok(&format!("MCACHE.SET k 0 new TOKEN {next} TAGS t"));
}

#[test]
fn what_was_invalidated_while_somebody_waited_is_not_what_they_get() {
    let server = Server::start();
    let mut redis = server.session();
    let token = missed(fetch(&mut redis, "k"));
    let second = Waiting::park(&server, "k WAIT 30000");
    redis.ok("MULTI");
    redis.run(&format!("MCACHE.SET k 0 v TOKEN {token} TAGS t"));
    redis.run("MCACHE.INVALIDATE TAGS t");
    redis.run("EXEC");
    let (state, value, _) = second.fetched();
    assert_eq!((state.as_str(), value), ("miss", None));
}

#[test]
fn flush_and_swap_make_those_who_wait_look_again() {
    for line in ["FLUSHDB", "FLUSHALL ASYNC", "SWAPDB 0 1"] {
        let server = Server::start();
        let mut redis = server.session();
        redis.ok("SELECT 1");
        redis.ok("MCACHE.SET k 0 v");
        redis.ok("SELECT 0");
        missed(fetch(&mut redis, "k LEASE 600000"));
        let second = Waiting::park(&server, "k WAIT 30000");
        redis.ok(line);
        let fetched = second.fetched();
        if line.starts_with("SWAPDB") {
            assert_eq!(fetched, hit("v"), "{line}");
        } else {
            missed(fetched);
        }
    }
}

#[test]
fn a_deleted_key_makes_those_who_wait_look_again() {
    for delete in ["DEL k", "UNLINK k other"] {
        let server = Server::start();
        let mut redis = server.session();
        missed(fetch(&mut redis, "k"));
        let waiting = Waiting::park(&server, "k WAIT 60000");
        // There must be something to delete: Redis says nothing of a key that is not there.
        redis.ok("SET k foreign");
        redis.int(delete);
        missed(waiting.fetched());
    }
}

#[test]
fn nobody_is_parked_where_they_must_not_be() {
    let server = Server::start();
    let mut redis = server.session();
    missed(fetch(&mut redis, "k LEASE 600000"));
    let mut other = server.session();
    other.ok("MULTI");
    other.run("MCACHE.FETCH k WAIT 600000");
    let Value::Array(replies) = other.run("EXEC") else {
        panic!("EXEC gives an array")
    };
    assert_eq!(
        from_redis_value::<Fetched>(replies[0].clone()).expect("a reply"),
        busy()
    );
    let script = "return redis.call('MCACHE.FETCH', KEYS[1], 'WAIT', '600000')";
    let reply = other.call(&["EVAL", script, "1", "k"]);
    assert_eq!(from_redis_value::<Fetched>(reply).expect("a reply"), busy());
    other.ok("CONFIG SET mcache.max-waiters 1");
    let parked = Waiting::park(&server, "k WAIT 600000");
    assert_eq!(fetch(&mut other, "k WAIT 600000"), busy());
    other.ok("MCACHE.SET k 0 v");
    assert_eq!(parked.fetched(), hit("v"));
}

#[test]
fn a_replica_serves_and_never_parks_or_hands_out_tokens() {
    let replicated = Replicated::start(1);
    let mut primary = replicated.primary.session();
    primary.ok("MCACHE.SET k 0 v TAGS t");
    missed(fetch(&mut primary, "missing"));
    replicated.sync();
    let mut replica = replicated.replicas[0].session();
    assert_eq!(fetch(&mut replica, "k WAIT 600000"), hit("v"));
    assert_eq!(
        fetch(&mut replica, "missing WAIT 600000"),
        ("miss".into(), None, None)
    );
}

#[test]
fn a_thousand_callers_load_once() {
    const CALLERS: usize = 1_000;
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET hot 0 old TAGS t");
    redis.int("MCACHE.INVALIDATE TAGS t");
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let mut session = server.session();
            thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn(move || {
                    let (state, value, token) = fetch(&mut session, "hot WAIT 60000");
                    if let Some(token) = token {
                        // Loading takes a while: all others should be waiting by then.
                        wait::until("the others wait", || {
                            session.stat("parked_clients") as usize == CALLERS - 1
                        });
                        session.ok(&format!("MCACHE.SET hot 0 new TOKEN {token} TAGS t"));
                        return (true, Some("new".to_owned()));
                    }
                    assert_eq!(state, "hit");
                    (false, value)
                })
                .expect("a thread")
        })
        .collect();
    let results: Vec<_> = callers
        .into_iter()
        .map(|caller| caller.join().expect("served"))
        .collect();
    assert_eq!(results.iter().filter(|(loaded, _)| *loaded).count(), 1);
    assert!(
        results
            .iter()
            .all(|(_, value)| value.as_deref() == Some("new"))
    );
    assert_eq!(redis.stat("parked_clients"), 0);
    assert_eq!(redis.stat("leases"), 0);
}

#[test]
fn bad_input_is_refused_and_leases_nothing() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("SET text 1");
    for (line, refusal) in [
        (
            "MCACHE.FETCH",
            "ERR wrong number of arguments for 'MCACHE.FETCH' command",
        ),
        (
            "MCACHE.FETCH text",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        ),
        (
            "MCACHE.FETCH k LEASE",
            "ERR syntax error: LEASE must be followed by milliseconds",
        ),
        (
            "MCACHE.FETCH k LEASE 0",
            "ERR invalid LEASE '0': expected an integer from 1 to 600000",
        ),
        (
            "MCACHE.FETCH k LEASE 600001",
            "ERR invalid LEASE '600001': expected an integer from 1 to 600000",
        ),
        (
            "MCACHE.FETCH k WAIT -1",
            "ERR invalid WAIT '-1': expected an integer from 0 to 600000",
        ),
        (
            "MCACHE.FETCH k WAIT 1.5",
            "ERR invalid WAIT '1.5': expected an integer from 0 to 600000",
        ),
        (
            "MCACHE.FETCH k 600001",
            "ERR invalid brief-ms '600001': expected an integer from 1 to 600000",
        ),
        (
            "MCACHE.FETCH k 0",
            "ERR invalid brief-ms '0': expected an integer from 1 to 600000",
        ),
        (
            "MCACHE.FETCH k LEASE 10 10",
            "ERR syntax error: expected LEASE, WAIT, EARLY or NEAR, got '10'",
        ),
        (
            "MCACHE.FETCH k NOW",
            "ERR syntax error: expected LEASE, WAIT, EARLY or NEAR, got 'NOW'",
        ),
        (
            "MCACHE.RELEASE k",
            "ERR wrong number of arguments for 'MCACHE.RELEASE' command",
        ),
        (
            "MCACHE.RELEASE k x",
            "ERR invalid token: expected the 32 hex digits that FETCH or TOKEN returned",
        ),
    ] {
        assert_eq!(
            redis.error(line).to_lowercase(),
            refusal.to_lowercase(),
            "{line}"
        );
    }
    assert_eq!(redis.stat("leases"), 0);
}

#[test]
fn shutdown_does_not_wait_for_those_who_wait() {
    let mut server = Server::start();
    let mut redis = server.session();
    missed(fetch(&mut redis, "k LEASE 600000"));
    let mut session = server.session();
    let parked = thread::spawn(move || session.try_run("MCACHE.FETCH k WAIT 600000"));
    wait::until("the client is parked", || redis.stat("parked_clients") == 1);
    server.stop();
    assert!(parked.join().expect("it was told").is_err());
    server.start_again();
}
