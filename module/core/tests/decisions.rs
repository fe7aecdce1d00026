//! Decisions of a server that neither model nor simulation comes to: who may not fill, what a file, an exchange or a
//! promotion leaves of fills and entries, where a lease ends. Each was found by a mutant that no test noticed.

#[path = "support/stage.rs"]
mod stage;

use mcache_core::command::{OnlyIf, ReplInvalidate, Set};
use mcache_core::entry::{Attributes, Entry, NEVER};
use mcache_core::index::{Scope, Task};
use mcache_core::server::{Alarm, Condition, Fetched, Server};

use stage::*;

#[test]
fn who_may_not_fill_holds_no_lease_and_does_not_stand_in_line() {
    let mut stage = Stage::new();
    assert_eq!(stage.fetch(1, false, 10), Fetched::Miss(None));
    assert!(stage.server.leases.is_empty());
    assert!(matches!(stage.fetch(2, true, 10), Fetched::Miss(Some(_))));
    assert_eq!(stage.fetch(3, false, 10), Fetched::Miss(None));
    assert_eq!(stage.fetch(4, true, 10), Fetched::Park);
}

#[test]
fn no_more_clients_are_parked_than_may_be() {
    let mut stage = Stage::new();
    assert!(matches!(stage.fetch(1, true, 2), Fetched::Miss(Some(_))));
    for client in [2, 3] {
        assert_eq!(stage.fetch(client, true, 2), Fetched::Park);
        stage.park(client, NOW_MS + 1_000);
    }
    assert_eq!(stage.fetch(4, true, 2), Fetched::Busy);
}

#[test]
fn the_timer_is_set_anew_only_for_an_end_that_is_nearer() {
    let mut stage = Stage::new();
    let _ = stage.fetch(1, true, 10);
    stage.park(2, NOW_MS + 3_000);
    let due = stage.server.alarm_due();
    assert_eq!(due, Some(NOW_MS + 3_000));
    let at_ms = NOW_MS + 3_000;
    assert_eq!(stage.server.alarm_set(Alarm { timer: 1, at_ms }), None);
    stage.park(3, NOW_MS + 4_000);
    assert_eq!(stage.server.alarm_due(), None);
    stage.park(4, NOW_MS + 1_000);
    assert_eq!(stage.server.alarm_due(), Some(NOW_MS + 1_000));
}

#[test]
fn the_window_in_which_an_entry_is_stale_comes_after_its_ttl() {
    let mut stage = Stage::new();
    let admitted = stage.admit(None, 10_000, 3_000).expect("it is stored");
    assert_eq!(admitted.fresh_until_ms(), NOW_MS + 10_000);
    assert_eq!(admitted.ends_ms, NOW_MS + 13_000);
}

#[test]
fn what_a_file_says_was_stored_after_an_invalidation_is_kept_however_soon_it_was() {
    let mut stage = Stage::new();
    stage.server.load_begins(true);
    let invalidated = at(NOW_MS - 100);
    let replicated = ReplInvalidate {
        epoch: invalidated,
        ..ReplInvalidate::doubtful(0)
    };
    (stage.server).invalidate_replicated(0, tags(), replicated, &PRIMARY);
    let after = Attributes {
        birth: at(NOW_MS - 50),
        ..attributes(0, NEVER)
    };
    let kept = stage
        .server
        .admit_replicated(after, tags(), false, &PRIMARY);
    assert_eq!(kept, Some(after));
    stage.server.load_ended();
}

#[test]
fn a_fill_that_began_before_databases_were_exchanged_is_refused() {
    let mut stage = Stage::new();
    let before = stage.server.fills.token(NOW_MS);
    let _ = stage.server.swapped(0, 1, NOW_MS);
    let after = stage.server.fills.token(NOW_MS);
    assert_eq!(stage.admit(Some(before), 10_000, 0), None);
    assert!(stage.admit(Some(after), 10_000, 0).is_some());
}

