//! A bug in the module: the server goes on, the caller hears of it, and nothing that may be wrong is served, on
//! replicas and after a restart as well. The bugs are asked for by commands that exist only in servers started for
//! this.

use harness::topology::{Replicated, digest};
use harness::{Server, ServerBuilder, Session, wait};

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
    redis.ok("MCACHE.PANIC-LATER");
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

#[test]
fn an_entry_that_leaves_while_the_module_has_a_bug_is_not_in_the_index_afterwards() {
    let server = with_bugs().start();
    let mut redis = server.session();
    for (n, way) in ["DEL env1:k", "SET env1:k plain", "UNLINK env1:k"]
        .iter()
        .enumerate()
    {
        redis.run("DEL env1:k");
        fill(&mut redis);
        // In one step, so that no other callback comes between.
        redis.run("MULTI");
        redis.run("MCACHE.PANIC-LATER");
        redis.run(way);
        redis.run("EXEC");
        assert_eq!(redis.stat("panics"), n as i64 + 1, "{way}");
        redis.ok("MCACHE.DEBUG SELFCHECK");
        assert!(!redis.is_live("env2:k"), "{way}");
        goes_on(&mut redis);
    }
    let log = server.log();
    assert!(!log.contains("the index named an entry"), "{log}");
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
