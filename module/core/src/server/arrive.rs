//! Entries that enter and leave the keyspace without a command of ours: loaded, restored, copied, renamed, deleted.
//!
//! Redis asks for the value of a loaded or copied key first and announces the key afterwards, or never: what it frees
//! unannounced was never linked (`awaited.rs`).

use super::{Edge, Server};
use crate::encode::Decoded;
use crate::entry::{Attributes, Entry};
use crate::index::Verdict;

/// An entry that was loaded or copied and is not in the keyspace yet.
pub(super) struct Pending {
    entry: Entry,
    key: Box<[u8]>,
    tags: Vec<Box<[u8]>>,
}

impl<W> Server<W> {
    /// Makes an entry from what a file or another server says.
    pub fn load(
        &mut self,
        key: &[u8],
        value: &[u8],
        decoded: Decoded,
        drop_on_restart: bool,
        edge: &impl Edge,
    ) -> Entry {
        self.fills.observe(decoded.attributes.birth);
        let dropped = match self.loading {
            true => self.drops_what_it_loads(drop_on_restart),
            // A replica takes what its primary took: if that was dead, its deletion follows.
            false => edge.is_primary() && self.fills.may_have_missed_an_invalidation(&decoded),
        };
        let Decoded {
            attributes, tags, ..
        } = decoded;
        if dropped || attributes.birth < self.index.floor() {
            return self.prepare(key, b"", Attributes::HUSK, Vec::new());
        }
        self.prepare(key, value, attributes, tags)
    }

    /// Makes a copy of an entry for another key.
    pub fn duplicate(&mut self, key: &[u8], entry: &Entry) -> Entry {
        if self.is_husk(entry) {
            return self.prepare(key, b"", Attributes::HUSK, Vec::new());
        }
        let tags = self.index.names(entry).map(Box::from).collect();
        self.prepare(key, entry.value(), entry.attributes(), tags)
    }

    fn prepare(
        &mut self,
        key: &[u8],
        value: &[u8],
        attributes: Attributes,
        tags: Vec<Box<[u8]>>,
    ) -> Entry {
        let entry = Entry::new(key, value, attributes, &vec![0; tags.len()]);
        self.awaited.begin(entry);
        self.pending = Some(Pending {
            entry,
            key: key.into(),
            tags,
        });
        entry
    }

    /// Redis announces that the key just loaded or copied is in the keyspace.
    ///
    /// `found` is what the key holds, where that may be asked: during a load it must not, and then the name decides.
    pub fn arrived(&mut self, db: usize, key: &[u8], found: Option<Entry>, loading: bool) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        let is_alive = self.awaited.end(pending.entry);
        if !is_alive || *pending.key != *key || !loading && found != Some(pending.entry) {
            return;
        }
        let tags = pending.tags.iter().map(|tag| &**tag);
        self.index.adopt(db, pending.entry, tags, loading);
    }

    /// Redis announces a new name for an entry that just left the index under its old one. Returns the entry that is
    /// to take its place: the key is part of the entry.
    pub fn renamed(&mut self, db: usize, key: &[u8], entry: Entry) -> Option<Entry> {
        if entry.is_linked() {
            return None;
        }
        // If anything changed since it left, its records and their names may be gone.
        let is_known = self.index.just_left(entry) && self.index.judge(&entry) == Verdict::Live;
        let (value, attributes, tags): (&[u8], _, Vec<Box<[u8]>>) = match is_known {
            false => (b"", Attributes::HUSK, Vec::new()),
            true => {
                let tags = self.index.names(&entry).map(Box::from).collect();
                (entry.value(), entry.attributes(), tags)
            }
        };
        let fresh = Entry::new(key, value, attributes, &vec![0; tags.len()]);
        self.index
            .adopt(db, fresh, tags.iter().map(|tag| &**tag), false);
        Some(fresh)
    }

    /// The entry leaves the keyspace, or its name.
    pub fn left(&mut self, db: usize, entry: Entry) {
        self.feed.key_left(entry.key());
        self.index.unlink(db, entry);
    }

    /// Whether nothing but the key of an entry may travel. A softly invalidated one whose turn has not come is no better
    /// than a dead one: in a moment its deadline would have been shortened, and elsewhere no one knows to what. And of one
    /// that no index holds no invalidation could tell.
    pub(super) fn is_husk(&self, entry: &Entry) -> bool {
        !entry.is_linked() || self.index.judge(entry) != Verdict::Live
    }
}
