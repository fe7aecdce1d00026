//! A bug in the module: the server goes on, the caller hears of it, and nothing that may be wrong is served, on
//! replicas and after a restart as well. The bugs are asked for by commands that exist only in servers started for
//! this.

use harness::topology::{Replicated, digest};
use harness::{Server, ServerBuilder, Session, host, wait};
use redis::Value;

fn with_bugs() -> ServerBuilder {
    Server::builder().env("MCACHE_TEST_PANICS", "1")
}

fn fill(redis: &mut Session) {
    for key in ["env1:k", "env2:k"] {
        redis.ok(&format!("MCACHE.SET {key} 0 v TAGS {key}:t"));
    }
    redis.ok("SET plain v");
}

fn goes_on(redis: &mut Session) {
    assert_eq!(redis.text("GET plain").as_deref(), Some("v"));
    redis.ok("MCACHE.SET new 0 v TAGS t");
    assert!(redis.is_live("new"));
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 1);
    redis.drain();
    redis.ok("MCACHE.DEBUG SELFCHECK");
}

#[test]
fn no_client_can_ask_for_one_otherwise() {
    let server = Server::start();
    let mut redis = server.session();
    for name in ["MCACHE.PANIC", "MCACHE.PANIC-READING", "MCACHE.PANIC-LATER"] {
        let refusal = redis.error(name);
        assert!(refusal.contains("unknown command"), "{refusal}");
    }
}

#[test]
fn in_a_command_that_changes_things_it_makes_everything_dead_that_was_stored() {
    let server = with_bugs().start();
    let mut redis = server.session();
    fill(&mut redis);
    let refusal = redis.error("MCACHE.PANIC");
    assert!(refusal.contains("internal error"), "{refusal}");
    assert_eq!(redis.stat("panics"), 1);
    assert!(!redis.is_live("env1:k") && !redis.is_live("env2:k"));
    goes_on(&mut redis);
    let log = server.log();
    assert!(
        log.contains("a bug in mcache was caught: asked for"),
        "{log}"
    );
    assert!(
        log.contains("debug.rs"),
        "where it was is said as well: {log}"
    );
}

#[test]
fn in_a_command_that_changes_nothing_it_costs_nobody_an_entry() {
    let server = with_bugs().start();
    let mut redis = server.session();
    fill(&mut redis);
    let refusal = redis.error("MCACHE.PANIC-READING");
    assert!(refusal.contains("internal error"), "{refusal}");
    assert_eq!(redis.stat("panics"), 1);
    assert!(redis.is_live("env1:k") && redis.is_live("env2:k"));
    goes_on(&mut redis);
}

#[test]
fn in_a_callback_in_a_transaction_and_in_a_script_the_server_goes_on() {
    let server = with_bugs().start();
    let mut redis = server.session();
    fill(&mut redis);
    redis.ok("MCACHE.PANIC-LATER cron");
    wait::until("the callback has come", || redis.stat("panics") == 1);
    assert!(!redis.is_live("env1:k"));
    goes_on(&mut redis);
    redis.run("MULTI");
    redis.run("MCACHE.SET queued 0 v");
    redis.run("MCACHE.PANIC");
    redis.run("SET plain v");
    redis.run("EXEC");
    assert!(!redis.is_live("queued"));
    goes_on(&mut redis);
    let script = "return redis.pcall('MCACHE.PANIC')";
    redis
        .try_call(&["EVAL", script, "0"])
        .expect_err("the error of the command");
    assert_eq!(redis.stat("panics"), 3);
    goes_on(&mut redis);
}

/// What every bug in a change leaves: nothing from before is served, and after what is dead was freed the index agrees
/// with the keyspace.
fn ends_well(server: &Server, redis: &mut Session, panics: i64, what: &str) {
    assert_eq!(redis.stat("panics"), panics, "{what}");
    for key in ["env1:k", "env2:k", "other:k"] {
        let served = redis.try_run(&format!("MCACHE.GET {key}"));
        assert!(
            matches!(served, Ok(Value::Nil) | Err(_)),
            "{what}: {key} {served:?}"
        );
    }
    redis.drain();
    redis.ok("MCACHE.DEBUG SELFCHECK");
    assert_eq!(redis.stat("entries"), 0, "{what}");
    goes_on(redis);
    let log = server.log();
    assert!(!log.contains("the index named an entry"), "{what}: {log}");
}

