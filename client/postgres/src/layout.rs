//! The tables and functions that all consumers share.
//!
//! Owns their SQL. It must not run anything: see `install.rs`. What captures the changes of one table is in
//! `capture.rs`, what compares the catalogue in `catalogue.rs`.
//!
//! ```text
//!   consumer ──1:1── position     how far it has acknowledged
//!      │     ──1:1── lease        which of its processes works, and until when commits need not wake it
//!      └─────1:n── interest       which columns of which tables it needs      ─┐ together: what is
//!   capture                       what the trigger function of a table records ◀┘ captured at least
//!   outbox                        one row per statement, once for all consumers
//!   seen                          what the catalogue said of a table when it was last looked at
//!   alive                         empties in a crash, as all unlogged tables do
//!   layout                        the version, and the server whose transactions positions speak of
//! ```

use super::sql::{dollar_quoted, identifier, literal};

/// The layout that this version makes and reads.
pub(super) const LAYOUT: i32 = 2;

/// Which server this is: a copy of its files is the same one, a dump that is restored elsewhere is in another.
pub(super) const SYSTEM: &str = "(SELECT system_identifier::text FROM pg_control_system())";

/// The tables of an outbox.
pub(super) const TABLES: [&str; 9] = [
    "layout", "consumer", "interest", "position", "lease", "capture", "seen", "alive", "outbox",
];

/// The functions that belong to no table of the application.
pub(super) const FUNCTIONS: [&str; 7] = [
    "wake",
    "invalidate",
    "expire",
    "sweep",
    "fingerprint",
    "look",
    "on_ddl",
];

/// Ids of the outbox that a session takes at once. They order rows of one transaction, so of one session.
const IDS_CACHED: u32 = 100;

/// Tags one call of `invalidate` may name.
const TAGS_MAX: usize = 10_000;

/// The SQL of one outbox.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout<'a> {
    /// The database schema everything is in.
    pub(super) schema: &'a str,
    /// Whether the tables survive a crash (and are published by a publication for all tables).
    pub(super) logged: bool,
}

