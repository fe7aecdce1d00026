//! A near cache's decisions: what it may serve, what it may put away, what it has to forget.
//!
//! The other side of [`crate::feed`]. Pure as well: the time comes in as milliseconds of a clock that goes on while the
//! process is stopped or the machine sleeps (CLOCK_BOOTTIME), and what is to be forgotten goes out as [`Change`]s. How
//! values are kept is the caller's affair; the caller's lock makes each method here and what follows from it one step.
//!
//! - this file: the view of one server: calls of FEED, the lease, putting away
//! - `events.rs`: what recent events concern · `own.rs`: this process's own invalidations · `life.rs`: how long an
//!   entry lives
//! - `settle.rs`: how an invalidation comes to be settled

mod events;
mod life;
mod own;
mod settle;

use std::sync::Arc;

use crate::feed::{HashKey, Told};
use events::Events;
use own::Pending;

pub use life::end_ms;
pub use own::{Own, OwnId};
pub use settle::{Settle, Step};

/// What is to be forgotten. `before`: of the values numbered lower than this; no event concerns a value that was read
/// after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Change {
    /// Everything that came from this server.
    Everything,
    /// Everything from the database.
    Flush { before: u64 },
    /// What carries the tag of this digest; but not MANUAL entries if it spares them.
    Tag {
        digest: u64,
        spares_manual: bool,
        before: u64,
    },
    /// Keys in this cell.
    Cell { cell: u64, before: u64 },
    /// Keys in these slots.
    Slots { first: u16, last: u16, before: u64 },
}

/// A call of FEED, as it is sent.
#[derive(Clone, Debug)]
pub struct Sent {
    number: u64,
    /// When: read before sending.
    pub sent_ms: u64,
    /// `None`: NEW.
    pub position: Option<Arc<[u8]>>,
}

/// An answer of FEED.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Where the view is once it has applied the events; not looked into.
    pub position: Arc<[u8]>,
    /// The lease in milliseconds.
    pub lease_ms: u64,
    /// There are more events.
    pub more: bool,
    /// In order.
    pub events: Vec<Told>,
    /// Everything is to be forgotten first; the key of digests, and by how many of its bits keys are divided into
    /// cells.
    pub gap: Option<(HashKey, u32)>,
}

/// A read for the near cache, as it is sent.
#[derive(Clone, Debug)]
pub struct Asked {
    identity: u64,
    moment: u64,
    /// When: read before sending.
    pub sent_ms: u64,
    /// Names the subscription.
    pub position: Arc<[u8]>,
}

/// What the server says beside a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Data {
    /// The last event at the moment at which it was read.
    pub number: u64,
    /// INVALIDATE AUTO spares it.
    pub manual: bool,
    /// Digests of its tags.
    pub digests: Vec<u64>,
}

/// Why a value is not put away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// Everything was forgotten since it was asked for.
    Gap,
    /// An event after it concerns it, or may.
    Event,
    /// An invalidation of this process concerns it that is not acknowledged, or was not when it was asked for.
    Own,
}

/// What a process knows of one server.
#[derive(Debug)]
pub struct View {
    joined: Option<Joined>,
    /// Counts how often everything was forgotten.
    identity: u64,
    /// Counts calls of FEED: only the last one's answer counts.
    calls: u64,
    lease_until_ms: u64,
    events: Events,
    own: Pending,
    /// Numbers reads and own invalidations in the order in which they happened in this process.
    moment: u64,
}

#[derive(Debug)]
struct Joined {
    position: Arc<[u8]>,
    hash_key: HashKey,
    cell_mask: u64,
}

impl Default for View {
    fn default() -> Self {
        View {
            joined: None,
            identity: 0,
            calls: 0,
            lease_until_ms: 0,
            events: Events::default(),
            own: Pending::default(),
            moment: 1,
        }
    }
}

impl View {
    // ---- the feed ----

    /// The next call of FEED. An earlier one that is still under way is given up with it: its answer will not count.
    pub fn call(&mut self, now_ms: u64) -> Sent {
        self.calls += 1;
        Sent {
            number: self.calls,
            sent_ms: now_ms,
            position: self.joined.as_ref().map(|joined| joined.position.clone()),
        }
    }

