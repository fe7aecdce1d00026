//! Whether the database keeps the keys of the schema: each names one row, and every row has one.
//!
//! Only asks and says so. What follows where it does not is in `docs/postgres.md`: results stay right, and changes
//! clear more than they would have to.

use std::fmt;

use tokio_postgres::GenericClient;

use super::error::PostgresError;
use super::mapping::Mapping;

/// A key of the schema that the database does not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WeakKey {
    /// The entity.
    pub entity: String,
    /// The columns of its key.
    pub columns: Vec<String>,
    /// Whether a unique index keeps two rows from having one key: a valid one, of columns of the key only, without a
    /// condition.
    pub is_unique: bool,
    /// Those of the columns that may be null.
    pub nullable: Vec<String>,
}

impl fmt::Display for WeakKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, key ({}): ", self.entity, self.columns.join(", "))?;
        if !self.is_unique {
            f.write_str("no unique index backs it, so rows that share it are not told apart")?;
        }
        if !self.is_unique && !self.nullable.is_empty() {
            f.write_str("; ")?;
        }
        if !self.nullable.is_empty() {
            write!(
                f,
                "{} may be null: a row with null there cannot be shown, and its changes clear the whole entity",
                self.nullable.join(", ")
            )?;
        }
        Ok(())
    }
}

/// The keys of a mapping that are weak, in order of declaration. A table that is not there has none.
pub(super) async fn weak_keys(
    client: &(impl GenericClient + Sync),
    mapping: &Mapping,
) -> Result<Vec<WeakKey>, PostgresError> {
    let failed = || PostgresError::sql("looking at keys");
    let mut weak = Vec::new();
    for (entity, table) in mapping.entities() {
        let columns: Vec<&str> = entity
            .key_fields()
            .iter()
            .filter_map(|field| table.bare_column(field))
            .collect();
        let row = client
            .query_one(
                "SELECT to_regclass($1) IS NULL OR EXISTS (
                   SELECT FROM pg_index AS i WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid
                     AND i.indpred IS NULL AND i.indexprs IS NULL
                     AND (SELECT bool_and(a.attname::text = ANY ($2::text[]))
                          FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, position)
                          JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                          WHERE k.position <= i.indnkeyatts)),
                   ARRAY(SELECT a.attname::text FROM pg_attribute AS a
                         WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND NOT a.attnotnull
                           AND a.attname::text = ANY ($2::text[]) ORDER BY array_position($2::text[], a.attname::text))",
                &[&table.quoted, &columns],
            )
            .await
            .map_err(failed())?;
        let key = WeakKey {
            entity: entity.name().into(),
            columns: columns.into_iter().map(str::to_owned).collect(),
            is_unique: row.try_get(0).map_err(failed())?,
            nullable: row.try_get(1).map_err(failed())?,
        };
        if !key.is_unique || !key.nullable.is_empty() {
            weak.push(key);
        }
    }
    Ok(weak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_weak_about_a_key_is_a_sentence() {
        let key = |is_unique, nullable: &[&str]| WeakKey {
            entity: "Order".into(),
            columns: vec!["tenant".into(), "id".into()],
            is_unique,
            nullable: nullable.iter().map(|&name| name.to_owned()).collect(),
        };
        assert_eq!(
            key(false, &[]).to_string(),
            "Order, key (tenant, id): no unique index backs it, so rows that share it are not told apart"
        );
        assert_eq!(
            key(true, &["tenant"]).to_string(),
            "Order, key (tenant, id): tenant may be null: a row with null there cannot be shown, and its changes clear the \
             whole entity"
        );
        assert!(
            key(false, &["id"])
                .to_string()
                .contains("told apart; id may be null")
        );
    }
}
