//! From changes to dead entries.
//!
//! Owns the order of things: nothing is acknowledged to the source before every target has acknowledged to us. It must
//! not know what a source or a target is made of. The work for each target is in `delivery.rs`.
//!
//! A batch, from left to right; nothing but the last step makes the source forget it:
//!
//! ```text
//!   received ─▶ dispatched (number n) ─▶ told to all targets ─┬──────────────────────────────▶ acknowledged
//!                                                             └▶ settling ─▶ dispatched again ─▶ told ─┘
//! ```
//!
//! The second round exists for fills that may read old data after the first: from a lagging replica, or inside a
//! transaction that began before the change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::delivery::{Inbox, Named, deliver};
use super::source::{ChangeSource, Changes, Contact};
use super::stats::{Counters, InvalidatorStats, TargetCounters};
use super::target::InvalidationTarget;
use super::{BoxError, ChangeEvent, random_jitter};
use crate::Tags;

/// Pauses after a failure of the source.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a failure of the source is not said again.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What a change means for the cache: the tags of every result it can have changed.
///
/// ```
/// use mcache::Tags;
/// use mcache::change::{BoxError, ChangeEvent, EventTags, Operation};
///
/// /// `Product:p1` for each changed product.
/// struct ByEntity;
///
/// impl EventTags for ByEntity {
///     fn tags(&self, event: &ChangeEvent, tags: &mut Tags) -> Result<(), BoxError> {
///         for id in &event.ids {
///             tags.push_parts(&[&event.entity, ":", id]);
///         }
///         Ok(())
///     }
/// }
///
/// let mut tags = Tags::new();
/// let change = ChangeEvent::new("Product", Operation::Updated, ["p1"]);
/// ByEntity.tags(&change, &mut tags).unwrap();
/// assert!(tags.contains("Product:p1"));
/// ```
pub trait EventTags: Send + Sync + 'static {
    /// Adds the tags to invalidate, without namespace, to those of the changes before it.
    ///
    /// # Errors
    ///
    /// When the event makes no sense, for example because its entity is unknown. It is then counted, logged and
    /// dropped: a schema that does not know an entity cannot have cached results made from it. Tags that were added
    /// nevertheless are invalidated.
    fn tags(&self, event: &ChangeEvent, tags: &mut Tags) -> Result<(), BoxError>;
}

/// A function that returns them: a `Vec<String>`, [`Tags`], or another list.
impl<F, I> EventTags for F
where
    F: Fn(&ChangeEvent) -> Result<I, BoxError> + Send + Sync + 'static,
    I: IntoIterator,
    I::Item: AsRef<[u8]>,
{
    fn tags(&self, event: &ChangeEvent, tags: &mut Tags) -> Result<(), BoxError> {
        tags.extend(self(event)?);
        Ok(())
    }
}

/// Invalidates what changes, in the background, for as long as it is kept.
///
/// Bursts are coalesced: what arrives while an invalidation is under way becomes one invalidation after it, each tag
/// named once. Failures of a target or of the source are retried for ever with growing pauses; one target that is down
/// does not hold up the others. Dropping it stops the work at once, which loses nothing that a durable source holds;
/// [`shutdown`](Self::shutdown) finishes what is under way.
///
/// ```
/// # use std::time::Duration;
/// # use mcache::{Cache, MemoryProvider};
/// # use mcache::change::{ChangeEvent, Invalidator, bus};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// let (_bus, source) = bus();
/// let invalidator = Invalidator::builder(source, |event: &ChangeEvent| Ok(event.ids.clone()))
///     .targets(cache.invalidation_targets())
///     .spawn();
/// // Before the process ends:
/// invalidator.shutdown(Duration::from_secs(5)).await.unwrap();
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Invalidator {
    counters: Arc<Counters>,
    contact: Option<Contact>,
    targets: Vec<Told>,
    stop: watch::Sender<Option<Duration>>,
    driver: Option<JoinHandle<Result<(), Unfinished>>>,
}

#[derive(Clone, Debug)]
struct Told {
    name: String,
    inbox: Arc<Inbox>,
    counters: Arc<TargetCounters>,
}

impl Invalidator {
    /// Begins to describe an invalidator that drives `source` and asks `tags` what each change means.
    pub fn builder<S: ChangeSource>(source: S, tags: impl EventTags) -> InvalidatorBuilder<S> {
        InvalidatorBuilder {
            source,
            tags: Box::new(tags),
            targets: Vec::new(),
            again_after: None,
            pending_tags_max: 100_000,
            events_outstanding_max: 1_000_000,
        }
    }

