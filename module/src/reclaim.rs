//! Freeing dead entries in slices, without anybody having to wait for it.
//!
//! While there is something to free, a file descriptor that is always readable is registered with Redis's event loop,
//! so the loop serves every client that is ready, runs one slice, and comes round again without sleeping. An idle server
//! thus reclaims all the time; a module timer would rest a millisecond between slices. A slice lasts at most
//! `mcache.reclaim-budget-us`, and how long the loop took since the last slice tells whether clients are being served: then
//! slices shrink to a quarter of it. Short slices cost little: a round of the loop
//! without clients takes 5 us.
//!
//! Only a primary deletes; replicas and the append-only file get the same deletions as UNLINK.

use std::ffi::{c_int, c_void};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mcache_core::entry::Entry;
use mcache_core::epoch::Epoch;
use mcache_core::index::Task;
use redis_module::raw;

use crate::config;
use crate::ffi::api::{self, Ctx, Held, Mode, OwnedStr, rm, writes_are_paused};
use crate::ffi::guard::guard;
use crate::state;

/// A round of the event loop that took less served nobody: an empty one takes 5 us, one with a GET 20.
const IDLE_ROUND: Duration = Duration::from_micros(12);
/// Deletions replicated as one command, and the most entries between two looks at the clock.
const BATCH: usize = 64;

/// A pair of connected sockets: with one byte in it, the first one stays readable for ever.
static BELL: OnceLock<(UnixStream, UnixStream)> = OnceLock::new();
static ARMED: AtomicBool = AtomicBool::new(false);
/// A context for the event loop's callback, which gets none.
static CONTEXT: AtomicPtr<raw::RedisModuleCtx> = AtomicPtr::new(null_mut());
/// The length of the next slice in microseconds, and when the last one ended in nanoseconds since `start`.
static SLICE_US: AtomicU64 = AtomicU64::new(0);

/// Prepares what the slices need.
///
/// # Safety
/// `ctx` is the context of the module's load function.
pub unsafe fn prepare(ctx: *mut raw::RedisModuleCtx) -> std::io::Result<()> {
    let (readable, other) = UnixStream::pair()?;
    std::io::Write::write_all(&mut &other, &[0])?;
    // SAFETY: the caller's promise; the context lives as long as the server.
    CONTEXT.store(
        unsafe { rm!(RedisModule_GetDetachedThreadSafeContext)(ctx) },
        Ordering::Relaxed,
    );
    let _ = BELL.set((readable, other));
    Ok(())
}

/// Starts reclaiming if there is something to free and this is a primary.
pub fn arm(ctx: Ctx<'_>) {
    let Some((bell, _)) = BELL.get() else { return };
    if ARMED.load(Ordering::Relaxed) || !state::with(|s| s.index.has_pending()) || !may_run(ctx) {
        return;
    }
    let mask = raw::REDISMODULE_EVENTLOOP_READABLE as c_int;
    // SAFETY: the descriptor stays open as long as the module is loaded, and so does the function.
    let added =
        unsafe { rm!(RedisModule_EventLoopAdd)(bell.as_raw_fd(), mask, Some(on_bell), null_mut()) };
    if added == raw::REDISMODULE_OK as c_int {
        SLICE_US.store(config::reclaim_budget_us(), Ordering::Relaxed);
        ARMED.store(true, Ordering::Relaxed);
    }
}

/// Frees a little of what flushed databases left in the index. That deletes no key, so replicas do it as well; they have no
/// slices to do it in.
pub fn bury() {
    const BUDGET: Duration = Duration::from_millis(1);
    if !ARMED.load(Ordering::Relaxed) {
        let began = Instant::now();
        while state::with(|s| s.index.bury()) && began.elapsed() < BUDGET {}
    }
}

fn disarm() {
    if let Some((bell, _)) = BELL.get() {
        // SAFETY: as above.
        unsafe {
            rm!(RedisModule_EventLoopDel)(
                bell.as_raw_fd(),
                raw::REDISMODULE_EVENTLOOP_READABLE as c_int,
            )
        };
    }
    ARMED.store(false, Ordering::Relaxed);
}

/// A script or a load may be letting the event loop turn while it is half done: nothing may vanish under it. And while a
/// failover has paused writes, a deletion would keep the replica from ever catching up.
fn may_run(ctx: Ctx<'_>) -> bool {
    let flags = ctx.flags();
    flags.is_primary() && !flags.is_loading() && !flags.is_script() && !writes_are_paused()
}

unsafe extern "C" fn on_bell(_: c_int, _: *mut c_void, _: c_int) {
    guard((), || {
        let raw = CONTEXT.load(Ordering::Relaxed);
        // The slice runs as a command, which gives it a context whose deletions are replicated as one transaction;
        // without the `!` Redis would replicate nothing that happens within, not even expiry.
        // SAFETY: the context lives as long as the server; the format names no arguments.
        unsafe {
            let reply = rm!(RedisModule_Call)(raw, c"mcache.reclaim".as_ptr(), c"!".as_ptr());
            if !reply.is_null() {
                rm!(RedisModule_FreeCallReply)(reply);
            }
        }
    });
}

