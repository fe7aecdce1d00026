//! A bug at any step of any change: the panic ends it half-way, the edge catches it and has the server repaired. From
//! then on nothing from before is served, nothing points to freed memory, every operation goes on, and once the
//! keyspace was searched the index agrees with it.
//!
//! Every kind of change is tried with a panic at its first counted step, its second, and so on until it ends without
//! one; each time the same history comes before, and another change comes between the panic and the search.

#[path = "support/seed.rs"]
mod seed;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;
use mcache_core::entry::{Attributes, Entry, NEVER};
use mcache_core::epoch::Epoch;
use mcache_core::fills::Fills;
use mcache_core::index::{Scope, Task};
use mcache_core::server::{
    Awaited, Condition, Edge, Renamed, Server, Store, Stored, softened_end_ms,
};
use mcache_core::work;

const NOW_MS: u64 = 1_000_000;
const DBS: usize = 2;
/// More than entries are searched for a tag one by one.
const TAGS: usize = 40;

struct Here;

impl Edge for Here {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }
    fn random(&self) -> u64 {
        0
    }
    fn is_primary(&self) -> bool {
        true
    }
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Set { many_tags: bool },
    Delete,
    Rename,
    Move,
    Copy,
    Invalidate { soft: bool },
    Shorten,
    Reclaim,
    Flush,
    Swap,
    Tidy,
    Floor,
}

const CHANGES: [Change; 14] = [
    Change::Set { many_tags: false },
    Change::Set { many_tags: true },
    Change::Delete,
    Change::Rename,
    Change::Move,
    Change::Copy,
    Change::Invalidate { soft: false },
    Change::Invalidate { soft: true },
    Change::Shorten,
    Change::Reclaim,
    Change::Flush,
    Change::Swap,
    Change::Tidy,
    Change::Floor,
];

