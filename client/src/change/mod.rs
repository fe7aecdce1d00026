//! Changes of data: what they are.

mod event;

pub use event::{ChangeEvent, EventError, Operation, RowsById};
