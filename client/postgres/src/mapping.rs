//! Which table and columns the rows of an entity are stored in.
//!
//! Owns every name that appears in SQL. Nothing that comes from a query, an event or a row ever becomes an identifier;
//! it can only choose among what is here.

use std::collections::HashMap;
use std::sync::Arc;

use mcache_graph::{Entity, Field, Name, Schema};

use super::error::PostgresError;
use super::sql::{IDENTIFIER_BYTES_MAX, identifier};

/// Where the entities of a schema are stored.
///
/// Each entity is in the table of its name in snake_case, each stored field in the column of its name; what differs is
/// said with [`Table`].
///
/// ```
/// use std::sync::Arc;
/// use mcache_graph::{Entity, Field, Schema};
/// use mcache_postgres::{Mapping, Table};
///
/// let schema = Arc::new(
///     Schema::builder()
///         .entity(Entity::new("ProductCollection").field("title"))
///         .entity(Entity::new("Product").field("title").field(Field::timestamp("created_at")))
///         .build()?,
/// );
/// let mapping = Mapping::builder(schema)
///     .table("Product", Table::named("products").in_schema("catalog").column("title", "name"))
///     .build()?;
/// assert_eq!(mapping.table_of("Product"), Some(r#""catalog"."products""#));
/// assert_eq!(mapping.table_of("ProductCollection"), Some(r#""public"."product_collection""#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Mapping {
    schema: Arc<Schema>,
    tables: HashMap<Name, MappedTable>,
}

/// One entity's table, every name quoted.
#[derive(Debug)]
pub(super) struct MappedTable {
    /// Schema and table.
    pub(super) quoted: String,
    /// Column by field, stored fields only, quoted and as it is.
    columns: HashMap<Name, (String, String)>,
}

impl MappedTable {
    /// The quoted column of a stored field.
    pub(super) fn column(&self, field: &str) -> Option<&str> {
        self.columns.get(field).map(|(quoted, _)| quoted.as_str())
    }

    /// The same without quotes.
    pub(super) fn bare_column(&self, field: &str) -> Option<&str> {
        self.columns.get(field).map(|(_, bare)| bare.as_str())
    }
}

impl Mapping {
    /// A mapping by the default names, to be corrected where the database differs.
    pub fn builder(schema: Arc<Schema>) -> MappingBuilder {
        MappingBuilder {
            schema,
            default_schema: "public".to_owned(),
            tables: Vec::new(),
        }
    }

    /// The data model.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The quoted table of an entity.
    pub fn table_of(&self, entity: &str) -> Option<&str> {
        self.tables.get(entity).map(|table| table.quoted.as_str())
    }

    /// A hash of the schema and of where its entities are stored: what tells one release, one tenant and one service
    /// from another.
    pub fn fingerprint(&self) -> u64 {
        let mut described = self.schema.fingerprint().to_le_bytes().to_vec();
        for (entity, table) in self.entities() {
            described.extend_from_slice(table.quoted.as_bytes());
            for field in stored_fields(entity) {
                described.push(0);
                described.extend_from_slice(table.column(field.name()).unwrap_or("").as_bytes());
            }
            described.push(0);
        }
        xxhash_rust::xxh3::xxh3_64(&described)
    }

    /// Every entity with its table.
    pub(super) fn entities(&self) -> impl Iterator<Item = (&Entity, &MappedTable)> {
        self.schema
            .entities()
            .iter()
            .filter_map(|entity| Some((entity, self.tables.get(entity.name())?)))
    }

    /// An entity and its table.
    pub(super) fn entity(&self, name: &str) -> Option<(&Entity, &MappedTable)> {
        let entity = self.schema.entity(name)?;
        Some((entity, self.tables.get(entity.name())?))
    }
}

/// Fields that are in the table: all but the computed ones.
pub(super) fn stored_fields(entity: &Entity) -> impl Iterator<Item = &Field> {
    entity
        .all_fields()
        .iter()
        .filter(|field| !field.is_computed())
}

/// Collects the differences from the default names.
#[derive(Debug)]
pub struct MappingBuilder {
    schema: Arc<Schema>,
    default_schema: String,
    tables: Vec<(String, Table)>,
}

impl MappingBuilder {
    /// The schema of tables that do not name their own. Default: `public`.
    #[must_use]
    pub fn default_schema(mut self, schema: &str) -> Self {
        schema.clone_into(&mut self.default_schema);
        self
    }

