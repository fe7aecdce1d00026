//! INVALIDATE makes wrong what was made from a tag: at once, for good, and says how much it was.

use harness::{Server, Session};
use redis::Value;

/// Runs `test` with small invalidations freed at once, and with none.
fn inline_and_deferred(test: impl Fn(&mut Session)) {
    for inline_max in [10_000, 0] {
        println!("reclaim-inline-max {inline_max}");
        let server = Server::builder()
            .set("mcache.reclaim-inline-max", inline_max)
            .start();
        test(&mut server.session());
    }
}

#[test]
fn nothing_made_from_the_tag_is_served_afterwards() {
    inline_and_deferred(|redis| {
        for n in 0..100 {
            redis.ok(&format!("MCACHE.SET k{n} 0 v TAGS all t{n} g{}", n % 10));
        }
        assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t7"), 1);
        assert!(!redis.is_live("k7"));
        assert!(redis.is_live("k8"));
        assert_eq!(redis.int("MCACHE.INVALIDATE TAGS g3"), 10);
        for n in 0..100 {
            assert_eq!(
                redis.is_live(&format!("k{n}")),
                n != 7 && n % 10 != 3,
                "k{n}"
            );
        }
        assert_eq!(redis.run("MCACHE.MGET k3 k4 k7"), {
            Value::Array(vec![
                Value::Nil,
                Value::BulkString(b"v".to_vec()),
                Value::Nil,
            ])
        });
        redis.drain();
        assert_eq!(redis.int("MCACHE.INVALIDATE TAGS all"), 89);
        redis.drain();
        assert_eq!(redis.int("DBSIZE"), 0);
        assert!(redis.tags().is_empty());
        assert_eq!(redis.stat("entries_invalidated"), 100);
        assert_eq!(redis.stat("reclaimed"), 100);
    });
}

#[test]
fn tags_are_or_ed_and_an_entry_dies_once() {
    inline_and_deferred(|redis| {
        redis.ok("MCACHE.SET a 0 v TAGS x");
        redis.ok("MCACHE.SET b 0 v TAGS y");
        redis.ok("MCACHE.SET ab 0 v TAGS x y z");
        redis.ok("MCACHE.SET c 0 v TAGS z");
        redis.ok("MCACHE.SET untagged 0 v");
        // Beyond `reclaim-inline-max` the command does not look at the entries, and one that carries two of the tags
        // counts twice.
        let at_once = redis.list("CONFIG GET mcache.reclaim-inline-max")[1] != "0";
        let count = if at_once { 3 } else { 4 };
        assert_eq!(redis.int("MCACHE.INVALIDATE TAGS x y nothing"), count);
        assert_eq!(redis.int("MCACHE.INVALIDATE TAGS x y nothing"), 0);
        for (key, live) in [
            ("a", false),
            ("b", false),
            ("ab", false),
            ("c", true),
            ("untagged", true),
        ] {
            assert_eq!(redis.is_live(key), live, "{key}");
        }
        assert_eq!(redis.entries("z"), ["c"]);
    });
}

#[test]
fn the_first_argument_decides_whether_tags_need_their_word() {
    inline_and_deferred(|redis| {
        let tags = ["AUTO", "auto", "SOFT", "TAGS", "plain"];
        let fill = |redis: &mut Session| {
            for tag in tags {
                redis.ok(&format!("MCACHE.SET k-{tag} 0 v TAGS {tag}"));
            }
        };
        for (line, dead) in [
            ("MCACHE.INVALIDATE plain", &["plain"][..]),
            (
                "MCACHE.INVALIDATE plain AUTO TAGS",
                &["plain", "AUTO", "TAGS"],
            ),
            ("MCACHE.INVALIDATE TAGS AUTO", &["AUTO"]),
            ("MCACHE.INVALIDATE tags TAGS auto", &["TAGS", "auto"]),
            ("mcache.invalidate auto tags AUTO", &["AUTO"]),
        ] {
            fill(redis);
            assert_eq!(redis.int(line), dead.len() as i64, "{line}");
            for tag in tags {
                let expected = !dead.contains(&tag);
                assert_eq!(
                    redis.is_live(&format!("k-{tag}")),
                    expected,
                    "{line}: {tag}"
                );
            }
        }
        fill(redis);
        for line in [
            "MCACHE.INVALIDATE AUTO",
            "MCACHE.INVALIDATE AUTO plain",
            "MCACHE.INVALIDATE TAGS",
            "MCACHE.INVALIDATE AUTO TAGS",
        ] {
            let refusal = redis.error(line);
            assert!(refusal.starts_with("ERR"), "{line}: {refusal}");
        }
        for tag in tags {
            assert!(
                redis.is_live(&format!("k-{tag}")),
                "refused lines change nothing"
            );
        }
    });
}

