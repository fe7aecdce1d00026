//! Tag records: a name, its members, and whether the tag was invalidated since.
//!
//! A record is a *generation* of a tag: an invalidation marks it dead and takes it out of the table of names, and the
//! next entry that carries the tag gets a new record. So an invalidation is O(1), entries stored before and after it
//! can never be confused, and a dead record stays only until its members are reclaimed.
//!
//! Entries stored as MANUAL have a record of their own per tag, so that `INVALIDATE AUTO` is O(1) as well. A soft
//! invalidation marks a record soft; [`crate::soft`] then knows when, and a hard invalidation still finds it there.

use crate::alloc::class;
use crate::hash::Key;
use crate::members::{List, Moved};
use crate::slab::{Next, Slab};

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

    fn bit(self) -> u32 {
        match self {
            Class::Auto => 0,
            Class::Manual => MANUAL,
        }
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

impl Record {
    #[inline]
    fn fate(&self) -> Fate {
        match self.bits & (DEAD | SOFT) {
            0 => Fate::Live,
            SOFT => Fate::Soft,
            _ => Fate::Dead,
        }
    }
}
/// Bytes of a record beside its name.
pub(crate) const RECORD: usize = 24;

/// What was decided about a record's members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Live,
    Soft,
    Dead,
}

/// What a member leaves behind.
pub(crate) struct Left {
    /// The member that moved into its position, if one did.
    pub(crate) moved: Option<Moved>,
    /// The fate of the record.
    pub(crate) fate: Fate,
    /// The record has no members now.
    pub(crate) is_empty: bool,
}

/// All records of all databases, and their member lists.
pub(crate) struct Tags {
    key: Key,
    records: Slab<Record>,
    lists: Slab<List>,
    name_bytes: usize,
    list_bytes: usize,
}

