//! What servers, clients and replicas send each other.

use mcache_core::entry::Attributes;
use mcache_core::epoch::{Epoch, Token};
use mcache_core::index::Scope;

use crate::world::{Key, Tag, Value};

/// What a client asks.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    Get(Key),
    Fetch {
        key: Key,
        lease_ms: u64,
        wait_ms: u64,
        early_ms: u64,
    },
    Token,
    Set {
        key: Key,
        value: Value,
        token: Token,
        ttl_ms: u64,
        swr_ms: u32,
    },
    Release {
        key: Key,
        token: Token,
    },
    Invalidate(Invalidation),
    Flush,
}

#[derive(Clone, Copy, Debug)]
pub struct Invalidation {
    pub tag: Tag,
    pub auto: bool,
    pub soft: bool,
    /// Whether its entries are few enough to be dealt with at once.
    pub at_once: bool,
}

impl Invalidation {
    pub(super) fn scope(&self) -> Scope {
        if self.auto { Scope::Auto } else { Scope::All }
    }
}

/// What it is told.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    Hit(Value, Option<Token>),
    Stale(Value, Option<Token>),
    Miss(Token),
    Busy,
    Nothing,
    Token(Token),
    Done,
    /// With what a replica must have applied before it knows.
    Invalidated {
        offset: usize,
    },
}

/// One command of the replication stream: what was decided.
#[derive(Clone, Debug)]
pub enum Op {
    Set {
        key: Key,
        value: Value,
        attributes: Attributes,
        deadline_ms: u64,
    },
    /// RESTORE, as it came.
    Restore(Dump, u64),
    Unlink(Key),
    Invalidate(Invalidation, Epoch),
    Shorten {
        key: Key,
        ends_ms: u64,
    },
    /// Everything born before is dead.
    Floor(Epoch),
    Flush,
}

/// An entry as a file, a full synchronisation or MIGRATE has it.
#[derive(Clone, Debug)]
pub struct Dump {
    pub(super) key: Key,
    pub(super) meta: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) deadline_ms: u64,
}
