//! What an entry is worth, and what makes it worth less.

use super::{Db, Index};
use crate::entry::Entry;
use crate::epoch::Epoch;
use crate::tags::{Class, Tags, hash};

/// Why an entry is not served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It was born before the floor: loaded at a start with `on-restart drop`, or kept across a promotion.
    Floor,
    /// A tag was invalidated; the record of that tag.
    Tag(u32),
}

/// What an entry is worth by its tags and its birth. The deadline is not looked at here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// To be served.
    Live,
    /// Softly invalidated at that epoch: stale from then on for as long as its SWR window.
    Soft(Epoch),
    /// Never to be served again.
    Dead,
}

/// Which entries an invalidation concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// All that carry the tag.
    All,
    /// Those not stored as MANUAL.
    Auto,
}

impl Index {
    /// What an entry is worth. O(1), except once per entry and large invalidation: O(tags).
    #[inline]
    pub fn verdict(&self, entry: &mut Entry) -> Verdict {
        if entry.birth() < self.floor {
            return Verdict::Dead;
        }
        if self.doubtful_records == 0 || entry.checked() == self.kills {
            return Verdict::Live;
        }
        let verdict = self.judge(entry);
        if verdict == Verdict::Live {
            entry.set_checked(self.kills);
        }
        verdict
    }

    /// [`Index::verdict`] without taking note of it. O(tags).
    pub fn judge(&self, entry: &Entry) -> Verdict {
        if self.why_dead(entry).is_some() {
            return Verdict::Dead;
        }
        let soft = entry.tags().iter().filter(|r| self.tags.is_soft(**r));
        match soft.filter_map(|r| self.soft_epochs.get(r)).min() {
            None => Verdict::Live,
            Some(_) if entry.swr_ms() == 0 => Verdict::Dead,
            Some(epoch) => Verdict::Soft(*epoch),
        }
    }

    /// Why an entry is never served again; `None` if it is not so. O(tags).
    pub fn why_dead(&self, entry: &Entry) -> Option<Why> {
        if entry.birth() < self.floor {
            return Some(Why::Floor);
        }
        let fatal = |record: &&u32| {
            self.tags.is_dead(**record) || entry.swr_ms() == 0 && self.tags.is_soft(**record)
        };
        entry.tags().iter().find(fatal).map(|r| Why::Tag(*r))
    }

    /// The floor: entries born before it are dead.
    pub fn floor(&self) -> Epoch {
        self.floor
    }

    /// Makes everything stored so far dead. O(databases); reclaim finds the entries by itself.
    pub fn raise_floor(&mut self, epoch: Epoch) {
        self.floor = self.floor.max(epoch);
        for db in &mut self.dbs {
            db.sweep = Some(0);
        }
    }

    /// How many entries carry one of the tags (an entry that carries two counts twice). O(tags named).
    pub fn count<'a>(
        &self,
        db: usize,
        names: impl Iterator<Item = &'a [u8]>,
        scope: Scope,
    ) -> usize {
        let Some(home) = self.dbs.get(db) else {
            return 0;
        };
        let members = |record: u32| self.tags.len(record) as usize;
        names
            .flat_map(|name| records_of(&self.tags, home, name, scope))
            .map(members)
            .sum()
    }

    /// The entries that carry one of the tags and are not dead, each once. O(entries).
    pub fn carriers<'a>(
        &self,
        db: usize,
        names: impl Iterator<Item = &'a [u8]>,
        scope: Scope,
    ) -> Vec<Entry> {
        let Some(home) = self.dbs.get(db) else {
            return Vec::new();
        };
        let mut ids: Vec<u32> = names
            .flat_map(|name| records_of(&self.tags, home, name, scope))
            .flat_map(|r| (0..self.tags.len(r)).filter_map(move |at| self.tags.member(r, at)))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids.iter()
            .filter_map(|id| home.entries.0.get(*id))
            .filter(|entry| self.why_dead(entry).is_none())
            .copied()
            .collect()
    }

    /// Makes every entry dead that carries one of the tags. O(tags named), however many entries there are.
    ///
    /// Returns how many memberships died.
    pub fn kill<'a>(
        &mut self,
        db: usize,
        names: impl Iterator<Item = &'a [u8]>,
        scope: Scope,
    ) -> usize {
        self.settle();
        let Some(home) = self.dbs.get_mut(db) else {
            return 0;
        };
        let mut members = 0;
        for name in names {
            for record in records_of(&self.tags, home, name, scope) {
                if self.tags.is_soft(record) {
                    home.soft_names.remove(&self.tags, record);
                    home.soft.retain(|other| *other != record);
                    self.soft_epochs.remove(&record);
                } else {
                    home.names.remove(&self.tags, record);
                    self.doubtful_records += 1;
                }
                self.tags.mark_dead(record);
                home.dead.push_back(record);
                members += self.tags.len(record) as usize;
            }
        }
        self.count_kill(members);
        members
    }

    /// Makes every entry stale from `epoch` on that carries one of the tags, and those dead that have no SWR window.
    /// O(tags named), however many entries there are.
    ///
    /// Returns how many memberships it concerns.
    pub fn soften<'a>(
        &mut self,
        db: usize,
        names: impl Iterator<Item = &'a [u8]>,
        scope: Scope,
        epoch: Epoch,
    ) -> usize {
        self.settle();
        let Some(home) = self.dbs.get_mut(db) else {
            return 0;
        };
        let mut members = 0;
        for name in names {
            for record in records_of(&self.tags, home, name, scope) {
                // One that is soft already became so earlier, which is worse.
                if self.tags.is_soft(record) {
                    continue;
                }
                home.names.remove(&self.tags, record);
                self.tags.mark_soft(record);
                home.soft_names.add(&self.tags, record);
                home.soft.push_back(record);
                self.soft_epochs.insert(record, epoch);
                self.doubtful_records += 1;
                members += self.tags.len(record) as usize;
            }
        }
        self.count_kill(members);
        members
    }

    fn count_kill(&mut self, members: usize) {
        if members > 0 {
            self.kills = self.kills.wrapping_add(1);
            if self.kills == 0 {
                self.forget_checks();
            }
        }
    }

    /// Once in 2^32 kills: no check from the previous round may be mistaken for one of this round.
    #[cold]
    fn forget_checks(&mut self) {
        self.kills = 1;
        let staged = self.staging.iter_mut().flatten();
        for db in self.dbs.iter_mut().chain(staged) {
            for id in 0..db.entries.0.bound() {
                if let Some(entry) = db.entries.0.get_mut(id) {
                    entry.set_checked(0);
                }
            }
        }
    }
}

/// The records of a tag that an invalidation concerns: live ones, and soft ones whose members are not dealt with yet.
/// Allocates nothing for a tag without entries, as most invalidated ones are.
pub(super) fn records_of(tags: &Tags, home: &Db, name: &[u8], scope: Scope) -> Vec<u32> {
    let hash = hash(name);
    let classes: &[Class] = match scope {
        Scope::All => &[Class::Auto, Class::Manual],
        Scope::Auto => &[Class::Auto],
    };
    let mut records = Vec::new();
    for class in classes {
        records.extend(home.names.find(tags, name, hash, *class));
        home.soft_names
            .find_all(tags, name, hash, *class, &mut records);
    }
    records
}