    /// What was done so far and what is still to do.
    pub fn stats(&self) -> InvalidatorStats {
        let targets = self.targets.iter().map(|target| {
            target
                .counters
                .snapshot(&target.name, target.inbox.pending_tags())
        });
        let mut stats = self.counters.snapshot(targets.collect());
        if let Some(contact) = &self.contact {
            stats.lag = stats.lag.max(contact.silence());
        }
        stats
    }

    /// Receives nothing more, finishes what was received, and ends.
    ///
    /// # Errors
    ///
    /// [`Unfinished`] when some of it is still not acknowledged after `patience`. A durable source hands it out again
    /// at the next start.
    pub async fn shutdown(mut self, patience: Duration) -> Result<(), Unfinished> {
        self.stop.send_replace(Some(patience));
        match self.driver.take() {
            Some(driver) => match driver.await {
                Ok(outcome) => outcome,
                Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
                // The runtime is shutting down: batches may have been under way, and we were not told of their end.
                Err(_cancelled) => Err(Unfinished { batches: 0 }),
            },
            None => Ok(()),
        }
    }
}

impl Drop for Invalidator {
    fn drop(&mut self) {
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

/// An invalidator ended before everything it had received was acknowledged.
///
/// ```
/// use mcache::change::Unfinished;
///
/// let left = Unfinished { batches: 2 };
/// assert!(left.to_string().starts_with("2 batches"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{batches} batches of changes were not acknowledged before the invalidator ended")]
pub struct Unfinished {
    /// How many batches.
    pub batches: usize,
}

/// What an [`Invalidator`] will do.
///
/// ```
/// # use std::time::Duration;
/// # use mcache::{Cache, MemoryProvider};
/// # use mcache::change::{ChangeEvent, Invalidator, bus};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// let (_bus, source) = bus();
/// let _invalidator = Invalidator::builder(source, |event: &ChangeEvent| Ok(event.ids.clone()))
///     .targets(cache.invalidation_targets())
///     // As long as the longest transaction in which a caller fills the cache.
///     .again_after(Duration::from_secs(10))
///     .spawn();
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "nothing happens before `spawn`"]
pub struct InvalidatorBuilder<S> {
    source: S,
    tags: Box<dyn EventTags>,
    targets: Vec<Arc<dyn InvalidationTarget>>,
    again_after: Option<Duration>,
    pending_tags_max: usize,
    events_outstanding_max: usize,
}

impl<S> std::fmt::Debug for InvalidatorBuilder<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InvalidatorBuilder")
            .field("targets", &self.targets.len())
            .finish_non_exhaustive()
    }
}

impl<S: ChangeSource> InvalidatorBuilder<S> {
    /// Adds a provider to invalidate. Each gets every invalidation, and a batch is acknowledged when all have it.
    pub fn target(mut self, target: Arc<dyn InvalidationTarget>) -> Self {
        self.targets.push(target);
        self
    }

    /// Adds several.
    pub fn targets(
        mut self,
        targets: impl IntoIterator<Item = Arc<dyn InvalidationTarget>>,
    ) -> Self {
        self.targets.extend(targets);
        self
    }

    /// Invalidates a second time, this long after the first. Default: once only.
    ///
    /// For fills that may read data older than their token: in a transaction that was open before, or from a replica
    /// that lags. Choose the longest such transaction or lag. The batch is acknowledged after the second round, so that
    /// a crash in between repeats both.
    pub fn again_after(mut self, delay: Duration) -> Self {
        self.again_after = Some(delay);
        self
    }

    /// How many different tags may wait for a target that is down before "everything" is invalidated instead.
    /// Default: 100,000.
    pub fn pending_tags_max(mut self, tags: usize) -> Self {
        self.pending_tags_max = tags;
        self
    }

    /// How many received changes may be unacknowledged before the source is left alone until some are.
    /// Default: 1,000,000. At least one.
    pub fn events_outstanding_max(mut self, events: usize) -> Self {
        self.events_outstanding_max = events.max(1);
        self
    }

    /// Starts it.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn spawn(self) -> Invalidator {
        let counters = Arc::new(Counters::default());
        let progress = Arc::new(Notify::new());
        let mut deliveries = JoinSet::new();
        let targets: Vec<Told> = self
            .targets
            .into_iter()
            .map(|target| {
                let told = Told {
                    name: target.name().to_owned(),
                    inbox: Arc::new(Inbox::new(self.pending_tags_max)),
                    counters: Arc::new(TargetCounters::default()),
                };
                deliveries.spawn(deliver(
                    target,
                    told.inbox.clone(),
                    progress.clone(),
                    told.counters.clone(),
                ));
                told
            })
            .collect();
        let (stop, stopped) = watch::channel(None);
        let contact = self.source.contact();
        let driver = Driver {
            source: self.source,
            tags: self.tags,
            inboxes: targets.iter().map(|told| told.inbox.clone()).collect(),
            again_after: self.again_after,
            events_outstanding_max: self.events_outstanding_max,
            counters: counters.clone(),
            progress,
            dispatched: 0,
            telling: BTreeMap::new(),
            settling: BTreeMap::new(),
            waits: JoinSet::new(),
            finished: Vec::new(),
            events_outstanding: 0,
            backoff: Backoff::new(PAUSE_FIRST, PAUSE_MAX),
            paused_until: None,
            said: None,
            _deliveries: deliveries,
        };
        Invalidator {
            counters,
            contact,
            targets,
            stop,
            driver: Some(tokio::spawn(driver.run(stopped))),
        }
    }
}

