//! What replicas go through: full synchronisation of every kind, aborted ones too, a network that is cut, promotion.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use harness::topology::{Replicated, await_link, digest, follow};
use harness::{Proxy, Seed, Server, ServerBuilder, Session, host, wait};

/// Entries of one data set, enough for a full synchronisation to take a while.
const ENTRIES: usize = 20_000;

fn fill(redis: &mut Session, name: &str, entries: usize) {
    let value = "x".repeat(200);
    for start in (0..entries).step_by(1_000) {
        let mut pipeline = redis::pipe();
        for n in start..(start + 1_000).min(entries) {
            pipeline
                .cmd("MCACHE.SET")
                .arg(&[&format!("{name}{n}"), "1000", &value, "TAGS", name])
                .arg(format!("group:{}", n % 10))
                .ignore();
        }
        pipeline.exec(redis.connection()).expect("fills");
    }
}

/// A line of load at random; what it names may not be there.
pub fn load(redis: &mut Session, seed: &mut Seed) {
    let (a, b, t) = (seed.u32(..200), seed.u32(..200), seed.u32(..10));
    let line = match seed.u32(..12) {
        0..6 => format!("MCACHE.SET load{a} 1000 v{b} TAGS group:{t} load"),
        6 => format!("MCACHE.SET load{a} 0 v{b} MANUAL TAGS group:{t} load"),
        7 => format!("MCACHE.INVALIDATE AUTO TAGS group:{t}"),
        8 => format!("MCACHE.SET load{a} 1000 v{b} SWR 100 TAGS soft:{t} load"),
        9 => format!("MCACHE.INVALIDATE SOFT TAGS soft:{t}"),
        10 => format!("UNLINK load{a} load{b}"),
        _ => format!("RENAME load{a} load{b}"),
    };
    let _ = redis.try_run(&line);
}

/// Waits until nothing is pending on the primary, then compares digests and indexes.
fn assert_same(replicated: &Replicated, context: &str) {
    let mut primary = replicated.primary.session();
    wait::until("the primary has reclaimed", || {
        primary.stat("pending_reclaim") == 0
    });
    replicated.assert_same();
    let tags = primary.tags();
    for replica in &replicated.replicas {
        let mut replica = replica.session();
        assert_eq!(replica.tags(), tags, "{context}");
        for tag in tags.keys() {
            assert_eq!(
                replica.entries(tag),
                primary.entries(tag),
                "{context}: {tag}"
            );
        }
        assert_eq!(
            replica.stat("reclaimed"),
            0,
            "{context}: reclaim is the primary's"
        );
    }
}

/// Every way in which this server sends and takes a whole data set.
fn ways() -> Vec<Vec<(&'static str, &'static str)>> {
    let mut loads = vec!["disabled", "on-empty-db", "swapdb"];
    let plain = Server::builder().without_module().start();
    let flushes_before = plain
        .session()
        .try_run("CONFIG SET repl-diskless-load flush-before-load");
    match flushes_before {
        Ok(_) => loads.push("flush-before-load"),
        Err(_) => host::skip("a replica cannot flush before it loads"),
    }
    let mut ways = vec![vec![("repl-diskless-sync", "no")]];
    ways.extend(
        loads
            .into_iter()
            .map(|load| vec![("repl-diskless-sync", "yes"), ("repl-diskless-load", load)]),
    );
    // The stream on a connection of its own, beside the data set: Valkey's name for it, and Redis's.
    let channels = ["dual-channel-replication-enabled", "repl-rdb-channel"];
    match channels
        .into_iter()
        .find(|name| host::program().has_directive(name))
    {
        Some(channel) => {
            for on in ["yes", "no"] {
                let mut way = vec![("repl-diskless-sync", "yes"), (channel, on)];
                way.push(("repl-diskless-load", "swapdb"));
                ways.push(way);
            }
        }
        None => host::skip("data set and stream share a connection"),
    }
    ways
}

