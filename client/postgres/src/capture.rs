//! The SQL that captures the changes of one table.
//!
//! Owns the text of the trigger functions. It must not run anything: see `install.rs`.
//!
//! One statement of an application makes one row of the outbox, in the same transaction, for any number of
//! consumers. It holds the rows as they were and as they are, without those that did not change, and every value that
//! any consumer needs. One row without long texts, which most statements change, is two lists of texts; other rows are
//! objects of texts in one document. What these rows are, which belong together and what happened to them is for each
//! consumer to say: it knows its entities, their keys and their soft deletion.
//!
//! ```text
//!   UPDATE product SET …              outbox
//!     │ old_rows, new_rows             xid  id  relation  operation   columns    was     is_now  rows
//!     ▼                                901  17  product   update      {id,rank}  {p1,7}  {p1,8}
//!   capture_product_5f3a…()  ────────▶ 903  18  product   delete                               {"old": […]}
//!                                      905  19  product   everything  (too many rows; TRUNCATE)
//! ```
//!
//! Three things a trigger of ours must never do to the application's own write: fail (what goes wrong while the change
//! is described becomes a change of the whole table with the reason beside it), become slow with the size of the
//! statement (rows are counted first, up to a limit; old and new rows are told apart by hashing, because a join planned
//! for one row would be reused for thousands), or use up transaction ids (nothing is written inside the exception
//! block).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::form::Form;
use super::sql::{TEXT_SETTINGS, dollar_quoted, identifier, literal, plain_in, shortened, text_in};

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
    /// The types of the table's columns: see [`plain_in`].
    pub(super) types: &'a BTreeMap<String, String>,
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
    ///
    /// Setting something for a function and back costs as much as the insert. So a function that reads nothing but
    /// columns of types whose texts no setting changes has none, nor a path of schemas: every name and operator in it
    /// says its schema, and it fails (which is caught) if a column has another type than it had here.
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
    {keyword} TG_OP OPERATOR(pg_catalog.=) '{on}' THEN
      SELECT pg_catalog.count(*) INTO touched FROM (SELECT FROM {rows}_rows LIMIT {limit}) AS few;
      IF touched OPERATOR(pg_catalog.=) 0 THEN RETURN NULL; END IF;
      IF touched OPERATOR(pg_catalog.<) {limit} AND TG_NARGS OPERATOR(pg_catalog.=) 0 THEN{described}
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
  touched pg_catalog.int8;
  bytes pg_catalog.int8;
  old_row pg_catalog.jsonb;
  new_row pg_catalog.jsonb;
  -- Without a description: the whole table.
  described pg_catalog.jsonb;
  trouble pg_catalog.text;
  was pg_catalog.text[];
  is_now pg_catalog.text[];
  is_small pg_catalog.bool := false;
  sleeps pg_catalog.bool;
BEGIN{one_row}
  BEGIN{branches}
    END IF;
  EXCEPTION WHEN OTHERS THEN
    described := NULL;
    trouble := SQLERRM;
  END;
  INSERT INTO {schema}.outbox (relation, operation, rows, trouble)
  VALUES ({relation}, CASE WHEN described IS NULL THEN 'everything' ELSE pg_catalog.lower(TG_OP) END, described, trouble);
  PERFORM {schema}.wake({relation});
  RETURN NULL;