#[test]
fn a_fill_that_begins_at_the_epoch_of_an_invalidation_began_after_it() {
    let mut stage = Stage::new();
    let before = stage.server.fills.token(NOW_MS);
    let tag = stage
        .server
        .invalidate(0, tags(), Scope::All, false, 10, NOW_MS);
    let after = stage.server.fills.token(NOW_MS);
    assert_eq!(after.epoch, tag.epoch);
    // Something else is invalidated, so that its tags are looked at.
    let other = std::iter::once(&b"other"[..]);
    let _ = stage
        .server
        .invalidate(0, other, Scope::All, false, 10, NOW_MS);
    assert_eq!(stage.admit(Some(before), 10_000, 0), None);
    assert!(stage.admit(Some(after), 10_000, 0).is_some());
}

#[test]
fn a_key_that_was_cleared_is_not_filled_by_what_was_under_way_manual_or_not() {
    for manual in [false, true] {
        let mut stage = Stage::new();
        let set = |token| Set {
            ttl_ms: None,
            swr_ms: 0,
            token: Some(token),
            only_if: OnlyIf::Always,
            manual,
            near: None,
            tags_from: 0,
        };
        let before = stage.server.fills.unique_token(NOW_MS);
        stage.server.clear(b"k", NOW_MS);
        let after = stage.server.fills.unique_token(NOW_MS);
        let mut stores = |token, key: &[u8]| {
            (stage.server)
                .admit(&set(token), key, tags(), None, NOW_MS)
                .is_some()
        };
        assert!(!stores(before, b"k"));
        assert!(stores(before, b"another"));
        assert!(stores(after, b"k"));
    }
}

#[test]
fn a_replica_that_was_never_confirmed_and_is_promoted_drops_what_it_read() {
    let mut stage = Stage::new();
    stage.server.load_begins(false);
    let entry = stage.load(decoded(attributes(0, NEVER), true), true, &REPLICA);
    let entry = entry.expect("a replica keeps it");
    stage.server.arrived(0, b"k", None, true);
    stage.server.load_ended();
    stage.server.started();
    assert_eq!(stage.condition(entry), Condition::Dead, "unconfirmed");
    stage.server.promoted(8, false, NOW_MS);
    assert_eq!(stage.condition(entry), Condition::Dead);
    assert!(stage.server.floor_to_tell().is_some());
    let own = stage.store(0, b"own", attributes(0, NEVER));
    assert_eq!(
        stage.condition(own),
        Condition::Dead,
        "older than the floor"
    );
    let born = stage.admit(None, 10_000, 0).expect("it serves");
    let own = stage.store(0, b"another", born);
    assert_eq!(stage.condition(own), Condition::Live);
}

#[test]
fn what_is_stored_after_a_replicated_floor_lives_also_where_the_clock_is_behind() {
    let mut stage = Stage::new();
    let floor = at(NOW_MS + 500);
    stage.server.floor_replicated(floor, &REPLICA);
    stage.server.promoted(8, false, NOW_MS);
    let born = stage.admit(None, 10_000, 0).expect("it serves");
    assert!(born.birth >= floor);
    let entry = stage.store(0, b"k", born);
    assert_eq!(stage.condition(entry), Condition::Live);
}

#[test]
fn a_floor_that_comes_late_does_not_bring_back_what_a_later_one_took() {
    let mut stage = Stage::new();
    let entry = stage.store(0, b"k", attributes(0, NEVER));
    stage.server.floor_replicated(at(NOW_MS + 10), &REPLICA);
    assert_eq!(stage.condition(entry), Condition::Dead);
    stage.server.floor_replicated(at(NOW_MS - 10), &REPLICA);
    assert_eq!(stage.condition(entry), Condition::Dead);
}

#[test]
fn an_entry_is_believed_only_if_both_of_its_epochs_can_be_true() {
    let far = at(NOW_MS * 1_000);
    for (birth, saved, is_believed) in [
        (at(NOW_MS), at(NOW_MS), true),
        (far, at(NOW_MS), false),
        (at(NOW_MS), far, false),
    ] {
        let mut stage = Stage::new();
        let mut dump = decoded(attributes(0, NEVER), true);
        (dump.attributes.birth, dump.saved.epoch) = (birth, saved);
        assert_eq!(stage.load(dump, false, &PRIMARY).is_some(), is_believed);
    }
}