#[test]
fn two_replicas_and_one_behind_them_follow_a_random_load_through_every_kind_of_full_sync() {
    for way in ways() {
        let context = format!("{way:?}");
        println!("{context}");
        let mut seed = Seed::draw("two_replicas_and_one_behind");
        let options = Server::builder().set("mcache.reclaim-inline-max", 20);
        let options = way.iter().fold(options, |options, (directive, value)| {
            options.set(directive, value)
        });
        let primary = options.clone().tcp().start();
        fill(&mut primary.session(), "early", ENTRIES / 4);
        let over = AtomicBool::new(false);
        // Replicas come while the load goes on, so that the data set and the stream behind it overlap.
        let replicas = thread::scope(|scope| {
            let (primary, over) = (&primary, &over);
            let worker = scope.spawn(move || {
                let mut redis = primary.session();
                while !over.load(SeqCst) {
                    load(&mut redis, &mut seed);
                }
            });
            let mut replicas: Vec<Server> =
                (0..2).map(|_| follow(primary, options.clone())).collect();
            replicas.push(follow(&replicas[0], options.clone()));
            // Once more, over a data set that is there.
            let mut again = replicas[1].session();
            again.ok("REPLICAOF NO ONE");
            again.ok("MCACHE.SET mine 0 v TAGS mine group:1");
            again.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port()));
            await_link(&replicas[1]);
            over.store(true, SeqCst);
            worker.join().expect("the load goes on");
            replicas
        });
        let replicated = Replicated { primary, replicas };
        assert_same(&replicated, &context);
        let fulls = replicated.primary.session().info("stats", "sync_full");
        assert!(fulls >= 3, "{context}: {fulls} full synchronisations");
    }
}

/// The replica of a primary behind a proxy; its data set before the second synchronisation is under `old`.
fn behind_a_proxy(diskless_load: &str) -> (Server, Proxy, Server) {
    let options = Server::builder()
        .set("repl-diskless-sync", "yes")
        .set("repl-diskless-load", diskless_load)
        // Clients are served every now and then while a data set is loaded; here, often.
        .set("loading-process-events-interval-bytes", 2_048)
        // Soon outrun: what is missed is more than the backlog holds.
        .set("repl-backlog-size", "16kb");
    let primary = options.clone().tcp().start();
    let proxy = Proxy::to_port(primary.port());
    fill(&mut primary.session(), "old", 1_000);
    let replica = options
        .set("replicaof", format!("127.0.0.1 {}", proxy.port()))
        .start();
    await_link(&replica);
    (primary, proxy, replica)
}

#[test]
fn a_full_sync_that_breaks_off_leaves_the_old_entries_or_none_and_the_next_one_succeeds() {
    for diskless_load in ["swapdb", "disabled"] {
        let (primary, proxy, replica) = behind_a_proxy(diskless_load);
        let (mut on_primary, mut on_replica) = (primary.session(), replica.session());
        assert_eq!(on_replica.entries("old").len(), 1_000);
        proxy.refuse();
        // More than the backlog holds: a full synchronisation is due.
        fill(&mut on_primary, "new", ENTRIES);
        on_primary.ok("CONFIG SET rdb-key-save-delay 50");
        proxy.heal();
        wait::until("the replica is loading", || {
            let state = on_replica.try_run("MCACHE.GET old0");
            let loading = matches!(&state, Err(text) if text.starts_with("LOADING"));
            loading
                || on_replica.info("persistence", "async_loading") == 1
                || on_replica.info("replication", "master_sync_in_progress") == 1
        });
        if diskless_load == "swapdb" {
            wait::until("it loads beside what it serves", || {
                on_replica.info("persistence", "async_loading") == 1
            });
            assert!(
                on_replica.is_live("old0"),
                "the old data set is served meanwhile"
            );
            assert_eq!(on_replica.entries("old").len(), 1_000);
            assert!(on_replica.entries("new").is_empty());
        }
        proxy.refuse();
        wait::until("the replica has given up", || {
            on_replica.info("persistence", "async_loading") == 0
                && on_replica.info("persistence", "loading") == 0
                && on_replica.info_text("replication", "master_link_status") == "down"
        });
        // The old data set, whole and with its index, or (without swapdb, once it has been emptied) nothing.
        replica.check().expect("index and keyspace agree");
        let old = on_replica.entries("old").len();
        assert!(
            old == 1_000 || diskless_load != "swapdb" && old == 0,
            "{old} of the old entries"
        );
        assert_eq!(on_replica.int("DBSIZE"), old as i64);
        assert!(on_replica.entries("new").is_empty());
        assert_eq!(on_replica.is_live("old7"), old > 0);

        on_primary.ok("CONFIG SET rdb-key-save-delay 0");
        on_primary.int("MCACHE.INVALIDATE TAGS old");
        proxy.heal();
        await_link(&replica);
        let replicated = Replicated {
            primary,
            replicas: vec![replica],
        };
        assert_same(&replicated, diskless_load);
        assert!(!on_replica.is_live("old7"));
        assert_eq!(on_replica.entries("new").len(), ENTRIES);
    }
}

