//! How entries come and go beside everything else that is in the keyspace, how long they are fresh, and what files and dumps
//! make of them, whatever stands in those.

mod defragmented;
mod dump;
mod files;
mod freshness;
mod hostile;
mod neighbours;
mod replicas;
mod unannounced;
