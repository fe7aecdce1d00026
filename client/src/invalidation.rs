//! What a caller is told about an invalidation.

use crate::{
    Result,
    pending::{Attempt, Waiter},
    server::Settling,
};
use futures_util::future::join_all;

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
    /// Acknowledged, and served by near caches that have not heard of it.
    unsettled: Vec<Settling>,
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
    /// Every shard of every provider has acknowledged it, and no near cache serves what it concerns.
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
                Attempt::Acknowledged(entries, settling) => {
                    invalidation.entries += entries;
                    if !settling.is_settled() {
                        invalidation.unsettled.push(settling);
                    }
                }
                Attempt::Pending(waiter) => invalidation.pending.push(waiter),
            }
        }
        Ok(invalidation)
    }

    /// Waits until no near cache serves what was acknowledged.
    pub(crate) async fn settle(&mut self) {
        let unsettled = std::mem::take(&mut self.unsettled);
        join_all(unsettled.into_iter().map(Settling::settled)).await;
    }

    /// It is acknowledged, and no [near cache](crate::Builder::near) of any process serves what it concerns to a call
    /// that begins from now on. Where [`Builder::settle`](crate::Builder::settle) is on, as it is by default, what is
    /// acknowledged is settled.
    pub fn is_settled(&self) -> bool {
        self.is_acknowledged() && self.unsettled.is_empty()
    }

    /// Every shard of every provider has acknowledged: no server serves anything older from now on.
    pub fn is_acknowledged(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many entries the acknowledged part made dead (or stale).
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Waits until every provider has acknowledged, or need not any more, and until no near cache serves what was
    /// acknowledged.
    ///
    /// Cancel-safe: the retries go on whether or not the caller waits.
    pub async fn settled(mut self) -> Settled {
        self.settle().await;
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
