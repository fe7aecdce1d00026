//! mcache.

pub mod change;
