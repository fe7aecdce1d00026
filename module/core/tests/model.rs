//! The index against a naive model: random operations on a keyspace that behaves as Redis's does, and after each step
//! the same answers. A failing seed is printed; `MCACHE_SEED` replays it.

#[path = "support/seed.rs"]
mod seed;

use std::collections::{BTreeMap, BTreeSet};

use mcache_core::entry::{Attributes, Entry, NEVER};
use mcache_core::epoch::Epoch;
use mcache_core::fills::Fills;
use mcache_core::hash::Key;
use mcache_core::index::{Scope, Task, Verdict};
use mcache_core::server::{Awaited, Renamed, Server, Store, Stored};

const DBS: usize = 3;
const TAGS: usize = 90;

#[derive(Clone, Debug, PartialEq)]
struct Model {
    tags: BTreeSet<Vec<u8>>,
    manual: bool,
    swr: bool,
    soft: bool,
    dead: bool,
    value: Vec<u8>,
}

/// The index, the keyspace that owns the entries, and what must be true of both.
struct World {
    rng: fastrand::Rng,
    server: Server<u32>,
    keyspace: Vec<BTreeMap<Vec<u8>, Entry>>,
    model: Vec<BTreeMap<Vec<u8>, Model>>,
    epoch: u64,
    listing: Listing,
}

/// Listings of the tags of a database and of the entries of a tag that are gone on with from time to time.
#[derive(Default)]
struct Listing {
    db: usize,
    cursor: u64,
    found: BTreeSet<Vec<u8>>,
    /// The tags that entries, live or soft, have carried all the time.
    there: BTreeSet<Vec<u8>>,
    tag: Vec<u8>,
    entries_cursor: u64,
    entries_found: BTreeSet<Vec<u8>>,
    /// The live entries that have carried the tag all the time, if at all overwritten then by SET.
    entries_there: BTreeMap<Vec<u8>, (Entry, bool)>,
}

fn tag_name(n: usize) -> Vec<u8> {
    [b"tag\0", n.to_string().as_bytes()].concat()
}

impl Model {
    fn verdict(&self) -> &'static str {
        match (self.dead, self.soft) {
            (true, _) => "dead",
            (_, true) => "soft",
            _ => "live",
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        // What the index answers does not depend on its key, not even where all names collide.
        let key = match rng.u8(..4) {
            0 => Key::worst(),
            _ => Key::new([rng.u64(..), rng.u64(..)]),
        };
        World {
            rng,
            server: Server::new(Fills::with_key(key, 1, 0, 64), Awaited::kept()),
            keyspace: vec![BTreeMap::new(); DBS],
            model: vec![BTreeMap::new(); DBS],
            epoch: 10,
            listing: Listing::default(),
        }
    }

    fn db(&mut self) -> usize {
        self.rng.usize(..DBS)
    }

    fn key(&mut self) -> Vec<u8> {
        format!("key:{}", self.rng.u8(..60)).into_bytes()
    }

    fn tag(&mut self) -> Vec<u8> {
        // Squared: a few tags are on nearly everything, most on little.
        let n = self.rng.usize(..TAGS) * self.rng.usize(..TAGS) / TAGS;
        tag_name(n)
    }

    fn tags(&mut self) -> Vec<Vec<u8>> {
        match self.rng.u8(..) {
            // Many, in any order: entries whose places in the member lists are noted.
            0..8 => {
                let mut all: Vec<_> = (0..TAGS).map(tag_name).collect();
                self.rng.shuffle(&mut all);
                all.truncate(self.rng.usize(30..TAGS));
                all
            }
            8..20 => (0..self.rng.usize(..60)).map(|_| self.tag()).collect(),
            _ => (0..self.rng.usize(..5)).map(|_| self.tag()).collect(),
        }
    }

