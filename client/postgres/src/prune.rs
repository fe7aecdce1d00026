//! What is needed no more: absent consumers, acknowledged rows, what is captured for none.

use tokio_postgres::{Client, Transaction};

use super::capture::Capture;
use super::error::PostgresError;
use super::install::{Width, begin, one};
use super::outbox::{Outbox, Pruned};
use super::patience::Task;
use super::sql::identifier;

/// Rows deleted at a time.
pub(super) const SWEEP_ROWS: i64 = 10_000;

impl Outbox {
    /// Ends what consumers hold that are absent for too long, deletes what all others have acknowledged, and takes away
    /// what is captured for none: triggers of tables, and columns. Nothing else ever takes any of these away.
    ///
    /// Sources delete acknowledged rows and notice absent consumers by themselves; call this after a release has ended
    /// for good, or every night. What is left of an expired consumer is its name, by which it is known when it comes
    /// back.
    ///
    /// # Errors
    ///
    /// When the database refuses; nothing is changed then.
    pub async fn prune(&self, client: &mut Client) -> Result<Pruned, PostgresError> {
        self.patiently(client, Task::Prune).await
    }

    pub(super) async fn prune_in(&self, work: &Transaction<'_>) -> Result<Pruned, PostgresError> {
        let failed = || PostgresError::sql("pruning the outbox");
        let schema = identifier(&self.schema);
        begin(work).await?;
        let mut pruned = Pruned::default();
        let expired = work
            .query(&format!("SELECT {schema}.expire()"), &[])
            .await
            .map_err(failed())?;
        for row in &expired {
            pruned.expired.push(row.try_get(0).map_err(failed())?);
        }
        work.execute(
            &format!(
                "DELETE FROM {schema}.interest WHERE consumer IN (
                   SELECT id FROM {schema}.consumer WHERE expired_at IS NOT NULL)"
            ),
            &[],
        )
        .await
        .map_err(failed())?;
        self.install_wake(work).await?;
        let captured = work
            .query(
                &format!(
                    "SELECT c.relation, EXISTS (SELECT FROM {schema}.interest AS i WHERE i.relation = c.relation),
                       to_regclass(c.relation) IS NOT NULL
                     FROM {schema}.capture AS c ORDER BY 1"
                ),
                &[],
            )
            .await
            .map_err(failed())?;
        for row in &captured {
            let relation: String = row.try_get(0).map_err(failed())?;
            let (needed, exists): (bool, bool) = (
                row.try_get(1).map_err(failed())?,
                row.try_get(2).map_err(failed())?,
            );
            if needed && exists {
                if self
                    .install_capture(work, &relation, Width::AsNeeded)
                    .await?
                {
                    pruned.narrowed.push(relation);
                }
            } else if !needed {
                let function = identifier(&Capture::function_name(&relation));
                work.batch_execute(&format!(
                    "DROP FUNCTION IF EXISTS {schema}.{function}() CASCADE"
                ))
                .await
                .map_err(failed())?;
                for table in ["capture", "seen"] {
                    work.execute(
                        &format!("DELETE FROM {schema}.{table} WHERE relation = $1"),
                        &[&relation],
                    )
                    .await
                    .map_err(failed())?;
                }
                pruned.released.push(relation);
            }
        }
        loop {
            let rows: i64 = one(work, &format!("SELECT {schema}.sweep($1)"), &[&SWEEP_ROWS])
                .await
                .map_err(failed())?;
            pruned.rows += rows;
            if rows < SWEEP_ROWS {
                break;
            }
        }
        Ok(pruned)
    }
}