/// What Redis holds, and does whether or not the module has a bug in a callback.
struct World {
    server: Server<u32>,
    keys: Vec<BTreeMap<Vec<u8>, Entry>>,
    rng: Rng,
}

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            server: Server::new(Fills::new(1, NOW_MS, 64), Awaited::kept()),
            keys: vec![BTreeMap::new(); DBS],
            rng: Rng::with_seed(seed),
        };
        for _ in 0..40 {
            let change = match world.rng.u8(..10) {
                0..7 => Change::Set {
                    many_tags: world.rng.u8(..4) == 0,
                },
                7 => Change::Invalidate {
                    soft: world.rng.bool(),
                },
                8 => Change::Delete,
                _ => Change::Rename,
            };
            world.change(change);
        }
        world
    }

    fn name(&mut self) -> Vec<u8> {
        format!("k{}", self.rng.u8(..12)).into_bytes()
    }

    fn taken(&mut self) -> Option<(usize, Vec<u8>, Entry)> {
        let db = self.rng.usize(..DBS);
        let key = self.name();
        let (key, entry) = self.keys[db].range(key..).next()?;
        Some((db, key.clone(), *entry))
    }

    fn tags(&mut self, most: usize) -> Vec<Vec<u8>> {
        let count = self.rng.usize(1..=most);
        let tag = |_| format!("t{}", self.rng.usize(..most)).into_bytes();
        (0..count).map(tag).collect()
    }

    /// The callback, and then Redis frees the entry.
    fn leave(server: &mut Server<u32>, db: usize, entry: Entry) -> Result<(), ()> {
        let left = caught(|| server.left(db, entry));
        if left.is_err() {
            server.repaired(NOW_MS);
        }
        // SAFETY: it is out of the keyspace.
        unsafe { entry.free() };
        left
    }

    /// Does a change as the edge does; an error if a bug was caught in it, which was repaired at once.
    fn change(&mut self, change: Change) -> bool {
        match change {
            Change::Set { many_tags } => self.set(many_tags),
            Change::Delete => {
                let Some((db, key, entry)) = self.taken() else {
                    return true;
                };
                self.keys[db].remove(&key);
                World::leave(&mut self.server, db, entry).is_ok()
            }
            Change::Rename | Change::Move => {
                let Some((db, key, entry)) = self.taken() else {
                    return true;
                };
                let (to_db, to) = match change {
                    Change::Rename => (db, self.name()),
                    _ => (1 - db, key.clone()),
                };
                if self.keys[to_db].contains_key(&to) {
                    return true;
                }
                self.keys[db].remove(&key);
                let mut fine = self.told(|s| s.left(db, entry));
                self.keys[to_db].insert(to.clone(), entry);
                let mut fresh = None;
                fine &= self.told(|s| match s.renamed(to_db, &to, entry) {
                    Renamed::Fresh(it) => fresh = Some(it),
                    Renamed::Known | Renamed::TooLong => {}
                });
                self.replace(to_db, to, entry, fresh);
                fine
            }
            Change::Copy => {
                let Some((db, _, entry)) = self.taken() else {
                    return true;
                };
                let to = self.name();
                if self.keys[db].contains_key(&to) {
                    return true;
                }
                let mut copy = None;
                let fine = self.told(|s| copy = s.duplicate(&to, &entry));
                let Some(copy) = copy else { return fine };
                self.keys[db].insert(to.clone(), copy);
                fine & self.told(|s| s.arrived(db, &to, Some((copy, None)), false))
            }
            Change::Invalidate { soft } => {
                let (db, tags) = (self.rng.usize(..DBS), self.tags(3));
                self.told(|s| {
                    let tags = tags.iter().map(|tag| &tag[..]);
                    _ = s.invalidate(db, tags, Scope::All, soft, 0, NOW_MS);
                })
            }
            Change::Shorten => {
                let Some((db, _, entry)) = self.taken() else {
                    return true;
                };
                self.told(|s| s.shortened(db, entry, NOW_MS + 5))
            }
            Change::Reclaim => self.reclaim(8).0,
            Change::Flush => {
                let db = self.rng.usize(..DBS);
                let fine = self.told(|s| _ = s.flushed(Some(db), NOW_MS));
                free_all(std::mem::take(&mut self.keys[db]).into_values());
                fine
            }
            Change::Swap => {
                let fine = self.told(|s| _ = s.swapped(0, 1, NOW_MS));
                self.keys.swap(0, 1);
                fine
            }
            Change::Tidy => self.told(|s| _ = s.tidy()),
            Change::Floor => {
                let epoch = Epoch((NOW_MS << 16) + 1);
                self.told(|s| s.floor_replicated(epoch, &Here))
            }
        }
    }

    fn set(&mut self, many_tags: bool) -> bool {
        let (db, key) = (self.rng.usize(..DBS), self.name());
        let tags = self.tags(if many_tags { TAGS } else { 3 });
        let birth = self.server.fills.tick(NOW_MS);
        let (swr_ms, manual) = (self.rng.u32(..2) * 100, self.rng.u8(..4) == 0);
        let present = self.keys[db].get(&key).copied();
        let mut stored = None;
        let fine = self.told(|s| {
            stored = Some(s.store(Store {
                db,
                key: &key,
                value: b"value",
                tags: tags.iter().map(|tag| &tag[..]),
                attributes: Attributes {
                    birth,
                    manual,
                    swr_ms,
                    softened: false,
                    ends_ms: NEVER,
                },
                present,
            }));
        });
        match (stored, present) {
            (Some(Stored::New(new)), _) => _ = self.keys[db].insert(key, new),
            (Some(Stored::Replaced(new)), Some(old)) => self.replace(db, key, old, Some(new)),
            _ => {}
        }
        fine
    }

    /// Has the server do something, as the guard at the boundary does.
    fn told(&mut self, body: impl FnOnce(&mut Server<u32>)) -> bool {
        let server = &mut self.server;
        let fine = caught(|| body(server)).is_ok();
        if !fine {
            self.server.repaired(NOW_MS);
        }
        fine
    }

    fn replace(&mut self, db: usize, key: Vec<u8>, old: Entry, new: Option<Entry>) {
        if let Some(new) = new {
            self.keys[db].insert(key, new);
            assert!(
                !old.is_linked(),
                "an entry is replaced that the index holds"
            );
            // SAFETY: it is out of the keyspace, and no index holds it.
            unsafe { old.free() };
        }
    }

    /// So many tasks, or all; whether all went well, and whether something is left.
    fn reclaim(&mut self, most: usize) -> (bool, bool) {
        let mut fine = true;
        for _ in 0..most {
            let mut task = None;
            fine &= self.told(|s| task = s.index.next_task());
            match task {
                None => {
                    let mut pending = true;
                    fine &= self.told(|s| pending = s.index.has_pending());
                    if !pending {
                        return (fine, false);
                    }
                    fine &= self.told(|s| _ = s.tidy());
                }
                Some(Task::Delete { db, entry }) => {
                    // SAFETY: the index hands out what the keyspace holds.
                    let key = entry.key().to_vec();
                    let held = self.keys[db].remove(&key);
                    assert_eq!(held, Some(entry), "the keyspace does not hold it");
                    fine &= World::leave(&mut self.server, db, entry).is_ok();
                }
                Some(Task::Shorten { db, entry, since }) => {
                    let ends_ms = softened_end_ms(&entry, since);
                    fine &= self.told(|s| s.shortened(db, entry, ends_ms));
                }
            }
        }
        let mut pending = true;
        fine &= self.told(|s| pending = s.index.has_pending());
        (fine, pending)
    }

    /// What the edge does from the keyspace's beginning to its end.
    fn search(&mut self) {
        let number = self.server.search().expect("a search after a bug");
        for db in 0..DBS {
            let all: Vec<_> = self.keys[db].iter().map(|(k, e)| (k.clone(), *e)).collect();
            for (key, entry) in all {
                let husk = self.server.astray(db, &key, entry);
                self.replace(db, key, entry, husk);
            }
        }
        self.server.search_ended(number);
        assert_eq!(self.server.search(), None);
    }

    fn check(&mut self) {
        for db in 0..DBS {
            let all: Vec<_> = self.keys[db].iter().map(|(k, e)| (k.clone(), *e)).collect();
            self.server
                .index
                .verify(db, &all)
                .expect("the index agrees with the keyspace");
        }
    }

    fn none_is_served(&mut self) {
        for entry in self.keys.iter().flat_map(BTreeMap::values) {
            let condition = self.server.condition(&mut entry.clone(), || NOW_MS);
            assert_eq!(condition, Condition::Dead);
        }
    }

    fn end(mut self) {
        for keys in std::mem::take(&mut self.keys) {
            free_all(keys.into_values());
        }
    }
}

