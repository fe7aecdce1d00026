//! Connections for calls that wait in the server.
//!
//! Redis does not look at a client's next command while the one before is parked. So each waiting call has a
//! connection to itself, from a small pool. A connection whose call was given up is closed, never reused: the server
//! may still be about to answer the old question. One that came back stays open for the next, also because a lease
//! handed out on it lasts only as long as it does.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use redis::{Cmd, Value, aio::MultiplexedConnection};
use tokio::{
    sync::Semaphore,
    time::{timeout, timeout_at},
};

use super::{
    dial::Dialer,
    link::{CallError, LinkOptions},
};

/// Idle connections older than this are closed when the pool is next used.
const IDLE_MAX: Duration = Duration::from_secs(120);

pub(super) struct Parked {
    permits: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: MultiplexedConnection,
    since: Instant,
}

impl Parked {
    pub(super) fn new(connections_max: usize) -> Self {
        Self {
            permits: Semaphore::new(connections_max),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Sends a command that the server answers within `wait`. When all connections are in use, waiting for one counts.
    pub(super) async fn call(
        &self,
        dialer: &Dialer,
        cmd: &Cmd,
        wait: Duration,
        options: &LinkOptions,
    ) -> Result<Value, CallError> {
        let deadline = tokio::time::Instant::now() + wait + options.command_deadline;
        let permit = match timeout(wait, self.permits.acquire()).await {
            // Never closed, so an error cannot come; if it did, it would mean the same.
            Ok(Err(_)) | Err(_) => return Err(CallError::Timeout(wait)),
            Ok(Ok(permit)) => permit,
        };
        let answer = timeout_at(deadline, self.send(dialer, cmd, options)).await;
        drop(permit);
        answer.map_err(|_| CallError::Timeout(wait + options.command_deadline))?
    }

    async fn send(
        &self,
        dialer: &Dialer,
        cmd: &Cmd,
        options: &LinkOptions,
    ) -> Result<Value, CallError> {
        // One that rested may have died unnoticed, and then so have the others: once more on a new one.
        if let Some(mut rested) = self.take_idle() {
            match rested.send_packed_command(cmd).await {
                Ok(answer) => return Ok(self.keep(rested, answer)),
                Err(error) if error.is_unrecoverable_error() => self.lock().clear(),
                Err(error) => return Err(error.into()),
            }
        }
        let mut fresh = dialer.dial(options.connect_timeout).await?;
        let answer = fresh.send_packed_command(cmd).await?;
        Ok(self.keep(fresh, answer))
    }

    fn keep(&self, connection: MultiplexedConnection, answer: Value) -> Value {
        self.lock().push(Idle {
            connection,
            since: Instant::now(),
        });
        answer
    }

    fn take_idle(&self) -> Option<MultiplexedConnection> {
        let mut idle = self.lock();
        // Last in, first out: those at the front are the ones that rest longest.
        idle.retain(|idle| idle.since.elapsed() < IDLE_MAX);
        idle.pop().map(|idle| idle.connection)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
