//! The suite: what mcache promises, shown on real servers. One folder per subject, one file per property.

mod checker;
mod client;
mod commands;
mod entries;
mod filling;
mod graph_oracle;
mod invalidation;
mod near;
mod plain;
mod postgres;
mod support;
mod topology;
