//! Slots that move whole, with `CLUSTER MIGRATION IMPORT` (Redis 8.4) or `CLUSTER MIGRATESLOTS` (Valkey 9): entries
//! take along what they are worth, nothing that was invalidated comes back, and no index keeps what has left.

use std::ops::RangeInclusive;

use harness::slots::{Move, Pair, await_agreement, id_of, keys_in};
use harness::topology::{await_link, digest};
use harness::{Server, Session, host, wait};
use mcache_core::host::SlotMigration;
use mcache_core::slots::slot;
use redis::Value;

/// Of the first primary; half of its slots.
const MOVED: RangeInclusive<u16> = 0..=4_095;
/// Of the first primary, the other half.
const KEPT: RangeInclusive<u16> = 4_096..=8_191;

/// Entries under the tag `all`, a fourth of them also under `quarter`, with one tag of their own each.
fn fill(redis: &mut Session, keys: &[String]) {
    for (number, key) in keys.iter().enumerate() {
        let quarter = if number % 4 == 0 { "quarter" } else { "" };
        redis.ok(&format!(
            "MCACHE.SET {key} 1000 v TAGS all own:{key} {quarter}"
        ));
    }
}

/// A pair whose first primary has `count` entries in slots that move and as many in slots that stay; what is
/// invalidated is left to reclaim where `inline_max` is 0.
fn filled(
    inline_max: u64,
    count: usize,
    replicated: bool,
) -> Option<(Pair, Vec<String>, Vec<String>)> {
    let options = Server::builder().set("mcache.reclaim-inline-max", inline_max);
    let pair = Pair::start_with(options, replicated)?;
    let (moving, staying) = (keys_in(MOVED, "m", count), keys_in(KEPT, "s", count));
    let mut source = pair.primaries[0].session();
    fill(&mut source, &moving);
    fill(&mut source, &staying);
    Some((pair, moving, staying))
}

fn entries(server: &Server) -> i64 {
    server.session().stat("entries")
}

#[test]
fn entries_arrive_with_their_tags_and_leave_no_trace_where_they_were() {
    let Some((pair, moving, staying)) = filled(64, 500, false) else {
        return;
    };
    let [source, destination] = &pair.primaries;
    let key = &moving[0];
    let before = source
        .session()
        .map(&format!("MCACHE.INSPECT {key}"))
        .expect("an entry");
    assert!(Move::start(source, destination, MOVED).finish());
    assert_eq!((entries(source), entries(destination)), (500, 500));
    let (mut here, mut there) = (source.session(), destination.session());
    let after = there
        .map(&format!("MCACHE.INSPECT {key}"))
        .expect("it has arrived");
    for field in ["state", "birth", "manual"] {
        assert_eq!(
            format!("{:?}", after[field]),
            format!("{:?}", before[field]),
            "{field}"
        );
    }
    let own = there.entries(&format!("own:{key}"));
    assert_eq!(own, std::slice::from_ref(key));
    // Nothing of what has left is counted, and nothing that stays is missed.
    assert_eq!(here.int("MCACHE.INVALIDATE TAGS quarter"), 125);
    assert_eq!(there.int("MCACHE.INVALIDATE TAGS quarter"), 125);
    for server in &pair.primaries {
        server.session().drain();
        server.check().expect("index and keyspace agree");
        assert_eq!(entries(server), 375);
    }
    assert!(!there.is_live(key));
    assert!(here.is_live(&staying[1]));
    // And back.
    assert!(Move::start(destination, source, MOVED).finish());
    assert_eq!((entries(source), entries(destination)), (750, 0));
    assert_eq!(there.stat("tags"), 0);
    assert_eq!(here.int("MCACHE.INVALIDATE TAGS all"), 750);
}