#[test]
fn auto_spares_manual_entries_until_they_are_meant() {
    inline_and_deferred(|redis| {
        for n in 0..10 {
            redis.ok(&format!("MCACHE.SET auto{n} 0 v TAGS t u"));
            redis.ok(&format!("MCACHE.SET manual{n} 0 v MANUAL TAGS t u"));
        }
        assert_eq!(redis.tags()["t"], 20);
        assert_eq!(redis.int("MCACHE.INVALIDATE AUTO TAGS t"), 10);
        redis.drain();
        assert_eq!(redis.tags()["t"], 10);
        assert!(
            redis
                .entries("t")
                .iter()
                .all(|key| key.starts_with("manual"))
        );
        assert_eq!(redis.int("MCACHE.INVALIDATE AUTO TAGS t u"), 0);
        redis.ok("MCACHE.SET manual0 0 v TAGS t");
        assert_eq!(
            redis.int("MCACHE.INVALIDATE AUTO TAGS t"),
            1,
            "an overwrite decides anew"
        );
        assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 9);
        assert!(!redis.is_live("manual5"));
    });
}

#[test]
fn what_is_filled_after_the_invalidation_lives_beside_what_is_not_yet_reclaimed() {
    inline_and_deferred(|redis| {
        for n in 0..100 {
            redis.ok(&format!("MCACHE.SET k{n} 0 old TAGS t"));
        }
        // In one transaction, so that nothing is reclaimed in between.
        redis.ok("MULTI");
        redis.run("MCACHE.INVALIDATE TAGS t");
        for n in 0..50 {
            redis.run(&format!("MCACHE.SET k{n} 0 new TAGS t"));
        }
        redis.run("MCACHE.ENTRIES t 0 COUNT 1000");
        redis.run("EXEC");
        for n in 0..100 {
            let expected = (n < 50).then_some("new");
            assert_eq!(redis.text(&format!("MCACHE.GET k{n}")).as_deref(), expected);
        }
        redis.drain();
        assert_eq!(redis.int("DBSIZE"), 50);
        assert_eq!(redis.tags()["t"], 50);
        assert_eq!(redis.entries("t").len(), 50);
        assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 50);
    });
}

/// Everything that could bring a dead entry back, before the reclaimer had the time to free it.
#[test]
fn no_command_brings_a_dead_entry_back() {
    for revival in [
        "RENAME k other",
        "RENAMENX k other",
        "COPY k other",
        "COPY k other DB 3",
        "MOVE k 3",
        "PERSIST k",
        "EXPIRE k 1000",
        "SWAPDB 0 3",
        "DEBUG RELOAD",
        "DEBUG LOADAOF",
    ] {
        // `keep`: what a reload may serve is served.
        let server = Server::builder()
            .set("mcache.reclaim-inline-max", 0)
            .set("mcache.on-restart", "keep")
            .set(
                "appendonly",
                if revival == "DEBUG LOADAOF" {
                    "yes"
                } else {
                    "no"
                },
            )
            .start();
        let mut redis = server.session();
        redis.ok("MCACHE.SET k 100 v TAGS t u");
        redis.ok("MCACHE.SET alive 100 v TAGS u");
        let in_one_step = !revival.starts_with("DEBUG");
        if in_one_step {
            redis.ok("MULTI");
        }
        redis.run("MCACHE.INVALIDATE TAGS t");
        redis.run(revival);
        if in_one_step {
            redis.run("EXEC");
        }
        for db in [0, 3] {
            redis.ok(&format!("SELECT {db}"));
            for key in ["k", "other"] {
                assert!(!redis.is_live(key), "{revival} revived {key} in {db}");
            }
        }
        let home = if revival == "SWAPDB 0 3" { 3 } else { 0 };
        redis.ok(&format!("SELECT {home}"));
        assert!(redis.is_live("alive"), "{revival}");
        assert_eq!(redis.entries("u"), ["alive"], "{revival}");
    }
}

