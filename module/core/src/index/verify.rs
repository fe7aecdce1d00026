//! The self-check: the index compared with the keyspace, entry by entry.

use std::collections::HashSet;

use super::{Db, Index};
use crate::entry::Entry;
use crate::tags::Fate;

impl Index {
    /// The entries of a database that are in the index and not among these, which a scan of the keyspace found.
    /// O(entries): for tests.
    pub fn not_among(&self, db: usize, keyspace: &[(Vec<u8>, Entry)]) -> Vec<Entry> {
        let found: HashSet<_> = keyspace.iter().map(|(_, entry)| entry.as_raw()).collect();
        let Some(home) = self.dbs.get(db) else {
            return Vec::new();
        };
        let all = (0..home.entries.bound()).filter_map(|id| home.entries.get(id));
        all.filter(|entry| !found.contains(&entry.as_raw()))
            .copied()
            .collect()
    }

    /// Compares the index of a database with the entries found in its keyspace, both ways.
    ///
    /// # Errors
    /// The first disagreement, in words. O(entries + memberships): for tests.
    pub fn verify(&mut self, db: usize, keyspace: &[(Vec<u8>, Entry)]) -> Result<(), String> {
        self.settle();
        self.dbs.verify(&self.tags, self.floor)?;
        let empty = Db::default();
        let home = self.dbs.get(db).unwrap_or(&empty);
        let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
        if home.entries.len() != keyspace.len() {
            return Err(format!(
                "db {db}: {} entries in the index, {} in the keyspace",
                home.entries.len(),
                keyspace.len()
            ));
        }
        let dead_queue: HashSet<&u32> = home.dead.iter().collect();
        let soft_queue: HashSet<u32> = self.softs.iter(&home.soft).collect();
        let (mut memberships, mut payload_bytes) = (0, 0);
        for (key, entry) in keyspace {
            let name = show(key);
            if entry.key() != &key[..] {
                return Err(format!(
                    "db {db}: {name} holds an entry that thinks it is {}",
                    show(entry.key())
                ));
            }
            if home.entries.get(entry.id()) != Some(entry) {
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
                let (dead, soft) = match self.tags.fate(*record) {
                    Fate::Live => (false, false),
                    Fate::Dead => (true, false),
                    Fate::Soft => (false, true),
                };
                let queued =
                    dead_queue.contains(record) && dead || soft_queue.contains(record) && soft;
                let named = home.soft_names.contains(&self.tags, *record);
                if listed == queued
                    || listed == (dead || soft)
                    || named != self.softs.is_listed(*record)
                {
                    return Err(format!(
                        "db {db}: tag {} of {name} is neither live nor soft nor dead",
                        show(self.tags.name(*record))
                    ));
                }
            }
            memberships += entry.tags().len();
            payload_bytes += entry.value().len();
        }
        let members = |record| self.tags.len(record) as usize;
        let pending = home.dead.iter().copied().chain(soft_queue).map(members);
        let pending: usize = pending.sum();
        let listed = home.names.iter().map(members).sum::<usize>() + pending;
        if listed != memberships || home.memberships != memberships || home.pending != pending {
            return Err(format!(
                "db {db}: {listed} members listed, {} counted, {memberships} carried; {pending} dead or soft, {} counted",
                home.memberships, home.pending
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
