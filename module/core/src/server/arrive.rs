//! Entries that enter and leave the keyspace without a command of ours: loaded, restored, copied, renamed, deleted.
//!
//! Redis asks for the value of a loaded or copied key first and announces the key afterwards, or never: what it frees
//! unannounced was never linked (`awaited.rs`).

use super::{Edge, Server, softened_end_ms};
use crate::encode::{Decoded, TagNames};
use crate::entry::{Attributes, Entry, NEVER, UNLINKED};
use crate::epoch::Epoch;
use crate::index::Verdict;

/// An entry that was loaded or copied and is not in the keyspace yet.
pub(super) struct Pending {
    entry: Entry,
    key: Vec<u8>,
    tags: TagNames<'static>,
    /// It says itself when it ends; else the deadline of its key does.
    says_its_end: bool,
    /// The key that it is a copy of.
    copied_from: Option<Box<[u8]>>,
}

/// Room for the key and the names of the next entry that is loaded: a file has millions, one after the other.
#[derive(Default)]
pub(super) struct Spare {
    key: Vec<u8>,
    names: Vec<u8>,
}

impl Spare {
    fn take(&mut self) -> (Vec<u8>, Vec<u8>) {
        (
            std::mem::take(&mut self.key),
            std::mem::take(&mut self.names),
        )
    }

    fn keep(&mut self, pending: Pending, loading: bool) {
        // What is larger is not kept: for good that is little, for INFO does not count it.
        let most = if loading { 64 * 1024 } else { 1024 };
        let emptied = |mut buffer: Vec<u8>| match buffer.capacity() > most {
            true => Vec::new(),
            false => {
                buffer.clear();
                buffer
            }
        };
        self.key = emptied(pending.key);
        self.names = emptied(pending.tags.into_buffer());
    }
}

/// What came with a key that Redis is about to announce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arriving<'a> {
    /// Its tags.
    pub tags: &'a TagNames<'static>,
    /// The key that it is a copy of; `None` if it came by RESTORE.
    pub copied_from: Option<&'a [u8]>,
}

/// What an entry is when Redis announces its new name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Renamed {
    /// Linked already: nothing is to be done.
    Known,
    /// This one is to take its place: the key is part of the entry.
    Fresh(Entry),
    /// The name is too long for an entry: the key is to be deleted.
    TooLong,
}

impl<W> Server<W> {
    /// Makes an entry from what a file or another server says; `read` is `None` for what could not be read.
    ///
    /// What is not credible becomes a dead entry while a file is being loaded, so that the rest of the file is; else it
    /// is refused (`None`), and its sender hears that.
    pub fn load(
        &mut self,
        key: &[u8],
        value: &[u8],
        read: Option<Decoded<'_>>,
        drop_on_restart: bool,
        edge: &impl Edge,
    ) -> Option<Entry> {
        let credible = read.filter(|decoded| {
            let epochs = [decoded.attributes.birth, decoded.saved.epoch];
            Entry::fits(key, value) && epochs.iter().all(|epoch| self.credible(*epoch, edge))
        });
        let Some(decoded) = credible else {
            return match self.loading {
                true => self.prepare_husk(key),
                false => None,
            };
        };
        self.fills.observe(decoded.attributes.birth);
        let dropped = match self.loading {
            true => self.drops_what_it_loads(drop_on_restart),
            // A replica takes what its primary took: if that was dead, its deletion follows.
            false => edge.is_primary() && self.fills.may_have_missed_an_invalidation(&decoded),
        };
        if dropped || decoded.attributes.birth < self.index.floor() {
            return self.prepare_husk(key);
        }
        let Decoded {
            attributes,
            says_its_end,
            tags,
            ..
        } = decoded;
        self.prepare(key, value, attributes, &tags, says_its_end)
    }

    /// Whether an epoch made elsewhere can be true. A replica believes its primary, whose clock may be ahead of its
    /// own.
    pub(super) fn credible(&self, epoch: Epoch, edge: &impl Edge) -> bool {
        // A node of a cluster loads before it has found its primary, and Redis calls it a primary meanwhile.
        let follows = || self.loading && self.loads_as_replica || !edge.is_primary();
        // Most epochs are in the past, and then the edge need not be asked.
        epoch < Epoch::END
            && (self.fills.has_reached(epoch)
                || follows()
                || self.fills.believes(epoch, edge.now_ms()))
    }

    /// Makes a copy of an entry for another key; `None` if that is too long a key.
    pub fn duplicate(&mut self, key: &[u8], entry: &Entry) -> Option<Entry> {
        let Some(attributes) = self.travels(entry) else {
            return self.prepare_husk(key);
        };
        let tags: TagNames<'_> = self.index.names(entry).collect();
        let copy = self.prepare(key, entry.value(), attributes, &tags, true);
        if let Some(pending) = &mut self.pending {
            pending.copied_from = Some(entry.key().into());
        }
        copy
    }

    fn prepare_husk(&mut self, key: &[u8]) -> Option<Entry> {
        self.prepare(key, b"", Attributes::HUSK, &TagNames::default(), true)
    }

