//! The way in and out of the index.

use super::listed::Listed;
use super::{Db, Index, grow};
use crate::entry::{Entry, MAX_TAGS, UNLINKED};
use crate::epoch::Epoch;
use crate::members::FEW;
use crate::names::Names;
use crate::seen::Seen;
use crate::soft::{Heir, Softs};
use crate::tags::{Class, Fate, Tags};
use crate::work;

impl Index {
    /// Finds or makes the records of the named tags, each once, in the order given; `records` is cleared first.
    ///
    /// O(tags). What it makes has no members yet: [`Index::link`] must follow.
    pub fn resolve<'a>(
        &mut self,
        db: usize,
        names: impl Iterator<Item = &'a [u8]>,
        manual: bool,
        records: &mut Vec<u32>,
    ) {
        self.resolve_like(db, names, manual, None, records);
    }

    /// [`Index::resolve`] for names that are probably those of `like`, in the same order: an overwrite mostly carries
    /// the tags that were there. As far as they are, a comparison takes the place of a look-up. `like` is alive and
    /// linked in this database.
    pub fn resolve_like<'a>(
        &mut self,
        db: usize,
        names: impl Iterator<Item = &'a [u8]>,
        manual: bool,
        like: Option<Entry>,
        records: &mut Vec<u32>,
    ) {
        self.settle();
        let home = grow(&mut self.dbs, db);
        let like = like.as_ref().map_or(&[][..], Entry::tags);
        resolve_in(
            &mut self.tags,
            &mut home.names,
            names,
            Tags::hash,
            manual,
            like,
            records,
        );
        if self.listed.is_under_way() {
            self.note_all_made(db, records);
        }
    }

    /// Those that have no members yet were made just now.
    #[cold]
    fn note_all_made(&mut self, db: usize, records: &[u32]) {
        for record in records {
            if self.tags.len(*record) == 0 {
                self.note_made(db, *record);
            }
        }
    }

    /// Puts an entry into the index. O(tags).
    ///
    /// The entry is unlinked and carries record ids of this index resolved for this database; it stays alive until
    /// [`Index::unlink`] or [`Index::discard`].
    pub fn link(&mut self, db: usize, entry: Entry) {
        let kills = self.kills;
        let floor = self.floor;
        link_in(&mut self.tags, grow(&mut self.dbs, db), entry, kills, floor);
    }

    /// Puts an entry into the index whose tags are known by name only: loaded, restored, copied or renamed. O(tags).
    ///
    /// While a second data set is being loaded and `loading` is true, it goes there.
    ///
    /// As for [`Index::link`]; the names are all different and as many as the entry was made with tags.
    pub fn adopt<'a>(
        &mut self,
        db: usize,
        mut entry: Entry,
        names: impl Iterator<Item = &'a [u8]> + Clone,
        loading: bool,
    ) {
        // A tag whose only entry gets another name is there all the time, with another record.
        let gone = self.limbo.iter().max().copied();
        self.settle();
        let staging = if loading { self.staging.as_mut() } else { None };
        let is_staged = staging.is_some();
        let home = grow(staging.unwrap_or(&mut self.dbs), db);
        // A file names its tags in no order, so each look-up is one into memory that is in no cache: they wait
        // together.
        self.hashes.clear();
        self.hashes
            .extend(names.clone().map(|name| self.tags.hash(name)));
        home.names.touch(&self.hashes);
        let mut hashes = self.hashes.iter();
        resolve_in(
            &mut self.tags,
            &mut home.names,
            names,
            |tags, name| hashes.next().map_or_else(|| tags.hash(name), |hash| *hash),
            entry.is_manual(),
            &[],
            &mut self.adopted,
        );
        if self.listed.is_under_way() && !is_staged {
            let records = std::mem::take(&mut self.adopted);
            self.note_all_made(db, &records);
            for record in &records {
                if gone.is_some_and(|gone| *record < gone) && self.tags.len(*record) == 0 {
                    self.listed.lowered(*record);
                }
            }
            self.adopted = records;
        }
        let staging = if loading { self.staging.as_mut() } else { None };
        let home = grow(staging.unwrap_or(&mut self.dbs), db);
        entry.fill_tags(&self.adopted);
        link_in(&mut self.tags, home, entry, self.kills, self.floor);
    }

    /// Takes an entry out of the index. O(tags). Unlinked entries are left alone.
    pub fn unlink(&mut self, db: usize, mut entry: Entry) {
        self.settle();
        let id = entry.id();
        let Some(home) = self.dbs.get_mut(db) else {
            return;
        };
        if id == UNLINKED || home.entries.get(id) != Some(&entry) {
            return;
        }
        home.entries.remove(id);
        entry.set_id(UNLINKED);
        home.payload_bytes -= entry.value().len();
        home.memberships -= entry.tags().len();
        let mut leaving = Leaving {
            tags: &mut self.tags,
            softs: &mut self.softs,
            limbo: &mut self.limbo,
            doubtful_records: &mut self.doubtful_records,
            listed: &mut self.listed,
            home,
        };
        for at in 0..entry.tags().len() {
            leaving.leave(entry.tags()[at], entry.position(at), at);
        }
        self.limbo_db = db;
        self.just_left = Some(entry);
        self.drop_empty(db, 2 * entry.tags().len());
    }

    /// Puts `new` where `old` stands; `old` is unlinked afterwards. O(tags), but only tags that differ cost more than a
    /// comparison: an overwrite mostly carries the tags that were there, in the same order. In the lists of tags that
    /// both carry the entry stays where it is, so that a listing of them neither misses it nor finds it twice.
    ///
    /// `old` is linked in `db`, `new` is not linked and carries records resolved in `db` just now; `new`
    /// stays alive as [`Index::link`] demands.
    pub fn replace(&mut self, db: usize, mut old: Entry, mut new: Entry) {
        let Some(home) = self.dbs.get_mut(db) else {
            return;
        };
        let id = old.id();
        home.payload_bytes = home.payload_bytes + new.value().len() - old.value().len();
        home.memberships = home.memberships + new.tags().len() - old.tags().len();
        let mut leaving = Leaving {
            tags: &mut self.tags,
            softs: &mut self.softs,
            limbo: &mut self.limbo,
            doubtful_records: &mut self.doubtful_records,
            listed: &mut self.listed,
            home,
        };
        let (old_count, count) = (old.tags().len(), new.tags().len());
        let mut was = WasAt::new(old.tags(), new.tags());
        let many = count > FEW;
        // What stays is found first: what leaves must not change where that is.
        for at in 0..count {
            let record = new.tags()[at];
            let Some(before) = was.take(record, at) else {
                new.set_position(at, UNLINKED);
                continue;
            };
            let position = old.position(before);
            // It has another place among the tags now, or many tags and had few before: then no place was noted.
            if many && (old_count <= FEW || before != at) {
                leaving.tags.set_place(record, position, at as u16);
            }
            new.set_position(at, position);
        }
        for at in 0..old_count {
            if !was.stays(at) {
                leaving.leave(old.tags()[at], old.position(at), at);
            }
        }
        for at in 0..count {
            if new.position(at) == UNLINKED {
                let place = many.then_some(at as u16);
                let position = leaving.tags.push(new.tags()[at], id, place);
                new.set_position(at, position);
            }
        }
        self.limbo_db = db;
        new.set_id(id);
        new.set_checked(self.kills);
        old.set_id(UNLINKED);
        if let Some(slot) = self.dbs[db].entries.get_mut(id) {
            *slot = new;
        }
        if new.birth() < self.floor {
            self.dbs[db].condemned.push_back(id);
        }
        self.drop_empty(db, 2 * old_count);
    }

    /// Tells the index that a linked entry's value was overwritten in place.
    pub fn resized(&mut self, db: usize, before_bytes: usize, after_bytes: usize) {
        if let Some(home) = self.dbs.get_mut(db) {
            home.payload_bytes = home.payload_bytes + after_bytes - before_bytes;
        }
    }

    /// Drops the records that the most recent unlink left without members.
    pub fn settle(&mut self) {
        self.just_left = None;
        let Some(home) = self.dbs.get_mut(self.limbo_db) else {
            return;
        };
        for record in self.limbo.drain(..) {
            work::step(1);
            if self.tags.len(record) == 0 {
                home.names.remove(&self.tags, record);
                self.tags.remove(record);
            }
        }
        // An entry with 65,000 tags must not leave its traces for good.
        if self.limbo.capacity() > 256 {
            self.limbo = Vec::new();
        }
    }

    /// A softly invalidated entry got the deadline it deserves: from now on a mark in the entry tells that it is stale,
    /// and its tags are live ones again, so that a hard invalidation reaches it. It ends at `ends_ms`, or earlier.
    /// O(tags). The entry is linked in this database.
    pub fn shortened(&mut self, db: usize, mut entry: Entry, ends_ms: u64) {
        self.settle();
        let Some(home) = self.dbs.get_mut(db) else {
            return;
        };
        let id = entry.id();
        entry.soften(ends_ms);
        let mut leaving = Leaving {
            tags: &mut self.tags,
            softs: &mut self.softs,
            limbo: &mut self.limbo,
            doubtful_records: &mut self.doubtful_records,
            listed: &mut self.listed,
            home,
        };
        let many = entry.tags().len() > FEW;
        for at in 0..entry.tags().len() {
            let record = entry.tags()[at];
            work::step(1);
            if leaving.tags.fate(record) != Fate::Soft {
                continue;
            }
            // Before it leaves: the record, and with it the name, may go.
            let names = &mut leaving.home.names;
            let fresh = names.find_or_insert_like(leaving.tags, record);
            if fresh < record && leaving.tags.len(fresh) == 0 {
                leaving.listed.lowered(fresh);
            }
            leaving.leave(record, entry.position(at), at);
            entry.set_tag(at, fresh);
            let place = many.then_some(at as u16);
            entry.set_position(at, leaving.tags.push(fresh, id, place));
        }
        self.drop_empty(db, 0);
    }
}

