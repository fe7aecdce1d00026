//! The case that every client-side index fails: keys that change names and end soon, under a tag that never rests.
//!
//! A shop in production had 1,588 live entries and 1,413,823 members in its tag sets. Here the members are the entries.

use harness::{Server, Session, wait};

const ROTATING: usize = 200_000;
const LIVING: usize = 1_000;
/// 320 bytes for each of the 1,024 tables of names.
const KEPT_BYTES: i64 = 1_024 * 320;

/// Stores `count` entries, named by `name`, that end after `ttl` seconds, under the hot tag, one of a hundred groups
/// and two tags of their own.
fn store(redis: &mut Session, name: &str, count: usize, ttl: &str) {
    redis.run_all((0..count).map(|n| {
        let tags = format!("Category:{} {name}:Product:{n} {name}:Price:{n}", n % 100);
        format!("MCACHE.SET {name}:{n} {ttl} \"a page of products\" TAGS Product:list:* {tags}")
    }));
}

#[test]
fn two_hundred_thousand_rotating_entries_leave_exactly_the_living_ones() {
    let server = Server::builder()
        // Redis looks for expired keys as often as it can: the test is about what it finds, not when.
        .set("hz", 100)
        .set("active-expire-effort", 10)
        .start();
    let mut redis = server.session();
    store(&mut redis, "living", LIVING, "0");
    let index_bytes = redis.stat("index_bytes");
    let used_memory = redis.info("memory", "used_memory");

    // Twenty hours of traffic, each with key names of its own; every entry ends, in part while others arrive.
    let mut most = 0;
    for hour in 0..20 {
        store(&mut redis, &format!("hour{hour}"), ROTATING / 20, "0.3");
        most = most.max(redis.stat("index_bytes"));
        assert!(redis.is_live("living:7"), "the tag is hot");
    }
    wait::until("Redis has expired them all", || {
        redis.int("DBSIZE") == LIVING as i64
    });
    assert_eq!(redis.info("stats", "expired_keys"), ROTATING as i64);
    assert_eq!(redis.stat("entries"), LIVING as i64);
    assert_eq!(redis.stat("memberships"), 4 * LIVING as i64);
    assert_eq!(redis.stat("tags"), 2 * LIVING as i64 + 101);
    let mut expected: Vec<String> = (0..LIVING).map(|n| format!("living:{n}")).collect();
    expected.sort();
    assert_eq!(redis.entries("Product:list:*"), expected);
    assert_eq!(redis.tags()["Product:list:*"], LIVING as i64);

    let left = redis.stat("index_bytes");
    let grown = redis.info("memory", "used_memory") - used_memory;
    println!(
        "index bytes: {index_bytes} before, {most} at most, {left} afterwards; used_memory {grown:+}"
    );
    assert!(most > 2 * index_bytes, "there was something to give back");
    // Its tables, a thousand of them, keep a little room once they have grown, however much went through.
    assert!(
        left - index_bytes <= KEPT_BYTES,
        "index bytes: {index_bytes} before, {left} afterwards"
    );
    redis.ok("MCACHE.DEBUG SELFCHECK");
    assert_eq!(
        redis.int("MCACHE.INVALIDATE TAGS Product:list:*"),
        LIVING as i64,
        "what is invalidated is what lives"
    );
    redis.drain();
    assert_eq!(redis.int("DBSIZE"), 0);
    assert_eq!(redis.stat("tags"), 0);
}

#[test]
fn names_that_are_overwritten_for_ever_leave_only_their_last_tags() {
    let server = Server::start();
    let mut redis = server.session();
    // One product list whose members change with every fill: 100,000 tags in all, 40 at a time.
    for round in 0..2_500 {
        let tags: Vec<String> = (0..40)
            .map(|n| format!("Product:{}", round * 40 + n))
            .collect();
        redis.ok(&format!("MCACHE.SET list 0 v TAGS all {}", tags.join(" ")));
    }
    assert_eq!(redis.stat("memberships"), 41);
    assert_eq!(redis.tags().len(), 41);
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS Product:0"), 0);
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS Product:99999"), 1);
    assert_eq!(redis.stat("tags"), 0);
}