#[test]
fn a_dump_of_a_dead_entry_restores_as_dead() {
    let server = Server::builder()
        .set("mcache.reclaim-inline-max", 0)
        .start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS t u");
    redis.ok("MULTI");
    redis.run("MCACHE.INVALIDATE TAGS t");
    redis.run("DUMP k");
    let Value::Array(replies) = redis.run("EXEC") else {
        panic!("EXEC gives an array")
    };
    let Value::BulkString(dump) = &replies[1] else {
        panic!("no dump: {replies:?}")
    };
    redis.drain();
    redis.call(&[&b"RESTORE"[..], b"other", b"0", dump]);
    assert!(!redis.is_live("other"));
}

#[test]
fn a_dump_taken_before_the_invalidation_restores_as_dead() {
    inline_and_deferred(|redis| {
        redis.ok("MCACHE.SET k 0 v TAGS t u");
        let dump = redis.dump("k");
        redis.int("MCACHE.INVALIDATE TAGS t");
        redis.drain();
        redis.call(&[&b"RESTORE"[..], b"k", b"0", &dump]);
        assert!(
            !redis.is_live("k"),
            "its fill began before the invalidation"
        );
        // The other way round it is as good as it was.
        redis.ok("MCACHE.SET k 0 v TAGS t u");
        let dump = redis.dump("k");
        redis.int("DEL k");
        redis.call(&[&b"RESTORE"[..], b"k", b"0", &dump]);
        assert!(redis.is_live("k"));
        assert_eq!(redis.entries("t"), ["k"]);
    });
}

#[test]
fn a_watched_entry_does_not_change_by_being_invalidated_but_by_being_reclaimed() {
    let server = Server::start();
    let (mut watcher, mut other) = (server.session(), server.session());
    watcher.ok("MCACHE.SET k 0 v TAGS t");
    watcher.ok("WATCH k");
    other.int("MCACHE.INVALIDATE TAGS t");
    other.drain();
    watcher.ok("MULTI");
    watcher.run("PING");
    assert_eq!(
        watcher.run("EXEC"),
        Value::Nil,
        "the key is gone, so the transaction is, too"
    );
}

#[test]
fn counters_count_what_their_names_say() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET a 0 v TAGS t");
    redis.ok("MCACHE.SET b 0 v TAGS t");
    redis.run("MCACHE.GET a");
    redis.run("MCACHE.GET nothing");
    redis.run("MCACHE.MGET a b nothing");
    assert_eq!(redis.stat("fills"), 2);
    assert_eq!(redis.stat("hits"), 3);
    assert_eq!(redis.stat("misses"), 2);
    redis.int("MCACHE.INVALIDATE TAGS t nothing");
    redis.int("MCACHE.INVALIDATE TAGS nothing");
    assert_eq!(redis.stat("invalidations"), 2);
    assert_eq!(redis.stat("entries_invalidated"), 2);
    redis.drain();
    assert_eq!(redis.stat("reclaimed"), 2);
    assert_eq!(redis.stat("pending_reclaim"), 0);
    assert_eq!(redis.stat("entries"), 0);
}

#[test]
fn a_dead_entry_met_before_it_is_reclaimed_is_a_dead_hit() {
    let server = Server::builder()
        .set("mcache.reclaim-inline-max", 0)
        .start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS t");
    redis.ok("MULTI");
    redis.run("MCACHE.INVALIDATE TAGS t");
    redis.run("MCACHE.GET k");
    redis.run("MCACHE.INSPECT k");
    redis.run("EXEC");
    assert_eq!(redis.stat("dead_hits"), 1);
    assert_eq!(redis.stat("hits"), 0);
}
