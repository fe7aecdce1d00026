//! What a server writes to a file, sends to a replica or to another server, and takes from there.

use std::collections::BTreeMap;

use mcache_core::encode;
use mcache_core::entry::Attributes;
use mcache_core::server;

use super::{DB, Dump, Held, Kept, Op, Server, name};
use crate::world::{Key, tags_of};

impl Server {
    /// What a file, a full synchronisation or MIGRATE says of a key.
    pub(super) fn saved(&mut self, key: Key, held: Held, now_ms: u64) -> Dump {
        let (meta, with_value) = self.core.saved(&held.entry, now_ms);
        let value = if with_value { held.entry.value() } else { b"" };
        Dump {
            key,
            meta,
            value: value.to_vec(),
            deadline_ms: held.deadline_ms,
        }
    }

    /// The value of a key that Redis is given from elsewhere, and its announcement.
    pub(super) fn take_over(
        &mut self,
        dump: &Dump,
        deadline_ms: u64,
        drop: bool,
        loading: bool,
        now_ms: u64,
    ) {
        let read = encode::decode(encode::VERSION, &dump.meta);
        let (key, moment) = (dump.key, self.moment(now_ms, 0));
        let Some(entry) = self.core.load(&[key], &dump.value, read, drop, &moment) else {
            return;
        };
        // As Redis does with what has expired, on a primary: never announced.
        if self.is_primary && deadline_ms <= now_ms {
            self.awaited.is_freed(entry);
            // SAFETY: it is in no keyspace and no index.
            unsafe { entry.free() };
            return;
        }
        self.remove(key);
        self.keyspace.insert(key, Held { entry, deadline_ms });
        let found = Some((entry, Some(deadline_ms)));
        self.core.arrived(DB, &[key], found, loading);
        self.correct_deadline(key);
    }

    /// What the module does whenever the deadline of a key was moved.
    pub(super) fn correct_deadline(&mut self, key: Key) {
        if let Some(held) = self.keyspace.get_mut(&key) {
            let corrected = server::corrected_deadline(&held.entry, Some(held.deadline_ms));
            held.deadline_ms = corrected.unwrap_or(held.deadline_ms);
        }
    }

    /// What a full synchronisation or a file holds.
    pub fn data_set(&mut self, now_ms: u64) -> Vec<Dump> {
        let held: Vec<_> = self.keyspace.iter().map(|(k, held)| (*k, *held)).collect();
        held.into_iter()
            .map(|(key, held)| self.saved(key, held, now_ms))
            .collect()
    }

    /// Reads such a data set: at its start what an earlier run left on disk, later what its primary sends.
    pub fn load(&mut self, file: &[Dump], drop: bool, now_ms: u64) {
        self.core.load_begins(self.is_primary);
        for dump in file {
            self.take_over(dump, dump.deadline_ms, drop, true, now_ms);
        }
        self.core.load_ended();
    }

    /// The files on disk, if any, have been read.
    pub fn started(&mut self) {
        self.core.started();
    }

    /// Does what its primary did.
    pub fn apply(&mut self, op: &Op, now_ms: u64) {
        match op {
            Op::Set {
                key,
                value,
                attributes,
                deadline_ms,
            } => {
                let names = tags_of(*key).map(name);
                let names = names.iter().map(Vec::as_slice);
                let moment = self.moment(now_ms, 0);
                let admitted = self
                    .core
                    .admit_replicated(*attributes, names, true, &moment);
                let attributes = admitted.unwrap_or(Attributes::HUSK);
                self.store(*key, *value, attributes, *deadline_ms);
            }
            Op::Restore(dump, deadline_ms) => {
                self.take_over(dump, *deadline_ms, true, false, now_ms);
            }
            Op::Unlink(key) => {
                self.remove(*key);
            }
            Op::Invalidate(replicated, tag) => {
                let name = name(*tag);
                let names = std::iter::once(&name[..]);
                let moment = self.moment(now_ms, 0);
                self.core
                    .invalidate_replicated(DB, names, *replicated, &moment);
            }
            Op::Shorten { key, ends_ms } => {
                if let Some(held) = self.keyspace.get(key) {
                    self.core.shortened(DB, held.entry, *ends_ms);
                    self.correct_deadline(*key);
                }
            }
            Op::Floor(epoch) => {
                let moment = self.moment(now_ms, 0);
                self.core.floor_replicated(*epoch, &moment);
            }
            Op::Flush => self.flush(now_ms),
        }
    }

    /// A replica has found its primary, and goes on where it was.
    pub fn linked(&mut self) {
        self.core.linked();
    }

    /// What `DEBUG DIGEST` sees: every key that is there, with what is kept of its entry.
    pub fn digest(&mut self) -> BTreeMap<Key, Option<Kept>> {
        let kept = |held: &Held| {
            let (attributes, tags) = self.core.kept(&held.entry)?;
            let tags = tags.map(<[u8]>::to_vec).collect();
            Some((attributes, held.entry.value().to_vec(), tags))
        };
        self.keyspace
            .iter()
            .map(|(k, held)| (*k, kept(held)))
            .collect()
    }

    /// It takes the place of its primary.
    pub fn promote(&mut self, incarnation: u64, drop: bool, now_ms: u64) {
        self.is_primary = true;
        self.core.promoted(incarnation, drop, now_ms);
    }

    /// What MIGRATE sends; nothing for a key that is not there.
    pub fn dump(&mut self, key: Key, now_ms: u64) -> Option<Dump> {
        self.open(key, now_ms);
        let held = *self.keyspace.get(&key)?;
        let mut dump = self.saved(key, held, now_ms);
        // MIGRATE sends what is left, and clocks differ.
        dump.deadline_ms -= now_ms;
        Some(dump)
    }

    pub fn restore(&mut self, dump: &Dump, now_ms: u64) {
        let deadline_ms = now_ms + dump.deadline_ms;
        self.take_over(dump, deadline_ms, true, false, now_ms);
        self.log.push(Op::Restore(dump.clone(), deadline_ms));
    }

    /// MIGRATE is done: the key is elsewhere now, and so are those who wait for it.
    pub fn migrated(&mut self, key: Key) {
        self.unlink(key);
    }
}