    fn set(&mut self) {
        let (db, key, tags) = (self.db(), self.key(), self.tags());
        let (manual, swr) = (self.rng.u8(..) < 60, self.rng.bool());
        let value = vec![7; self.rng.usize(..40)];
        let attributes = Attributes {
            birth: Epoch(self.epoch),
            manual,
            swr_ms: u32::from(swr) * 100,
            softened: false,
            ends_ms: NEVER,
        };
        let mut tags = tags;
        if let Some(model) = self.model[db].get(&key)
            && self.rng.bool()
        {
            // An overwrite mostly carries what was there, or nearly.
            tags.retain(|_| self.rng.u8(..) < 30);
            tags.splice(0..0, model.tags.iter().cloned());
        }
        let present = self.keyspace[db].get(&key).copied();
        let done = self.server.store(Store {
            db,
            key: &key,
            value: &value,
            tags: tags.iter().map(Vec::as_slice),
            attributes,
            present,
        });
        let stored = match (done, present) {
            (Stored::InPlace, Some(old)) => old,
            (Stored::New(new), None) => new,
            (Stored::Replaced(new), Some(old)) => {
                // SAFETY: out of the index, and out of the keyspace below.
                unsafe { old.free() };
                new
            }
            _ => panic!("{done:?} over {present:?}"),
        };
        self.keyspace[db].insert(key.clone(), stored);
        self.model[db].insert(
            key,
            Model {
                tags: tags.into_iter().collect(),
                manual,
                swr,
                soft: false,
                dead: false,
                value,
            },
        );
    }

    /// DEL, expiry and eviction look the same from here.
    fn delete(&mut self, db: usize, key: &[u8]) {
        self.model[db].remove(key);
        if let Some(entry) = self.keyspace[db].remove(key) {
            self.server.left(db, entry);
            // SAFETY: out of keyspace and index.
            unsafe { entry.free() };
        }
    }

    /// RENAME and MOVE: out under the old name, announced under the new one.
    fn relocate(&mut self) {
        let (from, to) = (self.db(), self.db());
        let (old_key, new_key) = (self.key(), self.key());
        if (from, &old_key) == (to, &new_key) || !self.keyspace[from].contains_key(&old_key) {
            return;
        }
        self.delete(to, &new_key);
        let entry = self.keyspace[from].remove(&old_key).unwrap();
        let mut model = self.model[from].remove(&old_key).unwrap();
        self.server.left(from, entry);
        let Renamed::Fresh(fresh) = self.server.renamed(to, &new_key, entry) else {
            panic!("it left the index under its old name");
        };
        if model.verdict() == "soft" {
            // From here on a mark in the entry says so.
            assert!(fresh.is_softened() && fresh.ends_ms() < NEVER);
            model.soft = false;
        }
        // SAFETY: the old one is out of index and keyspace.
        unsafe { entry.free() };
        if model.dead {
            (model.tags, model.value) = (BTreeSet::new(), Vec::new());
            model.soft = false;
        }
        self.keyspace[to].insert(new_key.clone(), fresh);
        self.model[to].insert(new_key, model);
    }

    fn invalidate(&mut self) {
        let (db, auto, soft) = (self.db(), self.rng.bool(), self.rng.bool());
        let scope = if auto { Scope::Auto } else { Scope::All };
        let tags: BTreeSet<Vec<u8>> = (0..self.rng.usize(1..4)).map(|_| self.tag()).collect();
        self.epoch += 1;
        let spared = |m: &Model| m.dead || auto && m.manual;
        let hit = |m: &Model| !spared(m) && !m.tags.is_disjoint(&tags);
        let carriers = self
            .server
            .index
            .carriers(db, tags.iter().map(Vec::as_slice), scope);
        let found: BTreeSet<Vec<u8>> = carriers.iter().map(|e| e.key().to_vec()).collect();
        let expected: BTreeSet<Vec<u8>> = self.model[db]
            .iter()
            .filter(|(_, m)| hit(m))
            .map(|(k, _)| k.clone())
            .collect();
        assert_eq!(found, expected);
        let names = tags.iter().map(Vec::as_slice);
        if soft {
            self.server
                .index
                .soften(db, names, scope, Epoch(self.epoch));
        } else {
            self.server.index.kill(db, names, scope);
        }
        for model in self.model[db].values_mut().filter(|m| hit(m)) {
            model.dead = !soft || !model.swr;
            model.soft = !model.dead;
        }
    }

