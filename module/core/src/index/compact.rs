//! Compaction: the few entries and tags that are left of many move together, so that the memory between them goes back.
//!
//! A chunk of a slab is freed when its last value leaves, so a single entry that outlives its neighbours would keep the
//! chunks of its id, of its tags and of their lists. When a fifth of the index could be given back (of a small one an
//! eighth), a pass goes over all entries, a bounded piece in each call of [`Index::bury`], and moves what is in a high
//! chunk into the lowest one that has room. Lists give back the room that they do not use.
//!
//! Who knows an id is told of the new one: of an entry the entry itself and the lists of its tags, of a record the
//! table of names and its members, of a list its record. There must be no others, so a pass rests while anything is
//! dead, soft, condemned, flushed or being loaded beside. A cursor of [`Index::scan_tags`] names a record: after moves
//! of records it begins again (`listed.rs`).
//!
//! What is large stays where it is: an entry with more than [`MOST_TAGS`] tags, a record with more than
//! [`MOST_MEMBERS`] members. It takes about as much itself as the chunk that it keeps.

use super::{Db, Index};
use crate::slab::Next;
use crate::tags::Tags;
use crate::work;

/// Tags of an entry that moves.
const MOST_TAGS: usize = 512;
/// Members of a record that moves.
const MOST_MEMBERS: usize = 256;
/// Tags, members and empty parts of a slab that one call looks at, but for the last of them.
const PIECE: usize = 256;

/// A pass begins when it can give back one in so many bytes of the index.
const SHARE: usize = 5;
/// The same of an index up to [`SMALL`] bytes, over which a pass is a matter of milliseconds.
const SMALL_SHARE: usize = 8;
const SMALL: usize = 1 << 20;

/// Where a pass goes on.
#[derive(Default)]
pub(super) struct Pass {
    db: usize,
    /// The entry, and which of its tags.
    entry: u32,
    tag: usize,
    /// The databases have been gone through; what is left are the directories of records and lists.
    is_through: bool,
    records_are_trimmed: bool,
}

impl Index {
    /// Whether [`Index::compact`] has something to do, and may. What is touched was counted.
    pub(super) fn wants_compaction(&self) -> bool {
        (self.compaction.is_some() || self.is_worth_a_pass())
            && self.doubtful_records == 0
            && self.graveyard.is_empty()
            && self.wiping.is_none()
            && self.staging.is_none()
            && self.dbs.first_busy().is_none()
    }

    /// A pass looks at every tag of every entry, and listings begin again, so it must be worth it.
    fn is_worth_a_pass(&self) -> bool {
        let sums = self.dbs.sums();
        let loose = self.tags.loose_bytes() + sums.loose_bytes;
        if loose == 0 {
            return false;
        }
        let bytes = self.bytes(&sums);
        let share = if bytes <= SMALL { SMALL_SHARE } else { SHARE };
        loose * share >= bytes
    }

    /// Other databases stand where the pass has been: it begins again, or it would end without having seen them, and
    /// what they waste would count as what no pass can change.
    pub(super) fn compact_from_the_beginning(&mut self) {
        if let Some(pass) = &mut self.compaction {
            *pass = Pass::default();
        }
    }

    /// Goes on with the pass, or begins one: a bounded piece.
    pub(super) fn compact(&mut self) {
        // Records without members have no entry that leads to them.
        self.settle();
        let mut pass = self.compaction.take().unwrap_or_else(|| {
            self.tags.begin_pass();
            Pass::default()
        });
        let mut moved = false;
        let mut steps = PIECE;
        while steps > 0 && !pass.is_through {
            if pass.db >= self.dbs.len() {
                pass.is_through = true;
                break;
            }
            let Some(home) = self.dbs.get_mut(pass.db) else {
                work::step(1);
                steps -= 1;
                pass.db += 1;
                continue;
            };
            if (pass.entry, pass.tag) == (0, 0) {
                home.entries.begin_pass();
            }
            match home.entries.next_used(pass.entry, &mut steps) {
                Next::Id(id) => {
                    // The entry that it was about may have gone.
                    if id != pass.entry {
                        (pass.entry, pass.tag) = (id, 0);
                    }
                    let tags = home.entries.get(id).map_or(0, |entry| entry.tags().len());
                    steps = steps.saturating_sub(1);
                    if pass.tag < tags {
                        moved |= move_tag(&mut self.tags, home, &mut pass, &mut steps);
                        pass.tag += 1;
                    } else {
                        move_entry(&mut self.tags, home, id, &mut steps);
                        (pass.entry, pass.tag) = (id + 1, 0);
                    }
                }
                Next::Later(id) => (pass.entry, pass.tag) = (id, 0),
                Next::End => {
                    work::step(1);
                    steps = steps.saturating_sub(1);
                    pass.entry = pass.entry.max(home.entries.bound());
                    if home.entries.trim(&mut steps) {
                        pass = Pass {
                            db: pass.db + 1,
                            ..Pass::default()
                        };
                    }
                }
            }
        }
        if moved {
            self.listed.moved_all();
        }
        if pass.is_through && !pass.records_are_trimmed {
            pass.records_are_trimmed = self.tags.trim_records(&mut steps);
        }
        if !pass.records_are_trimmed || !self.tags.trim_lists(&mut steps) {
            self.compaction = Some(pass);
        }
    }
}

