//! Entries in the keyspace, beside everything else that is there.

mod defragmented;
mod neighbours;
