//! How entries come and go, how long they are fresh, and what files and dumps make of them, whatever stands in those.

mod dump;
mod files;
mod freshness;
mod hostile;
mod replicas;
mod unannounced;