/// Has the slots move so slowly that what the closure does, as soon as they are on their way, is done while they are.
fn meanwhile(source: &Server, destination: &Server, mut act: impl FnMut(&mut Session)) {
    let mut here = source.session();
    here.ok("CONFIG SET rdb-key-save-delay 2000");
    let slots = Move::start(source, destination, MOVED);
    let mut there = destination.session();
    wait::until("entries are arriving", || there.stat("entries") > 0);
    if host::program().slot_migration() == SlotMigration::Redis {
        let verdict = destination.check();
        assert_eq!(verdict, Ok(()), "what arrives is hidden from a scan only");
    }
    act(&mut here);
    let state = slots.state();
    assert!(
        !["completed", "success"].contains(&&*state),
        "they had all arrived before"
    );
    assert!(slots.finish(), "the migration failed");
    here.ok("CONFIG SET rdb-key-save-delay 0");
}

/// A caught bug makes everything dead that was stored, also what has already been sent.
#[test]
fn a_floor_that_is_raised_while_slots_are_on_their_way_holds_where_they_arrive() {
    let options = Server::builder().env("MCACHE_TEST_PANICS", "1");
    let Some(pair) = Pair::start_with(options, false) else {
        return;
    };
    let [source, destination] = &pair.primaries;
    let moving = keys_in(MOVED, "m", 300);
    fill(&mut source.session(), &moving);
    meanwhile(source, destination, |here| {
        here.error("MCACHE.PANIC");
        here.drain();
    });
    let mut there = destination.session();
    for key in &moving {
        assert!(!there.is_live(key), "{key}");
    }
    there.drain();
    destination.check().expect("index and keyspace agree");
}

/// The destination is not told: it is not known to those who invalidate, or they have not come to it yet.
#[test]
fn what_is_invalidated_while_its_slot_is_on_its_way_is_not_served_where_it_arrives() {
    for (inline_max, soft) in [(0, ""), (10_000, ""), (0, "SOFT ")] {
        let Some((pair, moving, staying)) = filled(inline_max, 300, false) else {
            return;
        };
        let [source, destination] = &pair.primaries;
        meanwhile(source, destination, |here| {
            assert_eq!(
                here.int(&format!("MCACHE.INVALIDATE {soft}TAGS quarter")),
                150
            );
            here.ok(&format!(
                "MCACHE.SET {} 1000 again TAGS all again",
                moving[0]
            ));
            here.int(&format!("DEL {}", moving[1]));
        });
        let (mut here, mut there) = (source.session(), destination.session());
        if inline_max == 0 {
            // The decision itself came along, not only what reclaim made of it.
            let told = there.map("MCACHE.TAGINFO quarter").expect("a tag");
            assert_ne!(told["last_invalidation_ms"], Value::Int(-1));
        }
        let served: Vec<&String> = moving.iter().filter(|key| there.is_live(key)).collect();
        let expected: Vec<&String> = (moving.iter().enumerate())
            .filter(|(number, _)| *number == 0 || number % 4 != 0 && *number != 1)
            .map(|(_, key)| key)
            .collect();
        assert_eq!(served, expected, "inline-max {inline_max} {soft}");
        assert_eq!(there.entries("again"), [moving[0].clone()]);
        let kept = staying.iter().filter(|key| here.is_live(key)).count();
        assert_eq!(kept, 225, "those that stay know of it as well");
        for server in &pair.primaries {
            server.session().drain();
            server.check().expect("index and keyspace agree");
        }
        assert_eq!(here.stat("slot_exports"), 0, "it is over");
    }
}

#[test]
fn what_was_invalidated_at_the_destination_first_is_dead_when_it_arrives_on_its_replica_too() {
    let Some((pair, moving, _)) = filled(64, 200, true) else {
        return;
    };
    let [source, destination] = &pair.primaries;
    // To the destination only, where no entry carries the tag yet.
    assert_eq!(
        destination.session().int("MCACHE.INVALIDATE TAGS quarter"),
        0
    );
    assert!(Move::start(source, destination, MOVED).finish());
    let mut there = destination.session();
    let live = |redis: &mut Session| moving.iter().filter(|key| redis.is_live(key)).count();
    assert_eq!(live(&mut there), 150);
    there.drain();
    assert_eq!(entries(destination), 150);
    let (_, replica) = (&pair.replicas[0], &pair.replicas[1]);
    let mut copy = replica.session();
    wait::until("the replica has heard of it", || {
        digest(&mut copy) == digest(&mut there)
    });
    assert_eq!(entries(replica), 150);
    // What has left is gone from the source's replica, too.
    wait::until("the source's replica has let go", || {
        entries(&pair.replicas[0]) == 200
    });
    pair.replicas.iter().for_each(await_agreement);
}

