//! The client on real servers.

mod bad_quarter;
mod cancelled;
mod cluster_example;
mod fan_out;
mod herd;
mod near;
mod oracle;
mod outage;
mod provider;
mod python;
mod refusals;
mod rights;
mod runtimes;
mod tls;
mod topology;
mod trouble;
