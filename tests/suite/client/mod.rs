//! The client on real servers.

mod bad_quarter;
mod cluster_example;
mod fan_out;
mod herd;
mod near;
mod outage;
mod provider;
mod python;
mod tls;
mod topology;
