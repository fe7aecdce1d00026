//! What can go wrong between a query and its result. A cache that is down is not among it.

use std::error::Error;
use std::sync::Arc;

use super::schema::Entity;

/// A resolver's own error; the graph hands it to the caller as the source of its error.
pub type ResolverError = Box<dyn Error + Send + Sync>;

/// Why a query has no result.
///
/// ```
/// use std::sync::Arc;
/// use mcache_graph::{Entity, Graph, GraphError, GraphOptions, GraphQuery, MemoryResolver, QueryError, Schema};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let schema = Arc::new(Schema::builder().entity(Entity::new("Product").field("title")).build()?);
/// let graph = Graph::builder(schema.clone(), MemoryResolver::new(schema)).build();
/// let query = GraphQuery::new("product").fields(["titel"]);
/// let error = graph.query(&query, &GraphOptions::default()).await.unwrap_err();
/// assert!(matches!(error, GraphError::Query(QueryError::UnknownField { .. })));
/// assert_eq!(error.to_string(), "query: Product has no field \"titel\"");
/// # Ok::<(), mcache_graph::SchemaError>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The query does not fit the schema.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The resolver failed.
    #[error("graph: fetching {entity} failed")]
    Resolver {
        /// The entity being fetched.
        entity: String,
        /// The resolver's own error.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The resolver could not say where its rows come from, without which there is no key.
    #[error("graph: where the rows come from is not known")]
    Origin {
        /// The resolver's own error.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The resolver returned a row without its key or without a key rows are matched by.
    #[error("graph: the resolver returned a row of {entity} without a usable {field}")]
    Row {
        /// The entity being fetched.
        entity: String,
        /// The field that is missing, null or of the wrong type.
        field: String,
    },
    /// The resolver was asked how many rows match and did not say.
    #[error("graph: the resolver returned no count of {entity}")]
    Count {
        /// The entity being fetched.
        entity: String,
    },
    /// `throw_if_key_not_found` was set and a row asked for by key does not exist.
    #[error("graph: {entity} with id {id} was not found")]
    NotFound {
        /// The entity.
        entity: String,
        /// The key, as [`key_text`](crate::key_text) writes it.
        id: String,
    },
}

impl GraphError {
    pub(crate) fn resolver(entity: &Entity, source: ResolverError) -> Self {
        Self::Resolver {
            entity: entity.name().into(),
            source: source.into(),
        }
    }
}

/// How a query does not fit the schema.
///
/// ```
/// use mcache_graph::{Entity, Filter, QueryError, Schema};
/// use serde_json::json;
///
/// let schema = Schema::builder().entity(Entity::new("Product").field("title")).build()?;
/// let product = schema.entity("Product").unwrap();
/// let error = Filter::parse(&schema, product, &json!({ "title": { "$near": "x" } })).unwrap_err();
/// assert!(matches!(error, QueryError::Filter { .. }), "{error}");
/// # Ok::<(), mcache_graph::SchemaError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The entity is not declared, or is a link entity.
    #[error("query: unknown entity {entity:?}")]
    UnknownEntity {
        /// The name in the query.
        entity: String,
    },
    /// The field is not declared.
    #[error("query: {entity} has no field {field:?}")]
    UnknownField {
        /// The entity.
        entity: String,
        /// The name in the query.
        field: String,
    },
    /// A path goes on behind something that is not a relation.
    #[error("query: {entity} has no relation {relation:?} (path {path:?})")]
    UnknownRelation {
        /// The entity.
        entity: String,
        /// The name in the query.
        relation: String,
        /// The whole path.
        path: String,
    },
    /// A path ends at a relation.
    #[error("query: path {path:?} ends at a relation: name its fields, or write {path}.*")]
    RelationWithoutFields {
        /// The path.
        path: String,
    },
    /// A path follows the same relation twice.
    #[error("query: path {path:?} is a cycle: it follows {relation:?} twice")]
    Cycle {
        /// The path.
        path: String,
        /// The relation.
        relation: String,
    },
    /// A path has too many segments.
    #[error("query: path {path:?} is longer than {max} segments")]
    PathTooLong {
        /// The path.
        path: String,
        /// The limit.
        max: usize,
    },
    /// The query asks for no fields.
    #[error("query: no fields are asked for")]
    NoFields,
    /// A filter is malformed.
    #[error("query: filter on {entity}, at {at:?}: {why}")]
    Filter {
        /// The entity.
        entity: String,
        /// The field or operator.
        at: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A field cannot be sorted by.
    #[error("query: {entity} cannot be sorted by {field:?}")]
    Order {
        /// The entity.
        entity: String,
        /// The field.
        field: String,
    },
    /// A query cannot be asked for each value of a field.
    #[error("query: {entity} for each {field:?}: {why}")]
    Each {
        /// The entity.
        entity: String,
        /// The field.
        field: String,
        /// What is wrong.
        why: &'static str,
    },
}
