//! The tag index: which entries carry which tag, exactly, at every moment.
//!
//! The keyspace is the truth and the index follows it: the edge calls [`Index::link`] when an entry enters the keyspace
//! and [`Index::unlink`] before it leaves. Nothing here deletes a key; what is to be done is handed out by
//! [`Index::next_task`] to whoever does it, at a pace of their choosing.
//!
//! - this file: the structures, and the way in and out
//! - `life.rs`: what an entry is worth, invalidations, the floor
//! - `reclaim.rs`: tasks, and databases that go away as a whole
//! - `scan.rs`: numbers and listings; `verify.rs`: the self-check
//!
//! Invariants (checked entry by entry in [`Index::verify`]):
//! - an entry is in the slab of its database under its id, and for every tag the record's member at the entry's
//!   position is that id;
//! - a live record is in the table of names and has at least one member, unless it is in limbo;
//! - a soft record is in the table of soft names and in the queue of soft records;
//! - a dead record is in no table and in exactly one queue of dead records.

mod life;
mod reclaim;
mod scan;
mod verify;

use std::collections::{HashMap, VecDeque};

use hashbrown::HashTable;

use crate::entry::{Entry, UNLINKED};
use crate::epoch::Epoch;
use crate::slab::Slab;
use crate::tags::{Class, Names, Tags, hash};

pub use life::{Scope, Verdict, Why};
pub use reclaim::Task;
pub use scan::{Page, Sizes};

use reclaim::Discarded;

/// One database.
#[derive(Default)]
struct Db {
    names: Names,
    entries: Entries,
    /// Dead records whose members are not yet reclaimed.
    dead: VecDeque<u32>,
    /// Soft records by name, and in the order in which their members are dealt with.
    soft_names: Names,
    soft: VecDeque<u32>,
    /// Ids of entries that were dead when they arrived.
    condemned: Vec<u32>,
    /// Where the search for entries below the floor goes on.
    sweep: Option<u32>,
    memberships: usize,
    payload_bytes: usize,
}

struct Entries(Slab<Entry>);

impl Default for Entries {
    fn default() -> Self {
        Entries(Slab::new())
    }
}

/// The index of all databases of a server.
pub struct Index {
    tags: Tags,
    dbs: Vec<Db>,
    /// The data set that a replica loads beside the one it serves.
    staging: Option<Vec<Db>>,
    graveyard: Vec<Discarded>,
    /// Records that lost their last member with the most recent unlink. RENAME and MOVE take an entry out under the old
    /// name before they announce the new one, so an empty record keeps its name until the next change.
    limbo: Vec<u32>,
    limbo_db: usize,
    /// Dead and soft records in all databases; 0 means that no entry can be anything but alive by its tags.
    doubtful_records: usize,
    /// When each soft record became soft.
    soft_epochs: HashMap<u32, Epoch>,
    /// Counts invalidations that left members to reclaim. An entry that was alive at this count still is.
    kills: u32,
    floor: Epoch,
}

impl Default for Index {
    fn default() -> Self {
        Index::new()
    }
}

impl Index {
    /// An empty index.
    pub fn new() -> Self {
        Index {
            tags: Tags::new(),
            dbs: Vec::new(),
            staging: None,
            graveyard: Vec::new(),
            limbo: Vec::new(),
            limbo_db: 0,
            doubtful_records: 0,
            soft_epochs: HashMap::new(),
            kills: 0,
            // Above zero: an entry born at `Epoch::ZERO` is dead from the start.
            floor: Epoch(1),
        }
    }

    fn db(&mut self, db: usize) -> &mut Db {
        grow(&mut self.dbs, db)
    }

