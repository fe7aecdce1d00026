//! Leases and parked clients, with the tokens that they are handed and the timer that ends them.

use std::hash::Hash;

use super::Server;
use crate::epoch::Token;
use crate::feed::SlotSet;
use crate::lease::{Answer, Released, Waiter, Wake};

/// The timer that is set: what the edge knows it by, and when it fires.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// What the edge knows the timer by.
    pub timer: u64,
    /// When it fires, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Things done, and clients woken, in one turn: the rest is left for the next rounds of the event loop.
const AT_ONCE: usize = 64;

/// What a client leaves behind that is gone.
#[derive(Debug)]
#[must_use]
pub struct Gone<W> {
    /// Places in which it waited for its own lease: to be ended without an answer.
    pub own: Vec<W>,
    /// Who is next in line for its leases.
    pub wakes: Vec<Wake<W>>,
}

impl<W: Copy + Eq + Hash> Server<W> {
    /// The key holds a value of so many bytes now, or what it held was deleted: every client that waits for it looks
    /// again.
    #[inline]
    pub fn filled(
        &mut self,
        db: usize,
        key: &[u8],
        bytes: usize,
        now_ms: impl FnOnce() -> u64,
    ) -> Vec<Wake<W>> {
        if self.leases.is_empty() {
            return Vec::new();
        }
        self.leases.filled(db, key, bytes);
        self.advance(now_ms())
    }

    /// The holder of this token gives its lease back.
    pub fn release(&mut self, db: usize, key: &[u8], token: Token, now_ms: u64) -> Released<W> {
        let Server { leases, fills, .. } = self;
        leases.release(db, key, token, now_ms, || fills.unique_token(now_ms))
    }

    /// A client is gone: out of line, and its leases pass on.
    pub fn disconnected(&mut self, client: u64, now_ms: u64) -> Gone<W> {
        let mut own = self.leases.behind_itself(client);
        own.retain(|place| self.leases.forget(*place));
        self.leases.disconnected(client);
        let wakes = self.advance(now_ms);
        Gone { own, wakes }
    }

    /// The slots that this server has are these now: clients that wait for keys of others are sent there.
    /// A bounded part of it; true once all were looked at.
    pub fn slots_left(&mut self, here: &SlotSet) -> (Vec<Wake<W>>, bool) {
        self.leases.slots_left(AT_ONCE, |slot| here.has(slot))
    }

    /// Puts a client in line; false if no client holds the lease any more, so that it should look again.
    pub fn park(&mut self, db: usize, key: &[u8], waiter: Waiter<W>) -> bool {
        self.leases.park(db, key, waiter)
    }

    /// Takes a client out of line; false if it was woken already and is on its way out by itself.
    pub fn leave(&mut self, handle: W) -> bool {
        self.leases.forget(handle)
    }

    /// Takes note of what a woken client is told; a fill that it is handed counts as a miss.
    pub fn answered(&mut self, answer: Answer) {
        self.stats.misses += u64::from(matches!(answer, Answer::Fill(_)));
    }

    /// Ends leases and waits that are over, and tells clients what there is to tell: a bounded part of it. While
    /// [`Server::is_behind`], it is to be called again in each round of the event loop.
    pub fn advance(&mut self, now_ms: u64) -> Vec<Wake<W>> {
        let Server { leases, fills, .. } = self;
        leases.advance(now_ms, AT_ONCE, || fills.unique_token(now_ms))
    }

    /// Whether [`Server::advance`] has something to do now.
    pub fn is_behind(&self, now_ms: u64) -> bool {
        self.leases.is_behind(now_ms)
    }

    /// Does a bounded piece of the work that concerns no key and no client, on replicas as well: frees what a flush
    /// left, takes the memory of invalidations over into another size. True while there is more.
    pub fn tidy(&mut self) -> bool {
        let more = self.fills.migrate();
        self.index.bury() || more
    }

    /// Everything that clients wait for has changed, in one database or in all: they look again.
    pub fn look_again(&mut self, db: Option<usize>, now_ms: u64) -> Vec<Wake<W>> {
        self.leases.clear(db);
        self.advance(now_ms)
    }

    /// Whether a timer must be set, and when it is to fire; called whenever the next end may have come nearer. One that
    /// fires early does no harm. [`Server::alarm_set`] must follow, for the timer that was set before is not needed
    /// any more.
    pub fn alarm_due(&self) -> Option<u64> {
        // Without any client in line no end needs to be exact: leases that ran out are taken over or swept up later.
        let next_ms = self
            .leases
            .next_end_ms()
            .filter(|_| self.leases.parked() > 0)?;
        self.alarm
            .is_none_or(|alarm| next_ms < alarm.at_ms)
            .then_some(next_ms)
    }

    /// Another timer is set; returns the one before.
    pub fn alarm_set(&mut self, alarm: Alarm) -> Option<Alarm> {
        self.alarm.replace(alarm)
    }

    /// The timer fired.
    pub fn alarm_fired(&mut self) {
        self.alarm = None;
    }
}
