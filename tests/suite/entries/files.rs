//! What was deleted or overwritten before a restart stays so, also where the entries themselves are not served any
//! more.

use harness::{Server, ServerBuilder, Session};

fn aof(preamble: bool) -> ServerBuilder {
    Server::builder()
        .set("appendonly", "yes")
        .set("appendfsync", "always")
        .set("aof-use-rdb-preamble", if preamble { "yes" } else { "no" })
}

/// Ways in which an entry takes the place of a plain key, or goes somewhere else: a plain key `cfg` (`cfg2` where the
/// way is a move to the other database), and an entry `new`.
const WAYS: [(&str, &[&str]); 8] = [
    ("RENAME", &["RENAME new cfg"]),
    ("RENAME twice", &["RENAME new other", "RENAME other cfg"]),
    ("COPY REPLACE", &["COPY new cfg REPLACE"]),
    (
        "COPY REPLACE from another database",
        &["SELECT 1", "COPY new cfg DB 0 REPLACE", "SELECT 0"],
    ),
    (
        "DEL and MOVE",
        &[
            "DEL cfg",
            "SELECT 1",
            "MOVE new 0",
            "SELECT 0",
            "RENAME new cfg",
        ],
    ),
    ("RESTORE REPLACE", &["*RESTORE"]),
    ("RENAMENX after DEL", &["DEL cfg", "RENAMENX new cfg"]),
    ("RENAME, then COPY", &["RENAME new cfg", "COPY cfg cfg3"]),
];

fn play(redis: &mut Session, way: &[&str]) {
    redis.ok("SET cfg old");
    for db in [1, 0] {
        redis.ok(&format!("SELECT {db}"));
        redis.ok("MCACHE.SET new 1000 v TAGS t");
    }
    for line in way {
        if *line == "*RESTORE" {
            let dump = redis.dump("new");
            redis.call(&[b"RESTORE", &b"cfg"[..], b"0", &dump, b"REPLACE"]);
        } else {
            redis.run(line);
        }
    }
    assert_eq!(redis.text("TYPE cfg").as_deref(), Some("mcache-tv"));
}

#[test]
fn a_plain_key_that_an_entry_replaced_does_not_come_back_after_a_restart() {
    for restart in ["drop", "keep"] {
        for preamble in [false, true] {
            for rewritten in [false, true] {
                for (name, way) in WAYS {
                    let shown = format!("{name}, {restart}, {preamble}, {rewritten}");
                    println!("{shown}");
                    let mut server = aof(preamble).set("mcache.on-restart", restart).start();
                    let mut redis = server.session();
                    if rewritten {
                        // The way is played on what a rewrite left.
                        redis.ok("SET cfg old");
                        redis.ok("MCACHE.SET new 1000 v TAGS t");
                        redis.run("BGREWRITEAOF");
                        redis.await_rewrite();
                    }
                    play(&mut redis, way);
                    server.restart();
                    let mut redis = server.session();
                    assert_ne!(redis.text("TYPE cfg").as_deref(), Some("string"), "{shown}");
                    let value = redis.text("MCACHE.GET cfg");
                    match restart {
                        "keep" => assert_eq!(value.as_deref(), Some("v"), "{shown}"),
                        _ => assert_eq!(value, None, "{shown}"),
                    }
                    redis.drain();
                    redis.ok("MCACHE.DEBUG SELFCHECK");
                    if restart == "drop" {
                        assert_eq!(redis.int("EXISTS cfg new"), 0, "{shown}");
                        // And what the second start finds is what the first one left.
                        server.restart();
                        assert_eq!(server.session().int("EXISTS cfg new"), 0, "{shown}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_plain_key_that_replaced_an_entry_is_there_after_a_restart() {
    for preamble in [false, true] {
        let mut server = aof(preamble).start();
        let mut redis = server.session();
        redis.ok("MCACHE.SET a 1000 v TAGS t");
        redis.ok("MCACHE.SET b 1000 v TAGS t");
        redis.ok("MCACHE.SET c 1000 v TAGS t");
        redis.ok("SET a plain XX");
        redis.ok("SET src plain");
        redis.ok("RENAME src b");
        redis.ok("SET src plain");
        redis.int("COPY src c REPLACE");
        server.restart();
        let mut redis = server.session();
        redis.drain();
        for key in ["a", "b", "c"] {
            let value = redis.text(&format!("GET {key}"));
            assert_eq!(value.as_deref(), Some("plain"), "{key}");
        }
    }
}

/// A rewrite writes the dead as husks: what follows in the file may name them.
#[test]
fn an_entry_that_is_dead_at_a_rewrite_still_takes_the_place_of_a_plain_key() {
    let mut server = aof(false)
        .set("mcache.on-restart", "keep")
        .set("mcache.reclaim-inline-max", 0)
        .start();
    let mut redis = server.session();
    redis.ok("SET cfg old");
    redis.ok("MCACHE.SET new 1000 v TAGS t");
    // Within one transaction nothing is reclaimed, and what follows the fork stands in the next file.
    redis.ok("MULTI");
    redis.run("MCACHE.INVALIDATE TAGS t");
    redis.run("BGREWRITEAOF");
    redis.run("RENAME new cfg");
    redis.run("EXEC");
    redis.await_rewrite();
    server.restart();
    let mut redis = server.session();
    assert_ne!(redis.text("TYPE cfg").as_deref(), Some("string"));
    assert_eq!(redis.text("MCACHE.GET cfg"), None);
}