    /// Says where an entity is stored. Said again, the last one counts.
    #[must_use]
    pub fn table(mut self, entity: &str, table: Table) -> Self {
        self.tables.push((entity.to_owned(), table));
        self
    }

    /// Checks every name.
    ///
    /// # Errors
    ///
    /// [`PostgresError::Unknown`] for an entity or stored field that the schema does not have,
    /// [`PostgresError::Identifier`] for a name PostgreSQL could not hold. Whether the tables exist is found out when
    /// they are used.
    pub fn build(self) -> Result<Mapping, PostgresError> {
        let mut special = HashMap::new();
        for (name, table) in self.tables {
            let entity = self.schema.entity(&name).ok_or(PostgresError::Unknown {
                what: format!("entity {name}"),
            })?;
            special.insert(entity.name().to_owned(), table);
        }
        let mut tables = HashMap::new();
        for entity in self.schema.entities() {
            let table = special.remove(entity.name()).unwrap_or_default();
            let schema = table.schema.as_deref().unwrap_or(&self.default_schema);
            let name = table
                .name
                .clone()
                .unwrap_or_else(|| snake_case(entity.name()));
            let quoted = format!("{}.{}", checked(schema)?, checked(&name)?);
            let mut columns = HashMap::new();
            let mut different: HashMap<_, _> = table.columns.into_iter().collect();
            for field in stored_fields(entity) {
                let column = different.remove(field.name());
                let column = column.unwrap_or_else(|| field.name().to_owned());
                let quoted = checked(&column)?;
                columns.insert(Name::from(field.name()), (quoted, column));
            }
            if let Some(field) = different.into_keys().next() {
                return Err(PostgresError::Unknown {
                    what: format!("stored field {}.{field}", entity.name()),
                });
            }
            tables.insert(Name::from(entity.name()), MappedTable { quoted, columns });
        }
        Ok(Mapping {
            schema: self.schema,
            tables,
        })
    }
}

/// How an entity's table differs from the default names.
#[derive(Clone, Debug, Default)]
pub struct Table {
    schema: Option<String>,
    name: Option<String>,
    columns: Vec<(String, String)>,
}

impl Table {
    /// The table has this name, exactly: it is quoted.
    pub fn named(name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..Self::default()
        }
    }

    /// The table is in this schema.
    #[must_use]
    pub fn in_schema(mut self, schema: &str) -> Self {
        self.schema = Some(schema.to_owned());
        self
    }

    /// A field is in this column.
    #[must_use]
    pub fn column(mut self, field: &str, column: &str) -> Self {
        self.columns.push((field.to_owned(), column.to_owned()));
        self
    }
}

fn checked(name: &str) -> Result<String, PostgresError> {
    if name.is_empty() || name.len() > IDENTIFIER_BYTES_MAX || name.contains('\0') {
        return Err(PostgresError::Identifier {
            name: name.to_owned(),
        });
    }
    Ok(identifier(name))
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for (position, c) in name.char_indices() {
        if c.is_ascii_uppercase() && position > 0 {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Arc<Schema> {
        let schema = Schema::builder()
            .entity(
                Entity::new("Product")
                    .field("title")
                    .field(Field::computed("stock")),
            )
            .build();
        Arc::new(schema.unwrap())
    }

    #[test]
    fn a_computed_field_has_no_column() {
        let mapping = Mapping::builder(schema()).build().unwrap();
        let (_, table) = mapping.entity("product").unwrap();
        assert_eq!(table.column("title"), Some("\"title\""));
        assert_eq!(table.column("stock"), None);
        let wrong = Table::default().column("stock", "stock");
        let error = Mapping::builder(schema()).table("Product", wrong).build();
        assert!(
            matches!(error, Err(PostgresError::Unknown { what }) if what == "stored field Product.stock")
        );
    }

    #[test]
    fn names_are_checked_against_the_schema_and_postgresql() {
        let build = |entity: &str, table| Mapping::builder(schema()).table(entity, table).build();
        assert!(matches!(
            build("Order", Table::default()),
            Err(PostgresError::Unknown { .. })
        ));
        for name in ["", "a\0b", &"x".repeat(64)] {
            assert!(matches!(
                build("Product", Table::named(name)),
                Err(PostgresError::Identifier { .. })
            ));
        }
        let hostile = build("Product", Table::named(r#"p"; DROP TABLE p; --"#)).unwrap();
        assert_eq!(
            hostile.table_of("Product"),
            Some(r#""public"."p""; DROP TABLE p; --""#)
        );
    }
}
