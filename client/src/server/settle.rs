//! Waiting until no near cache serves what was invalidated: one SETTLE under way per primary and namespace for all that
//! wait.
//!
//! ```text
//!   acknowledged ──▶ no leases ────────────────────────────────▶ settled
//!        │
//!        └─ leases ──▶ joins the next SETTLE ── all confirmed ─▶ settled
//!                            │ no answer, or some still wait
//!                            └───── their leases are over ─────▶ settled
//! ```
//!
//! A SETTLE says nothing of what was acknowledged after it was sent, so a caller that comes while one is under way
//! waits for the next. Whether and until when to wait is `mcache_core::near::Settle`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use mcache_core::near::{Settle, Step};
use redis::{Value, aio::MultiplexedConnection};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    command::{read_count, unexpected},
    dial::Dialer,
    options::LinkOptions,
};
use crate::{Error, ErrorKind, Result, background::spawn_or};

/// What SETTLE is asked to wait at most: longer than any lease lasts.
const WAIT: Duration = Duration::from_secs(6);

/// Before another SETTLE is sent after one that did not help.
const PAUSE: Duration = Duration::from_millis(20);

/// Milliseconds by a clock that does not go back. That it stands still while the machine sleeps makes waiting longer,
/// not shorter.
fn now_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// What one primary said to an invalidation.
pub(super) struct Acknowledged {
    pub(super) entries: u64,
    settle: Settle,
}

impl Acknowledged {
    /// So many leases may let it be served, the longest for so long from now.
    pub(super) fn now(entries: u64, leases: u64, longest_ms: u64) -> Self {
        let settle = Settle::acknowledged(leases, longest_ms, now_ms());
        Self { entries, settle }
    }

    /// No process may serve it.
    pub(super) fn settled(entries: u64) -> Self {
        Self::now(entries, 0, 0)
    }

    /// Acknowledged just now, and nothing was said of leases.
    pub(super) fn unknown() -> Self {
        let settle = Settle::unknown(now_ms());
        Self { entries: 0, settle }
    }
}

/// Primaries whose near caches have still to hear of what was invalidated.
#[derive(Default)]
pub(crate) struct Settling {
    parts: Vec<(Option<Arc<Settler>>, Settle)>,
}

impl std::fmt::Debug for Settling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settling")
            .field("primaries", &self.parts.len())
            .finish()
    }
}

impl Settling {
    pub(super) fn add(
        &mut self,
        settlers: &Arc<Settlers>,
        acknowledged: Acknowledged,
        prefix: &Bytes,
    ) {
        let settle = acknowledged.settle;
        if settle.step(now_ms()) != Step::Settled {
            self.parts.push((Some(settlers.get(prefix)), settle));
        }
    }

    /// No server can be asked.
    pub(super) fn by_time_alone(&mut self) {
        self.parts.push((None, Acknowledged::unknown().settle));
    }

    /// Nothing has to be waited for.
    pub(crate) fn is_settled(&self) -> bool {
        self.parts.is_empty()
    }

    /// Waits until it is settled at each primary: one lease at most.
    ///
    /// Cancel-safe.
    pub(crate) async fn settled(self) {
        join_all(self.parts.into_iter().map(|(settler, settle)| async move {
            let Step::Ask { until_ms } = settle.step(now_ms()) else {
                return;
            };
            let left = Duration::from_millis(until_ms.saturating_sub(now_ms()));
            match settler {
                // When the time is over it is settled, answered or not.
                Some(settler) => drop(timeout(left, settler.confirmed()).await),
                None => sleep(left).await,
            }
        }))
        .await;
    }
}

/// The SETTLE of one primary and namespace.
pub(super) struct Settler {
    settlers: Weak<Settlers>,
    prefix: Bytes,
    state: Mutex<Turns>,
    /// The last turn that confirmed.
    confirmed: watch::Sender<u64>,
}

#[derive(Default)]
struct Turns {
    /// Whether the task runs that sends.
    running: bool,
    /// A caller waits for a turn that has not begun.
    wanted: bool,
    begun: u64,
    /// It was said that SETTLE is refused.
    has_complained: bool,
}

impl Settler {
    /// Returns when a SETTLE that was sent after this call says that every process has confirmed.
    async fn confirmed(self: Arc<Self>) {
        let mut confirmed = self.confirmed.subscribe();
        let (turn, is_running) = {
            let mut turns = self.lock();
            turns.wanted = true;
            let is_running = std::mem::replace(&mut turns.running, true);
            (turns.begun + 1, is_running)
        };
        if !is_running {
            let settler = self.clone();
            spawn_or(self.clone().run(), move || settler.lock().running = false);
        }
        // The sender lives as long as `self`.
        let _ = confirmed.wait_for(|confirmed| *confirmed >= turn).await;
    }

