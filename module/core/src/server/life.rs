//! What happens to the server as a whole: start, load, promotion, demotion, flush, exchange, a bug that was caught.

use std::hash::Hash;

use super::{Edge, Server};
use crate::entry::{Attributes, Entry, UNLINKED};
use crate::epoch::Epoch;
use crate::lease::Wake;

/// How the server treats what it reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// It has not served anything yet: what it loads was on disk while invalidations may have been lost.
    Starting,
    /// It serves.
    Running,
}

impl<W: Copy + Eq + Hash> Server<W> {
    /// The server serves: the files on disk, if any, have been read.
    pub fn started(&mut self) {
        self.phase = Phase::Running;
    }

    /// A file, or the data set of a primary, begins to be read; by a replica, or by a server that decides for itself.
    pub fn load_begins(&mut self, as_primary: bool) {
        self.loading = true;
        self.loads_as_replica = !as_primary;
    }

    /// It was read, or could not be.
    pub fn load_ended(&mut self) {
        self.loading = false;
        // What was loaded last, and is not announced by now, never is.
        (self.pending, self.spare) = Default::default();
        self.search_again();
    }

    /// The data set that was loaded beside is the one that is served from now on.
    pub fn loaded_beside(&mut self) {
        self.index.complete_staging();
        self.search_again();
    }

    /// A replica reached its primary: the invalidations since its file was written are delivered, or the whole data
    /// set was.
    pub fn linked(&mut self) {
        self.unconfirmed = false;
    }

    /// A database was emptied, or all of them: called while the entries are still there.
    pub fn flushed(&mut self, db: Option<usize>, now_ms: u64) -> Vec<Wake<W>> {
        match db {
            Some(db) => self.index.discard(db),
            None => self.index.discard_all(),
        }
        self.fills.refuse_all(now_ms);
        self.feed.flushed(db.map(|db| db as u32));
        self.look_again(db, now_ms)
    }

    /// Two databases were exchanged.
    pub fn swapped(&mut self, first: usize, second: usize, now_ms: u64) -> Vec<Wake<W>> {
        self.index.swap(first, second);
        self.search_again();
        self.fills.refuse_all(now_ms);
        self.feed.flushed(Some(first as u32));
        self.feed.flushed(Some(second as u32));
        self.look_again(None, now_ms)
    }

    /// The server became the primary: tokens of the run before are worth nothing, and with `drop` nor are its entries.
    pub fn promoted(&mut self, incarnation: u64, drop: bool, now_ms: u64) {
        self.fills.new_run(incarnation, now_ms);
        // What it read from its own file and no primary confirmed is what a primary drops at its start.
        if drop || std::mem::take(&mut self.unconfirmed) {
            self.forget_everything(now_ms);
        }
    }

    /// The server became a replica: it hands out no leases, and sends no slots to others.
    pub fn demoted(&mut self, now_ms: u64) -> Vec<Wake<W>> {
        self.exports.clear();
        self.look_again(None, now_ms)
    }

    /// A bug was caught half-way through a change: nothing that was stored can be trusted, nor what is known of it. The
    /// index begins anew, and what the keyspace holds from before is dead, though the index names none of it: the edge
    /// is to search the keyspace for it ([`Server::search`]) and to look after what waits in line
    /// ([`Server::is_behind`]).
    pub fn repaired(&mut self, now_ms: u64) {
        // First of all, so that a second panic on the way finds nothing that points anywhere.
        self.index.begin_anew();
        self.pending = None;
        self.searches += 1;
        self.is_searching = true;
        let floor = self.fills.new_floor(now_ms);
        self.index.set_new_floor(floor);
        self.untold_floor = Some(floor);
        self.feed.floor_raised();
        self.leases.clear(None);
    }

    /// The number of the search for entries in the keyspace that no index names, if there is one to go on with: every
    /// database, from the first one on. With another number it begins again.
    pub fn search(&self) -> Option<u64> {
        let is_still = !self.loading && !self.index.is_staging();
        (self.is_searching && is_still).then_some(self.searches)
    }

    /// The search with this number came to the end.
    pub fn search_ended(&mut self, number: u64) {
        self.is_searching &= number != self.searches;
    }

    /// Keys that the search has not seen may stand where it has been.
    fn search_again(&mut self) {
        self.searches += 1;
    }

    /// What is to take the place of an entry that the search found under a key: a husk, which reclaim removes, on
    /// replicas as well. `None` if the index names the entry. The entry may be freed once it was replaced.
    pub fn astray(&mut self, db: usize, key: &[u8], mut entry: Entry) -> Option<Entry> {
        if self.index.lists(db, entry.id(), entry) {
            return None;
        }
        entry.set_id(UNLINKED);
        let husk = Entry::new(key, b"", Attributes::HUSK, &[]);
        self.index.adopt(db, husk, std::iter::empty(), false);
        Some(husk)
    }

    /// Makes everything stored so far dead and refuses every fill under way.
    fn forget_everything(&mut self, now_ms: u64) {
        let epoch = self.fills.new_floor(now_ms);
        self.index.raise_floor(epoch);
        self.untold_floor = Some(epoch);
        self.feed.floor_raised();
    }

    /// A floor that replicas and the append-only file are to be told of before anything else; once.
    pub fn floor_to_tell(&mut self) -> Option<Epoch> {
        self.untold_floor.take()
    }

    /// The primary raised its floor.
    pub fn floor_replicated(&mut self, epoch: Epoch, edge: &impl Edge) {
        // What cannot be true makes everything dead all the same, up to now.
        let epoch = match self.credible(epoch, edge) {
            true => epoch,
            false => self.fills.tick(edge.now_ms()),
        };
        self.fills.observe(epoch);
        self.index.raise_floor(epoch);
        self.feed.floor_raised();
    }
}

impl<W> Server<W> {
    /// Whether what is being read from disk must never be served.
    ///
    /// A primary cannot know what was invalidated while it was down. A replica is told, if it can go on where it was:
    /// it keeps what it reads, or it would lack for good what its primary does not send again. Until it has reached its
    /// primary it serves none of it.
    pub(super) fn drops_what_it_loads(&mut self, drop_on_restart: bool) -> bool {
        let doubtful = self.loading && self.phase == Phase::Starting && drop_on_restart;
        self.unconfirmed |= doubtful && self.loads_as_replica;
        doubtful && !self.loads_as_replica
    }
}