/// Moves one tag of the entry that the pass has reached: its list, and its record if that moves at all. True if the
/// record did.
fn move_tag(tags: &mut Tags, home: &mut Db, pass: &mut Pass, steps: &mut usize) -> bool {
    work::step(1);
    let Some(entry) = home.entries.get(pass.entry) else {
        return false;
    };
    let Some(record) = entry.tags().get(pass.tag).copied() else {
        return false;
    };
    tags.move_list(record);
    if entry.position(pass.tag) == 0 {
        tags.tidy_list(record);
    }
    let members = tags.len(record) as usize;
    if members > MOST_MEMBERS || !tags.can_move(record) {
        return false;
    }
    *steps = steps.saturating_sub(members);
    // Nothing is changed before every member is found.
    let mut places = [0; MOST_MEMBERS];
    for (position, place) in (0..).zip(&mut places[..members]) {
        work::step(1);
        let entry = tags
            .member(record, position)
            .and_then(|id| home.entries.get(id));
        let found = entry.and_then(|entry| {
            let all = entry.tags();
            [pass.tag, tags.place(record, position)]
                .into_iter()
                .find(|guess| all.get(*guess) == Some(&record))
                .or_else(|| {
                    work::step(all.len().min(MOST_TAGS));
                    all.iter().take(MOST_TAGS).position(|tag| *tag == record)
                })
        });
        let Some(found) = found else { return false };
        *place = found;
    }
    if !home.names.contains(tags, record) {
        return false;
    }
    let Some(fresh) = tags.move_record(record) else {
        return false;
    };
    home.names.renumbered(tags, record, fresh);
    for (position, place) in (0..).zip(&places[..members]) {
        if let Some(entry) = tags
            .member(fresh, position)
            .and_then(|id| home.entries.get_mut(id))
        {
            entry.set_tag(*place, fresh);
        }
    }
    true
}

