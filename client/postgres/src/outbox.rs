//! The handle an application holds: what an outbox is like, and what can be asked of it.
//!
//! Owns options and reports. How it comes into the database is in `install.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Socket, Transaction};

use super::consumer::{self, ConsumerName, ConsumerStatus};
use super::error::PostgresError;
use super::install::Past;
use super::keys::{WeakKey, weak_keys};
use super::layout::Layout;
use super::mapping::Mapping;
use super::patience::{LOCK_TIMEOUT, Task};
use super::session::connector;
use super::sql::{IDENTIFIER_BYTES_MAX, identifier};

/// The outbox: a table into which triggers write every change of the mapped tables, in the transaction that makes it.
///
/// ```no_run
/// # async fn f(
/// #     mapping: std::sync::Arc<mcache_postgres::Mapping>,
/// #     graph: mcache_graph::Graph,
/// #     cache: mcache::Cache,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use mcache::change::Invalidator;
/// use mcache_postgres::Outbox;
/// use tokio_postgres::{Config, NoTls};
///
/// let database: Config = "host=/run/postgresql dbname=shop".parse()?;
/// let outbox = Outbox::new(mapping, &cache);
/// outbox.install_with(database.clone(), NoTls).await?;
/// let invalidator = Invalidator::builder(outbox.source(database, NoTls), graph.change_tags())
///     .targets(cache.invalidation_targets())
///     .spawn();
/// # Ok(())
/// # }
/// ```
///
/// Any number of services, releases, namespaces and tenants share one: each is a [consumer](ConsumerName) with its own
/// acknowledgement, its own lease among its processes and its own lag. What is captured is what all of them need
/// together.
#[derive(Clone, Debug)]
pub struct Outbox {
    pub(super) mapping: Arc<Mapping>,
    pub(super) schema: String,
    pub(super) consumer: ConsumerName,
    pub(super) notify: bool,
    pub(super) logged: bool,
    pub(super) hold: Duration,
    pub(super) rows_max: i64,
    pub(super) bytes_max: i64,
}

/// What waits in an outbox.
///
/// ```no_run
/// # use tokio_postgres::Client;
/// # async fn f(outbox: mcache_postgres::Outbox, client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let status = outbox.status(&client).await?;
/// println!("{} waiting, the oldest for {} ms", status.events, status.oldest_ms);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxStatus {
    /// Statements whose changes are not yet acknowledged by every consumer.
    pub events: i64,
    /// Age of the oldest in milliseconds, zero if there is none.
    pub oldest_ms: i64,
    /// Every consumer that ever registered, by name.
    pub consumers: Vec<ConsumerStatus>,
    /// Tables whose changes are not all captured: a trigger is missing or disabled. Run [`Outbox::install`].
    pub uncaptured: Vec<String>,
    /// Keys of this mapping that the database does not keep.
    pub weak_keys: Vec<WeakKey>,
}

/// What [`Outbox::prune`] has done.
///
/// ```no_run
/// # use tokio_postgres::Client;
/// # async fn f(outbox: mcache_postgres::Outbox, mut client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let pruned = outbox.prune(&mut client).await?;
/// println!("no consumer needs {:?} any more", pruned.released);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Consumers that were found to be absent for too long.
    pub expired: Vec<String>,
    /// Rows that were deleted because every consumer had acknowledged them.
    pub rows: i64,
    /// Tables that no consumer needs any more: their triggers are gone.
    pub released: Vec<String>,
    /// Tables of which less is captured now.
    pub narrowed: Vec<String>,
}

impl Outbox {
    /// An outbox for everything in the mapping, read by one consumer: a cache, or a name that stands for one.
    pub fn new(mapping: Arc<Mapping>, consumer: impl Into<ConsumerName>) -> Self {
        Self {
            mapping,
            schema: "mcache".to_owned(),
            consumer: consumer.into(),
            notify: true,
            logged: true,
            hold: Duration::from_secs(24 * 60 * 60),
            rows_max: 1_000,
            bytes_max: 256 * 1024,
        }
    }

    /// The database schema the outbox is in, and the channel it notifies. It must be its alone. Default: `mcache`.
    #[must_use]
    pub fn schema(mut self, schema: &str) -> Self {
        schema.clone_into(&mut self.schema);
        self
    }

    /// Whether a commit wakes a source that is asleep by `NOTIFY`. Default: yes.
    ///
    /// Say no where two-phase commit is used, which refuses `NOTIFY`: sources then look every few milliseconds, always
    /// and not only while there is much to do. If one consumer of a database says no, no commit notifies.
    #[must_use]
    pub fn notify(mut self, notify: bool) -> Self {
        self.notify = notify;
        self
    }

    /// Makes the outbox of tables that are not written to the log: cheaper for writers, and left out of publications,
    /// `FOR ALL TABLES` ones too. After a crash or a failover such an outbox is empty; every consumer then clears
    /// everything it has. Default: logged. What exists already stays as it is.
    #[must_use]
    pub fn unlogged(mut self) -> Self {
        self.logged = false;
        self
    }

