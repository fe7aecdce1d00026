//! Databases that go away as a whole, and the other work that deletes no key and so is done on replicas, too.
//!
//! A flush takes the database's part of the index away in one move; what was in it is freed by [`Index::bury`], a
//! bounded piece at a time: records of one shard of names, chunks of one long member list, a chunk of ids.

use super::dbs::Dbs;
use super::{Db, Index};
use crate::entry::Entry;
use crate::names::Names;
use crate::queue::Queue;
use crate::slab::Slab;
use crate::soft::Line;
use crate::work;

/// What is left of a flushed database.
pub(super) struct Discarded {
    names: Names,
    soft_names: Names,
    /// Records taken out of a table and not freed yet.
    torn: Vec<u32>,
    dead: Queue,
    soft: Line,
    condemned: Queue,
    entries: Slab<Entry>,
}

impl Discarded {
    /// Bytes allocated.
    pub(super) fn bytes(&self) -> usize {
        self.names.bytes()
            + self.soft_names.bytes()
            + crate::alloc::class(self.torn.capacity() * 4)
            + self.dead.bytes()
            + self.condemned.bytes()
            + self.entries.bytes()
    }
}

/// Records freed, or ids looked at, in one step.
const PIECE: usize = 256;

impl Index {
    /// Whether [`Index::bury`] has something to do.
    pub(super) fn can_bury(&mut self) -> bool {
        self.dbs.count(&self.tags, self.floor);
        !self.graveyard.is_empty()
            || self.wiping.is_some()
            || self.dbs.first_untidy().is_some()
            || self.wants_compaction()
    }

    /// Does a bounded piece of the work that deletes no key: frees remains of flushed databases and records whose
    /// members are gone, forgets what was noted of entries that are, moves together what is left of many. True while
    /// there is more.
    pub fn bury(&mut self) -> bool {
        self.dbs.count(&self.tags, self.floor);
        if !self.graveyard.is_empty() {
            self.bury_discarded();
        } else if self.wiping.is_some() {
            self.wipe();
        } else if self.wants_compaction() {
            self.compact();
        } else {
            let mut most = PIECE;
            while let Some(db) = self.dbs.first_untidy().filter(|_| most > 0) {
                most = most.saturating_sub(1 + self.drop_empty(db, most));
                if let Some(home) = self.dbs.get_mut(db) {
                    home.next_condemned(self.floor, &mut most);
                    home.next_swept(self.floor, &mut most);
                }
                self.dbs.count(&self.tags, self.floor);
            }
        }
        self.can_bury()
    }

    fn bury_discarded(&mut self) {
        let Some(Discarded {
            names,
            soft_names,
            torn,
            dead,
            soft,
            condemned,
            entries,
        }) = self.graveyard.last_mut()
        else {
            return;
        };
        for _ in 0..PIECE {
            work::step(1);
            if torn.is_empty()
                && let Some(piece) = names.tear_off()
            {
                *torn = piece.into_records();
            }
            if let Some(record) = torn.last() {
                if !self.tags.bury(*record) {
                    torn.pop();
                    continue;
                }
                // A long list goes in pieces, one a step.
                return;
            }
            if let Some(record) = dead.front() {
                if self.tags.bury(record) {
                    return;
                }
                dead.pop_front();
            } else if let Some(record) = self.softs.first(soft) {
                if self.tags.bury(record) {
                    return;
                }
                self.softs.remove(soft, record);
            } else if condemned.pop_front().is_none() {
                // Tables and chunks: one a step.
                if soft_names.tear_off().is_none() && !entries.shed() {
                    self.graveyard.pop();
                    if self.graveyard.is_empty() {
                        self.graveyard = Vec::new();
                    }
                }
                return;
            }
        }
    }

    /// Drops up to so many records, and 64, that are dead and without members, as far as they are first in their queue.
    /// Returns how many.
    pub(super) fn drop_empty(&mut self, db: usize, most: usize) -> usize {
        let Some(home) = self.dbs.get_mut(db) else {
            return 0;
        };
        for dropped in 0..most + 64 {
            let Some(record) = home.dead.front() else {
                return dropped;
            };
            work::step(1);
            if self.tags.len(record) > 0 {
                return dropped;
            }
            home.dead.pop_front();
            self.tags.remove(record);
            self.doubtful_records -= 1;
        }
        most + 64
    }

    /// Forgets a database without looking at its entries, which may already be under the hands of a thread that frees
    /// them. O(1) and the tags of one entry; what is left is freed by [`Index::bury`].
    pub fn discard(&mut self, db: usize) {
        self.settle();
        self.dbs.count(&self.tags, self.floor);
        if let Some(home) = self.dbs.take(db) {
            self.discard_db(*home);
        }
        self.wipe_from_the_beginning();
    }

    /// [`Index::discard`] for every database.
    pub fn discard_all(&mut self) {
        for db in 0..self.dbs.len() {
            self.discard(db);
        }
    }

    fn discard_db(&mut self, home: Db) {
        self.doubtful_records -= home.dead.len() + home.soft.len();
        if home.names.len() == 0 && home.entries.len() == 0 && home.dead.is_empty() {
            return;
        }
        self.graveyard.push(Discarded {
            names: home.names,
            soft_names: home.soft_names,
            torn: Vec::new(),
            dead: home.dead,
            soft: home.soft,
            condemned: home.condemned,
            entries: home.entries,
        });
    }

    /// Exchanges two databases. O(1) and the tags of one entry.
    pub fn swap(&mut self, a: usize, b: usize) {
        self.settle();
        self.dbs.count(&self.tags, self.floor);
        self.dbs.swap(a, b);
        self.listed.moved_all();
        self.wipe_from_the_beginning();
        self.compact_from_the_beginning();
    }

