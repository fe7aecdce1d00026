//! What is on disk comes back as it was, and is served only where nothing can have been missed.

use std::path::{Path, PathBuf};

use harness::{Server, ServerBuilder, Session, wait};

/// The ways to persist, as configuration.
fn ways() -> [(&'static str, ServerBuilder); 4] {
    let aof = || {
        Server::builder()
            .set("appendonly", "yes")
            .set("appendfsync", "always")
    };
    [
        ("RDB", Server::builder().set("save", "3600 1")),
        ("AOF with preamble", aof()),
        (
            "AOF without preamble",
            aof().set("aof-use-rdb-preamble", "no"),
        ),
        ("RDB and AOF", aof().set("save", "3600 1")),
    ]
}

fn fill(redis: &mut Session) {
    redis.ok("MCACHE.SET a 1000 va TAGS t u");
    redis.ok("MCACHE.SET b 0 vb MANUAL TAGS t");
    redis.ok("MCACHE.SET untagged 0 v");
    redis.ok("MCACHE.SET gone 0 v TAGS gone");
    redis.int("MCACHE.INVALIDATE TAGS gone");
    redis.ok("MCACHE.SET deleted 0 v TAGS t");
    redis.int("DEL deleted");
    redis.call(&[
        &b"MCACHE.SET"[..],
        b"\x00\xff",
        b"0",
        b"\xfe\r\n",
        b"TAGS",
        b"\x00",
        b"t",
    ]);
    redis.ok("SET foreign 1");
    redis.ok("SELECT 7");
    redis.ok("MCACHE.SET a 0 seven TAGS t");
    redis.ok("SELECT 0");
}

#[track_caller]
fn assert_filled(redis: &mut Session) {
    redis.ok("SELECT 0");
    assert_eq!(redis.text("MCACHE.GET a").as_deref(), Some("va"));
    let ttl = redis.int("TTL a");
    assert!((900..=1000).contains(&ttl), "TTL {ttl}");
    assert_eq!(redis.text("MCACHE.GET b").as_deref(), Some("vb"));
    assert_eq!(redis.int("TTL b"), -1);
    assert!(redis.is_live("untagged"));
    assert!(!redis.is_live("gone"));
    assert!(!redis.is_live("deleted"));
    assert_eq!(
        redis.call(&[&b"MCACHE.GET"[..], b"\x00\xff"]),
        redis::Value::BulkString(b"\xfe\r\n".to_vec())
    );
    assert_eq!(redis.tags().get("t"), Some(&3));
    assert_eq!(redis.entries("u"), ["a"]);
    redis.ok("SELECT 7");
    assert_eq!(redis.text("MCACHE.GET a").as_deref(), Some("seven"));
    redis.ok("SELECT 0");
}

#[test]
fn keep_serves_what_was_stored() {
    for (way, server) in ways() {
        println!("{way}");
        let mut server = server.set("mcache.on-restart", "keep").start();
        fill(&mut server.session());
        let before: String = server.session().typed("DEBUG DIGEST");
        server.restart();
        let mut redis = server.session();
        assert_filled(&mut redis);
        assert_eq!(redis.typed::<String>("DEBUG DIGEST"), before, "{way}");
        assert_eq!(
            redis.int("MCACHE.INVALIDATE AUTO TAGS t"),
            2,
            "{way}: b is MANUAL"
        );
        assert!(redis.is_live("b"));
        // And once more: what was loaded is written as well as what was set.
        server.restart();
        let mut redis = server.session();
        assert!(!redis.is_live("a"), "{way}");
        assert!(redis.is_live("b"), "{way}");
    }
}

#[test]
fn drop_serves_nothing_from_before_and_reclaims_it() {
    for (way, server) in ways() {
        println!("{way}");
        let mut server = server.start();
        fill(&mut server.session());
        server.restart();
        let mut redis = server.session();
        for key in ["a", "b", "untagged"] {
            assert!(!redis.is_live(key), "{way}: {key}");
        }
        assert_eq!(redis.entries("t"), Vec::<String>::new(), "{way}");
        redis.ok("MCACHE.SET a 0 new TAGS t");
        wait::until("what may not be served is reclaimed", || {
            redis.int("DBSIZE") == 2
        });
        assert_eq!(redis.text("MCACHE.GET a").as_deref(), Some("new"));
        assert_eq!(redis.text("GET foreign").as_deref(), Some("1"));
        assert_eq!(redis.entries("t"), ["a"]);
    }
}

#[test]
fn an_aof_rewrite_keeps_everything() {
    for preamble in ["yes", "no"] {
        let mut server = Server::builder()
            .set("appendonly", "yes")
            .set("aof-use-rdb-preamble", preamble)
            .set("mcache.on-restart", "keep")
            .start();
        let mut redis = server.session();
        fill(&mut redis);
        redis.run("BGREWRITEAOF");
        redis.await_rewrite();
        assert_eq!(
            redis.info_text("persistence", "aof_last_bgrewrite_status"),
            "ok"
        );
        redis.ok("MCACHE.SET after 0 v TAGS t");
        redis.int("DEL after");
        let before: String = redis.typed("DEBUG DIGEST");
        server.restart();
        let mut redis = server.session();
        assert_filled(&mut redis);
        assert_eq!(
            redis.typed::<String>("DEBUG DIGEST"),
            before,
            "preamble {preamble}"
        );
    }
}

#[test]
fn what_is_dead_when_it_is_saved_is_dead_when_it_is_loaded() {
    for (way, server) in ways() {
        println!("{way}");
        // Nothing is reclaimed at once, and the process ends right after the invalidation.
        let mut server = server
            .set("mcache.reclaim-inline-max", 0)
            .set("mcache.on-restart", "keep")
            .start();
        let mut redis = server.session();
        redis.run_all((0..20_000).map(|n| format!("MCACHE.SET k{n} 0 v TAGS t u")));
        redis.ok("MCACHE.SET alive 0 v TAGS u");
        redis.int("MCACHE.INVALIDATE TAGS t");
        server.restart();
        let mut redis = server.session();
        for n in (0..20_000).step_by(997) {
            assert!(!redis.is_live(&format!("k{n}")), "{way}: k{n}");
        }
        assert!(redis.is_live("alive"), "{way}");
        assert_eq!(redis.entries("u"), ["alive"], "{way}");
        wait::until("the dead are reclaimed", || redis.int("DBSIZE") == 1);
    }
}

#[test]
fn kill9_with_drop_serves_nothing_and_with_keep_what_reached_the_disk() {
    for (on_restart, live) in [("drop", false), ("keep", true)] {
        let mut server = Server::builder()
            .set("appendonly", "yes")
            .set("appendfsync", "always")
            .set("mcache.on-restart", on_restart)
            .start();
        let mut redis = server.session();
        redis.ok("MCACHE.SET stays 0 v TAGS t");
        redis.ok("MCACHE.SET goes 0 v TAGS u");
        redis.int("MCACHE.INVALIDATE TAGS u");
        server.kill9();
        server.start_again();
        let mut redis = server.session();
        assert_eq!(redis.is_live("stays"), live, "{on_restart}");
        assert!(!redis.is_live("goes"), "{on_restart}");
    }
}

#[test]
fn on_restart_concerns_the_start_only() {
    // drop: DEBUG RELOAD is no restart, nothing was missed meanwhile.
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS t");
    redis.ok("DEBUG RELOAD");
    assert!(redis.is_live("k"));
    assert_eq!(redis.entries("t"), ["k"]);
}

#[test]
fn epochs_go_on_after_a_restart() {
    for on_restart in ["drop", "keep"] {
        let mut server = Server::builder()
            .set("save", "3600 1")
            .set("mcache.on-restart", on_restart)
            .start();
        let mut redis = server.session();
        redis.ok("MCACHE.SET k 0 v TAGS t");
        redis.int("MCACHE.INVALIDATE TAGS other");
        redis.ok("MCACHE.SET later 0 v TAGS t");
        let epoch: u64 = redis.info("mcache", "mcache_epoch") as u64;
        let incarnation = redis.info_text("mcache", "mcache_incarnation");
        server.restart();
        let mut redis = server.session();
        assert!(
            redis.info("mcache", "mcache_epoch") as u64 >= epoch,
            "{on_restart}"
        );
        assert_ne!(redis.info_text("mcache", "mcache_incarnation"), incarnation);
        // An invalidation after the restart concerns what was stored before it.
        redis.int("MCACHE.INVALIDATE TAGS t");
        assert!(!redis.is_live("k") && !redis.is_live("later"));
    }
}

#[test]
fn an_rdb_without_entries_loads_where_the_module_is_missing() {
    let mut server = Server::builder().set("save", "3600 1").start();
    let mut redis = server.session();
    redis.ok("SET plain 1");
    redis.ok("MCACHE.SET k 0 v TAGS t");
    redis.int("MCACHE.INVALIDATE TAGS t");
    redis.drain();
    server.stop();
    let plain = Server::builder()
        .without_module()
        .set("save", "3600 1")
        .start();
    let dir = plain.dir().to_owned();
    let mut plain = plain;
    plain.stop();
    std::fs::copy(server.dir().join("dump.rdb"), dir.join("dump.rdb")).expect("a dump was saved");
    plain.start_again();
    assert_eq!(plain.session().text("GET plain").as_deref(), Some("1"));
    server.start_again();
}

#[test]
fn expired_meanwhile_stays_expired() {
    for (way, server) in ways() {
        println!("{way}");
        let mut server = server.set("mcache.on-restart", "keep").start();
        let mut redis = server.session();
        redis.ok("DEBUG SET-ACTIVE-EXPIRE 0");
        redis.ok("MCACHE.SET short 0.2 v TAGS t own");
        redis.ok("MCACHE.SET long 1000 v TAGS t");
        server.stop();
        let deadline = std::time::Instant::now() + std::time::Duration::from_millis(250);
        wait::until("its time has passed", || {
            std::time::Instant::now() > deadline
        });
        server.start_again();
        let mut redis = server.session();
        assert!(!redis.is_live("short"), "{way}");
        assert_eq!(redis.entries("t"), ["long"], "{way}");
        redis.ok("MCACHE.DEBUG SELFCHECK");
    }
}

/// What the files in `golden/` were made from, by each version that was ever released: `<version>.rdb` by SAVE
/// afterwards, `<version>.aof` is the part of the append-only file that grows.
const GOLDEN: &str = r#"
    MCACHE.SET plain 0 value
    MCACHE.SET tagged 0 value TAGS t:1 t:2 t:*
    MCACHE.SET manual 0 value MANUAL TAGS t:1
    MCACHE.SET brief 9000000000 value SWR 60 TAGS t:2
    MCACHE.SET "any \x00 bytes" 0 "\x00\xff\r\n" TAGS "\x00" t:1
    MCACHE.SET dead 0 value TAGS dead
    MCACHE.INVALIDATE TAGS dead
    SET foreign value"#;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("suite/golden")
}

