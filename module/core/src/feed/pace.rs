//! What happens by itself: waking in rounds, the end of leases and of patience, the end of the log.
//!
//! Parked FEEDs are woken in *rounds*: one round looks at each of them once, a slice at a time, and the next begins no
//! sooner than 0.5 ms, or 50 us for each subscription, after it began. So thousands of invalidations a second cost each
//! subscriber one answer a round, and the server a bounded part of its time.

use super::{Feed, LEASES_KEPT, Wake};
use std::collections::VecDeque;

/// Parked calls looked at in one slice.
const SLICE: usize = 32;
/// Between the beginnings of two rounds, at least, and for each subscription.
const ROUND_US: u64 = 500;
const ROUND_EACH_US: u64 = 50;

/// The state of waking.
#[derive(Default)]
pub(super) struct Round {
    /// Something happened, or was left over, since the last round began.
    disturbed: bool,
    began_us: u64,
    /// Who is still to be looked at.
    left: VecDeque<u64>,
}

impl Round {
    /// There may be something to tell.
    pub fn disturb(&mut self) {
        self.disturbed = true;
    }
}

impl<W: Copy + Ord> Feed<W> {
    /// Between two answers to one parked subscription, at least.
    pub(super) fn interval_us(&self) -> u64 {
        ROUND_US.max(self.subscriptions.len() as u64 * ROUND_EACH_US)
    }

    /// The server runs: to be said at least ten times a second while the feed is on.
    pub fn alive(&mut self, now_us: u64) {
        self.grants.run(self.settings.lease_ms, now_us);
    }

    /// Does what is due. To be called again at [`Feed::next_us`], and not before other clients had their turn.
    pub fn run(&mut self, now_us: u64) {
        self.tell_who_left();
        self.alive(now_us);
        let settled = self.settles.expire(now_us).into_iter();
        self.wakes
            .extend(settled.map(|(handle, state)| Wake::Settle(handle, state)));
        self.end_patience(now_us);
        self.wake_a_slice(now_us);
        if now_us >= self.sweep_us {
            self.sweep(now_us);
        }
    }

    /// Who is to be told what, since this was last asked.
    pub fn take_wakes(&mut self) -> Vec<Wake<W>> {
        std::mem::take(&mut self.wakes)
    }

    /// When [`Feed::run`] has something to do next; `None` while there is nothing.
    pub fn next_us(&self) -> Option<u64> {
        let round_us = if !self.round.left.is_empty() {
            Some(0)
        } else if self.round.disturbed && !self.by_handle.is_empty() {
            Some(self.round.began_us + self.interval_us())
        } else {
            None
        };
        let sweep_us = (!self.is_idle()).then_some(self.sweep_us);
        let patience_us = self.patience.first().map(|(at_us, _)| *at_us);
        [round_us, sweep_us, patience_us, self.settles.next_us()]
            .into_iter()
            .flatten()
            .min()
    }

    fn end_patience(&mut self, now_us: u64) {
        while let Some((at_us, subscription)) = self.patience.first().copied() {
            if at_us > now_us {
                return;
            }
            self.patience.pop_first();
            self.wake(subscription);
        }
    }

    fn wake(&mut self, subscription: u64) {
        let parked = self
            .subscriptions
            .get(&subscription)
            .and_then(|known| known.parked.as_ref());
        let Some((handle, ticket)) = parked.map(|parked| (parked.handle, parked.ticket)) else {
            return;
        };
        self.unpark(handle);
        self.wakes.push(Wake::Feed(handle, ticket));
    }

    fn wake_a_slice(&mut self, now_us: u64) {
        let interval_us = self.interval_us();
        if self.round.left.is_empty() {
            let due = now_us >= self.round.began_us + interval_us;
            if !self.round.disturbed || !due || self.by_handle.is_empty() {
                return;
            }
            self.round.disturbed = false;
            self.round.began_us = now_us;
            self.round.left = self.by_handle.values().copied().collect();
        }
        for _ in 0..SLICE {
            let Some(subscription) = self.round.left.pop_front() else {
                return;
            };
            if !self.concerned(subscription) {
                continue;
            }
            let known = &self.subscriptions[&subscription];
            if known.answered_us + interval_us > now_us {
                // It was told something since the round began: the next one.
                self.round.disturbed = true;
            } else {
                self.wake(subscription);
            }
        }
    }

    /// Forgets subscriptions that have not called for long, and stops the log when there is none.
    fn sweep(&mut self, now_us: u64) {
        let lease_us = self.settings.lease_ms * 1_000;
        let kept_us = LEASES_KEPT * lease_us;
        let gone: Vec<u64> = self
            .subscriptions
            .iter()
            .filter(|(_, known)| known.parked.is_none())
            .filter(|(_, known)| known.lease_end_us.max(known.since_us) + kept_us <= now_us)
            .map(|(id, _)| *id)
            .collect();
        for subscription in gone {
            let known = &self.subscriptions[&subscription];
            self.ended_us = self.ended_us.max(known.lease_end_us);
            self.remove(subscription);
        }
        if self.subscriptions.is_empty() && self.ended_us + kept_us <= now_us {
            self.stop_log();
        }
        self.sweep_us = now_us + lease_us;
    }
}