/// The task behind an [`Invalidator`]: sole owner of the source and of every batch that is under way.
struct Driver<S: ChangeSource> {
    source: S,
    tags: Box<dyn EventTags>,
    inboxes: Vec<Arc<Inbox>>,
    again_after: Option<Duration>,
    events_outstanding_max: usize,
    counters: Arc<Counters>,
    progress: Arc<Notify>,
    /// The number of the last dispatch.
    dispatched: u64,
    /// Changes that targets are being told of, by the number of their dispatch.
    telling: BTreeMap<u64, Underway<S::Receipt>>,
    /// Changes told once that wait for their second round, by the number of their first.
    settling: BTreeMap<u64, Underway<S::Receipt>>,
    /// Each ends with the number of a settling batch whose time has come.
    waits: JoinSet<u64>,
    /// Told to all targets, not yet acknowledged to the source.
    finished: Vec<S::Receipt>,
    events_outstanding: usize,
    backoff: Backoff,
    paused_until: Option<Instant>,
    /// The failure of the source that was said last, and when.
    said: Option<(String, Instant)>,
    /// Aborted with this struct.
    _deliveries: JoinSet<()>,
}

struct Underway<R> {
    receipt: R,
    events: usize,
    captured: Instant,
    /// What a second round would say; none while the last round is told.
    again: Option<Named>,
}

impl<S: ChangeSource> Driver<S> {
    async fn run(
        mut self,
        mut stopped: watch::Receiver<Option<Duration>>,
    ) -> Result<(), Unfinished> {
        let mut deadline = None;
        loop {
            self.harvest();
            if deadline.is_some() && self.batches_outstanding() == 0 {
                return Ok(());
            }
            let turn = if self.paused_until.is_some() {
                Turn::Pause
            } else if !self.finished.is_empty() {
                Turn::Acknowledge
            } else if deadline.is_none() && self.events_outstanding < self.events_outstanding_max {
                Turn::Receive
            } else {
                Turn::Pause
            };
            let acknowledges = matches!(turn, Turn::Acknowledge);
            tokio::select! {
                outcome = take_turn(&mut self.source, &mut self.finished, turn) => match outcome {
                    Outcome::Acknowledged => self.backoff.reset(),
                    Outcome::Received(batch) => {
                        self.backoff.reset();
                        self.dispatch(batch);
                    }
                    Outcome::Failed(doing, error) => self.source_failed(doing, &error),
                },
                // While an acknowledgement is under way nothing more is harvested: it would be begun anew each time.
                () = self.progress.notified(), if !acknowledges => {}
                Some(waited) = self.waits.join_next(), if !acknowledges => match waited {
                    Ok(number) => self.dispatch_again(number),
                    Err(ended) => std::panic::resume_unwind(ended.into_panic()),
                },
                () = until(self.paused_until), if self.paused_until.is_some() => self.paused_until = None,
                changed = stopped.changed(), if deadline.is_none() => {
                    // A closed channel means that the handle was dropped, which aborts this task anyway.
                    let patience = changed.ok().and_then(|()| *stopped.borrow());
                    deadline = Some(moment_after(patience.unwrap_or_default()));
                }
                () = until(deadline), if deadline.is_some() => {
                    return Err(Unfinished { batches: self.batches_outstanding() });
                }
            }
        }
    }

    fn batches_outstanding(&self) -> usize {
        self.telling.len() + self.settling.len() + self.finished.len()
    }

