//! What is left to do after an invalidation or a flush, handed out piece by piece.

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::{Db, Index, Verdict, leave};
use crate::entry::Entry;
use crate::epoch::Epoch;

/// What is left of a flushed database: records to be freed a piece at a time.
pub(super) struct Discarded {
    shards: Vec<HashTable<u32>>,
    dead: VecDeque<u32>,
}

/// What is to be done with an entry, in its database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// It is dead: delete its key.
    Delete {
        /// The database.
        db: usize,
        /// The entry.
        entry: Entry,
    },
    /// It was softly invalidated: see that it expires one SWR window after that, then call [`Index::shortened`].
    Shorten {
        /// The database.
        db: usize,
        /// The entry.
        entry: Entry,
        /// When it was invalidated.
        epoch: Epoch,
    },
}

impl Index {
    /// Whether there is anything to free, dead entries or remains of flushed databases.
    pub fn has_pending(&self) -> bool {
        self.doubtful_records > 0
            || !self.graveyard.is_empty()
            || self
                .dbs
                .iter()
                .any(|db| db.sweep.is_some() || !db.condemned.is_empty())
    }

    /// What is to be done next. The caller does it, which takes the entry off the list, and asks again.
    ///
    /// Amortized O(1); a call looks at no more than a thousand ids of live entries before it answers `None` with
    /// [`Index::has_pending`] still true.
    pub fn next_task(&mut self) -> Option<Task> {
        for db in 0..self.dbs.len() {
            self.drop_empty(db);
            let home = &self.dbs[db];
            let last = |record: &u32| home.entries.0.get(self.tags.last(*record)?).copied();
            if let Some(entry) = home.dead.front().and_then(last) {
                return Some(Task::Delete { db, entry });
            }
            if let Some(entry) = home.soft.front().and_then(last) {
                return Some(match self.judge(&entry) {
                    Verdict::Soft(epoch) => Task::Shorten { db, entry, epoch },
                    Verdict::Dead | Verdict::Live => Task::Delete { db, entry },
                });
            }
            let below_floor = self.next_condemned(db).or_else(|| self.next_swept(db));
            if let Some(entry) = below_floor {
                return Some(Task::Delete { db, entry });
            }
        }
        None
    }

    fn next_condemned(&mut self, db: usize) -> Option<Entry> {
        let home = &mut self.dbs[db];
        while let Some(id) = home.condemned.last() {
            let entry = home.entries.0.get(*id).copied();
            // It stays on the list until it is gone.
            if entry.is_some_and(|entry| entry.birth() < self.floor) {
                return entry;
            }
            home.condemned.pop();
        }
        None
    }

    fn next_swept(&mut self, db: usize) -> Option<Entry> {
        let home = &mut self.dbs[db];
        let from = home.sweep?;
        let to = home.entries.0.bound().min(from.saturating_add(1000));
        let below = |id: u32| {
            let entry = home.entries.0.get(id).copied()?;
            (entry.birth() < self.floor).then_some((id, entry))
        };
        let found = (from..to).find_map(below);
        home.sweep = match found {
            Some((id, _)) => Some(id),
            None if to == home.entries.0.bound() => None,
            None => Some(to),
        };
        found.map(|(_, entry)| entry)
    }

    /// A softly invalidated entry got the deadline it deserves: from now on a mark in the entry tells that it is stale, and
    /// its tags are live ones again, so that a hard invalidation reaches it. O(tags). The entry is linked in this database.
    pub fn shortened(&mut self, db: usize, mut entry: Entry) {
        self.settle();
        let Some(home) = self.dbs.get_mut(db) else {
            return;
        };
        let id = entry.id();
        entry.soften();
        for at in 0..entry.tags().len() {
            let record = entry.tags()[at];
            if !self.tags.is_soft(record) {
                continue;
            }
            leave(
                &mut self.tags,
                &mut home.entries,
                record,
                entry.position(at),
                at,
            );
            let fresh = home.names.find_or_insert_like(&mut self.tags, record);
            entry.set_tag(at, fresh);
            let position = self.tags.push(fresh, id);
            entry.set_position(at, position);
        }
        self.drop_empty(db);
    }

    /// Frees a bounded piece of what flushed databases left behind; true while there is more.
    pub fn bury(&mut self) -> bool {
        let Some(discarded) = self.graveyard.last_mut() else {
            return false;
        };
        if let Some(shard) = discarded.shards.pop() {
            for record in shard {
                self.tags.remove(record);
            }
        } else if discarded.dead.is_empty() {
            self.graveyard.pop();
        } else {
            let count = discarded.dead.len().min(1000);
            for record in discarded.dead.drain(..count) {
                self.tags.remove(record);
            }
        }
        !self.graveyard.is_empty()
    }

    /// Drops dead and soft records whose last member is gone, as far as they are first in their queues.
    pub(super) fn drop_empty(&mut self, db: usize) {
        let Some(home) = self.dbs.get_mut(db) else {
            return;
        };
        while let Some(record) = home
            .dead
            .front()
            .copied()
            .filter(|r| self.tags.len(*r) == 0)
        {
            home.dead.pop_front();
            self.tags.remove(record);
            self.doubtful_records -= 1;
        }
        while let Some(record) = home
            .soft
            .front()
            .copied()
            .filter(|r| self.tags.len(*r) == 0)
        {
            home.soft.pop_front();
            home.soft_names.remove(&self.tags, record);
            self.soft_epochs.remove(&record);
            self.tags.remove(record);
            self.doubtful_records -= 1;
        }
    }

    /// Forgets a database without looking at its entries, which may already be under the hands of a thread that frees
    /// them. O(1) but for the slab of ids; the records are freed by [`Index::bury`].
    pub fn discard(&mut self, db: usize) {
        self.settle();
        if let Some(home) = self.dbs.get_mut(db) {
            let home = std::mem::take(home);
            self.discard_db(home);
        }
    }

    /// [`Index::discard`] for every database.
    pub fn discard_all(&mut self) {
        for db in 0..self.dbs.len() {
            self.discard(db);
        }
    }

    fn discard_db(&mut self, mut home: Db) {
        self.doubtful_records -= home.dead.len() + home.soft.len();
        for record in &home.soft {
            self.soft_epochs.remove(record);
        }
        home.dead.append(&mut home.soft);
        let discarded = Discarded {
            shards: home.names.into_shards(),
            dead: home.dead,
        };
        if !discarded.shards.is_empty() || !discarded.dead.is_empty() {
            self.graveyard.push(discarded);
        }
    }

    /// Exchanges two databases. O(1).
    pub fn swap(&mut self, a: usize, b: usize) {
        self.settle();
        self.db(a.max(b));
        self.dbs.swap(a, b);
    }

    /// Begins to collect a second data set beside the one that is served.
    pub fn begin_staging(&mut self) {
        self.abort_staging();
        self.staging = Some(Vec::new());
    }

    /// The second data set becomes the one that is served.
    pub fn complete_staging(&mut self) {
        if let Some(staged) = self.staging.take() {
            self.discard_all();
            self.dbs = staged;
        }
    }

    /// Forgets the second data set.
    pub fn abort_staging(&mut self) {
        for home in self.staging.take().into_iter().flatten() {
            self.discard_db(home);
        }
    }
}
