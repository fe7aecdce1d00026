//! What a near cache tells of itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A near cache at one moment: see [`Cache::near_stats`](crate::Cache::near_stats).
///
/// ```
/// # fn f(cache: &mcache::Cache) {
/// for near in cache.near_stats() {
///     println!("{}: {} entries, {} hits, serving: {}", near.provider, near.entries, near.hits, near.is_serving());
/// }
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearStats {
    /// The provider before which it is.
    pub provider: String,
    /// Reads served from it.
    pub hits: u64,
    /// Values put away.
    pub kept: u64,
    /// Values that were read or stored and not put away.
    pub not_kept: u64,
    /// Entries that are in it.
    pub entries: u64,
    /// What they take, by its own count.
    pub bytes: u64,
    /// Entries that left it, by why.
    pub drops: NearDrops,
    /// One row for each primary it follows.
    pub primaries: Vec<NearPrimary>,
}

impl NearStats {
    /// Whether it may serve what came from any primary.
    pub fn is_serving(&self) -> bool {
        let mut primaries = self.primaries.iter();
        !self.primaries.is_empty() && primaries.all(|primary| !primary.lease_left.is_zero())
    }
}

/// Why entries left a near cache.
///
/// ```
/// use mcache::NearDrops;
///
/// /// More room would help.
/// fn is_too_small(drops: &NearDrops, kept: u64) -> bool {
///     drops.evicted * 2 > kept
/// }
/// assert!(!is_too_small(&NearDrops::default(), 1));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearDrops {
    /// One of their tags was invalidated.
    pub tags: u64,
    /// Their key, or one that shares its cell, was stored under, changed or deleted.
    pub keys: u64,
    /// Their slots went to another node.
    pub slots: u64,
    /// The server was flushed or its floor was raised.
    pub flushes: u64,
    /// The server could not say what happened since it was asked last, or is another one: everything was forgotten.
    pub gaps: u64,
    /// This process itself invalidated, cleared or stored them.
    pub own: u64,
    /// They made way for others.
    pub evicted: u64,
    /// A newer value took their place.
    pub replaced: u64,
}

/// One primary that a near cache follows.
///
/// ```
/// use mcache::{NearPrimary, NearStats};
///
/// /// Why nothing is served from memory, in the servers' words.
/// fn refusals(stats: &NearStats) -> Vec<&str> {
///     stats.primaries.iter().filter_map(|primary: &NearPrimary| primary.refusal.as_deref()).collect()
/// }
/// assert!(refusals(&NearStats::default()).is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NearPrimary {
    /// Its address; empty where the provider knows but one.
    pub name: String,
    /// How long what came from it may be served without hearing from it again. Zero: it is not served.
    pub lease_left: Duration,
    /// How long ago it answered.
    pub heard: Option<Duration>,
    /// Why it grants no lease, in the server's words.
    pub refusal: Option<String>,
}

/// Why an entry leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Tag,
    Key,
    Slots,
    Flush,
    Gap,
    Own,
    Evicted,
    Replaced,
}

impl Why {
    const ALL: [Why; 8] = [
        Why::Tag,
        Why::Key,
        Why::Slots,
        Why::Flush,
        Why::Gap,
        Why::Own,
        Why::Evicted,
        Why::Replaced,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Why::Tag => "tag",
            Why::Key => "key",
            Why::Slots => "slots",
            Why::Flush => "flush",
            Why::Gap => "gap",
            Why::Own => "own",
            Why::Evicted => "evicted",
            Why::Replaced => "replaced",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) hits: AtomicU64,
    pub(super) kept: AtomicU64,
    pub(super) not_kept: AtomicU64,
    drops: [AtomicU64; Why::ALL.len()],
}

impl Counts {
    pub(super) fn dropped(&self, why: Why, count: usize) {
        self.drops[why as usize].fetch_add(count as u64, Relaxed);
    }

    pub(super) fn drops(&self) -> NearDrops {
        let of = |why: Why| self.drops[why as usize].load(Relaxed);
        NearDrops {
            tags: of(Why::Tag),
            keys: of(Why::Key),
            slots: of(Why::Slots),
            flushes: of(Why::Flush),
            gaps: of(Why::Gap),
            own: of(Why::Own),
            evicted: of(Why::Evicted),
            replaced: of(Why::Replaced),
        }
    }
}
