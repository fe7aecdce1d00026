//! Values that Redis asks for and frees without announcing their key: keys in a file that have expired, a RESTORE whose
//! time is over. What is freed must not come back under another key of the same name.

use harness::{Server, Session, host, wait};

/// Waits until an entry has expired, without looking at its key.
fn await_end(redis: &mut Session, end_ms: i64) {
    wait::until("the entry has expired", || {
        let (seconds, micros): (i64, i64) = redis.typed("TIME");
        seconds * 1_000 + micros / 1_000 > end_ms
    });
}

fn assert_unknown(redis: &mut Session, tag: &str) {
    assert_eq!(redis.entries(tag), Vec::<String>::new());
    let info = redis.map(&format!("MCACHE.TAGINFO {tag}")).expect("a map");
    assert_eq!(info["entries"], redis::Value::Int(0), "{tag}");
    assert_eq!(info["bytes"], redis::Value::Int(0), "{tag}");
}

/// The file holds `k` in database 0, which has expired, and then another `k` in database 1.
#[test]
fn a_key_that_expired_in_the_file_does_not_come_back_under_another_key_of_its_name() {
    for other in [
        "SET k plain",
        "RPUSH k 1 2 3",
        "MCACHE.SET k 0 v TAGS other",
    ] {
        for reload in ["DEBUG RELOAD", "DEBUG RELOAD NOFLUSH MERGE", "a restart"] {
            println!("{other}; {reload}");
            let mut server = Server::builder()
                .set("save", "3600 1")
                .set("mcache.on-promote", "drop")
                .set("mcache.on-restart", "keep")
                .tcp()
                .start();
            let mut redis = server.session();
            redis.ok("DEBUG SET-ACTIVE-EXPIRE 0");
            redis.ok("MCACHE.SET k 0.02 v TAGS t1 t2");
            let end_ms = redis.int("PEXPIRETIME k");
            redis.ok("SELECT 1");
            redis.run(other);
            redis.ok("SELECT 0");
            await_end(&mut redis, end_ms);
            if reload == "a restart" {
                server.restart();
                redis = server.session();
            } else if reload.ends_with("MERGE") {
                // Nothing is flushed: what is loaded takes the place of what is there.
                redis.ok("SAVE");
                redis.ok("DEBUG RELOAD NOSAVE NOFLUSH MERGE");
            } else {
                redis.ok(reload);
            }
            server.check().expect("the index follows the keyspace");
            assert_unknown(&mut redis, "t1");
            assert_unknown(&mut redis, "t2");
            // With a floor raised, reclaim visits every entry that the index lists.
            redis.ok("REPLICAOF 127.0.0.1 1");
            redis.ok("REPLICAOF NO ONE");
            wait::until("reclaim has come to its end", || {
                redis.stat("pending_reclaim") == 0
            });
            redis.ok("SELECT 1");
            let entries = i64::from(other.starts_with("MCACHE"));
            wait::until("what may not be served is gone", || {
                redis.int("DBSIZE") == 1 - entries
            });
            server.check().expect("the index follows the keyspace");
        }
    }
}

/// The value is made and freed; then the same name arrives by every other way.
#[test]
fn a_restore_whose_time_is_over_leaves_nothing_for_the_next_key_of_its_name() {
    if host::loses_the_database() {
        return;
    }
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET origin 0 value TAGS t1 t2");
    redis.ok("MCACHE.SET source 0 value TAGS t3");
    let dump = redis.typed::<Vec<u8>>("DUMP origin");
    redis.int("DEL origin");
    for arrival in [
        "COPY source k",
        "COPY source k DB 1",
        "RENAME source k",
        "SET k plain",
        "DEBUG RELOAD",
    ] {
        println!("{arrival}");
        let past = [&b"RESTORE"[..], b"k", b"1", &dump, b"ABSTTL", b"REPLACE"];
        redis.call(&past);
        redis.run(arrival);
        assert_unknown(&mut redis, "t1");
        server.check().expect("the index follows the keyspace");
        if arrival.starts_with("RENAME") {
            redis.ok("RENAME k source");
        }
        redis.int("DEL k");
    }
    // One that is still good arrives as ever.
    redis.call(&[&b"RESTORE"[..], b"k", b"0", &dump]);
    assert_eq!(redis.entries("t1"), ["k"]);
}

/// Entries of one INVALIDATE that expired meanwhile, between others: each is met once.
#[test]
fn a_small_invalidation_meets_expired_entries_among_the_others() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("DEBUG SET-ACTIVE-EXPIRE 0");
    let mut end_ms = 0;
    for n in 0..20 {
        let ttl = if n % 2 == 0 {
            "0.02 v SWR 0.01"
        } else {
            "1000 v SWR 10"
        };
        redis.ok(&format!("MCACHE.SET k{n} {ttl} TAGS t own:{n}"));
        end_ms = end_ms.max(redis.int("PEXPIRETIME k0"));
    }
    let last = redis.int("PEXPIRETIME k18");
    await_end(&mut redis, end_ms.max(last));
    assert_eq!(redis.int("MCACHE.INVALIDATE SOFT TAGS t"), 10);
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 10);
    assert_eq!(redis.int("DBSIZE"), 0);
    assert_eq!(redis.stat("entries"), 0);
}
