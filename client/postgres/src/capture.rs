//! The SQL that captures the changes of one table.
//!
//! Owns the text of the trigger functions. It must not run anything: see `install.rs`.
//!
//! One statement of an application makes one row of the outbox, in the same transaction, for any number of
//! consumers. It holds the rows as they were and as they are, without those that did not change, and every value that
//! any consumer needs. What these rows are, which belong together and what happened to them is for each consumer to
//! say: it knows its entities, their keys and their soft deletion.
//!
//! ```text
//!   UPDATE product SET …               outbox
//!     │ old_rows, new_rows              xid   id  relation            operation   rows
//!     ▼                                 901   17  "public"."product"  update      {"old": [{"id": "p1"}], "new": […]}
//!   capture_product_5f3a…()  ─────────▶ 905   19  "public"."product"  everything  NULL  (too many rows; TRUNCATE)
//! ```
//!
//! Three things a trigger of ours must never do to the application's own write: fail (what goes wrong while the change
//! is described becomes a change of the whole table with the reason beside it), become slow with the size of the
//! statement (rows are counted first, up to a limit; old and new rows are told apart by hashing, because a join planned
//! for one row would be reused for thousands), or use up transaction ids (nothing is written inside the exception
//! block).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::form::Form;
use super::sql::{TEXT_SETTINGS, dollar_quoted, identifier, literal, shortened, text_in};

/// Texts longer than this are captured as a digest: enough to see that they changed.
const TEXT_BYTES_MAX: usize = 1024;

/// A function takes at most 100 arguments.
const PAIRS_PER_CALL_MAX: usize = 50;

/// One trigger: its name, and the event it fires on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trigger {
    pub(super) name: String,
    pub(super) on: &'static str,
}

/// What is captured of one table, for all consumers together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Capture<'a> {
    /// The schema of the outbox.
    pub(super) schema: &'a str,
    /// The table, quoted: its name in the outbox.
    pub(super) relation: &'a str,
    pub(super) columns: BTreeSet<String>,
    pub(super) keys: BTreeSet<String>,
    /// Rows that one statement may change before its event is of the whole table.
    pub(super) rows_max: i64,
    /// Bytes of captured rows beyond which only what names them is kept.
    pub(super) bytes_max: i64,
}

