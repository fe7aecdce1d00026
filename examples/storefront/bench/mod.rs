//! The store with the cache off and on: alternating rounds, the same requests, measured from outside.

mod checker;
mod hop;
mod report;
mod rounds;

pub use checker::{Checker, Findings};
pub use hop::Hop;
pub use report::{PUBLISHED, Published, write};
pub use rounds::{Outage, Plan, Row, Scenario, outage, run};