/// A server that persists in one of the two ways.
fn persisting(in_aof: bool) -> ServerBuilder {
    Server::builder().set("appendonly", if in_aof { "yes" } else { "no" })
}

/// The file in which it does.
fn persisted(server: &Server, in_aof: bool) -> PathBuf {
    server.dir().join(match in_aof {
        true => "appendonlydir/appendonly.aof.1.incr.aof",
        false => "dump.rdb",
    })
}

#[test]
fn files_of_every_released_version_are_read() {
    let mut versions = 0;
    for file in std::fs::read_dir(golden()).expect("the files are there") {
        let file = file.expect("readable").path();
        let is_aof = file.extension().is_some_and(|kind| kind == "aof");
        let mut server = persisting(is_aof).set("mcache.on-restart", "keep").start();
        server.stop();
        std::fs::copy(&file, persisted(&server, is_aof)).expect("copied");
        server.start_again();
        assert_golden(&mut server.session());
        versions += 1;
    }
    assert!(versions >= 2, "nothing was read");
}

#[track_caller]
fn assert_golden(redis: &mut Session) {
    for key in ["plain", "tagged", "manual", "brief"] {
        assert_eq!(
            redis.text(&format!("MCACHE.GET {key}")).as_deref(),
            Some("value"),
            "{key}"
        );
    }
    let value = redis.call(&[&b"MCACHE.GET"[..], b"any \x00 bytes"]);
    assert_eq!(value, redis::Value::BulkString(b"\x00\xff\r\n".to_vec()));
    assert!(!redis.is_live("dead"));
    assert_eq!(redis.text("GET foreign").as_deref(), Some("value"));
    assert_eq!(redis.int("PTTL plain"), -1);
    assert!(redis.int("TTL brief") > 4_000_000_000);
    let tags = redis.tags();
    let counted: Vec<_> = ["t:1", "t:2", "t:*", "\0"]
        .map(|tag| tags.get(tag).copied())
        .into();
    assert_eq!(counted, [Some(3), Some(2), Some(1), Some(1)]);
    // What they tell is what invalidations go by.
    assert_eq!(redis.int("MCACHE.INVALIDATE AUTO TAGS t:1"), 2);
    assert!(redis.is_live("manual"));
    assert!(!redis.is_live("tagged"));
}

/// Makes the files of this version, before a release and never again:
/// `MCACHE_MAKE_GOLDEN=1 cargo test -p mcache-tests --test suite -- --ignored make_golden_files`.
#[test]
#[ignore = "writes into the source tree"]
fn make_golden_files() {
    if std::env::var_os("MCACHE_MAKE_GOLDEN").is_none() {
        return;
    }
    for (kind, in_aof) in [("rdb", false), ("aof", true)] {
        let server = persisting(in_aof).start();
        let mut redis = server.session();
        for line in GOLDEN.trim().lines() {
            redis.run(line);
        }
        if !in_aof {
            redis.ok("SAVE");
        }
        let name = format!("{}.{kind}", env!("CARGO_PKG_VERSION"));
        std::fs::copy(persisted(&server, in_aof), golden().join(name)).expect("copied");
    }
}
