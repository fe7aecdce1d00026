//! The SQL that captures changes.
//!
//! Owns the layout of the outbox and the text of the trigger functions. It must not run anything: see `install.rs`.
//!
//! One statement of an application makes one row of the outbox per kind of change, in the same transaction:
//!
//! ```text
//!   UPDATE product SET …            outbox
//!     │ old_rows, new_rows           xid   id  entity    operation  rows
//!     ▼                              901   17  Product   updated    [{"id": "p1", "before": {…}, "after": {…}}, …]
//!   capture_Product()  ────────▶     901   18  Product   deleted    [{"id": "p2", "before": {…}}]     (soft deletion)
//!                                    905   19  Product   updated    NULL                  (too many rows; TRUNCATE)
//! ```
//!
//! Three things a trigger of ours must never do to the application's own write: fail (what goes wrong while the change is
//! described becomes an entity-wide event with the reason beside it), become slow with the size of the statement (rows
//! are counted first, up to a limit; old and new rows are paired by grouping, because a join planned for one row would be
//! reused for thousands), or use up transaction ids (nothing is written inside the exception block).

use std::fmt::Write as _;

use mcache_graph::{Entity, FieldType};

use super::mapping::{MappedTable, stored_fields};
use super::sql::{dollar_quoted, identifier, literal, shortened, text_of};

/// The layout of the outbox that this version makes and reads.
pub(super) const LAYOUT: i32 = 1;

/// The function and the trigger that wake the invalidator.
pub(super) const WAKE: &str = "wake";

/// Texts longer than this are captured as a digest: enough to see that they changed.
const TEXT_BYTES_MAX: usize = 1024;

/// A function takes at most 100 arguments.
const PAIRS_PER_CALL_MAX: usize = 50;

/// What the SQL depends on besides the mapping.
#[derive(Clone, Debug)]
pub(super) struct Capture {
    /// The database schema everything is in; also the channel of notifications.
    pub(super) schema: String,
    /// Whether a commit wakes the invalidator.
    pub(super) notify: bool,
    /// Rows that one statement may change before its event becomes entity-wide.
    pub(super) rows_max: usize,
    /// Bytes of captured rows beyond which only their ids are kept.
    pub(super) bytes_max: usize,
}

/// One trigger: its name, and the event it fires on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trigger {
    pub(super) name: String,
    pub(super) on: &'static str,
}

impl Capture {
    /// Everything but functions and triggers. Safe to run again.
    pub(super) fn tables(&self) -> String {
        let schema = identifier(&self.schema);
        // Rows live for milliseconds: whatever the table once grew to, vacuum comes by absolute numbers.
        format!(
            "CREATE SCHEMA IF NOT EXISTS {schema};
             CREATE TABLE IF NOT EXISTS {schema}.layout (
               version integer NOT NULL, one boolean PRIMARY KEY DEFAULT true CHECK (one));
             CREATE TABLE IF NOT EXISTS {schema}.outbox (
               xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
               id bigint GENERATED ALWAYS AS IDENTITY,
               captured_at timestamptz NOT NULL DEFAULT clock_timestamp(),
               entity text NOT NULL,
               operation text NOT NULL,
               rows jsonb,
               trouble text,
               PRIMARY KEY (xid, id)
             ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,
                     autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 10000);
             CREATE TABLE IF NOT EXISTS {schema}.lease (
               holder text NOT NULL DEFAULT '', pid integer NOT NULL DEFAULT 0,
               until timestamptz NOT NULL DEFAULT '-infinity',
               awake_until timestamptz NOT NULL DEFAULT '-infinity',
               one boolean PRIMARY KEY DEFAULT true CHECK (one));
             INSERT INTO {schema}.lease DEFAULT VALUES ON CONFLICT DO NOTHING;"
        )
    }

    /// The name of an entity's function, without schema.
    pub(super) fn function_name(entity: &Entity) -> String {
        shortened(&format!("capture_{}", entity.name()))
    }

    /// The triggers every captured table has.
    pub(super) fn triggers(&self, entity: &Entity) -> [Trigger; 4] {
        ["INSERT", "UPDATE", "DELETE", "TRUNCATE"].map(|on| Trigger {
            name: shortened(&format!(
                "{}_{}_{}",
                self.schema,
                entity.name(),
                on.to_lowercase()
            )),
            on,
        })
    }