    fn reclaim(&mut self, most: usize) {
        for _ in 0..most {
            match self.server.index.next_task() {
                None => break,
                Some(Task::Delete { db, entry }) => {
                    let key = entry.key().to_vec();
                    assert!(self.model[db][&key].dead, "to be deleted though not dead");
                    self.delete(db, &key);
                }
                Some(Task::Shorten { db, entry, .. }) => {
                    let model = self.model[db].get_mut(entry.key()).unwrap();
                    assert_eq!(model.verdict(), "soft");
                    // From here on a mark in the entry says so, and its tags are live.
                    model.soft = false;
                    self.server.shortened(db, entry, NEVER);
                    assert!(entry.is_softened());
                }
            }
        }
    }

    fn flush(&mut self) {
        let db = self.db();
        self.server.index.discard(db);
        self.model[db].clear();
        for (_, entry) in std::mem::take(&mut self.keyspace[db]) {
            // SAFETY: the index has forgotten the whole database.
            unsafe { entry.free() };
        }
    }

    fn check(&mut self) {
        for db in 0..DBS {
            let listed: Vec<_> = self.keyspace[db]
                .iter()
                .map(|(k, e)| (k.clone(), *e))
                .collect();
            self.server.index.verify(db, &listed).unwrap();
            for (key, mut entry) in listed {
                let model = &self.model[db][&key];
                let verdict = match self.server.index.verdict(&mut entry) {
                    Verdict::Live => "live",
                    Verdict::Soft(_) => "soft",
                    Verdict::Dead => "dead",
                };
                assert_eq!(verdict, model.verdict(), "{}", key.escape_ascii());
                assert_eq!(self.server.index.why_dead(&entry).is_some(), model.dead);
                assert_eq!(entry.value(), model.value);
                let names: BTreeSet<Vec<u8>> = self
                    .server
                    .index
                    .names(&entry)
                    .map(<[u8]>::to_vec)
                    .collect();
                assert_eq!(names, model.tags);
            }
            self.check_scans(db);
        }
    }

