//! One fill per key at a time in this process, and who may share its result.
//!
//! ```text
//!   caller A ── lead ──▶ loader ──▶ store ──▶ finish(outcome)
//!   caller B ── follow ─────────────────────────▶ outcome: share it, or look again
//!   caller C ── follow ─────────────────────────▶ "
//! ```
//!
//! A result may be older than a follower: A began, data changed and was invalidated, B came. So B takes A's value only
//! if that is known to be harmless: the provider accepted it with its token after B had come (*confirmed*), and had
//! heard of all invalidations that B may know of; or A's loader was called after B had come. Otherwise B looks again.
//! For the same reason a flight takes no more followers once the value is on its way to the provider: it may be
//! accepted, and invalidated again, before they come.
//!
//! A leader that is dropped takes no follower with it: its followers find that out and one of them leads.
//!
//! Knows nothing of providers and loaders.

use std::{
    any::Any,
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::nesting;

/// The map is split so that callers of different keys do not wait for each other.
const SHARDS: usize = 16;

/// All fills under way in this process.
pub(crate) struct Flights {
    shards: [Mutex<HashMap<Bytes, Flight>>; SHARDS],
}

struct Flight {
    id: nesting::Id,
    overtaken: Arc<Notify>,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// How a fill ended, for those who waited for it.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// The value was loaded from this moment on, and the provider accepted it: it was good when the last of the
    /// followers came, as far as the provider knew.
    Confirmed { value: Bytes, began: Instant },
    /// The same, but it is not confirmed.
    Unconfirmed { value: Bytes, began: Instant },
    /// The loader failed or its value cannot be shared. With the error, if it can be.
    Failed(Option<SharedError>),
}

/// A loader's error, for those of its callers whose errors are of the same type.
#[derive(Clone)]
pub(crate) struct SharedError(Arc<dyn Any + Send + Sync>);

impl SharedError {
    pub(crate) fn new<E: Send + Sync + 'static>(error: E) -> Self {
        Self(Arc::new(error))
    }

    pub(crate) fn get<E: Clone + 'static>(&self) -> Option<E> {
        self.0.downcast_ref::<E>().cloned()
    }
}

impl fmt::Debug for SharedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedError")
    }
}

/// When a caller came, and what it could know then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    /// An invalidation of this process had not reached the provider yet: what the provider confirms may be what the
    /// process has already reported as changed.
    pub(crate) in_doubt: bool,
}

impl Outcome {
    /// The value, if a caller who came then may have it.
    pub(crate) fn shared_with(&self, arrival: Arrival) -> Option<&Bytes> {
        match self {
            Self::Confirmed { value, .. } if !arrival.in_doubt => Some(value),
            Self::Confirmed { value, began } | Self::Unconfirmed { value, began }
                if *began > arrival.at =>
            {
                Some(value)
            }
            Self::Confirmed { .. } | Self::Unconfirmed { .. } | Self::Failed(_) => None,
        }
    }
}

/// The one who fills. Dropped without an outcome, it makes the followers look again.
pub(crate) struct Leader {
    flights: Arc<Flights>,
    key: Bytes,
    id: nesting::Id,
    overtaken: Arc<Notify>,
    outcome: watch::Sender<Option<Outcome>>,
}

