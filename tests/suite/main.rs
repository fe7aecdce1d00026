//! The suite: what mcache promises, shown on real servers. One file per property.

mod harness_itself;
