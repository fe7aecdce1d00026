//! Replies.

use std::ffi::CString;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use redis_module::raw;

use super::{Ctx, rm};

/// The reply of a command that answers `+OK`, kept to be passed on.
static OK: AtomicPtr<raw::RedisModuleCallReply> = AtomicPtr::new(null_mut());

/// Has Redis make the reply `OK` once, for [`Ctx::reply_ok`].
///
/// # Safety
/// `ctx` is the context of the module's load function.
pub unsafe fn prepare(ctx: *mut raw::RedisModuleCtx) {
    // A command that changes nothing: the client that a call runs as watches no keys.
    // SAFETY: the caller's promise; the format names no arguments. The reply is never freed.
    OK.store(
        unsafe { rm!(RedisModule_Call)(ctx, c"UNWATCH".as_ptr(), c"".as_ptr()) },
        Ordering::Relaxed,
    );
}

impl Ctx<'_> {
    /// `+OK`. Redis makes a status out of a text anew each time, in 700 instructions, a twentieth of a SET with three tags; a
    /// reply that is there already it copies in 150.
    pub fn reply_ok(self) {
        let ok = OK.load(Ordering::Relaxed);
        // SAFETY: valid context; a reply that is never freed, or a C string.
        unsafe {
            if ok.is_null() {
                rm!(RedisModule_ReplyWithSimpleString)(self.raw(), c"OK".as_ptr());
            } else {
                rm!(RedisModule_ReplyWithCallReply)(self.raw(), ok);
            }
        }
    }

    /// A null.
    #[inline]
    pub fn reply_null(self) {
        // SAFETY: valid context.
        unsafe { rm!(RedisModule_ReplyWithNull)(self.raw()) };
    }

    /// A bulk string.
    #[inline]
    pub fn reply_bytes(self, bytes: &[u8]) {
        // SAFETY: valid context; Redis copies the bytes.
        unsafe {
            rm!(RedisModule_ReplyWithStringBuffer)(self.raw(), bytes.as_ptr().cast(), bytes.len())
        };
    }

    /// An integer.
    pub fn reply_integer(self, number: i64) {
        // SAFETY: valid context.
        unsafe { rm!(RedisModule_ReplyWithLongLong)(self.raw(), number) };
    }

    /// An array; its elements follow.
    pub fn reply_array(self, len: usize) {
        // SAFETY: valid context.
        unsafe { rm!(RedisModule_ReplyWithArray)(self.raw(), len as _) };
    }

    /// A map (a flat array in RESP2); its keys and values follow.
    pub fn reply_map(self, len: usize) {
        // SAFETY: valid context.
        unsafe { rm!(RedisModule_ReplyWithMap)(self.raw(), len as _) };
    }

    /// An error, code word first.
    pub fn reply_error(self, text: &str) {
        let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
        // SAFETY: valid context; Redis copies the text.
        unsafe { rm!(RedisModule_ReplyWithError)(self.raw(), text.as_ptr()) };
    }
}
