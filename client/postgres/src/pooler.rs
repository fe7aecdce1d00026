//! Poolers between us and PostgreSQL.
//!
//! Owns finding out whether a session is ours alone. It must not know what the session is used for.
//!
//! A pooler in transaction mode gives each transaction any session that is free: settings, prepared statements and
//! `LISTEN` are lost or, worse, meet another program's work.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::error::PostgresError;
use super::session::in_time;

/// Whether the connection goes through a pooler that shares sessions.
///
/// The statements of a session are executed by one process of the server. Behind a pooler that shares sessions that
/// holds only while nothing else uses the pool. So a second connection, made in the same way, begins a transaction:
/// either it is given the process that was ours, or it takes it away.
pub(super) async fn shares_sessions(ours: &Client, second: &Client) -> Result<bool, PostgresError> {
    let before = process(ours, "SELECT pg_backend_pid()").await?;
    let Ok(theirs) = process(second, "BEGIN; SELECT pg_backend_pid()").await else {
        // A pooler that shares statements refuses to begin.
        return Ok(true);
    };
    let shared = before == theirs
        || match process(ours, "SELECT pg_backend_pid()").await {
            Ok(after) => after != before,
            // The only process there is is taken.
            Err(PostgresError::Timeout { .. }) => true,
            Err(error) => return Err(error),
        };
    // It is dropped in a moment, and the transaction with it.
    let _ = in_time("ending a transaction", second.batch_execute("ROLLBACK")).await;
    Ok(shared)
}

/// The process that executes a statement, which must not be a prepared one.
async fn process(client: &Client, sql: &str) -> Result<Option<String>, PostgresError> {
    let answer = in_time("looking for a pooler", client.simple_query(sql)).await?;
    let pid = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(pid)
}
