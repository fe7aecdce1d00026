//! Several servers, and what they do to each other.

mod slot_migration;
