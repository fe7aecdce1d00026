//! The boundary that no panic crosses.
//!
//! Unwinding into C is undefined and aborting takes a shop's Redis down. A panic here is a bug in mcache. Where
//! something was being changed, nothing that was stored can be trusted after it, nor the index, which may be half
//! changed: the state is repaired by being forgotten, so the cache goes on correct and empty. Where nothing was being
//! changed, what is stored is as good as before, and one caller's bad luck must not cost all the others their entries.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use super::log_warning;

/// What is done after a panic.
#[derive(Clone, Copy)]
pub struct Repair {
    /// Takes note of it.
    pub count: fn(),
    /// Makes the state one that can be trusted.
    pub repair: fn(),
}

static REPAIR: OnceLock<Repair> = OnceLock::new();

/// Says what is to be done after a panic.
pub fn repair_with(repair: Repair) {
    let _ = REPAIR.set(repair);
}

/// Has each panic write its place into Redis's log: operators do not read the standard error of a server.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log_warning(&format!("mcache: {panic}"))));
}

/// Runs `body`, which may change what is stored; on a panic logs it, has the state repaired, and returns `fallback`.
pub fn guard<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    caught(
        fallback,
        body,
        |repair| (repair.repair)(),
        "All entries stored so far are no longer served.",
    )
}

/// Runs `body`, which changes nothing that is stored: it reads, parses, or makes an entry that is in no index yet. On a
/// panic logs it and returns `fallback`; the entries are served as before.
pub fn guard_reading<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    caught(fallback, body, |_| (), "Entries are served as before.")
}

/// Runs `body`, which may be on a thread that is not the main one and so touches nothing of the state; on a panic logs
/// it.
pub fn guard_apart(body: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(body)) {
        log_bug(&*payload, "It was on its way out of memory.");
    }
}

fn log_bug(payload: &(dyn Any + Send), outcome: &str) {
    let what = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    log_warning(&format!(
        "a bug in mcache was caught: {what}. {outcome} Please report it."
    ));
}

fn caught<T>(fallback: T, body: impl FnOnce() -> T, then: fn(Repair), outcome: &str) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            log_bug(&*payload, outcome);
            // A second panic in here would mean that the state itself is beyond use; the first answer still goes out.
            if let Some(repair) = REPAIR.get() {
                let _ = catch_unwind(|| {
                    (repair.count)();
                    then(*repair);
                });
            }
            fallback
        }
    }
}
