//! Invalidations that a provider has not acknowledged yet, and the task that tries them again.
//!
//! ```text
//!   submit ──▶ first attempt ──acknowledged──▶ done
//!                   │ not reached
//!                   ▼
//!                 items ◀──────── again, after a pause ────────┐
//!                   │                                          │
//!                   └──▶ everything in one go ──not reached────┘
//!                                │
//!                                └──▶ acknowledged, or nothing it concerns can still be alive: settled
//! ```
//!
//! What must be sent is a set: repeating an invalidation does no harm, and neither does sending later ones with it. The
//! set is bounded; when it is full it becomes the one invalidation that includes all others, that of the namespace.
//! While it is not empty, this process does not read from the provider: see [`Outbox::is_waiting`].

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    Error, ErrorKind, Result, Settled, Tags, provider::Mode, provider::Provider, telemetry,
};

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The unacknowledged invalidations of one provider. Clones share them.
#[derive(Clone)]
pub(crate) struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    provider: Arc<dyn Provider>,
    /// The tag that means all entries of the namespace.
    everything: Bytes,
    items_max: usize,
    retry_min: Duration,
    /// The longest time an entry stored through this cache can be served, in milliseconds; `u64::MAX`: for ever.
    longest_life_ms: AtomicU64,
    /// Whether there are items: read on every lookup, so kept outside of the lock.
    waiting: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    items: HashMap<Item, Due>,
    /// Those who want to know; whoever stopped waiting is dropped on the way.
    submissions: Vec<Submission>,
    last_seq: u64,
    retrying: bool,
}

/// One thing the provider must hear of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Item {
    Tag(Mode, Bytes),
    Key(Bytes),
}

#[derive(Debug, Clone, Copy)]
struct Due {
    /// The last submission that named it.
    seq: u64,
    /// When no entry it concerns can still be alive. `None`: never.
    outlived_at: Option<Instant>,
}

struct Submission {
    seq: u64,
    outlived_at: Option<Instant>,
    settled: oneshot::Sender<Settled>,
}

/// How a first attempt went.
pub(crate) enum Attempt {
    /// Acknowledged; so many entries.
    Acknowledged(u64),
    /// It goes on in the background; tells when it is settled.
    Pending(oneshot::Receiver<Settled>),
}

/// What to send.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    Invalidate(Tags, Mode),
    Clear(Bytes),
}

impl Outbox {
    pub(crate) fn new(
        provider: Arc<dyn Provider>,
        everything: &[u8],
        items_max: usize,
        retry_min: Duration,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                provider,
                everything: Bytes::copy_from_slice(everything),
                items_max,
                retry_min,
                longest_life_ms: AtomicU64::new(0),
                waiting: AtomicBool::new(false),
                state: Mutex::default(),
            }),
        }
    }

    /// Whether an invalidation of this process is unacknowledged. What the provider holds may then be older than
    /// something this process has already reported as changed, so it must not be asked.
    pub(crate) fn is_waiting(&self) -> bool {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// How many tags and keys are unacknowledged.
    pub(crate) fn len(&self) -> usize {
        self.shared.lock().items.len()
    }

    /// An entry that lives so long was stored: invalidations have to be retried at least that long.
    pub(crate) fn note_life(&self, ttl: Option<Duration>, swr: Duration) {
        let life_ms = match ttl {
            Some(ttl) => u64::try_from((ttl + swr).as_millis()).unwrap_or(u64::MAX),
            None => u64::MAX,
        };
        // Almost always it has been noted before; reading leaves the cache line shared.
        if life_ms > self.shared.longest_life_ms.load(Ordering::Relaxed) {
            self.shared
                .longest_life_ms
                .fetch_max(life_ms, Ordering::Relaxed);
        }
    }

    /// Sends, and keeps sending in the background if the provider cannot be reached.
    ///
    /// Not cancelled with the caller: once polled, the order is carried out.
    ///
    /// # Errors
    ///
    /// What the provider refuses for good.
    pub(crate) async fn submit(&self, order: Order) -> Result<Attempt> {
        let shared = self.shared.clone();
        let attempt = tokio::spawn(async move {
            match shared.send(&order).await {
                Ok(entries) => {
                    telemetry::invalidation(shared.provider.id(), "acknowledged");
                    Ok(Attempt::Acknowledged(entries))
                }
                Err(error) if error.is_retryable() => {
                    telemetry::invalidation(shared.provider.id(), "pending");
                    tracing::warn!(
                        provider = shared.provider.id(),
                        %error,
                        "an invalidation was not acknowledged; it is retried, and reads bypass this provider meanwhile"
                    );
                    Ok(Attempt::Pending(shared.keep(order)))
                }
                Err(error) => {
                    telemetry::invalidation(shared.provider.id(), "refused");
                    Err(error)
                }
            }
        });
        attempt.await.unwrap_or_else(|error| {
            let gone = ErrorKind::Unavailable("the runtime is shutting down".to_owned());
            Err(Error::new(gone).with_source(error))
        })
    }
}

impl Shared {
    async fn send(&self, order: &Order) -> Result<u64> {
        match order {
            Order::Invalidate(tags, mode) => self.provider.invalidate(tags, *mode).await,
            Order::Clear(key) => self.provider.clear(key).await.map(u64::from),
        }
    }

