//! Looking in: numbers for INFO, listings in pages.

use super::bury::Discarded;
use super::dbs::{Dbs, Sums};
use super::life::{Carriers, carriers_of};
use super::{Db, Index, Scope, Verdict};
use crate::alloc::class;
use crate::entry::Entry;
use crate::slab::Next;
use crate::tags::{Class, Fate};
use crate::text::Pattern;
use crate::work;

/// Steps after which a listing ends its page, full or not: about a millisecond at worst. Among the steps are bytes
/// compared with a pattern, tags looked at, and names and keys copied.
const STEPS: usize = 200_000;
/// Bytes copied that count as a step.
const COPIED: usize = 16;

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

impl Index {
    /// Numbers for INFO. O(databases that were changed since they were last counted).
    pub fn sizes(&self) -> Sizes {
        let sums = self.dbs.sums();
        Sizes {
            index_bytes: self.bytes(&sums),
            ..sums.sizes
        }
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self, sums: &Sums) -> usize {
        let staged = self.staging.as_ref().map(Dbs::sums);
        self.tags.bytes()
            + self.softs.bytes()
            + class(self.limbo.capacity() * 4)
            + class(self.records.capacity() * 4)
            + class(self.hashes.capacity() * 8)
            + class(self.graveyard.capacity() * size_of::<Discarded>())
            + self.graveyard.iter().map(Discarded::bytes).sum::<usize>()
            + sums.sizes.index_bytes
            + staged.map_or(0, |staged| staged.sizes.index_bytes)
    }

    /// Bytes that an entry takes outside of its own allocation: its id, its places in the member lists of its tags, and
    /// all of the tags that it alone carries. O(tags).
    pub fn bytes_beside(&self, entry: &Entry) -> usize {
        let memberships = entry.tags().iter();
        8 + memberships
            .map(|record| self.tags.bytes_of_membership(*record))
            .sum::<usize>()
    }

    /// Tags of a database with their numbers of entries, those that match the pattern if there is one. A tag that is
    /// there during the whole scan is returned at least once: exactly once, unless its entries became MANUAL, soft or
    /// the opposite meanwhile, or records moved, so that the scan begins again. O(count), and a page ends early when
    /// that took many steps.
    pub fn scan_tags(
        &mut self,
        db: usize,
        cursor: u64,
        count: usize,
        pattern: Option<&Pattern>,
    ) -> Page<(&[u8], usize)> {
        self.listed.is_awaited();
        let cursor_at = |record: u32| self.listed.cursor(record);
        let Some(home) = self.dbs.get(db) else {
            return (0, Vec::new());
        };
        let (mut from, lower) = self.listed.from(cursor);
        let mut found = Vec::new();
        let mut steps = STEPS;
        for record in lower {
            work::step(1);
            found.extend(self.tag_of(home, record, pattern, &mut steps));
        }
        for _ in 0..count.max(1) {
            let record = match self.tags.next(from, &mut steps) {
                Next::Id(record) => record,
                Next::Later(from) => return (cursor_at(from), found),
                Next::End => return (0, found),
            };
            from = record + 1;
            work::step(1);
            steps = steps.saturating_sub(1);
            found.extend(self.tag_of(home, record, pattern, &mut steps));
            if steps == 0 {
                break;
            }
        }
        match self.tags.next(from, &mut steps.max(1)) {
            Next::Id(from) | Next::Later(from) => (cursor_at(from), found),
            Next::End => (0, found),
        }
    }

    /// The tag that is listed with this record, if it matches, and how many entries carry it.
    fn tag_of(
        &self,
        home: &Db,
        record: u32,
        pattern: Option<&Pattern>,
        steps: &mut usize,
    ) -> Option<(&[u8], usize)> {
        let names = match self.tags.fate(record) {
            Fate::Live => &home.names,
            Fate::Soft => &home.soft_names,
            Fate::Dead => return None,
        };
        if !names.contains(&self.tags, record) {
            return None;
        }
        let name = self.tags.name(record);
        let (mut members, mut lowest) = (0, record);
        for carriers in carriers_of(&self.tags, home, name, Scope::All) {
            members += self.members(carriers);
            lowest = carriers.records().fold(lowest, u32::min);
        }
        let is_listed = members > 0
            && lowest == record
            && pattern.is_none_or(|pattern| pattern.matches(name, steps));
        if is_listed {
            *steps = steps.saturating_sub(name.len() / COPIED);
        }
        is_listed.then_some((name, members))
    }