/// Where among its old tags an entry had those that it still has.
struct WasAt<'a> {
    old: &'a [u32],
    /// Up to here both are the same.
    same: usize,
    /// Of the others, by record: where it was.
    others: Vec<(u32, u32)>,
    /// Of the others, by place: whether it stays.
    staying: Vec<bool>,
}

impl<'a> WasAt<'a> {
    fn new(old: &'a [u32], new: &[u32]) -> Self {
        let same = old.iter().zip(new).take_while(|(old, new)| old == new);
        let same = same.count();
        let mut others: Vec<(u32, u32)> = Vec::new();
        if same < new.len() {
            others.extend(old.iter().copied().zip(0..).skip(same));
            others.sort_unstable();
        }
        let staying = vec![false; old.len() - same];
        WasAt {
            old,
            same,
            others,
            staying,
        }
    }

    /// Where it had the tag that it has at `at` now. Asked once for each.
    fn take(&mut self, record: u32, at: usize) -> Option<usize> {
        if at < self.same {
            return Some(at);
        }
        let before = match self.old.get(at) {
            Some(same) if *same == record => at,
            _ => {
                let found = self.others.binary_search_by_key(&record, |other| other.0);
                self.others[found.ok()?].1 as usize
            }
        };
        self.staying[before - self.same] = true;
        Some(before)
    }

