//! Everything that an index does, in any order, with compaction between: pieces of a pass of any number between
//! changes of any number. After each burst the index agrees with the keyspace; at rest it takes little more than one
//! that was made with what is left, and when all is gone nothing. `MCACHE_SEED` replays a history.

#[path = "support/seed.rs"]
mod seed;

use std::collections::{BTreeMap, BTreeSet};

use mcache_core::entry::{Attributes, Entry, NEVER};
use mcache_core::epoch::Epoch;
use mcache_core::hash::Key;
use mcache_core::index::{Index, Scope, Task, Verdict};

const DBS: usize = 3;

type Keyspace = BTreeMap<Vec<u8>, Entry>;

struct World {
    rng: fastrand::Rng,
    index: Index,
    dbs: Vec<Keyspace>,
    /// What is being loaded beside.
    staged: Option<Vec<Keyspace>>,
    epoch: u64,
    made: u64,
    /// Tags that are drawn from.
    shared: u64,
    most: usize,
    listing: (usize, u64, BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>),
    pieces: u32,
}

/// Takes it out of index and keyspace.
fn free(entry: Entry) {
    // SAFETY: every caller has taken it out of both.
    unsafe { entry.free() }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let key = match rng.u8(..6) {
            0 => Key::worst(),
            _ => Key::new([rng.u64(..), rng.u64(..)]),
        };
        World {
            index: Index::with_key(key),
            rng,
            dbs: vec![Keyspace::new(); DBS],
            staged: None,
            epoch: 10,
            made: 0,
            shared: 100,
            most: 4,
            listing: Default::default(),
            pieces: 0,
        }
    }

    fn tags(&mut self) -> Vec<Vec<u8>> {
        let count = match self.rng.u8(..) {
            0 => self.rng.usize(30..600),
            1..20 => self.rng.usize(..40),
            _ => self.rng.usize(..=self.most),
        };
        let all: BTreeSet<Vec<u8>> = (0..count)
            .map(|n| match self.rng.u8(..3) {
                0 => format!("own {} {n}", self.made).into_bytes(),
                _ => format!("s{}", self.rng.u64(..self.shared)).into_bytes(),
            })
            .collect();
        let mut all = Vec::from_iter(all);
        self.rng.shuffle(&mut all);
        all
    }

    /// These tags are about to be carried. Those that no entry carries were gone for a while, and a listing may miss
    /// them.
    fn comes(&mut self, db: usize, tags: &[Vec<u8>]) {
        if db == self.listing.0 {
            for tag in tags {
                let name = std::iter::once(tag.as_slice());
                if self.index.count(db, name, Scope::All) == 0 {
                    self.listing.3.remove(tag);
                }
            }
        }
    }

    fn attributes(&mut self) -> Attributes {
        Attributes {
            birth: Epoch(self.epoch),
            manual: self.rng.u8(..4) == 0,
            swr_ms: self.rng.u32(..2) * 100,
            softened: false,
            ends_ms: NEVER,
        }
    }

    /// An entry under a key of its own, or in place of another one.
    fn set(&mut self, db: usize) {
        self.made += 1;
        let old = match self.rng.u8(..5) {
            0 => self.any(db),
            _ => None,
        };
        let (mut tags, attributes) = (self.tags(), self.attributes());
        if let Some(old) = old
            && self.rng.bool()
        {
            tags.truncate(2);
            let names = self.index.names(&old).map(<[u8]>::to_vec);
            let before: Vec<_> = names.filter(|name| !tags.contains(name)).collect();
            tags.splice(0..0, before);
        }
        let key = match old {
            Some(old) => old.key().to_vec(),
            None => self.made.to_be_bytes().to_vec(),
        };
        self.comes(db, &tags);
        let mut records = Vec::new();
        let names = tags.iter().map(Vec::as_slice);
        let old =
            old.filter(|old| self.index.verdict(&mut { *old }) == Verdict::Live || self.rng.bool());
        let like = old.filter(|old| self.index.verdict(&mut { *old }) == Verdict::Live);
        self.index
            .resolve_like(db, names, attributes.manual, like, &mut records);
        let new = Entry::new(&key, b"value", attributes, &records);
        match old {
            Some(old) => self.index.replace(db, old, new),
            None => {
                if let Some(old) = self.dbs[db].get(&key).copied() {
                    // Not in place: out and in.
                    self.index.unlink(db, old);
                    self.comes(db, &tags);
                    self.index.resolve(
                        db,
                        tags.iter().map(Vec::as_slice),
                        attributes.manual,
                        &mut records,
                    );
                    free(new);
                    let new = Entry::new(&key, b"value", attributes, &records);
                    self.index.link(db, new);
                    free(self.dbs[db].insert(key, new).unwrap());
                    return;
                }
                self.index.link(db, new);
            }
        }
        if let Some(old) = self.dbs[db].insert(key, new) {
            free(old);
        }
    }

    fn any(&mut self, db: usize) -> Option<Entry> {
        let from = self.rng.u64(..=self.made).to_be_bytes().to_vec();
        let all = &self.dbs[db];
        let found = all.range(from..).next().or_else(|| all.iter().next());
        found.map(|(_, entry)| *entry)
    }

    fn delete(&mut self, db: usize, entry: Entry) {
        self.dbs[db].remove(entry.key());
        self.index.unlink(db, entry);
        free(entry);
    }

    /// RENAME and MOVE; COPY and RESTORE do without the first half.
    fn relocate(&mut self, db: usize, copy: bool) {
        let Some(old) = self.any(db) else { return };
        let mut old = old;
        if self.index.verdict(&mut old) != Verdict::Live {
            return;
        }
        let names: Vec<Vec<u8>> = self.index.names(&old).map(<[u8]>::to_vec).collect();
        let to = self.rng.usize(..DBS);
        self.made += 1;
        let key = self.made.to_be_bytes().to_vec();
        let attributes = Attributes {
            birth: old.birth(),
            manual: old.is_manual(),
            swr_ms: 0,
            softened: false,
            ends_ms: NEVER,
        };
        let fresh = Entry::new(&key, b"value", attributes, &vec![0; names.len()]);
        if to != db {
            self.comes(to, &names);
        }
        if !copy {
            self.dbs[db].remove(old.key());
            self.index.unlink(db, old);
        }
        self.index
            .adopt(to, fresh, names.iter().map(Vec::as_slice), false);
        if !copy {
            free(old);
        }
        self.dbs[to].insert(key, fresh);
    }

    /// The allocator moves it.
    fn defrag(&mut self, db: usize) {
        let Some(old) = self.any(db) else { return };
        let new = Entry::new(old.key(), old.value(), old.attributes(), old.tags());
        // What stands before the key, places in the index among it.
        let before = old.key().as_ptr() as usize - old.as_raw() as usize;
        // SAFETY: both are allocations of the same shape.
        unsafe {
            std::ptr::copy_nonoverlapping(old.as_raw().cast::<u8>(), new.as_raw().cast(), before)
        };
        assert!(self.index.moved(db, old, new));
        self.dbs[db].insert(new.key().to_vec(), new);
        free(old);
    }

    fn flush(&mut self, db: usize) {
        self.index.discard(db);
        std::mem::take(&mut self.dbs[db])
            .into_values()
            .for_each(free);
    }

    fn stage(&mut self) {
        match self.staged.take() {
            None => {
                self.index.begin_staging();
                self.staged = Some(vec![Keyspace::new(); DBS]);
            }
            Some(staged) if self.rng.bool() => {
                self.index.complete_staging();
                let before = std::mem::replace(&mut self.dbs, staged);
                before
                    .into_iter()
                    .flat_map(Keyspace::into_values)
                    .for_each(free);
            }
            Some(staged) => {
                self.index.abort_staging();
                staged
                    .into_iter()
                    .flat_map(Keyspace::into_values)
                    .for_each(free);
            }
        }
    }

    fn load(&mut self, db: usize) {
        let (tags, attributes) = (self.tags(), self.attributes());
        self.made += 1;
        let key = self.made.to_be_bytes().to_vec();
        let entry = Entry::new(&key, b"value", attributes, &vec![0; tags.len()]);
        if self.staged.is_none() {
            self.comes(db, &tags);
        }
        self.index
            .adopt(db, entry, tags.iter().map(Vec::as_slice), true);
        let to = self.staged.as_mut().unwrap_or(&mut self.dbs);
        to[db].insert(key, entry);
    }

    fn invalidate(&mut self, db: usize) {
        self.epoch += 1;
        let names: Vec<Vec<u8>> = (0..self.rng.usize(1..4))
            .map(|_| format!("s{}", self.rng.u64(..self.shared)).into_bytes())
            .collect();
        let names = names.iter().map(Vec::as_slice);
        let scope = [Scope::All, Scope::Auto][self.rng.usize(..2)];
        match self.rng.bool() {
            true => _ = self.index.kill(db, names, scope),
            false => _ = self.index.soften(db, names, scope, Epoch(self.epoch)),
        }
    }

    fn reclaim(&mut self, most: usize) {
        for _ in 0..most {
            match self.index.next_task() {
                Some(Task::Delete { db, entry }) => self.delete(db, entry),
                Some(Task::Shorten { db, entry, .. }) => self.index.shortened(db, entry, 5_000),
                None => {
                    self.pieces += 1;
                    self.index.bury();
                }
            }
        }
    }

    fn check(&mut self) {
        for db in 0..DBS {
            let all = self.dbs[db]
                .iter()
                .map(|(key, entry)| (key.clone(), *entry));
            let all: Vec<_> = all.collect();
            self.index.verify(db, &all).unwrap();
        }
    }

    fn tags_of(&self, db: usize) -> BTreeSet<Vec<u8>> {
        let alive = |entry: &&Entry| self.index.verdict(&mut { **entry }) != Verdict::Dead;
        let all = self.dbs[db].values().filter(alive);
        all.flat_map(|entry| {
            self.index
                .names(entry)
                .map(<[u8]>::to_vec)
                .collect::<Vec<_>>()
        })
        .collect()
    }

    /// Goes on with a listing of tags; what was there before every burst was found when it ends.
    fn list(&mut self) {
        let (db, mut cursor, mut found, mut there) = std::mem::take(&mut self.listing);
        let now = self.tags_of(db);
        there.retain(|tag| now.contains(tag));
        for _ in 0..self.rng.u8(..4) {
            let (next, page) = self.index.scan_tags(db, cursor, 50, None);
            found.extend(page.into_iter().map(|(name, _)| name.to_vec()));
            cursor = next;
            if cursor == 0 {
                let missed = there.difference(&found).next();
                assert_eq!(missed, None, "a tag was missed");
                let db = self.rng.usize(..DBS);
                self.listing = (db, 0, BTreeSet::new(), self.tags_of(db));
                return;
            }
        }
        self.listing = (db, cursor, found, there);
    }

    fn comes_to_rest(&mut self) {
        if self.staged.is_some() {
            self.stage();
        }
        let mut pieces = 0;
        while self.index.has_pending() {
            self.reclaim(1);
            pieces += 1;
            assert!(pieces < 1_000_000, "it never ends");
        }
        self.check();
        let mut fresh = Index::new();
        let mut made = Vec::new();
        for (db, keyspace) in self.dbs.iter().enumerate() {
            for entry in keyspace.values() {
                let attributes = Attributes {
                    birth: Epoch(10),
                    manual: entry.is_manual(),
                    ..Attributes::HUSK
                };
                let names: Vec<&[u8]> = self.index.names(entry).collect();
                let copy = Entry::new(entry.key(), b"v", attributes, &vec![0; names.len()]);
                fresh.adopt(db, copy, names.iter().copied(), false);
                made.push(copy);
            }
        }
        let (used, least) = (self.index.sizes().index_bytes, fresh.sizes().index_bytes);
        made.into_iter().for_each(free);
        // Mostly it is less than twice as much; but a table shrinks at a third, and nothing else keeps more.
        assert!(
            used <= least * 3 + 24_576,
            "{used} bytes at rest, {least} fresh"
        );
    }

    fn step(&mut self) {
        let db = self.rng.usize(..DBS);
        match self.rng.u32(..1_000) {
            0..420 => self.set(db),
            420..620 => {
                if let Some(entry) = self.any(db) {
                    self.delete(db, entry);
                }
            }
            620..700 => {
                let copy = self.rng.bool();
                self.relocate(db, copy);
            }
            700..720 => self.defrag(db),
            720..735 => self.invalidate(db),
            735..900 => {
                let most = self.rng.usize(..30);
                self.reclaim(most);
            }
            900..902 => self.flush(db),
            902..905 => {
                let other = self.rng.usize(..DBS);
                self.index.swap(db, other);
                self.dbs.swap(db, other);
                // A listing is of a database, not of what was there.
                self.listing = Default::default();
            }
            905..907 => {
                self.stage();
                self.listing = Default::default();
            }
            907..960 => self.load(db),
            960 => {
                self.epoch += 1;
                if self.rng.u8(..8) == 0 {
                    self.index.raise_floor(Epoch(self.epoch));
                }
            }
            961 => {
                // Most of a database expires.
                let all: Vec<Entry> = self.dbs[db].values().copied().collect();
                let (one_in, at) = (self.rng.usize(2..300), self.rng.usize(..300));
                for (n, entry) in all.into_iter().enumerate() {
                    if n % one_in != at % one_in {
                        self.delete(db, entry);
                    }
                }
            }
            962 => {
                self.shared = self.rng.u64(1..3_000);
                self.most = self.rng.usize(1..12);
            }
            963..965 => {
                for _ in 0..self.rng.usize(..3_000) {
                    self.set(db);
                }
            }
            _ => {}
        }
    }
}

fn run(seed: u64, bursts: usize) -> u32 {
    println!("MCACHE_SEED={seed}");
    let mut world = World::new(seed);
    for burst in 0..bursts {
        for _ in 0..world.rng.usize(..200) {
            world.step();
        }
        world.check();
        world.list();
        if burst % 50 == 49 {
            world.comes_to_rest();
        }
    }
    for db in 0..DBS {
        for entry in world.dbs[db].values().copied().collect::<Vec<_>>() {
            world.delete(db, entry);
        }
    }
    world.comes_to_rest();
    world.index.settle();
    let sizes = world.index.sizes();
    assert_eq!((sizes.entries, sizes.tags, sizes.memberships), (0, 0, 0));
    // What is kept for the next command takes up to 3 KB of it.
    assert!(
        sizes.index_bytes < 8_192,
        "{} bytes left",
        sizes.index_bytes
    );
    world.pieces
}

#[test]
fn whatever_happens_between_its_pieces_compaction_changes_nothing_but_bytes() {
    if let Some(seed) = seed::replayed() {
        run(seed, 300);
        return;
    }
    let mut pieces = 0;
    for _ in 0..4 {
        pieces += run(fastrand::u64(..), 300);
    }
    assert!(pieces > 100, "{pieces} pieces");
}
