//! Tag-based caching of query results, exact and self-invalidating.

mod batch;
mod cache;
pub mod change;
mod codec;
mod config;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod entry;
mod envelope;
mod error;
mod flight;
mod grant;
pub mod graph;
mod invalidation;
mod load;
mod loaded;
pub mod memory;
mod outbox;
mod policy;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod provider;
pub mod server;
mod tags;
mod telemetry;

pub use bytes::Bytes;

pub use crate::{
    batch::Batch,
    cache::Cache,
    codec::{Codec, Json},
    config::Builder,
    entry::{Entry, Filling, Target},
    error::{Error, ErrorKind, Result},
    invalidation::{Invalidation, Settled},
    loaded::{Loaded, Served, Source},
    memory::MemoryProvider,
    provider::Provider,
    server::RedisProvider,
    tags::Tags,
};