    /// Begins to collect a second data set beside the one that is served.
    pub fn begin_staging(&mut self) {
        self.abort_staging();
        self.staging = Some(Dbs::default());
    }

    /// The second data set becomes the one that is served.
    pub fn complete_staging(&mut self) {
        if let Some(staged) = self.staging.take() {
            self.discard_all();
            self.dbs = staged;
            self.listed.moved_all();
            self.compact_from_the_beginning();
        }
    }

    /// Forgets the second data set.
    pub fn abort_staging(&mut self) {
        for home in self.staging.take().into_iter().flat_map(Dbs::into_iter) {
            self.discard_db(home);
        }
    }

    // ---- marks of an earlier round of the counter of kills -----------------------------------------------------

    /// Once in 2^32 kills: no mark from the previous round may be mistaken for one of this round. Until all are wiped,
    /// none is believed, so that entries are looked at once more than they need be.
    #[cold]
    pub(super) fn begin_wiping(&mut self) {
        self.kills = 1;
        self.trusted = u64::MAX;
        self.wiping = Some((0, 0));
    }

    /// Databases changed places while marks are being wiped.
    fn wipe_from_the_beginning(&mut self) {
        if self.wiping.is_some() {
            self.wiping = Some((0, 0));
        }
    }

    fn wipe(&mut self) {
        let Some((db, from)) = self.wiping else {
            return;
        };
        // What is being loaded beside is not looked at before it is served, so it is wiped as the last.
        let (served, staged) = (self.dbs.len(), self.staging.as_mut());
        if db >= served + staged.as_ref().map_or(0, |staged| staged.len()) {
            self.wiping = None;
            self.trusted = u64::from(self.kills);
            return;
        }
        let home = match db.checked_sub(served) {
            None => self.dbs.get_mut(db),
            Some(db) => staged.and_then(|staged| staged.get_mut(db)),
        };
        let Some(home) = home else {
            self.wiping = Some((db + 1, 0));
            return;
        };
        let to = home.entries.bound().min(from + PIECE as u32);
        for id in from..to {
            work::step(1);
            if let Some(entry) = home.entries.get_mut(id) {
                entry.set_checked(0);
            }
        }
        self.wiping = Some(if to == home.entries.bound() {
            (db + 1, 0)
        } else {
            (db, to)
        });
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use crate::entry::Attributes;
    use crate::epoch::Epoch;
    use crate::index::{Scope, Verdict};

    /// The counter of kills comes round: an entry found alive at count 1, four billion invalidations ago, is looked at
    /// again.
    #[test]
    fn marks_of_an_earlier_round_of_the_counter_are_not_believed() {
        let mut index = Index::new();
        let attributes = Attributes {
            birth: Epoch(5),
            manual: false,
            swr_ms: 0,
            softened: false,
            ends_ms: crate::entry::NEVER,
        };
        let set = |index: &mut Index, tags: &[&str]| {
            let mut records = Vec::new();
            let names = tags.iter().map(|tag| tag.as_bytes());
            index.resolve(0, names, false, &mut records);
            let entry = Entry::new(tags[0].as_bytes(), b"v", attributes, &records);
            index.link(0, entry);
            entry
        };
        let kill = |index: &mut Index, tag: &str| {
            index.kill(0, [tag.as_bytes()].into_iter(), Scope::All);
        };
        let mut entries: Vec<Entry> = (0..1_000)
            .map(|n| set(&mut index, &[&format!("t{n}")]))
            .collect();
        let other = set(&mut index, &["first", "held"]);
        kill(&mut index, "first");
        assert_eq!(index.kills, 1);
        let mut old = set(&mut index, &["old"]);
        assert_eq!(old.checked(), 1);
        index.kills = u32::MAX;
        kill(&mut index, "old");
        assert_eq!(index.kills, 1, "the counter came round");
        assert_eq!(index.verdict(&mut old), Verdict::Dead);
        for entry in &mut entries {
            assert_eq!(index.verdict(entry), Verdict::Live);
        }
        while index.wiping.is_some() {
            index.bury();
        }
        assert_eq!(index.trusted, 1);
        assert_eq!(index.verdict(&mut old), Verdict::Dead);
        kill(&mut index, "t7");
        for (n, entry) in entries.iter_mut().enumerate() {
            let dead = index.verdict(entry) == Verdict::Dead;
            assert_eq!(dead, n == 7);
        }
        for entry in entries.into_iter().chain([old, other]) {
            // SAFETY: the index is not used any more.
            unsafe { entry.free() };
        }
    }

    /// What is loaded beside when the counter comes round has marks of the earlier round, too, and may have floors
    /// above it.
    #[test]
    fn a_data_set_that_is_loaded_beside_is_wiped_and_swept_as_well() {
        let attributes = Attributes {
            birth: Epoch(5),
            ends_ms: crate::entry::NEVER,
            ..Attributes::HUSK
        };
        let mut index = Index::new();
        index.kills = 1;
        index.trusted = 1;
        index.begin_staging();
        let mut staged = Entry::new(b"k", b"v", attributes, &[0]);
        index.adopt(0, staged, [&b"t"[..]].into_iter(), true);
        assert_eq!(staged.checked(), 1);
        index.begin_wiping();
        while index.wiping.is_some() {
            index.bury();
        }
        assert_eq!((staged.checked(), index.trusted), (0, 1));
        index.raise_floor(Epoch(6));
        index.complete_staging();
        assert_eq!(index.verdict(&mut staged), Verdict::Dead);
        while index.can_bury() {
            index.bury();
        }
        let task = index.next_task();
        assert_eq!(
            task,
            Some(crate::index::Task::Delete {
                db: 0,
                entry: staged
            })
        );
        // SAFETY: the index is not used any more.
        unsafe { staged.free() };
    }
}
