//! Putting the outbox and its triggers into a database, and taking them out.
//!
//! Owns the order and the safety of it: everything in one transaction, nothing twice, no table locked that need not be.
//! The SQL itself is in `capture.rs`.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Socket, Transaction};

use mcache_graph::Entity;

use super::capture::{Capture, LAYOUT, WAKE};
use super::error::{PostgresError, describe};
use super::mapping::{MappedTable, Mapping};
use super::session::connector;
use super::sql::{IDENTIFIER_BYTES_MAX, identifier};

/// Number of the oldest server that has everything: `xid8`, transition tables, `CREATE TRIGGER` semantics tested here.
const SERVER_VERSION_MIN: i32 = 140_000;

/// Lets one installation at a time run: "mcache" as a number.
const INSTALL_LOCK: i64 = 0x6d63_6163_6865;

/// The table a trigger is on, and its name.
type TriggerId = (u32, String);

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
/// let outbox = Outbox::new(mapping);
/// outbox.install_with(database.clone(), NoTls).await?;
/// let invalidator = Invalidator::builder(outbox.source(database, NoTls), graph.change_tags())
///     .targets(cache.invalidation_targets())
///     .spawn();
/// # Ok(())
/// # }
/// ```
///
/// Two caches that are to be invalidated independently of each other need an outbox each: give one of them another
/// [`schema`](Self::schema).
#[derive(Clone, Debug)]
pub struct Outbox {
    pub(super) mapping: Arc<Mapping>,
    pub(super) capture: Capture,
}

/// What waits in an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxStatus {
    /// Statements whose changes are not yet acknowledged as invalidated.
    pub events: i64,
    /// Age of the oldest in milliseconds, zero if there is none.
    pub oldest_ms: i64,
}

impl Outbox {
    /// An outbox for everything in the mapping.
    pub fn new(mapping: Arc<Mapping>) -> Self {
        Self {
            mapping,
            capture: Capture {
                schema: "mcache".to_owned(),
                notify: true,
                rows_max: 1_000,
                bytes_max: 256 * 1024,
            },
        }
    }

    /// The database schema the outbox is in, and the channel it notifies. Default: `mcache`.
    #[must_use]
    pub fn schema(mut self, schema: &str) -> Self {
        schema.clone_into(&mut self.capture.schema);
        self
    }

    /// Whether a commit wakes an invalidator that is asleep by `NOTIFY`. Default: yes.
    ///
    /// Say no where two-phase commit is used, which refuses `NOTIFY`: the source then looks every few milliseconds, always
    /// and not only while there is much to do.
    #[must_use]
    pub fn notify(mut self, notify: bool) -> Self {
        self.capture.notify = notify;
        self
    }

    /// How many rows one statement may change before its event names the whole entity instead of rows. Default: 1,000.
    #[must_use]
    pub fn rows_max(mut self, rows: usize) -> Self {
        self.capture.rows_max = rows;
        self
    }

