//! One connection of an outbox source, and what wakes it.
//!
//! Owns connecting, the session's settings and the prepared statements. It must not know what becomes of the rows.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config, Socket, Statement};

use mcache::change::BoxFuture;

use super::error::PostgresError;
use super::sql::identifier;

/// How long any one statement, or connecting, may take before the connection counts as broken.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection whose notifications wake somebody.
pub(super) struct Link {
    pub(super) client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        // Dropping the client would end it too, but only after what is queued was sent.
        self.driver.abort();
    }
}

/// Connects as configured; what TLS is made of stays behind this.
pub(super) type Connect =
    Arc<dyn Fn(Arc<Notify>) -> BoxFuture<'static, Result<Link, PostgresError>> + Send + Sync>;

/// A [`Connect`] for one server.
pub(super) fn connector<T>(mut config: Config, tls: T) -> Connect
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    if config.get_application_name().is_none() {
        config.application_name("mcache");
    }
    Arc::new(move |wake| {
        let (config, tls) = (config.clone(), tls.clone());
        Box::pin(async move {
            let (client, mut connection) = in_time("connecting", config.connect(tls)).await?;
            let driver = tokio::spawn(async move {
                loop {
                    match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                        Some(Ok(AsyncMessage::Notification(_))) => wake.notify_one(),
                        Some(Ok(AsyncMessage::Notice(notice))) => {
                            tracing::debug!(%notice, "PostgreSQL says");
                        }
                        Some(Ok(_)) => {}
                        // Whoever uses the client next is told; waking them makes that now.
                        Some(Err(_)) | None => return wake.notify_one(),
                    }
                }
            });
            Ok(Link { client, driver })
        })
    })
}

/// `work`, or an error that says what was being done.
pub(super) async fn in_time<T>(
    doing: &'static str,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, PostgresError> {
    match tokio::time::timeout(STATEMENT_TIMEOUT, pin!(work)).await {
        Ok(outcome) => outcome.map_err(PostgresError::sql(doing)),
        Err(_elapsed) => Err(PostgresError::Timeout { doing }),
    }
}

/// A connection that listens to an outbox, with every statement its source needs.
pub(super) struct Session {
    pub(super) link: Link,
    pub(super) lease: Statement,
    pub(super) stay_awake: Statement,
    pub(super) count: Statement,
    pub(super) read: Statement,
    pub(super) delete: Statement,
    pub(super) delete_before: Statement,
}

impl Session {
    pub(super) async fn open(
        connect: &Connect,
        wake: Arc<Notify>,
        schema: &str,
    ) -> Result<Self, PostgresError> {
        let link = connect(wake).await?;
        let schema = identifier(schema);
        // Acknowledging need not wait for the disk: a row that comes back after a crash is invalidated once more.
        // From here on nothing is missed: LISTEN is committed before the first read.
        let setup = format!(
            "SET synchronous_commit = off; SET statement_timeout = '10s'; SET timezone = 'UTC'; LISTEN {schema}"
        );
        in_time("listening", link.client.batch_execute(&setup)).await?;
        let prepare = |sql: String| {
            let client = &link.client;
            async move { in_time("preparing statements of the outbox", client.prepare(&sql)).await }
        };
        // Whoever holds the lease is the one who reads. It passes on at once when the holder's connection is gone, and
        // after a while when the holder is stuck.
        let lease = prepare(format!(
            "UPDATE {schema}.lease
             SET holder = $1, pid = pg_backend_pid(), until = clock_timestamp() + $2::bigint * interval '1 millisecond'
             WHERE holder = $1 OR until < clock_timestamp()
                OR NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.pid = lease.pid)"
        ))
        .await?;
        let stay_awake = prepare(format!(
            "UPDATE {schema}.lease SET awake_until = clock_timestamp() + $2::bigint * interval '1 millisecond'
             WHERE holder = $1"
        ))
        .await?;
        let count = prepare(format!(
            "SELECT (SELECT count(*) FROM (SELECT FROM {schema}.outbox LIMIT $1) AS few),
                    pg_current_snapshot()::text, pg_snapshot_xmin(pg_current_snapshot())::text,
                    pg_current_wal_insert_lsn()::text"
        ))
        .await?;
        // Transactions below `horizon` had all ended when the snapshot was taken: once everything visible in it is
        // read, nothing below can appear any more. The position in the log is taken after the snapshot, so it is
        // beyond the commit of every row read.
        let read = prepare(format!(
            "SELECT s.horizon, s.position, o.xid::text, o.id, o.entity, o.operation, o.rows::text, o.trouble,
                    greatest(0, extract(epoch FROM clock_timestamp() - o.captured_at) * 1000)::bigint
             FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS horizon,
                          pg_current_wal_insert_lsn()::text AS position) AS s
             LEFT JOIN LATERAL (
               SELECT * FROM {schema}.outbox
               WHERE xid >= $1::text::xid8 AND id <> ALL ($2::bigint[])
               ORDER BY xid, id LIMIT $3) AS o ON true"
        ))
        .await?;
        let delete = prepare(format!(
            "DELETE FROM {schema}.outbox AS o USING unnest($1::text[]::xid8[], $2::bigint[]) AS done (xid, id)
             WHERE o.xid = done.xid AND o.id = done.id"
        ))
        .await?;
        let delete_before = prepare(format!(
            "DELETE FROM {schema}.outbox WHERE (xid, id) IN (
               SELECT xid, id FROM {schema}.outbox WHERE pg_visible_in_snapshot(xid, $1::text::pg_snapshot)
               LIMIT 10000)"
        ))
        .await?;
        Ok(Self {
            link,
            lease,
            stay_awake,
            count,
            read,
            delete,
            delete_before,
        })
    }
}
