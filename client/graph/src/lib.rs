//! Graph queries whose results stay cached until the data they were made from changes.
//!
//! A [`Schema`] says what the data looks like, a [`Resolver`] reads it, a [`Graph`] answers
//! [`GraphQuery`]s over both. With a [`Cache`](mcache::Cache) and `cache: { enable: true }` the answer
//! is kept, tagged with what it was made from; [`ChangeTags`] turns each change of data into the tags to
//! clear. No code of yours writes an invalidation.
//!
//! ```
//! use mcache_graph::{Entity, Field, Graph, GraphOptions, GraphQuery, MemoryResolver, Relation, Schema};
//! use serde_json::json;
//! use std::sync::Arc;
//!
//! let schema = Arc::new(
//!     Schema::builder()
//!         .entity(
//!             Entity::new("Product")
//!                 .fields([Field::text("title"), Field::text("status").lookup()])
//!                 .relation(Relation::has_many("variants", "ProductVariant", "product_id")),
//!         )
//!         .entity(Entity::new("ProductVariant").fields(["sku", "product_id"]))
//!         .build()?,
//! );
//! let store = Arc::new(MemoryResolver::new(schema.clone()));
//! store.put("Product", json!({ "id": "p1", "title": "Shirt", "status": "published" }))?;
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let graph = Graph::builder(schema, store.clone()).build();
//! let published = GraphQuery::new("product")
//!     .fields(["title", "variants.sku"])
//!     .filters(json!({ "status": "published" }));
//! let answer = graph.load(&published, &GraphOptions::default()).await?;
//! let made_from = answer.tags().tags;
//! assert_eq!(answer.into_result().data, [json!({ "title": "Shirt", "variants": [] })]);
//!
//! // A first variant of the product concerns the list; a draft does not.
//! let clears = |event| graph.change_tags().of(&event).unwrap().iter().any(|tag| made_from.contains(tag));
//! let variant = json!({ "id": "v1", "sku": "S", "product_id": "p1" });
//! assert!(clears(store.put("ProductVariant", variant).unwrap()));
//! let draft = json!({ "id": "p2", "title": "Hat", "status": "draft" });
//! assert!(!clears(store.put("Product", draft).unwrap()));
//! # Ok::<(), mcache_graph::GraphError>(()) }).unwrap();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What tags say and why that is enough: `docs/graph.md`.

#![warn(missing_debug_implementations)]

mod assemble;
mod compare;
mod cover;
mod each;
mod error;
mod filter;
mod handle;
mod key;
mod load;
mod memory;
mod options;
mod plan;
mod query;
mod resolver;
mod schema;
mod tags;
mod tagset;
#[cfg(test)]
mod tests;

pub use error::{GraphError, QueryError, ResolverError};
pub use filter::{Comparison, Filter};
pub use handle::{Answer, Graph, GraphBuilder, GraphStats};
pub use key::compute_key;
pub use mcache::change::{key_parts, key_text};
pub use memory::{MemoryError, MemoryResolver, Tables};
pub use options::{CacheOptions, GraphOptions};
pub use query::{Direction, GraphQuery, GraphResult, Metadata, Pagination};
pub use resolver::{BoxFuture, Fetch, List, Resolver, Row, Rows, Select};
pub use schema::{
    Dependency, Entity, Field, FieldNames, FieldType, Name, Relation, Schema, SchemaBuilder,
    SchemaError, Through,
};
pub use tags::{ChangeTags, Precision, ResultTags, TagLimits, UnknownEntity, compatible_tags};
pub use tagset::TagSet;
