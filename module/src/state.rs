//! The module's one global: what core's [`Server`] knows.
//!
//! It belongs to the main thread. Redis calls back while a command of ours is deleting or overwriting a key, so the
//! rule is: take the state, have core decide, let go, then call Redis. A nested [`with`] panics instead of handing out
//! two `&mut`, and the guard at the boundary turns that into an error reply.

use mcache_core::fills::Fills;
use mcache_core::hash::Key;
use mcache_core::server::{Awaited, Server};

use crate::redis::global::MainThread;
use crate::redis::guard::Repair;
use crate::redis::{self, Blocked};

/// What the module knows; parked clients are known by Redis's handle.
pub type State = Server<Blocked>;

static STATE: MainThread<State> = MainThread::new();

/// Told of every entry that is freed, by the thread that frees it; the one thing here that other threads may touch.
pub static AWAITED: Awaited = Awaited::new();

/// Begins with nothing; called once, when the module is loaded.
pub fn init(invalidation_memory_tags: usize) {
    // Of this process only: it is never saved, replicated or shown.
    let key = Key::new([redis::random_u64(), redis::random_u64()]);
    let (incarnation, now_ms) = (redis::random_u64(), redis::now_ms());
    let fills = Fills::with_key(key, incarnation, now_ms, invalidation_memory_tags);
    STATE.set(Server::new(fills, &AWAITED));
}

/// Runs `body` with the state. Do not call Redis from within, unless the call cannot come back.
///
/// # Panics
/// When nested.
#[inline]
pub fn with<T>(body: impl FnOnce(&mut State) -> T) -> T {
    STATE.with(body)
}

/// What is done after a bug: it is counted, and where something was being changed, nothing that was stored is trusted.
pub const REPAIR: Repair = Repair {
    count: || with(|s| s.stats.panics += 1),
    repair: || with(|s| s.repaired(redis::now_ms())),
};
