//! What an entry is through its life: how long it is fresh, what files and dumps make of it, whatever stands in them.

mod dump;
mod files;
mod freshness;
mod hostile;
