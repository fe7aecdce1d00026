//! The tag index: which entries carry which tag, exactly, at every moment.
//!
//! The keyspace is the truth and the index follows it: the edge calls [`Index::link`] when an entry enters the keyspace
//! and [`Index::unlink`] before it leaves. Nothing here deletes a key; dead entries are handed out by
//! [`Index::next_dead`] to whoever does, at a pace of their choosing.
//!
//! Invariants (checked entry by entry in [`Index::verify`]):
//! - an entry is in the slab of its database under its id, and for every tag the record's member at the entry's
//!   position is that id;
//! - a record in the table of names has at least one member, except for the ones in limbo;
//! - a dead record is in no table of names and in exactly one reclaim queue.

use std::collections::VecDeque;

use hashbrown::HashTable;

use crate::entry::{Entry, UNLINKED};
use crate::epoch::Epoch;
use crate::slab::Slab;
use crate::tags::{Class, Names, Tags, hash};

/// One database.
#[derive(Default)]
struct Db {
    names: Names,
    entries: Entries,
    /// Dead records whose members are not yet reclaimed.
    dead: VecDeque<u32>,
    /// Ids of entries that were dead when they arrived.
    condemned: Vec<u32>,
    /// Where the search for entries below the floor goes on.
    sweep: Option<u32>,
    memberships: usize,
    payload_bytes: usize,
}

struct Entries(Slab<Entry>);

impl Default for Entries {
    fn default() -> Self {
        Entries(Slab::new())
    }
}

/// What is left of a flushed database: records to be freed a piece at a time.
struct Discarded {
    shards: Vec<HashTable<u32>>,
    dead: VecDeque<u32>,
}

/// Why an entry is not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It was born before the floor: loaded at a start with `on-restart drop`, or kept across a promotion.
    Floor,
    /// A tag was invalidated; the record of that tag.
    Tag(u32),
}

/// Numbers for INFO. Counts are of entries in the keyspace, dead ones included until they are reclaimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Sizes {
    pub entries: usize,
    pub tags: usize,
    pub memberships: usize,
    pub payload_bytes: usize,
    pub index_bytes: usize,
    pub pending_reclaim: usize,
}

/// A page of a scan and the cursor of the next one; cursor 0 is both the beginning and the end.
pub type Page<T> = (u64, Vec<T>);

/// The index of all databases of a server.
pub struct Index {
    tags: Tags,
    dbs: Vec<Db>,
    /// The data set that a replica loads beside the one it serves.
    staging: Option<Vec<Db>>,
    graveyard: Vec<Discarded>,
    /// Records that lost their last member with the most recent unlink. RENAME and MOVE take an entry out under the old
    /// name before they announce the new one, so an empty record keeps its name until the next change.
    limbo: Vec<u32>,
    limbo_db: usize,
    /// Dead records in all databases; 0 means that no entry can be dead by a tag.
    dead_records: usize,
    /// Counts invalidations that left members to reclaim. An entry that was alive at this count still is.
    kills: u32,
    floor: Epoch,
}

impl Default for Index {
    fn default() -> Self {
        Index::new()
    }
}

impl Index {
    /// An empty index.
    pub fn new() -> Self {
        Index {
            tags: Tags::new(),
            dbs: Vec::new(),
            staging: None,
            graveyard: Vec::new(),
            limbo: Vec::new(),
            limbo_db: 0,
            dead_records: 0,
            kills: 0,
            // Above zero: an entry born at `Epoch::ZERO` is dead from the start.
            floor: Epoch(1),
        }
    }

    fn db(&mut self, db: usize) -> &mut Db {
        grow(&mut self.dbs, db)
    }

    // ---- the way in and out --------------------------------------------------------------------------------------

