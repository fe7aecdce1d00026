//! Waiting for the locks of others without standing in the way of those who wait behind.
//!
//! An installation locks tables one after the other, always in the same order, and keeps them all to its end: what it
//! makes must appear at once. A transaction that holds one of them for minutes would so keep writers out of all the
//! others. So it waits for each lock for a moment only; when it did not get one, it gives all back, lets the others
//! through and begins again.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use super::error::PostgresError;
use super::install::{Past, own_transaction};
use super::outbox::{Outbox, Pruned};

/// For how long it waits for one lock while it may hold others.
pub(super) const LOCK_TIMEOUT: &str = "200ms";
/// For how long it then holds nothing.
const REST: Duration = Duration::from_millis(200);
/// How often it tries.
const ATTEMPTS: u32 = 25;

/// What is done in one transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    Install(Past),
    Prune,
    Uninstall,
}

impl Task {
    fn doing(self) -> &'static str {
        match self {
            Task::Install(_) => "installing the outbox",
            Task::Prune => "pruning the outbox",
            Task::Uninstall => "removing the outbox",
        }
    }
}

impl Outbox {
    /// Does all of it, or changes nothing.
    pub(super) async fn patiently(
        &self,
        client: &mut Client,
        task: Task,
    ) -> Result<Pruned, PostgresError> {
        let doing = task.doing();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let failed = || PostgresError::sql(doing);
            let work = own_transaction(client).await.map_err(failed())?;
            match self.attempt(&work, task).await {
                Ok(done) => {
                    work.commit().await.map_err(failed())?;
                    return Ok(done);
                }
                Err(error) if error.is_locked_out() && attempts < ATTEMPTS => {
                    work.rollback().await.map_err(failed())?;
                    tracing::debug!(%error, attempts, "waiting for those who hold a lock");
                    tokio::time::sleep(REST).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt(&self, work: &Transaction<'_>, task: Task) -> Result<Pruned, PostgresError> {
        let nothing = |()| Pruned::default();
        match task {
            Task::Install(past) => self.install_in(work, past).await.map(nothing),
            Task::Prune => self.prune_in(work).await,
            Task::Uninstall => self.uninstall_in(work).await.map(nothing),
        }
    }
}

/// Whether the server refused because others hold a lock, which they will give back.
pub(super) fn is_locked_out(error: &tokio_postgres::Error) -> bool {
    let codes = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ];
    error.code().is_some_and(|code| codes.contains(code))
}
