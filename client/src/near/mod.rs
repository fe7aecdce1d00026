//! Near caches: values inside this process, served only under a lease from the server that tells what was invalidated.
//!
//! ```text
//!   reads ──▶ Near ──▶ Store      holds the values; read without a lock of ours
//!              │  └──▶ Index      which entries a change concerns
//!              │  └──▶ View       one for each primary: what may be served, kept, must be forgotten (mcache-core)
//!              ▼
//!            Feed       one task a primary: asks what happened, applies it, renews the lease
//! ```
//!
//! - this file: options · `cache.rs`: the near cache of one provider · `reads.rs`: reads that go to the server and what
//!   is kept of them · `feed.rs`: following the primaries · `store.rs`, `index.rs`, `clock.rs`: the parts ·
//!   `stats.rs`: what is told of it
//!
//! Every decision is `mcache_core::near`; nothing here compares numbers of events. What the promise is: `docs/near.md`.

mod cache;
mod clock;
mod feed;
mod index;
mod reads;
mod stats;
mod store;

use cache::Origin;
pub(crate) use cache::{Near, NearData, OwnGuard};
pub use stats::{NearDrops, NearPrimary, NearStats};
pub(crate) use store::Held;

/// How a near cache is to be: see [`Builder::near`](crate::Builder::near).
///
/// ```
/// use mcache::NearOptions;
///
/// let options = NearOptions::new().bytes(256 << 20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearOptions {
    bytes: u64,
}

impl Default for NearOptions {
    fn default() -> Self {
        Self { bytes: 64 << 20 }
    }
}

impl NearOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How much memory the entries may take, keys and index included, for each provider that has a feed. A value counts
    /// twice: its bytes, and what they are decoded to when it is [shared](crate::Entry::get_arc). Default: 64 MiB.
    /// Beyond it the entries that are used least make way. What is remembered of recent events, 300 KiB for each
    /// primary, is not counted.
    #[must_use]
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes.max(1 << 20);
        self
    }
}

#[cfg(test)]
mod tests;