    /// Finds or makes the records of the named tags, each once, in the order given; `records` is cleared first.
    ///
    /// O(tags). What it makes has no members yet: [`Index::link`] must follow.
    pub fn resolve<'a>(
        &mut self,
        db: usize,
        names: impl Iterator<Item = &'a [u8]>,
        manual: bool,
        records: &mut Vec<u32>,
    ) {
        self.settle();
        let tags = &mut self.tags;
        resolve_in(
            tags,
            &mut grow(&mut self.dbs, db).names,
            names,
            manual,
            records,
        );
    }

    /// Puts an entry into the index. O(tags).
    ///
    /// # Safety
    /// The entry is alive, unlinked, and carries record ids of this index resolved for this database; it stays alive
    /// until [`Index::unlink`] or [`Index::discard`].
    pub unsafe fn link(&mut self, db: usize, entry: Entry) {
        let kills = self.kills;
        let floor = self.floor;
        link_in(&mut self.tags, grow(&mut self.dbs, db), entry, kills, floor);
    }

    /// Puts an entry into the index whose tags are known by name only: loaded, restored, copied or renamed. O(tags).
    ///
    /// While a second data set is being loaded and `loading` is true, it goes there.
    ///
    /// # Safety
    /// As for [`Index::link`]; the names are all different and as many as the entry was made with tags.
    pub unsafe fn adopt<'a>(
        &mut self,
        db: usize,
        mut entry: Entry,
        names: impl Iterator<Item = &'a [u8]>,
        loading: bool,
    ) {
        self.settle();
        let staging = if loading { self.staging.as_mut() } else { None };
        let home = grow(staging.unwrap_or(&mut self.dbs), db);
        let mut records = Vec::new();
        resolve_in(
            &mut self.tags,
            &mut home.names,
            names,
            entry.is_manual(),
            &mut records,
        );
        entry.fill_tags(&records);
        link_in(&mut self.tags, home, entry, self.kills, self.floor);
    }

    /// Takes an entry out of the index. O(tags). Unlinked entries are left alone.
    ///
    /// # Safety
    /// The entry is alive.
    pub unsafe fn unlink(&mut self, db: usize, mut entry: Entry) {
        self.settle();
        let id = entry.id();
        let Some(home) = self.dbs.get_mut(db) else {
            return;
        };
        if id == UNLINKED || home.entries.0.get(id) != Some(&entry) {
            return;
        }
        home.entries.0.remove(id);
        entry.set_id(UNLINKED);
        home.payload_bytes -= entry.value().len();
        home.memberships -= entry.tags().len();
        for at in 0..entry.tags().len() {
            let (record, position) = (entry.tags()[at], entry.position(at));
            if let Some(moved) = self.tags.swap_remove(record, position)
                && let Some(moved) = home.entries.0.get_mut(moved)
            {
                // Entries made from the same query carry the same tags in the same order: look there first.
                let place = match moved.tags().get(at) {
                    Some(tag) if *tag == record => Some(at),
                    _ => moved.tags().iter().position(|tag| *tag == record),
                };
                if let Some(place) = place {
                    moved.set_position(place, position);
                }
            }
            if self.tags.len(record) == 0 && !self.tags.is_dead(record) {
                self.limbo.push(record);
            }
        }
        self.limbo_db = db;
        self.drop_empty_dead(db);
    }

    /// Puts `new` where `old` stands: same tags, no other change to the index. `old` is unlinked afterwards.
    ///
    /// # Safety
    /// Both are alive, `old` is linked in `db`, `new` is not linked, and both carry the same records.
    pub unsafe fn replace(&mut self, db: usize, mut old: Entry, mut new: Entry) {
        let Some(home) = self.dbs.get_mut(db) else {
            return;
        };
        home.payload_bytes = home.payload_bytes + new.value().len() - old.value().len();
        new.take_place_of(&mut old);
        if let Some(slot) = home.entries.0.get_mut(new.id()) {
            *slot = new;
        }
    }

    /// Tells the index that a linked entry's value was overwritten in place.
    pub fn resized(&mut self, db: usize, before_bytes: usize, after_bytes: usize) {
        if let Some(home) = self.dbs.get_mut(db) {
            home.payload_bytes = home.payload_bytes + after_bytes - before_bytes;
        }
    }

    /// Drops the records that the most recent unlink left without members.
    pub fn settle(&mut self) {
        let Some(home) = self.dbs.get_mut(self.limbo_db) else {
            return;
        };
        for record in self.limbo.drain(..) {
            if self.tags.len(record) == 0 {
                home.names.remove(&self.tags, record);
                self.tags.remove(record);
            }
        }
    }

    /// The names of an entry's tags, also for an entry that was unlinked most recently.
    pub fn names<'a>(&'a self, entry: &'a Entry) -> impl ExactSizeIterator<Item = &'a [u8]> {
        entry.tags().iter().map(|record| self.tags.name(*record))
    }

    /// The name of a tag by its record.
    pub fn name(&self, record: u32) -> &[u8] {
        self.tags.name(record)
    }

    // ---- life and death ------------------------------------------------------------------------------------------

    /// Whether an entry may be served. O(1), except once per entry and large invalidation: O(tags).
    #[inline]
    pub fn is_live(&self, entry: &mut Entry) -> bool {
        if entry.birth() < self.floor {
            return false;
        }
        if self.dead_records == 0 || entry.checked() == self.kills {
            return true;
        }
        let live = !entry.tags().iter().any(|record| self.tags.is_dead(*record));
        if live {
            entry.set_checked(self.kills);
        }
        live
    }

    /// Why an entry is not served; `None` for a live one. O(tags).
    pub fn why_dead(&self, entry: &Entry) -> Option<Why> {
        if entry.birth() < self.floor {
            return Some(Why::Floor);
        }
        entry
            .tags()
            .iter()
            .find(|record| self.tags.is_dead(**record))
            .map(|record| Why::Tag(*record))
    }

    /// The floor: entries born before it are dead.
    pub fn floor(&self) -> Epoch {
        self.floor
    }

    /// Makes everything stored so far dead. O(databases); reclaim finds the entries by itself.
    pub fn raise_floor(&mut self, epoch: Epoch) {
        self.floor = self.floor.max(epoch);
        for db in &mut self.dbs {
            db.sweep = Some(0);
        }
    }

    /// How many entries carry one of the tags (an entry that carries two counts twice). O(tags named).
    pub fn count<'a>(&self, db: usize, names: impl Iterator<Item = &'a [u8]>, auto: bool) -> usize {
        let Some(home) = self.dbs.get(db) else {
            return 0;
        };
        names
            .map(|name| {
                records_of(&self.tags, home, name, auto)
                    .map(|r| self.tags.len(r) as usize)
                    .sum::<usize>()
            })
            .sum()
    }

    /// The live entries that carry one of the tags, each once. O(entries).
    pub fn carriers<'a>(
        &self,
        db: usize,
        names: impl Iterator<Item = &'a [u8]>,
        auto: bool,
    ) -> Vec<Entry> {
        let Some(home) = self.dbs.get(db) else {
            return Vec::new();
        };
        let mut ids = Vec::new();
        for name in names {
            for record in records_of(&self.tags, home, name, auto) {
                ids.extend(
                    (0..self.tags.len(record)).filter_map(|at| self.tags.member(record, at)),
                );
            }
        }
        ids.sort_unstable();
        ids.dedup();
        let live = |entry: &&Entry| self.why_dead(entry).is_none();
        ids.iter()
            .filter_map(|id| home.entries.0.get(*id))
            .filter(live)
            .copied()
            .collect()
    }

    /// Makes every entry dead that carries one of the tags. O(tags named), however many entries there are.
    ///
    /// With `auto`, entries stored as MANUAL are spared. Returns how many memberships died.
    pub fn kill<'a>(
        &mut self,
        db: usize,
        names: impl Iterator<Item = &'a [u8]>,
        auto: bool,
    ) -> usize {
        self.settle();
        let Some(home) = self.dbs.get_mut(db) else {
            return 0;
        };
        let mut members = 0;
        for name in names {
            let records: [Option<u32>; 2] = {
                let mut found = records_of(&self.tags, home, name, auto);
                [found.next(), found.next()]
            };
            for record in records.into_iter().flatten() {
                home.names.remove(&self.tags, record);
                self.tags.mark_dead(record);
                home.dead.push_back(record);
                self.dead_records += 1;
                members += self.tags.len(record) as usize;
            }
        }
        if members > 0 {
            self.kills = self.kills.wrapping_add(1);
            if self.kills == 0 {
                self.forget_checks();
            }
        }
        members
    }

    /// Once in 2^32 kills: no check from the previous round may be mistaken for one of this round.
    #[cold]
    fn forget_checks(&mut self) {
        self.kills = 1;
        let staged = self.staging.iter_mut().flatten();
        for db in self.dbs.iter_mut().chain(staged) {
            for id in 0..db.entries.0.bound() {
                if let Some(entry) = db.entries.0.get_mut(id) {
                    entry.set_checked(0);
                }
            }
        }
    }

    // ---- reclaim -------------------------------------------------------------------------------------------------

    /// Whether there is anything to free, dead entries or remains of flushed databases.
    pub fn has_pending(&self) -> bool {
        self.dead_records > 0
            || !self.graveyard.is_empty()
            || self
                .dbs
                .iter()
                .any(|db| db.sweep.is_some() || !db.condemned.is_empty())
    }

    /// A dead entry and its database. The caller deletes its key, which unlinks it, and asks again.
    ///
    /// Amortized O(1); a call looks at no more than a thousand ids of live entries before it answers `None` with
    /// [`Index::has_pending`] still true.
    pub fn next_dead(&mut self) -> Option<(usize, Entry)> {
        for db in 0..self.dbs.len() {
            self.drop_empty_dead(db);
            let home = &mut self.dbs[db];
            if let Some(record) = home.dead.front()
                && let Some(entry) = self
                    .tags
                    .last(*record)
                    .and_then(|id| home.entries.0.get(id))
            {
                return Some((db, *entry));
            }
            while let Some(id) = home.condemned.pop() {
                if let Some(entry) = home.entries.0.get(id)
                    && entry.birth() < self.floor
                {
                    // It stays on the list until it is gone.
                    home.condemned.push(id);
                    return Some((db, *entry));
                }
            }
            if let Some(from) = home.sweep {
                let to = home.entries.0.bound().min(from.saturating_add(1000));
                let found = (from..to).find_map(|id| {
                    Some((id, *home.entries.0.get(id)?)).filter(|(_, e)| e.birth() < self.floor)
                });
                home.sweep = match found {
                    Some((id, _)) => Some(id),
                    None if to == home.entries.0.bound() => None,
                    None => Some(to),
                };
                if let Some((_, entry)) = found {
                    return Some((db, entry));
                }
            }
        }
        None
    }

    /// Frees a bounded piece of what flushed databases left behind; true while there is more.
    pub fn bury(&mut self) -> bool {
        let Some(discarded) = self.graveyard.last_mut() else {
            return false;
        };
        if let Some(shard) = discarded.shards.pop() {
            for record in shard {
                self.tags.remove(record);
            }
        } else if discarded.dead.is_empty() {
            self.graveyard.pop();
        } else {
            let count = discarded.dead.len().min(1000);
            for record in discarded.dead.drain(..count) {
                self.tags.remove(record);
            }
        }
        !self.graveyard.is_empty()
    }

    fn drop_empty_dead(&mut self, db: usize) {
        let Some(home) = self.dbs.get_mut(db) else {
            return;
        };
        while let Some(record) = home.dead.front() {
            if self.tags.len(*record) > 0 {
                break;
            }
            self.tags.remove(*record);
            home.dead.pop_front();
            self.dead_records -= 1;
        }
    }

    // ---- whole databases -----------------------------------------------------------------------------------------

    /// Forgets a database without looking at its entries, which may already be under the hands of a thread that frees
    /// them. O(1) but for the slab of ids; the records are freed by [`Index::bury`].
    pub fn discard(&mut self, db: usize) {
        self.settle();
        if let Some(home) = self.dbs.get_mut(db) {
            let home = std::mem::take(home);
            self.discard_db(home);
        }
    }

    /// [`Index::discard`] for every database.
    pub fn discard_all(&mut self) {
        for db in 0..self.dbs.len() {
            self.discard(db);
        }
    }

    fn discard_db(&mut self, home: Db) {
        self.dead_records -= home.dead.len();
        let discarded = Discarded {
            shards: home.names.into_shards(),
            dead: home.dead,
        };
        if !discarded.shards.is_empty() || !discarded.dead.is_empty() {
            self.graveyard.push(discarded);
        }
    }

    /// Exchanges two databases. O(1).
    pub fn swap(&mut self, a: usize, b: usize) {
        self.settle();
        self.db(a.max(b));
        self.dbs.swap(a, b);
    }

    /// Begins to collect a second data set beside the one that is served.
    pub fn begin_staging(&mut self) {
        self.abort_staging();
        self.staging = Some(Vec::new());
    }

    /// The second data set becomes the one that is served.
    pub fn complete_staging(&mut self) {
        if let Some(staged) = self.staging.take() {
            self.discard_all();
            self.dbs = staged;
        }
    }

    /// Forgets the second data set.
    pub fn abort_staging(&mut self) {
        for home in self.staging.take().into_iter().flatten() {
            self.discard_db(home);
        }
    }

    // ---- looking in ----------------------------------------------------------------------------------------------

    /// Numbers for INFO. O(databases + dead records).
    pub fn sizes(&self) -> Sizes {
        let mut sizes = Sizes {
            index_bytes: self.tags.bytes(),
            ..Sizes::default()
        };
        for db in &self.dbs {
            sizes.entries += db.entries.0.len();
            sizes.tags += db.names.len();
            sizes.memberships += db.memberships;
            sizes.payload_bytes += db.payload_bytes;
            sizes.index_bytes += db.names.bytes()
                + db.entries.0.bytes()
                + db.memberships * 8
                + db.dead.capacity() * 4;
            sizes.pending_reclaim += db
                .dead
                .iter()
                .map(|r| self.tags.len(*r) as usize)
                .sum::<usize>()
                + db.condemned.len();
        }
        sizes
    }

    /// Tags of a database with their numbers of entries. A tag that is there during the whole scan is returned exactly
    /// once. O(count).
    pub fn scan_tags(&self, db: usize, cursor: u64, count: usize) -> Page<(&[u8], usize)> {
        let Some(home) = self.dbs.get(db) else {
            return (0, Vec::new());
        };
        let end = u64::from(self.tags.bound());
        let to = cursor.saturating_add(count.max(1) as u64).min(end);
        let mut found = Vec::new();
        for record in cursor.min(end) as u32..to as u32 {
            if !self.tags.exists(record)
                || self.tags.is_dead(record)
                || !home.names.contains(&self.tags, record)
            {
                continue;
            }
            let name = self.tags.name(record);
            let mut members = self.tags.len(record) as usize;
            let other = match self.tags.class(record) {
                Class::Auto => Class::Manual,
                Class::Manual => Class::Auto,
            };
            // A tag with entries of both classes has two records: it is reported with the automatic one.
            if let Some(twin) = home.names.find(&self.tags, name, hash(name), other) {
                if other == Class::Auto {
                    continue;
                }
                members += self.tags.len(twin) as usize;
            }
            if members > 0 {
                found.push((name, members));
            }
        }
        (if to == end { 0 } else { to }, found)
    }

    /// Entries that carry a tag, dead ones left out. One that carries it during the whole scan is returned at least
    /// once: the scan runs from the end of the member list, and removals only ever move members towards its beginning.
    /// O(count).
    pub fn scan_entries(&self, db: usize, name: &[u8], cursor: u64, count: usize) -> Page<Entry> {
        let Some(home) = self.dbs.get(db) else {
            return (0, Vec::new());
        };
        let hash = hash(name);
        // The lowest bit of a cursor tells the class, the rest how many members are still to be visited.
        let mut found = Vec::new();
        let (mut class, mut left) = match cursor {
            0 => (Class::Manual, u32::MAX),
            c if c & 1 == 1 => (Class::Manual, (c >> 1) as u32),
            c => (Class::Auto, (c >> 1) as u32),
        };
        loop {
            let record = home.names.find(&self.tags, name, hash, class);
            left = left.min(record.map_or(0, |r| self.tags.len(r)));
            while left > 0 && found.len() < count.max(1) {
                left -= 1;
                let entry = record
                    .and_then(|r| self.tags.member(r, left))
                    .and_then(|id| home.entries.0.get(id));
                found.extend(entry.filter(|e| self.why_dead(e).is_none()));
            }
            if left > 0 {
                return (
                    u64::from(left) << 1 | u64::from(class == Class::Manual),
                    found,
                );
            }
            if class == Class::Auto {
                return (0, found);
            }
            (class, left) = (Class::Auto, u32::MAX);
        }
    }

    /// Bytes of the entries that carry a tag; beyond a thousand entries estimated from a thousand of them, so that
    /// nobody waits because a tag is large.
    pub fn bytes_of(&self, db: usize, name: &[u8]) -> usize {
        const SAMPLE: usize = 1000;
        let Some(home) = self.dbs.get(db) else {
            return 0;
        };
        records_of(&self.tags, home, name, false)
            .map(|record| {
                let len = self.tags.len(record) as usize;
                let step = len.div_ceil(SAMPLE).max(1);
                let sampled = (0..len)
                    .step_by(step)
                    .filter_map(|at| self.tags.member(record, at as u32));
                let bytes: usize = sampled
                    .filter_map(|id| home.entries.0.get(id))
                    .map(Entry::bytes)
                    .sum();
                bytes * len / len.div_ceil(step).max(1)
            })
            .sum()
    }

    /// Compares the index of a database with the entries found in its keyspace, both ways.
    ///
    /// # Errors
    /// The first disagreement, in words. O(entries + memberships): for tests.
    ///
    /// # Safety
    /// The entries are alive.
    pub unsafe fn verify(
        &mut self,
        db: usize,
        keyspace: &[(Vec<u8>, Entry)],
    ) -> Result<(), String> {
        self.settle();
        let empty = Db::default();
        let home = self.dbs.get(db).unwrap_or(&empty);
        let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
        if home.entries.0.len() != keyspace.len() {
            return Err(format!(
                "db {db}: {} entries in the index, {} in the keyspace",
                home.entries.0.len(),
                keyspace.len()
            ));
        }
        let (mut memberships, mut payload_bytes) = (0, 0);
        for (key, entry) in keyspace {
            let name = show(key);
            if entry.key() != &key[..] {
                return Err(format!(
                    "db {db}: {name} holds an entry that thinks it is {}",
                    show(entry.key())
                ));
            }
            if home.entries.0.get(entry.id()) != Some(entry) {
                return Err(format!("db {db}: {name} is not in the index under its id"));
            }
            for (at, record) in entry.tags().iter().enumerate() {
                if self.tags.member(*record, entry.position(at)) != Some(entry.id()) {
                    return Err(format!(
                        "db {db}: {name} is not a member of its tag {}",
                        show(self.tags.name(*record))
                    ));
                }
                let listed = home.names.contains(&self.tags, *record);
                let queued = home.dead.contains(record);
                if listed == queued || queued != self.tags.is_dead(*record) {
                    return Err(format!(
                        "db {db}: tag {} of {name} is neither live nor dead",
                        show(self.tags.name(*record))
                    ));
                }
            }
            memberships += entry.tags().len();
            payload_bytes += entry.value().len();
        }
        let members = |record| self.tags.len(record) as usize;
        let listed: usize = home.names.iter().map(members).sum::<usize>()
            + home.dead.iter().map(|r| members(*r)).sum::<usize>();
        if listed != memberships || home.memberships != memberships {
            return Err(format!(
                "db {db}: {listed} members listed, {} counted, {memberships} carried",
                home.memberships
            ));
        }
        if home.payload_bytes != payload_bytes {
            return Err(format!(
                "db {db}: {} payload bytes counted, {payload_bytes} there",
                home.payload_bytes
            ));
        }
        if let Some(record) = home.names.iter().find(|r| members(*r) == 0) {
            return Err(format!(
                "db {db}: tag {} has no entries but exists",
                show(self.tags.name(record))
            ));
        }
        if home.names.iter().count() != home.names.len() {
            return Err(format!("db {db}: {} tags counted", home.names.len()));
        }
        Ok(())
    }
}

