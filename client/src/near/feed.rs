//! Following the primaries: one task that knows which there are, and one for each that asks what happened.
//!
//! A call of FEED is parked in the server until there is something to tell, for a third of the lease at most. One call
//! is under way at a time. One that takes too long is given up together with its connection, so its answer cannot come
//! later.

use std::collections::HashMap;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Near;
use super::cache::Origin;
use super::reads::Position;
use crate::background::spawn_or;
use crate::server::{FeedError, FeedLine, Node};

/// How often it is looked which primaries there are.
const LOOK: Duration = Duration::from_millis(200);

/// What a call asks to be parked for; the server cuts it to a third of the lease.
const WAIT: Duration = Duration::from_secs(2);

/// Pauses after a failure.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How long the server is given to be told that a subscription ends.
const PARTING: Duration = Duration::from_millis(500);

impl Near {
    /// Follows the primaries until the near cache is dropped or [ended](Self::end), or the runtime ends: then it has to
    /// be said again, on another one.
    #[inline]
    pub(crate) fn follow(self: &Arc<Self>) {
        if !self.follows.load(Relaxed) {
            self.follow_on_this_runtime();
        }
    }

    #[cold]
    fn follow_on_this_runtime(self: &Arc<Self>) {
        if *self.ending.borrow() || self.follows.swap(true, AcqRel) {
            return;
        }
        let (near, ending) = (Arc::downgrade(self), self.ending.subscribe());
        let lost = {
            let near = near.clone();
            move || {
                let Some(near) = near.upgrade() else { return };
                for origin in near.origins_now() {
                    near.drop_origin(&origin);
                }
                near.follows.store(false, Release);
            }
        };
        spawn_or(follow_all(near, ending), lost);
    }

    /// Serves nothing any more, and tells the servers, so that no invalidation waits for this process. Returns when
    /// they are told, or could not be.
    pub(crate) async fn end(&self) {
        self.ending.send_replace(true);
        // Each task holds a receiver until it has parted.
        let _ = timeout(PARTING * 2, self.ending.closed()).await;
    }
}

/// Starts and ends the tasks of single primaries.
async fn follow_all(near: Weak<Near>, mut ending: watch::Receiver<bool>) {
    let mut followed: HashMap<Node, (Arc<Origin>, JoinHandle<()>)> = HashMap::new();
    loop {
        {
            let Some(near) = near.upgrade() else { break };
            if let Ok(nodes) = near.redis.nodes().await {
                followed.retain(|node, (origin, task)| {
                    let stays = nodes.contains(node);
                    if !stays {
                        task.abort();
                        near.drop_origin(origin);
                    }
                    stays
                });
                for node in nodes {
                    followed.entry(node.clone()).or_insert_with(|| {
                        let origin = near.add_origin(&node);
                        let task = follow_one(
                            Arc::downgrade(&near),
                            node,
                            origin.clone(),
                            near.ending.subscribe(),
                        );
                        (origin, tokio::spawn(task))
                    });
                }
            }
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            _ = ending.wait_for(|ending| *ending) => break,
        }
    }
    for (_, (_, task)) in followed {
        let _ = task.await;
    }
}

/// How a connection came to its end.
enum Ended {
    /// The near cache is gone, or says so.
    Near,
    Failed,
    Refused,
}

/// Asks one primary, over one connection after the other.
async fn follow_one(
    near: Weak<Near>,
    node: Node,
    origin: Arc<Origin>,
    mut ending: watch::Receiver<bool>,
) {
    let mut pause = PAUSE_MIN;
    loop {
        let Some(redis) = near.upgrade().map(|near| near.redis.clone()) else {
            return;
        };
        let dialled = tokio::select! {
            dialled = redis.feed_line(&node) => dialled,
            _ = ending.wait_for(|ending| *ending) => break,
        };
        let ended = match dialled {
            Ok(mut line) => {
                let mut position = None;
                let (ended, answered) =
                    ask_on(&near, &origin, &mut line, &mut position, &mut ending).await;
                if let Ended::Near = ended {
                    // Nothing is served before the server is told that it need not wait for us.
                    if let Some(near) = near.upgrade() {
                        near.forget(&origin);
                    }
                    // On another connection: on this one a call is parked.
                    drop(line);
                    if let Some(position) = position {
                        let _ = timeout(PARTING, redis.end_feed(&node, &position)).await;
                    }
                    return;
                }
                if answered {
                    pause = PAUSE_MIN;
                }
                ended
            }
            Err(error) => {
                tracing::debug!(server = %node, %error, "the feed cannot be reached");
                Ended::Failed
            }
        };
        if let (Ended::Failed | Ended::Refused, Some(near)) = (ended, near.upgrade()) {
            // There may be another primary by now.
            near.redis.look_again();
            near.tell_lease();
        }
        tokio::select! {
            () = sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)) => {}
            _ = ending.wait_for(|ending| *ending) => break,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
    if let Some(near) = near.upgrade() {
        near.forget(&origin);
    }
}

/// Asks again and again; `true`: it was answered at least once.
async fn ask_on(
    near: &Weak<Near>,
    origin: &Arc<Origin>,
    line: &mut FeedLine,
    position: &mut Option<Position>,
    ending: &mut watch::Receiver<bool>,
) -> (Ended, bool) {
    let mut answered = false;
    loop {
        let (sent, prefix) = {
            let Some(near) = near.upgrade() else {
                return (Ended::Near, answered);
            };
            let Some(sent) = near.call(origin) else {
                return (Ended::Near, answered);
            };
            (sent, near.prefix.clone())
        };
        let answer = tokio::select! {
            answer = line.ask(sent.position.as_deref(), WAIT, &prefix) => answer,
            _ = ending.wait_for(|ending| *ending) => return (Ended::Near, answered),
        };
        let Some(near) = near.upgrade() else {
            return (Ended::Near, answered);
        };
        match answer {
            Ok(answer) => {
                *position = Some(answer.position.clone());
                answered = true;
                near.answered(origin, &sent, answer);
            }
            Err(FeedError::Refused(refusal)) => {
                if near.refused(origin, Some(&refusal)) {
                    tracing::warn!(
                        server = %origin.node,
                        %refusal,
                        "the near cache keeps nothing from this server: no lease is granted"
                    );
                }
                return (Ended::Refused, answered);
            }
            Err(FeedError::Broken(error)) => {
                tracing::debug!(server = %origin.node, %error, "the feed is asked on another connection");
                return (Ended::Failed, answered);
            }
        }
    }
}

#[cfg(test)]
mod tests;
