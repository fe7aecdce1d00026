//! What is left to do after an invalidation, handed out piece by piece.

use super::{Index, Verdict};
use crate::entry::Entry;
use crate::epoch::Epoch;
use crate::work;

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

/// Ids of live entries, stale ids and empty records that one call looks at.
const LOOKS: usize = 1000;

impl Index {
    /// Whether there is anything to free, dead entries or remains of flushed databases.
    pub fn has_pending(&self) -> bool {
        self.doubtful_records > 0
            || self.can_bury()
            || self
                .dbs
                .iter()
                .any(|db| db.sweep.is_some() || !db.condemned.is_empty())
    }

    /// What is to be done next. The caller does it, which takes the entry off the list, and asks again.
    ///
    /// Amortized O(1); a call looks at no more than a thousand ids of live entries, stale ids and empty records before
    /// it answers `None` with [`Index::has_pending`] still true.
    pub fn next_task(&mut self) -> Option<Task> {
        for db in 0..self.dbs.len() {
            self.drop_empty(db, LOOKS);
            let home = &self.dbs[db];
            let last = |record: u32| home.entries.get(self.tags.last(record)?).copied();
            if let Some(record) = home.dead.front() {
                let entry = last(record)?;
                return Some(Task::Delete { db, entry });
            }
            if let Some(entry) = self.softs.first(&home.soft).and_then(last) {
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
        for _ in 0..LOOKS {
            work::step(1);
            let entry = home.entries.get(home.condemned.back()?).copied();
            // It stays on the list until it is gone.
            if entry.is_some_and(|entry| entry.birth() < self.floor) {
                return entry;
            }
            home.condemned.pop_back();
        }
        None
    }

    fn next_swept(&mut self, db: usize) -> Option<Entry> {
        let home = &mut self.dbs[db];
        let from = home.sweep?;
        let to = home.entries.bound().min(from.saturating_add(LOOKS as u32));
        let below = |id: u32| {
            work::step(1);
            let entry = home.entries.get(id).copied()?;
            (entry.birth() < self.floor).then_some((id, entry))
        };
        let found = (from..to).find_map(below);
        home.sweep = match found {
            Some((id, _)) => Some(id),
            None if to == home.entries.bound() => None,
            None => Some(to),
        };
        found.map(|(_, entry)| entry)
    }
}
