//! Histories that an obvious version of the protocol gets wrong, each taken step by step through the real logic. In all
//! of them a lease lasts a second, and key 0 carries tags 0 and 1.

mod bounds;
mod confirming;
mod events;
mod granting;
mod lease;
mod own;
mod positions;
mod predecessors;
mod putting;
mod settling;

use crate::stage::BEGINNING;

/// Two values.
const V: [u32; 3] = [1, 1, 1];
const W: [u32; 3] = [2, 2, 2];
const T: u64 = BEGINNING;