END
",
            one_row = self.one_row(),
            relation = literal(self.relation),
        );
        // A role that may write the table need not be allowed to write the outbox; texts must not depend on the
        // session.
        let settings: String = match self.guards() {
            Some(_) => String::new(),
            None => TEXT_SETTINGS.iter().fold(
                "SET search_path = pg_catalog, pg_temp".to_owned(),
                |all, (name, value)| format!("{all} SET {name} = {}", literal(value)),
            ),
        };
        // `CREATE OR REPLACE` leaves no setting of an earlier version.
        format!(
            "CREATE OR REPLACE FUNCTION {schema}.{function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             {settings} AS {body};",
            function = identifier(&Self::function_name(self.relation)),
            body = dollar_quoted(&body),
        )
    }

    /// What fails if a captured column is not of the type it had; `None` if one is of a type whose texts may depend on
    /// more than the value.
    fn guards(&self) -> Option<Vec<String>> {
        self.columns
            .union(&self.keys)
            .map(|name| {
                let (column, form) = Form::parse(name);
                let kind = self.types.get(&column)?;
                plain_in(form, kind, &format!("t.{}", identifier(&column)))
            })
            .collect()
    }

    /// A transition table as `t`, guarded: the guards are read when the statement is planned, and evaluated never.
    fn guarded(&self, rows: &str) -> String {
        let guards: String = self
            .guards()
            .into_iter()
            .flatten()
            .map(|guard| format!(" OR {guard} IS NULL"))
            .collect();
        match guards.is_empty() {
            true => format!("{rows}_rows AS t"),
            false => format!("{rows}_rows AS t WHERE true{guards}"),
        }
    }

    /// The most frequent case by itself: one row, without long texts. Its values are texts in the order of their names,
    /// which takes a third of what an object of them does. Anything else, trouble included, is left to the others.
    fn one_row(&self) -> String {
        // One row and no limit of zero.
        if self.rows_max < 1 {
            return String::new();
        }
        let schema = identifier(self.schema);
        let texts: Vec<String> = self.columns.iter().map(|name| text(name)).collect();
        let texts = format!("ARRAY[{}]::pg_catalog.text[]", texts.join(", "));
        let names: Vec<String> = self.columns.iter().map(|name| literal(name)).collect();
        let names = format!("ARRAY[{}]::pg_catalog.text[]", names.join(", "));
        // Whether some consumer is to be woken. Which, and whether this concerns it, is asked only then.
        let sleeps = format!(
            "EXISTS (SELECT FROM {schema}.lease AS l WHERE l.awake_until OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()
                       AND l.until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())"
        );
        let (old, new) = (self.guarded("old"), self.guarded("new"));
        let bytes_max = self.bytes_max.min(TEXT_BYTES_MAX as i64);
        format!(
            "
  IF TG_NARGS OPERATOR(pg_catalog.=) 0 THEN
    BEGIN
      IF TG_OP OPERATOR(pg_catalog.=) 'UPDATE' THEN
        SELECT {texts}, {sleeps} INTO STRICT was, sleeps FROM {old};
        SELECT {texts} INTO is_now FROM {new};
        IF was OPERATOR(pg_catalog.=) is_now THEN RETURN NULL; END IF;
      ELSIF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN
        SELECT {texts}, {sleeps} INTO STRICT is_now, sleeps FROM {new};
      ELSIF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN
        SELECT {texts}, {sleeps} INTO STRICT was, sleeps FROM {old};
      END IF;
      is_small := coalesce(pg_catalog.pg_column_size(was), 0) OPERATOR(pg_catalog.+)
        coalesce(pg_catalog.pg_column_size(is_now), 0) OPERATOR(pg_catalog.<=) {bytes_max}
        AND TG_OP OPERATOR(pg_catalog.<>) 'TRUNCATE';
    EXCEPTION
      WHEN no_data_found THEN RETURN NULL;
      -- More rows than one, or what the others will say.
      WHEN OTHERS THEN is_small := false;
    END;
    IF is_small THEN
      INSERT INTO {schema}.outbox (relation, operation, columns, was, is_now)
      VALUES ({relation}, pg_catalog.lower(TG_OP), {names}, was, is_now);
      IF sleeps THEN PERFORM {schema}.wake({relation}); END IF;
      RETURN NULL;
    END IF;
  END IF;",
            relation = literal(self.relation),
        )
    }

    /// The rows that came or went.
    fn one_image(&self, rows: &str) -> String {
        format!(
            "
        SELECT pg_catalog.sum(pg_catalog.pg_column_size(doc)),
               pg_catalog.jsonb_build_object('{rows}', pg_catalog.jsonb_agg(doc)) INTO bytes, described
        FROM (SELECT {document} AS doc FROM {from}) AS rows;
        IF bytes OPERATOR(pg_catalog.>) {bytes_max} THEN
          SELECT pg_catalog.jsonb_build_object('{rows}', pg_catalog.jsonb_agg({keys})) INTO described FROM {from};
        END IF;",
            document = document(&self.columns),
            keys = document(&self.keys),
            from = self.guarded(rows),
            bytes_max = self.bytes_max,
        )
    }

    /// The rows that changed, as they were and as they are. What is in both is left out.
    ///
    /// Comparing two rows takes a third of what comparing two sets of them does.
    fn both_images(&self) -> String {
        format!(
            "
        IF touched OPERATOR(pg_catalog.=) 1 THEN
          SELECT (SELECT {document} FROM {old}), (SELECT {document} FROM {new}) INTO old_row, new_row;
          IF old_row OPERATOR(pg_catalog.=) new_row THEN RETURN NULL; END IF;
          bytes := pg_catalog.pg_column_size(old_row) OPERATOR(pg_catalog.+) coalesce(pg_catalog.pg_column_size(new_row), 0);
          described := pg_catalog.jsonb_build_object('old', pg_catalog.jsonb_build_array(old_row),
            'new', CASE WHEN new_row IS NULL THEN '[]' ELSE pg_catalog.jsonb_build_array(new_row) END);
        ELSE
        WITH was_rows AS (SELECT {document} AS doc FROM {old}),
             now_rows AS (SELECT {document} AS doc FROM {new}),
             gone AS (SELECT doc FROM was_rows EXCEPT ALL SELECT doc FROM now_rows),
             come AS (SELECT doc FROM now_rows EXCEPT ALL SELECT doc FROM was_rows),
             before AS (SELECT pg_catalog.jsonb_agg(doc) AS rows, pg_catalog.sum(pg_catalog.pg_column_size(doc)) AS bytes FROM gone),
             after AS (SELECT pg_catalog.jsonb_agg(doc) AS rows, pg_catalog.sum(pg_catalog.pg_column_size(doc)) AS bytes FROM come)
        SELECT coalesce(before.bytes, 0) OPERATOR(pg_catalog.+) coalesce(after.bytes, 0),
               pg_catalog.jsonb_build_object('old', coalesce(before.rows, '[]'), 'new', coalesce(after.rows, '[]'))
        INTO bytes, described FROM before, after;
        IF bytes OPERATOR(pg_catalog.=) 0 THEN RETURN NULL; END IF;
        END IF;
        IF bytes OPERATOR(pg_catalog.>) {bytes_max} THEN
          SELECT pg_catalog.jsonb_build_object('old', (SELECT pg_catalog.jsonb_agg({keys}) FROM {old}),
            'new', coalesce((SELECT pg_catalog.jsonb_agg({keys}) FROM {new}), '[]'))
          INTO described;
        END IF;",
            document = document(&self.columns),
            keys = document(&self.keys),
            old = self.guarded("old"),
            new = self.guarded("new"),
            bytes_max = self.bytes_max,
        )
    }
}