    fn prepare(
        &mut self,
        key: &[u8],
        value: &[u8],
        attributes: Attributes,
        tags: &TagNames<'_>,
        says_its_end: bool,
    ) -> Option<Entry> {
        if !Entry::fits(key, value) {
            return None;
        }
        let entry = Entry::blank(key, value, attributes, tags.len());
        self.awaited.begin(entry);
        if let Some(before) = self.pending.take() {
            self.spare.keep(before, self.loading);
        }
        let (mut name, names) = self.spare.take();
        name.extend_from_slice(key);
        self.pending = Some(Pending {
            entry,
            key: name,
            tags: tags.copied_to(names),
            says_its_end,
            copied_from: None,
        });
        Some(entry)
    }

    /// What is about to be announced, if a user must be allowed to write its tags: outside of a load, and if it has
    /// any.
    pub fn arriving(&self) -> Option<Arriving<'_>> {
        let pending = self.pending.as_ref().filter(|_| !self.loading)?;
        (!pending.tags.is_empty()).then_some(Arriving {
            tags: &pending.tags,
            copied_from: pending.copied_from.as_deref(),
        })
    }

    /// [`Server::arrived`] for an entry whose tags its sender may not write: the husk that is to take its place in the
    /// keyspace, which reclaim then removes, on replicas as well. `None` if nothing is to be replaced.
    pub fn arrived_forbidden(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<(Entry, Option<u64>)>,
    ) -> Option<Entry> {
        let pending = self.pending.take()?;
        let is_alive = self.awaited.end(pending.entry);
        let is_there = found.is_some_and(|(found, _)| found == pending.entry);
        if !is_alive || *pending.key != *key || !is_there {
            return None;
        }
        let husk = Entry::new(key, b"", Attributes::HUSK, &[]);
        self.index.adopt(db, husk, std::iter::empty(), false);
        Some(husk)
    }

    /// Whether the deadline of the key that is announced must be known: the entry does not say when it ends.
    pub fn needs_the_deadline(&self) -> bool {
        self.pending.as_ref().is_some_and(|p| !p.says_its_end)
    }

    /// Redis announces that the key just loaded or copied is in the keyspace.
    ///
    /// `found` is what the key holds and when it expires, where that may be asked: during a load it must not, and then
    /// the name decides.
    pub fn arrived(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<(Entry, Option<u64>)>,
        loading: bool,
    ) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        self.link_arrived(db, key, &pending, found, loading);
        self.spare.keep(pending, self.loading);
    }

    fn link_arrived(
        &mut self,
        db: usize,
        key: &[u8],
        pending: &Pending,
        found: Option<(Entry, Option<u64>)>,
        loading: bool,
    ) {
        let mut entry = pending.entry;
        let is_alive = self.awaited.end(entry);
        let found = found.filter(|(found, _)| *found == entry);
        if !is_alive || *pending.key != *key || !loading && found.is_none() {
            return;
        }
        if !pending.says_its_end {
            match found {
                Some((_, deadline_ms)) => entry.end_by(deadline_ms.unwrap_or(NEVER)),
                // When it stops being fresh is not known: it has, and Redis removes it at its end.
                None if entry.has_swr() => entry.soften(NEVER),
                None => {}
            }
        }
        self.index.adopt(db, entry, pending.tags.iter(), loading);
    }

    /// Redis announces a new name for an entry that just left the index under its old one.
    pub fn renamed(&mut self, db: usize, key: &[u8], mut entry: Entry) -> Renamed {
        if self.index.lists(db, entry.id(), entry) {
            return Renamed::Known;
        }
        // The number that it has was another index's.
        entry.set_id(UNLINKED);
        // If anything changed since it left, its records and their names may be gone.
        let worth = match self.index.just_left(entry) {
            true => self.worth(&entry),
            false => None,
        };
        let (value, attributes, tags): (&[u8], _, TagNames<'_>) = match worth {
            None => (b"", Attributes::HUSK, TagNames::default()),
            Some(attributes) => (
                entry.value(),
                attributes,
                self.index.names(&entry).collect(),
            ),
        };
        if !Entry::fits(key, value) {
            return Renamed::TooLong;
        }
        let fresh = Entry::blank(key, value, attributes, tags.len());
        self.index.adopt(db, fresh, tags.iter(), false);
        Renamed::Fresh(fresh)
    }

    /// The entry leaves the keyspace, or its name. What a soft invalidation made of it goes into the entry first: the
    /// record that says so may be gone before the entry is announced under another name.
    pub fn left(&mut self, db: usize, mut entry: Entry) {
        self.feed.key_left(entry.key(), entry.ends_ms());
        // Of one that was never linked the tags say nothing.
        if self.index.lists(db, entry.id(), entry)
            && let Verdict::Soft(since) = self.index.verdict(&mut entry)
        {
            let ends_ms = softened_end_ms(&entry, since);
            self.index.shortened(db, entry, ends_ms);
        }
        self.index.unlink(db, entry);
    }

    /// What of an entry may travel to a file, another server or another key; `None` if nothing but the key. Of one that
    /// no index holds no invalidation could tell.
    pub(super) fn travels(&self, entry: &Entry) -> Option<Attributes> {
        match entry.is_linked() {
            true => self.worth(entry),
            false => None,
        }
    }
}
