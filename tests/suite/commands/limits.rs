//! Limits are named with the value they broke, and what stays within them is taken.

use harness::Server;

fn tags(count: usize) -> String {
    (0..count)
        .map(|n| format!("t{n}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn as_many_tags_as_max_tags_and_not_one_more() {
    let server = Server::builder().set("mcache.max-tags", 10).start();
    let mut redis = server.session();
    redis.ok(&format!("MCACHE.SET k 0 v TAGS {}", tags(10)));
    assert_eq!(redis.tags().len(), 10);
    let refusal = redis.error(&format!("MCACHE.SET k 0 v TAGS {}", tags(11)));
    assert_eq!(refusal, "ERR too many tags: 11, mcache.max-tags is 10");
    assert_eq!(redis.tags().len(), 10, "nothing changed");

    redis.ok("CONFIG SET mcache.max-tags 11");
    redis.ok(&format!("MCACHE.SET k 0 v TAGS {}", tags(11)));
    assert_eq!(redis.tags().len(), 11);
    // A limit lowered later does not make what is stored invalid.
    redis.ok("CONFIG SET mcache.max-tags 1");
    assert!(redis.is_live("k"));
    redis.ok("DEBUG RELOAD");
    assert_eq!(redis.tags().len(), 11);
}

#[test]
fn tags_as_long_as_max_tag_bytes_and_not_one_byte_more() {
    let server = Server::builder().set("mcache.max-tag-bytes", 8).start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS 12345678");
    let refusal = redis.error("MCACHE.SET k 0 v TAGS ok 123456789");
    assert_eq!(
        refusal,
        "ERR tag too long: 9 bytes, mcache.max-tag-bytes is 8"
    );
    assert_eq!(redis.entries("12345678"), ["k"], "nothing changed");
    redis.ok("CONFIG SET mcache.max-tag-bytes 9");
    redis.ok("MCACHE.SET k 0 v TAGS ok 123456789");
    // A tag that no entry can carry may still be asked about and invalidated: lowering a limit must not shield entries.
    redis.ok("CONFIG SET mcache.max-tag-bytes 8");
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS 123456789"), 1);
    assert!(!redis.is_live("k"));
}

#[test]
fn the_real_worlds_675_tags_fit_the_defaults() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok(&format!("MCACHE.SET k 0 v TAGS {}", tags(675)));
    assert_eq!(redis.stat("memberships"), 675);
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t674"), 1);
    redis.drain();
    assert_eq!(redis.stat("memberships"), 0);
    assert_eq!(redis.stat("tags"), 0);
}

#[test]
fn an_entry_carries_as_many_tags_as_the_largest_limit() {
    let server = Server::start();
    let mut redis = server.session();
    let largest = 65_535;
    redis.error(&format!("CONFIG SET mcache.max-tags {}", largest + 1));
    redis.ok(&format!("CONFIG SET mcache.max-tags {largest}"));
    redis.ok(&format!("MCACHE.SET k 0 v TAGS {}", tags(largest)));
    assert_eq!(redis.stat("tags"), largest as i64);
    redis.ok("DEBUG RELOAD");
    assert_eq!(redis.stat("memberships"), largest as i64);
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t0"), 1);
    redis.drain();
    assert_eq!(redis.stat("tags"), 0);
}

#[test]
fn a_config_value_out_of_range_is_refused_and_the_old_one_stays() {
    let server = Server::start();
    let mut redis = server.session();
    for option in [
        "reclaim-budget-us",
        "reclaim-inline-max",
        "max-tags",
        "max-tag-bytes",
        "invalidation-memory-tags",
    ] {
        let before = redis.list(&format!("CONFIG GET mcache.{option}"));
        for nonsense in ["-1", "many", "99999999999999999999", "\"\""] {
            redis.error(&format!("CONFIG SET mcache.{option} {nonsense}"));
        }
        assert_eq!(redis.list(&format!("CONFIG GET mcache.{option}")), before);
    }
    redis.error("CONFIG SET mcache.on-restart perhaps");
    assert_eq!(redis.list("CONFIG GET mcache.on-restart")[1], "drop");
}
