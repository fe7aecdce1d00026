//! The data type as Redis knows it.

use std::ffi::{CStr, c_int};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use redis_module::raw;

use super::rm;

static TYPE: AtomicPtr<raw::RedisModuleType> = AtomicPtr::new(null_mut());

/// The type's handle.
#[inline]
pub fn handle() -> *mut raw::RedisModuleType {
    TYPE.load(Ordering::Relaxed)
}

/// Registers the type.
///
/// # Safety
/// `ctx` is the context of the module's load function; the callbacks of `methods` keep to what Redis expects of them.
pub unsafe fn register(
    ctx: *mut raw::RedisModuleCtx,
    name: &CStr,
    version: c_int,
    mut methods: raw::RedisModuleTypeMethods,
) -> Result<(), &'static str> {
    // SAFETY: a valid context, a C string and a table that Redis copies.
    let handle =
        unsafe { rm!(RedisModule_CreateDataType)(ctx, name.as_ptr(), version, &raw mut methods) };
    if handle.is_null() {
        return Err("the data type could not be registered");
    }
    TYPE.store(handle, Ordering::Relaxed);
    Ok(())
}
