//! Tag records: a name, its members, and whether the tag was invalidated since.
//!
//! A record is a *generation* of a tag: an invalidation marks it dead and takes it out of the table of names, and the
//! next entry that carries the tag gets a new record. So an invalidation is O(1), entries stored before and after it
//! can never be confused, and a dead record stays only until its members are reclaimed.
//!
//! Entries stored as MANUAL have a record of their own per tag, so that `INVALIDATE AUTO` is O(1) as well. A soft
//! invalidation marks a record soft and moves it to a second table of names, where a hard one still finds it.

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::members::List;
use crate::slab::Slab;

/// The hash of a tag's name: the same in the table of names and in the memory of invalidations.
#[inline]
pub fn hash(name: &[u8]) -> u64 {
    xxh3_64(name)
}

/// Which of a tag's two records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Auto,
    Manual,
}

impl Class {
    pub(crate) fn of(manual: bool) -> Class {
        if manual { Class::Manual } else { Class::Auto }
    }
}

const DEAD: u32 = 1 << 31;
const MANUAL: u32 = 1 << 30;
const SOFT: u32 = 1 << 29;
const HASH: u32 = SOFT - 1;

/// No member.
const EMPTY: u32 = u32::MAX;
/// `members` names a list, not the only member.
const LIST: u32 = 1 << 31;

/// 24 bytes, of which millions may exist: flags share a word with the hash, and one member needs no list.
struct Record {
    name: Box<[u8]>,
    /// `DEAD`, `MANUAL`, `SOFT`, and 29 bits of the name's hash, so that tables grow without touching names.
    bits: u32,
    /// `EMPTY`, an entry id, or `LIST` with the id of a list.
    members: u32,
}

const _: () = assert!(size_of::<Option<Record>>() == 24);

/// All records of all databases, and their member lists.
pub(crate) struct Tags {
    records: Slab<Record>,
    lists: Slab<List>,
    name_bytes: usize,
    list_bytes: usize,
}

impl Tags {
    pub(crate) const fn new() -> Self {
        Tags {
            records: Slab::new(),
            lists: Slab::new(),
            name_bytes: 0,
            list_bytes: 0,
        }
    }

    pub(crate) fn name(&self, record: u32) -> &[u8] {
        self.records.get(record).map_or(&[], |r| &r.name)
    }

    #[inline]
    pub(crate) fn is_dead(&self, record: u32) -> bool {
        self.records.get(record).is_none_or(|r| r.bits & DEAD != 0)
    }

    pub(crate) fn class(&self, record: u32) -> Class {
        Class::of(
            self.records
                .get(record)
                .is_some_and(|r| r.bits & MANUAL != 0),
        )
    }

    /// Neither dead nor soft: in the table of live names.
    #[inline]
    pub(crate) fn is_live(&self, record: u32) -> bool {
        self.records
            .get(record)
            .is_some_and(|r| r.bits & (DEAD | SOFT) == 0)
    }

    #[inline]
    pub(crate) fn is_soft(&self, record: u32) -> bool {
        self.records.get(record).is_some_and(|r| r.bits & SOFT != 0)
    }

    pub(crate) fn mark_dead(&mut self, record: u32) {
        if let Some(r) = self.records.get_mut(record) {
            r.bits = r.bits & !SOFT | DEAD;
        }
    }

    pub(crate) fn mark_soft(&mut self, record: u32) {
        if let Some(r) = self.records.get_mut(record) {
            r.bits |= SOFT;
        }
    }

    /// The first record from `from` on.
    pub(crate) fn next(&self, from: u32) -> Option<u32> {
        self.records.next_used(from)
    }

    /// How many entries carry the tag.
    pub(crate) fn len(&self, record: u32) -> u32 {
        match self.records.get(record).map_or(EMPTY, |r| r.members) {
            EMPTY => 0,
            members if members & LIST == 0 => 1,
            members => self.lists.get(members & !LIST).map_or(0, List::len),
        }
    }

    pub(crate) fn member(&self, record: u32, position: u32) -> Option<u32> {
        match self.records.get(record)?.members {
            EMPTY => None,
            members if members & LIST == 0 => (position == 0).then_some(members),
            members => self.lists.get(members & !LIST)?.get(position),
        }
    }

    pub(crate) fn last(&self, record: u32) -> Option<u32> {
        self.member(record, self.len(record).checked_sub(1)?)
    }

    /// Adds a member and returns its position.
    #[inline]
    pub(crate) fn push(&mut self, record: u32, entry: u32) -> u32 {
        let Some(r) = self.records.get_mut(record) else {
            return 0;
        };
        if r.members == EMPTY {
            r.members = entry;
            return 0;
        }
        if r.members & LIST == 0 {
            let list = List::pair(r.members, entry);
            self.list_bytes += list.bytes();
            r.members = LIST | self.lists.insert(list);
            return 1;
        }
        let Some(list) = self.lists.get_mut(r.members & !LIST) else {
            return 0;
        };
        let (position, before) = (list.len(), list.bytes());
        list.push(entry);
        self.list_bytes = self.list_bytes + list.bytes() - before;
        position
    }

    /// Removes the member at `position`; returns the one that moved there, if one did.
    #[inline]
    pub(crate) fn swap_remove(&mut self, record: u32, position: u32) -> Option<u32> {
        let r = self.records.get_mut(record)?;
        if r.members == EMPTY || r.members & LIST == 0 {
            r.members = EMPTY;
            return None;
        }
        let id = r.members & !LIST;
        let list = self.lists.get_mut(id)?;
        let before = list.bytes();
        let moved = list.swap_remove(position);
        self.list_bytes = self.list_bytes + list.bytes() - before;
        if list.len() == 1 {
            r.members = list.get(0)?;
            self.list_bytes -= list.bytes();
            self.lists.remove(id);
        }
        moved
    }

