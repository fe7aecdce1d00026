//! The tag index: which entries carry which tag, exactly, at every moment.
//!
//! The keyspace is the truth and the index follows it: the edge calls [`Index::link`] when an entry enters the keyspace
//! and [`Index::unlink`] before it leaves. Nothing here deletes a key; what is to be done is handed out by
//! [`Index::next_task`] to the caller that does it, at its own pace.
//!
//! - this file: the structures; `link.rs`: the way in and out
//! - `life.rs`: what an entry is worth, invalidations, the floor
//! - `anew.rs`: what a bug may have left half done is forgotten
//! - `dbs.rs`: the databases, and what is known of all together
//! - `leave.rs`: whole slots that go, and entries that the allocator moves
//! - `compact.rs`: the few that are left of many move together
//! - `reclaim.rs`: tasks; `bury.rs`: databases that go away as a whole, and other work that deletes no key
//! - `listed.rs`: what a listing under way must not miss
//! - `scan.rs`: numbers and listings; `verify.rs`: the self-check
//!
//! Invariants (checked entry by entry in [`Index::verify`]):
//! - an entry is in the slab of its database under its id, and for every tag the record's member at the entry's
//!   position is that id;
//! - a live record is in the table of names and has at least one member, unless it is in limbo;
//! - a soft record has members and is in the line of soft records; the newest of its group is in the table of soft
//!   names;
//! - a dead record is in no table and in exactly one queue of dead records.

mod anew;
mod bury;
mod compact;
mod dbs;
mod leave;
mod life;
mod link;
mod listed;
mod reclaim;
mod scan;
mod verify;

use crate::entry::Entry;
use crate::epoch::Epoch;
use crate::hash::Key;
use crate::names::Names;
use crate::queue::Queue;
use crate::slab::Slab;
use crate::soft::{Line, Softs};
use crate::tags::Tags;

pub use life::{Scope, Verdict, Why};
pub use reclaim::Task;
pub use scan::{Page, Sizes};

use bury::Discarded;
use compact::Pass;
use dbs::{Counted, Dbs};
use listed::Listed;

/// One database.
#[derive(Default)]
struct Db {
    names: Names,
    entries: Slab<Entry>,
    /// Dead records whose members are not yet reclaimed.
    dead: Queue,
    /// Soft records by name, and in the order in which their members are dealt with.
    soft_names: Names,
    soft: Line,
    /// Ids of entries that were dead when they arrived.
    condemned: Queue,
    /// Where the search for entries below the floor goes on.
    sweep: Option<u32>,
    memberships: usize,
    /// Members of dead and soft records.
    pending: usize,
    payload_bytes: usize,
    counted: Counted,
}

/// The index of all databases of a server.
pub struct Index {
    tags: Tags,
    softs: Softs,
    dbs: Dbs,
    /// The data set that a replica loads beside the one it serves.
    staging: Option<Dbs>,
    graveyard: Vec<Discarded>,
    /// Records that lost their last member with the most recent unlink. RENAME and MOVE take an entry out under the old
    /// name before they announce the new one, so an empty record keeps its name until the next change.
    limbo: Vec<u32>,
    limbo_db: usize,
    /// The entry of the most recent unlink, until the next change: its records are still there.
    just_left: Option<Entry>,
    /// Record ids of the entry that is being stored or adopted; kept to be reused.
    records: Vec<u32>,
    /// The hashes of its names.
    hashes: Vec<u64>,
    /// Dead and soft records in all databases; 0 means that no entry can be anything but alive by its tags.
    doubtful_records: usize,
    /// Counts invalidations that left members to reclaim. An entry that was alive at this count still is.
    kills: u32,
    /// The count that an entry must have been found alive at to be believed: `kills`, or one that no entry has while
    /// the marks of an earlier round of the counter are being wiped.
    trusted: u64,
    /// Where the wiping goes on: a database and an id.
    wiping: Option<(usize, u32)>,
    floor: Epoch,
    /// The pass of compaction that is under way.
    compaction: Option<Pass>,
    listed: Listed,
}

impl Default for Index {
    fn default() -> Self {
        Index::new()
    }
}

impl Index {
    /// [`Index::with_key`] with the key that is the same everywhere: for tests.
    pub fn new() -> Self {
        Index::with_key(Key::default())
    }

    /// An empty index whose names are hashed with this key.
    pub fn with_key(key: Key) -> Self {
        Index {
            tags: Tags::new(key),
            softs: Softs::default(),
            dbs: Dbs::default(),
            staging: None,
            graveyard: Vec::new(),
            limbo: Vec::new(),
            limbo_db: 0,
            just_left: None,
            records: Vec::new(),
            hashes: Vec::new(),
            doubtful_records: 0,
            kills: 0,
            trusted: 0,
            wiping: None,
            // Above zero: an entry born at `Epoch::ZERO` is dead from the start.
            floor: Epoch(1),
            compaction: None,
            listed: Listed::default(),
        }
    }

    /// Whether this entry was unlinked by the most recent change, so that the names of its tags are known. Looks at the
    /// pointer only.
    pub fn just_left(&self, entry: Entry) -> bool {
        self.just_left == Some(entry)
    }

    /// The names of an entry's tags, also for an entry that was unlinked most recently.
    pub fn names<'a>(&'a self, entry: &'a Entry) -> impl ExactSizeIterator<Item = &'a [u8]> {
        entry.tags().iter().map(|record| self.tags.name(*record))
    }

    /// Whether entry number `id` of a database is this one. Looks at the pointer only, so the entry may be freed.
    pub fn lists(&self, db: usize, id: u32, entry: Entry) -> bool {
        let home = self.dbs.get(db);
        home.is_some_and(|home| home.entries.get(id) == Some(&entry))
    }

    /// The name of a tag by its record.
    pub fn name(&self, record: u32) -> &[u8] {
        self.tags.name(record)
    }
}
