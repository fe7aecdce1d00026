//! Keys whose source failed a moment ago, while a value is at hand: it is served, and the source is left alone for a
//! while.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

/// How many keys are remembered. When there are more, the oldest make way: their source is asked again a little
/// earlier.
const KEYS_MAX: usize = 4096;

pub(crate) struct Throttle {
    pause: Duration,
    until: Mutex<HashMap<Bytes, Instant>>,
}

impl Throttle {
    pub(crate) fn new(pause: Duration) -> Self {
        Self {
            pause,
            until: Mutex::default(),
        }
    }

    pub(crate) fn pause(&self) -> Duration {
        self.pause
    }

    /// The source failed.
    pub(crate) fn note(&self, key: &Bytes, now: Instant) {
        if self.pause.is_zero() {
            return;
        }
        // A pause beyond the end of time lasts as long as the process.
        let end = now
            .checked_add(self.pause)
            .unwrap_or(now + Duration::from_secs(1 << 30));
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= KEYS_MAX {
            until.retain(|_, end| *end > now);
        }
        if until.len() >= KEYS_MAX {
            let oldest = until.iter().min_by_key(|(_, end)| **end);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                until.remove(&oldest);
            }
        }
        until.insert(key.clone(), end);
    }

    /// Whether the source is to be left alone.
    pub(crate) fn holds(&self, key: &Bytes, now: Instant) -> bool {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        match until.get(key) {
            None => false,
            Some(end) if now < *end => true,
            Some(_) => {
                until.remove(key);
                false
            }
        }
    }

    /// The source has answered.
    pub(crate) fn forget(&self, key: &Bytes) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if !until.is_empty() {
            until.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_for_the_pause_only_and_remembers_a_bounded_number() {
        let throttle = Throttle::new(Duration::from_secs(1));
        let now = Instant::now();
        let key = Bytes::from_static(b"k");
        assert!(!throttle.holds(&key, now));
        throttle.note(&key, now);
        assert!(throttle.holds(&key, now + Duration::from_millis(999)));
        assert!(!throttle.holds(&key, now + Duration::from_secs(1)));
        for number in 0..10_000 {
            throttle.note(&Bytes::from(format!("{number}")), now);
        }
        assert!(throttle.until.lock().unwrap().len() <= KEYS_MAX);
        Throttle::new(Duration::MAX).note(&key, now);
    }
}
