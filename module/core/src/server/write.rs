//! SET: whether it stores, and the cheapest way of storing that keeps the index exact.

use super::Server;
use crate::command::{Condition as When, Set};
use crate::entry::{Attributes, Entry};
use crate::epoch::Epoch;
use crate::fills::Refusal;
use crate::index::Verdict;

/// What a SET stores, once it is decided that it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// What the entry is made with.
    pub attributes: Attributes,
    /// When its key expires, in milliseconds since 1970.
    pub deadline_ms: Option<u64>,
}

/// An entry to be stored under a key.
pub struct Store<'a, T> {
    /// The database.
    pub db: usize,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The tags, in any order; one that is given twice counts once.
    pub tags: T,
    /// Birth, flags and SWR window.
    pub attributes: Attributes,
    /// What the key holds now.
    pub present: Option<Entry>,
}

/// What is left to do in the keyspace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Stored {
    /// Nothing: the value was put into the memory of the one before.
    InPlace,
    /// The key is to hold this entry; it held none.
    New(Entry),
    /// The key is to hold this entry in the place of the present one, which is to be freed.
    Replaced(Entry),
}

impl<W> Server<W> {
    /// Decides whether a SET stores, without changing anything but the counters; `None` if it does not.
    pub fn admit<'a>(
        &mut self,
        set: &Set,
        tags: impl Iterator<Item = &'a [u8]>,
        mut present: Option<Entry>,
        now_ms: u64,
    ) -> Option<Admitted> {
        let live = present
            .as_mut()
            .is_some_and(|entry| entry.is_linked() && self.index.verdict(entry) != Verdict::Dead);
        let allowed = match set.condition {
            When::Always => true,
            When::Absent => !live,
            When::Present => live,
        };
        if !allowed {
            return None;
        }
        let floor = self.index.floor();
        let birth = match self.fills.birth(set.token, tags, set.manual, floor, now_ms) {
            Ok(birth) => birth,
            Err(refusal) => {
                self.stats.refused_fills += 1;
                self.stats.refused_fills_in_doubt += u64::from(refusal == Refusal::InDoubt);
                return None;
            }
        };
        self.stats.fills += 1;
        let attributes = Attributes {
            birth,
            manual: set.manual,
            swr_ms: set.swr_ms,
            softened: false,
        };
        let deadline_ms = set
            .ttl_ms
            .map(|ttl_ms| now_ms + ttl_ms + u64::from(set.swr_ms));
        Some(Admitted {
            attributes,
            deadline_ms,
        })
    }

    /// Whether an entry that a primary stored, or that stands in an append-only file, is to be stored here.
    pub fn admit_replicated(&mut self, birth: Epoch, drop_on_restart: bool) -> bool {
        self.fills.observe(birth);
        // Not stored, rather than stored and dead: nothing in the file can make it live again.
        !self.drops_what_it_loads(drop_on_restart)
    }

    /// Puts a value into the index: into the same memory, into a new entry in the same place of the index, or into a new
    /// entry with its own place. The keyspace must follow at once, as the result says.
    pub fn store<'a>(&mut self, store: Store<'_, impl Iterator<Item = &'a [u8]>>) -> Stored {
        let Store {
            db,
            key,
            value,
            tags,
            attributes,
            present,
        } = store;
        self.feed.key_changed(key, false);
        let Server { index, records, .. } = self;
        index.resolve_like(db, tags, attributes.manual, present, records);
        let Some(mut old) = present else {
            let new = Entry::new(key, value, attributes, records);
            index.link(db, new);
            return Stored::New(new);
        };
        if !old.is_linked() {
            let new = Entry::new(key, value, attributes, records);
            index.link(db, new);
            return Stored::Replaced(new);
        }
        let before = old.value().len();
        if old.tags() == &records[..]
            && old.is_manual() == attributes.manual
            && old.overwrite(value, attributes)
        {
            index.resized(db, before, value.len());
            return Stored::InPlace;
        }
        let new = Entry::new(key, value, attributes, records);
        index.replace(db, old, new);
        Stored::Replaced(new)
    }
}
