//! One reconnecting connection to one node, shared by all tasks of the process.
//!
//! With [`dial`](super::dial) and [`parked`](super::parked) the only place that touches `redis::aio`. It owns
//! deadlines, the breaker and when to replace a connection; it knows nothing of what the commands mean.
//!
//! A call waits for the connection no longer than for an answer: the deadline covers both. Dialling goes on in a task
//! of its own when callers give up, so a server that comes back is found even if every caller gave up.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use redis::{
    Cmd, ErrorKind as RedisKind, Pipeline, RedisError, ServerErrorKind, Value,
    aio::{MultiplexedConnection, PubSub},
};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::{
    breaker::{Breaker, Verdict},
    call::CallError,
    dial::Dialer,
    idle::{self, Idle},
    late::{Ask, Line},
    options::LinkOptions,
    parked::Parked,
    settle::Settlers,
};
use crate::background::{Unfinished, spawn_or};

/// A connection on which this many calls in a row timed out is replaced: the peer may be gone without having said so,
/// and the kernel would take minutes to notice.
const TIMEOUTS_BEFORE_REDIAL: u32 = 3;

/// A connection that leads to a replica is replaced when it is so old: perhaps the server will be a replica for as long
/// as it lives, and no call should dial for nothing.
const REPLICA_REDIAL: Duration = Duration::from_millis(100);

/// How often a caller that waits in the server asks whether the server is still there.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Link {
    dialer: Arc<Dialer>,
    options: LinkOptions,
    breaker: Breaker,
    shared: Mutex<Slot>,
    /// Of the shared one.
    idle: Idle<Connection>,
    /// For values that would keep others waiting.
    bulk: Mutex<Slot>,
    /// Moments at which calls on the shared connection timed out, one after the other.
    timeouts_in_a_row: AtomicU32,
    /// Whether it is being found out why a caller had no answer before it went away.
    in_question: AtomicBool,
    parked: Arc<Parked>,
    settlers: Arc<Settlers>,
}

/// Which of the connections a call goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Shared,
    Bulk,
}

enum Slot {
    Empty,
    Dialling { since: Instant, dialled: Dialled },
    Up(Connection),
}

/// How dialling ends.
type Dialled = watch::Receiver<Option<Result<Connection, RedisError>>>;

#[derive(Clone)]
struct Connection {
    /// Tells connections apart, so that a late failure of an old one does not cost the new one.
    generation: u64,
    since: Instant,
    line: Line,
}

impl idle::Handle for Connection {
    fn generation(&self) -> u64 {
        self.generation
    }
}

/// Whether a call may be refused because the server is known to be down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It has something to fall back to.
    Optional,
    /// It has to arrive: an invalidation. It is also what tries a server that was down first.
    MustArrive,
}

impl Link {
    pub(super) fn new(dialer: Dialer, options: LinkOptions) -> Arc<Self> {
        let dialer = Arc::new(dialer);
        Arc::new(Self {
            breaker: Breaker::new(
                options.breaker_failures,
                options.breaker_pause,
                Instant::now().into_std(),
            ),
            parked: Arc::new(Parked::new(options.parked_max, options.parked_idle_max)),
            settlers: Arc::new(Settlers::new(dialer.clone(), options.clone())),
            dialer,
            options,
            shared: Mutex::new(Slot::Empty),
            idle: Idle::new(),
            bulk: Mutex::new(Slot::Empty),
            timeouts_in_a_row: AtomicU32::new(0),
            in_question: AtomicBool::new(false),
        })
    }

    /// A connection that the caller alone uses, for calls that are parked for as long as it lives.
    pub(super) async fn dial_apart(
        &self,
        purpose: &str,
    ) -> Result<MultiplexedConnection, RedisError> {
        self.dialer.dial(&self.options, purpose).await
    }

    pub(super) fn command_deadline(&self) -> Duration {
        self.options.command_deadline
    }

    /// Those who wait until what was invalidated here is settled.
    pub(super) fn settlers(&self) -> &Arc<Settlers> {
        &self.settlers
    }