    /// Makes one trigger on one table, and makes it fire whatever `session_replication_role` says.
    pub(super) fn create_trigger(&self, trigger: &Trigger, table: &str, entity: &Entity) -> String {
        let name = identifier(&trigger.name);
        let tables = match trigger.on {
            "INSERT" => "REFERENCING NEW TABLE AS new_rows",
            "UPDATE" => "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
            "DELETE" => "REFERENCING OLD TABLE AS old_rows",
            _ => "",
        };
        format!(
            "CREATE TRIGGER {name} AFTER {on} ON {table} {tables} FOR EACH STATEMENT \
             EXECUTE FUNCTION {schema}.{function}();
             ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name};",
            on = trigger.on,
            schema = identifier(&self.schema),
            function = identifier(&Self::function_name(entity)),
        )
    }

    /// Makes the function that wakes the invalidator, or replaces it.
    ///
    /// PostgreSQL lets transactions that notify commit one after the other, each waiting for its own write to the disk.
    /// So nobody notifies an invalidator that has said it is looking every few milliseconds anyway, as it does while
    /// there is much to do.
    pub(super) fn create_wake_function(&self) -> String {
        let schema = identifier(&self.schema);
        let body = format!(
            "
BEGIN
  IF NOT EXISTS (SELECT FROM {schema}.lease WHERE awake_until > clock_timestamp()) THEN
    PERFORM pg_notify({}, '');
  END IF;
  RETURN NULL;
END
",
            literal(&self.schema)
        );
        format!(
            "CREATE OR REPLACE FUNCTION {schema}.{WAKE}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp AS {};",
            dollar_quoted(&body)
        )
    }

    /// Makes the trigger that calls it. It is deferred: what counts is whether the invalidator is awake when the
    /// transaction commits, not when it writes.
    pub(super) fn create_wake_trigger(&self) -> String {
        let schema = identifier(&self.schema);
        format!(
            "CREATE CONSTRAINT TRIGGER {WAKE} AFTER INSERT ON {schema}.outbox DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION {schema}.{WAKE}();
             ALTER TABLE {schema}.outbox ENABLE ALWAYS TRIGGER {WAKE};"
        )
    }

    /// A query that fails exactly if the table does not have what the function reads.
    pub(super) fn probe(entity: &Entity, table: &MappedTable) -> String {
        format!(
            "SELECT {}, {} FROM {} AS t WHERE {} LIMIT 0",
            id_of(entity, table),
            document_of(entity, table),
            table.quoted,
            live(entity, table)
        )
    }

    /// Makes the function that describes the changes of one entity, or replaces it.
    pub(super) fn create_function(&self, entity: &Entity, table: &MappedTable) -> String {
        let words = Words::of(entity);
        let mut branches = String::new();
        for (on, old, new, appeared) in [
            ("INSERT", false, true, words.inserted),
            ("UPDATE", true, true, words.reappeared),
            ("DELETE", true, false, words.inserted),
        ] {
            // The rows to count: those the statement touched.
            let counted = if new { "new_rows" } else { "old_rows" };
            let images = [(old, "false", "old_rows"), (new, "true", "new_rows")]
                .into_iter()
                .filter(|(present, ..)| *present)
                .map(|(_, is_after, rows)| {
                    format!(
                        "SELECT {is_after} AS is_after, {id} AS id, {document} AS document \
                         FROM {rows} AS t WHERE {live}",
                        id = id_of(entity, table),
                        document = document_of(entity, table),
                        live = live(entity, table),
                    )
                })
                .collect::<Vec<_>>()
                .join("\n        UNION ALL ");
            // Writing to a String cannot fail.
            let _ = write!(
                branches,
                "
    {keyword} TG_OP = '{on}' THEN
      SELECT count(*) INTO touched FROM (SELECT FROM {counted} LIMIT {limit}) AS few;
      IF touched = 0 THEN RETURN NULL; END IF;
      IF touched < {limit} THEN
        WITH images AS (
        {images}
        ), pairs AS (
          SELECT id, (array_agg(document) FILTER (WHERE NOT is_after))[1] AS before,
                     (array_agg(document) FILTER (WHERE is_after))[1] AS after
          FROM images GROUP BY id
        ), changes AS (
          SELECT CASE WHEN before IS NULL THEN {appeared} WHEN after IS NULL THEN {vanished}
                      ELSE 'updated' END AS operation, id, before, after,
                 sum(coalesce(pg_column_size(before), 0) + coalesce(pg_column_size(after), 0)) OVER () AS bytes
          FROM pairs WHERE before IS DISTINCT FROM after
        ), events AS (
          SELECT operation, jsonb_agg(jsonb_build_object('id', id) ||
                   CASE WHEN bytes <= {bytes_max}
                        THEN jsonb_build_object('before', before, 'after', after) ELSE '{{}}' END) AS described
          FROM changes GROUP BY operation
        )
        SELECT array_agg(operation), array_agg(described) INTO operations, described FROM events;
        IF operations IS NULL THEN RETURN NULL; END IF;
      END IF;",
                keyword = if on == "INSERT" { "IF" } else { "ELSIF" },
                limit = self.rows_max.saturating_add(1),
                appeared = literal(appeared),
                vanished = literal(words.vanished),
                bytes_max = self.bytes_max,
            );
        }
        let schema = identifier(&self.schema);
        let body = format!(
            "
#variable_conflict use_column
DECLARE
  touched bigint;
  -- One event each; without change below, the whole entity.
  operations text[] := ARRAY['updated'];
  described jsonb[] := ARRAY[NULL];
  trouble text;
BEGIN
  BEGIN{branches}
    END IF;
  EXCEPTION WHEN OTHERS THEN
    operations := ARRAY['updated'];
    described := ARRAY[NULL];
    trouble := SQLERRM;
  END;
  INSERT INTO {schema}.outbox (entity, operation, rows, trouble)
  SELECT {entity}, event.operation, event.described, trouble
  FROM unnest(operations, described) AS event (operation, described);
  RETURN NULL;
END
",
            entity = literal(entity.name()),
        );
        // Whoever may write the table need not be allowed to write the outbox; texts must not depend on the session.
        format!(
            "CREATE OR REPLACE FUNCTION {schema}.{function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET extra_float_digits = 1
             SET datestyle = 'ISO' SET intervalstyle = 'postgres' AS {body};",
            function = identifier(&Self::function_name(entity)),
            body = dollar_quoted(&body),
        )
    }
}