    async fn run(self: Arc<Self>) {
        let mut connection = self
            .settlers
            .upgrade()
            .and_then(|settlers| settlers.take_line());
        loop {
            let turn = {
                let mut turns = self.lock();
                if !std::mem::replace(&mut turns.wanted, false) {
                    turns.running = false;
                    if let (Some(line), Some(settlers)) = (connection, self.settlers.upgrade()) {
                        settlers.keep_line(line);
                    }
                    return;
                }
                turns.begun += 1;
                turns.begun
            };
            match self.ask(&mut connection).await {
                Ok(true) => drop(self.confirmed.send_replace(turn)),
                outcome => {
                    if let Err(error) = outcome {
                        self.complain(&error);
                        connection = None;
                    }
                    sleep(PAUSE).await;
                    if self.confirmed.receiver_count() > 0 {
                        self.lock().wanted = true;
                    }
                }
            }
        }
    }

    fn complain(&self, error: &Error) {
        if error.is_refused() && !std::mem::replace(&mut self.lock().has_complained, true) {
            tracing::warn!(
                %error,
                "invalidations wait for near caches as long as a near lease lasts: the cache's user needs MCACHE.SETTLE (said \
                 once)"
            );
        } else {
            tracing::debug!(%error, "SETTLE has no answer");
        }
    }

    /// Whether no process has to be waited for any more.
    async fn ask(&self, connection: &mut Option<MultiplexedConnection>) -> Result<bool> {
        let settlers = self.settlers.upgrade().ok_or(ErrorKind::Unavailable)?;
        let Settlers {
            dialer, options, ..
        } = &*settlers;
        let line = match connection {
            Some(line) => line,
            None => connection.insert(dialer.dial(options, "settle").await.map_err(refused)?),
        };
        let mut cmd = redis::cmd("MCACHE.SETTLE");
        cmd.arg(WAIT.as_millis() as u64);
        cmd.arg("PREFIX").arg(&self.prefix[..]);
        let asked = line.send_packed_command(&cmd);
        let answer = timeout(WAIT.saturating_add(options.command_deadline), asked).await;
        let answer = answer.map_err(|_| Error::from(ErrorKind::Timeout))?;
        let answer = answer.map_err(refused)?;
        match answer.extract_error() {
            Ok(Value::Array(parts)) => {
                let Ok([_, _, waiting]) = <[Value; 3]>::try_from(parts) else {
                    return Err(unexpected("three numbers", &Value::Nil));
                };
                Ok(read_count(waiting)? == 0)
            }
            Ok(other) => Err(unexpected("three numbers", &other)),
            Err(error) => {
                let error = refused(error);
                match error.kind() {
                    // A server that does not know the word grants no leases.
                    ErrorKind::ModuleMissing => Ok(true),
                    _ => Err(error),
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(error: redis::RedisError) -> Error {
    super::call::CallError::from(error).into()
}

/// The settlers of one primary, by what they ask for, and the connection they share.
pub(super) struct Settlers {
    dialer: Arc<Dialer>,
    options: LinkOptions,
    by_prefix: Mutex<HashMap<Bytes, Arc<Settler>>>,
    line: Mutex<Option<MultiplexedConnection>>,
}

impl Settlers {
    pub(super) fn new(dialer: Arc<Dialer>, options: LinkOptions) -> Self {
        Self {
            dialer,
            options,
            by_prefix: Mutex::default(),
            line: Mutex::default(),
        }
    }

    fn get(self: &Arc<Self>, prefix: &Bytes) -> Arc<Settler> {
        let mut settlers = self
            .by_prefix
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(settler) = settlers.get(prefix) {
            return settler.clone();
        }
        let settler = Arc::new(Settler {
            settlers: Arc::downgrade(self),
            prefix: prefix.clone(),
            state: Mutex::default(),
            confirmed: watch::Sender::new(0),
        });
        settlers.insert(prefix.clone(), settler.clone());
        settler
    }

    fn take_line(&self) -> Option<MultiplexedConnection> {
        self.line
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn keep_line(&self, line: MultiplexedConnection) {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
    }
}

#[cfg(test)]
mod tests;
