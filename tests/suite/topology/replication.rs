//! Replicas hold what the primary decided, serve by the same epochs, and delete nothing by themselves.

use harness::topology::{Replicated, await_link, digest, follow};
use harness::{Proxy, ReplicationStream, Server, host, wait};

#[test]
fn replicas_have_the_same_entries_and_the_same_invalidations() {
    let replicated = Replicated::start(2);
    let mut primary = replicated.primary.session();
    primary.ok("MCACHE.SET a 1000 va TAGS t u");
    primary.ok("MCACHE.SET b 0 vb MANUAL TAGS t");
    primary.ok("MCACHE.SET c 0.5 vc TAGS u");
    primary.ok("SELECT 3");
    primary.ok("MCACHE.SET a 0 three TAGS t");
    primary.ok("SELECT 0");
    replicated.assert_same();
    for replica in &replicated.replicas {
        let mut replica = replica.session();
        assert_eq!(replica.text("MCACHE.GET a").as_deref(), Some("va"));
        assert_eq!(replica.entries("t"), ["a", "b"]);
        assert_eq!(
            replica.int("PEXPIRETIME a"),
            primary.int("PEXPIRETIME a"),
            "deadlines are absolute"
        );
    }
    assert_eq!(primary.int("MCACHE.INVALIDATE AUTO TAGS t"), 1);
    replicated.assert_same();
    for replica in &replicated.replicas {
        let mut replica = replica.session();
        assert!(!replica.is_live("a"));
        assert!(replica.is_live("b"));
        assert_eq!(replica.entries("t"), ["b"]);
        replica.ok("SELECT 3");
        assert!(replica.is_live("a"));
    }
}

#[test]
fn a_replica_serves_no_dead_entry_and_deletes_none_by_itself() {
    // The replica could reclaim at once, the primary does not: a deletion here would be the replica's own.
    let replicated =
        Replicated::start_with(1, Server::builder().set("mcache.reclaim-inline-max", 0));
    let (mut primary, mut replica) = (
        replicated.primary.session(),
        replicated.replicas[0].session(),
    );
    replica.ok("CONFIG SET mcache.reclaim-inline-max 10000");
    const ENTRIES: usize = 50_000;
    let mut pipeline = redis::pipe();
    for n in 0..ENTRIES {
        pipeline
            .cmd("MCACHE.SET")
            .arg(format!("k{n}"))
            .arg("0")
            .arg("v")
            .arg("TAGS")
            .arg("t")
            .ignore();
    }
    pipeline.exec(primary.connection()).expect("fills");
    replicated.sync();
    assert_eq!(replica.int("DBSIZE"), ENTRIES as i64);

    primary.int("MCACHE.INVALIDATE TAGS t");
    wait::until("the invalidation has reached the replica", || {
        !replica.is_live("k0")
    });
    for n in (0..ENTRIES).step_by(997) {
        assert!(!replica.is_live(&format!("k{n}")), "k{n}");
    }
    assert_eq!(replica.entries("t"), Vec::<String>::new());
    wait::until("the primary has reclaimed everything", || {
        primary.stat("pending_reclaim") == 0
    });
    replicated.assert_same();
    assert_eq!(replica.int("DBSIZE"), 0);
    assert_eq!(
        replica.stat("reclaimed"),
        0,
        "reclaim is the primary's business"
    );
}

