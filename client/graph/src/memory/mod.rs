//! A resolver over tables in memory: for tests, examples and small fixed data.
//!
//! Complete, in that it does all a resolver must, and slow, in that it looks at every row.

mod condition;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use condition::{Conditions, present};
use serde_json::Value;

use super::compare::compare_in;
use super::error::ResolverError;
use super::query::Direction;
use super::resolver::{BoxFuture, Fetch, List, Resolver, Row, Rows, Select};
use super::schema::{Entity, FieldType, Name, Schema, joined};
use mcache::change::{ChangeEvent, Operation};

/// Makes the value of a computed field: from all tables, the row and the query's context.
type Compute = dyn Fn(&Tables, &Row, &Value) -> Value + Send + Sync;

/// A resolver over tables in memory. Every change answers with the event that tells of it.
///
/// ```
/// use std::sync::Arc;
/// use mcache_graph::{Entity, Graph, GraphOptions, GraphQuery, MemoryResolver, Relation, Schema};
/// use serde_json::json;
///
/// let schema = Arc::new(
///     Schema::builder()
///         .entity(
///             Entity::new("Product")
///                 .field("title")
///                 .relation(Relation::has_many("variants", "Variant", "product_id")),
///         )
///         .entity(Entity::new("Variant").fields(["sku", "product_id"]))
///         .build()?,
/// );
/// let store = Arc::new(MemoryResolver::new(schema.clone()));
/// store.put("Product", json!({ "id": "p1", "title": "Shirt" }))?;
/// store.put("Variant", json!({ "id": "v1", "sku": "S", "product_id": "p1" }))?;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let graph = Graph::builder(schema, store).build();
/// let query = GraphQuery::new("product").fields(["title", "variants.sku"]);
/// let result = graph.query(&query, &GraphOptions::default()).await.unwrap();
/// assert_eq!(result.data, [json!({ "title": "Shirt", "variants": [{ "sku": "S" }] })]);
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MemoryResolver {
    schema: Arc<Schema>,
    tables: RwLock<Tables>,
    computed: HashMap<(String, String), Box<Compute>>,
}

/// The rows of each entity, by key.
#[derive(Debug, Default)]
pub struct Tables {
    rows: HashMap<String, BTreeMap<String, Row>>,
    /// The soft-delete field of those entities that have one.
    soft_delete: HashMap<String, String>,
}

impl Tables {
    /// The rows of an entity that are not soft-deleted, by id.
    pub fn rows(&self, entity: &str) -> impl Iterator<Item = &Row> {
        let soft_delete = self.soft_delete.get(entity);
        let all = self.rows.get(entity).into_iter().flat_map(BTreeMap::values);
        all.filter(move |row| soft_delete.is_none_or(|field| present(row, field).is_none()))
    }

    /// Those whose fields have the values that a row has in others.
    fn with<'a>(
        &'a self,
        entity: &'a Entity,
        fields: &'a [Name],
        of: &'a Row,
        theirs: &'a [Name],
    ) -> impl Iterator<Item = &'a Row> {
        let wanted = joined(fields.iter().zip(theirs).map(|(field, theirs)| {
            let kind = entity.get_field(field)?.kind();
            kind.identity(of.get(&**theirs)?)
        }));
        self.rows(entity.name()).filter(move |row| {
            let found = entity.identity_in(fields, row);
            found.is_some() && found == wanted
        })
    }
}

/// A row that a table cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The schema does not have the entity.
    #[error("memory resolver: unknown entity {entity:?}")]
    UnknownEntity {
        /// The name.
        entity: String,
    },
    /// The row is not an object, or a field of its key is missing, null or not of its type.
    #[error("memory resolver: a row of {entity} must be an object with {key}")]
    Row {
        /// The entity.
        entity: String,
        /// The fields of its key.
        key: String,
    },
}

impl MemoryResolver {
    /// Empty tables.
    pub fn new(schema: Arc<Schema>) -> Self {
        let soft_delete = schema.entities().iter().filter_map(|entity| {
            let field = entity.soft_delete_field()?;
            Some((entity.name().to_owned(), field.to_owned()))
        });
        Self {
            tables: RwLock::new(Tables {
                rows: HashMap::new(),
                soft_delete: soft_delete.collect(),
            }),
            schema,
            computed: HashMap::new(),
        }
    }

