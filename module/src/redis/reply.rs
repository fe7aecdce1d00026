//! Replies.

use std::ffi::CString;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use redis_module::raw;

use super::{Ctx, rm};

/// A reply that Redis made once, kept to be passed on: to copy one that is there costs less than to make it anew.
struct Made(AtomicPtr<raw::RedisModuleCallReply>);

/// The reply of a command that answers `+OK`.
static OK: Made = Made::none();
/// The bulk string `hit`.
static HIT: Made = Made::none();

impl Made {
    const fn none() -> Self {
        Made(AtomicPtr::new(null_mut()))
    }

    fn keep(&self, reply: *mut raw::RedisModuleCallReply) {
        self.0.store(reply, Ordering::Relaxed);
    }

    /// Replies it; false if it was not to be had.
    #[inline]
    fn reply(&self, ctx: Ctx<'_>) -> bool {
        let reply = self.0.load(Ordering::Relaxed);
        if !reply.is_null() {
            // SAFETY: valid context, and a reply that is never freed.
            unsafe { rm!(RedisModule_ReplyWithCallReply)(ctx.raw(), reply) };
        }
        !reply.is_null()
    }
}

/// Has Redis make the replies that are used most, for [`Ctx::reply_ok`] and [`Ctx::reply_hit`].
///
/// # Safety
/// `ctx` is the context of the module's load function.
pub unsafe fn prepare(ctx: *mut raw::RedisModuleCtx) {
    // A command that changes nothing: the client that a call runs as watches no keys.
    // SAFETY: the caller's promise; the formats name no argument, and one C string. The replies are never freed.
    unsafe {
        OK.keep(rm!(RedisModule_Call)(
            ctx,
            c"UNWATCH".as_ptr(),
            c"".as_ptr(),
        ));
        HIT.keep(rm!(RedisModule_Call)(
            ctx,
            c"ECHO".as_ptr(),
            c"c".as_ptr(),
            c"hit".as_ptr(),
        ));
    }
}

impl Ctx<'_> {
    /// `+OK`. Redis makes a status out of a text anew each time, in 700 instructions, a twentieth of a SET with three
    /// tags; a reply that is there already it copies in 150.
    pub fn reply_ok(self) {
        if !OK.reply(self) {
            // SAFETY: valid context, and a C string.
            unsafe { rm!(RedisModule_ReplyWithSimpleString)(self.raw(), c"OK".as_ptr()) };
        }
    }

    /// The bulk string `hit`, with which most replies of FETCH begin: 150 instructions instead of 430.
    #[inline]
    pub fn reply_hit(self) {
        if !HIT.reply(self) {
            self.reply_bytes(b"hit");
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
