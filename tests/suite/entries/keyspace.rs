//! However an entry leaves or moves, the index follows: every tag has exactly the entries that are there.

use harness::{Server, Session, host, wait};
use redis::Value;

/// Three entries under `t`; `a` under a tag of its own as well.
fn fill(redis: &mut Session) {
    redis.ok("MCACHE.SET a 0 va TAGS t own:a");
    redis.ok("MCACHE.SET b 0 vb TAGS t");
    redis.ok("MCACHE.SET c 0 vc TAGS t");
}

/// What each database holds under `t` after the lines, each line on its own and all of them in one transaction.
#[track_caller]
fn after(lines: &[&str], expected: &[(usize, &[&str])]) {
    let to_another = |line: &&str| line.contains(" DB ") || line.starts_with("MOVE");
    if lines.iter().any(to_another) && host::loses_the_database() {
        return;
    }
    for in_transaction in [false, true] {
        let server = Server::start();
        let mut redis = server.session();
        fill(&mut redis);
        if in_transaction {
            redis.ok("MULTI");
        }
        for line in lines {
            redis.run(line);
        }
        if in_transaction {
            let replies = redis.run("EXEC");
            assert!(!matches!(replies, Value::Nil));
        }
        for (db, keys) in expected {
            redis.ok(&format!("SELECT {db}"));
            assert_eq!(redis.entries("t"), *keys, "database {db} after {lines:?}");
            assert_eq!(
                redis.tags().get("t").copied().unwrap_or(0),
                keys.len() as i64,
                "count in database {db} after {lines:?}"
            );
            for key in *keys {
                assert!(redis.is_live(key), "{key} in database {db} after {lines:?}");
            }
        }
        redis.ok("MCACHE.DEBUG SELFCHECK");
    }
}

#[test]
fn del_and_unlink() {
    after(&["DEL a"], &[(0, &["b", "c"])]);
    after(&["UNLINK a b nothing"], &[(0, &["c"])]);
    after(&["DEL a b c"], &[(0, &[])]);
    after(&["GETDEL nothing", "DEL a", "DEL a"], &[(0, &["b", "c"])]);
}

#[test]
fn overwritten_by_other_types() {
    after(&["SET a text"], &[(0, &["b", "c"])]);
    after(&["MSET a 1 b 2"], &[(0, &["c"])]);
    after(
        &["SINTERSTORE a nothing", "SUNIONSTORE b nothing"],
        &[(0, &["c"])],
    );
    after(&["SADD s 1", "SUNIONSTORE a s"], &[(0, &["b", "c"])]);
    after(&["SADD s 1", "RENAME s a"], &[(0, &["b", "c"])]);
    after(&["SADD s 1", "COPY s a REPLACE"], &[(0, &["b", "c"])]);
    after(&["BITOP NOT a nothing"], &[(0, &["b", "c"])]);
}

#[test]
fn overwritten_by_another_entry() {
    after(&["MCACHE.SET a 0 v TAGS t"], &[(0, &["a", "b", "c"])]);
    after(&["MCACHE.SET a 0 v TAGS u"], &[(0, &["b", "c"])]);
    after(&["MCACHE.SET a 0 v"], &[(0, &["b", "c"])]);
    after(
        &["MCACHE.SET a 0 v TAGS u", "MCACHE.SET a 0 v TAGS t"],
        &[(0, &["a", "b", "c"])],
    );
}

#[test]
fn renamed() {
    after(&["RENAME a z"], &[(0, &["b", "c", "z"])]);
    after(&["RENAME a b"], &[(0, &["b", "c"])]);
    after(&["RENAME a a"], &[(0, &["a", "b", "c"])]);
    after(&["RENAMENX a b"], &[(0, &["a", "b", "c"])]);
    after(&["RENAMENX a z"], &[(0, &["b", "c", "z"])]);
    after(
        &["RENAME a z", "RENAME b a", "RENAME z b"],
        &[(0, &["a", "b", "c"])],
    );
    after(
        &["SET text 1", "RENAME a text"],
        &[(0, &["b", "c", "text"])],
    );
}

#[test]
fn the_only_entry_of_a_tag_renamed_keeps_it() {
    if host::loses_the_database() {
        return;
    }
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS own");
    redis.ok("RENAME k other");
    assert_eq!(redis.entries("own"), ["other"]);
    assert_eq!(redis.int("MOVE other 1"), 1);
    assert!(redis.tags().is_empty());
    redis.ok("SELECT 1");
    assert_eq!(redis.entries("own"), ["other"]);
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS own"), 1);
    assert!(!redis.is_live("other"));
}

#[test]
fn moved_between_databases() {
    after(&["MOVE a 1"], &[(0, &["b", "c"]), (1, &["a"])]);
    after(
        &["MOVE a 1", "MOVE b 1", "MOVE c 1"],
        &[(0, &[]), (1, &["a", "b", "c"])],
    );
    after(
        &["COPY a a DB 1", "MOVE a 1"],
        &[(0, &["a", "b", "c"]), (1, &["a"])],
    );
}