fn free_all(entries: impl Iterator<Item = Entry>) {
    for entry in entries {
        // SAFETY: it is out of the keyspace.
        unsafe { entry.free() };
    }
}

fn caught(body: impl FnOnce()) -> Result<(), ()> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|panic| {
        let asked_for = panic.downcast_ref::<&str>() == Some(&"a bug, as was asked for");
        assert!(asked_for, "a panic that was not asked for");
    })
}

/// One panic in one change; false if the change ended before it came.
fn one(seed: u64, change: Change, next: Change, at: u64) -> bool {
    let mut world = World::new(seed);
    world.check();
    work::panic_after(at);
    let fine = world.change(change);
    if work::panic_no_more() {
        assert!(fine);
        world.check();
        world.end();
        return false;
    }
    assert!(!fine);
    if !matches!(change, Change::Rename | Change::Move | Change::Reclaim) {
        world.none_is_served();
    }
    // On what the index does not name.
    assert!(world.change(next), "the server goes on");
    world.search();
    world.check();
    while world.reclaim(1_000).1 {}
    world.check();
    // What was stored since is there, and no other.
    let fresh = |entry: &Entry| entry.birth() >= world.server.index.floor();
    assert!(world.keys.iter().flat_map(BTreeMap::values).all(fresh));
    for change in CHANGES {
        assert!(world.change(change), "the server goes on");
        world.check();
    }
    world.end();
    true
}

#[test]
fn a_bug_at_any_step_of_any_change_leaves_nothing_that_is_wrong() {
    if !cfg!(debug_assertions) {
        return;
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.to_string().contains("as was asked for") {
            hook(panic);
        }
    }));
    let mut seeds = Rng::with_seed(seed::seed());
    let mut caught = [0; CHANGES.len()];
    for _ in 0..6 {
        let seed = seeds.u64(..);
        for (n, change) in CHANGES.into_iter().enumerate() {
            let mut at = 1;
            while one(seed, change, CHANGES[(n + at as usize) % CHANGES.len()], at) {
                caught[n] += 1;
                at += 1;
            }
        }
    }
    println!("bugs caught in each change: {caught:?}");
    assert!(caught.iter().sum::<u32>() > 500, "{caught:?}");
}

/// What the keyspace holds from before carries numbers of entries and tags that mean others by now.
#[test]
fn numbers_of_the_index_before_are_not_believed() {
    let mut seeds = Rng::with_seed(seed::seed());
    for _ in 0..200 {
        let mut world = World::new(seeds.u64(..));
        world.server.repaired(NOW_MS);
        for _ in 0..60 {
            let change = match world.rng.u8(..8) {
                0..3 => Change::Set { many_tags: false },
                3 => Change::Invalidate { soft: true },
                4 | 5 => Change::Shorten,
                _ => CHANGES[world.rng.usize(..CHANGES.len())],
            };
            assert!(world.change(change));
        }
        world.search();
        world.check();
        while world.reclaim(1_000).1 {}
        world.check();
        world.end();
    }
}

/// Renamed, moved or in a database that is exchanged: what the search has not seen stands where it has been.
#[test]
fn what_moves_while_the_keyspace_is_searched_is_found() {
    let mut seeds = Rng::with_seed(seed::seed());
    for change in [Change::Rename, Change::Move, Change::Swap].repeat(10) {
        let mut world = World::new(seeds.u64(..));
        world.server.repaired(NOW_MS);
        let number = world.server.search().expect("a search");
        let before = world.keys.clone();
        assert!(world.change(change));
        let moved: Vec<_> = (0..DBS)
            .flat_map(|db| {
                world.keys[db]
                    .iter()
                    .map(move |(key, entry)| (db, key, *entry))
            })
            .filter(|(db, key, _)| !before[*db].contains_key(*key))
            .collect();
        match change {
            // It begins again, from the first database on.
            Change::Swap => assert_ne!(world.server.search(), Some(number)),
            // It was dealt with at once: a husk stands there.
            _ => {
                for (db, key, entry) in moved {
                    let listed = world.server.index.lists(db, entry.id(), entry);
                    assert!(listed, "{} is not found", key.escape_ascii());
                }
            }
        }
        world.search();
        world.check();
        world.end();
    }
}