    /// Defines a computed field.
    #[must_use]
    pub fn compute<F>(mut self, entity: &str, field: &str, compute: F) -> Self
    where
        F: Fn(&Tables, &Row, &Value) -> Value + Send + Sync + 'static,
    {
        let key = (entity.to_owned(), field.to_owned());
        self.computed.insert(key, Box::new(compute));
        self
    }

    /// Inserts a row, or replaces the one with its key.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] if the entity is unknown or the row has no key.
    pub fn put(&self, entity: &str, row: Value) -> Result<ChangeEvent, MemoryError> {
        let entity = self.entity(entity)?;
        let bad_row = || bad_row(entity);
        let Value::Object(row) = row else {
            return Err(bad_row());
        };
        let identity = entity.identity_in(&entity.key, &row);
        let id = identity.ok_or_else(bad_row)?.into_owned();
        let mut tables = self.write();
        let table = tables.rows.entry(entity.name().to_owned()).or_default();
        let before = table.insert(id.clone(), row.clone());
        let operation = match (&before, entity.is_link()) {
            (Some(_), _) => Operation::Updated,
            (None, true) => Operation::Attached,
            (None, false) => Operation::Created,
        };
        let event = ChangeEvent::new(entity.name(), operation, [id.clone()]).with_after(&id, row);
        Ok(match before {
            Some(before) => event.with_before(id, before),
            None => event,
        })
    }

    /// Changes some fields of a row, never its key; `None` if there is no such row. A row whose key has several fields
    /// is named as [`key_text`](crate::key_text) writes it.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] if the entity is unknown or `fields` is not an object.
    pub fn update(
        &self,
        entity: &str,
        id: &str,
        fields: Value,
    ) -> Result<Option<ChangeEvent>, MemoryError> {
        let entity = self.entity(entity)?;
        let Value::Object(mut fields) = fields else {
            return Err(bad_row(entity));
        };
        // A row with another key is another row.
        fields.retain(|name, _| !entity.key.iter().any(|key| **key == **name));
        let mut tables = self.write();
        let table = tables.rows.get_mut(entity.name());
        let Some(row) = table.and_then(|table| table.get_mut(id)) else {
            return Ok(None);
        };
        let before = row.clone();
        let names: Vec<String> = fields.keys().cloned().collect();
        row.extend(fields);
        let event = ChangeEvent::new(entity.name(), Operation::Updated, [id])
            .with_before(id, before)
            .with_after(id, row.clone())
            .with_changed(names);
        Ok(Some(event))
    }

    /// Removes a row; `None` if there is no such row.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] if the entity is unknown.
    pub fn remove(&self, entity: &str, id: &str) -> Result<Option<ChangeEvent>, MemoryError> {
        let entity = self.entity(entity)?;
        let mut tables = self.write();
        let table = tables.rows.get_mut(entity.name());
        let Some(before) = table.and_then(|table| table.remove(id)) else {
            return Ok(None);
        };
        let operation = match entity.is_link() {
            true => Operation::Detached,
            false => Operation::Deleted,
        };
        let event = ChangeEvent::new(entity.name(), operation, [id]).with_before(id, before);
        Ok(Some(event))
    }

    /// The row as it is, soft-deleted or not.
    pub fn get(&self, entity: &str, id: &str) -> Option<Row> {
        let entity = self.schema.entity(entity)?;
        self.read().rows.get(entity.name())?.get(id).cloned()
    }

    /// The ids of all rows of an entity, soft-deleted or not, in order.
    pub fn ids(&self, entity: &str) -> Vec<String> {
        let entity = self.schema.entity(entity);
        let tables = self.read();
        let table = entity.and_then(|entity| tables.rows.get(entity.name()));
        table
            .into_iter()
            .flat_map(BTreeMap::keys)
            .cloned()
            .collect()
    }

    fn entity(&self, name: &str) -> Result<&Entity, MemoryError> {
        self.schema
            .entity(name)
            .ok_or_else(|| MemoryError::UnknownEntity {
                entity: name.into(),
            })
    }

