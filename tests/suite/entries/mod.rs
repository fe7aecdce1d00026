//! How entries come and go: memory, persistence, replication.

mod unannounced;
