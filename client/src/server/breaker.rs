//! When to stop asking a server that does not answer.
//!
//! ```text
//!            n failures in a row               pause over
//!   closed ──────────────────────▶ open ──────────────────────▶ half open: one caller tries
//!     ▲                             ▲  └── all other calls fail at once     │
//!     │                             └───────────── it failed ──────────────┤
//!     └──────────────────────────────── it succeeded ──────────────────────┘
//! ```
//!
//! Counted are moments, not calls: of a thousand calls that were under way when the server stopped to answer, all fail,
//! and that is one failure. The next is one of a call that began after it.
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
    /// When the last one was counted.
    counted_at_us: AtomicU64,
    /// Zero: closed.
    open_until_us: AtomicU64,
}

/// What a failure counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It belongs to one that was counted.
    SameMoment,
    Counted,
    /// It was the last that was missing.
    Opened,
}

impl Breaker {
    pub(super) fn new(failures_max: u32, pause: Duration, now: Instant) -> Self {
        Self {
            failures_max,
            pause,
            zero: now,
            failures: AtomicU32::new(0),
            counted_at_us: AtomicU64::new(0),
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

    /// The server answered: a value or an error, both count.
    pub(super) fn succeeded(&self) {
        // Read before write: in good times no thread dirties the cache line.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.open_until_us.store(0, Relaxed);
        }
    }

    /// The server did not answer a call that began then.
    pub(super) fn failed(&self, began: Instant, now: Instant) -> Verdict {
        let (began_us, now_us) = (self.since_zero(began), self.since_zero(now));
        let counted_at_us = self.counted_at_us.load(Relaxed);
        let is_first = self.failures.load(Relaxed) == 0;
        if !is_first && began_us < counted_at_us {
            return Verdict::SameMoment;
        }
        // Of several callers who come to this point at once, one counts.
        if self
            .counted_at_us
            .compare_exchange(counted_at_us, now_us, Relaxed, Relaxed)
            .is_err()
        {
            return Verdict::SameMoment;
        }
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures < self.failures_max {
            return Verdict::Counted;
        }
        match self.open_until_us.swap(self.pause_after(now_us), Relaxed) {
            0 => Verdict::Opened,
            _ => Verdict::Counted,
        }
    }

    fn since_zero(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.zero).as_micros() as u64
    }

    /// Never zero, which means closed.
    fn pause_after(&self, now_us: u64) -> u64 {
        let pause_us = u64::try_from(self.pause.as_micros()).unwrap_or(u64::MAX);
        now_us.saturating_add(pause_us).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(100);

    /// A call that failed and took no time.
    fn fail(breaker: &Breaker, at: Instant) -> Verdict {
        breaker.failed(at, at)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_caller_try_after_the_pause() {
        let start = Instant::now();
        let breaker = Breaker::new(3, PAUSE, start);
        assert_eq!(fail(&breaker, start), Verdict::Counted);
        assert_eq!(fail(&breaker, start), Verdict::Counted);
        breaker.succeeded();
        assert_eq!(fail(&breaker, start), Verdict::Counted);
        assert_eq!(fail(&breaker, start), Verdict::Counted);
        assert!(breaker.allows(start));
        assert_eq!(fail(&breaker, start), Verdict::Opened, "the third in a row");

        assert!(!breaker.allows(start + PAUSE / 2));
        assert!(breaker.allows(start + PAUSE), "one tries");
        assert!(!breaker.allows(start + PAUSE), "only one");

        let again = fail(&breaker, start + PAUSE);
        assert_eq!(again, Verdict::Counted, "it was open already");
        assert!(!breaker.allows(start + PAUSE + PAUSE / 2));
        assert!(breaker.allows(start + PAUSE * 2));
        breaker.succeeded();
        assert!(breaker.allows(start + PAUSE * 2));
        assert!(breaker.allows(start + PAUSE * 2));
    }

    #[test]
    fn calls_that_were_under_way_together_fail_as_one() {
        let start = Instant::now();
        let later = start + Duration::from_millis(500);
        let breaker = Breaker::new(3, PAUSE, start);
        for number in 0..1000 {
            let ended = later + Duration::from_millis(number % 10);
            breaker.failed(start, ended);
        }
        assert!(breaker.allows(later), "one bad moment is no outage");
        let next = later + Duration::from_millis(20);
        for _ in 0..1000 {
            breaker.failed(next, next + Duration::from_millis(500));
        }
        assert!(breaker.allows(next));
        let third = next + Duration::from_secs(1);
        assert_eq!(fail(&breaker, third), Verdict::Opened);
    }

    #[test]
    fn a_trial_that_never_ends_is_followed_by_another() {
        let start = Instant::now();
        let breaker = Breaker::new(1, PAUSE, start);
        fail(&breaker, start);
        assert!(breaker.allows(start + PAUSE));
        assert!(breaker.allows(start + PAUSE * 2));
    }

    #[test]
    fn a_pause_without_end_is_no_overflow() {
        let start = Instant::now();
        let breaker = Breaker::new(1, Duration::MAX, start);
        assert_eq!(fail(&breaker, start), Verdict::Opened);
        assert!(!breaker.allows(start + Duration::from_secs(1 << 30)));
    }
}
