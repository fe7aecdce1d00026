//! The self-check: the index compared with the keyspace, entry by entry.

use std::collections::HashSet;

use super::{Db, Index};
use crate::entry::Entry;

impl Index {
    /// Compares the index of a database with the entries found in its keyspace, both ways.
    ///
    /// # Errors
    /// The first disagreement, in words. O(entries + memberships): for tests.
    pub fn verify(&mut self, db: usize, keyspace: &[(Vec<u8>, Entry)]) -> Result<(), String> {
        self.settle();
        let empty = Db::default();
        let home = self.dbs.get(db).unwrap_or(&empty);
        let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
        if home.entries.0.len() != keyspace.len() {
            return Err(format!(
                "db {db}: {} entries in the index, {} in the keyspace",
                home.entries.0.len(),
                keyspace.len()
            ));
        }
        let dead_queue: HashSet<&u32> = home.dead.iter().collect();
        let soft_queue: HashSet<&u32> = home.soft.iter().collect();
        let (mut memberships, mut payload_bytes) = (0, 0);
        for (key, entry) in keyspace {
            let name = show(key);
            if entry.key() != &key[..] {
                return Err(format!(
                    "db {db}: {name} holds an entry that thinks it is {}",
                    show(entry.key())
                ));
            }
            if home.entries.0.get(entry.id()) != Some(entry) {
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
                let dead = self.tags.is_dead(*record);
                let soft = self.tags.is_soft(*record);
                let queued =
                    dead_queue.contains(record) && dead || soft_queue.contains(record) && soft;
                let named = soft && home.soft_names.contains(&self.tags, *record);
                if listed == queued || listed != self.tags.is_live(*record) || named != soft {
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
        let listed: usize = home.names.iter().map(members).sum::<usize>()
            + home
                .dead
                .iter()
                .chain(&home.soft)
                .map(|r| members(*r))
                .sum::<usize>();
        if listed != memberships || home.memberships != memberships {
            return Err(format!(
                "db {db}: {listed} members listed, {} counted, {memberships} carried",
                home.memberships
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
