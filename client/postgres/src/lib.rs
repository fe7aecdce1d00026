//! PostgreSQL: what graph queries read from, and where changes are captured.
//!
//! ```text
//!   Mapping ──┬──▶ Outbox ──install──▶ triggers ──▶ outbox table ──▶ OutboxSource ──▶ Invalidator
//!             └──▶ PostgresResolver ──one statement per level──▶ rows ──▶ mcache_graph::Graph
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
