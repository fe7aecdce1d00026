//! Tag-based caching of query results, exact and self-invalidating.

mod cache;
pub mod change;
mod codec;
mod config;
mod entry;
mod envelope;
mod error;
pub mod graph;
mod loaded;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod provider;
mod tags;

pub use bytes::Bytes;

pub use crate::{
    cache::{Cache, Invalidation, Settled},
    codec::{Codec, Json},
    config::Builder,
    entry::{Entry, Target},
    error::{Error, ErrorKind, Result},
    loaded::{Loaded, Served, Source},
    memory::MemoryProvider,
    provider::Provider,
    tags::Tags,
};
