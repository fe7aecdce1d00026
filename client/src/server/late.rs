//! Answers that come when their caller has gone: it was cancelled, or its deadline passed.
//!
//! With the answer to FETCH a lease may come. Lost, it would keep every other caller of the key waiting until it ends,
//! in all processes. So the answer is awaited all the same, and what came with it is given back.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use redis::{Cmd, RedisError, Value, aio::MultiplexedConnection};
use tokio::{runtime::Handle, time::timeout};

/// A command, and what becomes of its answer if that comes too late.
pub(super) trait Ask: Copy + Send {
    fn cmd(&self) -> &Cmd;

    /// Sends it and waits for the answer. The connection comes back with it, for the next call.
    fn send(
        self,
        connection: MultiplexedConnection,
    ) -> impl Future<Output = (Result<Value, RedisError>, MultiplexedConnection)> + Send;
}

/// Nothing becomes of it.
impl Ask for &Cmd {
    fn cmd(&self) -> &Cmd {
        self
    }

    async fn send(
        self,
        mut connection: MultiplexedConnection,
    ) -> (Result<Value, RedisError>, MultiplexedConnection) {
        (connection.send_packed_command(self).await, connection)
    }
}

/// A lease that came with it is given back.
#[derive(Clone, Copy)]
pub(super) struct Leasing<'a> {
    pub(super) cmd: &'a Arc<Cmd>,
    /// How long it lasts at most: later there is nothing left to give back.
    pub(super) lease: Duration,
    pub(super) give_back: GiveBack,
}

/// The command that gives back what came with this answer to this command; `None` if there is nothing.
pub(super) type GiveBack = fn(&Cmd, Value) -> Option<Cmd>;

impl Ask for Leasing<'_> {
    fn cmd(&self) -> &Cmd {
        self.cmd
    }

    /// Cancel safe: an answer that comes later is dealt with by a task of its own, for as long as the lease lasts.
    async fn send(
        self,
        mut connection: MultiplexedConnection,
    ) -> (Result<Value, RedisError>, MultiplexedConnection) {
        let cmd = self.cmd.clone();
        let call = async move {
            let answer = connection.send_packed_command(&cmd).await;
            (answer, connection, cmd)
        };
        Awaited {
            call: Some(Box::pin(call)),
            lease: self.lease,
            give_back: self.give_back,
        }
        .await
    }
}

/// A call under way with what it needs to be awaited by another task than its caller's.
struct Awaited<F: Future<Output = Answered> + Send + 'static> {
    /// There until it is answered.
    call: Option<Pin<Box<F>>>,
    lease: Duration,
    give_back: GiveBack,
}

type Answered = (Result<Value, RedisError>, MultiplexedConnection, Arc<Cmd>);

impl<F: Future<Output = Answered> + Send + 'static> Future for Awaited<F> {
    type Output = (Result<Value, RedisError>, MultiplexedConnection);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(call) = &mut self.call else {
            return Poll::Pending;
        };
        call.as_mut().poll(context).map(|(answer, connection, _)| {
            self.call = None;
            (answer, connection)
        })
    }
}

impl<F: Future<Output = Answered> + Send + 'static> Drop for Awaited<F> {
    fn drop(&mut self) {
        let Some(call) = self.call.take() else { return };
        // Without a runtime the connection ends, and the lease with it.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let (lease, give_back) = (self.lease, self.give_back);
        runtime.spawn(async move {
            let Ok((Ok(answer), mut connection, cmd)) = timeout(lease, call).await else {
                return;
            };
            if let Some(cmd) = give_back(&cmd, answer)
                && let Err(error) = connection.send_packed_command(&cmd).await
            {
                tracing::debug!(%error, "a lease that came too late was not given back");
            }
        });
    }
}

#[cfg(test)]
mod tests;
