//! What is dead is freed soon, in slices, and no command waits for it.

use std::time::{Duration, Instant};

use harness::{Server, Session, wait};
use redis::Value;

const ENTRIES: usize = 200_000;

/// Fills `k0 ..`, each entry under the tag `all`, one of a hundred groups, and a tag of its own.
fn fill(redis: &mut Session, entries: usize) {
    redis.run_all((0..entries).map(|n| {
        let group = n % 100;
        format!("MCACHE.SET k{n} 0 \"a value of some length\" TAGS all group:{group} own:{n}")
    }));
}

#[test]
fn a_large_tag_dies_at_once_and_is_freed_in_the_background() {
    let server = Server::start();
    let (mut redis, mut other) = (server.session(), server.session());
    redis.run("PING");
    let empty_index_bytes = redis.stat("index_bytes");
    fill(&mut redis, ENTRIES);
    let full_index_bytes = redis.stat("index_bytes");
    assert_eq!(redis.stat("memberships"), 3 * ENTRIES as i64);

    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS all"), ENTRIES as i64);
    for n in (0..ENTRIES).step_by(1_999) {
        assert!(!other.is_live(&format!("k{n}")), "k{n}");
    }
    assert_eq!(other.entries("all"), Vec::<String>::new());

    // While it goes on, others are served: the longest wait of any of them is a few slices, not the whole work.
    let (mut longest, mut served) = (Duration::ZERO, 0);
    wait::until("everything is reclaimed", || {
        let start = Instant::now();
        other.run("PING");
        served += 1;
        longest = longest.max(start.elapsed());
        other.stat("pending_reclaim") == 0
    });
    assert_eq!(other.int("DBSIZE"), 0);
    assert_eq!(other.stat("entries"), 0);
    assert_eq!(other.stat("tags"), 0);
    assert_eq!(other.stat("memberships"), 0);
    assert_eq!(other.stat("payload_bytes"), 0);
    assert_eq!(other.stat("reclaimed"), ENTRIES as i64);
    // Tables that have grown may keep a part of their size; what entries and tags took is back.
    let left = other.stat("index_bytes") - empty_index_bytes;
    assert!(
        left < (full_index_bytes - empty_index_bytes) / 10,
        "index bytes: {empty_index_bytes} empty, {full_index_bytes} full, {left} more than empty afterwards"
    );
    let slice = Duration::from_micros(other.stat("longest_slice_us") as u64);
    println!("longest slice {slice:?}, longest PING {longest:?}");
    // Not how long: a machine busy with other things may interrupt a slice. Unsliced, one call would be served.
    assert!(served > 3, "{served} calls were served meanwhile");
}

#[test]
fn small_invalidations_are_freed_before_the_reply() {
    let server = Server::builder()
        .set("mcache.reclaim-inline-max", 10)
        .start();
    let mut redis = server.session();
    fill(&mut redis, 10);
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS all"), 10);
    assert_eq!(redis.stat("reclaimed"), 10);
    assert_eq!(redis.int("DBSIZE"), 0);
    assert_eq!(redis.stat("pending_reclaim"), 0);

    fill(&mut redis, 11);
    redis.ok("MULTI");
    redis.run("MCACHE.INVALIDATE TAGS all");
    redis.run("DBSIZE");
    assert_eq!(
        redis.run("EXEC"),
        Value::Array(vec![Value::Int(11), Value::Int(11)]),
        "one more than the limit is left to the background"
    );
    wait::until("the background has freed them", || redis.int("DBSIZE") == 0);
}

#[test]
fn draining_frees_everything_now_and_says_how_much() {
    let server = Server::builder()
        .set("mcache.reclaim-inline-max", 0)
        .start();
    let mut redis = server.session();
    fill(&mut redis, 100);
    redis.ok("MULTI");
    redis.run("MCACHE.INVALIDATE TAGS group:3 group:4");
    redis.run("MCACHE.DEBUG DRAIN");
    redis.run("DBSIZE");
    assert_eq!(
        redis.run("EXEC"),
        Value::Array(vec![Value::Int(2), Value::Int(2), Value::Int(98)])
    );
    assert_eq!(redis.int("MCACHE.DEBUG DRAIN"), 0);
}

/// A dead entry that is deleted, overwritten, renamed or moved before the reclaimer gets to it is gone once, and the
/// index agrees.
#[test]
fn dead_entries_may_leave_by_any_other_way_first() {
    for way in [
        "DEL k0 k1 k2",
        "UNLINK k0 k1 k2",
        "SET k0 text",
        "MCACHE.SET k0 0 new TAGS all",
        "MCACHE.SET k0 0 new TAGS other",
        "RENAME k0 k1",
        "RENAME k0 elsewhere",
        "COPY k0 k1 REPLACE",
        "MOVE k0 5",
        "EXPIRE k0 -1",
        "SWAPDB 0 5",
        "FLUSHDB",
        "FLUSHALL ASYNC",
        "MCACHE.INVALIDATE TAGS group:0 own:1",
    ] {
        let server = Server::builder()
            .set("mcache.reclaim-inline-max", 0)
            .start();
        let mut redis = server.session();
        fill(&mut redis, 10);
        redis.ok("MULTI");
        redis.run("MCACHE.INVALIDATE TAGS all");
        redis.run(way);
        redis.run("MCACHE.DEBUG SELFCHECK");
        let Value::Array(replies) = redis.run("EXEC") else {
            panic!("EXEC gives an array")
        };
        assert_eq!(replies[2], Value::Okay, "{way}");
        redis.drain();
        assert_eq!(redis.stat("pending_reclaim"), 0, "{way}");
        redis.ok("MCACHE.DEBUG SELFCHECK");
        let left = i64::from(way.starts_with("SET") || way.starts_with("MCACHE.SET"));
        assert_eq!(redis.int("DBSIZE"), left, "{way}");
    }
}

#[test]
fn the_background_yields_to_a_changed_budget_at_run_time() {
    let server = Server::builder()
        .set("mcache.reclaim-inline-max", 0)
        .start();
    let mut redis = server.session();
    for budget_us in [100, 5_000] {
        redis.ok(&format!("CONFIG SET mcache.reclaim-budget-us {budget_us}"));
        fill(&mut redis, 20_000);
        redis.int("MCACHE.INVALIDATE TAGS all");
        wait::until("everything is reclaimed", || {
            redis.stat("pending_reclaim") == 0
        });
        assert_eq!(redis.int("DBSIZE"), 0);
    }
}
