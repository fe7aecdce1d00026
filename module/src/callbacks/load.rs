//! Loading: the API, the options, the data type, the commands, the events. What any of them does is in the file of that
//! name.

use std::ffi::{CStr, c_int};

use mcache_core::host::SlotMigration;
use redis_module::{Context, raw};

use super::{datatype, events, info, slots};
use crate::commands::table;
use crate::redis::{self, Ctx, Str, eventloop, guard, host, rm};
use crate::{config, near, repair, rounds, state};

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
    guard::log_panics();
    // SAFETY: the context is valid and the API is initialised.
    match std::panic::catch_unwind(|| unsafe { load(ctx, argv, argc) }) {
        Ok(Ok(())) => raw::REDISMODULE_OK as c_int,
        Ok(Err(why)) => {
            redis::log_warning(&format!("mcache was not loaded: {why}"));
            raw::REDISMODULE_ERR as c_int
        }
        Err(_) => raw::REDISMODULE_ERR as c_int,
    }
}

/// # Safety
/// As for `RedisModule_OnLoad`, after the API is initialised.
unsafe fn load(ctx: *mut raw::RedisModuleCtx, argv: *mut Str, argc: c_int) -> Result<(), String> {
    // SAFETY: the caller's promise.
    let host = unsafe { host::find(ctx)? };
    redis::check().map_err(|missing| format!("this is {host}, and it lacks {missing}"))?;
    let args = redis_module::decode_args(ctx.cast(), argv, argc);
    // The options may change what the state is made with as soon as they are read.
    state::init(config::invalidation_memory_tags());
    near::init();
    repair::init();
    guard::repair_with(repair::REPAIR);
    config::register(&Context::new(ctx), &args)?;
    // SAFETY: the caller's promise.
    unsafe {
        // Redis has logged which value was wrong. If this were ignored, Valkey would unload the module itself and end
        // doing so; Redis 7.0 would say that it was not loaded, and leave it there.
        if rm!(RedisModule_LoadConfigs)(ctx) != raw::REDISMODULE_OK as c_int {
            return Err("an option cannot have the value that it is given".into());
        }
        host.check(host::setting(Ctx::new(ctx), config::accept_valkey_8_1()))?;
        let mut options = (raw::REDISMODULE_OPTIONS_HANDLE_IO_ERRORS
            | raw::REDISMODULE_OPTIONS_HANDLE_REPL_ASYNC_LOAD) as c_int;
        if host.slot_migration() == SlotMigration::Valkey {
            options |= slots::HANDLE_ATOMIC_SLOT_MIGRATION;
        }
        rm!(RedisModule_SetModuleOptions)(ctx, options);
        datatype::register(ctx)?;
        let own_category = host::add_category(ctx, NAME);
        for command in table::all() {
            command
                .register(ctx, own_category.then_some(NAME))
                .ok_or_else(|| format!("{:?} could not be registered", command.name))?;
        }
        events::subscribe(ctx).map_err(|event| format!("no subscription to {event}"))?;
        eventloop::prepare(ctx, rounds::round)
            .map_err(|error| format!("no socket pair for reclaim: {error}"))?;
        redis::prepare_replies(ctx);
        info::register(ctx);
    }
    config::apply_invalidation_memory();
    config::apply_feed();
    Ok(())
}
