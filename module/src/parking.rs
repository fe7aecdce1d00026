//! Clients that wait for the fill of another: the edge of `mcache_core::lease`.
//!
//! A parked client is woken by being told to look again, to fill, or that it has waited long enough; what it then
//! replies is decided at that moment (`commands::fetch`), so nothing that was invalidated meanwhile is served.
//!
//! One module timer stands at the next end of a lease or of a client's patience: Redis's own timeouts of blocked
//! clients are looked at only when the event loop happens to turn.

use std::time::{Duration, Instant};

use mcache_core::epoch::Token;
use mcache_core::lease::{Answer, Released, Waiter, Wake};
use mcache_core::server::Alarm;

use crate::redis::{self, Blocked, Ctx, Parked, Told};
use crate::{bell, near, state};

/// Tells each client what it is to be told, and sees to the timer.
fn wake(ctx: Ctx<'_>, wakes: Vec<Wake<Blocked>>) {
    unblock_all(wakes);
    set_timer(ctx);
}

/// Core hands out as many as may be woken at once; where there are more, the next rounds of the event loop go on.
fn unblock_all(wakes: Vec<Wake<Blocked>>) {
    if wakes.is_empty() {
        return;
    }
    for (blocked, answer) in wakes {
        redis::unblock(blocked, Some(Told::Lease(answer)));
    }
    bell::ring();
}

/// Whether there is a client to wake.
#[inline]
pub fn anybody_waits() -> bool {
    state::with(|s| s.leases.parked() > 0)
}

/// The key holds a value now, or what it held was deleted: every client that waits for it looks again.
#[inline]
pub fn filled(ctx: Ctx<'_>, key: &[u8], bytes: usize) {
    unblock_all(state::with(|s| {
        s.filled(ctx.db(), key, bytes, redis::now_ms)
    }));
}

/// The holder of this token gives its lease back; false if it holds none.
pub fn release(ctx: Ctx<'_>, key: &[u8], token: Token) -> bool {
    let db = ctx.db();
    match state::with(|s| s.release(db, key, token, redis::now_ms())) {
        Released::NotHeld => false,
        Released::Freed => true,
        Released::PassedOn(next) => {
            wake(ctx, vec![next]);
            true
        }
    }
}

/// A client is gone.
pub fn disconnected(ctx: Ctx<'_>, client: u64) {
    if state::with(|s| s.leases.is_empty()) {
        return;
    }
    let gone = state::with(|s| s.disconnected(client, redis::now_ms()));
    for own in gone.own {
        redis::unblock(own, None);
    }
    if !gone.wakes.is_empty() {
        wake(ctx, gone.wakes);
    }
}

/// Takes a client out of line without an answer. One that was woken already is on its way out by itself.
pub fn leave(blocked: Blocked) {
    if state::with(|s| s.leave(blocked)) {
        redis::unblock(blocked, None);
    }
}

/// In a cluster, as often as Redis looks after its own blocked clients: those that wait for keys of slots that went to
/// another server are sent there. Of very many a part each time.
pub fn follow_slots(ctx: Ctx<'_>) {
    const BUDGET: Duration = Duration::from_millis(1);
    if ctx.flags().is_cluster()
        && anybody_waits()
        && let Some(here) = near::slots_here(ctx)
    {
        let began = Instant::now();
        let mut through = false;
        while !through && began.elapsed() < BUDGET {
            let (wakes, is_through) = state::with(|s| s.slots_left(&here));
            unblock_all(wakes);
            through = is_through;
        }
    }
}

/// The data set, or the server's role, changed: these clients look again.
pub fn look_again(wakes: Vec<Wake<Blocked>>) {
    unblock_all(wakes);
}

/// Parks the client until the key's lease ends one way or another; it looks again at once if no client holds the lease
/// any more. `P` says what it replies.
pub fn park<P: Parked>(ctx: Ctx<'_>, key: &[u8], lease_ms: u64, wait_ms: u64) {
    let blocked = ctx.block::<P>(wait_ms);
    let (client, db) = (ctx.client(), ctx.db());
    let parked = state::with(|s| {
        let waiter = Waiter {
            handle: blocked,
            client,
            lease_ms,
            until_ms: redis::now_ms() + wait_ms,
        };
        s.park(db, key, waiter)
    });
    if !parked {
        redis::unblock(blocked, Some(Told::Lease(Answer::Look)));
    }
    set_timer(ctx);
}

/// Has the timer fire at the next end. Called whenever that may have come nearer.
fn set_timer(ctx: Ctx<'_>) {
    let Some(at_ms) = state::with(|s| s.alarm_due()) else {
        return;
    };
    let timer = ctx.start_timer(at_ms.saturating_sub(redis::now_ms()), on_timer);
    if let Some(before) = state::with(|s| s.alarm_set(Alarm { timer, at_ms })) {
        ctx.stop_timer(before.timer);
    }
}

fn on_timer(ctx: Ctx<'_>) {
    state::with(|s| s.alarm_fired());
    advance(ctx);
    set_timer(ctx);
}

/// Ends what is to end by now, or a bounded part of it.
pub fn advance(ctx: Ctx<'_>) {
    let now_ms = redis::now_ms();
    let wakes = state::with(|s| s.advance(now_ms));
    if !wakes.is_empty() {
        wake(ctx, wakes);
    }
    if state::with(|s| s.is_behind(now_ms)) {
        bell::ring();
    }
}