    fn stays(&self, at: usize) -> bool {
        at < self.same || self.staying[at - self.same]
    }
}

/// What leaving a record touches.
struct Leaving<'a> {
    tags: &'a mut Tags,
    softs: &'a mut Softs,
    limbo: &'a mut Vec<u32>,
    doubtful_records: &'a mut usize,
    listed: &'a mut Listed,
    home: &'a mut Db,
}

impl Leaving<'_> {
    /// Takes a member out of a record, and tells the one that moves into its position. `at` is where among its tags the
    /// leaving entry has this one.
    #[inline]
    fn leave(&mut self, record: u32, position: u32, at: usize) {
        work::step(1);
        let left = self.tags.swap_remove(record, position);
        if let Some(moved) = left.moved
            && let Some(other) = self.home.entries.get_mut(moved.entry)
            && let Some(place) = place_of(other, record, [at, moved.place])
        {
            other.set_position(place, position);
        }
        match left.fate {
            Fate::Live if left.is_empty => self.limbo.push(record),
            Fate::Live => {}
            Fate::Dead => self.home.pending -= 1,
            Fate::Soft => self.leave_soft(record),
        }
    }

    #[cold]
    fn leave_soft(&mut self, record: u32) {
        self.home.pending -= 1;
        self.softs.left(record);
        if self.tags.len(record) > 0 {
            return;
        }
        let home = &mut self.home;
        let heir = self.softs.remove(&mut home.soft, record);
        if heir != Heir::NotListed {
            home.soft_names.remove(self.tags, record);
        }
        if let Heir::Record(heir) = heir {
            home.soft_names.add(self.tags, heir);
            if heir < record {
                self.listed.lowered(heir);
            }
        }
        self.tags.remove(record);
        *self.doubtful_records -= 1;
    }
}

