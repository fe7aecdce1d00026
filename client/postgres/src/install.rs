//! Putting the outbox and its triggers into a database, and taking them out.
//!
//! Owns the order and the safety of it: everything in one transaction, nothing twice, no table locked that need not be.
//! The SQL itself is in `capture.rs`.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::capture::{self, Capture};
use super::catalogue::{COMMANDS, INSTALLING};
use super::consumer::Registering;
use super::error::{PostgresError, describe};
use super::facts::Facts;
use super::form::Form;
use super::interest::{self, Interest};
use super::keys::weak_keys;
use super::layout::{FUNCTIONS, LAYOUT};
use super::outbox::Outbox;
use super::patience::{LOCK_TIMEOUT, is_locked_out};
use super::sql::identifier;
use super::timing::milliseconds;

/// Number of the oldest server that has everything: `xid8`, transition tables, `CREATE TRIGGER` semantics tested here.
const SERVER_VERSION_MIN: i32 = 140_000;

/// Lets one installation at a time run: "mcache" as a number.
const INSTALL_LOCK: i64 = 0x6d63_6163_6865;

impl Outbox {
    pub(super) async fn install_in(
        &self,
        work: &Transaction<'_>,
        past: Past,
    ) -> Result<(), PostgresError> {
        let failed = || PostgresError::sql("installing the outbox");
        check_version(work).await?;
        begin(work).await?;
        let is_fresh = self.install_layout(work).await?;
        let is_elsewhere = self.settle_in(work).await?;
        let facts = Facts::load(work.client(), &self.mapping).await?;
        facts.check(&self.mapping)?;
        facts.check_captured(&self.mapping)?;
        for key in weak_keys(work, &self.mapping).await? {
            tracing::warn!(entity = key.entity, "{key}");
        }
        let interests = interest::of_mapping(&self.mapping);
        for (entity, table) in self.mapping.entities() {
            let of_entity = interest::of_entity(entity, table);
            probe(work, entity.name(), &table.quoted, &of_entity.columns).await?;
        }
        let name = self.consumer_name();
        let registering = Registering {
            schema: &self.schema,
            name: &name,
            base: self.consumer.as_str(),
            hold_ms: milliseconds(self.hold),
            notify: self.notify,
            rows_max: self.rows_max,
            bytes_max: self.bytes_max,
            clear_if_new: is_fresh
                || is_elsewhere
                || past == Past::Missed
                || !self.survives_a_crash(work).await?,
        };
        registering.register(work, interests.iter()).await?;
        self.install_wake(work).await?;
        for relation in interests.keys() {
            self.install_capture(work, relation, Width::AtLeastAsBefore)
                .await?;
        }
        // What was repaired just now may have been missing while data changed.
        let look = format!("SELECT FROM {}.look()", identifier(&self.schema));
        work.execute(&look, &[]).await.map_err(failed())?;
        Ok(())
    }

    /// Whether the tables that are there are logged: another consumer may have made them otherwise than this one would.
    async fn survives_a_crash(&self, work: &Transaction<'_>) -> Result<bool, PostgresError> {
        one(
            work,
            "SELECT relpersistence = 'p' FROM pg_class WHERE oid = $1::text::regclass",
            &[&format!("{}.consumer", identifier(&self.schema))],
        )
        .await
        .map_err(PostgresError::sql("looking at the tables of the outbox"))
    }

