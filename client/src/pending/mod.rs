//! Invalidations that a provider has not acknowledged yet, and the task that tries them again.
//!
//! ```text
//!   submit ──▶ attempt of its own ──acknowledged──▶ done
//!      │            │ no answer
//!      │ the        ▼
//!      │ server  backlog ◀───────── again, after a pause ──────┐
//!      │ is         │                                          │
//!      └─silent─────┴──▶ a parcel of the oldest ──no answer────┘
//!                            │        ▲
//!                            ▼        │ at once, until the backlog is empty
//!                    acknowledged ────┘    or nothing it concerns can still be alive
//! ```
//!
//! While something is in the backlog this process does not read what it concerns from the provider: see
//! [`Pending::holds_back`]. That must end soon after the server answers again, at any rate of further invalidations. So
//! only what was not confirmed goes into the backlog: as soon as one parcel is acknowledged, new orders make their own
//! attempts, and parcels follow each other without a pause.
//!
//! What must be sent is a set: repeating an invalidation does no harm. The set is bounded; when it is full it becomes
//! the one invalidation that includes all others, that of the namespace.

mod backlog;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tracing::Instrument;

use mcache_core::near::Own;

use self::backlog::{Backlog, Bounds, Item, Parcel, Progress, Ticket, orders_of};
use crate::{
    Error, ErrorKind, Result, Settled, Tags,
    background::{Background, Unfinished, spawn_or},
    near::{Near, OwnGuard},
    provider::{Mode, Provider},
    server::Settling,
    tags::Namespace,
    telemetry,
};

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Items sent and confirmed in one go. A call has one deadline for all of them.
const PARCEL_ITEMS_MAX: usize = 1000;

/// How much is remembered, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingLimits {
    pub(crate) items_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) retry_min: Duration,
}

/// The unacknowledged invalidations of one provider. Clones share them.
#[derive(Clone)]
pub(crate) struct Pending {
    shared: Arc<Shared>,
}

struct Shared {
    provider: Arc<dyn Provider>,
    /// The near cache of this process in front of it.
    near: Option<Arc<Near>>,
    /// The prefix of all names of the namespace: servers are asked by prefix whether invalidations are settled.
    prefix: Bytes,
    retry_min: Duration,
    background: Background,
    /// The longest time an entry stored through this cache can be served, in milliseconds; `u64::MAX`: for ever.
    longest_life_ms: AtomicU64,
    /// Who is held back: read on every lookup, so kept outside of the lock.
    gate: AtomicU8,
    /// Odd: the server did not answer the last attempt; even: it did. It moves on with each change, so that an attempt
    /// which began before the server came back does not count against it when it fails afterwards.
    silence: AtomicU64,
    /// Told when something is added.
    added: Notify,
    progress: watch::Sender<Progress>,
    state: Mutex<Work>,
}

/// How many orders in the backlog the near cache knows one by one; beyond that it keeps nothing until the backlog is
/// empty.
const NEAR_ORDERS_MAX: usize = 1_000;

struct Work {
    backlog: Backlog,
    /// What the near cache must not keep before the backlog is empty.
    own: Vec<OwnGuard>,
    /// Whether the task runs.
    retrying: bool,
}

/// Nothing is pending.
const OPEN: u8 = 0;
/// Keys are pending: only their readers are concerned.
const KEYS_ONLY: u8 = 1;
/// Tags are pending, and which keys carry them is known to the provider only.
const CLOSED: u8 = 2;

/// How a first attempt went.
pub(crate) enum Attempt {
    /// Acknowledged; so many entries, and which near caches have still to hear of it.
    Acknowledged(u64, Settling),
    /// It goes on in the background.
    Pending(Waiter),
}

/// Tells how an order ended.
pub(crate) struct Waiter {
    ticket: Ticket,
    progress: watch::Receiver<Progress>,
    provider: Arc<dyn Provider>,
    prefix: Bytes,
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").finish_non_exhaustive()
    }
}