/// Where among its tags an entry has a record. Entries made from the same query carry the same tags in the same order,
/// and the place of an entry with many tags was noted: look there first.
#[inline]
fn place_of(entry: &Entry, record: u32, guesses: [usize; 2]) -> Option<usize> {
    let tags = entry.tags();
    for guess in guesses {
        if tags.get(guess) == Some(&record) {
            return Some(guess);
        }
    }
    debug_assert!(tags.len() <= FEW, "the place of a member was not noted");
    let place = tags.iter().position(|tag| *tag == record);
    work::step(place.unwrap_or(tags.len()));
    place
}

fn resolve_in<'a>(
    tags: &mut Tags,
    names: &mut Names,
    mut wanted: impl Iterator<Item = &'a [u8]>,
    mut hash_of: impl FnMut(&Tags, &[u8]) -> u64,
    manual: bool,
    like: &[u32],
    records: &mut Vec<u32>,
) {
    /// Up to here comparing with all is quicker than a table.
    const FEW: usize = 16;
    let class = Class::of(manual);
    records.clear();
    let mut first = None;
    for record in like {
        let Some(name) = wanted.next() else { return };
        work::step(1);
        if !tags.is_live_one_of(*record, name, class) {
            first = Some(name);
            break;
        }
        // The tags of an entry are all different, so these are.
        records.push(*record);
    }
    let mut seen: Option<Seen> = None;
    let mut to_come = wanted.size_hint().0 + 1;
    for name in first.into_iter().chain(wanted) {
        to_come = to_come.saturating_sub(1);
        work::step(1);
        let hash = hash_of(tags, name);
        let record = names.find_or_insert(tags, name, hash, class);
        if records.len() < FEW {
            if !records.contains(&record) {
                records.push(record);
            }
            continue;
        }
        let seen = seen.get_or_insert_with(|| {
            // An iterator may promise more than can be.
            let mut seen = Seen::new((records.len() + to_come).min(MAX_TAGS));
            records.iter().for_each(|id| _ = seen.insert(tags, *id));
            seen
        });
        if seen.insert(tags, record) {
            records.push(record);
        }
    }
}

fn link_in(tags: &mut Tags, home: &mut Db, mut entry: Entry, kills: u32, floor: Epoch) {
    let id = home.entries.insert(entry);
    entry.set_id(id);
    entry.set_checked(kills);
    home.payload_bytes += entry.value().len();
    let count = entry.tags().len();
    home.memberships += count;
    let many = count > FEW;
    for at in 0..count {
        work::step(1);
        let position = tags.push(entry.tags()[at], id, many.then_some(at as u16));
        entry.set_position(at, position);
    }
    if entry.birth() < floor {
        home.condemned.push_back(id);
    }
}