#[test]
fn slots_move_while_entries_are_invalidated_and_reclaimed_without_pause() {
    let Some((pair, _, _)) = filled(0, 2_000, false) else {
        return;
    };
    let [source, destination] = &pair.primaries;
    let over = std::sync::atomic::AtomicBool::new(false);
    let ordering = std::sync::atomic::Ordering::SeqCst;
    let rounds = std::thread::scope(|scope| {
        // Of all slots, so that a batch of reclaim has keys of many.
        let invalidating = scope.spawn(|| {
            let mut here = source.session();
            let keys = keys_in(0..=8_191, "r", 300);
            let mut rounds = 0;
            while !over.load(ordering) {
                for key in &keys {
                    // Refused once its slot has gone.
                    let _ = here.try_run(&format!("MCACHE.SET {key} 1000 v TAGS round"));
                }
                here.int("MCACHE.INVALIDATE TAGS round");
                rounds += 1;
            }
            rounds
        });
        wait::until("invalidations have begun", || {
            source.session().stat("invalidations") > 1
        });
        for _ in 0..3 {
            assert!(
                Move::start(source, destination, MOVED).finish(),
                "cancelled"
            );
            assert!(
                Move::start(destination, source, MOVED).finish(),
                "cancelled"
            );
        }
        over.store(true, ordering);
        invalidating.join().expect("it goes on")
    });
    println!("{rounds} invalidations while slots moved six times");
    for server in &pair.primaries {
        server.session().drain();
        server.check().expect("index and keyspace agree");
    }
    assert_eq!(
        (source.session().entries("all").len(), entries(destination)),
        (4_000, 0)
    );
}

#[test]
fn what_arrived_with_slots_that_turn_back_is_forgotten() {
    let Some((pair, moving, _)) = filled(64, 300, true) else {
        return;
    };
    let [source, destination] = &pair.primaries;
    let mut here = source.session();
    here.ok("CONFIG SET rdb-key-save-delay 2000");
    let slots = Move::start(source, destination, MOVED);
    let mut there = destination.session();
    wait::until("entries are arriving", || there.stat("entries") > 10);
    slots.cancel();
    assert!(!slots.finish(), "it was taken back");
    wait::until("what had arrived is deleted", || there.stat("entries") == 0);
    wait::until("on the replica as well", || entries(&pair.replicas[1]) == 0);
    pair.replicas.iter().for_each(await_agreement);
    here.ok("CONFIG SET rdb-key-save-delay 0");
    assert_eq!(here.stat("slot_exports"), 0);
    assert!(
        moving.iter().all(|key| here.is_live(key)),
        "they are where they were"
    );
    assert!(Move::start(source, destination, MOVED).finish());
    assert_eq!(entries(destination), 300);
    pair.replicas.iter().for_each(await_agreement);
}

