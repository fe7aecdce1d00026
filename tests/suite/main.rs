//! The suite: what mcache promises, shown on real servers. One file per property.

mod acl;
mod commands;
mod fetch;
mod harness_itself;
mod introspection;
mod invalidate;
mod keyspace;
mod limits;
mod model;
mod parking;
mod persistence;
mod postgres_capture;
mod postgres_delivery;
mod postgres_end_to_end;
mod postgres_replica;
mod postgres_resolver;
mod postgres_shop;
mod readme;
mod reclaim;
mod replication;
mod soft;
mod stale;
mod tokens;
