//! Connections for calls that wait in the server.
//!
//! Redis does not look at a client's next command while the one before is parked. So each waiting call has a
//! connection to itself, from a small pool. A connection whose call was given up is closed, never reused: the server
//! may still be about to answer the old question. One that came back stays open for the next, also because a lease
//! handed out on it lasts only as long as it does.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use redis::{Cmd, Value, aio::MultiplexedConnection};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{call::CallError, command::LEASE_OR_WAIT_MAX, dial::Dialer, options::LinkOptions};
use crate::background::spawn_or;

pub(super) struct Parked {
    permits: Semaphore,
    /// Idle connections older than this are closed.
    idle_max: Duration,
    idle: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Idle>,
    /// Whether the task runs that closes them.
    swept: bool,
}

struct Idle {
    connection: MultiplexedConnection,
    since: Instant,
}

impl Parked {
    pub(super) fn new(connections_max: usize, idle_max: Duration) -> Self {
        Self {
            permits: Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)),
            idle_max,
            idle: Mutex::default(),
        }
    }

    /// Sends a command that the server answers within `wait`. When all connections are in use, waiting for one counts.
    pub(super) async fn call(
        self: &Arc<Self>,
        dialer: &Dialer,
        cmd: &Cmd,
        wait: Duration,
        options: &LinkOptions,
    ) -> Result<Value, CallError> {
        let wait = wait.min(LEASE_OR_WAIT_MAX);
        let patience = wait.saturating_add(options.command_deadline);
        let began = Instant::now();
        let permit = match timeout(wait, self.permits.acquire()).await {
            // Never closed, so an error cannot come; if it did, it would mean the same.
            Ok(Err(_)) | Err(_) => return Err(CallError::Timeout(wait)),
            Ok(Ok(permit)) => permit,
        };
        let left = patience.saturating_sub(began.elapsed());
        let answer = timeout(left, self.send(dialer, cmd, options)).await;
        drop(permit);
        answer.map_err(|_| CallError::Timeout(patience))?
    }

    async fn send(
        self: &Arc<Self>,
        dialer: &Dialer,
        cmd: &Cmd,
        options: &LinkOptions,
    ) -> Result<Value, CallError> {
        // One that rested may have died unnoticed, and then so have the others: once more on a new one.
        if let Some(mut rested) = self.take_idle() {
            match rested.send_packed_command(cmd).await {
                Ok(answer) => return Ok(self.keep(rested, answer)),
                Err(error) if error.is_unrecoverable_error() => self.lock().idle.clear(),
                Err(error) => return Err(error.into()),
            }
        }
        let mut fresh = dialer.dial(options, "wait").await?;
        let answer = fresh.send_packed_command(cmd).await?;
        Ok(self.keep(fresh, answer))
    }

    fn keep(self: &Arc<Self>, connection: MultiplexedConnection, answer: Value) -> Value {
        let mut pool = self.lock();
        pool.idle.push(Idle {
            connection,
            since: Instant::now(),
        });
        let is_swept = std::mem::replace(&mut pool.swept, true);
        drop(pool);
        if !is_swept {
            let parked = Arc::downgrade(self);
            let lost = {
                let parked = parked.clone();
                move || {
                    if let Some(parked) = parked.upgrade() {
                        parked.lock().swept = false;
                    }
                }
            };
            spawn_or(sweep(parked, self.idle_max / 2), lost);
        }
        answer
    }

    fn take_idle(&self) -> Option<MultiplexedConnection> {
        // Last in, first out: those at the front are the ones that rest longest.
        self.lock().idle.pop().map(|idle| idle.connection)
    }

    /// Closes what has rested for long; `false` if there is nothing left that could.
    fn close_rested(&self) -> bool {
        let mut pool = self.lock();
        let idle_max = self.idle_max;
        pool.idle.retain(|idle| idle.since.elapsed() < idle_max);
        pool.swept = !pool.idle.is_empty();
        pool.swept
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pool> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs as long as a connection is idle. After a rush a service has as many connections as callers waited at once; the
/// server counts them against its limit of clients.
async fn sweep(parked: Weak<Parked>, pause: Duration) {
    loop {
        sleep(pause.max(Duration::from_millis(1))).await;
        if !parked.upgrade().is_some_and(|parked| parked.close_rested()) {
            return;
        }
    }
}
