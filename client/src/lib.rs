//! A cache that forgets what is no longer true.
//!
//! Results are kept under a key and carry tags that name what they were made from. Code that changes something
//! invalidates its tag, and everything made from it is gone: at once, everywhere, and also if it is only being made at
//! that moment. A Redis module keeps the index of tags inside the server; this crate talks to it, and sees to it that
//! having a cache never becomes the application's problem.
//!
//! ```
//! use std::time::Duration;
//! use mcache::{Cache, MemoryProvider};
//! # struct Db;
//! # impl Db { async fn product(&self, id: u32) -> Result<String, std::io::Error> { Ok(format!("product {id}")) } }
//! # let db = Db;
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//!
//! // In production: Cache::builder("redis://127.0.0.1:6379")
//! let cache = Cache::builder_with(MemoryProvider::default())
//!     .namespace("store-eu")
//!     .caching(true)
//!     .build()
//!     .await?;
//!
//! let product: String = cache
//!     .key("product:42")
//!     .ttl(Duration::from_secs(3600))
//!     .tags(["Product:42"])
//!     .get_or_load(|| async { db.product(42).await })
//!     .await?;
//!
//! cache.invalidate(["Product:42"]).await?;
//! # assert_eq!(product, "product 42");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # What you can rely on
//!
//! - **Nothing stale.** Once [`invalidate`](Cache::invalidate) is [acknowledged](Invalidation::is_acknowledged), no
//!   reader of that server gets what was loaded before it, not even from a loader that was under way. On replicas and
//!   across a failover this holds as far as Redis replicates; the project's `docs/consistency.md` says how far.
//! - **One load.** Of all callers in all processes that miss the same key, one calls its
//!   [loader](Entry::get_or_load); the others get its result. If it fails, is dropped or takes too long, the next one
//!   in line takes over.
//! - **Near and not stale.** With [`Builder::near`] values are kept in this process as well, and once an invalidation
//!   is [settled](Invalidation::is_settled) none of them is served that it concerns: not by a process that was stopped,
//!   cut off or told nothing, because it serves under a lease.
//! - **Never the application's problem.** A server that is down, hangs, is full or talks nonsense is as if nothing were
//!   cached. Each call has a [deadline](Builder::command_deadline), and a server that misses several is left alone for
//!   a while. Loaders' errors come back in the caller's own type and are not cached.
//! - **No invalidation is lost.** One that cannot be delivered is sent again until it is acknowledged by every shard of
//!   every provider, or until nothing it concerns can still be alive; [`Invalidation::settled`] tells which. Meanwhile
//!   this process does not read from that provider what it may concern; once the server answers, what is new does not
//!   prolong that.
//! - **One caller asks a source in trouble.** Those who waited for a loader that failed take turns or share its error;
//!   where a stale value is at hand the source is left alone for a moment.
//! - **Nothing is silently uncached.** A server without the module, values too large, too many tags: one line of the
//!   log for each kind and [family](Entry::family) of keys.
//! - **Off until turned on.** Without [`caching(true)`](Builder::caching) or `MEDUSA_FF_CACHING=true` every call goes
//!   straight through and nothing is contacted; a line at INFO says so when the cache is built.
//!
//! # Where to look
//!
//! | to | see |
//! |---|---|
//! | be led from the first value to production | [`guide`] |
//! | configure, and know every default | [`Builder`], [`RedisOptions`](server::RedisOptions) |
//! | connect to one server, a Cluster, Sentinels, over TLS | [`RedisProvider::new`] |
//! | read, store, load one key; several keys | [`Entry`], [`Batch`] |
//! | let the loader name the tags | [`Entry::get_or_load_tagged`] |
//! | load although the caller gives up, refresh in the background | [`Entry::get_or_load_detached`], [`Batch::get_or_load_many_detached`] |
//! | share the error of a source that fails | [`Entry::get_or_load_shared`] |
//! | keep hot values in this process | [`Builder::near`], [`Entry::get_arc`], [`Cache::near_stats`] |
//! | keep bytes that no codec should touch | [`Entry::set_bytes`], [`Entry::get_or_load_bytes`] |
//! | say once how entries are kept | [`Policy`] |
//! | end without losing what is pending | [`Cache::shutdown`] |
//! | serve stale values while one caller refreshes | [`Entry::swr`], [`Entry::stale_if_error`], [`Cache::soft_invalidate`] |
//! | renew what is read often before it expires | [`Entry::early_refresh`] |
//! | know where a value came from | [`Entry::load`], [`Source`] |
//! | cache graph queries with tags computed from query, schema and result | the crate `mcache-graph` |
//! | invalidate what changes in the database | [`change`]; the crate `mcache-postgres` is its source for PostgreSQL |
//! | test without a server | [`MemoryProvider`] |
//! | use a server that loads no module | [`PlainRedisProvider`] |
//! | keep entries somewhere else | [`Provider`] |
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `tls` | `rediss://` addresses |
//! | `conformance` | the tests a [`Provider`] must pass |
//!
//! None is on by default.
//!
//! # What it tells
//!
//! Spans `mcache.load`, `mcache.load_many` and `mcache.invalidate` through [`tracing`], a warning
//! when a provider goes away, and through [`metrics`]:
//!
//! | metric | labels | counts |
//! |---|---|---|
//! | `mcache_client_reads_total` | `outcome`: hit, near, stale, miss, joined, bypass; `family` if [named](Entry::family) | reads, by where the value came from |
//! | `mcache_client_read_seconds` | `outcome` as above; `family` if named | histogram: how long a read takes its caller, the loader included where there was one |
//! | `mcache_client_batch_seconds` | `family` if named | histogram: the same, of several keys read together |
//! | `mcache_client_loader_seconds` | `outcome`: loaded, failed; `family` if named | histogram: how long loaders take |
//! | `mcache_client_refreshes_failed_total` | | refreshes in the background that failed |
//! | `mcache_client_stores_total` | `provider`, `outcome`: stored, refused, failed | values given to a provider |
//! | `mcache_client_unreadable_total` | `reason`: format, codec, schema, compression, too_large, type | entries read as misses because they could not be opened |
//! | `mcache_client_unkept_total` | `reason`: too_large, codec | values served but not kept |
//! | `mcache_client_errors_total` | `provider`, `operation` | calls that failed and were answered as if nothing were cached |
//! | `mcache_client_loader_overruns_total` | | loaders slower than the loader timeout |
//! | `mcache_client_invalidations_total` | `provider`, `outcome`: acknowledged, pending, refused | invalidations, by their first attempt |
//! | `mcache_client_invalidations_pending` | `provider` | gauge: tags and keys still to be acknowledged |
//! | `mcache_client_near_puts_total` | `outcome`: kept, not_kept | values read or stored through a near cache |
//! | `mcache_client_near_drops_total` | `reason`: tag, key, slots, flush, gap, own, evicted, replaced | entries that left a near cache |
//! | `mcache_client_near_lease_seconds` | | gauge: how long the near cache may serve, when the server last answered |
//! | `mcache_client_near_feed_age_seconds` | | histogram: time between two answers of the feed |
//! | `mcache_client_near_bytes` | | gauge: what the entries of the near cache take |
//! | `mcache_client_invalidations_folded_total` | `provider` | times too many were pending and became one of everything |

#![warn(missing_debug_implementations)]

mod background;
mod batch;
mod cache;
pub mod change;
mod codec;
mod complaints;
mod config;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod core;
mod entry;
mod envelope;
mod error;
mod fill;
mod filling;
mod flight;
mod gather;
mod grant;
#[cfg(any(doc, doctest))]
pub mod guide;
mod invalidation;
mod key;
mod load;
mod loaded;
pub mod memory;
mod near;
mod nesting;
mod pending;
mod policy;
pub mod provider;
pub mod server;
mod shared;
mod tags;
mod telemetry;
mod throttle;

pub use bytes::Bytes;

pub use crate::{
    batch::Batch,
    cache::{Cache, ShutdownReport},
    codec::{Codec, Json},
    config::Builder,
    entry::Entry,
    error::{Error, ErrorKind, Result},
    filling::Filling,
    invalidation::{Invalidation, Settled},
    loaded::{Loaded, Served, Source},
    memory::MemoryProvider,
    near::{NearDrops, NearOptions, NearPrimary, NearStats},
    policy::{Policy, Target},
    provider::Provider,
    server::{PlainRedisProvider, RedisProvider},
    tags::{Tags, TagsIter},
};