    fn insert(&mut self, name: &[u8], hash: u64, class: Class) -> u32 {
        self.name_bytes += name.len();
        let manual = if class == Class::Manual { MANUAL } else { 0 };
        self.records.insert(Record {
            name: name.into(),
            bits: short(hash) | manual,
            members: EMPTY,
        })
    }

    /// Frees a record and its list; its members are gone, or will never be looked at again.
    pub(crate) fn remove(&mut self, record: u32) {
        let Some(r) = self.records.remove(record) else {
            return;
        };
        self.name_bytes -= r.name.len();
        if r.members != EMPTY
            && r.members & LIST != 0
            && let Some(list) = self.lists.remove(r.members & !LIST)
        {
            self.list_bytes -= list.bytes();
        }
    }

    /// Bytes allocated for records, names and lists.
    pub(crate) fn bytes(&self) -> usize {
        self.records.bytes() + self.lists.bytes() + self.name_bytes + self.list_bytes
    }
}

fn short(hash: u64) -> u32 {
    (hash >> 32) as u32 & HASH
}

/// Shards of a name table. Each grows by itself, so that no insertion pays for rehashing a million names.
const SHARDS: usize = 1024;

/// The live records of one database, by name and class.
#[derive(Default)]
pub(crate) struct Names {
    /// Empty, or `SHARDS` tables.
    shards: Vec<HashTable<u32>>,
    len: usize,
}

/// Spreads the 29 bits that a record keeps over the 64 that the table wants.
fn spread(short: u32) -> u64 {
    u64::from(short).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn shard(short: u32) -> usize {
    short as usize % SHARDS
}

impl Names {
    /// How many names there are; a name with entries of both classes counts twice.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn find(&self, tags: &Tags, name: &[u8], hash: u64, class: Class) -> Option<u32> {
        let short = short(hash);
        let wanted = short | if class == Class::Manual { MANUAL } else { 0 };
        let table = self.shards.get(shard(short))?;
        table
            .find(spread(short), |id| {
                tags.records
                    .get(*id)
                    .is_some_and(|r| r.bits & !SOFT == wanted && *r.name == *name)
            })
            .copied()
    }

    /// Adds every record of that name: the table of soft names may hold several.
    pub(crate) fn find_all(
        &self,
        tags: &Tags,
        name: &[u8],
        hash: u64,
        class: Class,
        found: &mut Vec<u32>,
    ) {
        let short = short(hash);
        let wanted = short | if class == Class::Manual { MANUAL } else { 0 };
        let Some(table) = self.shards.get(shard(short)) else {
            return;
        };
        found.extend(table.iter_hash(spread(short)).filter(|id| {
            tags.records
                .get(**id)
                .is_some_and(|r| r.bits & !SOFT == wanted && *r.name == *name)
        }));
    }

    /// The record of the name and class that another record has.
    pub(crate) fn find_or_insert_like(&mut self, tags: &mut Tags, other: u32) -> u32 {
        let (name, class) = (Box::<[u8]>::from(tags.name(other)), tags.class(other));
        self.find_or_insert(tags, &name, hash(&name), class)
    }

    /// The record of that name, made if there is none.
    pub(crate) fn find_or_insert(
        &mut self,
        tags: &mut Tags,
        name: &[u8],
        hash: u64,
        class: Class,
    ) -> u32 {
        if let Some(record) = self.find(tags, name, hash, class) {
            return record;
        }
        let record = tags.insert(name, hash, class);
        self.add(tags, record);
        record
    }

    /// Puts a record into the table; another one of the same name may be there.
    pub(crate) fn add(&mut self, tags: &Tags, record: u32) {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, HashTable::new);
        }
        let short = tags.records.get(record).map_or(0, |r| r.bits & HASH);
        self.shards[shard(short)].insert_unique(spread(short), record, |id| {
            spread(tags.records.get(*id).map_or(0, |r| r.bits & HASH))
        });
        self.len += 1;
    }

    /// Whether the table holds this very record.
    pub(crate) fn contains(&self, tags: &Tags, record: u32) -> bool {
        let Some(r) = tags.records.get(record) else {
            return false;
        };
        let short = r.bits & HASH;
        self.shards
            .get(shard(short))
            .is_some_and(|table| table.find(spread(short), |id| *id == record).is_some())
    }

    /// Takes a record out of the table; the record itself stays.
    pub(crate) fn remove(&mut self, tags: &Tags, record: u32) {
        let Some(r) = tags.records.get(record) else {
            return;
        };
        let short = r.bits & HASH;
        let Some(table) = self.shards.get_mut(shard(short)) else {
            return;
        };
        let Ok(found) = table.find_entry(spread(short), |id| *id == record) else {
            return;
        };
        found.remove();
        self.len -= 1;
        if self.len == 0 {
            self.shards = Vec::new();
        } else if table.len() * 8 < table.capacity() {
            table.shrink_to(table.len() * 2, |id| {
                spread(tags.records.get(*id).map_or(0, |r| r.bits & HASH))
            });
        }
    }

    /// The table in pieces, for whoever takes it apart a piece at a time.
    pub(crate) fn into_shards(self) -> Vec<HashTable<u32>> {
        self.shards
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.shards.iter().flat_map(|table| table.iter().copied())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.shards.capacity() * size_of::<HashTable<u32>>()
            + self
                .shards
                .iter()
                .map(HashTable::allocation_size)
                .sum::<usize>()
    }
}
