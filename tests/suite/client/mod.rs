//! The client on real servers.

mod bad_quarter;
mod cluster_example;
mod near;
mod python;