    /// Remembers an order that was not acknowledged, and sees to it that it is sent again.
    fn keep(self: &Arc<Self>, order: Order) -> oneshot::Receiver<Settled> {
        let outlived_at = self.outlived_at(Instant::now());
        let (settled, receiver) = oneshot::channel();
        let mut state = self.lock();
        state.last_seq += 1;
        let due = Due {
            seq: state.last_seq,
            outlived_at,
        };
        match order {
            Order::Invalidate(tags, mode) => {
                for tag in &tags {
                    state.add(Item::Tag(mode, Bytes::copy_from_slice(tag)), due);
                }
            }
            Order::Clear(key) => state.add(Item::Key(key), due),
        }
        if state.items.len() > self.items_max {
            state.fold(&self.everything, due);
            telemetry::invalidations_folded(self.provider.id());
        }
        state.submissions.push(Submission {
            seq: due.seq,
            outlived_at,
            settled,
        });
        self.note(&state);
        if !std::mem::replace(&mut state.retrying, true) {
            tokio::spawn(self.clone().retry());
        }
        receiver
    }

    async fn retry(self: Arc<Self>) {
        let mut pause = PAUSE_MIN;
        loop {
            // Jittered: after an outage not every process comes back in the same millisecond.
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            let Some((seq, orders)) = self.due(Instant::now()) else {
                return;
            };
            match self.send_all(&orders).await {
                Ok(()) => {
                    self.acknowledge(seq);
                    pause = PAUSE_MIN;
                }
                Err(error) => {
                    tracing::debug!(provider = self.provider.id(), %error, "invalidations are still unacknowledged");
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// What is to be sent now, and up to which submission that goes. `None`: nothing, and the task ends.
    fn due(&self, now: Instant) -> Option<(u64, Vec<Order>)> {
        let mut state = self.lock();
        state.drop_outlived(now);
        self.note(&state);
        if state.items.is_empty() {
            state.retrying = false;
            return None;
        }
        let mut orders = Vec::new();
        let mut by_mode: HashMap<Mode, Tags> = HashMap::new();
        for item in state.items.keys() {
            match item {
                Item::Tag(mode, tag) => by_mode.entry(*mode).or_default().push(tag),
                Item::Key(key) => orders.push(Order::Clear(key.clone())),
            }
        }
        orders.extend(
            by_mode
                .into_iter()
                .map(|(mode, tags)| Order::Invalidate(tags, mode)),
        );
        Some((state.last_seq, orders))
    }

    async fn send_all(&self, orders: &[Order]) -> Result<()> {
        for order in orders {
            self.send(order).await?;
        }
        Ok(())
    }

    fn acknowledge(&self, through: u64) {
        let mut state = self.lock();
        state.items.retain(|_, due| due.seq > through);
        state.settle(Settled::Acknowledged, |submission| {
            submission.seq <= through
        });
        self.note(&state);
        if state.items.is_empty() {
            tracing::info!(
                provider = self.provider.id(),
                "all pending invalidations are acknowledged"
            );
        }
    }

    /// When an entry that is alive now, or is being filled with older data, will be gone for certain.
    fn outlived_at(&self, now: Instant) -> Option<Instant> {
        match self.longest_life_ms.load(Ordering::Relaxed) {
            u64::MAX => None,
            life_ms => now.checked_add(self.retry_min.max(Duration::from_millis(life_ms))),
        }
    }

    fn note(&self, state: &State) {
        self.waiting
            .store(!state.items.is_empty(), Ordering::Release);
        telemetry::invalidations_pending(self.provider.id(), state.items.len());
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, item: Item, due: Due) {
        self.items
            .entry(item)
            .and_modify(|known| *known = known.later(due))
            .or_insert(due);
    }

    /// Everything becomes one: the namespace, as hard as the hardest of what it replaces.
    fn fold(&mut self, everything: &Bytes, due: Due) {
        let due = self.items.values().fold(due, |due, item| due.later(*item));
        let mode = self
            .items
            .keys()
            .map(|item| match item {
                Item::Tag(mode, _) => *mode,
                Item::Key(_) => Mode::Hard,
            })
            .reduce(Mode::strongest)
            .unwrap_or_default();
        self.items.clear();
        self.items.insert(Item::Tag(mode, everything.clone()), due);
    }

    fn drop_outlived(&mut self, now: Instant) {
        let is_outlived = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.items.retain(|_, due| !is_outlived(due.outlived_at));
        self.settle(Settled::Outlived, |submission| {
            is_outlived(submission.outlived_at)
        });
    }

    fn settle(&mut self, how: Settled, which: impl Fn(&Submission) -> bool) {
        let settled = self.submissions.extract_if(.., |submission| {
            which(submission) || submission.settled.is_closed()
        });
        for submission in settled {
            // Whoever is gone does not want to know.
            let _ = submission.settled.send(how);
        }
    }
}

impl Due {
    fn later(self, other: Self) -> Self {
        Self {
            seq: self.seq.max(other.seq),
            outlived_at: match (self.outlived_at, other.outlived_at) {
                (Some(one), Some(other)) => Some(one.max(other)),
                _ => None,
            },
        }
    }
}
