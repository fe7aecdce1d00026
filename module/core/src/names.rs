//! The records of one database by name and class.
//!
//! The work of a look-up is bounded, for any names. Records keep 29 bits of a name's hash, and the table holds at
//! most [`CROWD`] records with the same 29 bits; what exceeds that, which without knowledge of the hash's key does not
//! happen, goes into an ordered map, where it takes a logarithm of comparisons.

use std::collections::BTreeMap;
use std::hint::black_box;

use hashbrown::HashTable;

use crate::table::Table;
use crate::tags::{Class, Same, Tags, short};
use crate::work;

/// Records of the same hash in the table.
const CROWD: usize = 8;
/// No record.
const NONE: u32 = u32::MAX;

/// The table of names: one record per name and class.
#[derive(Default)]
pub(crate) struct Names {
    table: Table<u32>,
    /// By name: the records of both classes.
    crowd: BTreeMap<Box<[u8]>, [u32; 2]>,
    crowded: usize,
}

impl Names {
    /// How many names there are; a name with entries of both classes counts twice.
    pub(crate) fn len(&self) -> usize {
        self.table.len() + self.crowded
    }

    #[inline]
    pub(crate) fn find(&self, tags: &Tags, name: &[u8], hash: u64, class: Class) -> Option<u32> {
        self.probe(tags, name, hash, class).0
    }

    /// Has the memory read that looking for these hashes will need.
    #[inline]
    pub(crate) fn touch(&self, hashes: &[u64]) {
        for hash in hashes {
            black_box(self.table.touch(u64::from(short(*hash))).copied());
        }
    }

    /// The records of a name, by class: one look for both.
    #[inline]
    pub(crate) fn find_both(&self, tags: &Tags, name: &[u8], hash: u64) -> [Option<u32>; 2] {
        let short = short(hash);
        let mut both = [None; 2];
        self.table.find(u64::from(short), |id| {
            if let Some(class) = tags.class_of_name(*id, short, name) {
                both[class as usize] = Some(*id);
            }
            both[0].is_some() && both[1].is_some()
        });
        if self.crowded > 0 {
            for class in [Class::Auto, Class::Manual] {
                let found = &mut both[class as usize];
                *found = found.or_else(|| self.find_in_crowd(name, class));
            }
        }
        both
    }

    /// The record, or how many others have the same hash.
    #[inline]
    fn probe(&self, tags: &Tags, name: &[u8], hash: u64, class: Class) -> (Option<u32>, usize) {
        let short = short(hash);
        let mut others = 0;
        let found = self.table.find(u64::from(short), |id| {
            let same = tags.compare(*id, short, name, class);
            others += usize::from(same == Same::Hash);
            same == Same::Record
        });
        match found {
            Some(id) => (Some(*id), others),
            None if self.crowded == 0 => (None, others),
            None => (self.find_in_crowd(name, class), others),
        }
    }

    #[cold]
    fn find_in_crowd(&self, name: &[u8], class: Class) -> Option<u32> {
        work::step(self.crowd.len().max(1).ilog2() as usize + 1);
        let id = self.crowd.get(name)?[class as usize];
        (id != NONE).then_some(id)
    }

    /// The record of that name, made if there is none.
    #[inline]
    pub(crate) fn find_or_insert(
        &mut self,
        tags: &mut Tags,
        name: &[u8],
        hash: u64,
        class: Class,
    ) -> u32 {
        let (found, others) = self.probe(tags, name, hash, class);
        found.unwrap_or_else(|| {
            let record = tags.insert(name, hash, class);
            self.add_beside(tags, record, others);
            record
        })
    }

    /// The record of the name and class that another record has.
    pub(crate) fn find_or_insert_like(&mut self, tags: &mut Tags, other: u32) -> u32 {
        let (name, class) = (Box::<[u8]>::from(tags.name(other)), tags.class(other));
        let hash = tags.hash(&name);
        self.find_or_insert(tags, &name, hash, class)
    }

    /// Puts a record into the table; none of the same name and class is there.
    pub(crate) fn add(&mut self, tags: &Tags, record: u32) {
        let short = tags.short_of(record);
        let mut others = 0;
        self.table.find(u64::from(short), |id| {
            others += usize::from(tags.short_of(*id) == short);
            false
        });
        self.add_beside(tags, record, others);
    }

    fn add_beside(&mut self, tags: &Tags, record: u32, others: usize) {
        if others < CROWD {
            let hash = |id: &u32| u64::from(tags.short_of(*id));
            self.table.insert(hash(&record), record, hash);
            return;
        }
        work::step(self.crowd.len().max(1).ilog2() as usize + 1);
        let slots = self.crowd.entry(tags.name(record).into());
        slots.or_insert([NONE; 2])[tags.class(record) as usize] = record;
        self.crowded += 1;
    }

    /// Whether the table holds this very record.
    pub(crate) fn contains(&self, tags: &Tags, record: u32) -> bool {
        let short = u64::from(tags.short_of(record));
        self.table.find(short, |id| *id == record).is_some()
            || self.crowded > 0
                && self.find_in_crowd(tags.name(record), tags.class(record)) == Some(record)
    }

    /// A record that is in the table has another id now.
    pub(crate) fn renumbered(&mut self, tags: &Tags, before: u32, now: u32) {
        let short = u64::from(tags.short_of(now));
        if let Some(id) = self.table.find_mut(short, |id| *id == before) {
            *id = now;
        } else if let Some(slots) = self.crowd.get_mut(tags.name(now)) {
            slots[tags.class(now) as usize] = now;
        }
    }

    /// Takes a record out of the table; the record itself stays.
    pub(crate) fn remove(&mut self, tags: &Tags, record: u32) {
        let hash = |id: &u32| u64::from(tags.short_of(*id));
        let found = self.table.remove(hash(&record), |id| *id == record, hash);
        if found.is_some() || self.crowded == 0 {
            return;
        }
        let (name, class) = (tags.name(record), tags.class(record));
        let Some(slots) = self.crowd.get_mut(name) else {
            return;
        };
        if slots[class as usize] == record {
            slots[class as usize] = NONE;
            self.crowded -= 1;
            if *slots == [NONE; 2] {
                self.crowd.remove(name);
            }
        }
    }

    /// Takes a piece of the table away, for a caller that takes it apart: some of its records, none looked up any more.
    pub(crate) fn tear_off(&mut self) -> Option<Torn> {
        if let Some(shard) = self.table.tear_off() {
            return Some(Torn::Shard(shard));
        }
        let (_, slots) = self.crowd.pop_first()?;
        self.crowded -= slots.iter().filter(|id| **id != NONE).count();
        Some(Torn::Slots(slots))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let crowd = self.crowd.values().flatten().filter(|id| **id != NONE);
        self.table.iter().chain(crowd).copied()
    }

    /// Bytes allocated; of the crowd the names only.
    pub(crate) fn bytes(&self) -> usize {
        self.table.bytes() + self.crowded * 64
    }
}

/// A piece of a table of names.
pub(crate) enum Torn {
    Shard(HashTable<u32>),
    Slots([u32; 2]),
}

impl Torn {
    /// The records in it.
    pub(crate) fn into_records(self) -> Vec<u32> {
        match self {
            Torn::Shard(shard) => shard.into_iter().collect(),
            Torn::Slots(slots) => slots.into_iter().filter(|id| *id != NONE).collect(),
        }
    }
}
