//! What a caller asks for: entity, fields, filters, pagination, context. Plain data with Medusa's
//! names, nothing checked yet; `plan` checks it against the schema.

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A graph query.
///
/// ```
/// use mcache_graph::{Direction, GraphQuery, Pagination};
/// use serde_json::json;
///
/// let query = GraphQuery::new("product")
///     .fields(["id", "title", "variants.sku", "variants.prices.*"])
///     .filters(json!({ "status": "published", "rank": { "$gte": 3 } }))
///     .pagination(Pagination::new().take(20).order("title", Direction::Asc))
///     .context(json!({ "currency_code": "eur" }));
///
/// // The same as Medusa writes it.
/// let written: GraphQuery = serde_json::from_value(json!({
///     "entity": "product",
///     "fields": ["id", "title", "variants.sku", "variants.prices.*"],
///     "filters": { "status": "published", "rank": { "$gte": 3 } },
///     "pagination": { "take": 20, "order": { "title": "ASC" } },
///     "context": { "currency_code": "eur" },
/// }))?;
/// assert_eq!(query, written);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct GraphQuery {
    /// The entity whose rows are wanted: `Product`, `product` or an alias.
    pub entity: String,
    /// Paths of fields: `title`, `variants.sku`; a last segment `*` is every stored field.
    pub fields: Vec<String>,
    /// Which rows; see [`GraphQuery::filters`]. `null` is all of them.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub filters: Value,
    /// Which part of them, in which order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pagination: Option<Pagination>,
    /// Anything the resolver needs to know: a currency, a region, a customer group.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub context: Value,
}

impl GraphQuery {
    /// A query for rows of an entity. It needs [`fields`](Self::fields) too.
    pub fn new(entity: impl Into<String>) -> Self {
        Self {
            entity: entity.into(),
            ..Self::default()
        }
    }

    /// Adds paths of fields.
    #[must_use]
    pub fn fields<S: Into<String>>(mut self, fields: impl IntoIterator<Item = S>) -> Self {
        self.fields.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Sets the filters: an object whose members must all hold.
    ///
    /// | member | holds if |
    /// |---|---|
    /// | `"field": value` | equal; `null`: is null |
    /// | `"field": [values]` | equal to one of them |
    /// | `"field": { "$eq", "$ne", "$gt", "$gte", "$lt", "$lte": value }` | as it says |
    /// | `"field": { "$in", "$nin": [values] }` | equal to one, to none of them |
    /// | `"field": { "$like", "$ilike": pattern }` | matches, `%` any characters, `_` one; `\` escapes |
    /// | `"field": { "$not": { … } }` | the inner conditions do not hold |
    /// | `"relation": { … }` | at least one related row meets these filters |
    /// | `"$and": [ … ]`, `"$or": [ … ]`, `"$not": { … }` | all, any, not |
    ///
    /// As in SQL, a comparison with a null field is neither true nor false, and neither is its
    /// negation: `{ "$ne": "x" }` does not find nulls.
    #[must_use]
    pub fn filters(mut self, filters: Value) -> Self {
        self.filters = filters;
        self
    }

    /// Sets the pagination.
    #[must_use]
    pub fn pagination(mut self, pagination: Pagination) -> Self {
        self.pagination = Some(pagination);
        self
    }

    /// Sets the context.
    #[must_use]
    pub fn context(mut self, context: Value) -> Self {
        self.context = context;
        self
    }
}

/// Which part of the rows, in which order.
///
/// ```
/// use mcache_graph::{Direction, Pagination};
///
/// let second_page = Pagination::new().skip(20).take(20).order("title", Direction::Asc);
/// assert_eq!(second_page.order, [("title".to_owned(), Direction::Asc)]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Pagination {
    /// Rows to leave out at the beginning. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<u64>,
    /// Rows to return at most. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take: Option<u64>,
    /// Fields to sort by, the most significant first; rows equal in all are sorted by key.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        serialize_with = "order_to_map",
        deserialize_with = "order_from_map"
    )]
    pub order: Vec<(String, Direction)>,
}

impl Pagination {
    /// All rows, sorted by key.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves out the first rows.
    #[must_use]
    pub fn skip(mut self, rows: u64) -> Self {
        self.skip = Some(rows);
        self
    }

    /// Returns at most so many rows.
    #[must_use]
    pub fn take(mut self, rows: u64) -> Self {
        self.take = Some(rows);
        self
    }

    /// Sorts by one more field.
    #[must_use]
    pub fn order(mut self, field: impl Into<String>, direction: Direction) -> Self {
        self.order.push((field.into(), direction));
        self
    }
}

/// A direction of sorting. Nulls are last in [`Asc`](Self::Asc) and first in [`Desc`](Self::Desc),
/// as in PostgreSQL. There is no third.
///
/// ```
/// use mcache_graph::Direction;
///
/// assert_eq!(serde_json::to_string(&Direction::Desc)?, r#""DESC""#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// Smallest first.
    #[serde(rename = "ASC", alias = "asc")]
    Asc,
    /// Largest first.
    #[serde(rename = "DESC", alias = "desc")]
    Desc,
}

/// What a query returns; this is what is cached.
///
/// ```
/// use mcache_graph::GraphResult;
/// use serde_json::json;
///
/// // As Medusa writes it.
/// let result: GraphResult = serde_json::from_value(json!({
///     "data": [{ "title": "Shirt" }],
///     "metadata": { "count": 41, "skip": 0, "take": 1 },
/// }))?;
/// assert_eq!(result.data[0]["title"], "Shirt");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GraphResult {
    /// The rows: objects with the fields asked for.
    pub data: Vec<Value>,
    /// How the rows relate to all rows that match; given when the query asks for a part of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

/// Where a page is among all matching rows.
///
/// ```
/// # use std::sync::Arc;
/// # use mcache_graph::{Entity, Graph, GraphOptions, GraphQuery, MemoryResolver, Pagination, Schema};
/// # use serde_json::json;
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let schema = Arc::new(Schema::builder().entity(Entity::new("Product").field("title")).build()?);
/// # let store = Arc::new(MemoryResolver::new(schema.clone()));
/// # for number in 0..3 { store.put("Product", json!({ "id": format!("p{number}") }))?; }
/// # let graph = Graph::builder(schema, store).build();
/// let query = GraphQuery::new("product").fields(["title"]).pagination(Pagination::new().skip(1).take(1));
/// let page = graph.query(&query, &GraphOptions::default()).await?.metadata.unwrap();
/// assert_eq!((page.count, page.skip, page.take), (3, 1, Some(1)));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Metadata {
    /// How many rows match, on all pages.
    pub count: u64,
    /// How many were left out before this page.
    pub skip: u64,
    /// How many were asked for; absent if all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take: Option<u64>,
}

fn order_to_map<S: Serializer>(
    order: &[(String, Direction)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(order.len()))?;
    for (field, direction) in order {
        map.serialize_entry(field, direction)?;
    }
    map.end()
}

/// Reads an object in the order it is written in, which a map type would lose.
fn order_from_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, Direction)>, D::Error> {
    struct InOrder;

    impl<'de> Visitor<'de> for InOrder {
        type Value = Vec<(String, Direction)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object of fields and ASC or DESC")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut order = Vec::new();
            while let Some(entry) = map.next_entry()? {
                order.push(entry);
            }
            Ok(order)
        }
    }

    deserializer.deserialize_map(InOrder)
}
