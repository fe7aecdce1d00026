//! What is left for later, a bounded piece in each round of the event loop: waking clients, reclaim, tidying up.
//!
//! While there is something to do, a file descriptor that is always readable is registered with Redis's event loop,
//! so the loop serves every client that is ready, does one piece, and comes round again without sleeping. An idle server
//! thus goes on all the time; a module timer would rest a millisecond between pieces. A round of the loop without
//! clients takes 5 us.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::redis::{self, eventloop};
use crate::{config, parking, reclaim, state};

static BEGUN: AtomicBool = AtomicBool::new(false);

/// Begins, if it has not begun. A round that finds nothing to do is the last one.
pub fn begin() {
    if BEGUN.load(Ordering::Relaxed) || !eventloop::start(round) {
        return;
    }
    state::with(|s| s.pace.start(config::reclaim_budget_us()));
    BEGUN.store(true, Ordering::Relaxed);
}

fn round() {
    let ctx = eventloop::context();
    let behind = state::with(|s| s.is_behind(redis::now_ms()));
    if behind {
        parking::advance(ctx);
    }
    let migrating = state::with(|s| s.fills.migrate());
    // Else the cron begins again, once it may.
    let reclaiming = reclaim::is_wanted(ctx);
    if reclaiming {
        // As a command, which gives it a context whose deletions are replicated as one transaction.
        eventloop::run(c"mcache.reclaim");
    }
    if !behind && !migrating && !reclaiming {
        eventloop::stop();
        BEGUN.store(false, Ordering::Relaxed);
    }
}

/// Does a little of what concerns no key: replicas, which delete nothing, have no rounds to do it in.
pub fn tidy() {
    const BUDGET: Duration = Duration::from_millis(1);
    if !BEGUN.load(Ordering::Relaxed) {
        let began = Instant::now();
        while state::with(|s| s.tidy()) && began.elapsed() < BUDGET {}
    }
}
