//! Freshness belongs to the entry: SET and SOFT fix how long it is live and how long it may be served stale, and
//! a command that moves the deadline of its key does not lengthen that.

use harness::topology::Replicated;
use harness::{Server, Session, wait};

use super::dump::{Raw, restore};
use crate::filling::fetching::fetch;

fn state(redis: &mut Session, key: &str) -> String {
    redis.state(key).expect("the key is there")
}

fn fresh_ms(redis: &mut Session, key: &str) -> i64 {
    let report = redis.map(&format!("MCACHE.INSPECT {key}"));
    let report = report.expect("the key is there");
    redis::from_redis_value(report["ttl_ms"].clone()).expect("a number")
}

/// Seconds, with what a busy machine may have taken of them.
#[track_caller]
fn assert_about(seconds: i64, expected: i64) {
    let about = expected - 60..=expected;
    assert!(about.contains(&seconds), "{seconds} s, not {expected}");
}

#[test]
fn expire_and_persist_move_the_removal_of_the_key_and_lengthen_nothing() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 1000 v SWR 500 TAGS t");
    redis.ok("MCACHE.SET endless 0 v TAGS t");
    for line in ["EXPIRE k 90000", "EXPIREAT k 99999999999", "PERSIST k"] {
        assert_eq!(redis.int(line), 1);
        assert_about(redis.int("TTL k"), 1_500);
        assert_about(fresh_ms(&mut redis, "k") / 1_000, 1_000);
    }
    // Earlier is allowed, and does not make it stale.
    assert_eq!(redis.int("EXPIRE k 400"), 1);
    assert_about(redis.int("TTL k"), 400);
    assert_about(fresh_ms(&mut redis, "k") / 1_000, 1_000);
    assert!(redis.is_live("k"));
    // And back again, as far as the entry goes.
    assert_eq!(redis.int("EXPIRE k 1200"), 1);
    assert_about(redis.int("TTL k"), 1_200);
    assert_eq!(redis.int("PERSIST k"), 1);
    assert_about(redis.int("TTL k"), 1_500);
    // What has no end can be given one, and be rid of it.
    assert_eq!(redis.int("EXPIRE endless 700"), 1);
    assert_about(redis.int("TTL endless"), 700);
    assert_eq!(fresh_ms(&mut redis, "endless"), -1);
    assert_eq!(redis.int("PERSIST endless"), 1);
    assert_eq!(redis.int("TTL endless"), -1);
}

#[test]
fn what_is_stale_stays_stale_whatever_happens_to_its_key() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET past 0.001 v SWR 1000 TAGS t");
    redis.ok("MCACHE.SET soft 1000 v SWR 1000 TAGS soft");
    redis.int("MCACHE.INVALIDATE SOFT TAGS soft");
    wait::until("the ttl is over", || state(&mut redis, "past") == "stale");
    for key in ["past", "soft"] {
        for line in ["EXPIRE {} 90000", "PERSIST {}", "EXPIRE {} 500"] {
            assert_eq!(redis.int(&line.replace("{}", key)), 1, "{line}");
            assert_eq!(state(&mut redis, key), "stale", "{key} after {line}");
            assert!(!redis.is_live(key), "{key} after {line}");
            assert!(redis.int(&format!("TTL {key}")) <= 1_000, "{line}");
            assert_eq!(fresh_ms(&mut redis, key), 0);
        }
        let other = format!("{key}2");
        assert_eq!(redis.int(&format!("COPY {key} {other}")), 1);
        assert_eq!(state(&mut redis, &other), "stale", "a copy of {key}");
        redis.ok(&format!("RENAME {key} {other}"));
        assert_eq!(state(&mut redis, &other), "stale", "{key} renamed");
        assert_eq!(fetch(&mut redis, &other).0, "stale");
        let tag = if key == "past" { "t" } else { "soft" };
        assert_eq!(redis.int(&format!("MCACHE.INVALIDATE TAGS {tag}")), 1);
        assert_eq!(redis.state(&other), None);
    }
}

/// Large invalidations are dealt with later: what is moved meanwhile must not escape.
#[test]
fn a_softly_invalidated_entry_that_reclaim_has_not_met_moves_as_a_stale_one() {
    let server = Server::builder()
        .set("mcache.reclaim-inline-max", 0)
        .start();
    let mut redis = server.session();
    for (key, line) in [
        ("renamed", "RENAME k renamed"),
        ("copied", "COPY k copied"),
        ("kept", "EXPIRE k 90000"),
    ] {
        redis.ok("MCACHE.SET k 2000 v SWR 1000 TAGS t u");
        // In one transaction nothing comes between.
        redis.ok("MULTI");
        redis.run("MCACHE.INVALIDATE SOFT TAGS t");
        redis.run(line);
        redis.run("EXEC");
        let key = if key == "kept" { "k" } else { key };
        assert_eq!(state(&mut redis, key), "stale", "{line}");
        redis.drain();
        assert_eq!(fetch(&mut redis, key).0, "stale", "{line}");
        assert_about(redis.int(&format!("TTL {key}")), 1_000);
        assert!(redis.int("MCACHE.INVALIDATE TAGS u") > 0);
        redis.drain();
        assert_eq!(redis.int(&format!("EXISTS k {key}")), 0, "{line}");
    }
}

