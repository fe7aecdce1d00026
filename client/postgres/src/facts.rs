//! What the database says of the columns of a mapping.
//!
//! Owns one question: which values of a column are equal. It decides how a filter is written, and whether a field can
//! be a key or a lookup, whose values become part of tags: equal values must then have one spelling.

use std::collections::HashMap;

use mcache_graph::FieldType;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::error::PostgresError;
use super::mapping::{Mapping, stored_fields};
use super::sql::quoted_text;
use super::timing::in_time;

/// How values of a column compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Equality {
    /// Equal values have one text, and any text may be compared with it.
    #[default]
    Text,
    /// The same, but the order is not that of the texts, and not every text is a value: enumerations, UUIDs, numbers.
    Ordered,
    /// An equality of its own: one value has several texts.
    Own,
}

/// Types of which equal values have one text, when the collation is deterministic.
const TEXTS: [&str; 3] = ["text", "varchar", "name"];
const ORDERED: [&str; 10] = [
    "uuid", "int2", "int4", "int8", "oid", "bool", "bytea", "macaddr", "macaddr8", "char",
];

/// Types with which numbers of more digits are compared rounded.
const FLOATS: [&str; 2] = ["float4", "float8"];

/// What the catalogue says of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    /// The name of its type, of a domain the one below.
    kind: String,
    equality: Equality,
    /// Computed when it is read (PostgreSQL 18): there is nothing stored that a trigger could see.
    is_virtual: bool,
}

impl Column {
    /// From its type's name and `typtype`, whether its collation is deterministic, and its `attgenerated`.
    fn of(kind: &str, class: &str, deterministic: &str, generated: &str) -> Self {
        let equality = match deterministic == "t" {
            true if TEXTS.contains(&kind) => Equality::Text,
            true if class == "e" || ORDERED.contains(&kind) => Equality::Ordered,
            _ => Equality::Own,
        };
        Self {
            kind: kind.to_owned(),
            equality,
            is_virtual: generated == "v",
        }
    }
}

/// What is known of the columns.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// By table and column.
    columns: HashMap<(String, String), Column>,
}

impl Facts {
    /// Asks the server. Not with a prepared statement, which a pooler could lose.
    pub(super) async fn load(client: &Client, mapping: &Mapping) -> Result<Self, PostgresError> {
        let relations: Vec<String> = mapping
            .entities()
            .map(|(_, table)| quoted_text(&table.quoted))
            .collect();
        let sql = format!(
            "SELECT r.relation, a.attname, t.typname, t.typtype, coalesce(c.collisdeterministic, true),
               a.attgenerated
             FROM unnest(ARRAY[{}]::text[]) AS r (relation)
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = to_regclass(r.relation) AND a.attnum > 0 AND NOT a.attisdropped
             JOIN LATERAL (
               WITH RECURSIVE base AS (
                 SELECT typname, typtype, typbasetype FROM pg_catalog.pg_type WHERE oid = a.atttypid
                 UNION ALL SELECT b.typname, b.typtype, b.typbasetype
                 FROM base JOIN pg_catalog.pg_type AS b ON base.typtype = 'd' AND b.oid = base.typbasetype)
               SELECT * FROM base WHERE typtype <> 'd') AS t ON true
             LEFT JOIN pg_catalog.pg_collation AS c ON c.oid = a.attcollation",
            relations.join(", ")
        );
        let answer = in_time("reading the types of columns", client.simple_query(&sql)).await?;
        let mut columns = HashMap::new();
        for message in answer {
            let SimpleQueryMessage::Row(row) = message else {
                continue;
            };
            let get = |column| row.get(column).unwrap_or_default();
            columns.insert(
                (get(0).to_owned(), get(1).to_owned()),
                Column::of(get(2), get(3), get(4), get(5)),
            );
        }
        Ok(Self { columns })
    }

    /// How the values of a column compare; as texts if nothing is known.
    pub(super) fn equality(&self, relation: &str, column: &str) -> Equality {
        let key = (relation.to_owned(), column.to_owned());
        self.columns
            .get(&key)
            .map_or(Equality::default(), |column| column.equality)
    }