#[test]
fn a_replica_cut_off_keeps_what_is_dead_and_does_not_serve_it() {
    let primary = Server::builder()
        .set("mcache.reclaim-inline-max", 0)
        .tcp()
        .start();
    let proxy = Proxy::to_port(primary.port());
    let replica = Server::builder()
        .set("replicaof", format!("127.0.0.1 {}", proxy.port()))
        .tcp()
        .start();
    await_link(&replica);
    let (mut on_primary, mut on_replica) = (primary.session(), replica.session());
    on_primary.ok("MCACHE.SET k 0 v TAGS t");
    wait::until("the entry has reached the replica", || {
        on_replica.is_live("k")
    });
    // Invalidation and cut in one step for the replica: it hears of the death and never of the reclaim.
    on_primary.ok("MULTI");
    on_primary.run("MCACHE.INVALIDATE TAGS t");
    on_primary.run("EXEC");
    wait::until("the invalidation has reached the replica", || {
        !on_replica.is_live("k")
    });
    proxy.refuse();
    on_primary.ok("MCACHE.SET later 0 v TAGS t");
    on_primary.int("MCACHE.INVALIDATE TAGS t");
    assert!(!on_replica.is_live("k"));
    proxy.heal();
    await_link(&replica);
    on_primary.ok("MCACHE.SET last 0 v TAGS t");
    wait::until("the replica has caught up", || on_replica.is_live("last"));
    on_primary.drain();
    wait::until("the digests are equal", || {
        digest(&mut on_replica) == digest(&mut on_primary)
    });
    assert_eq!(on_replica.entries("t"), ["last"]);
}

#[test]
fn a_full_sync_brings_the_dead_as_dead() {
    for (primary_diskless, replica_load) in [
        ("yes", "disabled"),
        ("no", "disabled"),
        ("yes", "on-empty-db"),
        ("yes", "swapdb"),
    ] {
        println!("repl-diskless-sync {primary_diskless}, repl-diskless-load {replica_load}");
        let options = Server::builder()
            .set("repl-diskless-sync", primary_diskless)
            .set("repl-diskless-load", replica_load);
        let primary = options
            .clone()
            .set("mcache.reclaim-inline-max", 0)
            .tcp()
            .start();
        let mut on_primary = primary.session();
        for n in 0..1_000 {
            on_primary.ok(&format!("MCACHE.SET k{n} 0 v TAGS t u group:{}", n % 7));
        }
        on_primary.ok("MCACHE.SET alive 0 v MANUAL TAGS t u");
        on_primary.int("MCACHE.INVALIDATE AUTO TAGS t");
        let replica = follow(&primary, options);
        let replicated = Replicated {
            primary,
            replicas: vec![replica],
        };
        replicated.sync();
        let mut on_replica = replicated.replicas[0].session();
        assert!(
            on_replica.is_live("alive"),
            "a full sync keeps what is live, on-restart or not"
        );
        assert_eq!(on_replica.entries("u"), ["alive"]);
        assert!(!on_replica.is_live("k1"));
        wait::until("the primary has reclaimed", || {
            on_primary.stat("pending_reclaim") == 0
        });
        replicated.assert_same();
        // A second full sync, over a data set that is there.
        on_replica.ok("REPLICAOF NO ONE");
        on_replica.ok("MCACHE.SET mine 0 v TAGS t mine");
        on_primary.ok("MCACHE.SET theirs 0 v TAGS t");
        on_replica.ok(&format!(
            "REPLICAOF 127.0.0.1 {}",
            replicated.primary.port()
        ));
        await_link(&replicated.replicas[0]);
        replicated.assert_same();
        let mut on_replica = replicated.replicas[0].session();
        assert_eq!(on_replica.entries("t"), ["alive", "theirs"]);
        assert!(!on_replica.tags().contains_key("mine"));
    }
}

#[test]
fn a_chained_replica_has_what_the_first_has() {
    let chain = Replicated::chained(2, Server::builder());
    let mut primary = chain.primary.session();
    for n in 0..100 {
        primary.ok(&format!("MCACHE.SET k{n} 0 v TAGS t g{}", n % 3));
    }
    primary.int("MCACHE.INVALIDATE TAGS g1");
    chain.assert_same();
    let mut last = chain.replicas[1].session();
    assert_eq!(last.entries("t").len(), 67);
    assert!(!last.is_live("k1"));
    assert!(last.is_live("k0"));
}