    /// Makes the tables and functions all consumers share; whether there were none.
    async fn install_layout(&self, work: &Transaction<'_>) -> Result<bool, PostgresError> {
        let failed = || PostgresError::sql("making the tables of the outbox");
        let schema = identifier(&self.schema);
        let layout = self.layout();
        let mut found = None;
        let exists: bool = one(
            work,
            "SELECT to_regclass($1) IS NOT NULL",
            &[&format!("{schema}.layout")],
        )
        .await
        .map_err(failed())?;
        if exists {
            let version = work
                .query_opt(&format!("SELECT version FROM {schema}.layout"), &[])
                .await
                .map_err(failed())?;
            found = match version {
                Some(row) => Some(row.try_get::<_, i32>(0).map_err(failed())?),
                None => None,
            };
        }
        match found {
            Some(found) if found > LAYOUT => {
                return Err(PostgresError::Newer {
                    found,
                    known: LAYOUT,
                });
            }
            // Nothing of an older layout is of use; its triggers go with the functions they call.
            Some(older) if older < LAYOUT => {
                self.is_alone(work).await?;
                self.keep_all_out(work).await?;
                work.batch_execute(&format!("DROP SCHEMA {schema} CASCADE"))
                    .await
                    .map_err(failed())?;
            }
            Some(_) => {}
            None => self.is_alone(work).await?,
        }
        let sql = [layout.tables(), layout.functions(), layout.look_functions()].join("\n");
        let definition = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(sql.as_bytes()));
        if found == Some(LAYOUT) {
            // Functions can go by themselves, with the role or the extension that they belong to.
            let same: bool = one(
                work,
                &format!(
                    "SELECT definition = $1 AND cardinality($3::text[]) = (
                       SELECT count(DISTINCT proname) FROM pg_proc
                       WHERE pronamespace = to_regnamespace($2) AND proname::text = ANY ($3))
                     FROM {schema}.layout"
                ),
                &[&definition, &schema, &&FUNCTIONS[..]],
            )
            .await
            .map_err(failed())?;
            if same {
                return Ok(false);
            }
        }
        if found == Some(LAYOUT) {
            self.keep_writers_out(work).await?;
        }
        work.batch_execute(&sql).await.map_err(failed())?;
        work.execute(
            &format!(
                "INSERT INTO {schema}.layout (version, definition) VALUES ($1, $2)
                 ON CONFLICT (one) DO UPDATE SET definition = excluded.definition"
            ),
            &[&LAYOUT, &definition],
        )
        .await
        .map_err(failed())?;
        self.install_event_trigger(work).await?;
        Ok(found != Some(LAYOUT))
    }

    /// Locks the tables that are captured and ours to lock, before the outbox is: a writer locks them in this order,
    /// and would else be ended because of a deadlock.
    async fn keep_writers_out(&self, work: &Transaction<'_>) -> Result<(), PostgresError> {
        let failed = || PostgresError::sql("waiting for those who write");
        let interests = interest::of_mapping(&self.mapping);
        let ours: Vec<&String> = interests.keys().collect();
        let captured = work
            .query(
                &format!(
                    "SELECT relation FROM {}.capture
                     WHERE relation = ANY ($1) AND to_regclass(relation) IS NOT NULL ORDER BY relation",
                    identifier(&self.schema)
                ),
                &[&ours],
            )
            .await
            .map_err(failed())?;
        for row in &captured {
            let relation: &str = row.try_get(0).map_err(failed())?;
            work.batch_execute(&capture::lock(relation))
                .await
                .map_err(failed())?;
        }
        Ok(())
    }

    /// Locks every table with a trigger of ours, before the outbox goes with its triggers: see
    /// [`keep_writers_out`](Self::keep_writers_out). Without triggers nothing is read or written there.
    pub(super) async fn keep_all_out(&self, work: &Transaction<'_>) -> Result<(), PostgresError> {
        let failed = || PostgresError::sql("waiting for those who write");
        let tables = work
            .query(
                "SELECT DISTINCT c.oid, format('%I.%I', n.nspname, c.relname)
                 FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_class AS c ON c.oid = t.tgrelid
                 JOIN pg_namespace AS n ON n.oid = c.relnamespace
                 WHERE p.pronamespace = to_regnamespace($1) AND c.relnamespace <> p.pronamespace
                   AND has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE') ORDER BY c.oid",
                &[&identifier(&self.schema)],
            )
            .await
            .map_err(failed())?;
        for row in &tables {
            let table: &str = row.try_get(1).map_err(failed())?;
            work.batch_execute(&format!("LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE"))
                .await
                .map_err(failed())?;
        }
        Ok(())
    }

    /// Makes the event trigger if the role may, which is not needed for anything but speed.
    async fn install_event_trigger(&self, work: &Transaction<'_>) -> Result<(), PostgresError> {
        let failed = || PostgresError::sql("making the event trigger");
        let exists: bool = one(
            work,
            "SELECT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = $1 AND evttags @> $2 AND evttags <@ $2)",
            &[&self.layout().event_trigger(), &&COMMANDS[..]],
        )
        .await
        .map_err(failed())?;
        if exists {
            return Ok(());
        }
        work.batch_execute("SAVEPOINT event_trigger")
            .await
            .map_err(failed())?;
        let made = work
            .batch_execute(&self.layout().create_event_trigger())
            .await;
        let end = match made {
            Ok(()) => "RELEASE SAVEPOINT event_trigger",
            Err(error) if error.as_db_error().is_some() => {
                tracing::info!(
                    reason = describe(&error),
                    "this role may not make an event trigger; changes of tables are noticed at the next look at the catalogue"
                );
                "ROLLBACK TO SAVEPOINT event_trigger"
            }
            Err(error) => return Err(failed()(error)),
        };
        work.batch_execute(end).await.map_err(failed())
    }

    /// Sets whether a commit notifies the sources that sleep. If one consumer asked for no notifications, no commit
    /// does: each lease then says that its source never sleeps.
    pub(super) async fn install_wake(&self, work: &Transaction<'_>) -> Result<(), PostgresError> {
        let schema = identifier(&self.schema);
        work.batch_execute(&format!(
            "UPDATE {schema}.lease AS l
             SET awake_until = CASE WHEN w.wanted THEN '-infinity' ELSE 'infinity' END::timestamptz
             FROM (SELECT NOT EXISTS (SELECT FROM {schema}.consumer WHERE NOT notify AND expired_at IS NULL)) AS w (wanted)
             WHERE (l.awake_until = 'infinity') = w.wanted"
        ))
        .await
        .map_err(PostgresError::sql("saying whether commits wake"))
    }

    /// Makes what captures a table: as widely as any consumer needs.
    pub(super) async fn install_capture(
        &self,
        work: &Transaction<'_>,
        relation: &str,
        width: Width,
    ) -> Result<bool, PostgresError> {
        let failed = || PostgresError::sql("making the function that captures a table");
        let schema = identifier(&self.schema);
        let row = work
            .query_one(
                &format!(
                    "SELECT coalesce(max(c.rows_max), 1), coalesce(max(c.bytes_max), 0),
                       (SELECT definition FROM {schema}.capture
                        WHERE relation = $1 AND to_regproc($2 || '.' || quote_ident(function)) IS NOT NULL),
                       ARRAY(SELECT DISTINCT name FROM {schema}.interest AS i, unnest(i.columns) AS name
                             WHERE i.relation = $1),
                       ARRAY(SELECT DISTINCT name FROM {schema}.interest AS i, unnest(i.keys) AS name
                             WHERE i.relation = $1),
                       (SELECT columns FROM {schema}.capture WHERE relation = $1),
                       (SELECT keys FROM {schema}.capture WHERE relation = $1)
                     FROM {schema}.consumer AS c
                     WHERE EXISTS (SELECT FROM {schema}.interest AS i WHERE i.relation = $1 AND i.consumer = c.id)"
                ),
                &[&relation, &schema],
            )
            .await
            .map_err(failed())?;
        let names = |column: usize| -> Result<BTreeSet<String>, PostgresError> {
            let names: Option<Vec<String>> = row.try_get(column).map_err(failed())?;
            Ok(names.into_iter().flatten().collect())
        };
        let mut interest = Interest {
            columns: names(3)?,
            keys: names(4)?,
        };
        if width == Width::AtLeastAsBefore {
            interest.columns.extend(names(5)?);
            interest.keys.extend(names(6)?);
        }
        // Another consumer's column may have been dropped by a migration: to it the value is unknown from then on.
        self.keep_readable(work, relation, &mut interest).await?;
        let types = types(work, relation).await?;
        let capture = Capture {
            schema: &self.schema,
            relation,
            types: &types,
            rows_max: row.try_get(0).map_err(failed())?,
            bytes_max: row.try_get(1).map_err(failed())?,
            columns: interest.columns,
            keys: interest.keys,
        };
        let sql = capture.create_function();
        let definition = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(sql.as_bytes()));
        let before: Option<String> = row.try_get(2).map_err(failed())?;
        let changes = before.as_ref() != Some(&definition);
        if changes {
            if before.is_some() {
                // A statement that the old function describes must be committed before the new consumer relies on more.
                work.batch_execute(&capture::lock(relation))
                    .await
                    .map_err(failed())?;
            }
            work.batch_execute(&sql).await.map_err(failed())?;
            let columns: Vec<&String> = capture.columns.iter().collect();
            let keys: Vec<&String> = capture.keys.iter().collect();
            let physical: BTreeSet<String> = capture
                .columns
                .iter()
                .map(|name| Form::parse(name).0)
                .collect();
            let physical: Vec<String> = physical.into_iter().collect();
            work.execute(
                &format!(
                    "INSERT INTO {schema}.capture (relation, columns, keys, physical, function, definition)
                     VALUES ($1, $2, $3, $4, $5::text::name, $6) ON CONFLICT (relation) DO UPDATE
                     SET columns = excluded.columns, keys = excluded.keys, physical = excluded.physical,
                         function = excluded.function, definition = excluded.definition"
                ),
                &[&relation, &columns, &keys, &physical, &Capture::function_name(relation), &definition],
            )
            .await
            .map_err(failed())?;
        }
        self.install_triggers(work, relation).await?;
        Ok(changes)
    }

    /// Leaves out what cannot be read from the table.
    async fn keep_readable(
        &self,
        work: &Transaction<'_>,
        relation: &str,
        interest: &mut Interest,
    ) -> Result<(), PostgresError> {
        if readable(work, relation, &interest.columns).await? {
            return Ok(());
        }
        let mut unreadable = BTreeSet::new();
        for name in &interest.columns {
            if !readable(work, relation, &BTreeSet::from([name.clone()])).await? {
                tracing::warn!(
                    relation,
                    column = name,
                    "another consumer needs a column that cannot be read any more"
                );
                unreadable.insert(name.clone());
            }
        }
        interest.columns.retain(|name| !unreadable.contains(name));
        interest.keys.retain(|name| !unreadable.contains(name));
        Ok(())
    }

    /// Makes the triggers that are missing on a table, its partitions and children and the tables it is a part of, and
    /// repairs those that are not as they should be.
    async fn install_triggers(
        &self,
        work: &Transaction<'_>,
        relation: &str,
    ) -> Result<(), PostgresError> {
        let failed = || PostgresError::sql("making triggers");
        // A statement fires the triggers of the table it names: for partitions written to directly, that is their own,
        // and for a table that is a part of another also the other's.
        let tables = work
            .query(
                "WITH RECURSIVE tree (oid) AS (
                   SELECT $1::text::regclass::oid
                   UNION SELECT i.inhrelid FROM pg_inherits AS i JOIN tree ON i.inhparent = tree.oid),
                 above (oid) AS (
                   SELECT inhparent FROM pg_inherits WHERE inhrelid = $1::text::regclass
                   UNION SELECT i.inhparent FROM pg_inherits AS i JOIN above ON i.inhrelid = above.oid),
                 family (oid, above) AS (SELECT oid, false FROM tree UNION ALL SELECT oid, true FROM above)
                 SELECT family.above, format('%I.%I', n.nspname, c.relname), c.relkind IN ('r', 'p'),
                   ARRAY(SELECT t.tgname::text FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
                         JOIN pg_namespace AS s ON s.oid = p.pronamespace
                         WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND s.nspname = $2 AND p.proname = $3
                           AND t.tgenabled = 'A' AND (t.tgnargs > 0) = family.above),
                   ARRAY(SELECT t.tgname::text FROM pg_trigger AS t
                         WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
                 FROM family JOIN pg_class AS c USING (oid) JOIN pg_namespace AS n ON n.oid = c.relnamespace
                 ORDER BY c.oid",
                &[&relation, &self.schema, &Capture::function_name(relation)],
            )
            .await
            .map_err(failed())?;
        for row in &tables {
            let (above, table, is_table): (bool, String, bool) = (
                row.try_get(0).map_err(failed())?,
                row.try_get(1).map_err(failed())?,
                row.try_get(2).map_err(failed())?,
            );
            if !is_table {
                tracing::warn!(
                    relation,
                    part = table,
                    "changes of this part cannot be captured"
                );
                continue;
            }
            let right: Vec<String> = row.try_get(3).map_err(failed())?;
            let present: Vec<String> = row.try_get(4).map_err(failed())?;
            for trigger in Capture::triggers(&self.schema, relation) {
                if right.contains(&trigger.name) {
                    continue;
                }
                if present.contains(&trigger.name) {
                    let drop = format!("DROP TRIGGER {} ON {table}", identifier(&trigger.name));
                    work.batch_execute(&drop).await.map_err(failed())?;
                }
                let create =
                    Capture::create_trigger(&self.schema, relation, &trigger, &table, above);
                work.batch_execute(&create).await.map_err(failed())?;
            }
        }
        Ok(())
    }
}