#[test]
fn copied() {
    after(&["COPY a z"], &[(0, &["a", "b", "c", "z"])]);
    after(&["COPY a b"], &[(0, &["a", "b", "c"])]);
    after(&["COPY a b REPLACE"], &[(0, &["a", "b", "c"])]);
    after(&["COPY a z DB 2"], &[(0, &["a", "b", "c"]), (2, &["z"])]);
    after(&["COPY a z", "DEL a"], &[(0, &["b", "c", "z"])]);
    after(
        &["SET z text", "COPY a z REPLACE"],
        &[(0, &["a", "b", "c", "z"])],
    );
}

#[test]
fn a_copy_dies_with_its_tags() {
    let server = Server::start();
    let mut redis = server.session();
    fill(&mut redis);
    redis.int("COPY a z");
    assert_eq!(redis.text("MCACHE.GET z").as_deref(), Some("va"));
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS own:a"), 2);
    assert!(!redis.is_live("z"));
}

#[test]
fn restored() {
    let server = Server::start();
    let mut redis = server.session();
    fill(&mut redis);
    let dump = redis.dump("a");
    let restore = |redis: &mut Session, key: &str, ttl: &str, options: &[&str]| {
        let mut arguments = vec![&b"RESTORE"[..], key.as_bytes(), ttl.as_bytes(), &dump];
        arguments.extend(options.iter().map(|word| word.as_bytes()));
        redis.try_call(&arguments)
    };
    restore(&mut redis, "new", "0", &[]).expect("restored");
    assert_eq!(redis.entries("t"), ["a", "b", "c", "new"]);
    assert!(
        restore(&mut redis, "b", "0", &[])
            .expect_err("is there")
            .starts_with("BUSYKEY")
    );
    restore(&mut redis, "b", "0", &["REPLACE"]).expect("replaced");
    assert_eq!(redis.text("MCACHE.GET b").as_deref(), Some("va"));
    assert_eq!(redis.entries("own:a"), ["a", "b", "new"]);
    redis.ok("SET text 1");
    restore(&mut redis, "text", "100000", &["REPLACE"]).expect("replaced");
    assert!(redis.int("PTTL text") > 0);
    // A deadline that has passed: the key never comes to be.
    restore(&mut redis, "late", "1", &["ABSTTL"]).expect("accepted");
    assert_eq!(redis.int("EXISTS late"), 0);
    restore(&mut redis, "c", "1", &["ABSTTL", "REPLACE"]).expect("accepted");
    assert_eq!(redis.entries("t"), ["a", "b", "new", "text"]);
}

#[test]
fn a_damaged_dump_is_refused() {
    let server = Server::builder()
        .set("sanitize-dump-payload", "yes")
        .start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 value TAGS t u");
    let dump = redis.dump("k");
    for cut in 0..dump.len() {
        redis
            .try_call(&[&b"RESTORE"[..], b"broken", b"0", &dump[..cut]])
            .expect_err("a dump that was cut");
    }
    assert_eq!(redis.int("EXISTS broken"), 0);
    assert_eq!(redis.entries("t"), ["k"]);
}

#[test]
fn swapped_databases() {
    after(&["SWAPDB 0 1"], &[(0, &[]), (1, &["a", "b", "c"])]);
    after(
        &["MOVE a 1", "SWAPDB 0 1"],
        &[(0, &["a"]), (1, &["b", "c"])],
    );
    after(&["SWAPDB 0 0"], &[(0, &["a", "b", "c"])]);
    after(
        &["SWAPDB 0 1", "SWAPDB 1 2", "MCACHE.SET d 0 v TAGS t"],
        &[(0, &["d"]), (1, &[]), (2, &["a", "b", "c"])],
    );
}

#[test]
fn flushed() {
    for flush in ["FLUSHDB", "FLUSHDB SYNC", "FLUSHDB ASYNC"] {
        after(&["COPY a a DB 1", flush], &[(0, &[]), (1, &["a"])]);
        after(&[flush, "MCACHE.SET d 0 v TAGS t own:a"], &[(0, &["d"])]);
    }
    for flush in ["FLUSHALL", "FLUSHALL SYNC", "FLUSHALL ASYNC"] {
        after(&["COPY a a DB 1", flush], &[(0, &[]), (1, &[])]);
        after(&[flush, "MCACHE.SET d 0 v TAGS t own:a"], &[(0, &["d"])]);
    }
}

#[test]
fn a_flush_gives_everything_back() {
    let server = Server::start();
    let mut redis = server.session();
    let empty = redis.stat("index_bytes");
    for flush in ["FLUSHALL", "FLUSHALL ASYNC"] {
        redis.run_all((0..10_000).map(|n| format!("MCACHE.SET k{n} 0 v TAGS t own:{n}")));
        redis.ok(flush);
        wait::until("the index is back to where it began", || {
            redis.stat("index_bytes") - empty < 16 * 1024
        });
        for gauge in [
            "entries",
            "tags",
            "memberships",
            "payload_bytes",
            "pending_reclaim",
        ] {
            assert_eq!(redis.stat(gauge), 0, "{gauge} after {flush}");
        }
    }
}

