//! Telling one target, for as long as it takes.
//!
//! Owns what a target has still to be told and the retries. It must not know where the tags came from, nor that there
//! are other targets: one that is down must not hold up the rest.
//!
//! ```text
//!   add(tags, 7) ─┐
//!   add(tags, 8) ─┼─▶ Inbox { tags, through: 8 } ──take──▶ Round ──chunks, retried──▶ target
//!   add(tags, 9) ─┘        ▲ the next round gathers here meanwhile               └──▶ told through 8
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::backoff::Backoff;
use super::gathered::Gathered;
use super::stats::TargetCounters;
use super::target::InvalidationTarget;
use super::{BoxError, BoxFuture, random_jitter};
use crate::Tags;

/// Tags named in one INVALIDATE at most: a command stays small, and so does what is repeated after a failure.
const TAGS_PER_CALL_MAX: usize = 1_000;

/// How long a target may take over one call before it counts as failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Pauses after failed calls. Short at most: while they last, a target that is back serves what it should not.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// What a target has still to be told.
#[derive(Debug)]
pub(super) struct Inbox {
    pending: Mutex<Round>,
    filled: Notify,
    /// Everything up to here was acknowledged by the target.
    told: AtomicU64,
    /// Beyond this many different tags, "everything" is said instead of naming them.
    tags_max: usize,
}

/// What one dispatch names.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) tags: Arc<Tags>,
    pub(super) everything: bool,
}

impl Named {
    pub(super) fn is_nothing(&self) -> bool {
        self.tags.is_empty() && !self.everything
    }
}

/// What is told in one go.
#[derive(Debug, Default)]
struct Round {
    tags: Gathered,
    everything: bool,
    through: u64,
}

impl Inbox {
    pub(super) fn new(tags_max: usize) -> Self {
        Self {
            pending: Mutex::default(),
            filled: Notify::new(),
            told: AtomicU64::new(0),
            tags_max,
        }
    }

    /// Adds what dispatch number `through` names; numbers only grow.
    pub(super) fn add(&self, named: &Named, through: u64) {
        {
            let mut pending = self.lock();
            pending.through = through;
            pending.everything |= named.everything;
            if !pending.everything {
                pending.tags.add(&named.tags);
                // Bounded memory however long the target is away, and coarser is still correct.
                pending.everything = pending.tags.len() > self.tags_max;
            }
            if pending.everything {
                pending.tags.clear();
            }
        }
        self.filled.notify_one();
    }

    /// The highest dispatch number up to which the target has acknowledged everything.
    pub(super) fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// How many tags wait to be told, those of the running call not counted.
    pub(super) fn pending_tags(&self) -> usize {
        self.lock().tags.len()
    }

    async fn take(&self) -> Round {
        loop {
            {
                let mut pending = self.lock();
                if pending.through > self.told() {
                    return std::mem::take(&mut *pending);
                }
            }
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Round> {
        // A std mutex: held for a few inserts, never across an await. Every state it can be left in is valid.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells `target` what comes into `inbox`, for ever; `progress` is notified after each round.
pub(super) async fn deliver(
    target: Arc<dyn InvalidationTarget>,
    inbox: Arc<Inbox>,
    progress: Arc<Notify>,
    counters: Arc<TargetCounters>,
) {
    loop {
        let round = inbox.take().await;
        if round.everything {
            counters.collapsed.fetch_add(1, Ordering::Relaxed);
            until_acknowledged(&*target, &counters, || target.invalidate_auto_all()).await;
        } else {
            let tags = round.tags.tags();
            for chunk in tags.chunks(TAGS_PER_CALL_MAX) {
                until_acknowledged(&*target, &counters, || target.invalidate_auto(chunk)).await;
                counters
                    .tags
                    .fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
        }
        inbox.told.store(round.through, Ordering::Release);
        progress.notify_one();
    }
}

/// Repeats `call` until it succeeds.
async fn until_acknowledged<'a, C>(
    target: &dyn InvalidationTarget,
    counters: &TargetCounters,
    call: C,
) where
    C: Fn() -> BoxFuture<'a, Result<(), BoxError>>,
{
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    loop {
        let failure: BoxError = match tokio::time::timeout(CALL_TIMEOUT, call()).await {
            Ok(Ok(())) => {
                counters.calls.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ok(Err(error)) => error,
            Err(_elapsed) => "no answer in time".into(),
        };
        let failures = counters.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let pause = backoff.after_failure(random_jitter());
        tracing::warn!(
            provider = target.name(),
            failures,
            error = %failure,
            "an automatic invalidation was not acknowledged; trying again"
        );
        tokio::time::sleep(pause).await;
    }
}
