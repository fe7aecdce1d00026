//! What a server offers the module, and the module its users.

mod access;
mod harness_itself;
mod loading;
mod packaging;
mod panics;
mod readme;
pub mod runtime;