#[test]
fn what_is_announced_and_not_held_is_not_linked() {
    let mut stage = Stage::new();
    let dump = decoded(attributes(0, NEVER), true);
    let entry = stage.load(dump, false, &PRIMARY).expect("it is credible");
    // The key holds a value of another type.
    stage.server.arrived(0, b"k", None, false);
    assert!(!entry.is_linked());
    assert_eq!(stage.server.index.sizes().entries, 0);
}

#[test]
fn an_entry_that_does_not_say_its_end_is_stale_if_it_has_a_window_and_the_deadline_is_not_known() {
    for (swr_ms, expected) in [(0, Condition::Live), (5_000, Condition::Stale)] {
        let mut stage = Stage::new();
        stage.server.load_begins(true);
        let dump = decoded(attributes(swr_ms, NEVER), false);
        let entry = stage.load(dump, false, &PRIMARY).expect("it is kept");
        assert!(stage.server.needs_the_deadline());
        stage.server.arrived(0, b"k", None, true);
        stage.server.load_ended();
        assert_eq!(stage.condition(entry), expected);
    }
}

#[test]
fn a_flush_ends_the_leases_of_its_database_all_of_them_and_no_other() {
    let mut stage = Stage::new();
    for (db, key) in [(1, b"a"), (0, b"b"), (1, b"c")] {
        let token = stage.server.fills.unique_token(NOW_MS);
        let _ = (stage.server.leases).ask(db, key, 1, token, NOW_MS, 5_000);
    }
    assert!(stage.server.flushed(Some(1), NOW_MS).is_empty());
    let held = |stage: &mut Stage, db, key: &[u8]| stage.server.leases.is_held(db, key, NOW_MS);
    assert!(!held(&mut stage, 1, b"a"));
    assert!(!held(&mut stage, 1, b"c"), "the last one, too");
    assert!(held(&mut stage, 0, b"b"));
}

#[test]
fn slots_that_go_take_along_the_entries_of_every_database() {
    let mut stage = Stage::new();
    for db in 0..3 {
        stage.store(db, b"k", attributes(0, NEVER));
    }
    stage.server.index.forget_slots([0..=16_383]);
    stage.server.index.settle();
    assert_eq!(stage.server.index.sizes().entries, 0);
}

#[test]
fn a_replica_hands_out_no_lease() {
    let mut stage = Stage::new();
    assert_eq!(stage.fetch_from(&REPLICA, 1), Fetched::Miss(None));
    assert!(stage.server.leases.is_empty());
    assert!(matches!(
        stage.fetch_from(&PRIMARY, 1),
        Fetched::Miss(Some(_))
    ));
}

#[test]
fn nx_stores_nothing_over_a_live_entry_and_xx_nothing_where_there_is_none() {
    let mut stage = Stage::new();
    let entry = stage.store(0, b"k", attributes(0, NEVER));
    for (only_if, present, is_stored) in [
        (OnlyIf::Absent, Some(entry), false),
        (OnlyIf::Absent, None, true),
        (OnlyIf::Present, Some(entry), true),
        (OnlyIf::Present, None, false),
        (OnlyIf::Always, Some(entry), true),
    ] {
        let set = Set {
            ttl_ms: None,
            swr_ms: 0,
            token: None,
            only_if,
            manual: false,
            near: None,
            tags_from: 0,
        };
        let admitted = stage.server.admit(&set, b"k", tags(), present, NOW_MS);
        assert_eq!(
            admitted.is_some(),
            is_stored,
            "{only_if:?} over {present:?}"
        );
    }
}

