//! PostgreSQL: what graph queries read from, and where changes are captured.
//!
//! ```text
//!   Mapping ──┬──▶ Outbox ──install──▶ triggers ──▶ outbox table ──▶ OutboxSource ──▶ Invalidator
//!             └──▶ PostgresResolver ──one statement per level──▶ rows ──▶ mcache_graph::Graph
//! ```
//!
//! ```no_run
//! use std::sync::Arc;
//! use mcache::{Cache, change::Invalidator};
//! use mcache_graph::{Entity, Graph, GraphOptions, GraphQuery, Schema};
//! use mcache_postgres::{Mapping, Outbox, PostgresResolver};
//! use mcache_postgres::tokio_postgres::{Config, NoTls};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config: Config = "postgresql:///shop".parse()?;
//! // Each entity is stored in the table of its name.
//! let schema = Schema::builder().entity(Entity::new("Product").field("title")).build()?;
//! let mapping = Arc::new(Mapping::builder(schema.into()).build()?);
//! let cache = Cache::builder("redis://127.0.0.1:6379").caching(true).build().await?;
//! let resolver = PostgresResolver::new(config.clone(), NoTls, mapping.clone())?;
//! let graph = Graph::builder(mapping.schema().clone(), resolver).cache(cache.clone()).build();
//!
//! // Changes by any program clear what was made from them.
//! let outbox = Outbox::new(mapping, &cache);
//! outbox.install_with(config.clone(), NoTls).await?;
//! let invalidator = Invalidator::builder(outbox.source(config, NoTls), graph.change_tags())
//!     .targets(cache.invalidation_targets())
//!     .spawn();
//!
//! let query = GraphQuery::new("product").fields(["title"]);
//! let products = graph.query(&query, &GraphOptions::cached()).await?;
//! # drop((invalidator, products));
//! # Ok(()) }
//! ```
//!
//! One [`Mapping`] says where the entities of a schema are stored; both halves use it, so that what a change event says
//! of a row is what a query reads of it.

#![warn(missing_debug_implementations)]

mod acknowledge;
mod capture;
mod catalogue;
mod consumer;
mod decode;
mod error;
mod facts;
mod form;
mod install;
mod interest;
mod keys;
mod layout;
mod mapping;
mod outbox;
mod pace;
mod param;
mod patience;
mod place;
mod pooler;
mod position;
mod prune;
mod reader;
mod reading;
mod replicas;
mod resolver;
mod session;
mod settings;
mod source;
mod sql;
mod statement;
mod timing;
mod value;

/// What this crate's functions take and its errors hold: connections, their configuration, pools.
pub use {deadpool_postgres, tokio_postgres};

pub use consumer::{ConsumerName, ConsumerStatus};
pub use error::PostgresError;
pub use keys::WeakKey;
pub use mapping::{Mapping, MappingBuilder, Table};
pub use outbox::{Outbox, OutboxStatus, Pruned};
pub use resolver::PostgresResolver;
pub use source::{OutboxReceipt, OutboxSource};
