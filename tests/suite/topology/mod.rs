//! Several servers, and what they do to each other.

mod cluster;
pub mod fullsync;
mod io_threads;
mod listeners;
mod migration;
mod parked;
mod replication;
mod slot_migration;