fn grow(dbs: &mut Vec<Db>, db: usize) -> &mut Db {
    if dbs.len() <= db {
        dbs.resize_with(db + 1, Db::default);
    }
    &mut dbs[db]
}

/// The live records of a tag that an invalidation concerns.
fn records_of<'a>(
    tags: &'a Tags,
    home: &'a Db,
    name: &'a [u8],
    auto: bool,
) -> impl Iterator<Item = u32> + 'a {
    let hash = hash(name);
    let manual = if auto {
        None
    } else {
        home.names.find(tags, name, hash, Class::Manual)
    };
    home.names
        .find(tags, name, hash, Class::Auto)
        .into_iter()
        .chain(manual)
}

fn resolve_in<'a>(
    tags: &mut Tags,
    names: &mut Names,
    wanted: impl Iterator<Item = &'a [u8]>,
    manual: bool,
    records: &mut Vec<u32>,
) {
    /// Up to here comparing with all is quicker than a table.
    const FEW: usize = 16;
    let spread = |record: &u32| u64::from(*record).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    records.clear();
    let mut seen: HashTable<u32> = HashTable::new();
    for name in wanted {
        let record = names.find_or_insert(tags, name, hash(name), Class::of(manual));
        if records.len() < FEW {
            if !records.contains(&record) {
                records.push(record);
            }
            continue;
        }
        if seen.is_empty() {
            seen.reserve(records.len() * 2, spread);
            for record in &*records {
                seen.insert_unique(spread(record), *record, spread);
            }
        }
        if seen
            .find(spread(&record), |other| *other == record)
            .is_none()
        {
            seen.insert_unique(spread(&record), record, spread);
            records.push(record);
        }
    }
}

fn link_in(tags: &mut Tags, home: &mut Db, mut entry: Entry, kills: u32, floor: Epoch) {
    let id = home.entries.0.insert(entry);
    entry.set_id(id);
    entry.set_checked(kills);
    home.payload_bytes += entry.value().len();
    home.memberships += entry.tags().len();
    for at in 0..entry.tags().len() {
        let position = tags.push(entry.tags()[at], id);
        entry.set_position(at, position);
    }
    if entry.birth() < floor {
        home.condemned.push(id);
    }
}