/// A captured value of transition table `t` as text; that of JSON is a digest.
fn text(name: &str) -> String {
    let (column, form) = Form::parse(name);
    let column = format!("t.{}", identifier(&column));
    let text = text_in(form, &column);
    match form {
        Form::Text | Form::Time => text,
        Form::Digest => format!("CASE WHEN {column} IS NOT NULL THEN {} END", digest(&text)),
    }
}

fn digest(text: &str) -> String {
    format!("pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to({text}, 'UTF8')), 'hex')")
}

/// A row of transition table `t` as an object of texts. What is too long to send, or is JSON, is a digest in an object.
fn document(columns: &BTreeSet<String>) -> String {
    let digest = |text: &str| format!("pg_catalog.jsonb_build_object('sha256', {})", digest(text));
    let pairs: Vec<String> = columns
        .iter()
        .map(|name| {
            let (column, form) = Form::parse(name);
            let column = format!("t.{}", identifier(&column));
            let text = text_in(form, &column);
            let value = match form {
                Form::Time => text,
                Form::Text => format!(
                    "CASE WHEN pg_catalog.octet_length({text}) OPERATOR(pg_catalog.>) {TEXT_BYTES_MAX} THEN {} \
                     ELSE pg_catalog.to_jsonb({text}) END",
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
        .map(|pairs| format!("pg_catalog.jsonb_build_object({})", pairs.join(", ")))
        .collect();
    match objects.is_empty() {
        true => "'{}'::pg_catalog.jsonb".to_owned(),
        false => objects.join(" OPERATOR(pg_catalog.||) "),
    }
}

/// The statement that waits until every transaction that wrote to a table has ended, and keeps others from beginning,
/// so that none of them is described by a function that knows less than the one that replaces it.
pub(super) fn lock(relation: &str) -> String {
    format!("LOCK TABLE {relation} IN SHARE ROW EXCLUSIVE MODE")
}
