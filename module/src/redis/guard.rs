//! The boundary that no panic crosses.
//!
//! Unwinding into C is undefined and aborting takes a shop's Redis down. A panic here is a bug in mcache, and after a
//! bug nothing that was stored can be trusted: the floor is raised, so the cache goes on correct and empty.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::ffi::api;
use crate::state;

/// Runs `body`; on a panic logs it, makes everything stored so far dead, and returns `fallback`.
pub fn guard<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            let what = payload
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            api::log_warning(&format!(
                "a bug in mcache was caught: {what}. All entries stored so far are no longer served. Please report it."
            ));
            // A second panic in here would mean that the state itself is beyond use; the first answer still goes out.
            let _ = catch_unwind(|| {
                state::with(|s| {
                    s.stats.panics += 1;
                    s.forget_everything(api::now_ms());
                });
            });
            fallback
        }
    }
}
