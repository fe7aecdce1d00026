//! The pure logic of mcache: no Redis, no clock, no I/O.
//!
//! An *entry* is one cached value with its *tags*. A tag names what an entry was made from; *invalidating* it says that
//! everything made from it before now is wrong. *Epochs* order fills and invalidations, a *token* carries the epoch at
//! which a fill began to the client and back, and the *memory* of invalidations refuses a fill that began too early.
//! The *index* knows which entries carry which tag; an invalidation marks the tag's *record* dead in constant time, and
//! *reclaim* frees the dead entries later, a few at a time. The *server* puts them together: every decision of the
//! module is one of its functions.
//!
//! Two rules give the rest its shape. What an entry is worth is decided by the record it points to and the epoch it was
//! born at, never by looking a key name up in a set. And the index follows the keyspace: it is told of every entry that
//! comes and goes, so there is never an orphan to sweep up.
#![deny(unsafe_code)]

pub mod alloc;
mod bits;
pub mod command;
pub mod early;
pub mod encode;
#[allow(unsafe_code)]
pub mod entry;
pub mod epoch;
pub mod error;
pub mod feed;
pub mod fills;
pub mod hash;
pub mod host;
pub mod index;
pub mod lease;
mod members;
pub mod memory;
mod names;
pub mod near;
mod queue;
#[cfg(test)]
#[path = "../tests/support/seed.rs"]
mod seed;
mod seen;
pub mod server;
mod slab;
pub mod slots;
mod soft;
mod table;
mod tags;
mod text;
pub mod work;

pub use text::Pattern;