/// One slice, adapted to what the server is doing. Returns how many entries were freed.
pub fn slice(ctx: Ctx<'_>) -> usize {
    static LAST: std::sync::Mutex<Option<Instant>> = std::sync::Mutex::new(None);
    if !may_run(ctx) {
        // The cron starts it again.
        disarm();
        return 0;
    }
    let began = Instant::now();
    let mut last = LAST
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let budget_us = config::reclaim_budget_us();
    let idle = last.is_none_or(|end| began.saturating_duration_since(end) < IDLE_ROUND);
    let slice_us = SLICE_US.load(Ordering::Relaxed);
    let slice_us =
        if idle { slice_us * 2 } else { slice_us / 2 }.clamp((budget_us / 4).max(1), budget_us);
    SLICE_US.store(slice_us, Ordering::Relaxed);

    let freed = run(ctx, Some(began + Duration::from_micros(slice_us)));
    let ended = Instant::now();
    *last = Some(ended);
    let took_us = ended.saturating_duration_since(began).as_micros() as u64;
    let more = state::with(|s| {
        s.stats.longest_slice_us = s.stats.longest_slice_us.max(took_us);
        s.index.has_pending()
    });
    if !more {
        disarm();
    }
    freed
}

/// Frees what is dead until the deadline, or all of it.
pub fn run(ctx: Ctx<'_>, deadline: Option<Instant>) -> usize {
    let over = || deadline.is_some_and(|at| Instant::now() >= at);
    let mut freed = 0;
    let selected = ctx.db();
    while state::with(|s| s.index.has_pending()) && !over() {
        let mut batch: Vec<OwnedStr> = Vec::with_capacity(BATCH);
        let mut batch_db = None;
        let mut idle = true;
        while batch.len() < BATCH {
            let Some(task) = state::with(|s| s.index.next_task()) else {
                break;
            };
            let (Task::Delete { db, .. } | Task::Shorten { db, .. }) = task;
            if batch_db.replace(db).is_some_and(|before| before != db) {
                break;
            }
            idle = false;
            ctx.select(db);
            match task {
                Task::Delete { db, entry } => batch.extend(delete(ctx, db, entry)),
                Task::Shorten { db, entry, epoch } => {
                    shorten(ctx, db, entry, epoch);
                }
            }
            // 1.5 us an entry: a look at the clock costs a hundredth of it.
            if over() {
                break;
            }
        }
        if !batch.is_empty() {
            freed += batch.len();
            ctx.replicate_unlink(&batch);
        }
        if idle {
            state::with(|s| s.index.bury());
        }
    }
    ctx.select(selected);
    state::with(|s| s.stats.reclaimed += freed as u64);
    freed
}

/// Sees to it that a softly invalidated entry expires one SWR window after that, and marks it as stale. False if it is
/// gone. The database is selected.
pub fn shorten(ctx: Ctx<'_>, db: usize, entry: Entry, epoch: Epoch) -> bool {
    let name = OwnedStr::new(entry.key());
    let key = ctx.open(name.as_raw(), Mode::Write);
    if !matches!(key.held(), Held::Entry(found) if found == entry) {
        return false;
    }
    // Epochs may run ahead of the wall clock; deadlines are the wall clock's.
    let wanted = epoch.unix_ms().min(api::now_ms()) + u64::from(entry.swr_ms());
    let deadline_ms = key.deadline_ms().map_or(wanted, |now| now.min(wanted));
    key.set_deadline(Some(deadline_ms));
    drop(key);
    // SAFETY: the keyspace holds it, so it is alive and linked.
    state::with(|s| unsafe { s.index.shortened(db, entry) });
    ctx.replicate_shorten(&name, deadline_ms);
    true
}

/// Deletes the key of an entry, and says under which name, so that it can be replicated. The database is selected.
pub fn delete(ctx: Ctx<'_>, db: usize, entry: Entry) -> Option<OwnedStr> {
    let name = OwnedStr::new(entry.key());
    let key = ctx.open(name.as_raw(), Mode::Write);
    match key.held() {
        Held::Entry(found) if found == entry => {
            key.unlink();
            drop(key);
            Some(name)
        }
        // Opening it found that it had expired, and Redis deleted and replicated that by itself.
        Held::Nothing => None,
        // Cannot be, and must not be tried again and again.
        _ => {
            debug_assert!(
                false,
                "the index names an entry that the keyspace does not hold"
            );
            // SAFETY: still linked, so not freed.
            state::with(|s| unsafe { s.index.unlink(db, entry) });
            None
        }
    }
}
