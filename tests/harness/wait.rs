//! Waiting for something to become true.
//!
//! Owns the only polling loop of the tests. It must not know what is waited for.

use std::time::{Duration, Instant};

/// How long a test waits for something that should take milliseconds: generous, because a busy machine is no bug.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Polls `condition` until it holds.
///
/// # Panics
///
/// After [`PATIENCE`], with `what` was awaited.
#[track_caller]
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    if !within(PATIENCE, condition) {
        panic!("waited {PATIENCE:?} in vain: {what}");
    }
}

/// Polls `attempt` until it gives a value, and returns it.
///
/// # Panics
///
/// After [`PATIENCE`], with `what` was awaited and the last refusal.
#[track_caller]
pub fn until_some<T, E: std::fmt::Display>(
    what: &str,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let mut refusal = None;
    let mut value = None;
    within(PATIENCE, || match attempt() {
        Ok(found) => {
            value = Some(found);
            true
        }
        Err(error) => {
            refusal = Some(error.to_string());
            false
        }
    });
    value.unwrap_or_else(|| {
        panic!(
            "waited {PATIENCE:?} in vain: {what}; at last: {}",
            refusal.unwrap_or_default()
        )
    })
}

/// Polls `condition` until it holds or `limit` has passed; tells whether it held.
pub fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