    /// For how long changes wait for this consumer when none of its processes is there. Then it is expired, and holds
    /// no rows any more; when it comes back, it clears everything it has. Default: 24 hours.
    #[must_use]
    pub fn hold(mut self, time: Duration) -> Self {
        self.hold = time;
        self
    }

    /// How many rows one statement may change before its event names the whole entity instead of rows. Default: 1,000.
    /// Of several consumers the most counts.
    #[must_use]
    pub fn rows_max(mut self, rows: u32) -> Self {
        self.rows_max = i64::from(rows);
        self
    }

    /// How many bytes the old and new values of one statement may have before only the ids are kept. Default: 256 KiB.
    /// Of several consumers the most counts.
    #[must_use]
    pub fn bytes_max(mut self, bytes: u32) -> Self {
        self.bytes_max = i64::from(bytes);
        self
    }

    /// The name of this consumer in this release, as [`status`](Self::status) shows it.
    pub fn consumer_name(&self) -> String {
        self.consumer.of_release(&self.mapping)
    }

    pub(super) fn layout(&self) -> Layout<'_> {
        Layout {
            schema: &self.schema,
            logged: self.logged,
        }
    }

    /// Makes the outbox and the triggers, or brings them up to date with the mapping and these options.
    ///
    /// Run it at each start and after each migration: what is already right is left alone, and only a table that lacks
    /// a trigger is locked, against writers and for as long as that takes. While a transaction of others holds one of
    /// them it waits a fifth of a second for it, then gives back all it has locked, rests as long, and begins again; it
    /// gives up after twenty-five times. It needs the right to create a schema, and to be the owner of the mapped
    /// tables.
    ///
    /// # Errors
    ///
    /// [`PostgresError::Mismatch`] if a mapped table or column does not exist, [`PostgresError::Shared`] if the schema
    /// of the outbox holds tables of others; nothing is changed then, as with every other error.
    pub async fn install(&self, client: &mut Client) -> Result<(), PostgresError> {
        self.install_after(client, Past::Known).await
    }

    pub(super) async fn install_after(
        &self,
        client: &mut Client,
        past: Past,
    ) -> Result<(), PostgresError> {
        if self.schema.is_empty() || self.schema.len() > IDENTIFIER_BYTES_MAX {
            return Err(PostgresError::Identifier {
                name: self.schema.clone(),
            });
        }
        self.patiently(client, Task::Install(past)).await?;
        Ok(())
    }

    /// As [`install`](Self::install), over a connection that is made for it.
    ///
    /// # Errors
    ///
    /// As [`install`](Self::install).
    pub async fn install_with<T>(&self, config: Config, tls: T) -> Result<(), PostgresError>
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let mut link = connector(config, tls)(Arc::default()).await?;
        self.install(&mut link.client).await
    }

    /// Takes the triggers and the outbox out of the database, with what waits in it.
    ///
    /// # Errors
    ///
    /// [`PostgresError::Shared`] if its schema holds tables or views of others, which would go with it; when the
    /// database refuses. Nothing is changed then.
    pub async fn uninstall(&self, client: &mut Client) -> Result<(), PostgresError> {
        self.patiently(client, Task::Uninstall).await?;
        Ok(())
    }

    pub(super) async fn uninstall_in(&self, work: &Transaction<'_>) -> Result<(), PostgresError> {
        let failed = || PostgresError::sql("removing the outbox");
        self.is_alone(work).await?;
        work.batch_execute(&format!(
            "SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; SET LOCAL client_min_messages = 'warning'"
        ))
        .await
        .map_err(failed())?;
        self.keep_all_out(work).await?;
        // The triggers go with the functions they call.
        work.batch_execute(&format!(
            "DROP SCHEMA IF EXISTS {} CASCADE",
            identifier(&self.schema)
        ))
        .await
        .map_err(failed())
    }

    /// What waits to be invalidated, for whom: worth an alarm when it grows, for then no invalidator is running.
    ///
    /// # Errors
    ///
    /// When the outbox is not installed or cannot be read.
    pub async fn status(&self, client: &Client) -> Result<OutboxStatus, PostgresError> {
        let failed = || PostgresError::sql("reading the outbox");
        let schema = identifier(&self.schema);
        let row = client
            .query_one(
                &format!(
                    "SELECT count(*), coalesce(floor(extract(epoch FROM
                       clock_timestamp() - min(captured_at)) * 1000), 0)::bigint,
                       ARRAY(SELECT relation FROM {schema}.seen WHERE NOT captured ORDER BY 1)
                     FROM {schema}.outbox"
                ),
                &[],
            )
            .await
            .map_err(failed())?;
        Ok(OutboxStatus {
            events: row.try_get(0).map_err(failed())?,
            oldest_ms: row.try_get(1).map_err(failed())?,
            uncaptured: row.try_get(2).map_err(failed())?,
            consumers: consumer::statuses(client, &self.schema).await?,
            weak_keys: weak_keys(client, &self.mapping).await?,
        })
    }
}
