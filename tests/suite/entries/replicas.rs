//! Replicas have what their primary has, at every moment at which nothing is under way: through restarts of either,
//! partial and full synchronisation, promotion, soft and hard invalidation, and chains.

use harness::topology::{Replicated, await_link, digest, follow};
use harness::{Seed, Server, ServerBuilder, wait};

use crate::topology::fullsync::load;

/// The ways in which a replica persists. Without any, Redis keeps the file of its full synchronisation.
fn ways() -> [(&'static str, ServerBuilder); 4] {
    let rdb = Server::builder().set("repl-backlog-size", "10mb");
    let aof = rdb
        .clone()
        .set("appendonly", "yes")
        .set("appendfsync", "always");
    [
        ("the file of its full synchronisation", rdb.clone()),
        ("RDB", rdb.set("save", "3600 1")),
        ("AOF", aof.clone()),
        (
            "AOF without preamble",
            aof.set("aof-use-rdb-preamble", "no"),
        ),
    ]
}

fn await_reclaim(server: &Server) {
    let mut session = server.session();
    wait::until("reclaim is done", || session.stat("pending_reclaim") == 0);
}

#[test]
fn a_replica_that_restarts_and_goes_on_where_it_was_has_what_its_primary_has() {
    for (way, options) in ways() {
        for graceful in [false, true] {
            println!("{way}, graceful {graceful}");
            let mut chain = Replicated::chained(2, options.clone());
            let mut primary = chain.primary.session();
            for n in 0..50 {
                primary.ok(&format!(
                    "MCACHE.SET k{n} 1000 v{n} SWR 500 TAGS all group:{}",
                    n % 5
                ));
            }
            primary.ok("SET plain 1");
            chain.sync();
            if graceful {
                chain.replicas[0].stop();
            } else {
                chain.replicas[0].kill9();
            }
            primary.int("MCACHE.INVALIDATE TAGS group:0");
            primary.int("MCACHE.INVALIDATE SOFT TAGS group:1");
            primary.ok("MCACHE.SET late 1000 v TAGS all");
            let partial = primary.info("stats", "sync_partial_ok");
            chain.replicas[0].start_again();
            chain.replicas.iter().for_each(await_link);
            await_reclaim(&chain.primary);
            chain.assert_same();
            if !way.starts_with("AOF") {
                assert_eq!(
                    primary.info("stats", "sync_partial_ok"),
                    partial + 1,
                    "{way}"
                );
            }
            let mut replica = chain.replicas[0].session();
            for (key, live) in [("k2", true), ("late", true), ("k0", false)] {
                assert_eq!(replica.is_live(key), live, "{way}: {key}");
            }
            assert_eq!(replica.state("k1").as_deref(), Some("stale"), "{way}");
            chain.replicas[0]
                .check()
                .expect("the index follows the keyspace");
        }
    }
}

/// Its primary is gone: what was invalidated since the file was written cannot be known.
#[test]
fn a_replica_serves_nothing_from_its_own_file_before_it_has_reached_its_primary() {
    let options = Server::builder().set("save", "3600 1");
    let mut replicated = Replicated::start_with(1, options);
    replicated
        .primary
        .session()
        .ok("MCACHE.SET k 1000 v TAGS t");
    replicated.sync();
    replicated.replicas[0].session().ok("SAVE");
    replicated.replicas[0].kill9();
    replicated.primary.kill9();
    replicated.replicas[0].start_again();
    let mut replica = replicated.replicas[0].session();
    assert_eq!(replica.int("DBSIZE"), 1);
    assert!(!replica.is_live("k"));
    assert_eq!(replica.state("k").as_deref(), Some("dead"));
    // Promoted in this state, it is as a primary that starts.
    replica.ok("REPLICAOF NO ONE");
    assert!(!replica.is_live("k"));
    wait::until("what may not be served is reclaimed", || {
        replica.int("DBSIZE") == 0
    });
}

#[test]
fn the_replicas_of_a_promoted_server_hear_of_its_floor() {
    let options = Server::builder().set("mcache.on-promote", "drop");
    let mut chain = Replicated::chained(2, options);
    let mut primary = chain.primary.session();
    for n in 0..200 {
        primary.ok(&format!("MCACHE.SET k{n} 1000 v TAGS t"));
    }
    chain.sync();
    chain.primary.kill9();
    let mut promoted = chain.replicas[0].session();
    let mut last = chain.replicas[1].session();
    promoted.ok("REPLICAOF NO ONE");
    wait::until("the last one has heard of the floor", || {
        last.try_run("MCACHE.REPLFLOOR 1").is_err()
            && last
                .info_text("commandstats", "cmdstat_mcache.replfloor")
                .starts_with("calls=1")
    });
    promoted.ok("MCACHE.SET fresh 1000 v TAGS t");
    wait::until("everything from before is gone", || {
        promoted.int("DBSIZE") == 1 && last.int("DBSIZE") == 1
    });
    wait::until("it follows", || last.is_live("fresh"));
    assert_eq!(digest(&mut promoted), digest(&mut last));
}

/// Reclaim rests while writes are paused: what is dead and what is stale is as the invalidation left it.
#[test]
fn a_replica_that_syncs_while_reclaim_has_not_come_to_the_stale_is_its_primarys_equal() {
    for (diskless, diskless_load) in [("no", "disabled"), ("yes", "disabled"), ("yes", "swapdb")] {
        println!("repl-diskless-sync {diskless}, repl-diskless-load {diskless_load}");
        let options = Server::builder()
            .set("repl-diskless-sync", diskless)
            .set("repl-diskless-load", diskless_load)
            .set("mcache.reclaim-inline-max", 0)
            .set("mcache.reclaim-budget-us", 20);
        let primary = options.clone().tcp().start();
        let mut redis = primary.session();
        for n in 0..3_000 {
            let tags = format!("soft:{} hard:{} both", n % 2, n % 7);
            redis.ok(&format!("MCACHE.SET k{n} 1000 v{n} SWR 500 TAGS {tags}"));
        }
        redis.ok("MULTI");
        redis.run("MCACHE.INVALIDATE SOFT TAGS soft:0");
        redis.run("MCACHE.INVALIDATE TAGS hard:3");
        redis.run("CLIENT PAUSE 100000 WRITE");
        redis.run("EXEC");
        assert!(redis.stat("pending_reclaim") > 0, "nothing to compare");
        let replica = follow(&primary, options.clone());
        let mut copy = replica.session();
        wait::until("the data set is there", || copy.int("DBSIZE") == 3_000);
        assert_eq!(digest(&mut redis), digest(&mut copy), "half-way");
        for key in ["k0", "k1", "k3"] {
            assert_eq!(redis.state(key), copy.state(key), "{key}");
        }
        redis.ok("CLIENT UNPAUSE");
        await_reclaim(&primary);
        let replicated = Replicated {
            primary,
            replicas: vec![replica],
        };
        replicated.assert_same();
        assert_eq!(copy.state("k2").as_deref(), Some("stale"));
        // And a hard one finds what was stale there too.
        redis.int("MCACHE.INVALIDATE TAGS both");
        await_reclaim(&replicated.primary);
        replicated.assert_same();
        assert_eq!(copy.int("DBSIZE"), 0);
    }
}

#[test]
fn whoever_is_killed_a_chain_has_equal_digests_when_nothing_is_under_way() {
    let mut seed = Seed::draw("whoever_is_killed");
    for (way, options) in ways() {
        println!("{way}");
        let options = options.set("mcache.reclaim-inline-max", 5);
        let mut chain = Replicated::chained(2, options);
        for _ in 0..6 {
            for _ in 0..200 {
                load(&mut chain.primary.session(), &mut seed);
            }
            let killed = seed.u32(..3);
            if killed == 2 {
                chain.primary.kill9();
                chain.primary.start_again();
            } else {
                chain.replicas[killed as usize].kill9();
                for _ in 0..50 {
                    load(&mut chain.primary.session(), &mut seed);
                }
                chain.replicas[killed as usize].start_again();
            }
            chain.replicas.iter().for_each(await_link);
            await_reclaim(&chain.primary);
            chain.assert_same();
        }
    }
}