#[test]
fn after_a_cut_a_replica_catches_up_from_the_backlog() {
    let options = Server::builder().set("mcache.reclaim-inline-max", 5);
    let primary = options.clone().tcp().start();
    let proxy = Proxy::to_port(primary.port());
    let replica = options
        .set("replicaof", format!("127.0.0.1 {}", proxy.port()))
        .start();
    await_link(&replica);
    let (mut on_primary, mut on_replica) = (primary.session(), replica.session());
    let mut seed = Seed::draw("after_a_cut");
    fill(&mut on_primary, "k", 1_000);
    let fulls = on_primary.info("stats", "sync_full");
    for round in 0..5 {
        for _ in 0..100 {
            load(&mut on_primary, &mut seed);
        }
        proxy.refuse();
        wait::until("the replica has noticed", || {
            on_replica.info_text("replication", "master_link_status") == "down"
        });
        let before = digest(&mut on_replica);
        for _ in 0..200 {
            load(&mut on_primary, &mut seed);
        }
        on_primary.int("MCACHE.INVALIDATE TAGS group:3");
        on_primary.drain();
        assert_eq!(
            digest(&mut on_replica),
            before,
            "no client deletes on a replica"
        );
        proxy.heal();
        await_link(&replica);
        assert_eq!(
            on_primary.info("stats", "sync_partial_ok"),
            round + 1,
            "{seed}"
        );
    }
    assert_eq!(on_primary.info("stats", "sync_full"), fulls, "{seed}");
    let replicated = Replicated {
        primary,
        replicas: vec![replica],
    };
    assert_same(&replicated, &seed.to_string());
}

const TAGS: usize = 20;

/// How the last invalidations before the primary's end are sent.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    /// The network between primary and replica delivers nothing any more.
    Cut,
    /// Each followed by `WAIT 1`.
    Awaited,
}

/// Promotes the replica of a primary that dies under load; returns how many of its last answered invalidations are not
/// heeded by the new one.
fn promote_under_load(options: ServerBuilder, last: Last) -> usize {
    let mut primary = options.clone().tcp().start();
    let proxy = Proxy::to_port(primary.port());
    let replica = options
        .set("replicaof", format!("127.0.0.1 {}", proxy.port()))
        .start();
    await_link(&replica);
    let mut redis = primary.session();
    let mut seed = Seed::draw("promote_under_load");
    for round in 0..300 {
        let tag = seed.usize(..TAGS);
        redis.int(&format!("MCACHE.INVALIDATE TAGS t{tag}"));
        redis.ok(&format!("MCACHE.SET k{tag} 0 {round} TAGS t{tag}"));
    }
    for tag in 0..TAGS {
        redis.ok(&format!("MCACHE.SET k{tag} 0 last TAGS t{tag}"));
    }
    assert_eq!(redis.int("WAIT 1 5000"), 1);
    if last == Last::Cut {
        proxy.stall();
    }
    for tag in 0..TAGS {
        redis.int(&format!("MCACHE.INVALIDATE TAGS t{tag}"));
        if last == Last::Awaited {
            assert_eq!(redis.int("WAIT 1 5000"), 1);
        }
    }
    primary.kill9();
    let mut promoted = replica.session();
    promoted.ok("REPLICAOF NO ONE");
    let lost = (0..TAGS)
        .filter(|tag| promoted.is_live(&format!("k{tag}")))
        .count();
    // From here on it is a primary like any other.
    for tag in 0..TAGS {
        let token = promoted.token(&format!("k{tag}"));
        promoted.ok(&format!(
            "MCACHE.SET k{tag} 0 new TOKEN {token} TAGS t{tag}"
        ));
        assert_eq!(
            promoted.int(&format!("MCACHE.INVALIDATE TAGS t{tag}")),
            1,
            "{seed}"
        );
        assert!(!promoted.is_live(&format!("k{tag}")), "{seed}");
    }
    promoted.drain();
    assert_eq!(promoted.stat("tags"), 0, "{seed}");
    lost
}

#[test]
fn promotion_loses_what_had_not_arrived_with_keep_and_nothing_with_drop_or_wait() {
    for inline_max in [0, 10_000] {
        let options = || Server::builder().set("mcache.reclaim-inline-max", inline_max);
        let kept = promote_under_load(options(), Last::Cut);
        assert_eq!(kept, TAGS, "the window that docs/consistency.md tells of");
        let waited = promote_under_load(options(), Last::Awaited);
        assert_eq!(waited, 0, "WAIT 1 closes the window");
        let dropped = promote_under_load(options().set("mcache.on-promote", "drop"), Last::Cut);
        assert_eq!(dropped, 0, "nothing from before the promotion is served");
    }
}
