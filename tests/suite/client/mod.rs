//! The client on real servers.

mod bad_quarter;
mod python;
