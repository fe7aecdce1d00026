//! Parked clients and timers.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use mcache_core::feed::{Refusal, Settled, Ticket};
use mcache_core::lease::Answer;
use redis_module::raw;

use super::guard::guard;
use super::{Args, Ctx, Str, host, rm};

/// A parked client. A number, for the pure logic to know it by; Redis frees what it stands for after [`unblock`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Blocked(pub usize);

/// What a parked client is told.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    /// In FETCH.
    Lease(Answer),
    /// In FEED: what it waited for is to be answered.
    Feed(Ticket),
    /// In FEED: nothing is granted.
    Refused(Refusal),
    /// In SETTLE.
    Settled(Settled),
}

/// Ends the wait of a parked client: its reply callback gets the answer. To be called exactly once for each.
pub fn unblock(blocked: Blocked, told: Option<Told>) {
    let data = told.map_or(null_mut(), |told| Box::into_raw(Box::new(told)));
    // SAFETY: a handle from `Ctx::block` that was not unblocked before; the data is freed by `free_answer`.
    unsafe {
        rm!(RedisModule_UnblockClient)(blocked.0 as *mut raw::RedisModuleBlockedClient, data.cast())
    };
}

unsafe extern "C" fn free_answer(_: *mut raw::RedisModuleCtx, data: *mut c_void) {
    // SAFETY: made in `unblock`, freed once; Redis does not call this with null.
    drop(unsafe { Box::from_raw(data.cast::<Told>()) });
}

/// How much later than we Redis itself would end a wait.
const LAST_RESORT_MS: u64 = 5_000;

/// What becomes of a parked client: the callbacks that Redis makes for it.
pub trait Parked {
    /// [`unblock`] gave it an answer: replies.
    fn answered(ctx: Ctx<'_>, args: Args<'_>, told: Option<Told>);
    /// CLIENT UNBLOCK, or the last resort, ended the wait, where the server can do that: replies. [`unblock`] must be
    /// called for it as well.
    fn timed_out(ctx: Ctx<'_>, args: Args<'_>, blocked: Blocked);
    /// It disconnected. [`unblock`] must be called for it as well.
    fn gone(blocked: Blocked);
}

unsafe extern "C" fn on_answer<P: Parked>(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut Str,
    argc: c_int,
) -> c_int {
    guard((), || {
        // SAFETY: valid during the callback.
        let (ctx, args) = unsafe { (Ctx::new(ctx), Args::new(argv, argc)) };
        P::answered(ctx, args, ctx.told());
    });
    raw::REDISMODULE_OK as c_int
}

unsafe extern "C" fn on_timeout<P: Parked>(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut Str,
    argc: c_int,
) -> c_int {
    guard((), || {
        // SAFETY: valid during the callback.
        let (ctx, args) = unsafe { (Ctx::new(ctx), Args::new(argv, argc)) };
        P::timed_out(ctx, args, ctx.blocked());
    });
    raw::REDISMODULE_OK as c_int
}

unsafe extern "C" fn on_gone<P: Parked>(
    _: *mut raw::RedisModuleCtx,
    blocked: *mut raw::RedisModuleBlockedClient,
) {
    guard((), || P::gone(Blocked(blocked as usize)));
}

unsafe extern "C" fn on_timer(ctx: *mut raw::RedisModuleCtx, function: *mut c_void) {
    guard((), || {
        // SAFETY: `start_timer` made the pointer of such a function; the context is valid during the callback.
        let (function, ctx) = unsafe {
            let function = std::mem::transmute::<*mut c_void, fn(Ctx<'_>)>(function);
            (function, Ctx::new(ctx))
        };
        function(ctx);
    });
}

impl Ctx<'_> {
    /// Parks the client, for [`unblock`] to end its wait after `wait_ms` at most: our own timers are exact. Redis's
    /// timeout is there for CLIENT UNBLOCK and as a last resort, where the server can end waits.
    pub fn block<P: Parked>(self, wait_ms: u64) -> Blocked {
        let (on_timeout, most_ms): (raw::RedisModuleCmdFunc, i64) = match host::can_end_waits() {
            true => (Some(on_timeout::<P>), (wait_ms + LAST_RESORT_MS) as i64),
            false => (None, 0),
        };
        // SAFETY: valid context, and functions that live as long as the module.
        unsafe {
            let blocked = rm!(RedisModule_BlockClient)(
                self.raw(),
                Some(on_answer::<P>),
                on_timeout,
                Some(free_answer),
                most_ms,
            );
            rm!(RedisModule_SetDisconnectCallback)(blocked, Some(on_gone::<P>));
            Blocked(blocked as usize)
        }
    }

    /// In [`Parked::answered`]: what [`unblock`] was given.
    fn told(self) -> Option<Told> {
        // SAFETY: valid context of a reply callback; the data came from `unblock`.
        unsafe {
            rm!(RedisModule_GetBlockedClientPrivateData)(self.raw())
                .cast::<Told>()
                .as_ref()
                .copied()
        }
    }

    /// In [`Parked::timed_out`]: who it is about.
    fn blocked(self) -> Blocked {
        // SAFETY: valid context of a timeout callback.
        Blocked(unsafe { rm!(RedisModule_GetBlockedClientHandle)(self.raw()) } as usize)
    }

    /// Calls a function after a number of milliseconds.
    pub fn start_timer(self, after_ms: u64, function: fn(Ctx<'_>)) -> u64 {
        // SAFETY: valid context, and functions that live as long as the module.
        unsafe {
            rm!(RedisModule_CreateTimer)(
                self.raw(),
                after_ms as i64,
                Some(on_timer),
                function as *mut c_void,
            )
        }
    }

    /// Takes a timer back.
    pub fn stop_timer(self, timer: u64) {
        // SAFETY: valid context; an id that is not running any more is an error without effect.
        unsafe { rm!(RedisModule_StopTimer)(self.raw(), timer, null_mut()) };
    }
}
