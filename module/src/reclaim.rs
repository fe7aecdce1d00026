//! Freeing dead entries in slices, so that no command waits for it.
//!
//! While there is something to free, each round of the event loop runs one slice (`rounds`). A slice lasts at most
//! `mcache.reclaim-budget-us`, and how much processor time went by since the last slice tells whether clients are being
//! served: then slices shrink to a quarter of it, with rests between them. Short slices cost little: a round of the
//! loop without clients takes 5 us.
//!
//! Only a primary deletes; replicas and the append-only file get the same deletions as UNLINK.

use mcache_core::entry::Entry;
use mcache_core::epoch::Epoch;
use mcache_core::index::Task;
use mcache_core::server::softened_end_ms;

use crate::redis::{self, Ctx, Mode, OwnedStr, writes_are_paused};
use crate::{bell, config, repair, state};

/// Deletions replicated as one command, and the most entries between two looks at the clock.
const BATCH: usize = 64;

/// Whether there is something to free and this is a primary that may.
pub fn is_wanted(ctx: Ctx<'_>) -> bool {
    state::with(|s| s.index.has_pending() || s.search().is_some()) && may_run(ctx)
}

/// A script or a load may be letting the event loop turn while it is half done: nothing may vanish under it. And while
/// a failover has paused writes, a deletion would keep the replica from ever catching up.
fn may_run(ctx: Ctx<'_>) -> bool {
    let flags = ctx.flags();
    flags.is_primary() && !flags.is_loading() && !flags.is_script() && !writes_are_paused()
}

/// One slice, adapted to what the server is doing. Returns how many entries were freed.
pub fn slice(ctx: Ctx<'_>) -> usize {
    if !may_run(ctx) {
        return 0;
    }
    let (began_ns, budget_us) = (redis::monotonic_ns(), config::reclaim_budget_us());
    let end_ns = state::with(|s| s.pace.begin(began_ns, redis::processor_ns(), budget_us));
    let freed = run(ctx, Some(end_ns));
    let took_us = (redis::monotonic_ns() - began_ns) / 1_000;
    let rest_ns = state::with(|s| {
        s.stats.longest_slice_us = s.stats.longest_slice_us.max(took_us);
        s.pace.end(redis::processor_ns())
    });
    bell::rest(rest_ns);
    freed
}

/// Frees what is dead until a moment of the monotonic clock, or all of it.
pub fn run(ctx: Ctx<'_>, end_ns: Option<u64>) -> usize {
    let over = || end_ns.is_some_and(|at_ns| redis::monotonic_ns() >= at_ns);
    let mut freed = 0;
    let selected = ctx.db();
    if let Some(epoch) = state::with(|s| s.floor_to_tell()) {
        // Replicas and file hear of it either way, and once is enough.
        let along: Vec<[u8; 2]> = state::with(|s| s.exports.keys().collect());
        if along.is_empty() {
            ctx.replicate_floor(epoch.0);
        }
        for key in along {
            ctx.replicate_floor_along(key, epoch.0);
        }
    }
    repair::search(ctx, || over() || writes_are_paused());
    // A failover may pause writes meanwhile; then nothing that expired can be deleted, however often it is tried.
    while state::with(|s| s.index.has_pending()) && !over() && !writes_are_paused() {
        let mut deleted: Vec<OwnedStr> = Vec::with_capacity(BATCH);
        let mut batch_db = None;
        let mut idle = true;
        while deleted.len() < BATCH {
            let Some(job) = state::with(|s| s.index.next_task().map(Job::new)) else {
                break;
            };
            if batch_db
                .replace(job.db)
                .is_some_and(|before| before != job.db)
            {
                break;
            }
            idle = false;
            ctx.select(job.db);
            job.perform(ctx, &mut deleted);
            // 1.5 us an entry: a look at the clock costs a hundredth of it.
            if over() {
                break;
            }
        }
        if !deleted.is_empty() {
            freed += deleted.len();
            ctx.replicate_unlink(&deleted);
        }
        if idle {
            state::with(|s| s.tidy());
        }
    }
    ctx.select(selected);
    state::with(|s| s.stats.reclaimed += freed as u64);
    freed
}

/// A task, with the name of its key: the functions of Redis called since the task was handed out may have freed the
/// entry, so from then on the entry is compared and not looked at, unless the key still holds it.
pub struct Job {
    /// The database, to be selected.
    db: usize,
    name: OwnedStr,
    entry: Entry,
    /// The entry's number in the index.
    id: u32,
    /// When it was softly invalidated, if it may still be served stale.
    soft: Option<Epoch>,
}

impl Job {
    /// Takes what must be known of the entry while it is certain to be there: before anything in Redis is called.
    pub fn new(task: Task) -> Job {
        let (db, entry, soft) = match task {
            Task::Delete { db, entry } => (db, entry, None),
            Task::Shorten { db, entry, since } => (db, entry, Some(since)),
        };
        Job {
            db,
            name: OwnedStr::new(entry.key()),
            entry,
            id: entry.id(),
            soft,
        }
    }

    /// Does it: the names of deleted keys are added to `deleted`, to be replicated. False if the entry is gone. The
    /// database is selected.
    pub fn perform(self, ctx: Ctx<'_>, deleted: &mut Vec<OwnedStr>) -> bool {
        let mut key = ctx.open(self.name.as_raw(), Mode::Write);
        let mut trimmed = false;
        if !key.holds(self.entry) && ctx.flags().is_trimming() {
            // Its slot has gone, and the server hides the key until it deletes it, as its replicas do by themselves: a
            // command that named the key would hold up all that they are sent until they are through.
            drop(key);
            key = ctx.open(self.name.as_raw(), Mode::Trimmed);
            trimmed = key.holds(self.entry);
        }
        if !key.holds(self.entry) {
            drop(key);
            // Mostly it expired when the key was opened, and Redis deleted and replicated that by itself. But while
            // writes are paused what expired is hidden and stays.
            if !writes_are_paused() && state::with(|s| s.absent(self.db, self.id, self.entry)) {
                redis::log_warning(
                    "mcache: the index named an entry that the keyspace does not hold; please report it",
                );
            }
            return false;
        }
        if trimmed {
            key.unlink();
            return false;
        }
        let Some(since) = self.soft else {
            key.unlink();
            drop(key);
            ctx.announce(c"mcache.invalidated", self.name.as_raw());
            // Near caches were told why when it was invalidated.
            state::with(|s| s.feed.key_left_by_itself(self.name.as_bytes()));
            deleted.push(self.name);
            return true;
        };
        let ends_ms = softened_end_ms(&self.entry, since);
        state::with(|s| s.shortened(self.db, self.entry, ends_ms));
        key.correct_deadline(self.entry);
        drop(key);
        ctx.announce(c"mcache.stale", self.name.as_raw());
        ctx.replicate_shorten(&self.name, ends_ms);
        true
    }
}