    /// One command, one answer.
    pub(super) async fn call(
        self: &Arc<Self>,
        ask: impl Ask,
        urgency: Urgency,
    ) -> Result<Value, CallError> {
        let mut generation = None;
        let began = Instant::now();
        // Pinned where it is made: passed on by value, its half kilobyte would be copied at each step.
        let answer = {
            let call = pin!(async {
                let mut is_again = false;
                loop {
                    let Connection {
                        generation: from,
                        since,
                        line,
                    } = match self.idle.take() {
                        Some(connection) => connection,
                        None => self.connection(Lane::Shared).await?,
                    };
                    generation = Some(from);
                    let (answer, line) = ask.send(line).await;
                    if self.is_to_be_said_again(&answer, from, &mut is_again) {
                        continue;
                    }
                    self.idle.put(Connection {
                        generation: from,
                        since,
                        line,
                    });
                    break answer;
                }
            });
            self.judge(urgency, began, call).await
        };
        self.conclude(answer, generation, began)?
            .extract_error()
            .map_err(|error| {
                self.heed(&error);
                error.into()
            })
    }

    /// One command that carries or asks for so many bytes, over a connection where it keeps no small ones waiting. It
    /// has the more time the larger it is, and if that is not enough, only this connection is given up: others are not
    /// concerned.
    pub(super) async fn call_bulk(
        self: &Arc<Self>,
        ask: impl Ask,
        bytes: usize,
    ) -> Result<Value, CallError> {
        if !self.breaker.allows(Instant::now().into_std()) {
            return Err(CallError::Resting);
        }
        self.send_bulk(ask, bytes).await
    }

    /// [`Link::call_bulk`], allowed.
    async fn send_bulk(self: &Arc<Self>, ask: impl Ask, bytes: usize) -> Result<Value, CallError> {
        let mebibytes = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        let deadline = self
            .options
            .command_deadline
            .saturating_mul(mebibytes.saturating_add(1));
        let mut generation = None;
        let send = |line| async move { ask.send(line).await.0 };
        let call = self.over(Lane::Bulk, &mut generation, send);
        let answer = self
            .awaited(Lane::Bulk, deadline, Instant::now(), call)
            .await;
        match &answer {
            // It may be the one that tried.
            Ok(_) => self.breaker.succeeded(),
            Err(_) => self.discard(generation),
        }
        answer?.extract_error().map_err(|error| {
            self.heed(&error);
            error.into()
        })
    }

    /// Several commands in one round trip; each has its own answer, errors included.
    pub(super) async fn call_all(
        self: &Arc<Self>,
        pipeline: &Pipeline,
        urgency: Urgency,
    ) -> Result<Vec<Result<Value, RedisError>>, CallError> {
        let mut generation = None;
        let began = Instant::now();
        let send = |mut line: Line| async move {
            let count = pipeline.len();
            line.connection
                .send_packed_commands(pipeline, 0, count)
                .await
        };
        let answers = self.over(Lane::Shared, &mut generation, send);
        let answers = self.judge(urgency, began, answers).await;
        let answers = self.conclude(answers, generation, began)?;
        Ok(answers
            .into_iter()
            .map(|answer| answer.extract_error().inspect_err(|error| self.heed(error)))
            .collect())
    }

    /// A command that may wait in the server, on a connection of its own: a parked client's later commands wait with
    /// it, so on the shared connection it would hold up all callers, and among them the one it waits for.
    ///
    /// The shared connection asks now and then whether the server still lives; if it does not, the wait ends.
    pub(super) async fn call_parked(
        self: &Arc<Self>,
        cmd: &Cmd,
        wait: Duration,
    ) -> Result<Value, CallError> {
        let mut parked = pin!(self.parked.call(&self.dialer, cmd, wait, &self.options));
        loop {
            match timeout(HEARTBEAT, &mut parked).await {
                Ok(answer) => return Ok(answer?.extract_error()?),
                Err(_) => self.call(&redis::cmd("PING"), Urgency::Optional).await?,
            };
        }
    }

    /// A connection of its own that hears what is said in this channel.
    pub(super) async fn subscribe(&self, channel: &[u8]) -> Result<PubSub, CallError> {
        Ok(self.dialer.subscribe(&self.options, channel).await?)
    }

    /// Asks with all the patience that a call may have, and draws the conclusions. One question at a time.
    fn find_out(self: &Arc<Self>, lane: Lane) {
        if self.in_question.swap(true, Relaxed) {
            return;
        }
        let (link, lost) = (self.clone(), self.clone());
        let question = async move {
            let ping = redis::cmd("PING");
            // What it says is not of interest, but whether it does. The caller was allowed to ask, perhaps as the only
            // one for a while: that it tries is not asked again.
            let _ = match lane {
                Lane::Shared => link.call(&ping, Urgency::MustArrive).await,
                Lane::Bulk => link.send_bulk(&ping, 0).await,
            };
            link.in_question.store(false, Relaxed);
        };
        spawn_or(question, move || lost.in_question.store(false, Relaxed));
    }

