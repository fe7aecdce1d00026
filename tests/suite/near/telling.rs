//! What near caches are told: every invalidation, and every change of a key that they may hold.

use harness::Server;
use mcache_core::feed::{ALL_DATABASES, Kind};

use super::process::Process;
use super::server;

#[test]
fn every_invalidation_is_told_also_of_unused_tags_and_in_transactions_and_scripts() {
    let server = server();
    let mut near = Process::subscribed(&server);
    let mut redis = server.session();
    for (line, kind) in [
        ("MCACHE.INVALIDATE TAGS unused", Kind::Hard),
        ("MCACHE.INVALIDATE AUTO TAGS unused", Kind::Auto),
        ("MCACHE.INVALIDATE SOFT TAGS unused", Kind::Soft),
        (
            "EVAL \"return redis.call('MCACHE.INVALIDATE', 'TAGS', 'unused')\" 0",
            Kind::Hard,
        ),
    ] {
        redis.run(line);
        let told = near.feed();
        assert_eq!(told.len(), 1, "{line}: {told:?}");
        assert_eq!((told[0].kind, told[0].db), (kind, 0), "{line}");
        let digest = near.view.digest(b"unused").expect("it has subscribed");
        assert_eq!(told[0].items, [digest], "{line}");
    }
    redis.ok("MULTI");
    redis.run("MCACHE.INVALIDATE TAGS a b");
    redis.run("MCACHE.INVALIDATE TAGS c");
    redis.run("EXEC");
    let items: Vec<usize> = near.feed().iter().map(|told| told.items.len()).collect();
    assert_eq!(items, [2, 1]);
}

/// Each command does something to key `k`, which the near cache holds.
#[test]
fn a_key_is_told_by_whatever_command_it_is_changed() {
    let server = server();
    let mut near = Process::subscribed(&server);
    let mut redis = server.session();
    redis.ok("MCACHE.SET dump 0 v");
    for (prepare, line) in [
        ("", "DEL k"),
        ("", "UNLINK k"),
        ("", "SET k plain"),
        ("", "MCACHE.SET k 0 v"),
        ("", "MCACHE.SET k 0 v TAGS other"),
        ("", "RENAME k other"),
        ("MCACHE.SET source 0 v", "RENAME source k"),
        ("MCACHE.SET source 0 v", "COPY source k REPLACE"),
        ("", "MOVE k 1"),
        ("", "EXPIRE k 100"),
        ("", "PEXPIREAT k 1"),
        ("", "GETDEL k"),
        ("", "SUNIONSTORE k nothing"),
        ("SADD set a", "SUNIONSTORE k set"),
        ("", "EVAL \"return redis.call('DEL', KEYS[1])\" 1 k"),
    ] {
        for key in ["k", "other"] {
            redis.int(&format!("DEL {key}"));
        }
        redis.run("SELECT 1");
        redis.int("DEL k");
        redis.run("SELECT 0");
        redis.ok("MCACHE.SET k 0 value TAGS t");
        near.feed();
        assert!(near.read("k"), "{line}");
        if !prepare.is_empty() {
            redis.run(prepare);
        }
        near.feed();
        assert!(near.holds("k"), "{prepare}");
        // GETDEL refuses: it is no string. Then nothing changed and nothing is to be told.
        let refused = redis.try_run(line).is_err();
        let told = near.feed();
        assert_eq!(near.holds("k"), refused, "{line}: {told:?}");
    }
    // The mark outlives the entry: an entry that comes under the key later is told as well.
    for line in [
        "MCACHE.SET k 0 v",
        "SET k plain",
        "RPUSH k a",
        "RENAME dump k",
    ] {
        redis.int("DEL k");
        redis.ok("MCACHE.SET k 0.01 value");
        near.feed();
        assert!(near.read("k"));
        harness::wait::until("it expires", || redis.int("EXISTS k") == 0);
        near.feed();
        assert!(near.holds("k"), "expiry is not told");
        redis.run(line);
        near.feed();
        assert!(!near.holds("k"), "{line}");
    }
}

#[test]
fn eviction_and_reclaim_tell_nothing() {
    let server = Server::builder()
        .feed(5_000)
        .set("maxmemory-policy", "allkeys-lru")
        .start();
    let mut near = Process::subscribed(&server);
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 value");
    assert!(near.read("k"));
    near.feed();
    redis.ok("CONFIG SET maxmemory 1");
    harness::wait::until("it is evicted", || redis.int("DBSIZE") == 0);
    redis.ok("CONFIG SET maxmemory 0");
    assert_eq!(near.feed(), []);
    assert!(near.holds("k"), "still good here");

    for n in 0..200 {
        redis.ok(&format!("MCACHE.SET many{n} 0 v TAGS t"));
        assert!(near.read(&format!("many{n}")));
    }
    near.feed();
    redis.run("MCACHE.INVALIDATE TAGS t");
    redis.run("MCACHE.DEBUG DRAIN");
    let told = near.feed();
    assert_eq!(told.len(), 1, "the tag, and none of its 200 keys: {told:?}");
    assert!(!near.holds("many7"));
}

