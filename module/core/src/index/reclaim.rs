//! What is left to do after an invalidation, handed out piece by piece.

use super::{Db, Index, Verdict};
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
        /// When it became stale.
        since: Epoch,
    },
}

/// Ids of live entries, stale ids and empty records that one call looks at.
const LOOKS: usize = 1000;

impl Index {
    /// Whether there is anything to free, dead entries or remains of flushed databases.
    pub fn has_pending(&mut self) -> bool {
        self.can_bury() || self.dbs.first_busy().is_some()
    }

    /// What is to be done next. The caller does it, which takes the entry off the list, and asks again.
    ///
    /// Amortized O(1); a call looks at no more than a thousand ids of live entries, stale ids and empty records before
    /// it answers `None` with [`Index::has_pending`] still true.
    pub fn next_task(&mut self) -> Option<Task> {
        let mut looks = LOOKS;
        loop {
            self.dbs.count(&self.tags, self.floor);
            let db = self.dbs.first_busy().filter(|_| looks > 0)?;
            looks = looks.saturating_sub(1 + self.drop_empty(db, looks));
            let home = self.dbs.get_mut(db)?;
            let last = |record: u32| home.entries.get(self.tags.last(record)?).copied();
            if let Some(record) = home.dead.front() {
                let entry = last(record)?;
                return Some(Task::Delete { db, entry });
            }
            if let Some(entry) = self.softs.first(&home.soft).and_then(last) {
                return Some(match self.judge(&entry) {
                    Verdict::Soft(since) => Task::Shorten { db, entry, since },
                    Verdict::Dead | Verdict::Live => Task::Delete { db, entry },
                });
            }
            let floor = self.floor;
            if let Some(entry) = home
                .next_condemned(floor, &mut looks)
                .or_else(|| home.next_swept(floor, &mut looks))
            {
                return Some(Task::Delete { db, entry });
            }
        }
    }
}

impl Db {
    /// The last condemned entry that is there; those behind it are forgotten.
    pub(super) fn next_condemned(&mut self, floor: Epoch, looks: &mut usize) -> Option<Entry> {
        while *looks > 0 {
            work::step(1);
            *looks -= 1;
            let entry = self.entries.get(self.condemned.back()?).copied();
            // It stays on the list until it is gone.
            if entry.is_some_and(|entry| entry.birth() < floor) {
                return entry;
            }
            self.condemned.pop_back();
        }
        None
    }

    /// The next entry below the floor.
    pub(super) fn next_swept(&mut self, floor: Epoch, looks: &mut usize) -> Option<Entry> {
        let from = self.sweep?;
        let to = self.entries.bound().min(from.saturating_add(*looks as u32));
        *looks = looks.saturating_sub(to.saturating_sub(from) as usize);
        let below = |id: u32| {
            work::step(1);
            let entry = self.entries.get(id).copied()?;
            (entry.birth() < floor).then_some((id, entry))
        };
        let found = (from..to).find_map(below);
        self.sweep = match found {
            Some((id, _)) => Some(id),
            None if to == self.entries.bound() => None,
            None => Some(to),
        };
        found.map(|(_, entry)| entry)
    }
}