#[test]
fn expired_in_the_past() {
    after(&["EXPIRE a -1"], &[(0, &["b", "c"])]);
    after(&["PEXPIREAT b 1"], &[(0, &["a", "c"])]);
    after(&["EXPIRE a 100", "PERSIST a"], &[(0, &["a", "b", "c"])]);
}

#[test]
fn expired_lazily() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("DEBUG SET-ACTIVE-EXPIRE 0");
    fill(&mut redis);
    redis.ok("MCACHE.SET a 0.001 v TAGS t own:a");
    wait::until("the entry is past its time", || !redis.is_live("a"));
    assert_eq!(redis.int("EXISTS a"), 0);
    assert_eq!(redis.entries("t"), ["b", "c"]);
    assert!(!redis.tags().contains_key("own:a"));
}

#[test]
fn expired_actively() {
    let server = Server::start();
    let mut redis = server.session();
    for n in 0..1_000 {
        redis.ok(&format!("MCACHE.SET k{n} 0.01 v TAGS t own:{n}"));
    }
    redis.ok("MCACHE.SET stays 0 v TAGS t");
    // No client touches them; Redis' own cycle finds them.
    wait::until("Redis has expired them all", || redis.int("DBSIZE") == 1);
    assert_eq!(redis.entries("t"), ["stays"]);
    assert_eq!(
        redis.tags().into_iter().collect::<Vec<_>>(),
        [("t".to_owned(), 1)]
    );
    assert_eq!(redis.info("stats", "expired_keys"), 1_000);
}

#[test]
fn past_its_time_it_is_not_served_listed_or_counted_even_if_nobody_expired_it() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("DEBUG SET-ACTIVE-EXPIRE 0");
    redis.ok("MCACHE.SET a 0.001 v TAGS t");
    redis.ok("MCACHE.SET b 0 v TAGS t");
    wait::until("the entry is past its time", || redis.int("PTTL a") == -2);
    assert_eq!(redis.run("MCACHE.MGET a"), Value::Array(vec![Value::Nil]));
    assert_eq!(redis.run("MCACHE.INSPECT a"), Value::Nil);
    assert_eq!(redis.entries("t"), ["b"]);
}

#[test]
fn evicted_under_every_policy() {
    for policy in [
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ] {
        let server = Server::builder().set("maxmemory-policy", policy).start();
        let mut redis = server.session();
        let room = redis.info("memory", "used_memory") + (1 << 20);
        redis.ok(&format!("CONFIG SET maxmemory {room}"));
        let value = "x".repeat(1_000);
        for n in 0..3_000 {
            redis.ok(&format!(
                "MCACHE.SET k{n} 1000 {value} TAGS t group:{} own:{n}",
                n % 10
            ));
        }
        let evicted = redis.info("stats", "evicted_keys");
        assert!(evicted > 1_000, "{policy} evicted {evicted}");
        // Even a long reply makes Redis evict: from here on nothing leaves.
        redis.ok("CONFIG SET maxmemory 0");
        let mut keys = redis.scan("SCAN {}");
        keys.sort();
        keys.dedup();
        assert_eq!(redis.entries("t"), keys, "{policy}");
        assert_eq!(
            redis.tags().len(),
            keys.len() + 11,
            "{policy}: t, groups and own tags"
        );
        redis.ok("MCACHE.DEBUG SELFCHECK");
    }
}

#[test]
fn reloaded() {
    let server = Server::builder().set("mcache.on-restart", "keep").start();
    let mut redis = server.session();
    fill(&mut redis);
    redis.ok("MCACHE.SET m 100 v MANUAL TAGS t");
    redis.ok("SELECT 4");
    redis.ok("MCACHE.SET d 0 v TAGS t");
    redis.ok("SELECT 0");
    let digest: String = redis.typed("DEBUG DIGEST");
    redis.ok("DEBUG RELOAD");
    assert_eq!(redis.typed::<String>("DEBUG DIGEST"), digest);
    // Valkey 8.1 leaves the client in the database that was loaded last.
    redis.ok("SELECT 0");
    assert_eq!(redis.entries("t"), ["a", "b", "c", "m"]);
    assert_eq!(redis.text("MCACHE.GET a").as_deref(), Some("va"));
    assert_eq!(
        redis.int("MCACHE.INVALIDATE AUTO TAGS t"),
        3,
        "MANUAL is kept"
    );
    redis.ok("SELECT 4");
    assert_eq!(redis.entries("t"), ["d"]);
}

#[test]
fn no_orphan_is_left_under_a_tag_that_stays_hot() {
    let server = Server::start();
    let mut redis = server.session();
    const ENTRIES: usize = 20_000;
    redis.run_all(
        (0..ENTRIES)
            .map(|n| format!("MCACHE.SET page:{n} 0.02 value TAGS Product:list:* Product:{n}")),
    );
    redis.ok("MCACHE.SET last 0 v TAGS Product:list:*");
    wait::until("Redis has expired them all", || redis.int("DBSIZE") == 1);
    assert_eq!(redis.entries("Product:list:*"), ["last"]);
    assert_eq!(redis.tags().len(), 1);
    assert_eq!(redis.stat("memberships"), 1);
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS Product:list:*"), 1);
}
