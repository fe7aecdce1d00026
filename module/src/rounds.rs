//! What is left for later, a bounded piece in each round of the event loop: waking clients, reclaim, tidying up.

use std::time::{Duration, Instant};

use crate::redis::{self, Ctx, eventloop};
use crate::{bell, parking, reclaim, repair, state};

/// One round; the last one if it finds nothing to do.
pub fn round() {
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
    if behind || migrating {
        // Only reclaim rests.
        bell::hurry();
    } else if !reclaiming {
        bell::silence();
    }
}

/// Does a little of what concerns no key: replicas, which delete nothing, have no rounds to do it in.
pub fn tidy(ctx: Ctx<'_>) {
    const BUDGET: Duration = Duration::from_millis(1);
    if !bell::is_ringing() {
        let began = Instant::now();
        while state::with(|s| s.tidy()) && began.elapsed() < BUDGET {}
        if !ctx.flags().is_primary() {
            repair::search(ctx, || began.elapsed() >= BUDGET);
        }
    }
}