    fn answer(&self, fetch: &Fetch<'_>) -> Rows {
        let tables = self.read();
        let project = |row: &Row| self.project(&tables, fetch, row);
        match fetch.select {
            Select::Keys {
                field,
                values,
                order,
            } => {
                let kind = fetch.entity.get_field(field).map(|field| field.kind());
                let kind = kind.unwrap_or(FieldType::Json);
                let wanted: HashSet<Cow<'_, str>> = values
                    .iter()
                    .filter_map(|value| kind.identity(value))
                    .collect();
                let is_wanted = |row: &&Row| {
                    let found = row.get(&**field).and_then(|found| kind.identity(found));
                    found.is_some_and(|found| wanted.contains(&found))
                };
                let mut rows: Vec<&Row> =
                    tables.rows(fetch.entity.name()).filter(is_wanted).collect();
                sort(&mut rows, order);
                Rows {
                    rows: rows.into_iter().map(project).collect(),
                    count: None,
                }
            }
            Select::Tuples {
                fields,
                values,
                order,
            } => {
                let kinds: Vec<FieldType> = fields
                    .iter()
                    .filter_map(|field| Some(fetch.entity.get_field(field)?.kind()))
                    .collect();
                let tuples = values.iter().filter_map(Value::as_array);
                let wanted: HashSet<Cow<'_, str>> = tuples
                    .filter_map(|tuple| {
                        let parts = kinds.iter().zip(tuple);
                        joined(parts.map(|(kind, value)| kind.identity(value)))
                    })
                    .collect();
                let is_wanted = |row: &&Row| {
                    let found = fetch.entity.identity_in(fields, row);
                    found.is_some_and(|found| wanted.contains(&found))
                };
                let mut rows: Vec<&Row> =
                    tables.rows(fetch.entity.name()).filter(is_wanted).collect();
                sort(&mut rows, order);
                Rows::new(rows.into_iter().map(project).collect())
            }
            Select::List(list) => {
                let rows = self.list(&tables, fetch.entity, &list);
                let skip = usize::try_from(list.skip).unwrap_or(usize::MAX);
                let take = list.take.and_then(|take| usize::try_from(take).ok());
                let page = rows.iter().skip(skip).take(take.unwrap_or(usize::MAX));
                Rows {
                    count: list.count.then_some(rows.len() as u64),
                    rows: page.map(|row| project(row)).collect(),
                }
            }
        }
    }

    fn list<'t>(&self, tables: &'t Tables, entity: &Entity, list: &List<'_>) -> Vec<&'t Row> {
        let conditions = Conditions {
            schema: &self.schema,
            tables,
        };
        let mut rows: Vec<&Row> = tables
            .rows(entity.name())
            .filter(|row| conditions.holds(entity, list.filter, row) == Some(true))
            .collect();
        sort(&mut rows, list.order);
        rows
    }

    /// The fields asked for: stored ones copied, computed ones made.
    fn project(&self, tables: &Tables, fetch: &Fetch<'_>, row: &Row) -> Row {
        let mut projected = Row::new();
        for name in fetch.fields {
            let key = || (fetch.entity.name().to_owned(), name.to_string());
            let is_computed = fetch
                .entity
                .get_field(name)
                .is_some_and(|f| f.is_computed());
            let value = if is_computed {
                let compute = self.computed.get(&key());
                compute.map_or(Value::Null, |compute| compute(tables, row, fetch.context))
            } else {
                row.get(&**name).cloned().unwrap_or(Value::Null)
            };
            projected.insert(name.to_string(), value);
        }
        projected
    }

    // Every state a panicking caller can leave the tables in is valid: a poisoned lock is taken all the same.
    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.read();
        let rows = tables
            .rows
            .iter()
            .map(|(entity, rows)| (entity, rows.len()));
        f.debug_map().entries(rows).finish()
    }
}

impl Resolver for MemoryResolver {
    /// None of its rows changes by itself.
    fn next_boundary<'a>(
        &'a self,
        _entity: &'a Entity,
        _fields: &'a [Name],
    ) -> BoxFuture<'a, Result<Option<Duration>, ResolverError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn fetch<'a>(&'a self, fetch: Fetch<'a>) -> BoxFuture<'a, Result<Rows, ResolverError>> {
        Box::pin(async move { Ok(self.answer(&fetch)) })
    }
}

fn sort(rows: &mut [&Row], order: &[(Name, Direction)]) {
    rows.sort_by(|a, b| {
        let orders = order
            .iter()
            .map(|(field, direction)| compare_in(a.get(&**field), b.get(&**field), *direction));
        orders.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    });
}

fn bad_row(entity: &Entity) -> MemoryError {
    MemoryError::Row {
        entity: entity.name().into(),
        key: entity.key.join(", "),
    }
}
