//! How entries come and go, beside everything else that is in the keyspace: memory, persistence, replication.

mod defragmented;
mod neighbours;
mod unannounced;
