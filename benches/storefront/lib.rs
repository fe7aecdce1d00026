//! The [storefront] with the cache off and on: alternating rounds, the same requests, measured from outside.
//!
//! Visitors are in `load/`, a crate of its own, because the storefront's page shows them as well.

mod checker;
mod hop;
mod report;
mod rounds;

pub use checker::{Checker, Findings};
pub use hop::Hop;
pub use report::write;
pub use rounds::{Outage, Plan, Row, Scenario, outage, run};
