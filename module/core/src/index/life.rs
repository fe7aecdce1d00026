//! What an entry is worth, and what makes it worth less.

use super::dbs::Dbs;
use super::{Db, Index};
use crate::entry::Entry;
use crate::epoch::Epoch;
use crate::tags::{Class, Fate, Tags};
use crate::work;

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
        if self.doubtful_records == 0 || u64::from(entry.checked()) == self.trusted {
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
        work::step(entry.tags().len());
        let soft = |record: &u32| self.tags.fate(*record) == Fate::Soft;
        let soft = entry.tags().iter().filter(|r| soft(r));
        match soft.filter_map(|r| self.softs.since(*r)).min() {
            None => Verdict::Live,
            Some(epoch) => Verdict::Soft(epoch),
        }
    }

    /// Since when an entry is stale that is softly invalidated now: since an earlier soft invalidation by another of
    /// its tags, if reclaim has not come to that one yet. O(tags).
    pub(crate) fn stale_since(&self, entry: &Entry, now: Epoch) -> Epoch {
        match self.judge(entry) {
            Verdict::Soft(earlier) => earlier.min(now),
            Verdict::Live | Verdict::Dead => now,
        }
    }

    /// Why an entry is never served again; `None` if it is not so. O(tags).
    pub fn why_dead(&self, entry: &Entry) -> Option<Why> {
        if entry.birth() < self.floor {
            return Some(Why::Floor);
        }
        work::step(entry.tags().len());
        let fatal = |record: &&u32| match self.tags.fate(**record) {
            Fate::Live => false,
            Fate::Dead => true,
            // Without a window in which it could be served stale, or invalidated for good since.
            Fate::Soft => entry.swr_ms() == 0 || self.softs.since(**record).is_none(),
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
        // What is loaded beside will be served, too.
        let staged = self.staging.iter_mut().flat_map(Dbs::iter_mut);
        for db in self.dbs.iter_mut().chain(staged) {
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
        names
            .map(|name| self.count_hashed(db, name, self.hash(name), scope))
            .sum()
    }

    /// The hash of a tag's name, for [`Index::count_hashed`].
    #[inline]
    pub(crate) fn hash(&self, name: &[u8]) -> u64 {
        self.tags.hash(name)
    }

    /// [`Index::count`] of one tag whose hash is known ([`Index::hash`]).
    pub(crate) fn count_hashed(&self, db: usize, name: &[u8], hash: u64, scope: Scope) -> usize {
        let Some(home) = self.dbs.get(db) else {
            return 0;
        };
        let carriers = carriers_hashed(&self.tags, home, name, hash, scope);
        carriers.map(|carriers| self.members(carriers)).sum()
    }

    pub(super) fn members(&self, carriers: Carriers) -> usize {
        let live = carriers.live.map_or(0, |r| self.tags.len(r) as usize);
        live + carriers.soft.map_or(0, |r| self.softs.members(r))
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
        let mut ids: Vec<u32> = Vec::new();
        for name in names {
            for Carriers { live, soft } in carriers_of(&self.tags, home, name, scope) {
                let soft = soft.into_iter().flat_map(|r| self.softs.group(r));
                for record in live.into_iter().chain(soft) {
                    let positions = 0..self.tags.len(record);
                    ids.extend(positions.filter_map(|at| self.tags.member(record, at)));
                }
            }
        }
        work::step(ids.len());
        ids.sort_unstable();
        ids.dedup();
        ids.iter()
            .filter_map(|id| home.entries.get(*id))
            .filter(|entry| self.why_dead(entry).is_none())
            .copied()
            .collect()
    }

    /// Makes every entry dead that carries one of the tags. O(tags named): the cost grows neither with the entries nor
    /// with earlier invalidations.
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
            for Carriers { live, soft } in carriers_of(&self.tags, home, name, scope) {
                if let Some(record) = live {
                    home.names.remove(&self.tags, record);
                    self.tags.mark_dead(record);
                    home.dead.push_back(record);
                    self.doubtful_records += 1;
                    let died = self.tags.len(record) as usize;
                    home.pending += died;
                    members += died;
                }
                if let Some(newest) = soft {
                    home.soft_names.remove(&self.tags, newest);
                    members += self.softs.kill(newest);
                }
            }
        }
        self.count_kill(members);
        members
    }

    /// Makes every entry stale from `since` on that carries one of the tags, and those dead that have no SWR window.
    /// O(tags named), however many entries there are and however many were invalidated before.
    ///
    /// Returns how many memberships it concerns. Members that were softly invalidated before keep their epoch, because
    /// their stale window ends sooner; if the clock went back since, they get this one.
    pub fn soften<'a>(
        &mut self,
        db: usize,
        names: impl Iterator<Item = &'a [u8]>,
        scope: Scope,
        since: Epoch,
    ) -> usize {
        self.settle();
        let Some(home) = self.dbs.get_mut(db) else {
            return 0;
        };
        let mut members = 0;
        for name in names {
            for Carriers { live, soft } in carriers_of(&self.tags, home, name, scope) {
                if let Some(newest) = soft {
                    members += self.softs.no_later_than(newest, since);
                }
                let Some(record) = live else { continue };
                home.names.remove(&self.tags, record);
                self.tags.mark_soft(record);
                if let Some(newest) = soft {
                    home.soft_names.remove(&self.tags, newest);
                }
                home.soft_names.add(&self.tags, record);
                let softened = self.tags.len(record) as usize;
                self.softs
                    .push(&mut home.soft, record, since, softened, soft);
                self.doubtful_records += 1;
                home.pending += softened;
                members += softened;
            }
        }
        self.count_kill(members);
        members
    }

    fn count_kill(&mut self, members: usize) {
        if members == 0 {
            return;
        }
        match self.kills.checked_add(1) {
            None => self.begin_wiping(),
            Some(kills) => {
                self.kills = kills;
                if self.wiping.is_none() {
                    self.trusted = u64::from(kills);
                }
            }
        }
    }
}

/// The records of a tag and class that an invalidation concerns.
#[derive(Clone, Copy)]
pub(super) struct Carriers {
    /// The live one.
    pub(super) live: Option<u32>,
    /// The newest of those that are soft and whose members are not dealt with yet.
    pub(super) soft: Option<u32>,
}

impl Carriers {
    pub(super) fn records(self) -> impl Iterator<Item = u32> {
        self.live.into_iter().chain(self.soft)
    }
}

/// What an invalidation of a tag concerns, by class. One look-up a table.
pub(super) fn carriers_of(
    tags: &Tags,
    home: &Db,
    name: &[u8],
    scope: Scope,
) -> impl Iterator<Item = Carriers> + use<> {
    carriers_hashed(tags, home, name, tags.hash(name), scope)
}

/// [`carriers_of`] a tag whose hash is known.
fn carriers_hashed(
    tags: &Tags,
    home: &Db,
    name: &[u8],
    hash: u64,
    scope: Scope,
) -> impl Iterator<Item = Carriers> + use<> {
    let live = home.names.find_both(tags, name, hash);
    // Mostly there are none at all.
    let soft = match home.soft_names.len() {
        0 => [None; 2],
        _ => home.soft_names.find_both(tags, name, hash),
    };
    let of = move |class| Carriers {
        live: live[class as usize],
        soft: soft[class as usize],
    };
    let manual = (scope == Scope::All).then(|| of(Class::Manual));
    std::iter::once(of(Class::Auto)).chain(manual)
}
