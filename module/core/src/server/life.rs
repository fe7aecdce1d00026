//! What happens to the server as a whole: start, load, promotion, demotion, flush, exchange, a bug that was caught.

use std::hash::Hash;

use super::Server;
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
    /// The server serves: whatever was on disk has been read.
    pub fn started(&mut self) {
        self.phase = Phase::Running;
    }

    /// A file, or the data set of a primary, begins or ends to be read.
    pub fn loading(&mut self, begins: bool) {
        self.loading = begins;
    }

    /// A database was emptied, or all of them: called while the entries are still there.
    pub fn flushed(&mut self, db: Option<usize>, now_ms: u64) -> Vec<Wake<W>> {
        match db {
            Some(db) => self.index.discard(db),
            None => self.index.discard_all(),
        }
        self.fills.refuse_all(now_ms);
        self.look_again(db)
    }

    /// Two databases were exchanged.
    pub fn swapped(&mut self, first: usize, second: usize, now_ms: u64) -> Vec<Wake<W>> {
        self.index.swap(first, second);
        self.fills.refuse_all(now_ms);
        self.look_again(None)
    }

    /// The server became the primary: tokens of the run before are worth nothing, and with `drop` nor are its entries.
    pub fn promoted(&mut self, incarnation: u64, drop: bool, now_ms: u64) {
        self.fills.new_run(incarnation, now_ms);
        if drop {
            self.forget_everything(now_ms);
        }
    }

    /// The server became a replica: it hands out no leases, and sends no slots to others.
    pub fn demoted(&mut self) -> Vec<Wake<W>> {
        self.exports.clear();
        self.look_again(None)
    }

    /// A bug was caught half-way through a change: nothing that was stored can be trusted.
    pub fn repaired(&mut self, now_ms: u64) {
        self.stats.panics += 1;
        self.forget_everything(now_ms);
    }

    /// Makes everything stored so far dead and refuses every fill under way.
    fn forget_everything(&mut self, now_ms: u64) {
        let epoch = self.fills.new_floor(now_ms);
        self.index.raise_floor(epoch);
    }
}

impl<W> Server<W> {
    /// Whether what is being read from disk must not be served.
    pub(super) fn drops_what_it_loads(&self, drop_on_restart: bool) -> bool {
        self.loading && self.phase == Phase::Starting && drop_on_restart
    }
}
