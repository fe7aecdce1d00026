//! Filling: leases, and clients that wait for the fill of another.

mod fetch;
pub mod fetching;
mod parking;
mod stale;
mod tokens;
mod turns;
mod waking;
