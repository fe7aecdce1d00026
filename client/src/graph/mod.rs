//! Graph queries.

mod error;
mod filter;
mod query;
mod resolver;
mod schema;

pub use error::{GraphError, QueryError};
pub use filter::{Comparison, Filter};
pub use query::{Direction, GraphQuery, GraphResult, Metadata, Pagination};
pub use resolver::{BoxFuture, Fetch, List, Resolver, ResolverError, Row, Rows, Select};
pub use schema::{
    Dependency, Entity, Field, FieldType, Name, Relation, Schema, SchemaBuilder, SchemaError,
    Through,
};
