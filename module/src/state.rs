//! The module's one global: the index, the epochs, the memory of invalidations and the counters.
//!
//! It belongs to the main thread. Redis calls back while a command of ours is deleting or overwriting a key, so the rule
//! is: take the state, decide, let go, then call Redis. A nested [`with`] panics instead of handing out two `&mut`,
//! and the guard at the boundary turns that into an error reply.

use std::cell::RefCell;

use mcache_core::encode::Decoded;
use mcache_core::entry::{Attributes, Entry};
use mcache_core::epoch::{Clock, Epoch, Token};
use mcache_core::hash;
use mcache_core::index::{Index, Scope, Verdict};
use mcache_core::lease::Leases;
use mcache_core::memory::Memory;

use crate::config;
use crate::ffi::api::{self, Blocked};

/// The attributes of a dead entry that has nothing left but its key.
pub const HUSK: Attributes = Attributes {
    birth: Epoch::ZERO,
    manual: false,
    swr_ms: 0,
    softened: false,
};

/// Sets in each memory of invalidations: with four tags a set, the 16,384 most recent invalidations are remembered
/// exactly, in 0.23 MB.
const MEMORY_SETS: usize = 4 * 1024;

/// How far the clocks of two servers may be apart: epochs of different servers that are closer are taken to be in the
/// worse order, and an entry that migrates is dropped in doubt.
const MAX_SKEW_MS: u64 = 1_000;