impl Capture<'_> {
    /// The name of the table's function, without schema. Readable, and another for another table.
    pub(super) fn function_name(relation: &str) -> String {
        let hash = xxhash_rust::xxh3::xxh3_64(relation.as_bytes());
        let table = relation.rsplit('.').next().unwrap_or(relation);
        let word: String = table
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '_')
            .take(30)
            .collect();
        format!("capture_{word}_{hash:016x}")
    }

    /// The triggers every captured table has.
    pub(super) fn triggers(schema: &str, relation: &str) -> [Trigger; 4] {
        ["INSERT", "UPDATE", "DELETE", "TRUNCATE"].map(|on| Trigger {
            name: shortened(&format!(
                "{schema}_{}_{}",
                Self::function_name(relation),
                on.to_lowercase()
            )),
            on,
        })
    }

    /// Makes one trigger on one table, and makes it fire for every value of `session_replication_role`.
    ///
    /// `above`: it is on a table of which this one is a part. A statement that names that table may change rows of this
    /// one, of all its parts or of none; which, the trigger is not told.
    pub(super) fn create_trigger(
        schema: &str,
        relation: &str,
        trigger: &Trigger,
        table: &str,
        above: bool,
    ) -> String {
        let name = identifier(&trigger.name);
        let tables = match trigger.on {
            "INSERT" => "REFERENCING NEW TABLE AS new_rows",
            "UPDATE" => "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
            "DELETE" => "REFERENCING OLD TABLE AS old_rows",
            _ => "",
        };
        format!(
            "CREATE TRIGGER {name} AFTER {on} ON {table} {tables} FOR EACH STATEMENT \
             EXECUTE FUNCTION {schema}.{function}({above});
             ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name};",
            on = trigger.on,
            schema = identifier(schema),
            function = identifier(&Self::function_name(relation)),
            above = if above { "'above'" } else { "" },
        )
    }

    /// A query that fails exactly if the table does not have what the function reads.
    pub(super) fn probe(relation: &str, columns: &BTreeSet<String>) -> String {
        format!("SELECT {} FROM {relation} AS t LIMIT 0", document(columns))
    }

    /// Makes the function that describes the changes of the table, or replaces it.
    pub(super) fn create_function(&self) -> String {
        let mut branches = String::new();
        // A row moved to another partition, whose trigger keeps it out, is among the old ones only.
        for (on, rows) in [("INSERT", "new"), ("DELETE", "old"), ("UPDATE", "old")] {
            let described = match on {
                "UPDATE" => self.both_images(),
                _ => self.one_image(rows),
            };
            // Writing to a String cannot fail.
            let _ = write!(
                branches,
                "
    {keyword} TG_OP = '{on}' THEN
      SELECT count(*) INTO touched FROM (SELECT FROM {rows}_rows LIMIT {limit}) AS few;
      IF touched = 0 THEN RETURN NULL; END IF;
      IF touched < {limit} AND TG_NARGS = 0 THEN{described}
      END IF;",
                keyword = if on == "INSERT" { "IF" } else { "ELSIF" },
                limit = self.rows_max.saturating_add(1),
            );
        }
        let schema = identifier(self.schema);
        let body = format!(
            "
#variable_conflict use_column
DECLARE
  touched bigint;
  bytes bigint;
  old_row jsonb;
  new_row jsonb;
  -- Without a description: the whole table.
  described jsonb;
  trouble text;
BEGIN
  BEGIN{branches}
    END IF;
  EXCEPTION WHEN OTHERS THEN
    described := NULL;
    trouble := SQLERRM;
  END;
  INSERT INTO {schema}.outbox (relation, operation, rows, trouble)
  VALUES ({relation}, CASE WHEN described IS NULL THEN 'everything' ELSE lower(TG_OP) END, described, trouble);
  RETURN NULL;
END
",
            relation = literal(self.relation),
        );
        // A role that may write the table need not be allowed to write the outbox; texts must not depend on the
        // session.
        let settings: String = TEXT_SETTINGS
            .iter()
            .map(|(name, value)| format!(" SET {name} = {}", literal(value)))
            .collect();
        format!(
            "CREATE OR REPLACE FUNCTION {schema}.{function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp{settings} AS {body};",
            function = identifier(&Self::function_name(self.relation)),
            body = dollar_quoted(&body),
        )
    }

    /// The rows that came or went.
    fn one_image(&self, rows: &str) -> String {
        format!(
            "
        SELECT sum(pg_column_size(doc)), jsonb_build_object('{rows}', jsonb_agg(doc)) INTO bytes, described
        FROM (SELECT {document} AS doc FROM {rows}_rows AS t) AS rows;
        IF bytes > {bytes_max} THEN
          SELECT jsonb_build_object('{rows}', jsonb_agg({keys})) INTO described FROM {rows}_rows AS t;
        END IF;",
            document = document(&self.columns),
            keys = document(&self.keys),
            bytes_max = self.bytes_max,
        )
    }

    /// The rows that changed, as they were and as they are. What is in both is left out.
    ///
    /// One row is most often all there is, and comparing two rows takes a third of what comparing two sets of them
    /// does.
    fn both_images(&self) -> String {
        format!(
            "
        IF touched = 1 THEN
          SELECT (SELECT {document} FROM old_rows AS t), (SELECT {document} FROM new_rows AS t) INTO old_row, new_row;
          IF old_row = new_row THEN RETURN NULL; END IF;
          bytes := pg_column_size(old_row) + coalesce(pg_column_size(new_row), 0);
          described := jsonb_build_object('old', jsonb_build_array(old_row),
            'new', CASE WHEN new_row IS NULL THEN '[]' ELSE jsonb_build_array(new_row) END);
        ELSE
        WITH was_rows AS (SELECT {document} AS doc FROM old_rows AS t),
             now_rows AS (SELECT {document} AS doc FROM new_rows AS t),
             gone AS (SELECT doc FROM was_rows EXCEPT ALL SELECT doc FROM now_rows),
             come AS (SELECT doc FROM now_rows EXCEPT ALL SELECT doc FROM was_rows),
             was AS (SELECT jsonb_agg(doc) AS rows, sum(pg_column_size(doc)) AS bytes FROM gone),
             is_now AS (SELECT jsonb_agg(doc) AS rows, sum(pg_column_size(doc)) AS bytes FROM come)
        SELECT coalesce(was.bytes, 0) + coalesce(is_now.bytes, 0),
               jsonb_build_object('old', coalesce(was.rows, '[]'), 'new', coalesce(is_now.rows, '[]'))
        INTO bytes, described FROM was, is_now;
        IF bytes = 0 THEN RETURN NULL; END IF;
        END IF;
        IF bytes > {bytes_max} THEN
          SELECT jsonb_build_object('old', (SELECT jsonb_agg({keys}) FROM old_rows AS t),
                                    'new', coalesce((SELECT jsonb_agg({keys}) FROM new_rows AS t), '[]'))
          INTO described;
        END IF;",
            document = document(&self.columns),
            keys = document(&self.keys),
            bytes_max = self.bytes_max,
        )
    }
}

/// A row of transition table `t` as an object of texts. What is too long to send, or is JSON, is a digest in an object.
fn document(columns: &BTreeSet<String>) -> String {
    let digest = |text: &str| {
        format!("jsonb_build_object('sha256', encode(sha256(convert_to({text}, 'UTF8')), 'hex'))")
    };
    let pairs: Vec<String> = columns
        .iter()
        .map(|name| {
            let (column, form) = Form::parse(name);
            let column = format!("t.{}", identifier(&column));
            let text = text_in(form, &column);
            let value = match form {
                Form::Time => text,
                Form::Text => format!(
                    "CASE WHEN octet_length({text}) > {TEXT_BYTES_MAX} THEN {} ELSE to_jsonb({text}) END",
                    digest(&text)
                ),
                Form::Digest => {
                    format!("CASE WHEN {column} IS NOT NULL THEN {} END", digest(&text))
                }
            };
            format!("{}, {value}", literal(name))
        })
        .collect();
    let objects: Vec<String> = pairs
        .chunks(PAIRS_PER_CALL_MAX)
        .map(|pairs| format!("jsonb_build_object({})", pairs.join(", ")))
        .collect();
    match objects.is_empty() {
        true => "'{}'::jsonb".to_owned(),
        false => objects.join(" || "),
    }
}

/// The statement that waits until every transaction that wrote to a table has ended, and keeps others from beginning,
/// so that none of them is described by a function that knows less than the one that replaces it.
pub(super) fn lock(relation: &str) -> String {
    format!("LOCK TABLE {relation} IN SHARE ROW EXCLUSIVE MODE")
}