    fn check_scans(&mut self, db: usize) {
        let mut expected: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for (key, model) in self.model[db].iter().filter(|(_, m)| m.verdict() == "live") {
            for tag in &model.tags {
                expected.entry(tag.clone()).or_default().insert(key.clone());
            }
        }
        let (mut cursor, mut tags) = (0, BTreeSet::new());
        loop {
            let (next, page) = self.server.index.scan_tags(db, cursor, 7, None);
            for (name, _) in page {
                assert!(tags.insert(name.to_vec()), "a tag was returned twice");
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        // A live record may have dead members (dead by another tag), so tags can be more than the live entries show.
        assert!(expected.keys().all(|tag| tags.contains(tag)));
        for (tag, keys) in expected {
            let (mut cursor, mut found) = (0, BTreeSet::new());
            loop {
                let (next, page) = self.server.index.scan_entries(db, &tag, cursor, 3);
                found.extend(page.iter().map(|e| e.key().to_vec()));
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
            // Entries that are soft by another tag may be listed, too.
            assert!(found.is_superset(&keys));
            assert!(found.iter().all(|key| !self.model[db][key].dead));
        }
    }
}

impl World {
    fn live(&self, db: usize) -> impl Iterator<Item = (&Vec<u8>, &Model)> {
        let all = self.model[db].iter();
        all.filter(|(_, model)| model.verdict() == "live")
    }

    fn tags_there(&self, db: usize) -> BTreeSet<Vec<u8>> {
        let all = self.model[db].values().filter(|model| !model.dead);
        all.flat_map(|model| model.tags.clone()).collect()
    }

    fn entries_there(&self, db: usize, tag: &[u8]) -> BTreeMap<Vec<u8>, (Entry, bool)> {
        self.live(db)
            .filter(|(_, model)| model.tags.contains(tag))
            .map(|(key, model)| (key.clone(), (self.keyspace[db][key], model.manual)))
            .collect()
    }

    /// After each step: what is not there any more need not be found. Some pages further, what was there was found.
    fn go_on_listing(&mut self, was_set: bool, was_swapped: bool) {
        let mut listing = std::mem::take(&mut self.listing);
        let now = self.tags_there(listing.db);
        listing.there.retain(|tag| now.contains(tag));
        let now = self.entries_there(listing.db, &listing.tag);
        listing.entries_there.retain(|key, (entry, manual)| {
            now.get(key).is_some_and(|(other, other_manual)| {
                let stays = other == entry || was_set && manual == other_manual;
                *entry = *other;
                stays
            })
        });
        if was_swapped {
            listing.entries_there.clear();
        }
        if self.rng.u8(..4) == 0 {
            let (next, page) = self
                .server
                .index
                .scan_tags(listing.db, listing.cursor, 9, None);
            listing
                .found
                .extend(page.iter().map(|(name, _)| name.to_vec()));
            listing.cursor = next;
            let at = listing.entries_cursor;
            let (next, page) = self
                .server
                .index
                .scan_entries(listing.db, &listing.tag, at, 2);
            listing
                .entries_found
                .extend(page.iter().map(|entry| entry.key().to_vec()));
            listing.entries_cursor = next;
            if listing.entries_cursor == 0 {
                for key in listing.entries_there.keys() {
                    assert!(
                        listing.entries_found.contains(key),
                        "{} was missed",
                        key.escape_ascii()
                    );
                }
                listing.tag = self.tag();
                listing.entries_found.clear();
                listing.entries_there = self.entries_there(listing.db, &listing.tag);
            }
            if listing.cursor == 0 {
                for tag in &listing.there {
                    assert!(
                        listing.found.contains(tag),
                        "{} was missed",
                        tag.escape_ascii()
                    );
                }
                listing.found.clear();
                listing.there = self.tags_there(listing.db);
            }
        }
        self.listing = listing;
    }
}

fn run(seed: u64, steps: usize) {
    println!("seed {seed}");
    let mut world = World::new(seed);
    for step in 0..steps {
        let what = world.rng.u8(..100);
        match what {
            0..45 => world.set(),
            45..60 => {
                let (db, key) = (world.db(), world.key());
                world.delete(db, &key);
            }
            60..72 => world.relocate(),
            72..84 => world.invalidate(),
            84..94 => {
                let most = world.rng.usize(..20);
                world.reclaim(most);
            }
            94..96 => world.flush(),
            96..98 => {
                let (a, b) = (world.db(), world.db());
                world.server.index.swap(a, b);
                world.keyspace.swap(a, b);
                world.model.swap(a, b);
            }
            98 => while world.server.index.bury() {},
            _ => {
                world.epoch += 1;
                if step % 7 == 0 {
                    world.server.index.raise_floor(Epoch(world.epoch));
                    world
                        .model
                        .iter_mut()
                        .flat_map(BTreeMap::values_mut)
                        .for_each(|m| m.dead = true);
                }
            }
        }
        world.check();
        world.go_on_listing(what < 45, (96..98).contains(&what));
    }
    // Everything goes, and with it all memory but the databases' own few bytes.
    for db in 0..DBS {
        let keys: Vec<_> = world.keyspace[db].keys().cloned().collect();
        keys.iter().for_each(|key| world.delete(db, key));
    }
    world.server.index.settle();
    while world.server.index.has_pending() {
        assert_eq!(world.server.index.next_task(), None);
        world.server.index.bury();
    }
    let sizes = world.server.index.sizes();
    assert_eq!(
        (
            sizes.entries,
            sizes.tags,
            sizes.memberships,
            sizes.payload_bytes
        ),
        (0, 0, 0, 0)
    );
    // What is kept for the next command takes up to 4 KB of it, a database without entries less than 1.
    assert!(
        sizes.index_bytes < 4_096 + DBS * 1_024,
        "{} bytes left in an empty index",
        sizes.index_bytes
    );
}

#[test]
fn the_index_agrees_with_a_naive_model() {
    if let Some(seed) = seed::replayed() {
        return run(seed, 3_000);
    }
    for _ in 0..20 {
        run(fastrand::u64(..), 1_500);
    }
}