    /// How many bytes the old and new values of one statement may have before only the ids are kept. Default: 256 KiB.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.capture.bytes_max = bytes;
        self
    }

    /// Makes the outbox and the triggers, or brings them up to date with the mapping and these options.
    ///
    /// Run it at each start and after each migration: what is already right is left alone, and only a table that lacks
    /// a trigger is locked (against writers, for as long as that takes; it gives up after five seconds of waiting for the
    /// lock). It needs the right to create a schema, and to be the owner of the mapped tables.
    ///
    /// # Errors
    ///
    /// [`PostgresError::Mismatch`] if a mapped table or column does not exist; nothing is changed then, as with every other
    /// error.
    pub async fn install(&self, client: &mut Client) -> Result<(), PostgresError> {
        let doing = PostgresError::sql("installing the outbox");
        if self.capture.schema.is_empty() || self.capture.schema.len() > IDENTIFIER_BYTES_MAX {
            return Err(PostgresError::Identifier {
                name: self.capture.schema.clone(),
            });
        }
        let work = client.transaction().await.map_err(doing)?;
        self.install_in(&work).await?;
        work.commit()
            .await
            .map_err(PostgresError::sql("installing the outbox"))
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

    async fn install_in(&self, work: &Transaction<'_>) -> Result<(), PostgresError> {
        let failed = || PostgresError::sql("installing the outbox");
        check_version(work).await?;
        work.execute("SELECT pg_advisory_xact_lock($1)", &[&INSTALL_LOCK])
            .await
            .map_err(failed())?;
        work.batch_execute(
            "SET LOCAL lock_timeout = '5s'; SET LOCAL client_min_messages = 'warning'",
        )
        .await
        .map_err(failed())?;
        work.batch_execute(&self.capture.tables())
            .await
            .map_err(failed())?;
        self.check_layout(work).await?;
        let mut wanted = HashSet::new();
        if self.capture.notify {
            wanted.insert(self.install_wake(work).await?);
        }
        for (entity, table) in self.mapping.entities() {
            probe(work, entity, table).await?;
            work.batch_execute(&self.capture.create_function(entity, table))
                .await
                .map_err(failed())?;
            wanted.extend(self.install_triggers(work, entity, table).await?);
        }
        self.drop_obsolete(work, &wanted).await
    }

    async fn check_layout(&self, work: &Transaction<'_>) -> Result<(), PostgresError> {
        let failed = || PostgresError::sql("reading the layout of the outbox");
        let layout = format!("{}.layout", identifier(&self.capture.schema));
        let found: i32 = work
            .query_one(
                &format!(
                    "INSERT INTO {layout} (version) VALUES ($1)
                     ON CONFLICT (one) DO UPDATE SET version = layout.version RETURNING version"
                ),
                &[&LAYOUT],
            )
            .await
            .and_then(|row| row.try_get(0))
            .map_err(failed())?;
        if found > LAYOUT {
            return Err(PostgresError::Newer {
                found,
                known: LAYOUT,
            });
        }
        Ok(())
    }

    /// Makes what wakes the invalidator at a commit.
    async fn install_wake(&self, work: &Transaction<'_>) -> Result<TriggerId, PostgresError> {
        let failed = || PostgresError::sql("making the trigger that wakes");
        work.batch_execute(&self.capture.create_wake_function())
            .await
            .map_err(failed())?;
        let outbox = format!("{}.outbox", identifier(&self.capture.schema));
        let oid: u32 = work
            .query_one("SELECT $1::text::regclass::oid", &[&outbox])
            .await
            .and_then(|row| row.try_get(0))
            .map_err(failed())?;
        if !self.has_trigger(work, oid, WAKE, WAKE).await? {
            work.batch_execute(&self.capture.create_wake_trigger())
                .await
                .map_err(failed())?;
        }
        Ok((oid, WAKE.to_owned()))
    }

    /// Makes the triggers that are missing on a table and on its partitions; returns what should be there.
    async fn install_triggers(
        &self,
        work: &Transaction<'_>,
        entity: &Entity,
        table: &MappedTable,
    ) -> Result<Vec<TriggerId>, PostgresError> {
        let failed = || PostgresError::sql("making triggers");
        // A statement fires the triggers of the table it names: for partitions written to directly, that is their own.
        let tables = work
            .query(
                "SELECT relid::oid, relid::regclass::text FROM pg_partition_tree($1::text::regclass)
                 UNION SELECT $1::text::regclass::oid, $1::text",
                &[&table.quoted],
            )
            .await
            .map_err(failed())?;
        let function = Capture::function_name(entity);
        let mut wanted = Vec::new();
        for row in &tables {
            let (oid, name): (u32, String) = (
                row.try_get(0).map_err(failed())?,
                row.try_get(1).map_err(failed())?,
            );
            for trigger in self.capture.triggers(entity) {
                if !self
                    .has_trigger(work, oid, &trigger.name, &function)
                    .await?
                {
                    work.batch_execute(&self.capture.create_trigger(&trigger, &name, entity))
                        .await
                        .map_err(failed())?;
                }
                wanted.push((oid, trigger.name));
            }
        }
        Ok(wanted)
    }

    /// Whether the trigger is there, calls our function and is enabled; one that is there but not so is dropped.
    async fn has_trigger(
        &self,
        work: &Transaction<'_>,
        table: u32,
        trigger: &str,
        function: &str,
    ) -> Result<bool, PostgresError> {
        let failed = || PostgresError::sql("looking for triggers");
        let found = work
            .query_opt(
                "SELECT t.tgenabled = 'A' AND n.nspname = $3 AND p.proname = $4, t.tgrelid::regclass::text
                 FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
                 WHERE t.tgrelid = $1 AND t.tgname = $2 AND NOT t.tgisinternal",
                &[&table, &trigger, &self.capture.schema, &function],
            )
            .await
            .map_err(failed())?;
        let Some(found) = found else {
            return Ok(false);
        };
        let right: bool = found.try_get(0).map_err(failed())?;
        if !right {
            let table: String = found.try_get(1).map_err(failed())?;
            work.batch_execute(&format!("DROP TRIGGER {} ON {table}", identifier(trigger)))
                .await
                .map_err(failed())?;
        }
        Ok(right)
    }

    /// Drops what an earlier mapping needed and this one does not.
    async fn drop_obsolete(
        &self,
        work: &Transaction<'_>,
        wanted: &HashSet<TriggerId>,
    ) -> Result<(), PostgresError> {
        let failed = || PostgresError::sql("dropping obsolete triggers");
        let present = work
            .query(
                "SELECT t.tgrelid, t.tgrelid::regclass::text, t.tgname::text
                 FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
                 WHERE n.nspname = $1 AND NOT t.tgisinternal",
                &[&self.capture.schema],
            )
            .await
            .map_err(failed())?;
        for row in &present {
            let (oid, table, name): (u32, String, String) = (
                row.try_get(0).map_err(failed())?,
                row.try_get(1).map_err(failed())?,
                row.try_get(2).map_err(failed())?,
            );
            if !wanted.contains(&(oid, name.clone())) {
                work.batch_execute(&format!("DROP TRIGGER {} ON {table}", identifier(&name)))
                    .await
                    .map_err(failed())?;
            }
        }
        Ok(())
    }

    /// Takes the triggers and the outbox out of the database, with what waits in it.
    ///
    /// # Errors
    ///
    /// When the database refuses; nothing is changed then.
    pub async fn uninstall(&self, client: &mut Client) -> Result<(), PostgresError> {
        let failed = || PostgresError::sql("removing the outbox");
        let work = client.transaction().await.map_err(failed())?;
        // The triggers go with the functions they call.
        work.batch_execute(&format!(
            "SET LOCAL lock_timeout = '5s'; SET LOCAL client_min_messages = 'warning';
             DROP SCHEMA IF EXISTS {} CASCADE",
            identifier(&self.capture.schema)
        ))
        .await
        .map_err(failed())?;
        work.commit().await.map_err(failed())
    }

    /// What waits to be invalidated: worth an alarm when it grows, for then no invalidator is running.
    ///
    /// # Errors
    ///
    /// When the outbox is not installed or cannot be read.
    pub async fn status(&self, client: &Client) -> Result<OutboxStatus, PostgresError> {
        let failed = || PostgresError::sql("reading the outbox");
        let row = client
            .query_one(
                &format!(
                    "SELECT count(*), coalesce(floor(extract(epoch FROM
                       clock_timestamp() - min(captured_at)) * 1000), 0)::bigint FROM {}.outbox",
                    identifier(&self.capture.schema)
                ),
                &[],
            )
            .await
            .map_err(failed())?;
        Ok(OutboxStatus {
            events: row.try_get(0).map_err(failed())?,
            oldest_ms: row.try_get(1).map_err(failed())?,
        })
    }
}

async fn check_version(work: &Transaction<'_>) -> Result<(), PostgresError> {
    let row = work
        .query_one(
            "SELECT current_setting('server_version_num')::integer, current_setting('server_version')",
            &[],
        )
        .await
        .map_err(PostgresError::sql("asking for the server's version"))?;
    let failed = || PostgresError::sql("reading the server's version");
    let number: i32 = row.try_get(0).map_err(failed())?;
    if number < SERVER_VERSION_MIN {
        let version = row.try_get(1).map_err(failed())?;
        return Err(PostgresError::TooOld { version });
    }
    Ok(())
}

/// Finds out before the first write does whether a table has what its function will read.
async fn probe(
    work: &Transaction<'_>,
    entity: &Entity,
    table: &MappedTable,
) -> Result<(), PostgresError> {
    match work.batch_execute(&Capture::probe(entity, table)).await {
        Ok(()) => Ok(()),
        Err(error) if error.as_db_error().is_some() => Err(PostgresError::Mismatch {
            entity: entity.name().into(),
            reason: describe(&error),
        }),
        Err(error) => Err(PostgresError::sql("looking at a mapped table")(error)),
    }
}