    /// Runs a call that begins now under the deadline and the breaker.
    async fn judge<T>(
        self: &Arc<Self>,
        urgency: Urgency,
        now: Instant,
        call: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, CallError> {
        if urgency == Urgency::Optional && !self.breaker.allows(now.into_std()) {
            return Err(CallError::Resting);
        }
        let deadline = self.options.command_deadline;
        self.awaited(Lane::Shared, deadline, now, call).await
    }

    /// Runs a call that began at `now` under a deadline. A caller that goes away before it has an answer leaves a
    /// question: is the server still there? Or else a server that hangs would never be found out by callers who all
    /// have less patience than a call may take.
    async fn awaited<T>(
        self: &Arc<Self>,
        lane: Lane,
        deadline: Duration,
        now: Instant,
        call: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, CallError> {
        let waiting = Unfinished::new(lane, |lane| {
            if Handle::try_current().is_ok() {
                self.find_out(lane);
            }
        });
        let answer = timeout_at(end_of(deadline, now), call).await;
        waiting.end();
        match answer {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(CallError::Timeout(deadline)),
        }
    }

    /// Draws the conclusions from how a call went that began then.
    fn conclude<T>(
        &self,
        answer: Result<T, CallError>,
        generation: Option<u64>,
        began: Instant,
    ) -> Result<T, CallError> {
        match &answer {
            Ok(_) => {
                self.breaker.succeeded();
                if self.timeouts_in_a_row.load(Relaxed) != 0 {
                    self.timeouts_in_a_row.store(0, Relaxed);
                }
            }
            Err(CallError::Resting) => {}
            Err(CallError::Timeout(_)) => {
                // A thousand calls that were under way at one bad moment are one failure.
                if self.count_failure(&"no answer in time", began)
                    && self.timeouts_in_a_row.fetch_add(1, Relaxed) + 1 >= TIMEOUTS_BEFORE_REDIAL
                {
                    self.timeouts_in_a_row.store(0, Relaxed);
                    self.discard(generation);
                }
            }
            Err(CallError::Redis(error)) => {
                self.count_failure(error, began);
                tracing::debug!(server = %self.dialer, %error, "a call failed");
                self.discard(generation);
            }
        }
        answer
    }

    /// Sends over this connection, and notes which one it was.
    async fn over<T, Fut: Future<Output = Result<T, RedisError>>>(
        self: &Arc<Self>,
        lane: Lane,
        generation: &mut Option<u64>,
        send: impl Fn(Line) -> Fut,
    ) -> Result<T, RedisError> {
        let mut is_again = false;
        loop {
            let connection = self.connection(lane).await?;
            *generation = Some(connection.generation);
            let answer = send(connection.line).await;
            if !self.is_to_be_said_again(&answer, connection.generation, &mut is_again) {
                break answer;
            }
        }
    }

    /// The connection has ended: perhaps long ago, unnoticed, because the server closes those that rest. Once more on
    /// another one; all that is said here may be said twice.
    fn is_to_be_said_again<T>(
        &self,
        answer: &Result<T, RedisError>,
        generation: u64,
        is_again: &mut bool,
    ) -> bool {
        let has_ended = answer
            .as_ref()
            .is_err_and(RedisError::is_unrecoverable_error);
        if !has_ended || std::mem::replace(is_again, true) {
            return false;
        }
        self.discard(Some(generation));
        true
    }

    /// Some errors are about the connection rather than the command.
    fn heed(&self, error: &RedisError) {
        if error.kind() == RedisKind::Server(ServerErrorKind::ReadOnly) {
            self.leads_to_replica();
        }
    }

    /// `false`: it belongs to a moment that is counted already.
    fn count_failure(&self, error: &dyn std::fmt::Display, began: Instant) -> bool {
        let (began, now) = (began.into_std(), Instant::now().into_std());
        let verdict = self.breaker.failed(began, now);
        if verdict == Verdict::Opened {
            tracing::warn!(
                server = %self.dialer,
                pause_ms = self.options.breaker_pause.as_millis() as u64,
                %error,
                "calls fail repeatedly; resting before the next try"
            );
        }
        verdict != Verdict::SameMoment
    }

    async fn connection(self: &Arc<Self>, lane: Lane) -> Result<Connection, RedisError> {
        let (mut dialled, to_dial) = {
            let mut slot = self.slot(lane);
            let now = Instant::now();
            match &*slot {
                Slot::Up(connection) => return Ok(connection.clone()),
                Slot::Dialling { since, dialled } if !self.has_stalled(*since, now) => {
                    (dialled.clone(), None)
                }
                Slot::Empty | Slot::Dialling { .. } => {
                    let (sender, dialled) = watch::channel(None);
                    *slot = Slot::Dialling {
                        since: now,
                        dialled: dialled.clone(),
                    };
                    (dialled, Some(sender))
                }
            }
        };
        if let Some(sender) = to_dial {
            let (link, own) = (self.clone(), dialled.clone());
            let lost = move || link.end_dialling(lane, &own, Slot::Empty);
            spawn_or(self.clone().dial(lane, sender, dialled.clone()), lost);
        }
        // Boxed: calls should not carry the size of what they rarely need.
        match Box::pin(dialled.wait_for(Option::is_some)).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(dialling_ended())),
            Err(_) => Err(dialling_ended()),
        }
    }