    /// Takes note of an answer. What is to be forgotten is to be forgotten before anything else is served: the lease
    /// that comes with it counts from before the call was sent, and only once everything is applied.
    pub fn answered(&mut self, sent: &Sent, answer: Answer) -> Vec<Change> {
        // The answer to a call that was given up: no position goes back.
        if sent.number != self.calls {
            return Vec::new();
        }
        // A call is answered once.
        self.calls += 1;
        let mut changes = Vec::new();
        match (&mut self.joined, answer.gap) {
            (_, Some((hash_key, cell_bits))) => {
                changes.push(self.forget());
                self.joined = Some(Joined {
                    position: answer.position,
                    hash_key,
                    cell_mask: 1u64.checked_shl(cell_bits).map_or(u64::MAX, |n| n - 1),
                });
                self.own.rekey(&hash_key);
            }
            (Some(joined), None) => joined.position = answer.position,
            // It goes on where nothing began.
            (None, None) => return vec![self.forget()],
        }
        for told in &answer.events {
            self.events.note(told, &mut changes);
        }
        if !answer.more {
            let until_ms = sent.sent_ms.saturating_add(answer.lease_ms);
            self.lease_until_ms = self.lease_until_ms.max(until_ms);
        }
        changes
    }

    /// Another server is the primary now, or this one is to be left: nothing that came from it is served again.
    pub fn forget(&mut self) -> Change {
        self.joined = None;
        self.identity += 1;
        self.calls += 1;
        self.lease_until_ms = 0;
        self.events = Events::default();
        Change::Everything
    }

    /// Any of its positions: names the subscription to the server. `None` before the first answer.
    pub fn position(&self) -> Option<Arc<[u8]>> {
        self.joined.as_ref().map(|joined| joined.position.clone())
    }

    // ---- serving ----

    /// Whether what came from this server may be served; the clock is read within the call that serves.
    #[inline]
    pub fn serves(&self, now_ms: u64) -> bool {
        now_ms < self.lease_until_ms
    }

    /// Until when it may be, for callers that keep a copy where no lock is needed.
    pub fn lease_until_ms(&self) -> u64 {
        self.lease_until_ms
    }

    /// The digest of a name at this server. `None` before the first answer.
    pub fn digest(&self, name: &[u8]) -> Option<u64> {
        self.joined
            .as_ref()
            .map(|joined| joined.hash_key.digest(name))
    }

    /// The cell of a key.
    pub fn cell(&self, key: &[u8]) -> Option<u64> {
        let joined = self.joined.as_ref()?;
        Some(joined.hash_key.digest(key) & joined.cell_mask)
    }

    // ---- putting away ----

    /// A read for the near cache, to be noted before it is sent. `None` before the first answer of FEED.
    pub fn ask(&self, now_ms: u64) -> Option<Asked> {
        let joined = self.joined.as_ref()?;
        Some(Asked {
            identity: self.identity,
            moment: self.moment,
            sent_ms: now_ms,
            position: joined.position.clone(),
        })
    }

    /// Whether a value may be put away, or given to callers who joined its flight; to be put away in the same step.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, asked: &Asked, key: &[u8], data: &Data) -> Result<(), Kept> {
        let Some(cell) = self.cell(key).filter(|_| asked.identity == self.identity) else {
            return Err(Kept::Gap);
        };
        if self.events.concern(data, cell) {
            return Err(Kept::Event);
        }
        if self.own.concern(data, key, cell, asked.moment) {
            return Err(Kept::Own);
        }
        Ok(())
    }

    // ---- this process's own invalidations ----

    /// An invalidation that this process is about to send: what it concerns is forgotten at once, and nothing that it
    /// concerns is put away before it is acknowledged.
    pub fn invalidating(&mut self, own: Own) -> (OwnId, Vec<Change>) {
        self.moment += 1;
        let hash_key = self.joined.as_ref().map(|joined| joined.hash_key);
        let id = self.own.begin(own, hash_key.as_ref());
        (id, self.own_changes(id))
    }

    /// It is acknowledged: what was asked for before this moment is not put away.
    pub fn acknowledged(&mut self, id: OwnId) -> Vec<Change> {
        let changes = self.own_changes(id);
        self.moment += 1;
        let cell_mask = self.joined.as_ref().map_or(0, |joined| joined.cell_mask);
        self.own.end(id, self.moment, cell_mask);
        changes
    }

    fn own_changes(&self, id: OwnId) -> Vec<Change> {
        match &self.joined {
            Some(joined) => self.own.changes(id, joined.cell_mask),
            None => Vec::new(),
        }
    }
}