    /// Whether every key and lookup has values that can be part of a tag.
    pub(super) fn check(&self, mapping: &Mapping) -> Result<(), PostgresError> {
        for (entity, table) in mapping.entities() {
            for field in stored_fields(entity) {
                let is_matched = entity.is_matched_by(field.name());
                let Some(column) = table.bare_column(field.name()).filter(|_| is_matched) else {
                    continue;
                };
                let found = self.columns.get(&(table.quoted.clone(), column.to_owned()));
                if let Some(Column { kind, .. }) = found
                    && FLOATS.contains(&&**kind)
                {
                    return Err(PostgresError::Mismatch {
                        entity: entity.name().into(),
                        reason: format!(
                            "column {column} (type {kind}) rounds: numbers that differ can equal one value of it, so {} \
                             can be neither a key nor a lookup. It can be shown, filtered and sorted by; or make the \
                             column an integer or numeric",
                            field.name()
                        ),
                    });
                }
                if let Some(Column {
                    kind,
                    equality: Equality::Own,
                    ..
                }) = found
                    && field.kind() == FieldType::Text
                {
                    return Err(PostgresError::Mismatch {
                        entity: entity.name().into(),
                        reason: format!(
                            "column {column} (type {kind}) has an equality of its own: equal values can be spelled \
                             differently, so {} can be neither a key nor a lookup. It can be shown, filtered and sorted by; \
                             or declare it as what it is (number, timestamp), or give it a deterministic collation",
                            field.name()
                        ),
                    });
                }
            }
        }
        Ok(())
    }
    /// Whether triggers see every column that is needed.
    pub(super) fn check_captured(&self, mapping: &Mapping) -> Result<(), PostgresError> {
        for (entity, table) in mapping.entities() {
            for field in stored_fields(entity) {
                let Some(column) = table.bare_column(field.name()) else {
                    continue;
                };
                let found = self.columns.get(&(table.quoted.clone(), column.to_owned()));
                if found.is_some_and(|found| found.is_virtual) {
                    return Err(PostgresError::Mismatch {
                        entity: entity.name().into(),
                        reason: format!(
                            "column {column} is a virtual generated column: it is computed when it is read, so no trigger \
                             sees its value change. Make it STORED, or map the columns that it is computed from"
                        ),
                    });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mcache_graph::{Entity, Schema};

    use super::*;
    use crate::Table;

    #[test]
    fn a_column_is_what_its_row_of_the_catalogue_says() {
        for (row, equality, is_virtual) in [
            (["text", "b", "t", ""], Equality::Text, false),
            (["text", "b", "f", "s"], Equality::Own, false),
            (["mood", "e", "t", "v"], Equality::Ordered, true),
            (["int8", "b", "t", "v"], Equality::Ordered, true),
            (["inet", "b", "t", "s"], Equality::Own, false),
        ] {
            let [kind, class, deterministic, generated] = row;
            let column = Column::of(kind, class, deterministic, generated);
            let kind = kind.to_owned();
            assert_eq!(
                column,
                Column {
                    kind,
                    equality,
                    is_virtual
                }
            );
        }
    }

    #[test]
    fn a_virtual_column_is_refused_whatever_reads_it() {
        let schema = Schema::builder()
            .entity(Entity::new("Product").fields(["title", "slug"]))
            .build();
        let mapping = Mapping::builder(Arc::new(schema.unwrap()))
            .table("Product", Table::named("product").column("slug", "a slug"))
            .build()
            .unwrap();
        for (generated, refused) in [("", false), ("s", false), ("v", true)] {
            for (column, needed) in [("a slug", true), ("id", true), ("other", false)] {
                let key = (r#""public"."product""#.to_owned(), column.to_owned());
                let facts = Facts {
                    columns: HashMap::from([(key, Column::of("text", "b", "t", generated))]),
                };
                facts.check(&mapping).unwrap();
                let checked = facts.check_captured(&mapping);
                assert_eq!(checked.is_err(), refused && needed, "{column} {generated}");
                if let Err(error) = checked {
                    let words = error.to_string();
                    assert!(
                        words.contains(column) && words.contains("STORED"),
                        "{words}"
                    );
                }
            }
        }
    }
}
