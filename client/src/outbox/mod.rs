//! Invalidations that a provider has not acknowledged yet, and the task that tries them again.
//!
//! ```text
//!   submit ──▶ first attempt ──acknowledged──▶ done
//!      │            │ not reached
//!      │            ▼
//!      └────────▶ items ◀──────── again, after a pause ────────┐
//!   others wait     │                                          │
//!                   └──▶ everything in one go ──not reached────┘
//!                                │
//!                                └──▶ acknowledged, or nothing it concerns can still be alive: settled
//! ```
//!
//! What must be sent is a set: repeating an invalidation does no harm, and neither does sending later ones with it. The
//! set is bounded; when it is full it becomes the one invalidation that includes all others, that of the namespace.
//! While it is not empty, this process does not read from the provider: see [`Outbox::is_waiting`].

mod pending;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tracing::Instrument;

use self::pending::{Item, Pending, items_of, order_of};
use crate::{
    Error, ErrorKind, Result, Settled, Tags,
    provider::{Mode, Provider},
    telemetry,
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
    retry_min: Duration,
    /// The longest time an entry stored through this cache can be served, in milliseconds; `u64::MAX`: for ever.
    longest_life_ms: AtomicU64,
    /// Whether anything is pending: read on every lookup, so kept outside of the lock.
    waiting: AtomicBool,
    /// Told when something is added.
    added: Notify,
    state: Mutex<State>,
}

struct State {
    pending: Pending,
    /// Whether the task runs.
    retrying: bool,
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
                retry_min,
                longest_life_ms: AtomicU64::new(0),
                waiting: AtomicBool::new(false),
                added: Notify::new(),
                state: Mutex::new(State {
                    pending: Pending::new(everything, items_max),
                    retrying: false,
                }),
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
        self.shared.lock().pending.len()
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
    /// While others are waiting to be sent, the order joins them without an attempt of its own: every write of the
    /// application would otherwise cost a deadline for as long as the provider hangs. The task is told and tries at once.
    ///
    /// Not cancelled with the caller: once polled, the order is carried out.
    ///
    /// # Errors
    ///
    /// What the provider refuses for good.
    pub(crate) async fn submit(&self, order: Order) -> Result<Attempt> {
        let shared = self.shared.clone();
        if self.is_waiting() {
            telemetry::invalidation(shared.provider.id(), "pending");
            return Ok(Attempt::Pending(shared.keep(&order)));
        }
        let attempt = async move {
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
                    Ok(Attempt::Pending(shared.keep(&order)))
                }
                Err(error) => {
                    telemetry::invalidation(shared.provider.id(), "refused");
                    Err(error)
                }
            }
        };
        let attempt = tokio::spawn(attempt.in_current_span());
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
    fn keep(self: &Arc<Self>, order: &Order) -> oneshot::Receiver<Settled> {
        let outlived_at = self.outlived_at(Instant::now());
        let mut state = self.lock();
        let (settled, folded) = state.pending.add(order, outlived_at);
        if folded {
            telemetry::invalidations_folded(self.provider.id());
        }
        self.note(&state.pending);
        self.added.notify_one();
        if !std::mem::replace(&mut state.retrying, true) {
            tokio::spawn(self.clone().retry());
        }
        settled
    }

    async fn retry(self: Arc<Self>) {
        let mut pause = PAUSE_MIN;
        while self.rest(pause).await {
            let batch = self.lock().pending.batch();
            match self.send_all(&batch.orders).await {
                Ok(refused) => {
                    let mut state = self.lock();
                    state.pending.acknowledge(batch.through, &refused);
                    self.note(&state.pending);
                    pause = PAUSE_MIN;
                }
                Err(error) => {
                    tracing::debug!(provider = self.provider.id(), %error, "invalidations are still unacknowledged");
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        tracing::info!(
            provider = self.provider.id(),
            "no invalidation is pending any more"
        );
    }

    /// Waits until it is time to try again; `false` if there is nothing to try, and the task ends.
    async fn rest(&self, pause: Duration) -> bool {
        // Jittered: after an outage not every process comes back in the same millisecond.
        let pause = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        let shortest = pause.min(PAUSE_MIN);
        tokio::time::sleep(shortest).await;
        // Something new does not wait for the end of a long pause, nor does it shorten the shortest.
        let _ = tokio::time::timeout(pause - shortest, self.added.notified()).await;
        let mut state = self.lock();
        state.pending.drop_outlived(Instant::now());
        self.note(&state.pending);
        state.retrying = !state.pending.is_empty();
        state.retrying
    }

    /// Sends a batch; what the provider refuses for good is returned. The others must not suffer for it, so an order that
    /// is refused as a whole is sent again piece by piece.
    async fn send_all(&self, orders: &[Order]) -> Result<HashSet<Item>> {
        let mut refused = HashSet::new();
        for order in orders {
            match self.send(order).await {
                Err(error) if !error.is_retryable() => {}
                sent => {
                    sent?;
                    continue;
                }
            }
            for item in items_of(order) {
                match self.send(&order_of(&item)).await {
                    Err(error) if !error.is_retryable() => {
                        tracing::error!(provider = self.provider.id(), %error, ?item, "an invalidation was refused");
                        telemetry::invalidation(self.provider.id(), "refused");
                        refused.insert(item);
                    }
                    sent => drop(sent?),
                }
            }
        }
        Ok(refused)
    }

    /// When an entry that is alive now, or is being filled with older data, will be gone for certain.
    fn outlived_at(&self, now: Instant) -> Option<Instant> {
        match self.longest_life_ms.load(Ordering::Relaxed) {
            u64::MAX => None,
            life_ms => now.checked_add(self.retry_min.max(Duration::from_millis(life_ms))),
        }
    }

    fn note(&self, pending: &Pending) {
        self.waiting.store(!pending.is_empty(), Ordering::Release);
        telemetry::invalidations_pending(self.provider.id(), pending.len());
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