#[test]
fn a_replica_refuses_writes() {
    let replicated = Replicated::start(1);
    let mut replica = replicated.replicas[0].session();
    for line in ["MCACHE.SET k 0 v", "MCACHE.INVALIDATE TAGS t"] {
        assert_eq!(
            replica.error(line),
            "READONLY You can't write against a read only replica.",
            "{line}"
        );
    }
    assert_eq!(replica.text("MCACHE.GET k"), None);
}

#[test]
fn expiry_is_the_primarys_decision() {
    let replicated = Replicated::start(1);
    let (mut primary, mut replica) = (
        replicated.primary.session(),
        replicated.replicas[0].session(),
    );
    primary.ok("DEBUG SET-ACTIVE-EXPIRE 0");
    primary.ok("MCACHE.SET k 0.001 v TAGS t");
    primary.ok("MCACHE.SET stays 0 v TAGS t");
    replicated.sync();
    wait::until("the entry is past its time", || !replica.is_live("k"));
    assert_eq!(
        replica.int("DBSIZE"),
        2,
        "the replica keeps the key until the primary says DEL"
    );
    assert_eq!(replica.entries("t"), ["stays"]);
    assert!(!primary.is_live("k"));
    replicated.assert_same();
    assert_eq!(replica.int("DBSIZE"), 1);
}

#[test]
fn a_promoted_replica_serves_with_keep_and_nothing_with_drop() {
    for (on_promote, live) in [("keep", true), ("drop", false)] {
        let mut replicated =
            Replicated::start_with(1, Server::builder().set("mcache.on-promote", on_promote));
        let mut primary = replicated.primary.session();
        primary.ok("MCACHE.SET k 0 v TAGS t");
        let token = primary.token("other");
        primary.ok("MCACHE.SET gone 0 v TAGS u");
        primary.int("MCACHE.INVALIDATE TAGS u");
        replicated.sync();
        replicated.primary.kill9();
        let mut promoted = replicated.replicas[0].session();
        promoted.ok("REPLICAOF NO ONE");
        assert_eq!(promoted.is_live("k"), live, "on-promote {on_promote}");
        assert!(!promoted.is_live("gone"));
        let fill = format!("MCACHE.SET other 0 v TOKEN {token} TAGS t");
        assert_eq!(
            promoted.run(&fill),
            redis::Value::Nil,
            "a token of the old primary"
        );
        promoted.ok("MCACHE.SET k 0 new TAGS t");
        assert_eq!(promoted.int("MCACHE.INVALIDATE TAGS t"), 1);
        assert!(!promoted.is_live("k"));
    }
}

#[test]
fn everything_at_random_leaves_equal_digests() {
    if host::loses_the_database() {
        return;
    }
    let mut seed = harness::Seed::draw("everything_at_random_leaves_equal_digests");
    let replicated =
        Replicated::start_with(2, Server::builder().set("mcache.reclaim-inline-max", 5));
    let mut primary = replicated.primary.session();
    for _ in 0..3_000 {
        let (a, b) = (seed.u32(..40), seed.u32(..40));
        let (t, u) = (seed.u32(..8), seed.u32(..8));
        let line = match seed.u32(..18) {
            0..=6 => format!(
                "MCACHE.SET k{a} {} v{b} TAGS t{t} t{u}",
                ["0", "100", "0.01"][a as usize % 3]
            ),
            7 => format!("MCACHE.SET k{a} 0 v MANUAL TAGS t{t}"),
            8 => format!("MCACHE.INVALIDATE TAGS t{t}"),
            9 => format!("MCACHE.INVALIDATE AUTO TAGS t{t} t{u}"),
            10 => format!("DEL k{a} k{b}"),
            11 => format!("RENAME k{a} k{b}"),
            12 => format!("COPY k{a} k{b} REPLACE"),
            13 => format!("MOVE k{a} 1"),
            14 => format!("PEXPIRE k{a} 20"),
            15 => format!("SET k{a} text"),
            16 if seed.chance(10) => "SWAPDB 0 1".to_owned(),
            17 if seed.chance(5) => "FLUSHDB".to_owned(),
            _ => format!("PERSIST k{a}"),
        };
        // Some name a key that is not there, or hit a foreign one: refused lines are part of the mix.
        let _ = primary.try_run(&line);
    }
    wait::until("everything dead is reclaimed", || {
        primary.stat("pending_reclaim") == 0
    });
    // Short ttls end by themselves and reach the replicas as DEL: compare when no more of them can.
    wait::until("short entries are gone", || {
        let keys = primary.scan("SCAN {}");
        keys.iter()
            .all(|key| !(0..=1_000).contains(&primary.int(&format!("PTTL {key}"))))
    });
    replicated.assert_same();
    for db in [0, 1] {
        primary.ok(&format!("SELECT {db}"));
        for replica in &replicated.replicas {
            let mut replica = replica.session();
            replica.ok(&format!("SELECT {db}"));
            assert_eq!(replica.tags(), primary.tags(), "{seed}");
            for t in 0..8 {
                assert_eq!(
                    replica.entries(&format!("t{t}")),
                    primary.entries(&format!("t{t}")),
                    "{seed}"
                );
            }
        }
    }
}

