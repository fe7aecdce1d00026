//! What a caller is told about an invalidation.

use crate::{
    Result,
    pending::{Attempt, Waiter},
};

/// How an invalidation went.
///
/// ```
/// # use mcache::{Cache, MemoryProvider, Settled};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// let invalidation = cache.invalidate(["Product:42"]).await?;
/// if !invalidation.is_acknowledged() {
///     // The server is away. Go on, or wait until nothing old can be served any more:
///     assert_eq!(invalidation.settled().await, Settled::Acknowledged);
/// }
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Default)]
pub struct Invalidation {
    entries: u64,
    pending: Vec<Waiter>,
}

/// How a pending invalidation ended.
///
/// ```
/// # use mcache::{Cache, MemoryProvider, Settled};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// match cache.invalidate(["Product:42"]).await?.settled().await {
///     Settled::Acknowledged | Settled::Outlived => {}
///     other => eprintln!("something old may be served: {other:?}"),
/// }
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settled {
    /// Every shard of every provider has acknowledged it.
    Acknowledged,
    /// A provider has not acknowledged it, but no entry it concerns can still be alive there.
    Outlived,
    /// A provider came back and refused it for good, for example because the user may not touch a tag.
    Refused,
    /// The runtime that retried it is shutting down.
    Abandoned,
}

impl Invalidation {
    pub(crate) fn of(attempts: Vec<Result<Attempt>>) -> Result<Self> {
        let mut invalidation = Self::default();
        for attempt in attempts {
            match attempt? {
                Attempt::Acknowledged(entries) => invalidation.entries += entries,
                Attempt::Pending(waiter) => invalidation.pending.push(waiter),
            }
        }
        Ok(invalidation)
    }

    /// Every shard of every provider has acknowledged: nothing older is served from now on.
    pub fn is_acknowledged(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many entries the acknowledged part made dead (or stale).
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Waits until every provider has acknowledged, or need not any more.
    ///
    /// Cancel-safe: the retries go on whether or not anybody waits.
    pub async fn settled(self) -> Settled {
        let mut overall = Settled::Acknowledged;
        for waiter in self.pending {
            match waiter.settled().await {
                Settled::Acknowledged => {}
                Settled::Abandoned => return Settled::Abandoned,
                other => overall = other,
            }
        }
        overall
    }
}
