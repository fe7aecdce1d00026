//! Parked clients and timers.

use std::ffi::c_void;
use std::ptr::null_mut;

use mcache_core::lease::Answer;
use redis_module::raw;

use super::{Ctx, rm};

/// A parked client. A number, for the pure logic to know it by; Redis frees what it stands for after [`unblock`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Blocked(pub usize);

/// Ends the wait of a parked client: its reply callback gets the answer. To be called exactly once for each.
pub fn unblock(blocked: Blocked, answer: Option<Answer>) {
    let data = answer.map_or(null_mut(), |answer| Box::into_raw(Box::new(answer)));
    // SAFETY: a handle from `Ctx::block` that was not unblocked before; the data is freed by `free_answer`.
    unsafe {
        rm!(RedisModule_UnblockClient)(blocked.0 as *mut raw::RedisModuleBlockedClient, data.cast())
    };
}

unsafe extern "C" fn free_answer(_: *mut raw::RedisModuleCtx, data: *mut c_void) {
    // SAFETY: made in `unblock`, freed once; Redis does not call this with null.
    drop(unsafe { Box::from_raw(data.cast::<Answer>()) });
}

impl Ctx<'_> {
    /// Parks the client. `reply` is called with what [`unblock`] is given, `timeout` when somebody else ends the wait
    /// (or after `most_ms`), `gone` when the client disconnects; the last two must call [`unblock`] as well.
    pub fn block(
        self,
        reply: raw::RedisModuleCmdFunc,
        timeout: raw::RedisModuleCmdFunc,
        gone: raw::RedisModuleDisconnectFunc,
        most_ms: u64,
    ) -> Blocked {
        // SAFETY: valid context, and functions that live as long as the module.
        unsafe {
            let blocked = rm!(RedisModule_BlockClient)(
                self.raw(),
                reply,
                timeout,
                Some(free_answer),
                most_ms as i64,
            );
            rm!(RedisModule_SetDisconnectCallback)(blocked, gone);
            Blocked(blocked as usize)
        }
    }

    /// In `reply`: what [`unblock`] was given.
    pub fn answer(self) -> Option<Answer> {
        // SAFETY: valid context of a reply callback; the data came from `unblock`.
        unsafe {
            rm!(RedisModule_GetBlockedClientPrivateData)(self.raw())
                .cast::<Answer>()
                .as_ref()
                .copied()
        }
    }

    /// In `timeout`: who it is about.
    pub fn blocked(self) -> Blocked {
        // SAFETY: valid context of a timeout callback.
        Blocked(unsafe { rm!(RedisModule_GetBlockedClientHandle)(self.raw()) } as usize)
    }

    /// Calls a function after a number of milliseconds.
    pub fn start_timer(self, after_ms: u64, function: raw::RedisModuleTimerProc) -> u64 {
        // SAFETY: valid context, and a function that lives as long as the module.
        unsafe { rm!(RedisModule_CreateTimer)(self.raw(), after_ms as i64, function, null_mut()) }
    }

    /// Takes a timer back.
    pub fn stop_timer(self, timer: u64) {
        // SAFETY: valid context; an id that is not running any more is an error without effect.
        unsafe { rm!(RedisModule_StopTimer)(self.raw(), timer, null_mut()) };
    }
}