/// The epoch of the entry `key`, for words of the stream that cannot be known before.
fn birth(redis: &mut harness::Session, key: &str) -> u64 {
    let report = redis
        .map(&format!("MCACHE.INSPECT {key}"))
        .expect("an entry");
    redis::from_redis_value(report["birth"].clone()).expect("an epoch")
}

#[test]
fn set_is_replicated_as_what_was_decided() {
    let server = Server::start();
    let mut redis = server.session();
    let mut stream = ReplicationStream::open(&server);
    redis.ok("MCACHE.SET plain 0 v");
    redis.ok("MCACHE.SET k 100 \"two words\" MANUAL TAGS t u t");
    let (plain, tagged) = (birth(&mut redis, "plain"), birth(&mut redis, "k"));
    let deadline_ms = redis.int("PEXPIRETIME k");
    assert_eq!(
        stream.take(),
        [
            format!("mcache.replset plain v \"-1 {plain} 0\""),
            format!("mcache.replset k \"two words\" \"{deadline_ms} {tagged} 1 1:t 1:u 1:t\""),
        ]
    );
    // The epoch replicated is the one at which the fill began, not the one at which it arrived.
    let token = redis.token("k");
    redis.int("MCACHE.INVALIDATE TAGS other");
    redis.ok(&format!("MCACHE.SET k 0 v TOKEN {token} TAGS t"));
    let began = u64::from_str_radix(&token[16..], 16).expect("an epoch");
    assert_eq!(
        stream.take(),
        [format!("mcache.replset k v \"-1 {began} 0 1:t\"")]
    );
}

#[test]
fn what_decides_nothing_is_not_replicated() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS t");
    let mut stream = ReplicationStream::open(&server);
    let token = redis.token("k");
    redis.run("MCACHE.GET k");
    redis.run("MCACHE.MGET k nothing");
    redis.run("MCACHE.INSPECT k");
    redis.run("MCACHE.TAGS 0");
    redis.run("MCACHE.ENTRIES t 0");
    redis.run("MCACHE.TAGINFO t");
    redis.run("MCACHE.SET k 0 other NX TAGS t");
    redis.run("MCACHE.SET nothing 0 other XX TAGS t");
    redis.error("MCACHE.SET k 0 v TAGS");
    redis.int("MCACHE.INVALIDATE TAGS nobody");
    redis.run(&format!("MCACHE.SET k 0 late TOKEN {token} TAGS nobody"));
    assert_eq!(stream.take(), Vec::<String>::new());
}

#[test]
fn a_small_invalidation_is_replicated_as_unlink() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET a 0 v TAGS t");
    redis.ok("MCACHE.SET b 0 v TAGS t u");
    redis.ok("SELECT 2");
    redis.ok("MCACHE.SET c 0 v TAGS t");
    let mut stream = ReplicationStream::open(&server);
    redis.int("MCACHE.INVALIDATE TAGS t u");
    redis.ok("SELECT 0");
    redis.int("MCACHE.INVALIDATE TAGS u");
    redis.int("MCACHE.INVALIDATE AUTO TAGS t");
    assert_eq!(
        stream.take(),
        ["SELECT 2", "UNLINK c", "SELECT 0", "UNLINK b", "UNLINK a"]
    );
}