    /// A record of a tag was made: the tag may be listed with it now, behind a listing that is under way.
    pub(super) fn note_made(&mut self, db: usize, record: u32) {
        self.listed.made();
        let Some(home) = self.dbs.get(db) else { return };
        let name = self.tags.name(record);
        let others = carriers_of(&self.tags, home, name, Scope::All)
            .flat_map(Carriers::records)
            .filter(|other| *other != record);
        if others.min().is_some_and(|lowest| record < lowest) {
            self.listed.lowered(record);
        }
    }

    /// Entries that carry a tag, dead ones left out. One that carries it during the whole scan is returned at least
    /// once: the scan runs from the end of the member list, and removals only ever move members towards its beginning.
    /// O(count), and a page ends early when that took many steps.
    pub fn scan_entries(&self, db: usize, name: &[u8], cursor: u64, count: usize) -> Page<Entry> {
        let Some(home) = self.dbs.get(db) else {
            return (0, Vec::new());
        };
        let hash = self.tags.hash(name);
        // The lowest bit of a cursor tells the class, the rest how many members are still to be visited.
        let (mut found, mut visited, mut steps) = (Vec::new(), 0, STEPS);
        let (mut class, mut left) = match cursor {
            0 => (Class::Manual, u32::MAX),
            c if c & 1 == 1 => (Class::Manual, (c >> 1) as u32),
            c => (Class::Auto, (c >> 1) as u32),
        };
        loop {
            let record = home.names.find(&self.tags, name, hash, class);
            left = left.min(record.map_or(0, |r| self.tags.len(r)));
            while left > 0 && visited < count.max(1) && steps > 0 {
                left -= 1;
                visited += 1;
                let entry = record
                    .and_then(|r| self.tags.member(r, left))
                    .and_then(|id| home.entries.get(id));
                if let Some(entry) = entry {
                    found.extend(self.not_dead(*entry, &mut steps));
                }
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

    /// The entry, unless it is dead. Its tags are looked at only if something was invalidated since it was found alive.
    fn not_dead(&self, mut entry: Entry, steps: &mut usize) -> Option<Entry> {
        let known = self.doubtful_records == 0 || u64::from(entry.checked()) == self.trusted;
        let looked_at = if known { 1 } else { entry.tags().len() + 1 };
        work::step(1);
        *steps = steps.saturating_sub(looked_at + entry.key().len() / COPIED);
        (self.verdict(&mut entry) != Verdict::Dead).then_some(entry)
    }

    /// Bytes of the entries that carry a tag; beyond a thousand entries estimated from a thousand of them, so that
    /// no command waits because a tag is large.
    pub fn bytes_of(&self, db: usize, name: &[u8]) -> usize {
        const SAMPLE: usize = 1000;
        let Some(home) = self.dbs.get(db) else {
            return 0;
        };
        let sample = |record: u32, members: usize| {
            let len = self.tags.len(record) as usize;
            let sampled = (0..len)
                .step_by(len.div_ceil(SAMPLE).max(1))
                .filter_map(|at| home.entries.get(self.tags.member(record, at as u32)?));
            let (bytes, count) = sampled.fold((0, 0), |(bytes, count), entry| {
                work::step(1);
                (bytes + Entry::bytes(entry), count + 1)
            });
            bytes * members / count.max(1)
        };
        let bytes = |Carriers { live, soft }| {
            live.map_or(0, |r| sample(r, self.tags.len(r) as usize))
                + soft.map_or(0, |r| sample(r, self.softs.members(r)))
        };
        carriers_of(&self.tags, home, name, Scope::All)
            .map(bytes)
            .sum()
    }
}
