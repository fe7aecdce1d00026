//! One connection of an outbox source, and what wakes it.
//!
//! Owns connecting, the session's settings and the prepared statements. It must not know what becomes of the rows.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config, Socket, Statement};

use mcache::change::BoxFuture;

use super::error::PostgresError;
use super::layout::{Layout, SYSTEM};
use super::pooler::shares_sessions;
use super::settings::Settings;
use super::sql::identifier;
use super::timing::in_time;

/// A connection whose notifications wake a task.
pub(super) struct Link {
    pub(super) client: Client,
    /// What its session is to be set to.
    settings: Settings,
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
    let settings = Settings::of_connection(config.get_options());
    Arc::new(move |wake| {
        let (config, tls, settings) = (config.clone(), tls.clone(), settings.clone());
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
                        // The next user of the client is told; waking them makes that now.
                        Some(Err(_)) | None => return wake.notify_one(),
                    }
                }
            });
            Ok(Link {
                client,
                settings,
                driver,
            })
        })
    })
}

/// A connection that listens for one consumer, with every statement its source needs.
pub(super) struct Session {
    pub(super) link: Link,
    /// The consumer's number in this database.
    pub(super) consumer: i32,
    /// Whether commits wake us.
    pub(super) notified: bool,
    pub(super) lease: Statement,
    pub(super) stay_awake: Statement,
    pub(super) begin: Statement,
    pub(super) cleared: Statement,
    pub(super) count: Statement,
    pub(super) read: Statement,
    /// The same without what an application wrote. Not prepared: it is hardly ever needed.
    pub(super) read_bare: String,
    pub(super) acknowledge: Statement,
    pub(super) delete: Statement,
    pub(super) look: Statement,
    pub(super) sweep: Statement,
}

/// What a source is called and where.
pub(super) struct Asks<'a> {
    pub(super) schema: &'a str,
    /// The consumer.
    pub(super) name: &'a str,
}

impl Session {
    /// A session of a consumer that is registered; `None` if it is not, or not any more, or with another server.
    pub(super) async fn open(
        connect: &Connect,
        wake: Arc<Notify>,
        asks: &Asks<'_>,
    ) -> Result<Option<Self>, PostgresError> {
        let link = connect(wake).await?;
        let bare = asks.schema;
        let schema = identifier(bare);
        {
            let second = connect(Arc::new(Notify::new())).await?;
            if shares_sessions(&link.client, &second.client).await? {
                return Err(PostgresError::Pooler {
                    what: "an outbox source",
                    advice: "connect it to PostgreSQL directly, or to a pool with pool_mode = session",
                });
            }
        }
        // Acknowledging need not wait for the disk: a row that comes back after a crash is invalidated once more.
        let settings = link.settings.clone();
        settings
            .with("synchronous_commit", "off")
            .with("statement_timeout", "10s")
            // As serializable ones, these statements would have those of writers fail.
            .with("default_transaction_isolation", "read committed")
            // An outbox is empty or full of dead rows, never what statistics say. Only a plain scan of the index leaves
            // out next time what it found dead; a scan of the table or of a bitmap walks over it until vacuum comes.
            .with("enable_seqscan", "off")
            .with("enable_bitmapscan", "off")
            .with("plan_cache_mode", "force_generic_plan")
            // What is switched off above counts as enormously expensive, and that as worth compiling.
            .with("jit", "off")
            // Every name in our statements says its schema; names of tables are written as text under this path, too.
            .with("search_path", "pg_catalog, pg_temp")
            .hold(&link.client)
            .await?;
        let found = in_time(
            "looking for the consumer",
            link.client.query_opt(
                &format!(
                    "SELECT c.id, l.awake_until < 'infinity'
                     FROM {schema}.consumer AS c JOIN {schema}.lease AS l ON l.consumer = c.id
                     WHERE c.name = $1 AND c.expired_at IS NULL AND {SYSTEM} = (SELECT system FROM {schema}.layout)"
                ),
                &[&asks.name],
            ),
        )
        .await?;
        let Some(found) = found else {
            return Ok(None);
        };
        let failed = || PostgresError::sql("looking for the consumer");
        let consumer: i32 = found.try_get(0).map_err(failed())?;
        let notified: bool = found.try_get(1).map_err(failed())?;
        // From here on nothing is missed: LISTEN is committed before the first read.
        let listen = format!("LISTEN {}", identifier(&Layout::channel(bare, consumer)));
        in_time("listening", link.client.batch_execute(&listen)).await?;
        let prepare = |sql: String| {
            let client = &link.client;
            async move { in_time("preparing statements of the outbox", client.prepare(&sql)).await }
        };
        // The process with the lease is the one that reads. It passes on at once when the holder's connection is gone,
        // and after a while when the holder is stuck. A moment that is too far ahead was written before the clock of
        // the server was set back; here and below it counts for nothing.
        let lease = prepare(format!(
            "UPDATE {schema}.lease AS l
             SET holder = $1, pid = pg_backend_pid(), until = clock_timestamp() + $2::bigint * interval '1 millisecond'
             WHERE consumer = $3
               AND EXISTS (SELECT FROM {schema}.consumer AS c WHERE c.id = $3 AND c.expired_at IS NULL)
               AND (holder = $1 OR until < clock_timestamp()
                    OR until > clock_timestamp() + $2::bigint * interval '1 millisecond'
                    OR NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.pid = l.pid))"
        ))
        .await?;
        let stay_awake = prepare(format!(
            "UPDATE {schema}.lease SET awake_until = clock_timestamp() + $2::bigint * interval '1 millisecond'
             WHERE holder = $1 AND consumer = $3 AND awake_until < 'infinity'"
        ))
        .await?;
        let begin = prepare(format!(
            "SELECT p.acknowledged::text, p.clear, c.expired_at IS NOT NULL
             FROM {schema}.position AS p JOIN {schema}.consumer AS c ON c.id = p.consumer WHERE p.consumer = $1"
        ))
        .await?;
        let cleared = prepare(format!(
            "UPDATE {schema}.position SET clear = false WHERE consumer = $1"
        ))
        .await?;
        let concerns = "(relation = ANY ($2::text[]) OR (relation IS NULL AND (target IS NULL OR target = ANY ($3::text[]))))";
        // What is not behind a snapshot was written by the transactions that were open in it or by later ones. Both are
        // found by the index, however many dead rows an old transaction keeps in it.
        let count = prepare(format!(
            "SELECT (SELECT count(*) FROM (
                       (SELECT FROM {schema}.outbox WHERE xid = ANY ($1::text[]::xid8[]) AND {concerns} LIMIT $5)
                       UNION ALL
                       (SELECT FROM {schema}.outbox WHERE xid >= $4::text::xid8 AND {concerns} LIMIT $5)) AS few),
                    pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text"
        ))
        .await?;
        let read = prepare(read_statement(&schema, concerns, DESCRIBED)).await?;
        let read_bare = read_statement(&schema, concerns, BARE);
        let acknowledge = prepare(format!(
            "UPDATE {schema}.position SET acknowledged = $2::text::pg_snapshot
             WHERE consumer = $1 AND pg_snapshot_xmax(acknowledged) <= pg_snapshot_xmax($2::text::pg_snapshot)"
        ))
        .await?;
        // Each consumer tries to delete what it has acknowledged, after that is committed: the last one succeeds. What
        // the slowest has not acknowledged is not even looked at.
        let has_all = format!(
            "NOT EXISTS (
               SELECT FROM {schema}.position AS p JOIN {schema}.consumer AS c ON c.id = p.consumer
               WHERE c.expired_at IS NULL AND NOT pg_visible_in_snapshot(o.xid, p.acknowledged))"
        );
        let delete = prepare(format!(
            "DELETE FROM {schema}.outbox WHERE ctid = ANY (ARRAY(
               (SELECT o.ctid FROM {schema}.outbox AS o WHERE o.xid = ANY ($2::text[]::xid8[]) AND {has_all} LIMIT $4)
               UNION ALL
               (SELECT o.ctid FROM {schema}.outbox AS o
                WHERE o.xid >= $1::text::xid8 AND o.xid < least($3::text::xid8, ({slowest})) AND {has_all} LIMIT $4)))",
            slowest = Layout::slowest(bare),
        ))
        .await?;
        let due = |moment| {
            format!(
                "due AS (UPDATE {schema}.layout SET {moment} = clock_timestamp()
                         WHERE {moment} < clock_timestamp() - $1::bigint * interval '1 millisecond'
                            OR {moment} > clock_timestamp() RETURNING 1)"
            )
        };
        let look = prepare(format!(
            "WITH {due} SELECT l.changed, l.complete FROM due, LATERAL {schema}.look() AS l",
            due = due("looked_at"),
        ))
        .await?;
        let sweep = prepare(format!(
            "WITH {due} SELECT ARRAY(SELECT {schema}.expire()), {schema}.sweep($2) FROM due",
            due = due("swept_at"),
        ))
        .await?;
        Ok(Some(Self {
            link,
            consumer,
            notified,
            lease,
            stay_awake,
            begin,
            cleared,
            count,
            read,
            read_bare,
            acknowledge,
            delete,
            look,
            sweep,
        }))
    }
}