#[test]
fn a_large_invalidation_is_replicated_as_one_decision_and_then_as_its_deletions() {
    let server = Server::builder()
        .set("mcache.reclaim-inline-max", 0)
        .start();
    let mut redis = server.session();
    redis.ok("SELECT 2");
    for key in ["a", "b", "c"] {
        redis.ok(&format!("MCACHE.SET {key} 0 v TAGS t u"));
    }
    let mut stream = ReplicationStream::open(&server);
    redis.int("MCACHE.INVALIDATE AUTO TAGS t");
    let epoch = redis.stat("epoch");
    wait::until("the background has freed them", || redis.int("DBSIZE") == 0);
    let mut told = stream.take();
    assert_eq!(
        told[..2],
        [
            "SELECT 2".to_owned(),
            format!("mcache.replinvalidate {epoch} 1 t")
        ]
    );
    // In one command or in several, with or without a transaction around them: each exactly once.
    told.retain(|line| line != "MULTI" && line != "EXEC" && !line.starts_with("SELECT"));
    let mut deleted: Vec<&str> = told[1..]
        .iter()
        .flat_map(|line| line.strip_prefix("UNLINK ").expect("deletions").split(' '))
        .collect();
    deleted.sort_unstable();
    assert_eq!(deleted, ["a", "b", "c"]);
}

#[test]
fn an_entry_that_expired_before_it_was_reclaimed_is_deleted_on_the_replica_as_well() {
    let replicated =
        Replicated::start_with(1, Server::builder().set("mcache.reclaim-inline-max", 0));
    let mut primary = replicated.primary.session();
    primary.ok("DEBUG SET-ACTIVE-EXPIRE 0");
    primary.ok("MCACHE.SET stays 0 v TAGS t");
    primary.ok("MCACHE.SET short 0.001 v TAGS t");
    wait::until("the entry is past its time", || {
        primary.int("PTTL short") == -2
    });
    primary.ok("MCACHE.SET short2 0.001 v TAGS t");
    primary.int("MCACHE.INVALIDATE TAGS t");
    wait::until("everything is reclaimed", || primary.int("DBSIZE") == 0);
    replicated.assert_same();
}

#[test]
fn a_transaction_is_replicated_as_one() {
    let server = Server::start();
    let mut redis = server.session();
    let mut stream = ReplicationStream::open(&server);
    redis.ok("MULTI");
    redis.run("MCACHE.SET a 0 v TAGS t");
    redis.run("MCACHE.SET b 0 v TAGS t");
    redis.run("MCACHE.INVALIDATE TAGS t");
    redis.run("EXEC");
    let told = stream.take();
    let words: Vec<&str> = told
        .iter()
        .map(|line| line.split(' ').next().unwrap_or_default())
        .collect();
    assert_eq!(
        words,
        [
            "MULTI",
            "mcache.replset",
            "mcache.replset",
            "UNLINK",
            "EXEC"
        ],
        "{told:?}"
    );
}

#[test]
fn a_flush_leaves_nothing_in_a_replicas_index() {
    let replicated = Replicated::start(1);
    let mut primary = replicated.primary.session();
    let mut replica = replicated.replicas[0].session();
    let empty_bytes = replica.stat("index_bytes");
    primary.run_all((0..20_000).map(|n| format!("MCACHE.SET k{n} 0 v TAGS all t{n}")));
    replicated.sync();
    assert!(replica.stat("index_bytes") > empty_bytes + 50 * 20_000);
    primary.ok("FLUSHALL ASYNC");
    wait::until("the replica's index is as small as before", || {
        replica.stat("index_bytes") <= empty_bytes + 4096
    });
}
