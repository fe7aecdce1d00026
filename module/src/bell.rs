//! Asks Redis's event loop for rounds: there is work that was left for later. What is done in a round is `rounds.rs`.
//!
//! While there is something to do, a file descriptor that stays readable is registered with Redis's event loop, so the
//! loop serves every client that is ready, does one piece, and comes round again without sleeping. An idle server thus
//! goes on all the time; a module timer would rest a millisecond between pieces. A round of the loop without clients
//! takes 5 us.
//!
//! Reclaim rests between its slices while clients are served (`core/src/server/pace.rs`), some microseconds: then the
//! descriptor is not readable, and the loop sleeps if no client is ready.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::redis::eventloop;
use crate::{config, state};

static RINGING: AtomicBool = AtomicBool::new(false);
static RESTING: AtomicBool = AtomicBool::new(false);

/// Begins, if it has not begun, and ends a rest. A round that finds nothing to do is the last one.
pub fn ring() {
    if is_ringing() {
        hurry();
        return;
    }
    if !eventloop::start() {
        return;
    }
    state::with(|s| s.pace.start(config::reclaim_budget_us()));
    RINGING.store(true, Ordering::Relaxed);
}

/// Whether there are rounds.
pub fn is_ringing() -> bool {
    RINGING.load(Ordering::Relaxed)
}

/// The next round comes in so many nanoseconds.
pub fn rest(ns: u64) {
    if is_ringing() && ns > 0 && eventloop::after(ns) {
        RESTING.store(true, Ordering::Relaxed);
    }
}

/// The next round comes at once.
pub fn hurry() {
    if RESTING.swap(false, Ordering::Relaxed) {
        eventloop::after(0);
    }
}

/// The reverse of [`ring`].
pub fn silence() {
    eventloop::stop();
    RINGING.store(false, Ordering::Relaxed);
    RESTING.store(false, Ordering::Relaxed);
}
