//! Decisions about soft invalidations: how long an entry may be served stale, and where that is written down. Each was
//! found by a mutant that no test noticed, or by the simulation.

#[path = "support/stage.rs"]
mod stage;

use mcache_core::command::{Invalidate, ReplInvalidate};
use mcache_core::encode;
use mcache_core::entry::{Entry, NEVER};
use mcache_core::index::{Scope, Task};
use mcache_core::server::{Condition, Renamed};

use stage::*;

#[test]
fn what_is_stale_and_not_reclaimed_yet_is_stale_under_another_name_and_ends_when_it_would_have() {
    let mut stage = Stage::new();
    let entry = stage.store(0, b"k", attributes(5_000, NEVER));
    stage.soften();
    assert_eq!(stage.condition(entry), Condition::Stale);
    let copy = stage.server.duplicate(b"copy", &entry);
    let copy = copy.expect("a key short enough");
    stage.entries.push(copy);
    stage.server.arrived(0, b"copy", Some((copy, None)), false);
    stage.server.left(0, entry);
    let Renamed::Fresh(renamed) = stage.server.renamed(0, b"new", entry) else {
        panic!("it left");
    };
    stage.entries.push(renamed);
    for entry in [copy, renamed] {
        assert_eq!(stage.condition(entry), Condition::Stale);
        assert_eq!(entry.ends_ms(), NOW_MS + 5_000);
    }
}

#[test]
fn a_softly_invalidated_entry_that_left_is_not_invalidated_again() {
    let mut stage = Stage::new();
    let entries: Vec<Entry> = (0..4u8)
        .map(|n| stage.store(0, &[n], attributes(5_000, NEVER)))
        .collect();
    let done = stage
        .server
        .invalidate(0, tags(), Scope::All, true, 0, NOW_MS);
    assert_eq!(done.later, 4);
    stage.server.index.unlink(0, entries[1]);
    stage.server.index.unlink(0, entries[3]);
    assert_eq!(stage.server.index.count(0, tags(), Scope::All), 2);
    let done = stage
        .server
        .invalidate(0, tags(), Scope::All, false, 0, NOW_MS);
    assert_eq!(done.later, 2);
}

#[test]
fn a_flush_in_the_middle_of_a_soft_invalidation_leaves_nothing_to_look_at() {
    let mut stage = Stage::new();
    stage.store(0, b"k", attributes(5_000, NEVER));
    stage.soften();
    let _ = stage.server.flushed(Some(0), NOW_MS);
    for _ in 0..100 {
        stage.server.index.bury();
    }
    assert!(!stage.server.index.has_pending());
}

#[test]
fn of_two_soft_invalidations_the_earlier_one_counts() {
    for (first, second) in [("t", "u"), ("u", "t")] {
        let mut stage = Stage::new();
        let entry = stage.store_under(&[b"t", b"u"], 0, b"k", attributes(5_000, NEVER));
        for (tag, now_ms) in [(first, NOW_MS + 10), (second, NOW_MS + 900)] {
            let tag = std::iter::once(tag.as_bytes());
            let done = stage.server.invalidate(0, tag, Scope::All, true, 0, now_ms);
            assert_eq!(done.later, 1);
        }
        let (kept, _) = stage.server.kept(&entry).expect("it is stale");
        assert_eq!(kept.ends_ms, NOW_MS + 10 + 5_000);
    }
}

/// The second one concerns so few entries that they are dealt with at once, and the first one waits for reclaim.
#[test]
fn what_is_dealt_with_at_once_keeps_the_end_of_an_earlier_soft_invalidation() {
    let mut stage = Stage::new();
    stage.store_under(&[b"t", b"u"], 0, b"k", attributes(5_000, NEVER));
    for (tag, inline_max, now_ms) in [(b"t", 0, NOW_MS + 10), (b"u", 9, NOW_MS + 900)] {
        let tag = std::iter::once(&tag[..]);
        let done = stage
            .server
            .invalidate(0, tag, Scope::All, true, inline_max, now_ms);
        for task in done.at_once {
            assert!(
                matches!(task, Task::Shorten { since, .. } if since == at(NOW_MS + 10)),
                "{task:?}"
            );
        }
    }
}