    async fn dial(
        self: Arc<Self>,
        lane: Lane,
        done: watch::Sender<Option<Result<Connection, RedisError>>>,
        own: Dialled,
    ) {
        let purpose = match lane {
            Lane::Shared => "shared",
            Lane::Bulk => "bulk",
        };
        let outcome = self.dialer.dial(&self.options, purpose).await;
        let outcome = outcome.map(|connection| Connection {
            generation: next_generation(),
            since: Instant::now(),
            line: Line {
                connection,
                runtime: Handle::current(),
            },
        });
        let slot = match &outcome {
            Ok(connection) => Slot::Up(connection.clone()),
            Err(_) => Slot::Empty,
        };
        self.end_dialling(lane, &own, slot);
        // There may be no caller that waits any more, which is fine: the slot has it.
        let _ = done.send(Some(outcome));
    }

    /// What became of dialling, unless it was given up.
    fn end_dialling(&self, lane: Lane, own: &Dialled, end: Slot) {
        let mut slot = self.slot(lane);
        if !matches!(&*slot, Slot::Dialling { dialled, .. } if dialled.same_channel(own)) {
            return;
        }
        if let (Lane::Shared, Slot::Up(connection)) = (lane, &end) {
            self.idle.begin(connection.generation);
        }
        *slot = end;
    }

    /// Dialling ends in time; if it does not, its runtime does not run.
    fn has_stalled(&self, since: Instant, now: Instant) -> bool {
        const GRACE: Duration = Duration::from_secs(1);
        now.saturating_duration_since(since) > self.options.connect_timeout.saturating_add(GRACE)
    }

    /// The primary has become a replica: behind a Sentinel, dialling again finds its successor. The next call does.
    pub(super) fn leads_to_replica(&self) {
        for lane in [Lane::Shared, Lane::Bulk] {
            let mut slot = self.slot(lane);
            if matches!(&*slot, Slot::Up(connection) if connection.since.elapsed() >= REPLICA_REDIAL)
            {
                self.empty(lane, &mut slot);
            }
        }
    }

    fn discard(&self, generation: Option<u64>) {
        for lane in [Lane::Shared, Lane::Bulk] {
            let mut slot = self.slot(lane);
            if matches!(&*slot, Slot::Up(connection) if Some(connection.generation) == generation) {
                self.empty(lane, &mut slot);
            }
        }
    }

    /// Gives the connection of this slot up. Calls under way on it may still end.
    fn empty(&self, lane: Lane, slot: &mut Slot) {
        *slot = Slot::Empty;
        if lane == Lane::Shared {
            self.idle.end();
        }
    }

    /// Never held across an await; a poisoned slot is still a slot.
    fn slot(&self, lane: Lane) -> MutexGuard<'_, Slot> {
        let slot = match lane {
            Lane::Shared => &self.shared,
            Lane::Bulk => &self.bulk,
        };
        slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a call that begins now has to have its answer. A deadline beyond the end of time is one in thirty years.
fn end_of(deadline: Duration, now: Instant) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    now.checked_add(deadline).unwrap_or_else(|| now + FAR)
}

fn next_generation() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

fn dialling_ended() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::NotConnected).into()
}

#[cfg(test)]
mod tests;