/// Each place in which something is half done, and what comes there.
#[test]
fn half_way_through_a_change_it_leaves_nothing_that_is_wrong() {
    let server = with_bugs().start();
    let mut redis = server.session();
    let changes = [
        ("unlink", "DEL env1:k"),
        ("unlink", "SET env1:k plain"),
        ("unlink", "UNLINK env1:k"),
        ("unlinked", "DEL env1:k"),
        ("unlink", "RENAME env1:k other:k"),
        ("rename", "RENAME env1:k other:k"),
        ("rename", "MOVE env1:k 1"),
        ("arrive", "COPY env1:k other:k"),
        ("unlink", "MCACHE.INVALIDATE TAGS both"),
        ("store", "MCACHE.SET env1:k 0 new TAGS other"),
        ("store", "MCACHE.SET other:k 0 new TAGS both"),
        ("flush", "FLUSHDB SYNC"),
        ("flush", "FLUSHALL ASYNC"),
        ("flush", "FLUSHDB ASYNC"),
        ("swap", "SWAPDB 0 1"),
        ("loaded", "DEBUG RELOAD"),
    ];
    for (n, (place, change)) in changes.into_iter().enumerate() {
        let what = format!("{change}, a bug at {place}");
        redis.run("FLUSHALL");
        fill(&mut redis);
        for key in ["env1:k", "env2:k"] {
            redis.ok(&format!("MCACHE.SET {key} 0 v TAGS both {key}:t"));
        }
        // In one step, so that no other callback comes between.
        redis.run("MULTI");
        redis.run(&format!("MCACHE.PANIC-LATER {place}"));
        redis.run(change);
        redis.run("SET plain v");
        redis.run("EXEC");
        ends_well(&server, &mut redis, n as i64 + 1, &what);
        redis.run("SELECT 1");
        redis.ok("MCACHE.DEBUG SELFCHECK");
        redis.run("SELECT 0");
    }
}

#[test]
fn what_was_invalidated_and_not_freed_is_gone_as_well() {
    let server = with_bugs().set("mcache.reclaim-inline-max", 0).start();
    let mut redis = server.session();
    for (n, kind) in ["", "SOFT "].into_iter().enumerate() {
        redis.run("FLUSHALL");
        fill(&mut redis);
        for number in 0..1_000 {
            redis.ok(&format!(
                "MCACHE.SET many:{number} 100 v SWR 100 TAGS many own:{number}"
            ));
        }
        redis.run("MULTI");
        redis.run(&format!("MCACHE.INVALIDATE {kind}TAGS many"));
        redis.run("MCACHE.PANIC-LATER unlinked");
        redis.run("DEL many:7");
        redis.run("MCACHE.SET many:8 0 again TAGS many");
        redis.run("EXEC");
        assert!(redis.is_live("many:8"), "it was stored since");
        redis.run("DEL many:8");
        ends_well(&server, &mut redis, n as i64 + 1, kind);
    }
}

/// The edge has to keep on: an entry's address is another one, and the index was not told.
#[test]
fn while_entries_are_moved_in_memory_it_leaves_no_address_of_what_was_freed() {
    let server = with_bugs().start();
    let mut redis = server.session();
    if redis.try_run("CONFIG SET activedefrag yes").is_err() {
        return host::skip("it is built without active defragmentation");
    }
    redis.ok("CONFIG SET activedefrag no");
    fill(&mut redis);
    let value = "v".repeat(200);
    redis.run_all((0..20_000).map(|number| {
        let tenth = number % 10;
        format!("MCACHE.SET k{number} 0 {value} TAGS all tenth:{tenth}")
    }));
    for tenth in [1, 2, 4, 5, 7, 8, 9] {
        redis.int(&format!("MCACHE.INVALIDATE TAGS tenth:{tenth}"));
    }
    redis.drain();
    redis.ok("MCACHE.PANIC-LATER defrag");
    for line in [
        "CONFIG SET active-defrag-ignore-bytes 100kb",
        "CONFIG SET active-defrag-threshold-lower 1",
        "CONFIG SET active-defrag-cycle-min 50",
        "CONFIG SET active-defrag-cycle-max 75",
        "CONFIG SET activedefrag yes",
    ] {
        redis.ok(line);
    }
    wait::until("an entry has moved", || redis.stat("panics") == 1);
    redis.ok("CONFIG SET activedefrag no");
    ends_well(&server, &mut redis, 1, "defrag");
}

/// What is freed on another thread must not lead that thread to what belongs to the main one.
#[test]
fn on_the_thread_that_frees_it_touches_nothing_of_the_others() {
    let server = with_bugs().start();
    let mut redis = server.session();
    fill(&mut redis);
    redis.ok("MCACHE.PANIC-LATER free");
    redis.ok("SELECT 1");
    redis.ok("MCACHE.SET elsewhere 0 v TAGS t");
    redis.ok("FLUSHDB ASYNC");
    redis.ok("SELECT 0");
    wait::until("it was freed", || {
        server.log().contains("a bug in mcache was caught")
    });
    assert_eq!(redis.stat("panics"), 0);
    assert!(redis.is_live("env1:k") && redis.is_live("env2:k"));
    goes_on(&mut redis);
}

/// A file that is written or read meanwhile loads, plain keys included; what the bug concerned is dead in it.
#[test]
fn in_a_file_it_costs_the_entry_it_concerns() {
    for (place, change) in [("save", "SAVE"), ("load", "DEBUG RELOAD")] {
        let mut server = with_bugs().set("mcache.on-restart", "keep").start();
        let mut redis = server.session();
        fill(&mut redis);
        redis.ok(&format!("MCACHE.PANIC-LATER {place}"));
        redis.ok(change);
        assert_eq!(redis.stat("panics"), 1, "{place}");
        if place == "save" {
            redis.ok("CONFIG SET save \"\"");
            server.restart();
            redis = server.session();
        }
        let live = ["env1:k", "env2:k"].map(|key| redis.is_live(key));
        assert!(live[0] != live[1], "{place}: {live:?}");
        goes_on(&mut redis);
    }
}