#[test]
fn flushes_and_exchanges_of_databases_are_told_of_each_they_concern() {
    let server = server();
    let mut near = Process::subscribed(&server);
    let mut redis = server.session();
    for (line, dbs) in [
        ("FLUSHDB", &[0][..]),
        ("FLUSHDB ASYNC", &[0]),
        ("FLUSHALL", &[ALL_DATABASES]),
        ("SWAPDB 0 1", &[0]),
        ("SWAPDB 2 3", &[]),
    ] {
        redis.ok("MCACHE.SET k 0 value");
        assert!(near.read("k"));
        near.feed();
        redis.ok(line);
        let told = near.feed();
        let of: Vec<u32> = told
            .iter()
            .filter(|told| told.kind == Kind::Flush)
            .map(|told| told.db)
            .collect();
        assert_eq!(of, dbs, "{line}");
        assert_eq!(near.holds("k"), dbs.is_empty(), "{line}");
    }
    redis.run("SELECT 1");
    redis.ok("FLUSHDB");
    assert_eq!(near.feed(), [], "another database");
}

#[test]
fn a_subscriber_hears_of_its_prefixes_which_must_be_readable() {
    let server = server();
    let mut admin = server.session();
    admin.ok("ACL SETUSER tenant on >secret resetkeys %R~eu:* +@all");
    let mut eu = Process::over(server.session_as("tenant", "secret"), &["eu:"]);
    eu.feed();
    admin.run("MCACHE.INVALIDATE TAGS us:a eu:a");
    let told = eu.feed();
    assert_eq!(
        told[0].items,
        [eu.view.digest(b"eu:a").expect("subscribed")]
    );
    admin.run("MCACHE.INVALIDATE TAGS us:b");
    assert_eq!(eu.feed(), []);
    for prefixes in [&["us:"][..], &["eu:", "us:"], &["e"], &[]] {
        let mut other = Process::over(server.session_as("tenant", "secret"), prefixes);
        let refusal = other.try_feed().expect_err("not readable");
        assert!(refusal.starts_with("NOPERM"), "{prefixes:?}: {refusal}");
        let named = prefixes.last().map_or("behind PREFIX", |prefix| *prefix);
        assert!(refusal.contains(named), "{prefixes:?}: {refusal}");
    }
    // At each call: what was allowed may not be any more.
    admin.ok("ACL SETUSER tenant resetkeys %R~us:*");
    assert!(eu.try_feed().is_err());
}

/// Where no near cache ever subscribed, and ten leases after the last one ended, nothing is written down.
#[test]
fn nothing_is_written_down_while_no_near_cache_subscribes() {
    let server = Server::builder().feed(100).start();
    let mut redis = server.session();
    let nothing = |redis: &mut harness::Session| {
        let before = redis.stat("feed_events");
        redis.ok("MCACHE.SET k 0 v TAGS t");
        redis.run("MCACHE.INVALIDATE TAGS t");
        redis.ok("FLUSHALL");
        assert_eq!(redis.stat("feed_events"), before);
        assert_eq!(redis.stat("feed_bytes"), 0);
    };
    nothing(&mut redis);
    let mut near = Process::subscribed(&server);
    let position = near.subscription();
    redis.run("MCACHE.INVALIDATE TAGS t");
    assert!(redis.stat("feed_bytes") > 0);
    harness::wait::until("the log stops", || redis.stat("feed_bytes") == 0);
    assert_eq!(redis.stat("near_subscribers"), 0);
    nothing(&mut redis);
    near.feed();
    assert_ne!(
        near.subscription()[..40],
        position[..40],
        "another subscription"
    );
    assert_eq!(redis.stat("feed_gaps"), 1);
}

#[test]
fn clear_removes_refuses_the_fill_under_way_and_is_told_of_keys_that_are_not_there() {
    let server = server();
    let mut near = Process::subscribed(&server);
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 value TAGS t");
    assert!(near.read("k"));
    redis.int("DEL other");
    let token = |redis: &mut harness::Session, key: &str| {
        redis.text(&format!("MCACHE.TOKEN {key}")).expect("a token")
    };
    let (late, untouched) = (token(&mut redis, "k"), token(&mut redis, "tag"));
    assert_eq!(redis.int("MCACHE.CLEAR k nothing"), 1);
    assert_eq!(redis.int("EXISTS k"), 0);
    assert_eq!(near.feed().len(), 2, "each key");
    assert!(!near.holds("k"));
    let set = format!("MCACHE.SET k 0 late TOKEN {late} TAGS t");
    assert_eq!(redis.run(&set), redis::Value::Nil);
    assert_eq!(redis.stat("refused_fills"), 1);
    // Only of these keys: a tag of the same name is something else.
    redis.ok(&format!("MCACHE.SET tag 0 v TOKEN {untouched} TAGS k"));
    let fresh = token(&mut redis, "k");
    redis.ok(&format!("MCACHE.SET k 0 fresh TOKEN {fresh} TAGS t"));
}
