//! A server without replicas and without an append-only file writes nothing down for them, and a listener that comes
//! misses nothing.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use harness::topology::{Replicated, await_link, digest, follow};
use harness::{Proxy, Seed, Server, wait};

use crate::topology::fullsync::load;

/// Waits until the server knows that there is no listener.
fn await_silence(server: &Server) {
    let mut redis = server.session();
    wait::until("no listener is left", || redis.stat("replicating") == 0);
}

/// Runs `body` while several clients write to a server.
fn under_load<T>(server: &Server, name: &str, body: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            let (mut seed, over) = (Seed::draw(name), &over);
            scope.spawn(move || {
                let mut redis = server.session();
                while !over.load(SeqCst) {
                    load(&mut redis, &mut seed);
                }
            });
        }
        // The load ends also when the body fails, or the scope would wait for it for ever.
        let result = catch_unwind(AssertUnwindSafe(body));
        over.store(true, SeqCst);
        result.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[test]
fn a_replica_that_comes_while_nobody_listened_has_everything() {
    for (diskless, delay_s) in [("no", 0), ("yes", 0), ("yes", 1)] {
        let options = Server::builder()
            .set("repl-diskless-sync", diskless)
            .set("repl-diskless-sync-delay", delay_s)
            .set("repl-backlog-ttl", 1)
            .set("mcache.reclaim-inline-max", 20);
        let primary = options.clone().tcp().start();
        // The second time after there was one: its backlog must be gone before silence is believed.
        let mut replicated = Replicated {
            primary,
            replicas: Vec::new(),
        };
        for round in 1..=2 {
            await_silence(&replicated.primary);
            let primary = &replicated.primary;
            let replica = under_load(primary, "a_replica_that_comes", || {
                // Some load before a listener comes, and some while it is there.
                let mut redis = primary.session();
                let fills = redis.stat("fills") + 2_000;
                wait::until("there is something to copy", || {
                    redis.stat("fills") >= fills
                });
                let replica = follow(primary, options.clone());
                let fills = redis.stat("fills") + 2_000;
                wait::until("there is something to follow", || {
                    redis.stat("fills") >= fills
                });
                assert_eq!(redis.stat("replicating"), 1);
                replica
            });
            replicated.replicas.push(replica);
            let mut redis = replicated.primary.session();
            wait::until("the primary has reclaimed", || {
                redis.stat("pending_reclaim") == 0
            });
            replicated.assert_same();
            assert!(
                redis.int("DBSIZE") > 20,
                "round {round}: a load that stores"
            );
            replicated.replicas.clear();
        }
    }
}

#[test]
fn a_replica_that_was_cut_off_goes_on_where_it_was() {
    let primary = Server::builder().tcp().start();
    let proxy = Proxy::to_port(primary.port());
    let replica = Server::builder()
        .set("replicaof", format!("127.0.0.1 {}", proxy.port()))
        .start();
    await_link(&replica);
    proxy.refuse();
    let mut redis = primary.session();
    wait::until("the primary has noticed", || {
        redis.info("replication", "connected_slaves") == 0
    });
    // The cron has come by since then, and has not taken this for silence: there is a backlog.
    let ticks = redis.info("server", "uptime_in_seconds") + 2;
    wait::until("the cron has come by", || {
        redis.info("server", "uptime_in_seconds") >= ticks
    });
    let mut seed = Seed::draw("a_replica_that_was_cut_off");
    for _ in 0..200 {
        load(&mut redis, &mut seed);
    }
    proxy.heal();
    await_link(&replica);
    assert_eq!(redis.info("stats", "sync_full"), 1);
    Replicated {
        primary,
        replicas: vec![replica],
    }
    .assert_same();
}

