//! Leases and parked clients, with the tokens that they are handed and the timer that ends them.

use std::hash::Hash;

use super::Server;
use crate::epoch::Token;
use crate::lease::{Answer, Released, Waiter, Wake};

/// The timer that is set: what the edge knows it by, and when it fires.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// What the edge knows the timer by.
    pub timer: u64,
    /// When it fires, in milliseconds since 1970.
    pub at_ms: u64,
}

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
    /// The key holds a value now, or what it held was deleted: every client that waits for it looks again.
    #[inline]
    pub fn filled(&mut self, db: usize, key: &[u8]) -> Vec<Wake<W>> {
        if self.leases.is_empty() {
            return Vec::new();
        }
        self.leases.filled(db, key)
    }

    /// The holder of this token gives its lease back.
    pub fn release(&mut self, db: usize, key: &[u8], token: Token, now_ms: u64) -> Released<W> {
        let Server { leases, fills, .. } = self;
        leases.release(db, key, token, now_ms, || fills.unique_token(now_ms))
    }

    /// A client is gone: out of line, and its leases pass on.
    pub fn disconnected(&mut self, client: u64, now_ms: u64) -> Gone<W> {
        let Server { leases, fills, .. } = self;
        let mut own = leases.behind_itself(client);
        own.retain(|place| leases.forget(*place));
        let wakes = leases.disconnected(client, now_ms, || fills.unique_token(now_ms));
        Gone { own, wakes }
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

    /// Ends the leases and waits that are over.
    pub fn expire(&mut self, now_ms: u64) -> Vec<Wake<W>> {
        let Server { leases, fills, .. } = self;
        leases.expire(now_ms, || fills.unique_token(now_ms))
    }

    /// Everything that clients wait for has changed, in one database or in all: they look again.
    pub fn look_again(&mut self, db: Option<usize>) -> Vec<Wake<W>> {
        self.leases.clear(db)
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
