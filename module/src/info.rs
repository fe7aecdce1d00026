//! `INFO mcache`.

use std::ffi::{CString, c_int};

use redis_module::raw;

use crate::ffi::api::rm;
use crate::ffi::guard::guard;
use crate::{listeners, state};

/// The fields of the section. Every one is a number; the words are those of the documentation.
fn fields() -> Vec<(&'static str, u64)> {
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
            ("replicating", u64::from(listeners::maybe())),
            ("panics", s.stats.panics),
            ("incarnation", s.fills.incarnation()),
            ("epoch", s.fills.now().0),
        ]
    })
}

/// Adds the section to a running INFO.
pub unsafe extern "C" fn report(ctx: *mut raw::RedisModuleInfoCtx, _crash_report: c_int) {
    guard((), || {
        // SAFETY: the context is valid during the callback; an unnamed section gets the module's name.
        if unsafe { rm!(RedisModule_InfoAddSection)(ctx, c"".as_ptr()) }
            != raw::REDISMODULE_OK as c_int
        {
            return;
        }
        for (name, number) in fields() {
            let name = CString::new(name).unwrap_or_default();
            // SAFETY: as above; Redis copies the name.
            unsafe { rm!(RedisModule_InfoAddFieldULongLong)(ctx, name.as_ptr(), number) };
        }
    });
}
