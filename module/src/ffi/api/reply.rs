//! Replies.

use std::ffi::{CStr, CString};

use super::{Ctx, rm};

impl Ctx<'_> {
    /// `+OK` and the like.
    pub fn reply_status(self, text: &CStr) {
        // SAFETY: valid context and a C string.
        unsafe { rm!(RedisModule_ReplyWithSimpleString)(self.raw(), text.as_ptr()) };
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