/// Moves an entry into a lower chunk, unless it has very many tags.
fn move_entry(tags: &mut Tags, home: &mut Db, id: u32, steps: &mut usize) {
    work::step(1);
    let Some(mut entry) = home.entries.get(id).copied() else {
        return;
    };
    let count = entry.tags().len();
    if count > MOST_TAGS {
        return;
    }
    let Some(fresh) = home.entries.move_down(id) else {
        return;
    };
    work::step(count);
    *steps = steps.saturating_sub(count);
    entry.set_id(fresh);
    for at in 0..count {
        tags.renumber_member(entry.tags()[at], entry.position(at), fresh);
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use crate::entry::{Attributes, Entry, NEVER};
    use crate::epoch::Epoch;
    use crate::index::{Scope, Task};

    /// An index of two databases, and their keyspaces.
    struct World {
        index: Index,
        keyspaces: [Vec<(Vec<u8>, Entry)>; 2],
        made: u32,
    }

    impl World {
        fn set(&mut self, db: usize, tags: &[String]) {
            let attributes = Attributes {
                birth: Epoch(10),
                ends_ms: NEVER,
                ..Attributes::HUSK
            };
            let key = self.made.to_string().into_bytes();
            self.made += 1;
            let mut records = Vec::new();
            let names = tags.iter().map(String::as_bytes);
            let manual = self.made.is_multiple_of(3);
            self.index.resolve(db, names, manual, &mut records);
            let attributes = Attributes {
                manual,
                ..attributes
            };
            let entry = Entry::new(&key, b"v", attributes, &records);
            self.index.link(db, entry);
            self.keyspaces[db].push((key, entry));
        }

        fn delete(&mut self, db: usize, entry: Entry) {
            self.keyspaces[db].retain(|(_, other)| *other != entry);
            self.index.unlink(db, entry);
            // SAFETY: it is in no index and in no keyspace any more.
            unsafe { entry.free() };
        }

        /// Takes out all entries but one in `keep`.
        fn expire(&mut self, db: usize, keep: impl Fn(usize) -> bool) {
            let all = std::mem::take(&mut self.keyspaces[db]);
            for (n, (key, entry)) in all.into_iter().enumerate() {
                if keep(n) {
                    self.keyspaces[db].push((key, entry));
                    continue;
                }
                self.index.unlink(db, entry);
                // SAFETY: as above.
                unsafe { entry.free() };
            }
        }

        fn verify(&mut self) {
            for (db, keyspace) in self.keyspaces.iter().enumerate() {
                self.index.verify(db, keyspace).unwrap();
            }
        }

        fn reclaim(&mut self) {
            while self.index.has_pending() {
                match self.index.next_task() {
                    None => _ = self.index.bury(),
                    Some(Task::Delete { db, entry }) => self.delete(db, entry),
                    Some(Task::Shorten { db, entry, .. }) => self.index.shortened(db, entry, NEVER),
                }
            }
        }
    }

    impl Drop for World {
        fn drop(&mut self) {
            for (_, entry) in self.keyspaces.iter().flatten() {
                // SAFETY: the index is not used any more.
                unsafe { entry.free() };
            }
        }
    }

    /// Waves of entries of all kinds come and go. While the rest moves together others are stored, deleted and
    /// invalidated, and databases change places. The index agrees with the keyspace after every piece.
    #[test]
    fn what_moves_together_stays_what_it_was() {
        let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
        let mut world = World {
            index: Index::new(),
            keyspaces: [Vec::new(), Vec::new()],
            made: 0,
        };
        let mut moves = 0;
        for wave in 0..8 {
            for _ in 0..8_000 {
                let db = usize::from(rng.u8(..) < 100);
                let count = match rng.u8(..) {
                    0 => rng.usize(33..700),
                    _ => rng.usize(..5),
                };
                let shared = rng.u32(1..6_000);
                let mut tags: Vec<String> = (0..count)
                    .map(|_| format!("s{}", rng.u32(..shared)))
                    .collect();
                tags.push(format!("own {}", world.made));
                rng.shuffle(&mut tags);
                world.set(db, &tags);
            }
            let offset = rng.usize(..200);
            for db in 0..2 {
                world.expire(db, |n| n % 200 == offset);
            }
            world.verify();
            assert!(world.index.wants_compaction(), "wave {wave}");
            while world.index.has_pending() {
                let (steps, ()) = work::of(|| {
                    if world.index.wants_compaction() {
                        world.index.compact();
                        moves += 1;
                    }
                });
                // A piece, one entry with the most tags, and one record whose members are all searched.
                assert!(
                    steps <= 4_000 + (MOST_MEMBERS * MOST_TAGS) as u64,
                    "{steps}"
                );
                if rng.u8(..) < 100 {
                    world.verify();
                }
                match rng.u8(..) {
                    0..10 => world.set(0, &[format!("s{}", rng.u32(..6_000))]),
                    10..20 => world.set(1, &[format!("own {}", rng.u32(..world.made))]),
                    20..24 if !world.keyspaces[0].is_empty() => {
                        let at = rng.usize(..world.keyspaces[0].len());
                        let (_, entry) = world.keyspaces[0][at];
                        world.delete(0, entry);
                    }
                    24..26 => {
                        let tag = format!("s{}", rng.u32(..6_000));
                        let names = [tag.as_bytes()].into_iter();
                        if rng.bool() {
                            world.index.kill(0, names, Scope::All);
                        } else {
                            world.index.soften(0, names, Scope::Auto, Epoch(20));
                        }
                        world.verify();
                        while let Some(task) = world.index.next_task() {
                            match task {
                                Task::Delete { db, entry } => world.delete(db, entry),
                                Task::Shorten { db, entry, .. } => {
                                    world.index.shortened(db, entry, NEVER);
                                }
                            }
                        }
                    }
                    26 => {
                        world.index.swap(0, 1);
                        world.keyspaces.swap(0, 1);
                    }
                    _ => {
                        if !world.index.wants_compaction() {
                            world.index.bury();
                        }
                    }
                }
            }
            world.verify();
        }
        assert!(moves > 8, "{moves} pieces");
        for db in 0..2 {
            world.expire(db, |_| false);
        }
        world.reclaim();
        world.index.settle();
        assert!(world.index.sizes().index_bytes < 8_192);
    }

    /// A listing of tags that began before records moved returns every tag that was there all the time.
    #[test]
    fn a_listing_misses_no_tag_that_moved_behind_it() {
        let mut world = World {
            index: Index::new(),
            keyspaces: [Vec::new(), Vec::new()],
            made: 0,
        };
        for n in 0..20_000 {
            world.set(0, &[format!("t{n:05}")]);
        }
        world.expire(0, |n| n % 400 == 399);
        world.index.settle();
        let (mut listed, mut cursor) = (std::collections::HashSet::new(), 0);
        loop {
            let (next, page) = world.index.scan_tags(0, cursor, 3, None);
            listed.extend(page.into_iter().map(|(name, _)| name.to_vec()));
            cursor = next;
            if cursor == 0 {
                break;
            }
            assert!(cursor < 1 << 52);
            if world.index.wants_compaction() {
                world.index.compact();
            }
        }
        assert_eq!(listed.len(), 50);
        assert!(world.index.listed.cursor(0) > 0, "records moved");
    }
}
