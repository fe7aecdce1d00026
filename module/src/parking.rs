//! Clients that wait for somebody else's fill: the edge of `mcache_core::lease`.
//!
//! A parked client is woken by being told to look again, to fill, or that it has waited long enough; what it then
//! replies is decided at that moment (`commands::fetch`), so nothing that was invalidated meanwhile is served.
//!
//! One module timer stands at the next end of a lease or of somebody's patience: Redis's own timeouts of blocked clients
//! are looked at only when the event loop happens to turn.

use std::ffi::c_void;

use mcache_core::epoch::Token;
use mcache_core::lease::{Answer, Waiter, Wake};
use redis_module::raw;

use crate::ffi::api::{self, Blocked, Ctx};
use crate::ffi::guard::guard;
use crate::state::{self, State};

/// Tells everybody what they are to be told, and sees to the timer.
fn wake(ctx: Ctx<'_>, wakes: Vec<Wake<Blocked>>) {
    unblock_all(wakes);
    set_timer(ctx);
}

fn unblock_all(wakes: Vec<Wake<Blocked>>) {
    for (blocked, answer) in wakes {
        api::unblock(blocked, Some(answer));
    }
}

/// Whether there is anybody to wake.
#[inline]
pub fn anybody_waits() -> bool {
    state::with(|s| s.leases.parked() > 0)
}

/// The key holds a value now, or what it held was deleted: whoever waits for it looks again.
#[inline]
pub fn filled(ctx: Ctx<'_>, key: &[u8]) {
    let wakes = state::with(|s| {
        if s.leases.is_empty() {
            Vec::new()
        } else {
            s.leases.filled(ctx.db(), key)
        }
    });
    unblock_all(wakes);
}

/// The holder of this token gives its lease back; false if it holds none.
pub fn release(ctx: Ctx<'_>, key: &[u8], token: Token) -> bool {
    let db = ctx.db();
    let released = state::with(|s| {
        let now_ms = api::now_ms();
        let State { leases, fills, .. } = s;
        leases.release(db, key, token, now_ms, || fills.unique_token(now_ms))
    });
    let found = released.is_some();
    wake(ctx, released.flatten().into_iter().collect());
    found
}

/// A client is gone.
pub fn disconnected(ctx: Ctx<'_>, client: u64) {
    if state::with(|s| s.leases.is_empty()) {
        return;
    }
    for own in state::with(|s| s.leases.behind_itself(client)) {
        leave(own);
    }
    let wakes = state::with(|s| {
        let now_ms = api::now_ms();
        let State { leases, fills, .. } = s;
        leases.disconnected(client, now_ms, || fills.unique_token(now_ms))
    });
    if !wakes.is_empty() {
        wake(ctx, wakes);
    }
}

/// Takes a client out of line without an answer. One that was woken already is on its way out by itself.
fn leave(blocked: Blocked) {
    if state::with(|s| s.leases.forget(blocked)) {
        api::unblock(blocked, None);
    }
}

/// The data of a database, or of all, went away: whoever waits asks again.
pub fn look_again(db: Option<usize>) {
    unblock_all(state::with(|s| s.leases.clear(db)));
}

/// Parks the client until the key's lease ends one way or another; false if nobody holds it any more.
pub fn park(ctx: Ctx<'_>, key: &[u8], lease_ms: u64, wait_ms: u64) -> bool {
    let blocked = ctx.block(
        Some(on_answer),
        Some(on_timeout),
        Some(on_gone),
        // Our own timer is exact; Redis's is there for CLIENT UNBLOCK and as a last resort.
        wait_ms + 5_000,
    );
    let (client, db) = (ctx.client(), ctx.db());
    let parked = state::with(|s| {
        let until_ms = api::now_ms() + wait_ms;
        s.leases.park(
            db,
            key,
            Waiter {
                handle: blocked,
                client,
                lease_ms,
                until_ms,
            },
        )
    });
    if !parked {
        api::unblock(blocked, Some(Answer::Look));
    }
    set_timer(ctx);
    parked
}

/// Has the timer fire at the next end. Called whenever that may have come nearer; one that fires early does no harm.
fn set_timer(ctx: Ctx<'_>) {
    let now_ms = api::now_ms();
    let change = state::with(|s| {
        // Without anybody in line no end needs to be exact: leases that ran out are taken over or swept up by the cron.
        let next_ms = s.leases.next_end_ms().filter(|_| s.leases.parked() > 0)?;
        let set = s.lease_timer;
        set.is_none_or(|(_, at_ms)| next_ms < at_ms)
            .then_some((next_ms, set))
    });
    let Some((next_ms, set)) = change else { return };
    if let Some((timer, _)) = set {
        ctx.stop_timer(timer);
    }
    let timer = ctx.start_timer(next_ms.saturating_sub(now_ms), Some(on_timer));
    state::with(|s| s.lease_timer = Some((timer, next_ms)));
}

/// Ends what is to end by now.
pub fn expire(ctx: Ctx<'_>) {
    let wakes = state::with(|s| {
        let now_ms = api::now_ms();
        let State { leases, fills, .. } = s;
        leases.expire(now_ms, || fills.unique_token(now_ms))
    });
    if !wakes.is_empty() {
        wake(ctx, wakes);
    }
}

unsafe extern "C" fn on_timer(ctx: *mut raw::RedisModuleCtx, _: *mut c_void) {
    guard((), || {
        // SAFETY: valid during the callback.
        let ctx = unsafe { Ctx::new(ctx) };
        state::with(|s| s.lease_timer = None);
        expire(ctx);
        set_timer(ctx);
    });
}

unsafe extern "C" fn on_answer(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut api::Str,
    argc: i32,
) -> i32 {
    guard((), || {
        // SAFETY: valid during the callback.
        let (ctx, args) = unsafe { (Ctx::new(ctx), api::Args::new(argv, argc)) };
        crate::commands::fetch::answer(ctx, args, ctx.answer().unwrap_or(Answer::Busy));
    });
    raw::REDISMODULE_OK as i32
}

/// CLIENT UNBLOCK, or the last resort.
unsafe extern "C" fn on_timeout(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut api::Str,
    argc: i32,
) -> i32 {
    guard((), || {
        // SAFETY: valid during the callback.
        let (ctx, args) = unsafe { (Ctx::new(ctx), api::Args::new(argv, argc)) };
        leave(ctx.blocked());
        crate::commands::fetch::answer(ctx, args, Answer::Busy);
    });
    raw::REDISMODULE_OK as i32
}

unsafe extern "C" fn on_gone(
    _: *mut raw::RedisModuleCtx,
    blocked: *mut raw::RedisModuleBlockedClient,
) {
    guard((), || leave(Blocked(blocked as usize)));
}
