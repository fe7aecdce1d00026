//! When to stop asking a server that does not answer.
//!
//! ```text
//!            n failures in a row               pause over
//!   closed ──────────────────────▶ open ──────────────────────▶ half open: one caller tries
//!     ▲                             ▲  └── everybody else fails at once     │
//!     │                             └───────────── it failed ──────────────┤
//!     └──────────────────────────────── it succeeded ──────────────────────┘
//! ```
//!
//! A server that hangs would otherwise cost every request of the application a whole deadline. Lock-free, because it
//! is on the path of every command; pure, the time is passed in.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

pub(super) struct Breaker {
    failures_max: u32,
    pause: Duration,
    /// What `open_until_us` counts from.
    zero: Instant,
    failures: AtomicU32,
    /// Zero: closed.
    open_until_us: AtomicU64,
}

impl Breaker {
    pub(super) fn new(failures_max: u32, pause: Duration, now: Instant) -> Self {
        Self {
            failures_max,
            pause,
            zero: now,
            failures: AtomicU32::new(0),
            open_until_us: AtomicU64::new(0),
        }
    }

    /// Whether to try. When the pause is over, `true` for one caller; the others wait for how it fares.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let open_until = self.open_until_us.load(Relaxed);
        if open_until == 0 {
            return true;
        }
        let now_us = self.since_zero(now);
        now_us >= open_until
            && self
                .open_until_us
                .compare_exchange(open_until, self.pause_after(now_us), Relaxed, Relaxed)
                .is_ok()
    }

    /// The server answered, whatever it said.
    pub(super) fn succeeded(&self) {
        // Read before write: in good times nobody dirties the cache line.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.open_until_us.store(0, Relaxed);
        }
    }

    /// The server did not answer. `true` if that opened the breaker.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures < self.failures_max {
            return false;
        }
        let was = self
            .open_until_us
            .swap(self.pause_after(self.since_zero(now)), Relaxed);
        was == 0
    }

    fn since_zero(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.zero).as_micros() as u64
    }

    /// Never zero, which means closed.
    fn pause_after(&self, now_us: u64) -> u64 {
        (now_us + self.pause.as_micros() as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(100);

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_caller_try_after_the_pause() {
        let start = Instant::now();
        let breaker = Breaker::new(3, PAUSE, start);
        assert!(!breaker.failed(start));
        assert!(!breaker.failed(start));
        breaker.succeeded();
        assert!(!breaker.failed(start));
        assert!(!breaker.failed(start));
        assert!(breaker.allows(start));
        assert!(breaker.failed(start), "the third in a row opens it");

        assert!(!breaker.allows(start + PAUSE / 2));
        assert!(breaker.allows(start + PAUSE), "one tries");
        assert!(!breaker.allows(start + PAUSE), "only one");

        assert!(!breaker.failed(start + PAUSE), "it was open already");
        assert!(!breaker.allows(start + PAUSE + PAUSE / 2));
        assert!(breaker.allows(start + PAUSE * 2));
        breaker.succeeded();
        assert!(breaker.allows(start + PAUSE * 2));
        assert!(breaker.allows(start + PAUSE * 2));
    }

    #[test]
    fn a_trial_that_never_ends_is_followed_by_another() {
        let start = Instant::now();
        let breaker = Breaker::new(1, PAUSE, start);
        breaker.failed(start);
        assert!(breaker.allows(start + PAUSE));
        assert!(breaker.allows(start + PAUSE * 2));
    }
}
