//! Changes of data, and the invalidation that follows them by itself.
//!
//! ```text
//!   ChangeSource ──batches of ChangeEvent──▶ Invalidator ──tags──▶ each InvalidationTarget
//!   (in-process Bus, PostgreSQL outbox)         │  ▲                  (a provider of the cache)
//!         ▲                                     │  └── acknowledged ──────────┘
//!         └────────── acknowledge ──────────────┘
//! ```
//!
//! A [`ChangeSource`] hands changes out at least once; the [`Invalidator`] makes them into tags, tells every
//! [`InvalidationTarget`] until it acknowledges, and only then acknowledges to the source. A crash anywhere in between
//! repeats work and loses nothing.

mod backoff;
mod bus;
mod delivery;
mod event;
mod gathered;
mod invalidator;
mod key;
mod provider;
mod source;
mod stats;
mod target;
#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use bus::{Bus, BusReceipt, BusSource, Delivery, Undelivered, bus};
pub use event::{ChangeEvent, EventError, Operation, RowsById};
pub use invalidator::{EventTags, Invalidator, InvalidatorBuilder, Unfinished};
pub use key::{key_parts, key_text};
pub use source::{ChangeSource, Changes, Contact};
pub use stats::{InvalidatorStats, TargetStats};
pub use target::InvalidationTarget;

pub use crate::provider::BoxFuture;

/// An error whose kind the caller does not branch on: it is logged, counted and tried again.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Drawn anew for each pause, so that processes which failed together do not come back together.
fn random_jitter() -> f64 {
    fastrand::f64()
}