impl Layout<'_> {
    /// Every table. Safe to run again.
    pub(super) fn tables(&self) -> String {
        let schema = identifier(self.schema);
        let table = if self.logged {
            "TABLE"
        } else {
            "UNLOGGED TABLE"
        };
        // Rows live for milliseconds: vacuum comes after a fixed number of dead rows, even if the outbox was once
        // large. The small ones are updated often: room in each page keeps their updates out of the indexes.
        format!(
            "CREATE SCHEMA IF NOT EXISTS {schema};
             CREATE {table} IF NOT EXISTS {schema}.layout (
               version integer NOT NULL, definition text NOT NULL DEFAULT '',
               looked_at timestamptz NOT NULL DEFAULT '-infinity',
               swept_at timestamptz NOT NULL DEFAULT '-infinity',
               one boolean PRIMARY KEY DEFAULT true CHECK (one)) WITH (fillfactor = 10);
             ALTER TABLE {schema}.layout ADD COLUMN IF NOT EXISTS system text NOT NULL DEFAULT '';
             CREATE {table} IF NOT EXISTS {schema}.consumer (
               id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
               name text NOT NULL UNIQUE, base text NOT NULL,
               registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
               hold interval NOT NULL, notify boolean NOT NULL, rows_max bigint NOT NULL, bytes_max bigint NOT NULL,
               expired_at timestamptz);
             CREATE {table} IF NOT EXISTS {schema}.interest (
               relation text NOT NULL, consumer integer NOT NULL REFERENCES {schema}.consumer ON DELETE CASCADE,
               keys text[] NOT NULL, columns text[] NOT NULL, PRIMARY KEY (relation, consumer));
             CREATE {table} IF NOT EXISTS {schema}.position (
               consumer integer PRIMARY KEY REFERENCES {schema}.consumer ON DELETE CASCADE,
               acknowledged pg_snapshot NOT NULL, clear boolean NOT NULL) WITH (fillfactor = 10);
             CREATE {table} IF NOT EXISTS {schema}.lease (
               consumer integer PRIMARY KEY REFERENCES {schema}.consumer ON DELETE CASCADE,
               holder text NOT NULL DEFAULT '', pid integer NOT NULL DEFAULT 0,
               until timestamptz NOT NULL, awake_until timestamptz NOT NULL DEFAULT '-infinity') WITH (fillfactor = 10);
             CREATE {table} IF NOT EXISTS {schema}.capture (
               relation text PRIMARY KEY, columns text[] NOT NULL, keys text[] NOT NULL, physical text[] NOT NULL,
               function name NOT NULL, definition text NOT NULL);
             CREATE {table} IF NOT EXISTS {schema}.seen (
               relation text PRIMARY KEY, fingerprint text NOT NULL, captured boolean NOT NULL);
             CREATE UNLOGGED TABLE IF NOT EXISTS {schema}.alive (
               one boolean PRIMARY KEY DEFAULT true CHECK (one), since uuid NOT NULL DEFAULT gen_random_uuid());
             CREATE {table} IF NOT EXISTS {schema}.outbox (
               xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
               id bigint GENERATED ALWAYS AS IDENTITY (CACHE {IDS_CACHED}),
               captured_at timestamptz NOT NULL DEFAULT clock_timestamp(),
               relation text, operation text NOT NULL, rows jsonb, trouble text, target text,
               PRIMARY KEY (xid, id)
             ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
                     autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 10000);
             ALTER TABLE {schema}.outbox ADD COLUMN IF NOT EXISTS columns text[],
               ADD COLUMN IF NOT EXISTS was text[], ADD COLUMN IF NOT EXISTS is_now text[],
               ALTER COLUMN id SET CACHE {IDS_CACHED};"
        )
    }

    /// Makes the functions that belong to no table of the application, or replaces them.
    pub(super) fn functions(&self) -> String {
        [self.wake(), self.invalidate(), self.expire(), self.sweep()].join("\n")
    }

    /// The channel a consumer listens to.
    pub(super) fn channel(schema: &str, consumer: i32) -> String {
        format!("{}{consumer}", Self::channel_prefix(schema))
    }

    /// Names of channels are as short as identifiers.
    fn channel_prefix(schema: &str) -> String {
        match schema.len() {
            ..=50 => format!("{schema}_"),
            _ => format!(
                "mcache_{:016x}_",
                xxhash_rust::xxh3::xxh3_64(schema.as_bytes())
            ),
        }
    }

    /// Wakes at the commit those consumers whom a change concerns (all, if it is of no table), who listen and who are
    /// asleep.
    ///
    /// PostgreSQL lets transactions that notify commit one after the other, each waiting for its own write to the disk.
    /// So nothing is notified that has said it is looking every few milliseconds anyway, as a source does while there
    /// is much to do; nor a consumer that no process works for, which would make every commit of a busy hour notify in
    /// vain. A transaction that commits long after it has asked is looked for by the source: see `pace.rs`.
    fn wake(&self) -> String {
        let schema = identifier(self.schema);
        let body = format!(
            "
BEGIN
  PERFORM pg_notify({channel} || l.consumer, '') FROM {schema}.lease AS l
  WHERE l.until > clock_timestamp() AND l.awake_until <= clock_timestamp()
    AND (of_relation IS NULL
         OR EXISTS (SELECT FROM {schema}.interest AS i WHERE i.relation = of_relation AND i.consumer = l.consumer));
END
",
            channel = literal(&Self::channel_prefix(self.schema)),
        );
        // A trigger did it before, when a transaction committed.
        format!(
            "DROP TRIGGER IF EXISTS wake ON {schema}.outbox;
             DROP FUNCTION IF EXISTS {schema}.wake();
             {}",
            self.function("wake", "of_relation text", "void", &body)
        )
    }

    /// Clears tags after the commit of the transaction that calls it: of every consumer, or of the one named.
    fn invalidate(&self) -> String {
        let schema = identifier(self.schema);
        let body = format!(
            "
DECLARE
  refused boolean;
BEGIN
  IF coalesce(cardinality(tags), 0) = 0 THEN
    RETURN;
  END IF;
  -- The position is not looked for in an array of several dimensions.
  refused := array_ndims(tags) <> 1 OR cardinality(tags) > {TAGS_MAX};
  IF NOT refused THEN
    refused := array_position(tags, NULL) IS NOT NULL;
  END IF;
  IF refused THEN
    RAISE EXCEPTION 'invalidate: expected an array of at most {TAGS_MAX} tags, none of them null'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  INSERT INTO {schema}.outbox (operation, rows, target) VALUES ('tags', to_jsonb(tags), consumer);
  PERFORM {schema}.wake(NULL);
END
"
        );
        self.function(
            "invalidate",
            "tags text[], consumer text DEFAULT NULL",
            "void",
            &body,
        )
    }

    /// Ends what a consumer holds when none of its processes was there for longer than it may.
    fn expire(&self) -> String {
        let schema = identifier(self.schema);
        let body = format!(
            "
BEGIN
  RETURN QUERY
  UPDATE {schema}.consumer AS c SET expired_at = clock_timestamp()
  FROM {schema}.lease AS l
  WHERE l.consumer = c.id AND c.expired_at IS NULL AND l.until < clock_timestamp() - c.hold
  RETURNING c.name;
END
"
        );
        self.function("expire", "", "SETOF text", &body)
    }

    /// Deletes up to `most` rows that every consumer has acknowledged, and says how many.
    fn sweep(&self) -> String {
        let schema = identifier(self.schema);
        let body = format!(
            "
DECLARE
  deleted bigint;
BEGIN
  DELETE FROM {schema}.outbox WHERE (xid, id) IN (
    SELECT o.xid, o.id FROM {schema}.outbox AS o
    WHERE o.xid < coalesce(
            ({slowest}),
            pg_snapshot_xmin(pg_current_snapshot()))
      AND NOT EXISTS (
            SELECT FROM {schema}.position AS p JOIN {schema}.consumer AS c ON c.id = p.consumer
            WHERE c.expired_at IS NULL AND NOT pg_visible_in_snapshot(o.xid, p.acknowledged))
    LIMIT most);
  GET DIAGNOSTICS deleted = ROW_COUNT;
  RETURN deleted;
END
",
            slowest = Self::slowest(self.schema),
        );
        self.function("sweep", "most bigint", "bigint", &body)
    }

    /// The `xmax` up to which every consumer that counts has acknowledged: nothing from there on can be deleted. Null
    /// if there is none. (`min` of an `xid8` is newer than PostgreSQL 14.)
    pub(super) fn slowest(schema: &str) -> String {
        let schema = identifier(schema);
        format!(
            "SELECT pg_snapshot_xmax(p.acknowledged) FROM {schema}.position AS p
             JOIN {schema}.consumer AS c ON c.id = p.consumer WHERE c.expired_at IS NULL ORDER BY 1 LIMIT 1"
        )
    }

    /// A function that runs as its owner and ignores the caller's settings.
    pub(super) fn function(&self, name: &str, takes: &str, returns: &str, body: &str) -> String {
        format!(
            "CREATE OR REPLACE FUNCTION {schema}.{name}({takes}) RETURNS {returns} LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp AS {body};",
            schema = identifier(self.schema),
            name = identifier(name),
            body = dollar_quoted(&format!("\n#variable_conflict use_column{body}")),
        )
    }
}
