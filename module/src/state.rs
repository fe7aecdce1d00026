//! The module's one global: the index, the rule about fills, the leases and the counters.
//!
//! It belongs to the main thread. Redis calls back while a command of ours is deleting or overwriting a key, so the rule
//! is: take the state, decide, let go, then call Redis. A nested [`with`] panics instead of handing out two `&mut`,
//! and the guard at the boundary turns that into an error reply.

use std::cell::RefCell;

use mcache_core::encode::Decoded;
use mcache_core::entry::{Attributes, Entry};
use mcache_core::epoch::Epoch;
use mcache_core::fills::Fills;
use mcache_core::index::{Index, Verdict};
use mcache_core::lease::Leases;

use crate::config;
use crate::ffi::api::{self, Blocked};

/// The attributes of a dead entry that has nothing left but its key.
pub const HUSK: Attributes = Attributes {
    birth: Epoch::ZERO,
    manual: false,
    swr_ms: 0,
    softened: false,
};

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

/// An entry that was loaded or copied and is not in the keyspace yet. Redis announces the key next, or never: what it
/// frees unannounced was never linked.
pub struct Pending {
    entry: Entry,
    key: Box<[u8]>,
    tags: Vec<Box<[u8]>>,
}

/// How the module treats what it reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The server has not served anything yet: what it loads was on disk while invalidations may have been lost.
    Starting,
    /// The server is up.
    Running,
}

/// Everything the module knows.
pub struct State {
    /// Which entries carry which tag.
    pub index: Index,
    /// Epochs, and which fills count.
    pub fills: Fills,
    /// Counters.
    pub stats: Stats,
    /// Whether the server serves yet.
    pub phase: Phase,
    /// An RDB or AOF file is being read.
    pub loading: bool,
    /// Who fills which key, and who waits for it.
    pub leases: Leases<Blocked>,
    /// The timer for the next end of a lease or of somebody's patience: its id, and when it fires.
    pub lease_timer: Option<(u64, u64)>,
    pending: Option<Pending>,
    /// Record ids of the SET at hand; kept to be reused.
    pub records: Vec<u32>,
}

impl State {
    fn new() -> Self {
        State {
            index: Index::new(),
            fills: Fills::new(
                api::random_u64(),
                api::now_ms(),
                config::invalidation_memory_tags(),
            ),
            stats: Stats::default(),
            phase: Phase::Starting,
            loading: false,
            leases: Leases::default(),
            lease_timer: None,
            pending: None,
            records: Vec::new(),
        }
    }

    /// Makes everything stored so far dead and refuses every fill under way.
    pub fn forget_everything(&mut self, now_ms: u64) {
        let epoch = self.fills.new_floor(now_ms);
        self.index.raise_floor(epoch);
    }

    /// Whether what is being read from disk must not be served.
    pub fn drops_what_it_loads(&self) -> bool {
        self.loading
            && self.phase == Phase::Starting
            && config::on_restart() == config::OnRestart::Drop
    }

    // ---- entries on their way into the keyspace ----

    /// Makes an entry from what a file or another server says.
    pub fn load(&mut self, key: &[u8], value: &[u8], decoded: Decoded) -> Entry {
        self.fills.observe(decoded.attributes.birth);
        let dropped = match self.loading {
            true => self.drops_what_it_loads(),
            // A replica takes what its primary took: if that was dead, its deletion follows.
            false => {
                api::server_flags().is_primary()
                    && self.fills.may_have_missed_an_invalidation(&decoded)
            }
        };
        let Decoded {
            attributes, tags, ..
        } = decoded;
        if dropped || attributes.birth < self.index.floor() {
            return self.prepare(key, b"", HUSK, Vec::new());
        }
        self.prepare(key, value, attributes, tags)
    }

    /// Makes a copy of an entry for another key.
    pub fn duplicate(&mut self, key: &[u8], entry: &Entry) -> Entry {
        if self.index.judge(entry) != Verdict::Live {
            return self.prepare(key, b"", HUSK, Vec::new());
        }
        let tags = self.index.names(entry).map(Box::from).collect();
        self.prepare(key, entry.value(), entry.attributes(), tags)
    }

    fn prepare(
        &mut self,
        key: &[u8],
        value: &[u8],
        attributes: Attributes,
        tags: Vec<Box<[u8]>>,
    ) -> Entry {
        let entry = Entry::new(key, value, attributes, &vec![0; tags.len()]);
        self.pending = Some(Pending {
            entry,
            key: key.into(),
            tags,
        });
        entry
    }

    /// Redis announces that the key just loaded or copied is in the keyspace.
    ///
    /// `found` is what the key holds, where that may be asked: during a load it must not, and then the name decides.
    pub fn arrived(&mut self, db: usize, key: &[u8], found: Option<Entry>, loading: bool) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        if *pending.key != *key || !loading && found != Some(pending.entry) {
            return;
        }
        let tags = pending.tags.iter().map(|tag| &**tag);
        // SAFETY: the entry is in the keyspace, which owns it and unlinks it before it frees it; its tags were decoded
        // as all different, and it was made with as many.
        unsafe { self.index.adopt(db, pending.entry, tags, loading) };
    }

    /// Redis announces a new name for an entry that just left the index under its old one. Returns the entry that is
    /// to take its place: the key is part of the entry.
    pub fn renamed(&mut self, db: usize, key: &[u8], entry: Entry) -> Option<Entry> {
        if entry.is_linked() {
            return None;
        }
        // A softly invalidated one is dropped as well: in a moment its deadline would have been shortened.
        let dead = self.index.judge(&entry) != Verdict::Live;
        let tags: Vec<Box<[u8]>> = if dead {
            Vec::new()
        } else {
            self.index.names(&entry).map(Box::from).collect()
        };
        let (value, attributes) = if dead {
            (&b""[..], HUSK)
        } else {
            (entry.value(), entry.attributes())
        };
        let fresh = Entry::new(key, value, attributes, &vec![0; tags.len()]);
        // SAFETY: the caller puts the entry into the keyspace at once; the names come from an entry, so they differ.
        unsafe {
            self.index
                .adopt(db, fresh, tags.iter().map(|tag| &**tag), false)
        };
        Some(fresh)
    }
}

/// SWR, softened and MANUAL in one integer, for the replication stream.
pub fn pack(attributes: Attributes) -> u64 {
    u64::from(attributes.swr_ms) << 2
        | u64::from(attributes.softened) << 1
        | u64::from(attributes.manual)
}

/// The reverse of [`pack`]; `None` for a number it never makes.
pub fn unpack(packed: u64, birth: Epoch) -> Option<Attributes> {
    Some(Attributes {
        birth,
        manual: packed & 1 == 1,
        softened: packed & 2 == 2,
        swr_ms: u32::try_from(packed >> 2).ok()?,
    })
}

struct Global(RefCell<Option<State>>);

// SAFETY: Redis calls modules on its main thread, or on others only while they hold its global lock; the one callback
// that runs outside of it, `free` of the data type, does not come here.
unsafe impl Sync for Global {}

static STATE: Global = Global(RefCell::new(None));

/// Runs `body` with the state. Do not call Redis from within, unless the call cannot come back.
///
/// # Panics
/// When nested.
#[inline]
pub fn with<T>(body: impl FnOnce(&mut State) -> T) -> T {
    let mut state = STATE.0.borrow_mut();
    body(state.get_or_insert_with(State::new))
}
