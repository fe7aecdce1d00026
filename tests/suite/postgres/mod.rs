//! Changes captured in PostgreSQL and graph queries over it, on real servers.

mod capture;
mod catalogue;
mod composite;
mod consumers;
mod cost;
mod delivery;
mod end_to_end;
mod hostile;
mod identity;
mod keys;
mod oracle;
mod oracle_changes;
mod oracle_keys;
mod pooler;
mod replica;
mod resolver;
pub mod shop;
mod tags;
mod unlogged;
mod unusual;
mod upgrade;
