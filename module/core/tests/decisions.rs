//! Decisions of a server that neither model nor simulation comes to: who may not fill, what a file, an exchange or a
//! promotion leaves of fills and entries, where a lease ends. Each was found by a mutant that no test noticed.

use std::sync::Mutex;

use mcache_core::command::{Invalidate, OnlyIf, ReplInvalidate, Set};
use mcache_core::encode::Decoded;
use mcache_core::entry::{Attributes, Entry, NEVER};
use mcache_core::epoch::{Epoch, Token};
use mcache_core::fills::Fills;
use mcache_core::index::{Scope, Task};
use mcache_core::lease::Waiter;
use mcache_core::server::{
    Alarm, Awaited, Condition, Edge, Fetched, Fetcher, Renamed, Server, Store, Stored,
};

const NOW_MS: u64 = 1_000_000;

struct Role {
    is_primary: bool,
}

const PRIMARY: Role = Role { is_primary: true };
const REPLICA: Role = Role { is_primary: false };

impl Edge for Role {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }
    fn random(&self) -> u64 {
        0
    }
    fn is_primary(&self) -> bool {
        self.is_primary
    }
}

/// A server, and the entries that its keyspace owns.
struct Stage {
    server: Server<u32>,
    entries: Vec<Entry>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for entry in self.entries.drain(..) {
            // SAFETY: the index goes away with the server and does not look at its entries.
            unsafe { entry.free() };
        }
    }
}

fn at(ms: u64) -> Epoch {
    Epoch(ms << 16)
}

fn attributes(swr_ms: u32, ends_ms: u64) -> Attributes {
    Attributes {
        birth: at(NOW_MS),
        manual: false,
        swr_ms,
        softened: false,
        ends_ms,
    }
}

fn tags() -> impl Iterator<Item = &'static [u8]> + Clone {
    std::iter::once(&b"t"[..])
}

/// A server keeps it for good. What is named here is no leak to AddressSanitizer.
static KEPT: Mutex<Vec<&Awaited>> = Mutex::new(Vec::new());

impl Stage {
    fn new() -> Self {
        let awaited: &Awaited = Box::leak(Box::new(Awaited::new()));
        KEPT.lock().expect("a push does not panic").push(awaited);
        Stage {
            server: Server::new(Fills::new(7, NOW_MS, 64), awaited),
            entries: Vec::new(),
        }
    }

    fn store(&mut self, db: usize, key: &[u8], attributes: Attributes) -> Entry {
        let stored = self.server.store(Store {
            db,
            key,
            value: b"v",
            tags: tags(),
            attributes,
            present: None,
        });
        let Stored::New(entry) = stored else {
            panic!("{stored:?}")
        };
        self.entries.push(entry);
        entry
    }

    fn admit(&mut self, token: Option<Token>, ttl_ms: u64, swr_ms: u32) -> Option<Attributes> {
        let set = Set {
            ttl_ms: Some(ttl_ms),
            swr_ms,
            token,
            only_if: OnlyIf::Always,
            manual: false,
            near: None,
            tags_from: 0,
        };
        let admitted = self.server.admit(&set, b"k", tags(), None, NOW_MS)?;
        assert_eq!(admitted.deadline_ms, Some(admitted.attributes.ends_ms));
        Some(admitted.attributes)
    }

    fn condition(&self, mut entry: Entry) -> Condition {
        self.server.condition(&mut entry, || NOW_MS)
    }

    fn fetch(&mut self, client: u64, may_fill: bool, max_waiters: usize) -> Fetched {
        let caller = Fetcher {
            db: 0,
            key: b"k",
            client,
            lease_ms: 5_000,
            early_ms: 0,
            may_wait: true,
            max_waiters,
        };
        self.server
            .fetch(&caller, None, &PRIMARY, || may_fill, || ())
    }

    fn park(&mut self, client: u64, until_ms: u64) {
        let waiter = Waiter {
            handle: client as u32,
            client,
            lease_ms: 5_000,
            until_ms,
        };
        assert!(self.server.park(0, b"k", waiter), "the lease is held");
    }

    /// As Redis asks for a value that it loads, from a file whose entries say when they end, or do not.
    fn load(&mut self, decoded: Decoded<'_>, drop: bool, role: &Role) -> Option<Entry> {
        let entry = self.server.load(b"k", b"v", Some(decoded), drop, role)?;
        self.entries.push(entry);
        Some(entry)
    }

    fn soften(&mut self) {
        let done = self
            .server
            .invalidate(0, tags(), Scope::All, true, 0, NOW_MS);
        assert_eq!(done.later, 1);
    }
}

fn decoded(attributes: Attributes, says_its_end: bool) -> Decoded<'static> {
    Decoded {
        attributes,
        says_its_end,
        saved: Token {
            incarnation: 7,
            epoch: at(NOW_MS),
        },
        tags: tags().collect(),
    }
}

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
        let Stored::New(entry) = stage.server.store(Store {
            db: 0,
            key: b"k",
            value: b"v",
            tags: [&b"t"[..], b"u"].into_iter(),
            attributes: attributes(5_000, NEVER),
            present: None,
        }) else {
            panic!("there was none");
        };
        stage.entries.push(entry);
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
    let Stored::New(entry) = stage.server.store(Store {
        db: 0,
        key: b"k",
        value: b"v",
        tags: [&b"t"[..], b"u"].into_iter(),
        attributes: attributes(5_000, NEVER),
        present: None,
    }) else {
        panic!("there was none");
    };
    stage.entries.push(entry);
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
