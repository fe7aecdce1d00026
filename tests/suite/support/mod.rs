//! What a server offers the module, and the module its users.

mod access;
mod loading;
