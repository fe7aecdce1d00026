//! Waiting for another process's fill: a message tells the caller where one can be had, and the caller looks again by
//! itself.
//!
//! One connection that listens for each room in which a caller waits; no caller waits inside the server. A message may
//! be lost, so it only shortens a wait: a caller that is not told looks again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::Wire;
use crate::{Error, background::spawn_or};

/// How long to the next look where messages come.
const LOOK_LISTENING: Duration = Duration::from_secs(1);

/// How long to the first look where none come, and to each later one at most.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(100);

/// How long the connection stays open after the last caller has stopped waiting.
const IDLE: Duration = Duration::from_secs(30);

/// How long after a failure to listen again.
const PAUSE: Duration = Duration::from_millis(250);

/// Those of one process who wait in one room.
#[derive(Default)]
pub(super) struct Waking {
    state: Mutex<Waiters>,
}

#[derive(Default)]
struct Waiters {
    waiting: HashMap<Bytes, (Arc<Notify>, usize)>,
    /// Whether the task runs that listens.
    running: bool,
    /// Whether it listens at this moment.
    listening: bool,
    /// It was said that it may not.
    has_complained: bool,
}

/// One who waits; told from the moment it is made.
pub(super) struct Waiter {
    waking: Arc<Waking>,
    key: Bytes,
    told: Arc<Notify>,
    look: Duration,
}

impl Waking {
    /// Begins to wait: what happens from now on is told.
    pub(super) fn wait(
        self: &Arc<Self>,
        wire: &Wire,
        place: &[u8],
        channel: Bytes,
        key: &[u8],
    ) -> Waiter {
        let key = Bytes::copy_from_slice(key);
        let mut state = self.lock();
        let (told, waiting) = state.waiting.entry(key.clone()).or_default();
        *waiting += 1;
        let told = told.clone();
        let is_running = std::mem::replace(&mut state.running, true);
        drop(state);
        if !is_running {
            let (waking, place) = (self.clone(), Bytes::copy_from_slice(place));
            let lost = move || {
                let mut state = waking.lock();
                (state.running, state.listening) = (false, false);
            };
            spawn_or(listen(self.clone(), wire.clone(), place, channel), lost);
        }
        Waiter {
            waking: self.clone(),
            key,
            told,
            look: LOOK_FIRST,
        }
    }

    fn tell(&self, key: &[u8]) {
        if let Some((told, _)) = self.lock().waiting.get(key) {
            told.notify_waiters();
        }
    }

    fn tell_all(&self) {
        for (told, _) in self.lock().waiting.values() {
            told.notify_waiters();
        }
    }

    fn complain(&self, channel: &[u8], error: Error) {
        if error.is_refused() && !std::mem::replace(&mut self.lock().has_complained, true) {
            let channel = channel.escape_ascii();
            tracing::warn!(
                %channel,
                %error,
                "callers who wait for another process's fill look again and again, up to every 5 ms: the cache's user needs \
                 this channel (said once)"
            );
        } else {
            tracing::debug!(%error, "no messages of fills; looking again by ourselves");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// A future that is told of everything from now on; made before the server is asked.
    pub(super) fn told(&self) -> tokio::sync::futures::OwnedNotified {
        self.told.clone().notified_owned()
    }

    /// How long to the next look, if nothing is told.
    pub(super) fn next_look(&mut self) -> Duration {
        if self.waking.lock().listening {
            return LOOK_LISTENING;
        }
        let look = self.look;
        self.look = (look * 2).min(LOOK_MAX);
        look
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.waking.lock();
        if let Some((_, waiting)) = state.waiting.get_mut(&self.key) {
            *waiting -= 1;
            if *waiting == 0 {
                state.waiting.remove(&self.key);
            }
        }
    }
}

/// Runs while a caller waits, and a while longer.
async fn listen(waking: Arc<Waking>, wire: Wire, place: Bytes, channel: Bytes) {
    loop {
        match wire.subscribe(&place, &channel).await {
            Ok(subscription) => {
                let mut messages = subscription.into_on_message();
                waking.lock().listening = true;
                // What was said before is not known.
                waking.tell_all();
                loop {
                    match timeout(IDLE, messages.next()).await {
                        Ok(Some(message)) => waking.tell(message.get_payload_bytes()),
                        Ok(None) => break,
                        Err(_) if waking.lock().waiting.is_empty() => break,
                        Err(_) => {}
                    }
                }
            }
            Err(error) => waking.complain(&channel, error),
        }
        {
            let mut state = waking.lock();
            state.listening = false;
            if state.waiting.is_empty() {
                state.running = false;
                return;
            }
        }
        sleep(PAUSE).await;
    }
}
