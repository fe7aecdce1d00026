//! Where an outbox is: in a schema that is its alone, in the server that its positions speak of.
//!
//! Owns these two questions and what follows from the answers. It must not make anything of an outbox.

use tokio_postgres::Transaction;

use super::error::PostgresError;
use super::layout::{SYSTEM, TABLES};
use super::outbox::Outbox;
use super::sql::identifier;

impl Outbox {
    /// Whether the schema holds nothing but an outbox: what is in it goes with it.
    pub(super) async fn is_alone(&self, work: &Transaction<'_>) -> Result<(), PostgresError> {
        let failed = || PostgresError::sql("looking at the schema of the outbox");
        let found = work
            .query_opt(
                "SELECT format('%I.%I', n.nspname, c.relname)
                 FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                 WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname <> ALL ($2::text[])
                 ORDER BY 1 LIMIT 1",
                &[&self.schema, &TABLES.as_slice()],
            )
            .await
            .map_err(failed())?;
        match found {
            None => Ok(()),
            Some(row) => Err(PostgresError::Shared {
                schema: self.schema.clone(),
                found: row.try_get(0).map_err(failed())?,
            }),
        }
    }

    /// Begins anew where a dump was restored in another server: its transactions have other numbers, so positions and
    /// rows of the outbox mean nothing there. Every consumer clears everything it has, for nothing was captured while
    /// the data was loaded.
    pub(super) async fn settle_in(&self, work: &Transaction<'_>) -> Result<bool, PostgresError> {
        let schema = identifier(&self.schema);
        let moved = work
            .execute(
                &format!("UPDATE {schema}.layout SET system = {SYSTEM} WHERE system <> {SYSTEM}"),
                &[],
            )
            .await
            .map_err(PostgresError::sql("finding out which server this is"))?;
        if moved > 0 {
            work.batch_execute(&format!(
                "DELETE FROM {schema}.outbox;
                 UPDATE {schema}.position SET acknowledged = pg_current_snapshot(), clear = true"
            ))
            .await
            .map_err(PostgresError::sql("beginning anew in another server"))?;
        }
        Ok(moved > 0)
    }
}
