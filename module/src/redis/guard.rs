//! The boundary that no panic crosses.
//!
//! Unwinding into C is undefined and aborting takes a shop's Redis down. A panic here is a bug in mcache, and after a
//! bug nothing that was stored can be trusted: the state is repaired by being forgotten, so the cache goes on correct and
//! empty.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use super::log_warning;

/// What is done to the state after a panic.
static REPAIR: OnceLock<fn()> = OnceLock::new();

/// Says what is to be done to the state after a panic.
pub fn repair_with(repair: fn()) {
    let _ = REPAIR.set(repair);
}

/// A panic's place belongs into Redis's log, not on a standard error that nobody reads.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log_warning(&format!("mcache: {panic}"))));
}

/// Runs `body`; on a panic logs it, has the state repaired, and returns `fallback`.
pub fn guard<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            let what = payload
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            log_warning(&format!(
                "a bug in mcache was caught: {what}. All entries stored so far are no longer served. Please report it."
            ));
            // A second panic in here would mean that the state itself is beyond use; the first answer still goes out.
            if let Some(repair) = REPAIR.get() {
                let _ = catch_unwind(repair);
            }
            fallback
        }
    }
}
