//! `INFO mcache`, as Redis asks for it.

use std::ffi::{CString, c_int};

use redis_module::raw;

use crate::info::fields;
use crate::redis::guard::guard;
use crate::redis::rm;

/// Has Redis ask.
///
/// # Safety
/// `ctx` is the context of the module's load function.
pub unsafe fn register(ctx: *mut raw::RedisModuleCtx) {
    // SAFETY: the caller's promise, and a function that lives as long as the module.
    unsafe { rm!(RedisModule_RegisterInfoFunc)(ctx, Some(report)) };
}

/// Adds the section to a running INFO.
unsafe extern "C" fn report(ctx: *mut raw::RedisModuleInfoCtx, _crash_report: c_int) {
    guard((), || {
        // SAFETY: the context is valid during the callback; an unnamed section gets the module's name.
        if unsafe { rm!(RedisModule_InfoAddSection)(ctx, c"".as_ptr()) }
            != raw::REDISMODULE_OK as c_int
        {
            return;
        }
        for (name, number) in fields() {
            let name = CString::new(name).unwrap_or_default();
            // SAFETY: as above; Redis copies the name.
            unsafe { rm!(RedisModule_InfoAddFieldULongLong)(ctx, name.as_ptr(), number) };
        }
    });
}
