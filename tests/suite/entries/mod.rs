//! How entries come and go, beside everything else that is in the keyspace; how long they are fresh; what files and
//! dumps make of them, hostile ones too; which users may do what with them.

mod chaos;
mod chaos_restart;
mod defragmented;
mod dump;
mod files;
mod freshness;
mod fuzz;
mod hostile;
mod keyspace;
mod memory;
mod model;
mod neighbours;
mod permissions;
mod persistence;
mod replicas;
mod unannounced;
