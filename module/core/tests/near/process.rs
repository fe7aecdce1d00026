//! One application process: its near cache, its calls under way, and what it believes of the servers.

use std::collections::{BTreeMap, BTreeSet};

use mcache_core::epoch::Token;
use mcache_core::feed::Prefixes;
use mcache_core::near::{Asked, OwnId, Sent, Settle};

use crate::cache::NearCache;
use crate::clock::Clock;
use crate::world::{Floors, Key, Kind, NODES, SHARDS, Tag, Value};

/// What is waited for.
#[derive(Clone, Debug)]
pub enum Pending {
    Feed {
        node: usize,
        sent: Sent,
    },
    Fetch {
        read: u64,
        node: usize,
        asked: Option<Asked>,
    },
    Set {
        read: u64,
        node: usize,
        asked: Option<Asked>,
    },
    Write {
        write: u64,
        shard: usize,
        node: usize,
    },
    Settle {
        write: u64,
        shard: usize,
    },
    End,
}

/// A call that reads.
#[derive(Clone, Debug)]
pub struct Read {
    pub key: Key,
    /// What it must not undercut, from when it began.
    pub acknowledged: Value,
    /// It changes the key, and stores what it becomes over the value that is there, without invalidating anything.
    pub changes: bool,
    pub token: Option<Token>,
    pub loaded: Value,
}

/// What a write changes, and to which versions.
#[derive(Clone, Debug)]
pub enum What {
    Tags(Vec<(Tag, u32)>, Kind),
    Key(Key, u32),
    Everything(Floors),
}

/// A change of the database whose invalidation is under way.
#[derive(Clone, Debug)]
pub struct Write {
    pub what: What,
    /// Shards that have not acknowledged it.
    pub pending: BTreeSet<usize>,
    pub own: Vec<(usize, OwnId)>,
    /// How each shard's server stands with leases.
    pub settles: BTreeMap<usize, (usize, Settle)>,
    pub settled: BTreeSet<usize>,
}

pub struct Process {
    /// Counts its lives: what was sent to an earlier one is lost.
    pub life: u64,
    pub clock: Clock,
    pub paused_until_us: u64,
    pub cache: NearCache,
    pub prefixes: Prefixes,
    /// Which servers it reaches.
    pub reaches: [bool; NODES],
    /// Which server it takes for the primary of each shard.
    pub primaries: [usize; SHARDS],
    /// Servers whose feed it follows.
    pub follows: BTreeSet<usize>,
    pub pending: BTreeMap<u64, Pending>,
    pub reads: BTreeMap<u64, Read>,
    pub writes: BTreeMap<u64, Write>,
    /// What it has itself begun to invalidate.
    pub own: Floors,
}

impl Process {
    pub fn new(clock: Clock, prefixes: Prefixes, primaries: [usize; SHARDS]) -> Self {
        Process {
            life: 0,
            clock,
            paused_until_us: 0,
            cache: NearCache::default(),
            prefixes,
            reaches: [true; NODES],
            primaries,
            follows: BTreeSet::new(),
            pending: BTreeMap::new(),
            reads: BTreeMap::new(),
            writes: BTreeMap::new(),
            own: Floors::default(),
        }
    }

    /// It dies, and another one takes its place.
    pub fn replace(&mut self) {
        let (clock, prefixes) = (self.clock.clone(), self.prefixes.clone());
        let life = self.life + 1;
        *self = Process {
            life,
            reaches: self.reaches,
            ..Process::new(clock, prefixes, self.primaries)
        };
    }
}
