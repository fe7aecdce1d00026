//! The way in and out of the index.

use super::listed::Listed;
use super::{Db, Index};
use crate::entry::{Entry, MAX_TAGS, UNLINKED};
use crate::epoch::Epoch;
use crate::members::FEW;
use crate::names::Names;
use crate::seen::Seen;
use crate::soft::{Heir, Softs};
use crate::tags::{Class, Fate, Tags};
use crate::work;

/// Places that room for the next command keeps: an entry with 65,000 tags must not leave its traces for good.
const SCRATCH: usize = 256;

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
        let home = self.dbs.grow(db);
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
        link_in(&mut self.tags, self.dbs.grow(db), entry, kills, floor);
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
        let home = staging.unwrap_or(&mut self.dbs).grow(db);
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
            &mut self.records,
        );
        if self.listed.is_under_way() && !is_staged {
            let records = std::mem::take(&mut self.records);
            self.note_all_made(db, &records);
            for record in &records {
                if gone.is_some_and(|gone| *record < gone) && self.tags.len(*record) == 0 {
                    self.listed.lowered(*record);
                }
            }
            self.records = records;
        }
        let staging = if loading { self.staging.as_mut() } else { None };
        let home = staging.unwrap_or(&mut self.dbs).grow(db);
        entry.fill_tags(&self.records);
        link_in(&mut self.tags, home, entry, self.kills, self.floor);
        if self.records.capacity() > SCRATCH || self.hashes.capacity() > SCRATCH {
            (self.records, self.hashes) = Default::default();
        }
    }

    /// Room for the record ids of one command, which [`Index::keep_room`] takes back.
    #[inline]
    pub(crate) fn take_room(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.records)
    }

    /// Keeps room for the next command, unless it is more than most need.
    #[inline]
    pub(crate) fn keep_room(&mut self, records: Vec<u32>) {
        if records.capacity() <= SCRATCH {
            self.records = records;
        }
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
        let before = old;
        let was = WasAt::new(before.tags(), new.tags());
        let many = count > FEW;
        // What stays is found first: what leaves must not change where that is. `UNLINKED` stands for a position that
        // nothing needs any more, or that there is not yet.
        for at in 0..count {
            let record = new.tags()[at];
            let Some(was_at) = was.find(record, at) else {
                new.set_position(at, UNLINKED);
                continue;
            };
            let position = old.position(was_at);
            old.set_position(was_at, UNLINKED);
            // It has another place among the tags now, or many tags and had few before: then no place was noted.
            if many && (old_count <= FEW || was_at != at) {
                leaving.tags.set_place(record, position, at as u16);
            }
            new.set_position(at, position);
        }
        for at in 0..old_count {
            let position = old.position(at);
            if position != UNLINKED {
                leaving.leave(old.tags()[at], position, at);
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
        if let Some(home) = self.dbs.get_mut(db) {
            if let Some(slot) = home.entries.get_mut(id) {
                *slot = new;
            }
            if new.birth() < self.floor {
                home.condemned.push_back(id);
            }
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
        if self.limbo.is_empty() {
            return;
        }
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
        if self.limbo.capacity() > SCRATCH {
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
    /// The others with their places, sorted, if they are many: record in the upper half, place in the lower.
    others: Vec<u64>,
}

impl<'a> WasAt<'a> {
    /// So many are looked through one by one.
    const FEW: usize = 16;

    fn new(old: &'a [u32], new: &[u32]) -> Self {
        let same = old.iter().zip(new).take_while(|(old, new)| old == new);
        let same = same.count();
        let mut others = Vec::new();
        if same < new.len() && old.len() - same > Self::FEW {
            let places = old.iter().zip(0..).skip(same);
            others.extend(places.map(|(record, place)| u64::from(*record) << 32 | place));
            others.sort_unstable();
        }
        WasAt { old, same, others }
    }

    /// Where it had the tag that it has at `at` now.
    #[inline]
    fn find(&self, record: u32, at: usize) -> Option<usize> {
        if at < self.same {
            return Some(at);
        }
        let before = match self.old.get(at) {
            Some(same) if *same == record => at,
            _ => {
                if self.others.is_empty() {
                    let rest = self.old.get(self.same..)?;
                    return Some(self.same + rest.iter().position(|other| *other == record)?);
                }
                let from = u64::from(record) << 32;
                let at = self.others.partition_point(|other| *other < from);
                let found = self
                    .others
                    .get(at)
                    .filter(|other| **other >> 32 == from >> 32)?;
                *found as u32 as usize
            }
        };
        Some(before)
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

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use crate::entry::{Attributes, NEVER};

    /// Also where all its tags stand elsewhere in the new entry, few of them or many.
    #[test]
    fn an_entry_that_is_overwritten_keeps_its_place_under_the_tags_that_stay() {
        for own in [0, 1, 5, 40, 700] {
            let mut index = Index::new();
            let made = |index: &mut Index, key: &[u8], tags: &[String]| {
                let attributes = Attributes {
                    birth: Epoch(10),
                    ends_ms: NEVER,
                    ..Attributes::HUSK
                };
                let mut records = Vec::new();
                let names = tags.iter().map(String::as_bytes);
                index.resolve(0, names, false, &mut records);
                Entry::new(key, b"v", attributes, &records)
            };
            let mut tags: Vec<String> = (0..own).map(|n| format!("own {n}")).collect();
            tags.push("t".to_owned());
            let old = made(&mut index, b"first", &tags);
            index.link(0, old);
            let last = made(&mut index, b"last", &["t".to_owned()]);
            index.link(0, last);
            let order = |index: &Index| index.scan_entries(0, b"t", 0, 10).1;
            assert_eq!(order(&index), [last, old]);
            tags.truncate(own / 2);
            tags.insert(0, "new".to_owned());
            tags.insert(0, "t".to_owned());
            let new = made(&mut index, b"first", &tags);
            index.replace(0, old, new);
            assert_eq!(order(&index), [last, new], "{own} tags of its own");
            // SAFETY: the index does not know it any more.
            unsafe { old.free() };
            let keyspace = [(b"first".to_vec(), new), (b"last".to_vec(), last)];
            index
                .verify(0, &keyspace)
                .expect("index and keyspace agree");
            for (_, entry) in keyspace {
                index.unlink(0, entry);
                // SAFETY: as above.
                unsafe { entry.free() };
            }
        }
    }
}