/// The words for rows that come and go.
struct Words {
    inserted: &'static str,
    reappeared: &'static str,
    vanished: &'static str,
}

impl Words {
    fn of(entity: &Entity) -> Self {
        let (inserted, vanished) = if entity.is_link() {
            ("attached", "detached")
        } else {
            ("created", "deleted")
        };
        Self {
            inserted,
            // An UPDATE makes a row appear by clearing its soft deletion, or by giving it another id.
            reappeared: if entity.is_link() || entity.soft_delete_field().is_none() {
                inserted
            } else {
                "restored"
            },
            vanished,
        }
    }
}

/// What names a row of transition table `t`: its id, or for a link, whose table need not have one, all its keys.
fn id_of(entity: &Entity, table: &MappedTable) -> String {
    let names: Vec<&str> = match entity.link_keys() {
        Some(keys) => keys.map(|key| &**key).to_vec(),
        None => vec!["id"],
    };
    let columns: Vec<String> = names
        .into_iter()
        .filter_map(|name| table.column(name))
        .map(|column| format!("t.{column}::text"))
        .collect();
    columns.join(" || '|' || ")
}

/// A row of transition table `t` as an object of texts. What is too long to send, or is JSON, is a digest in an object.
fn document_of(entity: &Entity, table: &MappedTable) -> String {
    let digest = |text: &str| {
        format!("jsonb_build_object('sha256', encode(sha256(convert_to({text}, 'UTF8')), 'hex'))")
    };
    let pairs: Vec<String> = stored_fields(entity)
        .filter_map(|field| Some((field, table.column(field.name())?)))
        .map(|(field, column)| {
            let column = format!("t.{column}");
            let text = text_of(field.kind(), &column);
            let value = match field.kind() {
                FieldType::Text => format!(
                    "CASE WHEN octet_length({text}) > {TEXT_BYTES_MAX} THEN {} ELSE to_jsonb({text}) END",
                    digest(&text)
                ),
                FieldType::Json => {
                    format!("CASE WHEN {column} IS NOT NULL THEN {} END", digest(&text))
                }
                _ => text,
            };
            format!("{}, {value}", literal(field.name()))
        })
        .collect();
    let objects: Vec<String> = pairs
        .chunks(PAIRS_PER_CALL_MAX)
        .map(|pairs| format!("jsonb_build_object({})", pairs.join(", ")))
        .collect();
    objects.join(" || ")
}

/// Whether a row of transition table `t` counts as existing.
fn live(entity: &Entity, table: &MappedTable) -> String {
    match entity
        .soft_delete_field()
        .and_then(|field| table.column(field))
    {
        Some(column) => format!("t.{column} IS NULL"),
        None => "true".to_owned(),
    }
}
