//! One server: the index, the rule about fills, the leases and the counters, and every decision that is made with them.
//!
//! The module calls this from Redis's callbacks and does what it is told; the simulation and the model call the same
//! functions. What only the edge can know comes in as arguments: the time, a random number, a key's deadline, whether
//! the server is a primary. Nothing here calls Redis; what is to be done to the keyspace goes out as a value, to be
//! done after the state was let go (a delete calls back).
//!
//! - this file: what a server knows, and what it asks of the edge
//! - `condition.rs`: what an entry is good for at the moment
//! - `read.rs`: GET and FETCH; `write.rs`: SET; `invalidate.rs`: INVALIDATE, and what reclaim does to an entry
//! - `arrive.rs`: entries that come without a SET: loaded, restored, copied, renamed; `awaited.rs`: the one that is not
//!   announced yet; `travel.rs`: entries on their way out
//! - `waiting.rs`: leases and parked clients; `life.rs`: what happens to the server as a whole
//! - `pace.rs`: how long a slice of reclaim may take

mod arrive;
mod awaited;
mod condition;
mod invalidate;
mod life;
mod pace;
mod read;
mod travel;
mod waiting;
mod write;

use std::hash::Hash;

use crate::epoch::Epoch;
use crate::feed::{Feed, HashKey, Identity};
use crate::fills::Fills;
use crate::index::Index;
use crate::lease::Leases;
use crate::slots::Exports;

use arrive::{Pending, Spare};
use life::Phase;

pub use arrive::{Arriving, Renamed};
pub use awaited::Awaited;
pub use condition::{Condition, Dead, corrected_deadline, fresh_ms, softened_end_ms};
pub use invalidate::Invalidated;
pub use pace::Pace;
pub use read::{Fetched, Fetcher};
pub use waiting::{Alarm, Gone};
pub use write::{Admitted, Store, Stored};

/// What the edge is asked, each only where it matters: a GET of an entry without an SWR window asks nothing.
pub trait Edge {
    /// The wall clock, in milliseconds since 1970.
    fn now_ms(&self) -> u64;
    /// A random number, evenly distributed.
    fn random(&self) -> u64;
    /// Whether this server decides: replicas take what their primary decided.
    fn is_primary(&self) -> bool;
}

/// Counters for INFO; the words mean what they mean in the documentation.
#[derive(Default)]
#[allow(missing_docs)]
pub struct Stats {
    pub hits: u64,
    pub misses: u64,
    pub stale_hits: u64,
    pub early_refreshes: u64,
    pub dead_hits: u64,
    pub fills: u64,
    pub refused_fills: u64,
    pub refused_fills_in_doubt: u64,
    pub invalidations: u64,
    pub entries_invalidated: u64,
    pub reclaimed: u64,
    pub longest_slice_us: u64,
    pub panics: u64,
}

/// Everything a server knows. `W` is what the edge knows a parked client by.
pub struct Server<W> {
    /// Which entries carry which tag.
    pub index: Index,
    /// Epochs, and which fills count.
    pub fills: Fills,
    /// Who fills which key, and who waits for it.
    pub leases: Leases<W>,
    /// What near caches hear of, and their leases.
    pub feed: Feed<W>,
    /// Which slots are on their way to other servers.
    pub exports: Exports,
    /// Counters.
    pub stats: Stats,
    /// How long the next slice of reclaim may take.
    pub pace: Pace,
    phase: Phase,
    /// An RDB or AOF file is being read.
    loading: bool,
    /// It is read by a replica.
    loads_as_replica: bool,
    /// A replica read entries from its own file and has not reached its primary since: none is served.
    unconfirmed: bool,
    /// A floor that replicas have not been told of.
    untold_floor: Option<Epoch>,
    /// After a bug the keyspace may hold entries that the index does not name.
    is_searching: bool,
    /// How many searches for them began.
    searches: u64,
    pending: Option<Pending>,
    spare: Spare,
    awaited: &'static Awaited,
    /// The timer for the next end of a lease or of a wait.
    alarm: Option<Alarm>,
}

impl<W: Copy + Eq + Hash> Server<W> {
    /// A server that has just started and has read nothing yet. Its feed is off. `awaited` is told of every entry
    /// that is freed.
    pub fn new(fills: Fills, awaited: &'static Awaited) -> Self {
        Server {
            // One key for both, so that a tag is hashed once where both are asked.
            index: Index::with_key(fills.key()),
            fills,
            leases: Leases::default(),
            feed: Feed::off(
                Identity {
                    incarnation: 0,
                    hash_key: HashKey::new([0; 16]),
                },
                0,
            ),
            exports: Exports::default(),
            stats: Stats::default(),
            pace: Pace::default(),
            phase: Phase::Starting,
            loading: false,
            loads_as_replica: false,
            unconfirmed: false,
            untold_floor: None,
            is_searching: false,
            searches: 0,
            pending: None,
            spare: Spare::default(),
            awaited,
            alarm: None,
        }
    }
}
