//! What an invalidator counts.
//!
//! Owns the counters and the snapshot a caller reads. It must not decide anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A snapshot of what an [`Invalidator`](super::Invalidator) did and has still to do.
///
/// ```
/// # use mcache::change::{ChangeEvent, Invalidator, bus};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let (_bus, source) = bus();
/// let invalidator = Invalidator::builder(source, |event: &ChangeEvent| Ok(event.ids.clone())).spawn();
/// let stats = invalidator.stats();
/// assert_eq!((stats.events, stats.lag.as_secs()), (0, 0));
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidatorStats {
    /// Changes received from the source, repeated ones counted again.
    pub events: u64,
    /// Batches they came in.
    pub batches: u64,
    /// Changes that could not be made into tags, for example of an entity the schema does not know.
    pub events_rejected: u64,
    /// Changes acknowledged to the source: invalidated in every target.
    pub events_acknowledged: u64,
    /// Failed attempts to read from the source or to acknowledge to it.
    pub source_failures: u64,
    /// Age of the oldest change that is received and not yet acknowledged, or the time for which the source could not
    /// see changes, whichever is longer; zero when there is neither.
    pub lag: Duration,
    /// From capture to acknowledgement, of the batch acknowledged last.
    pub last_latency: Duration,
    /// The largest such time so far.
    pub max_latency: Duration,
    /// One row per target, in the order they were added.
    pub targets: Vec<TargetStats>,
}

/// The figures of one target.
///
/// ```
/// # use mcache::{Cache, MemoryProvider};
/// # use mcache::change::{ChangeEvent, Invalidator, bus};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// let (_bus, source) = bus();
/// let invalidator = Invalidator::builder(source, |event: &ChangeEvent| Ok(event.ids.clone()))
///     .targets(cache.invalidation_targets())
///     .spawn();
/// let stats = invalidator.stats();
/// assert_eq!((stats.targets[0].name.as_str(), stats.targets[0].failures), ("memory", 0));
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TargetStats {
    /// Its name.
    pub name: String,
    /// Acknowledged calls.
    pub calls: u64,
    /// Tags named in them.
    pub tags: u64,
    /// Calls that failed and were repeated.
    pub failures: u64,
    /// How often so much was pending that everything was invalidated instead of naming tags.
    pub collapsed: u64,
    /// Tags that wait for the running call to end.
    pub pending_tags: usize,
}

#[derive(Debug, Default)]
pub(super) struct TargetCounters {
    pub(super) calls: AtomicU64,
    pub(super) tags: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) collapsed: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) events: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) events_rejected: AtomicU64,
    pub(super) events_acknowledged: AtomicU64,
    pub(super) source_failures: AtomicU64,
    pub(super) timing: Mutex<Timing>,
}

/// Kept under one lock, so that a reader sees all of them as they were at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timing {
    pub(super) oldest_outstanding: Option<Instant>,
    pub(super) last_latency: Duration,
    pub(super) max_latency: Duration,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn timing(&self, change: impl FnOnce(&mut Timing)) -> Timing {
        let mut timing = self.timing.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut timing);
        *timing
    }

    pub(super) fn snapshot(&self, targets: Vec<TargetStats>) -> InvalidatorStats {
        let timing = self.timing(|_| ());
        InvalidatorStats {
            events: self.events.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            events_rejected: self.events_rejected.load(Ordering::Relaxed),
            events_acknowledged: self.events_acknowledged.load(Ordering::Relaxed),
            source_failures: self.source_failures.load(Ordering::Relaxed),
            lag: timing
                .oldest_outstanding
                .map_or(Duration::ZERO, |captured| captured.elapsed()),
            last_latency: timing.last_latency,
            max_latency: timing.max_latency,
            targets,
        }
    }
}

impl TargetCounters {
    pub(super) fn snapshot(&self, name: &str, pending_tags: usize) -> TargetStats {
        TargetStats {
            name: name.to_owned(),
            calls: self.calls.load(Ordering::Relaxed),
            tags: self.tags.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            collapsed: self.collapsed.load(Ordering::Relaxed),
            pending_tags,
        }
    }
}
