//! Servers that refuse to write: after a failed snapshot (MISCONF), without enough replicas (NOREPLICAS). An INVALIDATE
//! is a write, so it is refused with the others; nothing changed, and the entries are served on until it is sent again
//! and accepted. docs/operations.md says what to do.

use harness::{Server, wait};

/// An entry that is served.
fn filled() -> (Server, harness::Session) {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 3600 v TAGS t u");
    (server, redis)
}

#[track_caller]
fn assert_refused(redis: &mut harness::Session, code: &str) {
    let (epoch, invalidations) = (redis.stat("epoch"), redis.stat("invalidations"));
    for line in [
        "MCACHE.INVALIDATE TAGS t",
        "MCACHE.INVALIDATE SOFT TAGS t",
        "MCACHE.INVALIDATE AUTO TAGS nothing",
        "MCACHE.SET k 3600 w TAGS t",
    ] {
        let error = redis.error(line);
        assert!(error.starts_with(code), "{line}: {error}");
    }
    assert_eq!(redis.stat("invalidations"), invalidations);
    assert_eq!(redis.stat("epoch"), epoch, "nothing was noted");
    assert_eq!(
        redis.text("MCACHE.GET k").as_deref(),
        Some("v"),
        "what could not be invalidated is served on"
    );
    assert_eq!(redis.text("MCACHE.GET nothing"), None, "reads go on");
}

#[test]
fn an_invalidation_refused_after_a_failed_snapshot_changes_nothing_until_it_is_sent_again() {
    let (server, mut redis) = filled();
    let early = redis.text("MCACHE.TOKEN k").expect("a token");
    redis.call(&["CONFIG", "SET", "save", "3600 1000000"]);
    // A directory where the file is to be: the snapshot cannot be put in its place.
    let in_the_way = server.dir().join("dump.rdb");
    std::fs::create_dir_all(in_the_way.join("x")).expect("a directory");
    redis.run("BGSAVE");
    wait::until("the snapshot failed", || {
        redis.info_text("persistence", "rdb_last_bgsave_status") == "err"
    });
    assert_refused(&mut redis, "MISCONF");

    // What an operator can do at once: go on without snapshots.
    redis.ok("CONFIG SET stop-writes-on-bgsave-error no");
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 1);
    assert_eq!(redis.text("MCACHE.GET k"), None);
    redis.ok("CONFIG SET stop-writes-on-bgsave-error yes");
    redis.error("MCACHE.INVALIDATE TAGS t");

    // Or repair the disk: the next snapshot that succeeds opens the server again.
    std::fs::remove_dir_all(&in_the_way).expect("it is no longer in the way");
    redis.run("BGSAVE");
    wait::until("a snapshot succeeded", || {
        redis.info_text("persistence", "rdb_last_bgsave_status") == "ok"
    });
    redis.int("MCACHE.INVALIDATE TAGS t");
    let late = redis.run(&format!("MCACHE.SET k 3600 old TOKEN {early} TAGS t"));
    assert_eq!(late, redis::Value::Nil, "a fill from before is refused");
}

#[test]
fn an_invalidation_refused_for_want_of_replicas_changes_nothing_until_it_is_sent_again() {
    let (_server, mut redis) = filled();
    redis.ok("CONFIG SET min-replicas-to-write 1");
    assert_refused(&mut redis, "NOREPLICAS");
    redis.ok("CONFIG SET min-replicas-to-write 0");
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 1);
    assert_eq!(redis.text("MCACHE.GET k"), None);
}

/// Memory is no such reason: INVALIDATE frees some.
#[test]
fn an_invalidation_is_not_refused_for_want_of_memory() {
    let (_server, mut redis) = filled();
    redis.ok("CONFIG SET maxmemory-policy noeviction");
    redis.ok("CONFIG SET maxmemory 1");
    let error = redis.error("MCACHE.SET k 3600 w TAGS t");
    assert!(error.starts_with("OOM"), "{error}");
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 1);
    assert_eq!(redis.text("MCACHE.GET k"), None);
}