    // ---- the way in and out --------------------------------------------------------------------------------------

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
        self.settle();
        let tags = &mut self.tags;
        resolve_in(
            tags,
            &mut grow(&mut self.dbs, db).names,
            names,
            manual,
            records,
        );
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
        names: impl Iterator<Item = &'a [u8]>,
        loading: bool,
    ) {
        self.settle();
        let staging = if loading { self.staging.as_mut() } else { None };
        let home = grow(staging.unwrap_or(&mut self.dbs), db);
        let mut records = Vec::new();
        resolve_in(
            &mut self.tags,
            &mut home.names,
            names,
            entry.is_manual(),
            &mut records,
        );
        entry.fill_tags(&records);
        link_in(&mut self.tags, home, entry, self.kills, self.floor);
    }

    /// Takes an entry out of the index. O(tags). Unlinked entries are left alone.
    pub fn unlink(&mut self, db: usize, mut entry: Entry) {
        self.settle();
        let id = entry.id();
        let Some(home) = self.dbs.get_mut(db) else {
            return;
        };
        if id == UNLINKED || home.entries.0.get(id) != Some(&entry) {
            return;
        }
        home.entries.0.remove(id);
        entry.set_id(UNLINKED);
        home.payload_bytes -= entry.value().len();
        home.memberships -= entry.tags().len();
        for at in 0..entry.tags().len() {
            let (record, position) = (entry.tags()[at], entry.position(at));
            leave(&mut self.tags, &mut home.entries, record, position, at);
            if self.tags.len(record) == 0 && self.tags.is_live(record) {
                self.limbo.push(record);
            }
        }
        self.limbo_db = db;
        self.drop_empty(db);
    }

    /// Puts `new` where `old` stands; `old` is unlinked afterwards. O(tags), but only tags that differ cost more than a
    /// comparison: an overwrite mostly carries the tags that were there, in the same order.
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
        let (kept, count) = (old.tags().len().min(new.tags().len()), new.tags().len());
        // All that leave first: a record that stands elsewhere in the new tags must not hold the entry twice.
        for at in 0..old.tags().len() {
            let record = old.tags()[at];
            if at < kept && new.tags()[at] == record {
                new.set_position(at, old.position(at));
            } else {
                leave(
                    &mut self.tags,
                    &mut home.entries,
                    record,
                    old.position(at),
                    at,
                );
                if self.tags.len(record) == 0 && self.tags.is_live(record) {
                    self.limbo.push(record);
                }
            }
        }
        self.limbo_db = db;
        for at in 0..count {
            let record = new.tags()[at];
            if at >= kept || old.tags()[at] != record {
                let position = self.tags.push(record, id);
                new.set_position(at, position);
            }
        }
        new.set_id(id);
        new.set_checked(self.kills);
        old.set_id(UNLINKED);
        if let Some(slot) = home.entries.0.get_mut(id) {
            *slot = new;
        }
        if new.birth() < self.floor {
            home.condemned.push(id);
        }
        self.drop_empty(db);
    }

    /// Tells the index that a linked entry's value was overwritten in place.
    pub fn resized(&mut self, db: usize, before_bytes: usize, after_bytes: usize) {
        if let Some(home) = self.dbs.get_mut(db) {
            home.payload_bytes = home.payload_bytes + after_bytes - before_bytes;
        }
    }

    /// Drops the records that the most recent unlink left without members.
    pub fn settle(&mut self) {
        let Some(home) = self.dbs.get_mut(self.limbo_db) else {
            return;
        };
        for record in self.limbo.drain(..) {
            if self.tags.len(record) == 0 {
                home.names.remove(&self.tags, record);
                self.tags.remove(record);
            }
        }
    }

    /// The names of an entry's tags, also for an entry that was unlinked most recently.
    pub fn names<'a>(&'a self, entry: &'a Entry) -> impl ExactSizeIterator<Item = &'a [u8]> {
        entry.tags().iter().map(|record| self.tags.name(*record))
    }

    /// Whether entry number `id` of a database is this one. Looks at the pointer only, so the entry may be freed.
    pub fn lists(&self, db: usize, id: u32, entry: Entry) -> bool {
        let home = self.dbs.get(db);
        home.is_some_and(|home| home.entries.0.get(id) == Some(&entry))
    }

    /// The name of a tag by its record.
    pub fn name(&self, record: u32) -> &[u8] {
        self.tags.name(record)
    }
}

fn grow(dbs: &mut Vec<Db>, db: usize) -> &mut Db {
    if dbs.len() <= db {
        dbs.resize_with(db + 1, Db::default);
    }
    &mut dbs[db]
}

fn resolve_in<'a>(
    tags: &mut Tags,
    names: &mut Names,
    wanted: impl Iterator<Item = &'a [u8]>,
    manual: bool,
    records: &mut Vec<u32>,
) {
    /// Up to here comparing with all is quicker than a table.
    const FEW: usize = 16;
    let spread = |record: &u32| u64::from(*record).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    records.clear();
    let mut seen: HashTable<u32> = HashTable::new();
    for name in wanted {
        let record = names.find_or_insert(tags, name, hash(name), Class::of(manual));
        if records.len() < FEW {
            if !records.contains(&record) {
                records.push(record);
            }
            continue;
        }
        if seen.is_empty() {
            seen.reserve(records.len() * 2, spread);
            for record in &*records {
                seen.insert_unique(spread(record), *record, spread);
            }
        }
        if seen
            .find(spread(&record), |other| *other == record)
            .is_none()
        {
            seen.insert_unique(spread(&record), record, spread);
            records.push(record);
        }
    }
}

/// Takes a member out of a record, and tells the one that moves into its position. `at` is where among its tags the
/// leaving entry has this one.
fn leave(tags: &mut Tags, entries: &mut Entries, record: u32, position: u32, at: usize) {
    let Some(moved) = tags.swap_remove(record, position) else {
        return;
    };
    let Some(moved) = entries.0.get_mut(moved) else {
        return;
    };
    // Entries made from the same query carry the same tags in the same order: look there first.
    let place = match moved.tags().get(at) {
        Some(tag) if *tag == record => Some(at),
        _ => moved.tags().iter().position(|tag| *tag == record),
    };
    if let Some(place) = place {
        moved.set_position(place, position);
    }
}

fn link_in(tags: &mut Tags, home: &mut Db, mut entry: Entry, kills: u32, floor: Epoch) {
    let id = home.entries.0.insert(entry);
    entry.set_id(id);
    entry.set_checked(kills);
    home.payload_bytes += entry.value().len();
    home.memberships += entry.tags().len();
    for at in 0..entry.tags().len() {
        let position = tags.push(entry.tags()[at], id);
        entry.set_position(at, position);
    }
    if entry.birth() < floor {
        home.condemned.push(id);
    }
}