#[test]
fn a_fill_that_began_before_everything_was_forgotten_is_refused() {
    type Forget = fn(&mut Server<u32>);
    let forget: [(&str, Forget); 3] = [
        ("FLUSHALL", |server| {
            let _ = server.flushed(None, NOW_MS);
        }),
        ("a promotion that drops", |server| {
            server.promoted(8, true, NOW_MS)
        }),
        ("a floor", |server| {
            server.floor_replicated(at(NOW_MS + 1), &REPLICA)
        }),
    ];
    for (what, forget) in forget {
        let mut stage = Stage::new();
        let before = stage.server.fills.token(NOW_MS);
        forget(&mut stage.server);
        assert_eq!(stage.admit(Some(before), 10_000, 0), None, "{what}");
        let after = stage.server.fills.token(NOW_MS);
        assert!(stage.admit(Some(after), 10_000, 0).is_some(), "{what}");
    }
}

#[test]
fn a_token_of_before_a_promotion_is_no_good_afterwards() {
    let mut stage = Stage::new();
    let before = stage.server.fills.token(NOW_MS);
    stage.server.promoted(8, false, NOW_MS);
    let after = stage.server.fills.token(NOW_MS);
    assert_eq!(stage.admit(Some(before), 10_000, 0), None);
    assert!(stage.admit(Some(after), 10_000, 0).is_some());
}

#[test]
fn reclaim_finds_every_entry_below_a_floor() {
    // More than it looks at in one call, and nothing dead at the end of the last piece.
    for (dead, alive) in [(1, 0), (1_500, 0), (10, 1_500), (1_500, 1_500)] {
        let mut stage = Stage::new();
        let mut store = |n: u32, birth| {
            stage.store(
                0,
                &n.to_be_bytes(),
                Attributes {
                    birth,
                    ..attributes(0, NEVER)
                },
            )
        };
        // Interleaved: the living ones stand before and between the dead ones.
        for n in 0..alive {
            store(n, at(NOW_MS + 20));
        }
        for n in 0..dead {
            store(alive + n, at(NOW_MS));
        }
        stage.server.floor_replicated(at(NOW_MS + 10), &REPLICA);
        let mut found = 0;
        while stage.server.index.has_pending() {
            if let Some(task) = stage.server.index.next_task() {
                let Task::Delete { db, entry } = task else {
                    panic!("{task:?}");
                };
                stage.server.left(db, entry);
                found += 1;
            }
        }
        assert_eq!(found, dead, "{dead} dead, {alive} alive");
    }
}

/// A replica hands out no task: its primary deletes. What it had noted to be dead must go with that, or it counts as
/// pending for ever, and nothing moves together any more.
#[test]
fn a_replica_notes_no_longer_as_dead_what_its_primary_deleted() {
    for condemned in [false, true] {
        let mut stage = Stage::new();
        if condemned {
            stage.server.index.raise_floor(at(NOW_MS + 1));
        }
        let tags: Vec<String> = (0..30_000).map(|n| format!("t{n}")).collect();
        for tag in &tags {
            stage.store_under(&[tag.as_bytes()], 0, b"k", attributes(0, NEVER));
        }
        stage.server.index.raise_floor(at(NOW_MS + 1));
        let later = Attributes {
            birth: at(NOW_MS + 2),
            ..attributes(0, NEVER)
        };
        let lives = stage.store_under(&[b"lives"], 0, b"lives", later);
        while stage.server.index.bury() {}
        // As tasks are handed out: the last condemned and the first swept are the first.
        let mut dead: Vec<Entry> = stage.entries.drain(..).collect();
        dead.retain(|entry| *entry != lives);
        if condemned {
            dead.reverse();
        }
        for (n, entry) in dead.into_iter().enumerate() {
            stage.server.left(0, entry);
            // SAFETY: it is in no index and in no keyspace any more.
            unsafe { entry.free() };
            if n % 1_000 == 0 {
                while stage.server.index.bury() {}
            }
        }
        stage.entries.push(lives);
        stage.server.index.settle();
        while stage.server.index.bury() {}
        let sizes = stage.server.index.sizes();
        assert_eq!((sizes.entries, sizes.pending_reclaim), (1, 0));
        assert!(!stage.server.index.has_pending());
        assert!(sizes.index_bytes < 16_384, "{} bytes", sizes.index_bytes);
    }
}
