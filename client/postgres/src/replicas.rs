//! How far read replicas have come.
//!
//! Owns one watcher for all replicas an application reads from. It looks only while a caller waits, and it must not
//! know for what.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use mcache::change::Backoff;

use super::error::PostgresError;
use super::session::{Connect, Link};
use super::timing::in_time;

/// Between two looks at a replica that is behind.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A position in the write-ahead log.
pub(super) type Position = u64;

/// Reads `16/B374D848`.
pub(super) fn position(text: &str) -> Option<Position> {
    let (high, low) = text.split_once('/')?;
    let part = |digits| u64::from_str_radix(digits, 16).ok();
    Some(part(high)? << 32 | part(low)?)
}

/// Watches replicas.
pub(super) struct Replicas {
    wanted: Arc<AtomicU64>,
    wanted_more: Arc<Notify>,
    replayed: watch::Receiver<Position>,
    watcher: JoinHandle<()>,
}

impl Replicas {
    pub(super) fn watch(replicas: Vec<Connect>) -> Self {
        let wanted = Arc::new(AtomicU64::new(0));
        let wanted_more = Arc::new(Notify::new());
        let (publish, replayed) = watch::channel(0);
        let watcher = tokio::spawn(run(replicas, wanted.clone(), wanted_more.clone(), publish));
        Self {
            wanted,
            wanted_more,
            replayed,
            watcher,
        }
    }

    /// Ends when every replica has replayed the log up to `position`. A replica that cannot be asked is waited for: it
    /// may be behind and in use all the same.
    pub(super) fn reached(&self, position: Position) -> impl Future<Output = ()> + Send + 'static {
        self.wanted.fetch_max(position, Ordering::AcqRel);
        self.wanted_more.notify_one();
        let mut replayed = self.replayed.clone();
        async move {
            // Fails only when the watcher is gone, and with it the source that wanted to know.
            let _ = replayed.wait_for(|&replayed| replayed >= position).await;
        }
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

async fn run(
    replicas: Vec<Connect>,
    wanted: Arc<AtomicU64>,
    wanted_more: Arc<Notify>,
    publish: watch::Sender<Position>,
) {
    let mut links: Vec<Option<Link>> = replicas.iter().map(|_| None).collect();
    let mut backoff = Backoff::new(LOOK_EVERY, Duration::from_secs(2));
    loop {
        while *publish.borrow() >= wanted.load(Ordering::Acquire) {
            wanted_more.notified().await;
        }
        match least(&replicas, &mut links).await {
            Ok(position) => {
                backoff.reset();
                publish.send_replace(position);
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot ask a read replica how far it has come");
                tokio::time::sleep(backoff.after_failure(fastrand::f64())).await;
            }
        }
    }
}

/// How far the replica has come that is furthest behind.
async fn least(
    replicas: &[Connect],
    links: &mut [Option<Link>],
) -> Result<Position, PostgresError> {
    let mut least = Position::MAX;
    for (connect, slot) in replicas.iter().zip(links) {
        let link = match slot.take() {
            Some(link) => link,
            None => connect(Arc::new(Notify::new())).await?,
        };
        // A replica that was promoted has replayed all it ever will.
        let row = in_time(
            "asking a read replica how far it has come",
            link.client.query_one(
                "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text END",
                &[],
            ),
        )
        .await?;
        let replayed: Option<String> = row
            .try_get(0)
            .map_err(PostgresError::sql("reading a position in the log"))?;
        if let Some(replayed) = replayed {
            least = least.min(position(&replayed).unwrap_or(0));
        }
        *slot = Some(link);
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_ordered_as_the_log_is() {
        assert_eq!(position("16/B374D848"), Some(0x16_B374_D848));
        assert!(position("1/0") > position("0/FFFFFFFF"));
        assert_eq!(position("nonsense"), None);
    }
}