#[test]
fn restore_does_not_lengthen_the_life_of_an_entry() {
    let server = Server::builder().set("rdbcompression", "no").start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 1000 v SWR 500 TAGS t");
    let raw = Raw::of(&mut redis, "k");
    for (ttl, expected) in [("0", 1_500), ("90000000", 1_500), ("400000", 400)] {
        restore(&mut redis, "k2", ttl, &raw).expect("our own");
        assert_about(redis.int("TTL k2"), expected);
        assert_about(fresh_ms(&mut redis, "k2") / 1_000, 1_000);
    }
    redis.ok("MCACHE.SET k 0.001 v TAGS t");
    redis.ok("MCACHE.SET brief 0.05 v TAGS t");
    let raw = Raw::of(&mut redis, "brief");
    wait::until("it is over", || redis.int("EXISTS brief") == 0);
    restore(&mut redis, "back", "0", &raw).expect("our own");
    assert!(!redis.is_live("back"), "its life was over");
    assert_eq!(redis.int("EXISTS back"), 0);
}

/// Version 1 said nothing of the end: there the deadline of the key is it.
#[test]
fn a_dump_of_version_1_ends_with_the_ttl_that_it_is_restored_with() {
    let server = Server::builder().set("rdbcompression", "no").start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 1000 v SWR 500 TAGS t");
    let mut raw = Raw::of(&mut redis, "k");
    assert_eq!(raw.version, 2);
    raw.version = 1;
    raw.meta.drain(super::dump::ENDS..super::dump::ENDS + 8);
    restore(&mut redis, "old", "800000", &raw).expect("a version that was written");
    assert!(redis.is_live("old"));
    assert_about(redis.int("TTL old"), 800);
    assert_about(fresh_ms(&mut redis, "old") / 1_000, 300);
    assert_eq!(redis.int("PERSIST old"), 1);
    assert_about(redis.int("TTL old"), 800);
    restore(&mut redis, "endless", "0", &raw).expect("a version that was written");
    assert_eq!(redis.int("TTL endless"), -1);
    assert_eq!(fresh_ms(&mut redis, "endless"), -1);
}

#[test]
fn nx_and_xx_ask_whether_get_would_serve_the_entry() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0.001 old SWR 1000");
    wait::until("the ttl is over", || state(&mut redis, "k") == "stale");
    assert_eq!(redis.text("MCACHE.SET k 100 new XX"), None, "no live entry");
    redis.ok("MCACHE.SET k 100 new NX");
    assert_eq!(redis.text("MCACHE.GET k").as_deref(), Some("new"));
    assert_eq!(redis.text("MCACHE.SET k 100 newer NX"), None, "live");
    redis.ok("MCACHE.SET k 1000 soft SWR 1000 XX TAGS t");
    redis.int("MCACHE.INVALIDATE SOFT TAGS t");
    assert_eq!(redis.text("MCACHE.SET k 100 v XX"), None, "stale");
    redis.ok("MCACHE.SET k 100 v NX");
}

#[test]
fn replicas_and_the_append_only_file_put_deadlines_back_alike() {
    let options = Server::builder()
        .set("appendonly", "yes")
        .set("appendfsync", "always")
        .set("aof-use-rdb-preamble", "no")
        .set("mcache.on-restart", "keep");
    let mut replicated = Replicated::start_with(1, options);
    let mut primary = replicated.primary.session();
    primary.ok("MCACHE.SET expired 1000 v SWR 500 TAGS t");
    primary.ok("MCACHE.SET persisted 1000 v TAGS t");
    primary.ok("MCACHE.SET shortened 1000 v SWR 500 TAGS t");
    primary.ok("MCACHE.SET soft 9000 v SWR 500 TAGS soft");
    primary.int("MCACHE.INVALIDATE SOFT TAGS soft");
    primary.int("EXPIRE expired 90000");
    primary.int("EXPIRE soft 90000");
    primary.int("PERSIST persisted");
    primary.int("EXPIRE shortened 300");
    let check = |redis: &mut Session| {
        for (key, ttl) in [
            ("expired", 1_500),
            ("persisted", 1_000),
            ("shortened", 300),
            ("soft", 500),
        ] {
            assert_about(redis.int(&format!("TTL {key}")), ttl);
        }
        assert_about(fresh_ms(redis, "shortened") / 1_000, 1_000);
        assert_eq!(state(redis, "soft"), "stale");
    };
    check(&mut primary);
    replicated.assert_same();
    check(&mut replicated.replicas[0].session());
    for rewritten in [false, true] {
        if rewritten {
            let mut primary = replicated.primary.session();
            primary.run("BGREWRITEAOF");
            primary.await_rewrite();
        }
        replicated.primary.restart();
        check(&mut replicated.primary.session());
    }
}