/// One who waits for the leader.
pub(crate) struct Follower {
    id: nesting::Id,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Flights {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: Default::default(),
        })
    }

    /// Another caller is filling this key: wait for it.
    pub(crate) fn follow(&self, key: &[u8]) -> Option<Follower> {
        let shard = self.shard(key);
        shard.get(key).map(|flight| Follower {
            id: flight.id,
            outcome: flight.outcome.clone(),
        })
    }

    /// Be the one who fills this key, unless there is one.
    pub(crate) fn enter(self: &Arc<Self>, key: &Bytes) -> Option<Leader> {
        let mut shard = self.shard(key);
        match shard.contains_key(key) {
            true => None,
            false => Some(self.insert(&mut shard, key)),
        }
    }

    /// Makes the caller the one who fills this key, because the provider said so. The leader before it is slower than
    /// its lease or waits for it, and is told that it is [overtaken](Leader::overtaken); later callers wait for the new
    /// leader.
    pub(crate) fn lead(self: &Arc<Self>, key: &Bytes) -> Leader {
        self.insert(&mut self.shard(key), key)
    }

    fn insert(self: &Arc<Self>, shard: &mut HashMap<Bytes, Flight>, key: &Bytes) -> Leader {
        let id = nesting::next_id();
        let (sender, outcome) = watch::channel(None);
        let overtaken = Arc::new(Notify::new());
        let flight = Flight {
            id,
            overtaken: overtaken.clone(),
            outcome,
        };
        if let Some(other) = shard.insert(key.clone(), flight) {
            other.overtaken.notify_one();
        }
        Leader {
            flights: self.clone(),
            key: key.clone(),
            id,
            overtaken,
            outcome: sender,
        }
    }

    /// Never held across an await.
    fn shard(&self, key: &[u8]) -> MutexGuard<'_, HashMap<Bytes, Flight>> {
        self.shards[shard_of(key)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every hit looks here, so this is cheap. Keys differ at their ends; those that do not share a shard, and no more.
fn shard_of(key: &[u8]) -> usize {
    let end = &key[key.len().saturating_sub(8)..];
    let mixed = end.iter().fold(0_u32, |mixed, byte| {
        (mixed ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    (mixed >> 16) as usize % SHARDS
}

impl Leader {
    /// The fill.
    pub(crate) fn id(&self) -> nesting::Id {
        self.id
    }

    /// Tells the followers.
    pub(crate) fn finish(self, outcome: Outcome) {
        self.outcome.send_replace(Some(outcome));
    }

    /// Returns when another one of this process leads instead.
    ///
    /// Cancel-safe.
    pub(crate) async fn overtaken(&self) {
        self.overtaken.notified().await;
    }

    /// Takes no more followers: a caller that comes from now on looks for itself.
    pub(crate) fn close(&self) {
        let mut shard = self.flights.shard(&self.key);
        if shard
            .get(&self.key)
            .is_some_and(|flight| flight.id == self.id)
        {
            shard.remove(&self.key);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.close();
    }
}

impl Follower {
    /// Notes that the caller waits; `None` if it would wait for itself.
    pub(crate) fn waits(&self) -> Option<nesting::Waiting> {
        nesting::wait_for(self.id)
    }

    /// The outcome; `None` if the leader gave up.
    ///
    /// Cancel-safe.
    pub(crate) async fn outcome(mut self) -> Option<Outcome> {
        self.outcome.wait_for(Option::is_some).await.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Bytes {
        Bytes::from_static(b"k")
    }

    fn confirmed() -> Outcome {
        Outcome::Confirmed {
            value: Bytes::from_static(b"v"),
            began: Instant::now(),
        }
    }

    #[tokio::test]
    async fn the_second_follows_the_first_and_hears_the_outcome() {
        let flights = Flights::new();
        let leader = flights.enter(&key()).expect("no leader was there before");
        assert!(flights.enter(&key()).is_none(), "the first leads");
        let follower = flights.follow(&key()).expect("another leads");
        leader.finish(confirmed());
        let outcome = follower.outcome().await;
        assert!(matches!(outcome, Some(Outcome::Confirmed { value, .. }) if value == "v"));
        assert!(flights.follow(&key()).is_none());
    }

    #[tokio::test]
    async fn a_closed_flight_keeps_its_followers_and_takes_no_more() {
        let flights = Flights::new();
        let leader = flights.lead(&key());
        let follower = flights.follow(&key()).expect("another leads");
        leader.close();
        assert!(flights.follow(&key()).is_none());
        leader.finish(confirmed());
        assert!(follower.outcome().await.is_some());
    }

    #[tokio::test]
    async fn a_dropped_leader_leaves_the_way_to_the_next() {
        let flights = Flights::new();
        let leader = flights.lead(&key());
        let follower = flights.follow(&key()).expect("another leads");
        drop(leader);
        assert!(follower.outcome().await.is_none());
        assert!(flights.enter(&key()).is_some());
    }

    #[tokio::test]
    async fn a_leader_that_was_overtaken_does_not_end_the_other_ones_flight() {
        let flights = Flights::new();
        let slow = flights.lead(&key());
        let fast = flights.lead(&key());
        slow.overtaken().await;
        drop(slow);
        let follower = flights.follow(&key()).expect("the second still leads");
        fast.finish(Outcome::Failed(None));
        assert!(matches!(
            follower.outcome().await,
            Some(Outcome::Failed(None))
        ));
    }

    #[test]
    fn a_value_loaded_before_one_came_is_shared_only_if_confirmed_by_who_knows() {
        let before = Instant::now();
        let began = before + std::time::Duration::from_millis(1);
        let after = began + std::time::Duration::from_millis(1);
        let value = Bytes::from_static(b"v");
        let confirmed = Outcome::Confirmed {
            value: value.clone(),
            began,
        };
        let unconfirmed = Outcome::Unconfirmed { value, began };
        let shared = |outcome: &Outcome, at, in_doubt| {
            outcome.shared_with(Arrival { at, in_doubt }).is_some()
        };
        for in_doubt in [false, true] {
            assert!(shared(&unconfirmed, before, in_doubt));
            assert!(!shared(&unconfirmed, began, in_doubt));
            assert!(!shared(&unconfirmed, after, in_doubt));
            assert!(shared(&confirmed, before, in_doubt));
            assert!(!shared(&Outcome::Failed(None), before, in_doubt));
        }
        assert!(shared(&confirmed, after, false));
        assert!(!shared(&confirmed, after, true));
    }
}
