//! Changes captured in PostgreSQL and graph queries over it, on real servers.

mod capture;
mod catalogue;
mod consumers;
mod delivery;
mod end_to_end;
mod replica;
mod resolver;
pub mod shop;
mod tags;