/// Redis tries a migration again that failed, each second: what arrived the first time is forgotten, what is
/// invalidated between the attempts stays so.
#[test]
fn slots_whose_first_attempt_failed_arrive_with_the_second() {
    for half_way in [false, true] {
        let Some((pair, moving, _)) = filled(64, 300, false) else {
            return;
        };
        let [source, destination] = &pair.primaries;
        let (mut here, mut there) = (source.session(), destination.session());
        let broken = "DEBUG ASM-FAILPOINT import-main-channel auth-reply";
        if there.try_run(broken).is_err() {
            return host::skip("its slot migrations cannot be made to fail");
        }
        here.ok("CONFIG SET rdb-key-save-delay 2000");
        let slots = Move::start(source, destination, MOVED);
        wait::until("it has failed", || slots.state() == "failed");
        there.ok("DEBUG ASM-FAILPOINT \"\" \"\"");
        if half_way {
            wait::until("entries are arriving", || there.stat("entries") > 10);
            assert!(there.int("CLIENT KILL TYPE master") > 0);
        }
        assert_eq!(here.int("MCACHE.INVALIDATE TAGS quarter"), 150);
        assert!(slots.finish());
        there.drain();
        assert_eq!(entries(destination), 225);
        let served = moving.iter().filter(|key| there.is_live(key)).count();
        assert_eq!(served, 225);
        for server in &pair.primaries {
            server.check().expect("index and keyspace agree");
        }
        assert_eq!(here.stat("slot_exports"), 0);
    }
}

/// A server that trims in the background all the same says so before; the index then lets go of the slots.
#[test]
fn slots_that_are_freed_in_the_background_are_forgotten_as_well() {
    let Some((pair, _, _)) = filled(64, 500, false) else {
        return;
    };
    let [source, destination] = &pair.primaries;
    let mut here = source.session();
    if here.try_run("DEBUG ASM-TRIM-METHOD bg").is_err() {
        return host::skip("it never frees slots in the background");
    }
    assert!(Move::start(source, destination, MOVED).finish());
    wait::until("they are freed", || entries(source) == 500);
    source.check().expect("index and keyspace agree");
    assert_eq!(here.int("MCACHE.INVALIDATE TAGS all"), 500);
    here.drain();
    assert_eq!(here.stat("tags"), 0);
}

/// Redis frees what the index should have let go of: it must not be named any more all the same.
#[test]
fn a_bug_while_slots_are_freed_in_the_background_leaves_no_address_of_what_was_freed() {
    let options = Server::builder().env("MCACHE_TEST_PANICS", "1");
    let Some(pair) = Pair::start_with(options, false) else {
        return;
    };
    let [source, destination] = &pair.primaries;
    let mut here = source.session();
    if here.try_run("DEBUG ASM-TRIM-METHOD bg").is_err() {
        return host::skip("it never frees slots in the background");
    }
    fill(&mut here, &keys_in(MOVED, "m", 300));
    here.ok("MCACHE.PANIC-LATER trim");
    assert!(Move::start(source, destination, MOVED).finish());
    wait::until("they are freed", || here.stat("panics") == 1);
    assert_eq!(here.int("MCACHE.INVALIDATE TAGS all"), 0);
    here.drain();
    assert_eq!(here.stat("tags"), 0);
    source.check().expect("index and keyspace agree");
}

#[test]
fn entries_of_every_database_move_with_their_slots() {
    if !host::program().has_directive("cluster-databases") {
        return host::skip("a cluster has one database");
    }
    let options = Server::builder().set("cluster-databases", 4);
    let Some(pair) = Pair::start_with(options, false) else {
        return;
    };
    let [source, destination] = &pair.primaries;
    let keys = keys_in(MOVED, "k", 50);
    let (mut here, mut there) = (source.session(), destination.session());
    for db in 0..4 {
        here.ok(&format!("SELECT {db}"));
        fill(&mut here, &keys[..10 * (db + 1)]);
    }
    // MOVE and COPY in a transaction, into a database that is not the client's.
    here.ok("SELECT 0");
    let key = &keys[49];
    here.ok(&format!("MCACHE.SET {key} 1000 v TAGS all"));
    here.ok("MULTI");
    here.run(&format!("COPY {key} {key} DB 3"));
    here.run(&format!("MOVE {key} 1"));
    here.run("EXEC");
    assert!(Move::start(source, destination, MOVED).finish());
    for (db, expected) in [(0, 10), (1, 21), (2, 30), (3, 41)] {
        there.ok(&format!("SELECT {db}"));
        let found = there.entries("all").len();
        assert_eq!(found, expected, "database {db}");
        assert_eq!(there.int("MCACHE.INVALIDATE TAGS all"), expected as i64);
    }
    assert_eq!((entries(source), entries(destination)), (0, 0));
}

