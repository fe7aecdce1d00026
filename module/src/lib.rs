//! mcache, the Redis module: the edge between Redis and `mcache-core`.
//!
//! Loading: the allocator, the API, the options, the data type, the commands, the events. What any of them does is in
//! the file of that name.

mod commands;
mod config;
mod ffi;
mod info;
mod listeners;
mod parking;
mod reclaim;
mod state;

use std::ffi::{CStr, c_int};

use redis_module::{Context, raw};

use ffi::api::{self, Str, rm};
use ffi::{datatype, events};

/// Redis's own allocator, so that index and entries count in `used_memory` and under `maxmemory`.
#[global_allocator]
static ALLOCATOR: redis_module::alloc::RedisAlloc = redis_module::alloc::RedisAlloc;

const NAME: &CStr = c"mcache";
const VERSION: c_int = 100;

/// Redis calls this when it loads the module.
///
/// # Safety
/// Called by Redis, with a valid context and `argc` arguments.
#[unsafe(no_mangle)]
#[allow(non_snake_case)]
pub unsafe extern "C" fn RedisModule_OnLoad(
    ctx: *mut raw::RedisModuleCtx,
    argv: *mut Str,
    argc: c_int,
) -> c_int {
    // Nothing may allocate before this: the allocator is Redis's.
    // SAFETY: a valid context and a C string.
    let init = unsafe {
        raw::Export_RedisModule_Init(
            ctx,
            NAME.as_ptr(),
            VERSION,
            raw::REDISMODULE_APIVER_1 as c_int,
        )
    };
    if init != raw::REDISMODULE_OK as c_int {
        return raw::REDISMODULE_ERR as c_int;
    }
    log_panics();
    // SAFETY: the context is valid and the API is initialised.
    match std::panic::catch_unwind(|| unsafe { load(ctx, argv, argc) }) {
        Ok(Ok(())) => raw::REDISMODULE_OK as c_int,
        Ok(Err(why)) => {
            api::log_warning(&format!("mcache was not loaded: {why}"));
            raw::REDISMODULE_ERR as c_int
        }
        Err(_) => raw::REDISMODULE_ERR as c_int,
    }
}

/// # Safety
/// As for `RedisModule_OnLoad`, after the API is initialised.
unsafe fn load(ctx: *mut raw::RedisModuleCtx, argv: *mut Str, argc: c_int) -> Result<(), String> {
    api::check()
        .map_err(|missing| format!("this server lacks {missing}; Redis 7.0 or later is needed"))?;
    let args = redis_module::decode_args(ctx.cast(), argv, argc);
    config::register(&Context::new(ctx), &args)?;
    // SAFETY: the caller's promise.
    unsafe {
        rm!(RedisModule_LoadConfigs)(ctx);
        let options = raw::REDISMODULE_OPTIONS_HANDLE_IO_ERRORS
            | raw::REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD;
        rm!(RedisModule_SetModuleOptions)(ctx, options as c_int);
        datatype::register(ctx)?;
        commands::table::register(ctx)?;
        events::subscribe(ctx).map_err(|event| format!("no subscription to {event}"))?;
        reclaim::prepare(ctx).map_err(|error| format!("no socket pair for reclaim: {error}"))?;
        api::prepare_replies(ctx);
        rm!(RedisModule_RegisterInfoFunc)(ctx, Some(info::report));
    }
    Ok(())
}

/// A panic's place belongs into Redis's log, not on a standard error that nobody reads.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        api::log_warning(&format!("mcache: {panic}"))
    }));
}
