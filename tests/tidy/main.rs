//! The house's rules, held against the files: what the architecture promises and documents say is true of the tree.
//!
//! Starts no server. Each test collects everything that is wrong and says it at once.

mod code;
mod documents;
mod tree;
mod words;