/// Redis 8: SFLUSH empties slots, on this version all of a node's or none.
#[test]
fn flushed_slots_are_empty_in_the_index() {
    let server = Server::builder().cluster().start();
    let mut redis = server.session();
    if !host::program().has_command("sflush") {
        return host::skip("it has no SFLUSH");
    }
    redis.ok("CLUSTER ADDSLOTSRANGE 0 16383");
    wait::until("the cluster is up", || {
        redis.try_run("MCACHE.SET probe 0 v").is_ok()
    });
    for mode in ["SYNC", "ASYNC"] {
        fill(&mut redis, &keys_in(0..=16_383, "k", 300));
        redis.run(&format!("SFLUSH 0 8191 {mode}"));
        server.check().expect("index and keyspace agree");
        redis.run(&format!("SFLUSH 0 16383 {mode}"));
        assert_eq!(redis.stat("entries"), 0, "{mode}");
        assert_eq!(redis.int("MCACHE.INVALIDATE TAGS all"), 0);
        server.check().expect("index and keyspace agree");
    }
}

/// A replica that follows from the middle of a migration on.
#[test]
fn a_full_synchronisation_in_the_middle_of_a_migration_ends_with_equal_data() {
    let Some((pair, _, _)) = filled(64, 300, true) else {
        return;
    };
    let [source, destination] = &pair.primaries;
    meanwhile(source, destination, |_| {
        for replica in &pair.replicas {
            replica.session().run("CLIENT KILL TYPE master");
        }
        pair.replicas.iter().for_each(await_link);
    });
    for (primary, replica) in pair.primaries.iter().zip(&pair.replicas) {
        let (mut ours, mut theirs) = (primary.session(), replica.session());
        wait::until("they have equal data", || {
            digest(&mut ours) == digest(&mut theirs)
        });
        wait::until("and as many entries", || {
            entries(primary) == entries(replica)
        });
        await_agreement(replica);
    }
}

/// Key by key, as slots moved before: a replica does not know that its primary imports a slot, and the primary gives
/// the import up. Redis 8.4 and later hide keys of slots that a server does not have from SCAN.
#[test]
fn entries_of_slots_that_a_server_does_not_have_are_found_by_the_self_check_and_reclaimed() {
    const COUNT: i64 = 20;
    let options = Server::builder().set("mcache.reclaim-inline-max", 0);
    let Some(pair) = Pair::start_with(options, true) else {
        return;
    };
    let [source, destination] = &pair.primaries;
    let replica = &pair.replicas[1];
    let (mut there, mut behind) = (destination.session(), replica.session());
    let check = |when: &str| {
        for server in [destination, replica] {
            let verdict = server.check();
            assert_eq!(verdict, Ok(()), "{when}");
        }
    };
    let tag = keys_in(MOVED, "m", 1).remove(0);
    let slot = slot(tag.as_bytes());
    there.ok(&format!(
        "CLUSTER SETSLOT {slot} IMPORTING {}",
        id_of(source)
    ));
    for number in 0..COUNT {
        there.ok("ASKING");
        there.ok(&format!(
            "MCACHE.SET {{{tag}}}{number} 1000 v TAGS t own:{number}"
        ));
    }
    wait::until("they are replicated", || behind.stat("entries") == COUNT);
    check("while they are imported");
    there.ok(&format!("CLUSTER SETSLOT {slot} STABLE"));
    check("the import was given up");
    assert_eq!(there.int("MCACHE.INVALIDATE TAGS t"), COUNT);
    check("all are dead");
    there.drain();
    assert_eq!(there.stat("entries"), 0);
    wait::until("the replica has none", || behind.stat("entries") == 0);
    check("all are freed");
}
