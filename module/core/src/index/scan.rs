//! Looking in: numbers for INFO, listings in pages.

use super::life::records_of;
use super::{Index, Scope};
use crate::entry::Entry;
use crate::tags::{Class, hash};

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
                + db.soft_names.bytes()
                + db.entries.0.bytes()
                + db.memberships * 8
                + db.dead.capacity() * 4;
            sizes.pending_reclaim += db
                .dead
                .iter()
                .chain(&db.soft)
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
        let mut found = Vec::new();
        let mut next = u32::try_from(cursor)
            .ok()
            .and_then(|from| self.tags.next(from));
        for _ in 0..count.max(1) {
            let Some(record) = next else { break };
            next = self.tags.next(record + 1);
            if !self.tags.is_live(record) || !home.names.contains(&self.tags, record) {
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
        (next.map_or(0, u64::from), found)
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
        let (mut found, mut visited) = (Vec::new(), 0);
        let (mut class, mut left) = match cursor {
            0 => (Class::Manual, u32::MAX),
            c if c & 1 == 1 => (Class::Manual, (c >> 1) as u32),
            c => (Class::Auto, (c >> 1) as u32),
        };
        loop {
            let record = home.names.find(&self.tags, name, hash, class);
            left = left.min(record.map_or(0, |r| self.tags.len(r)));
            while left > 0 && visited < count.max(1) {
                left -= 1;
                visited += 1;
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
        records_of(&self.tags, home, name, Scope::All)
            .into_iter()
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
}
