//! Changes announced by the process itself.
//!
//! Owns a bounded queue from those who write data to the [`Invalidator`](super::Invalidator). It is not durable: what
//! is queued when the process ends is gone, so a change whose invalidation must survive a crash belongs into the
//! database's own source.

use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::source::{ChangeSource, Changes};
use super::{BoxError, ChangeEvent};

/// Announcements that wait to be handed out, at most; beyond it [`Bus::publish`] waits.
const QUEUE_MAX: usize = 4_096;

/// Announcements handed out in one batch, at most.
const BATCH_MAX: usize = 1_024;

/// A new bus: one end to publish changes to, one to drive with an [`Invalidator`](super::Invalidator).
///
/// ```
/// use mcache::change::{ChangeEvent, ChangeSource, Operation, bus};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let (bus, mut source) = bus();
/// bus.publish([ChangeEvent::new("Product", Operation::Updated, ["p1"])]).await.unwrap();
/// let batch = source.next().await.unwrap();
/// assert_eq!(batch.events[0].ids, ["p1"]);
/// # });
/// ```
pub fn bus() -> (Bus, BusSource) {
    let (sender, queue) = mpsc::channel(QUEUE_MAX);
    (Bus { sender }, BusSource { queue })
}

/// Where changes are published. Cheap to clone.
///
/// ```
/// # use mcache::{Cache, MemoryProvider};
/// # use mcache::change::{ChangeEvent, Invalidator, Operation, bus};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// cache.key("p1").tags(["p1"]).set(&1).await?;
/// let (bus, source) = bus();
/// let _invalidator = Invalidator::builder(source, |event: &ChangeEvent| Ok(event.ids.clone()))
///     .targets(cache.invalidation_targets())
///     .spawn();
/// // After the commit:
/// let delivery = bus.publish([ChangeEvent::new("Product", Operation::Updated, ["p1"])]).await.unwrap();
/// delivery.acknowledged().await.unwrap();
/// assert_eq!(cache.key("p1").get::<u32>().await?, None);
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Bus {
    sender: mpsc::Sender<Announcement>,
}

#[derive(Debug)]
struct Announcement {
    events: Vec<ChangeEvent>,
    at: Instant,
    acknowledged: oneshot::Sender<()>,
}

impl Bus {
    /// Announces changes that are committed: publishing earlier lets a reader fill the cache with the old state after
    /// the invalidation.
    ///
    /// Returns as soon as they are queued; [`Delivery::acknowledged`] waits for the invalidation itself, for a caller
    /// who must not answer its own user before stale results are gone.
    ///
    /// # Errors
    ///
    /// [`Undelivered`] when the invalidator has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for room in the queue, nothing was published.
    pub async fn publish(
        &self,
        events: impl IntoIterator<Item = ChangeEvent>,
    ) -> Result<Delivery, Undelivered> {
        let (acknowledged, done) = oneshot::channel();
        let announcement = Announcement {
            events: events.into_iter().collect(),
            at: Instant::now(),
            acknowledged,
        };
        if announcement.events.is_empty() {
            // Nothing to wait for, and a source hands out no empty batches.
            let _ = announcement.acknowledged.send(());
        } else {
            self.sender
                .send(announcement)
                .await
                .map_err(|_closed| Undelivered)?;
        }
        Ok(Delivery { done })
    }
}

/// An announcement on its way. Dropping it changes nothing.
///
/// ```
/// # use mcache::change::{ChangeEvent, Operation, bus};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let (bus, _source) = bus();
/// let change = ChangeEvent::new("Product", Operation::Updated, ["p1"]);
/// // Who need not know when it is invalidated:
/// bus.publish([change]).await.unwrap().forget();
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
#[must_use = "the changes are queued; await `acknowledged` to know that they are invalidated"]
pub struct Delivery {
    done: oneshot::Receiver<()>,
}

impl Delivery {
    /// Waits until every target has acknowledged the invalidation.
    ///
    /// # Errors
    ///
    /// [`Undelivered`] when the invalidator ended before that: the invalidation may or may not have happened.
    pub async fn acknowledged(self) -> Result<(), Undelivered> {
        self.done.await.map_err(|_dropped| Undelivered)
    }

    /// Does not wait.
    pub fn forget(self) {}
}

/// The invalidator that should have delivered this has ended.
///
/// ```
/// # use mcache::change::{ChangeEvent, Operation, Undelivered, bus};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let (bus, source) = bus();
/// drop(source);
/// let change = ChangeEvent::new("Product", Operation::Updated, ["p1"]);
/// assert_eq!(bus.publish([change]).await.unwrap_err(), Undelivered);
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the invalidator behind this bus has ended")]
pub struct Undelivered;

/// The end of a bus that an [`Invalidator`](super::Invalidator) drives.
///
/// ```
/// # use mcache::change::{ChangeEvent, ChangeSource, Operation, bus};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let (bus, mut source) = bus();
/// bus.publish([ChangeEvent::new("Product", Operation::Updated, ["p1"])]).await.unwrap();
/// // What an invalidator does:
/// let changes = source.next().await.unwrap();
/// source.acknowledge(&mut vec![changes.receipt]).await.unwrap();
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct BusSource {
    queue: mpsc::Receiver<Announcement>,
}

impl ChangeSource for BusSource {
    type Receipt = BusReceipt;

    async fn next(&mut self) -> Result<Changes<BusReceipt>, BoxError> {
        let Some(first) = self.queue.recv().await else {
            // No publisher is left. That is no failure, but no change will come any more.
            return std::future::pending().await;
        };
        let age = first.at.elapsed();
        let mut events = Vec::new();
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(announcement) = next {
            events.extend(announcement.events);
            waiting.push(announcement.acknowledged);
            next = (waiting.len() < BATCH_MAX)
                .then(|| self.queue.try_recv().ok())
                .flatten();
        }
        let mut changes = Changes::new(events, BusReceipt(waiting));
        changes.age = age;
        Ok(changes)
    }

    async fn acknowledge(&mut self, receipts: &mut Vec<BusReceipt>) -> Result<(), BoxError> {
        for done in receipts.drain(..).flat_map(|receipt| receipt.0) {
            // The publisher need not be waiting.
            let _ = done.send(());
        }
        Ok(())
    }
}

/// Who waits for a batch of a [`BusSource`].
#[derive(Debug)]
pub struct BusReceipt(Vec<oneshot::Sender<()>>);
