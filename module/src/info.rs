//! `INFO mcache`.

use crate::{redis, state};

/// The fields of the section. Every one is a number; the words are those of the documentation.
pub fn fields() -> Vec<(&'static str, u64)> {
    state::with(|s| {
        s.index.settle();
        let sizes = s.index.sizes();
        vec![
            ("entries", sizes.entries as u64),
            ("tags", sizes.tags as u64),
            ("memberships", sizes.memberships as u64),
            ("payload_bytes", sizes.payload_bytes as u64),
            ("index_bytes", sizes.index_bytes as u64),
            ("invalidation_memory_bytes", s.fills.memory_bytes() as u64),
            ("hits", s.stats.hits),
            ("misses", s.stats.misses),
            ("stale_hits", s.stats.stale_hits),
            ("dead_hits", s.stats.dead_hits),
            ("early_refreshes", s.stats.early_refreshes),
            ("fills", s.stats.fills),
            ("refused_fills", s.stats.refused_fills),
            ("refused_fills_in_doubt", s.stats.refused_fills_in_doubt),
            ("invalidations", s.stats.invalidations),
            ("entries_invalidated", s.stats.entries_invalidated),
            ("reclaimed", s.stats.reclaimed),
            ("pending_reclaim", sizes.pending_reclaim as u64),
            ("longest_slice_us", s.stats.longest_slice_us),
            ("leases", s.leases.len() as u64),
            ("parked_clients", s.leases.parked() as u64),
            ("replicating", u64::from(redis::is_heard())),
            ("slot_exports", s.exports.keys().count() as u64),
            ("panics", s.stats.panics),
            ("incarnation", s.fills.incarnation()),
            ("epoch", s.fills.now().0),
        ]
    })
}
