//! Everything that is `unsafe` because Redis is written in C: the API wrapped, the callbacks it makes, the guard around
//! them. Nothing here decides anything.

pub mod api;
pub mod datatype;
pub mod events;
pub mod guard;