/// The wall clock is set back between two soft invalidations. A replica that came between them has the end of the first
/// one in its entry, so what both have to say is: the earlier moment counts.
#[test]
fn of_two_soft_invalidations_of_one_tag_the_one_with_the_earlier_clock_counts() {
    for has_new_member in [false, true] {
        let mut stage = Stage::new();
        let entry = stage.store(0, b"k", attributes(5_000, NEVER));
        let soften = |stage: &mut Stage, now_ms| {
            stage
                .server
                .invalidate(0, tags(), Scope::All, true, 0, now_ms)
                .later
        };
        assert_eq!(soften(&mut stage, NOW_MS + 900), 1);
        if has_new_member {
            stage.store(0, b"new", attributes(5_000, NEVER));
        }
        // What changes something is told to the replicas.
        assert_eq!(
            soften(&mut stage, NOW_MS + 10),
            1 + usize::from(has_new_member)
        );
        assert_eq!(soften(&mut stage, NOW_MS + 500), 0);
        let (kept, _) = stage.server.kept(&entry).expect("it is stale");
        assert_eq!(kept.ends_ms, NOW_MS + 10 + 5_000);
    }
}

/// Epochs may run ahead of the wall clock, which was set back for instance; how long an entry may be served stale does
/// not.
#[test]
fn a_stale_window_begins_by_the_wall_clock_and_the_same_on_a_replica() {
    let (mut stage, mut replica) = (Stage::new(), Stage::new());
    let mut ends = Vec::new();
    stage.server.fills.observe(at(NOW_MS + 3_600_000));
    let copies = [&mut stage, &mut replica].map(|it| it.store(0, b"k", attributes(5_000, NEVER)));
    let done = stage
        .server
        .invalidate(0, tags(), Scope::All, true, 0, NOW_MS);
    assert!(done.ahead_ms >= 3_600_000, "{done:?}");
    let what = Invalidate {
        scope: Scope::All,
        soft: true,
        near: false,
        tags_from: 2,
    };
    let said = ReplInvalidate {
        epoch: done.epoch,
        ahead_ms: done.ahead_ms,
        what,
    };
    let words = [said.epoch.0, said.mode()].map(|number| number.to_string());
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    let heard = ReplInvalidate::parse(&words[..], 0).expect("what a server writes");
    assert_eq!(heard, said);
    (replica.server).invalidate_replicated(0, tags(), heard, &REPLICA);
    for (it, entry) in [&stage, &replica].into_iter().zip(copies) {
        ends.push(it.server.kept(&entry).expect("it is stale").0.ends_ms);
    }
    assert_eq!(ends, [NOW_MS + 5_000; 2]);
}

#[test]
fn of_a_few_entries_those_with_a_window_become_stale_and_the_others_go() {
    for (swr_ms, is_kept) in [(0, false), (1, true), (500, true), (5_000, true)] {
        let mut stage = Stage::new();
        stage.store(0, b"k", attributes(swr_ms, NEVER));
        let done = (stage.server).invalidate(0, tags(), Scope::All, true, 9, NOW_MS);
        let [task] = &done.at_once[..] else {
            panic!("{done:?}");
        };
        assert_eq!(
            matches!(task, Task::Shorten { .. }),
            is_kept,
            "{swr_ms} ms: {task:?}"
        );
    }
}

/// In the middle of a soft invalidation: the entry itself does not say yet that it is stale.
#[test]
fn what_is_stale_and_not_reclaimed_yet_is_stale_in_a_file() {
    let (mut stage, mut replica) = (Stage::new(), Stage::new());
    let entry = stage.store(0, b"k", attributes(5_000, NEVER));
    stage.soften();
    let (meta, with_value) = stage.server.saved(&entry, NOW_MS);
    assert!(with_value);
    let read = encode::decode(encode::VERSION, &meta).expect("as it was written");
    replica.server.load_begins(false);
    let mut copy = replica.load(read, false, &REPLICA).expect("it is kept");
    replica.server.arrived(0, b"k", Some((copy, None)), true);
    replica.server.load_ended();
    replica.server.started();
    replica.server.linked();
    // Also where the clock is behind.
    for now_ms in [NOW_MS - 10, NOW_MS] {
        let condition = replica.server.condition(&mut copy, || now_ms);
        assert_eq!(condition, Condition::Stale);
    }
    assert_eq!(copy.ends_ms(), NOW_MS + 5_000);
}
