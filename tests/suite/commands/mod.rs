//! What each command takes, replies and refuses, and what the server tells of it.

mod acl;
mod every_command;
mod introspection;
mod limits;