/// What a consumer that is not registered may have in its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// Nothing, unless the outbox is new.
    Known,
    /// A process works for it already: what it cached while the outbox was not there, or another's.
    Missed,
}

/// How much of a table is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// What is needed and what was captured before.
    AtLeastAsBefore,
    /// What is needed.
    AsNeeded,
}

/// A transaction that sees what was committed while it waited for a lock, also where serializable is the default.
pub(super) async fn own_transaction(
    client: &mut Client,
) -> Result<Transaction<'_>, tokio_postgres::Error> {
    let work = client.build_transaction();
    work.isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .await
}

/// One installation at a time, none that waits for a lock for long, and none that our own event trigger looks at.
pub(super) async fn begin(work: &Transaction<'_>) -> Result<(), PostgresError> {
    let settings = format!(
        "SET LOCAL lock_timeout = '5s'; SET LOCAL client_min_messages = 'warning'; SET LOCAL {INSTALLING} = 'on';
         SET LOCAL standard_conforming_strings = on; SELECT pg_advisory_xact_lock({INSTALL_LOCK});
         SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"
    );
    work.batch_execute(&settings)
        .await
        .map_err(PostgresError::sql("waiting for another installation"))
}

/// The only value of the only row.
pub(super) async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(
    work: &Transaction<'_>,
    sql: &str,
    params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<T, tokio_postgres::Error> {
    work.query_one(sql, params).await?.try_get(0)
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
    entity: &str,
    relation: &str,
    columns: &BTreeSet<String>,
) -> Result<(), PostgresError> {
    match work.batch_execute(&Capture::probe(relation, columns)).await {
        Ok(()) => Ok(()),
        Err(error) if error.as_db_error().is_some() && !is_locked_out(&error) => {
            Err(PostgresError::Mismatch {
                entity: entity.into(),
                reason: describe(&error),
            })
        }
        Err(error) => Err(PostgresError::sql("looking at a mapped table")(error)),
    }
}

/// The types of a table's columns: the name of one that every database has, `enum` for an enumeration.
async fn types(
    work: &Transaction<'_>,
    relation: &str,
) -> Result<BTreeMap<String, String>, PostgresError> {
    let failed = || PostgresError::sql("looking at the columns of a table");
    let rows = work
        .query(
            "SELECT a.attname::text, CASE WHEN t.typtype = 'e' THEN 'enum' ELSE t.typname::text END
             FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
             WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped
               AND (t.typtype = 'e' OR t.typnamespace = 'pg_catalog'::regnamespace)",
            &[&relation],
        )
        .await
        .map_err(failed())?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(failed())
}

/// Whether all of these can be read, without failing the transaction.
async fn readable(
    work: &Transaction<'_>,
    relation: &str,
    columns: &BTreeSet<String>,
) -> Result<bool, PostgresError> {
    let failed = || PostgresError::sql("looking at a captured table");
    work.batch_execute("SAVEPOINT readable")
        .await
        .map_err(failed())?;
    let probed = work.batch_execute(&Capture::probe(relation, columns)).await;
    let (end, readable) = match probed {
        Ok(()) => ("RELEASE SAVEPOINT readable", true),
        // A column that another transaction keeps locked is there.
        Err(error) if error.as_db_error().is_some() && !is_locked_out(&error) => {
            ("ROLLBACK TO SAVEPOINT readable", false)
        }
        Err(error) => return Err(failed()(error)),
    };
    work.batch_execute(end).await.map_err(failed())?;
    Ok(readable)
}