impl Tags {
    pub(crate) fn new(key: Key) -> Self {
        Tags {
            key,
            records: Slab::new(),
            lists: Slab::new(),
            name_bytes: 0,
            list_bytes: 0,
        }
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// The hash of a name under this process's key.
    #[inline]
    pub(crate) fn hash(&self, name: &[u8]) -> u64 {
        self.key.hash(name)
    }

    pub(crate) fn name(&self, record: u32) -> &[u8] {
        self.records.get(record).map_or(&[], |r| &r.name)
    }

    /// Dead also if it is no longer there: it was dropped when its last member left.
    #[inline]
    pub(crate) fn fate(&self, record: u32) -> Fate {
        self.records.get(record).map_or(Fate::Dead, Record::fate)
    }

    pub(crate) fn class(&self, record: u32) -> Class {
        Class::of(
            self.records
                .get(record)
                .is_some_and(|r| r.bits & MANUAL != 0),
        )
    }

    /// Whether the record is the live one of this name and class.
    #[inline]
    pub(crate) fn is_live_one_of(&self, record: u32, name: &[u8], class: Class) -> bool {
        self.records
            .get(record)
            .is_some_and(|r| r.bits & !HASH == class.bit() && *r.name == *name)
    }

    /// Whether the record has these 29 bits of a hash, and whether also this name and class; its fate does not matter.
    #[inline]
    pub(crate) fn compare(&self, record: u32, short: u32, name: &[u8], class: Class) -> Same {
        let Some(r) = self.records.get(record) else {
            return Same::Nothing;
        };
        if r.bits & HASH != short {
            Same::Nothing
        } else if r.bits & MANUAL == class.bit() && *r.name == *name {
            Same::Record
        } else {
            Same::Hash
        }
    }

    /// The class of a record, if it has these 29 bits of a hash and this name; its fate does not matter.
    #[inline]
    pub(crate) fn class_of_name(&self, record: u32, short: u32, name: &[u8]) -> Option<Class> {
        let r = self.records.get(record)?;
        let is_it = r.bits & HASH == short && *r.name == *name;
        is_it.then(|| Class::of(r.bits & MANUAL != 0))
    }

    /// The 29 bits of the hash of a record's name.
    #[inline]
    pub(crate) fn short_of(&self, record: u32) -> u32 {
        self.records.get(record).map_or(0, |r| r.bits & HASH)
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

    /// The first record from `from` on, looked for in so many steps.
    pub(crate) fn next(&self, from: u32, steps: &mut usize) -> Next {
        self.records.next_used(from, steps)
    }

    /// How many entries carry the tag.
    #[inline]
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

    /// Adds a member and returns its position. `place` is where among its tags the entry has this one, if it has many.
    #[inline]
    pub(crate) fn push(&mut self, record: u32, entry: u32, place: Option<u16>) -> u32 {
        let Some(r) = self.records.get_mut(record) else {
            return 0;
        };
        if r.members == EMPTY {
            r.members = entry;
            return 0;
        }
        if r.members & LIST == 0 {
            let list = List::pair(r.members, entry, place);
            self.list_bytes += list.bytes();
            r.members = LIST | self.lists.insert(list);
            return 1;
        }
        let Some(list) = self.lists.get_mut(r.members & !LIST) else {
            return 0;
        };
        if let Some(position) = list.push_within(entry, place) {
            return position;
        }
        let (position, before) = (list.len(), list.bytes());
        list.push(entry, place);
        self.list_bytes = self.list_bytes + list.bytes() - before;
        position
    }

    /// Spreads record ids, for tables of them.
    #[inline]
    pub(crate) fn spread(&self, record: u32) -> u64 {
        self.key.spread(record)
    }

    /// Notes the place of a member that has many tags now.
    pub(crate) fn set_place(&mut self, record: u32, position: u32, place: u16) {
        let members = self.records.get(record).map_or(EMPTY, |r| r.members);
        if members != EMPTY
            && members & LIST != 0
            && let Some(list) = self.lists.get_mut(members & !LIST)
        {
            let before = list.bytes();
            list.set_place(position, place);
            self.list_bytes = self.list_bytes + list.bytes() - before;
        }
    }

    /// Removes the member at `position`. One look at the record tells all that has to be known of it then.
    #[inline]
    pub(crate) fn swap_remove(&mut self, record: u32, position: u32) -> Left {
        let mut left = Left {
            moved: None,
            fate: Fate::Dead,
            is_empty: true,
        };
        let Some(r) = self.records.get_mut(record) else {
            return left;
        };
        left.fate = r.fate();
        if r.members == EMPTY || r.members & LIST == 0 {
            r.members = EMPTY;
            return left;
        }
        let id = r.members & !LIST;
        let Some(list) = self.lists.get_mut(id) else {
            return left;
        };
        left.moved = list.swap_remove_within(position).unwrap_or_else(|| {
            let before = list.bytes();
            let moved = list.swap_remove(position);
            self.list_bytes = self.list_bytes + list.bytes() - before;
            moved
        });
        left.is_empty = false;
        if list.len() == 1 {
            if let Some(only) = list.get(0) {
                r.members = only;
            }
            self.list_bytes -= list.bytes();
            self.lists.remove(id);
        }
        left
    }

    /// Bytes that moving records and lists together would give back.
    pub(crate) fn loose_bytes(&self) -> usize {
        self.records.loose_bytes() + self.lists.loose_bytes()
    }

    /// Where among its tags the member at `position` has this one, if that was noted; else any number.
    pub(crate) fn place(&self, record: u32, position: u32) -> usize {
        let members = self.records.get(record).map_or(EMPTY, |r| r.members);
        if members == EMPTY || members & LIST == 0 {
            return 0;
        }
        let list = self.lists.get(members & !LIST);
        list.map_or(0, |list| list.place(position))
    }

    /// The member at `position` has another id now.
    pub(crate) fn renumber_member(&mut self, record: u32, position: u32, entry: u32) {
        let Some(r) = self.records.get_mut(record) else {
            return;
        };
        if r.members == EMPTY || r.members & LIST == 0 {
            r.members = entry;
        } else if let Some(list) = self.lists.get_mut(r.members & !LIST) {
            list.renumber(position, entry);
        }
    }

    /// Moves a record's list down, of which only the record knows.
    pub(crate) fn move_list(&mut self, record: u32) {
        let Some(r) = self.records.get_mut(record) else {
            return;
        };
        if r.members != EMPTY
            && r.members & LIST != 0
            && let Some(list) = self.lists.move_down(r.members & !LIST)
        {
            r.members = LIST | list;
        }
    }

    /// Has a record's list give back what it has no use for. O(1,024).
    pub(crate) fn tidy_list(&mut self, record: u32) {
        let members = self.records.get(record).map_or(EMPTY, |r| r.members);
        if members != EMPTY
            && members & LIST != 0
            && let Some(list) = self.lists.get_mut(members & !LIST)
        {
            let before = list.bytes();
            list.tidy();
            self.list_bytes = self.list_bytes + list.bytes() - before;
        }
    }

    /// Whether [`Tags::move_record`] would move the record.
    pub(crate) fn can_move(&self, record: u32) -> bool {
        self.records.can_move_down(record)
    }

    /// Moves a record down and returns its new id, which names and members must be told.
    pub(crate) fn move_record(&mut self, record: u32) -> Option<u32> {
        self.records.move_down(record)
    }

    /// A pass of compaction begins.
    pub(crate) fn begin_pass(&mut self) {
        self.records.begin_pass();
        self.lists.begin_pass();
    }

    /// Gives back what the directory of records takes beyond the last chunk; false if `steps` end before.
    pub(crate) fn trim_records(&mut self, steps: &mut usize) -> bool {
        self.records.trim(steps)
    }

    /// [`Tags::trim_records`] for lists.
    pub(crate) fn trim_lists(&mut self, steps: &mut usize) -> bool {
        self.lists.trim(steps)
    }

    /// Makes a record without members.
    pub(crate) fn insert(&mut self, name: &[u8], hash: u64, of: Class) -> u32 {
        self.name_bytes += class(name.len());
        self.records.insert(Record {
            name: name.into(),
            bits: short(hash) | of.bit(),
            members: EMPTY,
        })
    }

    /// Frees a record without members.
    pub(crate) fn remove(&mut self, record: u32) {
        debug_assert_eq!(self.len(record), 0);
        while self.bury(record) {}
    }

    /// Frees a record whose members will never be looked at again, or a piece of its list; true while there is more.
    pub(crate) fn bury(&mut self, record: u32) -> bool {
        /// Chunks of a list freed in one step.
        const CHUNKS: usize = 16;
        let Some(r) = self.records.get(record) else {
            return false;
        };
        if r.members != EMPTY
            && r.members & LIST != 0
            && let Some(list) = self.lists.get_mut(r.members & !LIST)
        {
            let before = list.bytes();
            let more = list.shed(CHUNKS);
            self.list_bytes = self.list_bytes + list.bytes() - before;
            if more {
                return true;
            }
            self.list_bytes -= list.bytes();
            self.lists.remove(r.members & !LIST);
        }
        if let Some(r) = self.records.remove(record) {
            self.name_bytes -= class(r.name.len());
        }
        false
    }

    /// Bytes allocated for records, names and lists. O(1).
    pub(crate) fn bytes(&self) -> usize {
        self.records.bytes() + self.lists.bytes() + self.name_bytes + self.list_bytes
    }

    /// Bytes that a membership takes outside of its entry: its place in a list; all of the record if it has no list.
    pub(crate) fn bytes_of_membership(&self, record: u32) -> usize {
        match self.records.get(record) {
            None => 0,
            Some(r) if r.members == EMPTY || r.members & LIST == 0 => {
                RECORD + class(r.name.len()) + crate::table::SLOT
            }
            Some(r) => self
                .lists
                .get(r.members & !LIST)
                .map_or(0, |list| list.bytes() / (list.len() as usize).max(1)),
        }
    }
}

/// How a record compares with a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Same {
    Nothing,
    /// Only 29 bits of their hashes are the same.
    Hash,
    Record,
}

/// The bits of a hash that a record keeps.
#[inline]
pub(crate) fn short(hash: u64) -> u32 {
    hash as u32 >> 3
}
