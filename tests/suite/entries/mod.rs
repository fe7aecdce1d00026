//! How entries come and go, beside everything else that is in the keyspace; how long they are fresh; what files and dumps make
//! of them, whatever stands in those; who may do what with them.

mod defragmented;
mod dump;
mod files;
mod freshness;
mod hostile;
mod neighbours;
mod permissions;
mod replicas;
mod unannounced;
