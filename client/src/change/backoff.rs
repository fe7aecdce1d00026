//! Pauses between attempts.
//!
//! Owns their lengths. It must not sleep itself.

use std::time::Duration;

/// Exponential pauses with jitter: each up to twice as long as the one before, never beyond a maximum.
///
/// ```
/// use std::time::Duration;
/// use mcache::change::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
/// assert_eq!(backoff.after_failure(1.0), Duration::from_millis(10));
/// assert_eq!(backoff.after_failure(1.0), Duration::from_millis(20));
/// backoff.reset();
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Begins at `first` and ends at `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            failures: 0,
        }
    }

    /// The pause after one more failure.
    ///
    /// `jitter` is drawn by the caller from 0..=1; the pause lies between half of the nominal one and all of it, so
    /// that many processes which failed together do not come back together.
    pub fn after_failure(&mut self, jitter: f64) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let nominal = self.first.saturating_mul(1 << doublings).min(self.max);
        let part = 0.5 + jitter.clamp(0.0, 1.0) / 2.0;
        // The longest duration is no exact double.
        Duration::try_from_secs_f64(nominal.as_secs_f64() * part).unwrap_or(nominal)
    }

    /// Begins anew.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum_and_begin_anew_after_success() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(50));
        let pauses: Vec<_> = (0..4).map(|_| backoff.after_failure(1.0)).collect();
        assert_eq!(pauses, [10, 20, 40, 50].map(Duration::from_millis));
        backoff.reset();
        assert_eq!(backoff.after_failure(0.0), Duration::from_millis(5));
    }

    #[test]
    fn the_longest_and_the_shortest_pauses_are_durations() {
        for (first, max) in [
            (Duration::MAX, Duration::MAX),
            (Duration::ZERO, Duration::MAX),
            (Duration::MAX, Duration::ZERO),
        ] {
            let mut backoff = Backoff::new(first, max);
            for jitter in [0.0, 1.0, f64::INFINITY] {
                assert!(backoff.after_failure(jitter) <= max);
            }
        }
    }

    #[test]
    fn thousands_of_failures_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for _ in 0..100_000 {
            assert!(backoff.after_failure(1.0) <= Duration::from_secs(60));
        }
    }
}
