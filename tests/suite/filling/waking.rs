//! Many clients wait for one thing: they are told in turns, and other clients are served between the turns. All are
//! told in the end.

use harness::{Server, Session, wait};

use crate::filling::fetching::{Waiting, fetch, hit, missed};

/// More clients than are woken at once, for a value of any size.
const CLIENTS: usize = 100;
const LONG: &str = "LEASE 600000 WAIT 600000";

fn all_wait(server: &Server) -> Vec<Waiting> {
    (0..CLIENTS)
        .map(|_| Waiting::park(server, &format!("k {LONG}")))
        .collect()
}

/// How many still wait when the command has been executed: asked in the same read of the same connection.
fn parked_just_after(redis: &mut Session, command: &[&str]) -> usize {
    let mut pipeline = redis::pipe();
    pipeline.cmd(command[0]).arg(&command[1..]).ignore();
    pipeline.cmd("INFO").arg("mcache");
    let (info,): (String,) = pipeline.query(redis.connection()).expect("replies");
    let field = info
        .lines()
        .find_map(|line| line.strip_prefix("mcache_parked_clients:"));
    field.and_then(|n| n.trim().parse().ok()).expect("a number")
}

#[test]
fn the_callers_of_a_large_value_are_woken_in_turns() {
    // A value of a megabyte is read in several rounds, in each of which one is woken; a small one in the round of INFO.
    for (bytes, woken) in [(1 << 20, 1..50), (100, 64..65)] {
        let server = Server::start();
        let mut redis = server.session();
        missed(fetch(&mut redis, &format!("k {LONG}")));
        let waiting = all_wait(&server);
        let value = "v".repeat(bytes);
        let left = parked_just_after(&mut redis, &["MCACHE.SET", "k", "0", &value]);
        assert!(woken.contains(&(CLIENTS - left)), "{bytes} bytes: {left}");
        for client in waiting {
            assert_eq!(client.ended().result, Ok(hit(&value)));
        }
        assert_eq!(redis.stat("parked_clients"), 0);
    }
}

#[test]
fn those_who_wait_are_told_of_a_flush_in_turns() {
    let server = Server::start();
    let mut redis = server.session();
    missed(fetch(&mut redis, &format!("k {LONG}")));
    let waiting = all_wait(&server);
    // ASYNC: newer servers answer a synchronous one when another thread has freed the data.
    let left = parked_just_after(&mut redis, &["FLUSHALL", "ASYNC"]);
    assert!((CLIENTS - 64..CLIENTS).contains(&left), "{left}");
    // They look again and find nothing: the first one fills, and the others are told so, for their wait is over.
    let ended: Vec<_> = waiting.into_iter().map(|client| client.ended()).collect();
    let fill = |state: &str| {
        ended
            .iter()
            .filter(|end| end.result.as_ref().is_ok_and(|r| r.0 == state))
            .count()
    };
    assert_eq!((fill("miss"), fill("busy")), (1, CLIENTS - 1));
}

/// One client holds more leases than end in one turn; it vanishes, and each key's next in line is handed its lease.
#[test]
fn the_leases_of_a_client_that_is_gone_are_passed_on_in_turns() {
    const LEASES: usize = 5_000;
    let server = Server::start();
    let mut redis = server.session();
    let mut holder = server.session();
    let mut pipeline = redis::pipe();
    for n in 0..LEASES {
        let key = format!("k{n:04}");
        let command = pipeline.cmd("MCACHE.FETCH").arg(key);
        command.arg(&["LEASE", "600000"]).ignore();
    }
    pipeline.exec(holder.connection()).expect("leases");
    assert_eq!(redis.stat("leases"), LEASES as i64);
    let heirs: Vec<Waiting> = (0..20)
        .map(|n| Waiting::park(&server, &format!("k{:04} {LONG}", n * 250)))
        .collect();
    drop(holder);
    for heir in heirs {
        missed(heir.ended().result.expect("a reply"));
    }
    wait::until("all leases are gone", || redis.stat("leases") == 0);
}