#[test]
fn an_append_only_file_that_is_switched_on_has_everything() {
    for saving in [false, true] {
        let mut server = Server::builder()
            .set("mcache.on-restart", "keep")
            .set("mcache.reclaim-inline-max", 20)
            .set("appendfsync", "no")
            .set("save", "")
            .start();
        await_silence(&server);
        under_load(&server, "an_append_only_file", || {
            let mut redis = server.session();
            wait::until("there is something to rewrite", || {
                redis.stat("fills") >= 2_000
            });
            if saving {
                // The rewrite, and with it the file, has to wait for the end of a snapshot.
                redis.run("BGSAVE");
            }
            redis.ok("CONFIG SET appendonly yes");
            redis.ok("CONFIG REWRITE");
            wait::until("the file is complete", || {
                redis.info("persistence", "aof_rewrite_in_progress") == 0
                    && redis.info("persistence", "aof_rewrite_scheduled") == 0
                    && redis.info_text("persistence", "aof_last_bgrewrite_status") == "ok"
            });
            let fills = redis.stat("fills") + 2_000;
            wait::until("there is something to append", || {
                redis.stat("fills") >= fills
            });
        });
        let mut redis = server.session();
        wait::until("everything is reclaimed", || {
            redis.stat("pending_reclaim") == 0
        });
        let before = digest(&mut redis);
        server.restart();
        assert_eq!(digest(&mut server.session()), before, "saving: {saving}");
    }
}

#[test]
fn a_promoted_replica_tells_the_next_one() {
    let options = Server::builder().set("mcache.reclaim-inline-max", 20);
    let primary = options.clone().tcp().start();
    let promoted = follow(&primary, options.clone());
    drop(primary);
    promoted.session().ok("REPLICAOF NO ONE");
    let next = under_load(&promoted, "a_promoted_replica", || {
        let next = follow(&promoted, options.clone());
        let mut redis = promoted.session();
        let fills = redis.stat("fills") + 1_000;
        wait::until("there is something to follow", || {
            redis.stat("fills") >= fills
        });
        next
    });
    let mut redis = promoted.session();
    wait::until("the primary has reclaimed", || {
        redis.stat("pending_reclaim") == 0
    });
    await_link(&next);
    Replicated {
        primary: promoted,
        replicas: vec![next],
    }
    .assert_same();
}

#[test]
fn a_primary_that_was_a_replica_meanwhile_tells_those_who_go_on_where_they_were() {
    // The second gets its backlog by following, not by being followed: it never forks.
    let follow = |follower: &Server, followed: &Server| {
        let line = format!("REPLICAOF 127.0.0.1 {}", followed.port());
        follower.session().ok(&line);
        await_link(follower);
    };
    let turned = || {
        let options = Server::builder().tcp();
        let (first, second) = (options.clone().start(), options.start());
        for server in [&first, &second] {
            await_silence(server);
        }
        follow(&second, &first);
        second.session().ok("REPLICAOF NO ONE");
        follow(&first, &second);
        (first, second)
    };
    // Where a ping of the first did not reach the second any more, they need a full synchronisation: once more.
    let went_on = |(_, second): &(Server, Server)| second.session().info("stats", "sync_full") == 0;
    let (first, second) = std::iter::repeat_with(turned)
        .take(10)
        .find(went_on)
        .expect("the first goes on where it was");
    let mut redis = second.session();
    // With a token, so that nothing but the decision is understood by the other one.
    let token = redis.token("k");
    redis.ok(&format!("MCACHE.SET k 0 v TOKEN {token} TAGS t"));
    Replicated {
        primary: second,
        replicas: vec![first],
    }
    .assert_same();
}

#[test]
fn what_nobody_hears_still_counts_as_a_change_for_save() {
    let server = Server::start();
    await_silence(&server);
    let mut redis = server.session();
    let changes =
        |redis: &mut harness::Session| redis.info("persistence", "rdb_changes_since_last_save");
    let before = changes(&mut redis);
    redis.ok("MCACHE.SET a 0 v TAGS t");
    assert!(changes(&mut redis) > before);
    let before = changes(&mut redis);
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 1);
    assert!(changes(&mut redis) > before);
}
