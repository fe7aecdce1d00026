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
    /// The same, of a node that another one has named.
    type Asking: Ask;

    fn asking(self) -> Self::Asking;

    /// Sends it and waits for the answer. The connection comes back with it, for the next call.
    fn send(self, line: Line) -> impl Future<Output = (Result<Value, RedisError>, Line)> + Send;
}

/// Nothing becomes of it.
impl<'a> Ask for &'a Cmd {
    type Asking = Asking<'a>;

    fn asking(self) -> Asking<'a> {
        Asking(self)
    }

    async fn send(self, mut line: Line) -> (Result<Value, RedisError>, Line) {
        (line.connection.send_packed_command(self).await, line)
    }
}

/// Nothing becomes of it, and it goes to a node that another one has named.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a>(&'a Cmd);

impl Ask for Asking<'_> {
    type Asking = Self;

    fn asking(self) -> Self {
        self
    }

    async fn send(self, mut line: Line) -> (Result<Value, RedisError>, Line) {
        let answer = send(&mut line.connection, self.0, Redirected::Asking).await;
        (answer, line)
    }
}

/// A lease that came with it is given back.
#[derive(Clone, Copy)]
pub(super) struct Leasing<'a> {
    cmd: &'a Arc<Cmd>,
    lease: Duration,
    give_back: GiveBack,
    redirected: Redirected,
}

impl<'a> Leasing<'a> {
    /// `lease`: how long it lasts at most. Later there is nothing left to give back.
    pub(super) fn new(cmd: &'a Arc<Cmd>, lease: Duration, give_back: GiveBack) -> Self {
        Self {
            cmd,
            lease,
            give_back,
            redirected: Redirected::No,
        }
    }
}

/// Whether a node is asked that another one has named: for a key in a slot that is on its way to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Redirected {
    No,
    /// The node answers if the command follows ASKING.
    Asking,
}

/// The command that gives back what came with this answer to this command; `None` if there is nothing.
pub(super) type GiveBack = fn(&Cmd, Value) -> Option<Cmd>;

impl Ask for Leasing<'_> {
    type Asking = Self;

    fn asking(self) -> Self {
        Self {
            redirected: Redirected::Asking,
            ..self
        }
    }

    /// Cancel safe: an answer that comes later is dealt with by a task of its own, for as long as the lease lasts.
    async fn send(self, line: Line) -> (Result<Value, RedisError>, Line) {
        let Line {
            mut connection,
            runtime,
        } = line;
        let (cmd, redirected) = (self.cmd.clone(), self.redirected);
        let call = async move {
            let answer = send(&mut connection, &cmd, redirected).await;
            (answer, connection, cmd)
        };
        Awaited {
            call: Some(Box::pin(call)),
            runtime: Some(runtime),
            lease: self.lease,
            give_back: self.give_back,
            redirected,
        }
        .await
    }
}

/// A connection, and the runtime that drives it.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) connection: MultiplexedConnection,
    pub(super) runtime: Handle,
}

async fn send(
    connection: &mut MultiplexedConnection,
    cmd: &Cmd,
    redirected: Redirected,
) -> Result<Value, RedisError> {
    match redirected {
        Redirected::No => connection.send_packed_command(cmd).await,
        // Boxed: the usual way does not carry the size of the rarer one around.
        Redirected::Asking => {
            Box::pin(async {
                let mut pipeline = redis::pipe();
                pipeline.cmd("ASKING");
                pipeline.add_command(cmd.clone());
                let mut answers = connection.send_packed_commands(&pipeline, 1, 1).await?;
                let missing = || (redis::ErrorKind::Parse, "no answer after ASKING").into();
                answers.pop().ok_or_else(missing)
            })
            .await
        }
    }
}

/// A call under way with what it needs to be awaited by another task than its caller's.
struct Awaited<F: Future<Output = Answered> + Send + 'static> {
    /// There until it is answered.
    call: Option<Pin<Box<F>>>,
    /// Likewise. It may be dropped where no runtime is.
    runtime: Option<Handle>,
    lease: Duration,
    give_back: GiveBack,
    redirected: Redirected,
}

type Answered = (Result<Value, RedisError>, MultiplexedConnection, Arc<Cmd>);

impl<F: Future<Output = Answered> + Send + 'static> Future for Awaited<F> {
    type Output = (Result<Value, RedisError>, Line);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(call) = &mut self.call else {
            return Poll::Pending;
        };
        let Poll::Ready((answer, connection, _)) = call.as_mut().poll(context) else {
            return Poll::Pending;
        };
        self.call = None;
        match self.runtime.take() {
            Some(runtime) => Poll::Ready((
                answer,
                Line {
                    connection,
                    runtime,
                },
            )),
            None => Poll::Pending,
        }
    }
}

impl<F: Future<Output = Answered> + Send + 'static> Drop for Awaited<F> {
    fn drop(&mut self) {
        let (Some(call), Some(runtime)) = (self.call.take(), self.runtime.take()) else {
            return;
        };
        // If that one has ended, so has the connection, and the lease with it.
        let runtime = Handle::try_current().unwrap_or(runtime);
        let (lease, give_back, redirected) = (self.lease, self.give_back, self.redirected);
        runtime.spawn(async move {
            let Ok((Ok(answer), mut connection, cmd)) = timeout(lease, call).await else {
                return;
            };
            let Some(cmd) = give_back(&cmd, answer) else {
                return;
            };
            let given_back = send(&mut connection, &cmd, redirected).await;
            if let Err(error) = given_back.and_then(Value::extract_error) {
                tracing::debug!(%error, "a lease that came too late was not given back");
            }
        });
    }
}

#[cfg(test)]
mod tests;