impl Waiter {
    /// Cancel-safe. [`Settled::Abandoned`] if the cache and its task are gone.
    pub(crate) async fn settled(mut self) -> Settled {
        let ticket = self.ticket;
        let decided = self
            .progress
            .wait_for(|progress| progress.verdict(&ticket).is_some());
        let verdict = match decided.await {
            Ok(progress) => progress.verdict(&ticket).unwrap_or(Settled::Abandoned),
            Err(_) => Settled::Abandoned,
        };
        if let (Settled::Acknowledged, Some(server)) = (verdict, self.provider.near()) {
            server.settling(&self.prefix).await.settled().await;
        }
        verdict
    }
}

/// What to send.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    Invalidate(Tags, Mode),
    Clear(Bytes),
}

impl Pending {
    pub(crate) fn new(
        provider: Arc<dyn Provider>,
        near: Option<Arc<Near>>,
        namespace: &Namespace,
        limits: PendingLimits,
        background: Background,
    ) -> Self {
        let bounds = Bounds {
            items: limits.items_max,
            bytes: limits.bytes_max,
        };
        Self {
            shared: Arc::new(Shared {
                provider,
                near,
                prefix: namespace.prefix().clone(),
                retry_min: limits.retry_min,
                background,
                longest_life_ms: AtomicU64::new(0),
                gate: AtomicU8::new(OPEN),
                silence: AtomicU64::new(0),
                added: Notify::new(),
                progress: watch::Sender::new(Progress::new()),
                state: Mutex::new(Work {
                    backlog: Backlog::new(namespace.everything(), bounds),
                    own: Vec::new(),
                    retrying: false,
                }),
            }),
        }
    }

    /// Whether an invalidation of this process that may concern the key is unacknowledged. What the provider holds may
    /// then be older than something this process has already reported as changed, so it must not be asked.
    #[inline]
    pub(crate) fn holds_back(&self, key: &[u8]) -> bool {
        match self.shared.gate.load(Ordering::Acquire) {
            OPEN => false,
            gate => self.shared.holds_back(gate, key),
        }
    }

