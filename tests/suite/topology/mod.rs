//! Several servers, and what they do to each other.

mod io_threads;
mod slot_migration;
