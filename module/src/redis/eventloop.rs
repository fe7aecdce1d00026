//! Work between two rounds of the event loop.
//!
//! A descriptor that stays readable is registered with Redis's event loop: the loop serves every client that is
//! ready, calls back, and comes round again without sleeping. It is a timer that is never read: once it has fired it
//! is readable for good, and armed again it is not before it fires again.

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use redis_module::raw;

use super::guard::guard;
use super::{Ctx, rm};

/// The timer.
static BELL: OnceLock<OwnedFd> = OnceLock::new();
/// What each round calls.
static EACH_ROUND: OnceLock<fn()> = OnceLock::new();
/// A context for the event loop's callback, which gets none.
static CONTEXT: AtomicPtr<raw::RedisModuleCtx> = AtomicPtr::new(null_mut());

const READABLE: c_int = raw::REDISMODULE_EVENTLOOP_READABLE as c_int;

/// Prepares what [`start`] needs; `each_round` is what it has called.
///
/// # Safety
/// `ctx` is the context of the module's load function.
pub unsafe fn prepare(ctx: *mut raw::RedisModuleCtx, each_round: fn()) -> io::Result<()> {
    // SAFETY: takes no memory of ours.
    let timer = unsafe {
        libc::timerfd_create(
            libc::CLOCK_MONOTONIC,
            libc::TFD_NONBLOCK | libc::TFD_CLOEXEC,
        )
    };
    if timer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nothing else owns.
    let timer = unsafe { OwnedFd::from_raw_fd(timer) };
    // SAFETY: the caller's promise; the context lives as long as the server.
    CONTEXT.store(
        unsafe { rm!(RedisModule_GetDetachedThreadSafeContext)(ctx) },
        Ordering::Relaxed,
    );
    let _ = EACH_ROUND.set(each_round);
    let _ = BELL.set(timer);
    Ok(())
}

/// Has what was prepared called once in each round of the event loop until [`stop`]; false if that cannot be.
pub fn start() -> bool {
    let Some(bell) = BELL.get() else {
        return false;
    };
    // SAFETY: the descriptor stays open as long as the module is loaded; the callback is given no data.
    let added = unsafe {
        rm!(RedisModule_EventLoopAdd)(bell.as_raw_fd(), READABLE, Some(on_bell), null_mut())
    };
    added == raw::REDISMODULE_OK as c_int && after(0)
}

/// Between [`start`] and [`stop`]: the next call comes in so many nanoseconds, and until then the loop may sleep. False
/// if that cannot be.
pub fn after(ns: u64) -> bool {
    let Some(bell) = BELL.get() else {
        return false;
    };
    // A timer of zero is none.
    let ns = ns.max(1);
    let mut at = libc::itimerspec {
        it_interval: libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
    };
    at.it_value.tv_sec = (ns / 1_000_000_000) as libc::time_t;
    at.it_value.tv_nsec = (ns % 1_000_000_000) as libc::c_long;
    // SAFETY: an open timer, and a structure of its type.
    unsafe { libc::timerfd_settime(bell.as_raw_fd(), 0, &raw const at, null_mut()) == 0 }
}

/// The reverse of [`start`].
pub fn stop() {
    if let Some(bell) = BELL.get() {
        // SAFETY: as above.
        unsafe { rm!(RedisModule_EventLoopDel)(bell.as_raw_fd(), READABLE) };
    }
}

unsafe extern "C" fn on_bell(_: c_int, _: *mut c_void, _: c_int) {
    guard((), || {
        if let Some(each_round) = EACH_ROUND.get() {
            each_round();
        }
    });
}

/// A context for what runs between commands.
pub fn context() -> Ctx<'static> {
    // SAFETY: the context lives as long as the server, and callbacks run on its main thread.
    unsafe { Ctx::new(CONTEXT.load(Ordering::Relaxed)) }
}

/// Runs a command of ours without arguments. It thus gets a context whose deletions are replicated as one transaction.
pub fn run(command: &CStr) {
    let context = CONTEXT.load(Ordering::Relaxed);
    // Without the `!` Redis would replicate nothing that happens within, not even expiry.
    // SAFETY: the context lives as long as the server; the format names no arguments.
    unsafe {
        let reply = rm!(RedisModule_Call)(context, command.as_ptr(), c"!".as_ptr());
        if !reply.is_null() {
            rm!(RedisModule_FreeCallReply)(reply);
        }
    }
}