/// What a row of the outbox says of rows of a table.
const DESCRIBED: &str = "o.rows::text, o.trouble, o.columns, o.was, o.is_now";
const BARE: &str = "NULL::text, NULL::text, NULL::text[], NULL::text[], NULL::text[]";

/// Reads, in order, what is not behind a snapshot: open transactions $1, tables $2, own names $3; of later ones what is
/// beyond the row $4, $5: of transaction `xmax`, or of the page before; beyond the row $6, $7 of the page before, and
/// then only what the first page could have had: behind $8. At most $9 rows.
///
/// Where a scan of the index begins is said once: of several bounds it takes any, and walks over what is dead from
/// there.
///
/// The position in the log is taken after the snapshot, so it is beyond the commit of every row read.
fn read_statement(schema: &str, concerns: &str, described: &str) -> String {
    let wanted = format!(
        "{concerns} AND ($8::text IS NULL OR pg_visible_in_snapshot(xid, $8::text::pg_snapshot)) ORDER BY xid, id LIMIT $9"
    );
    format!(
        "SELECT s.snapshot, s.position, o.xid::text, o.id, o.relation, o.operation, {described},
                greatest(0, extract(epoch FROM clock_timestamp() - o.captured_at) * 1000)::bigint
         FROM (SELECT pg_current_snapshot()::text AS snapshot, pg_current_wal_insert_lsn()::text AS position) AS s
         LEFT JOIN LATERAL (
           SELECT * FROM (
             (SELECT * FROM {schema}.outbox
              WHERE xid = ANY ($1::text[]::xid8[]) AND (xid, id) > ($6::text::xid8, $7::bigint) AND {wanted})
             UNION ALL
             (SELECT * FROM {schema}.outbox WHERE (xid, id) > ($4::text::xid8, $5::bigint) AND {wanted})) AS pages
           ORDER BY xid, id LIMIT $9) AS o ON true
         ORDER BY o.xid, o.id"
    )
}