#[test]
fn in_a_dump_a_copy_or_a_rewritten_file_it_costs_nobody_an_entry() {
    let mut server = with_bugs()
        .set("appendonly", "yes")
        .set("aof-use-rdb-preamble", "no")
        .set("mcache.on-restart", "keep")
        .start();
    let mut redis = server.session();
    fill(&mut redis);
    redis.ok("MCACHE.PANIC-LATER copy");
    redis.error("COPY env1:k other:k");
    redis.ok("MCACHE.PANIC-LATER save");
    let dump = redis.dump("env1:k");
    assert!(redis.is_live("env1:k") && redis.is_live("env2:k"));
    redis.call(&[b"RESTORE", &b"other:k"[..], b"0", &dump]);
    assert!(!redis.is_live("other:k"), "a husk");
    redis.drain();
    redis.ok("MCACHE.PANIC-LATER load");
    let dump = redis.dump("env1:k");
    redis
        .try_call(&[b"RESTORE", &b"other:k"[..], b"0", &dump])
        .expect_err("its sender hears of it");
    assert_eq!(redis.stat("panics"), 3);
    redis.ok("MCACHE.PANIC-LATER rewrite");
    redis.run("BGREWRITEAOF");
    redis.await_rewrite();
    assert!(redis.is_live("env1:k") && redis.is_live("env2:k"));
    goes_on(&mut redis);
    server.restart();
    let mut redis = server.session();
    let live = ["env1:k", "env2:k"].map(|key| redis.is_live(key));
    assert!(live[0] != live[1], "the one it concerned is dead: {live:?}");
    goes_on(&mut redis);
}

/// Clients that wait for a fill, and near caches, are told to look again.
#[test]
fn clients_that_wait_are_answered() {
    let server = with_bugs().start();
    let mut redis = server.session();
    fill(&mut redis);
    redis.run("MCACHE.FETCH k LEASE 60000");
    let waiting = std::thread::spawn({
        let mut session = server.session();
        move || session.run("MCACHE.FETCH k WAIT 50000")
    });
    wait::until("it is parked", || redis.stat("parked_clients") == 1);
    redis.error("MCACHE.PANIC");
    let told = waiting.join().expect("an answer");
    assert!(format!("{told:?}").contains("miss"), "{told:?}");
    goes_on(&mut redis);
}

/// A replica that has a bug of its own is dead and exact as well, without deleting.
#[test]
fn a_replica_searches_its_keyspace_by_itself() {
    let replicated = Replicated::start_with(1, with_bugs());
    let (mut primary, mut replica) = (
        replicated.primary.session(),
        replicated.replicas[0].session(),
    );
    fill(&mut primary);
    replicated.sync();
    replica.ok("MCACHE.PANIC-LATER cron");
    wait::until("the bug has come", || replica.stat("panics") == 1);
    assert!(!replica.is_live("env1:k"));
    wait::until("the index names every entry", || {
        replica.try_run("MCACHE.DEBUG SELFCHECK").is_ok()
    });
    primary.ok("MCACHE.SET env1:k 0 again TAGS t");
    replicated.sync();
    assert!(replica.is_live("env1:k") && !replica.is_live("env2:k"));
    replica.ok("REPLICAOF NO ONE");
    replica.drain();
    replica.ok("MCACHE.DEBUG SELFCHECK");
    assert_eq!(replica.stat("entries"), 1);
}

#[test]
fn replicas_hear_of_it_and_nothing_comes_back_by_a_promotion() {
    let replicated = Replicated::start_with(1, with_bugs());
    let (mut primary, mut replica) = (
        replicated.primary.session(),
        replicated.replicas[0].session(),
    );
    fill(&mut primary);
    replicated.sync();
    assert!(replica.is_live("env1:k"));
    primary.error("MCACHE.PANIC");
    primary.drain();
    replicated.sync();
    for key in ["env1:k", "env2:k"] {
        assert!(!replica.is_live(key), "{key}");
    }
    assert_eq!(digest(&mut primary), digest(&mut replica));
    replica.ok("REPLICAOF NO ONE");
    assert!(!replica.is_live("env1:k"));
    goes_on(&mut replica);
}

#[test]
fn nothing_comes_back_from_the_append_only_file() {
    let mut server = with_bugs()
        .set("appendonly", "yes")
        .set("appendfsync", "always")
        .set("mcache.on-restart", "keep")
        .start();
    let mut redis = server.session();
    fill(&mut redis);
    redis.error("MCACHE.PANIC");
    redis.drain();
    redis.ok("MCACHE.SET after 0 v TAGS later");
    server.restart();
    let mut redis = server.session();
    assert!(!redis.is_live("env1:k"));
    assert!(redis.is_live("after"));
    goes_on(&mut redis);
}
