//! A store's API on PostgreSQL, with a cache that looks after itself.
//!
//! | to see | open |
//! |---|---|
//! | what is cached and what is not | [`schema`] |
//! | how graph, cache, outbox and invalidator are put together | [`store`] |
//! | a cached read, and the header that tells where it came from | [`reads`] |
//! | a write, and what it clears | `api/admin.rs`, `api/complete.rs`, [`changes`] |
//! | what happens to bad input | [`error`], `input.rs` |
//! | a page that compares three stores while visitors come | [`live`] |
//!
//! `docs/storefront.md` tells how to run it and what it showed. Visitors, measurements and the checker that looks for
//! stale answers are in `benches/storefront`.

pub mod api;
pub mod changes;
pub mod config;
pub mod error;
mod input;
pub mod live;
pub mod reads;
pub mod schema;
pub mod seed;
pub mod serve;
pub mod servers;
pub mod stop;
pub mod store;

/// What goes wrong outside of requests: while starting, seeding, measuring.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