/// Counters for INFO; the words mean what they mean in the documentation.
#[derive(Default)]
#[allow(missing_docs)]
pub struct Stats {
    pub hits: u64,
    pub misses: u64,
    pub stale_hits: u64,
    pub dead_hits: u64,
    pub fills: u64,
    pub refused_fills: u64,
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
    /// Epochs.
    pub clock: Clock,
    /// Tells this run's tokens from those of others.
    pub incarnation: u64,
    /// When this run began: of invalidations before it nothing is remembered.
    began: Epoch,
    /// Last invalidation by tag, of any kind: what decides about automatic fills.
    invalidated: Memory,
    /// Last invalidation by tag without AUTO: what decides about MANUAL fills.
    invalidated_manual: Memory,
    /// The last invalidation of any tag: a fill that began after it needs no look at its tags.
    last_invalidation: Epoch,
    /// Fills that began before it are refused whatever their tags.
    token_floor: Epoch,
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
        let clock = Clock::new(api::now_ms());
        State {
            index: Index::new(),
            began: clock.now(),
            clock,
            incarnation: api::random_u64(),
            invalidated: Memory::new(MEMORY_SETS),
            invalidated_manual: Memory::new(MEMORY_SETS),
            last_invalidation: Epoch::ZERO,
            token_floor: Epoch::ZERO,
            stats: Stats::default(),
            phase: Phase::Starting,
            loading: false,
            leases: Leases::default(),
            lease_timer: None,
            pending: None,
            records: Vec::new(),
        }
    }

    /// The token for a fill that begins now.
    pub fn token(&mut self, now_ms: u64) -> Token {
        Token {
            incarnation: self.incarnation,
            epoch: self.clock.read(now_ms),
        }
    }

    /// A token that no other fill gets: it identifies the holder of a lease.
    pub fn unique_token(&mut self, now_ms: u64) -> Token {
        Token {
            incarnation: self.incarnation,
            epoch: self.clock.tick(now_ms),
        }
    }

    /// When a fill counts as begun; `None` if it must be refused: begun in another run, or before the last
    /// invalidation of one of its tags. O(tags), and O(1) when nothing was invalidated since.
    pub fn birth<'a>(
        &mut self,
        token: Option<Token>,
        mut tags: impl Iterator<Item = &'a [u8]>,
        manual: bool,
        now_ms: u64,
    ) -> Option<Epoch> {
        let now = self.clock.read(now_ms);
        let Some(token) = token else { return Some(now) };
        if token.incarnation != self.incarnation || token.epoch > now {
            return None;
        }
        if token.epoch < self.token_floor || token.epoch < self.index.floor() {
            return None;
        }
        let memory = self.memory(manual);
        if token.epoch < self.last_invalidation
            && tags.any(|tag| memory.last(hash(tag)) > token.epoch)
        {
            return None;
        }
        Some(token.epoch)
    }

    fn memory(&self, manual: bool) -> &Memory {
        match manual {
            true => &self.invalidated_manual,
            false => &self.invalidated,
        }
    }

    /// Remembers that tags are invalidated now, and returns the epoch of it.
    pub fn note_invalidation<'a>(
        &mut self,
        tags: impl Iterator<Item = &'a [u8]>,
        scope: Scope,
        now_ms: u64,
    ) -> Epoch {
        let epoch = self.clock.tick(now_ms);
        self.note_invalidation_at(tags, scope, epoch);
        epoch
    }

    /// Remembers an invalidation decided elsewhere.
    pub fn note_invalidation_at<'a>(
        &mut self,
        tags: impl Iterator<Item = &'a [u8]>,
        scope: Scope,
        epoch: Epoch,
    ) {
        self.clock.observe(epoch);
        self.last_invalidation = self.last_invalidation.max(epoch);
        for tag in tags {
            let hash = hash(tag);
            self.invalidated.note(hash, epoch);
            if scope == Scope::All {
                self.invalidated_manual.note(hash, epoch);
            }
        }
    }

    /// An upper bound of when a tag was last invalidated; `None` if it never was in this run.
    pub fn last_invalidation_of(&self, tag: &[u8]) -> Option<Epoch> {
        Some(self.invalidated.last(hash(tag))).filter(|epoch| *epoch > Epoch::ZERO)
    }

    /// Makes everything stored so far dead and refuses every fill under way.
    pub fn forget_everything(&mut self, now_ms: u64) {
        let epoch = self.clock.tick(now_ms);
        self.index.raise_floor(epoch);
    }

    /// Refuses every fill that began before now: the data set was flushed or exchanged.
    pub fn refuse_fills(&mut self, now_ms: u64) {
        self.token_floor = self.clock.tick(now_ms);
    }

    /// Another run begins: tokens given out before are worth nothing.
    pub fn new_incarnation(&mut self) {
        self.incarnation = api::random_u64();
        self.began = self.clock.tick(api::now_ms());
    }

    /// Whether what is being read from disk must not be served.
    pub fn drops_what_it_loads(&self) -> bool {
        self.loading
            && self.phase == Phase::Starting
            && config::on_restart() == config::OnRestart::Drop
    }

    /// Bytes of the memory of invalidations; they never change.
    pub fn memory_bytes(&self) -> usize {
        self.invalidated.bytes() + self.invalidated_manual.bytes()
    }

    // ---- entries on their way into the keyspace ----

    /// Makes an entry from what a file or another server says.
    pub fn load(&mut self, key: &[u8], value: &[u8], decoded: Decoded) -> Entry {
        self.clock.observe(decoded.attributes.birth);
        let dropped = match self.loading {
            true => self.drops_what_it_loads(),
            // A replica takes what its primary took: if that was dead, its deletion follows.
            false => api::server_flags().is_primary() && self.invalidated_since(&decoded),
        };
        let Decoded {
            attributes, tags, ..
        } = decoded;
        if dropped || attributes.birth < self.index.floor() {
            return self.prepare(key, b"", HUSK, Vec::new());
        }
        self.prepare(key, value, attributes, tags)
    }

    /// Whether an entry that comes in by RESTORE or slot migration was, or may have been, invalidated since it was
    /// written: by what this run remembers, and this run remembers nothing from before it began. Compared with its birth,
    /// not with when it was written: in a cluster the invalidation may have been here before it was at the sender.
    fn invalidated_since(&self, decoded: &Decoded) -> bool {
        let memory = self.memory(decoded.attributes.manual);
        let (birth, saved) = (decoded.attributes.birth, decoded.saved);
        let mut last = decoded.tags.iter().map(|tag| memory.last(hash(tag)));
        if saved.incarnation == self.incarnation {
            return last.any(|last| last > birth);
        }
        let may_be_later = |a: Epoch, b: Epoch| a.unix_ms() + MAX_SKEW_MS >= b.unix_ms();
        may_be_later(self.began, saved.epoch)
            || last.any(|last| last > Epoch::ZERO && may_be_later(last, birth))
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