    /// Gives the tags of a batch to every target.
    fn dispatch(&mut self, batch: Changes<S::Receipt>) {
        Counters::add(&self.counters.batches, 1);
        Counters::add(&self.counters.events, batch.events.len());
        let mut tags = batch.tags;
        for event in &batch.events {
            if let Err(error) = self.tags.tags(event, &mut tags) {
                Counters::add(&self.counters.events_rejected, 1);
                tracing::warn!(
                    entity = event.entity,
                    operation = event.operation.as_str(),
                    %error,
                    "a change has no meaning for the cache"
                );
            }
        }
        let named = Named {
            tags: Arc::new(tags),
            everything: batch.everything,
        };
        let number = self.tell(&named);
        let now = Instant::now();
        self.events_outstanding += batch.events.len();
        self.telling.insert(
            number,
            Underway {
                receipt: batch.receipt,
                events: batch.events.len(),
                captured: now.checked_sub(batch.age).unwrap_or(now),
                again: Some(named).filter(|named| !named.is_nothing()),
            },
        );
        self.publish_lag();
    }

    /// The second and last round of the batch that was first dispatched as `number`.
    fn dispatch_again(&mut self, number: u64) {
        if let Some(mut batch) = self.settling.remove(&number) {
            let named = batch.again.take().unwrap_or_default();
            let number = self.tell(&named);
            self.telling.insert(number, batch);
        }
    }

    fn tell(&mut self, named: &Named) -> u64 {
        self.dispatched += 1;
        for inbox in &self.inboxes {
            inbox.add(named, self.dispatched);
        }
        self.dispatched
    }

    /// Moves on what all targets have been told.
    fn harvest(&mut self) {
        // Without a target no provider has been told anything, and nothing is acknowledged.
        let told = self.inboxes.iter().map(|inbox| inbox.told()).min();
        let told = told.unwrap_or(0);
        while let Some(first) = self.telling.first_entry()
            && *first.key() <= told
        {
            let (number, batch) = first.remove_entry();
            if batch.again.is_some() && self.waits_to_settle(number, &batch.receipt) {
                self.settling.insert(number, batch);
                continue;
            }
            self.events_outstanding -= batch.events;
            Counters::add(&self.counters.events_acknowledged, batch.events);
            let latency = batch.captured.elapsed();
            self.counters.timing(|timing| {
                timing.last_latency = latency;
                timing.max_latency = timing.max_latency.max(latency);
            });
            self.finished.push(batch.receipt);
        }
        self.publish_lag();
    }

    /// Whether the batch needs a second round; if so, its time is awaited in the background.
    fn waits_to_settle(&mut self, number: u64, receipt: &S::Receipt) -> bool {
        let by_source = self.source.settled(receipt);
        let delay = self.again_after;
        if by_source.is_none() && delay.is_none() {
            return false;
        }
        self.waits.spawn(async move {
            tokio::time::sleep(delay.unwrap_or_default()).await;
            if let Some(settled) = by_source {
                settled.await;
            }
            number
        });
        true
    }

    fn source_failed(&mut self, doing: &str, error: &BoxError) {
        Counters::add(&self.counters.source_failures, 1);
        let pause = self.backoff.after_failure(random_jitter());
        self.paused_until = Some(Instant::now() + pause);
        let said = error.to_string();
        let is_known = |(last, at): &(String, Instant)| *last == said && at.elapsed() < SAY_AGAIN;
        if self.said.as_ref().is_some_and(is_known) {
            tracing::debug!(%error, ?pause, "cannot {doing} the source of changes; trying again");
            return;
        }
        tracing::warn!(%error, ?pause, "cannot {doing} the source of changes; trying again");
        self.said = Some((said, Instant::now()));
    }

    fn publish_lag(&self) {
        // Dispatch numbers follow capture closely enough for a gauge; a scan of all would not be worth more.
        let telling = self.telling.values().next().map(|batch| batch.captured);
        let settling = self.settling.values().next().map(|batch| batch.captured);
        let oldest = [telling, settling].into_iter().flatten().min();
        self.counters
            .timing(|timing| timing.oldest_outstanding = oldest);
    }
}

/// What the source is asked for next. It is one at a time: it has one owner.
enum Turn {
    Acknowledge,
    Receive,
    Pause,
}

enum Outcome<R> {
    Acknowledged,
    Received(Changes<R>),
    Failed(&'static str, BoxError),
}

/// Cancel safe, as both calls of a source are.
async fn take_turn<S: ChangeSource>(
    source: &mut S,
    finished: &mut Vec<S::Receipt>,
    turn: Turn,
) -> Outcome<S::Receipt> {
    match turn {
        Turn::Acknowledge => match source.acknowledge(finished).await {
            Ok(()) => Outcome::Acknowledged,
            Err(error) => Outcome::Failed("acknowledge to", error),
        },
        Turn::Receive => match source.next().await {
            Ok(batch) => Outcome::Received(batch),
            Err(error) => Outcome::Failed("read from", error),
        },
        Turn::Pause => std::future::pending().await,
    }
}

/// A moment beyond the end of time never comes.
fn moment_after(patience: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    Instant::now() + patience.min(CENTURY)
}

/// Ends at `moment`, or never.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
