//! TBD
use harness::Seed;
pub fn report(_: &super::Totals, _: &Seed) {}
