#![doc = include_str!("../guide.md")]

// The links of the guide are read as if they stood here.
#[allow(unused_imports, reason = "for the links in the text")]
use crate::{Builder, MemoryProvider, change};