    /// Nothing is unacknowledged.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.shared.gate.load(Ordering::Acquire) == OPEN
    }

    /// How many tags and keys are unacknowledged.
    pub(crate) fn len(&self) -> usize {
        self.shared.lock().backlog.len()
    }

    /// Returns once nothing is unacknowledged.
    ///
    /// Cancel-safe.
    pub(crate) async fn drained(&self) {
        let mut progress = self.shared.progress.subscribe();
        // The sender lives as long as `self`.
        let _ = progress.wait_for(|progress| progress.is_empty).await;
    }

    /// An entry that lives so long was stored: invalidations have to be retried at least that long.
    pub(crate) fn note_life(&self, ttl: Option<Duration>, swr: Duration) {
        let life_ms = match ttl {
            Some(ttl) => u64::try_from(ttl.saturating_add(swr).as_millis()).unwrap_or(u64::MAX),
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
    /// While the server is silent the order joins the backlog without an attempt of its own: every write of the
    /// application would otherwise cost a deadline for as long as the provider hangs. The task is told and tries at
    /// once.
    ///
    /// Not cancelled with the caller: once polled, the order is carried out.
    ///
    /// # Errors
    ///
    /// What the provider refuses for good.
    pub(crate) async fn submit(&self, order: Order) -> Result<Attempt> {
        let shared = self.shared.clone();
        // Before it is sent: what this process has from near is gone before another process can know that it is wrong.
        let own = shared.near.as_ref().map(|near| near.begin(own_of(&order)));
        let silence = shared.silence.load(Ordering::Acquire);
        if silence % 2 == 1 {
            telemetry::invalidation(shared.provider.id(), "pending");
            return Ok(Attempt::Pending(shared.keep(&order, own)));
        }
        let running = shared.background.enter();
        let attempt = async move {
            let _running = running;
            // If the attempt ends with its runtime, the order is tried again on another one.
            let under_way = Unfinished::new(own, |own| drop(shared.keep(&order, own)));
            let sent = shared.send(&order).await;
            let own = under_way.end().flatten();
            match sent {
                Ok((entries, settling)) => {
                    drop(own);
                    telemetry::invalidation(shared.provider.id(), "acknowledged");
                    Ok(Attempt::Acknowledged(entries, settling))
                }
                Err(error) if error.is_retryable() => {
                    telemetry::invalidation(shared.provider.id(), "pending");
                    if shared.fell_silent(silence) {
                        tracing::warn!(
                            provider = shared.provider.id(),
                            %error,
                            "an invalidation was not acknowledged; it is retried, and reads that it may concern bypass this \
                             provider meanwhile"
                        );
                    }
                    Ok(Attempt::Pending(shared.keep(&order, own)))
                }
                Err(error) => {
                    telemetry::invalidation(shared.provider.id(), "refused");
                    Err(error)
                }
            }
        };
        let attempt = tokio::spawn(attempt.in_current_span());
        attempt.await.unwrap_or_else(|error| {
            let what = format!("the runtime is shutting down: {error}");
            Err(Error::new(ErrorKind::Unavailable, what))
        })
    }
}

/// What of the near cache an order concerns.
fn own_of(order: &Order) -> Own {
    match order {
        Order::Invalidate(tags, _) => Own::Tags(tags.iter().map(Into::into).collect()),
        Order::Clear(key) => Own::Keys(vec![key[..].into()]),
    }
}

impl Shared {
    /// How many entries it was, and which near caches have still to hear of it.
    async fn send(&self, order: &Order) -> Result<(u64, Settling)> {
        let server = self.provider.near();
        let entries = match order {
            Order::Invalidate(tags, mode) => match server {
                Some(server) => return server.invalidate_near(tags, *mode, &self.prefix).await,
                None => self.provider.invalidate(tags, *mode).await?,
            },
            Order::Clear(key) => u64::from(self.provider.clear(key).await?),
        };
        let settling = match server {
            Some(server) => server.settling(&self.prefix).await,
            None => Settling::default(),
        };
        Ok((entries, settling))
    }

    /// An attempt that began at this count had no answer. `true` if that is news.
    fn fell_silent(&self, since: u64) -> bool {
        since.is_multiple_of(2)
            && self
                .silence
                .compare_exchange(since, since + 1, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    fn answered(&self) {
        let silence = self.silence.load(Ordering::Acquire);
        if silence % 2 == 1 {
            // If it fails, its own task has said so.
            let _ = self.silence.compare_exchange(
                silence,
                silence + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
        }
    }

    /// Remembers an order that was not acknowledged, and sees to it that it is sent again.
    fn keep(self: &Arc<Self>, order: &Order, own: Option<OwnGuard>) -> Waiter {
        let now = Instant::now();
        let outlived_at = self.outlived_at(now);
        let mut state = self.lock();
        let (number, folded) = state.backlog.add(order, now, outlived_at);
        if folded {
            telemetry::invalidations_folded(self.provider.id());
        }
        self.note(&state.backlog);
        let mut displaced = Vec::new();
        if let (Some(own), Some(near)) = (own, &self.near) {
            state.own.push(own);
            if state.own.len() > NEAR_ORDERS_MAX {
                let everything = vec![near.begin(Own::Everything)];
                displaced = std::mem::replace(&mut state.own, everything);
            }
        }
        drop(state);
        drop(displaced);
        self.see_to_it();
        self.added.notify_one();
        let progress = self.progress.subscribe();
        let ticket = progress.borrow().ticket(number, order);
        Waiter {
            ticket,
            progress,
            provider: self.provider.clone(),
            prefix: self.prefix.clone(),
        }
    }

    /// Has what is in the backlog sent, by a task on the current runtime if none does.
    fn see_to_it(self: &Arc<Self>) {
        if Handle::try_current().is_err() {
            return;
        }
        let mut state = self.lock();
        if state.backlog.is_empty() || std::mem::replace(&mut state.retrying, true) {
            return;
        }
        drop(state);
        let shared = self.clone();
        spawn_or(self.clone().retry(), move || shared.lock().retrying = false);
    }

    /// As [`Pending::holds_back`], where something is pending.
    fn holds_back(self: &Arc<Self>, gate: u8, key: &[u8]) -> bool {
        let (is_concerned, is_tried) = {
            let state = self.lock();
            (gate == CLOSED || state.backlog.has_key(key), state.retrying)
        };
        if !is_tried {
            self.see_to_it();
        }
        is_concerned
    }

    async fn retry(self: Arc<Self>) {
        let mut pause = PAUSE_MIN;
        loop {
            if self.silence.load(Ordering::Acquire) % 2 == 1 {
                self.rest(pause).await;
            }
            let Some(parcel) = self.next_parcel() else {
                break;
            };
            let silence = self.silence.load(Ordering::Acquire);
            match self.deliver(&parcel).await {
                Ok(()) => pause = PAUSE_MIN,
                Err(error) => {
                    tracing::debug!(provider = self.provider.id(), %error, "invalidations are still unacknowledged");
                    self.fell_silent(silence);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
        tracing::info!(
            provider = self.provider.id(),
            "no invalidation is pending any more"
        );
    }

    /// Waits until it is time to try again.
    async fn rest(&self, pause: Duration) {
        // Jittered: after an outage not every process comes back in the same millisecond.
        let pause = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        let shortest = pause.min(PAUSE_MIN);
        sleep(shortest).await;
        // Something new does not wait for the end of a long pause, nor does it shorten the shortest.
        let _ = timeout(pause - shortest, self.added.notified()).await;
    }

    /// `None` if there is nothing to send, and the task ends.
    fn next_parcel(&self) -> Option<Parcel> {
        let mut state = self.lock();
        if let Some(through) = state.backlog.drop_outlived(Instant::now()) {
            self.progress
                .send_modify(|progress| progress.outlive(through));
        }
        self.note(&state.backlog);
        if state.backlog.is_empty() {
            state.retrying = false;
            let acknowledged = std::mem::take(&mut state.own);
            drop(acknowledged);
            // Nothing is owed to it any more: the next order finds out by itself whether it answers.
            self.answered();
            return None;
        }
        Some(state.backlog.parcel(PARCEL_ITEMS_MAX))
    }

    /// Sends a parcel. What the provider refuses for good must not hold up the others, so an order that is refused as a
    /// whole is sent again item by item.
    async fn deliver(&self, parcel: &Parcel) -> Result<()> {
        for (order, items) in orders_of(&parcel.items) {
            match self.send(&order).await {
                Ok(_) => self.confirm(&items, parcel),
                Err(error) if error.is_retryable() => return Err(error),
                Err(_) => {
                    for item in items {
                        self.deliver_alone(item, parcel).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn deliver_alone(&self, item: Item, parcel: &Parcel) -> Result<()> {
        for (order, items) in orders_of(std::slice::from_ref(&item)) {
            match self.send(&order).await {
                Ok(_) => self.confirm(&items, parcel),
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => {
                    tracing::error!(provider = self.provider.id(), %error, ?item, "an invalidation was refused");
                    telemetry::invalidation(self.provider.id(), "refused");
                    let mut state = self.lock();
                    let is_everything = state.backlog.is_everything(&item);
                    if let Some(orders) = state.backlog.done(&item, parcel) {
                        self.progress
                            .send_modify(|progress| progress.refuse(&item, orders, is_everything));
                    }
                    self.note(&state.backlog);
                    self.answered();
                }
            }
        }
        Ok(())
    }

    fn confirm(&self, items: &[Item], parcel: &Parcel) {
        let mut state = self.lock();
        for item in items {
            state.backlog.done(item, parcel);
        }
        self.note(&state.backlog);
        self.answered();
    }

    /// When an entry that is alive now, or is being filled with older data, will be gone for certain.
    fn outlived_at(&self, now: Instant) -> Option<Instant> {
        match self.longest_life_ms.load(Ordering::Relaxed) {
            u64::MAX => None,
            life_ms => now.checked_add(self.retry_min.max(Duration::from_millis(life_ms))),
        }
    }

    /// Under the lock: gate and progress follow the backlog.
    fn note(&self, backlog: &Backlog) {
        let gate = match (backlog.is_empty(), backlog.has_tags()) {
            (true, _) => OPEN,
            (false, false) => KEYS_ONLY,
            (false, true) => CLOSED,
        };
        self.gate.store(gate, Ordering::Release);
        // Told only when it moves: a million callers may wait.
        self.progress
            .send_if_modified(|progress| progress.reached(backlog));
        telemetry::invalidations_pending(self.provider.id(), backlog.len());
    }

    /// Never held across an await.
    fn lock(&self) -> MutexGuard<'_, Work> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
