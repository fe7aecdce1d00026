//! Work between two rounds of the event loop.
//!
//! A descriptor that is always readable is registered with Redis's event loop: the loop serves every client that is
//! ready, calls back, and comes round again without sleeping.

use std::ffi::{CStr, c_int, c_void};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use redis_module::raw;

use super::guard::guard;
use super::{Ctx, rm};

/// A pair of connected sockets: with one byte in it, the first one stays readable for ever.
static BELL: OnceLock<(UnixStream, UnixStream)> = OnceLock::new();
/// What each round calls.
static EACH_ROUND: OnceLock<fn()> = OnceLock::new();
/// A context for the event loop's callback, which gets none.
static CONTEXT: AtomicPtr<raw::RedisModuleCtx> = AtomicPtr::new(null_mut());

const READABLE: c_int = raw::REDISMODULE_EVENTLOOP_READABLE as c_int;

/// Prepares what [`start`] needs; `each_round` is what it has called.
///
/// # Safety
/// `ctx` is the context of the module's load function.
pub unsafe fn prepare(ctx: *mut raw::RedisModuleCtx, each_round: fn()) -> std::io::Result<()> {
    let (readable, other) = UnixStream::pair()?;
    std::io::Write::write_all(&mut &other, &[0])?;
    // SAFETY: the caller's promise; the context lives as long as the server.
    CONTEXT.store(
        unsafe { rm!(RedisModule_GetDetachedThreadSafeContext)(ctx) },
        Ordering::Relaxed,
    );
    let _ = EACH_ROUND.set(each_round);
    let _ = BELL.set((readable, other));
    Ok(())
}

/// Has what was prepared called once in each round of the event loop until [`stop`]; false if that cannot be.
pub fn start() -> bool {
    let Some((bell, _)) = BELL.get() else {
        return false;
    };
    // SAFETY: the descriptor stays open as long as the module is loaded; the callback is given no data.
    let added = unsafe {
        rm!(RedisModule_EventLoopAdd)(bell.as_raw_fd(), READABLE, Some(on_bell), null_mut())
    };
    added == raw::REDISMODULE_OK as c_int
}

/// The reverse of [`start`].
pub fn stop() {
    if let Some((bell, _)) = BELL.get() {
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
