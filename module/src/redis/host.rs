//! Which server this is: asked once, when the module is loaded.

use std::ffi::{CStr, c_int};
use std::sync::OnceLock;

use mcache_core::host::{Host, Setting, SlotMigration};
use redis_module::raw;

use super::{Ctx, rm};

static HOST: OnceLock<Host> = OnceLock::new();
static IN_CLUSTER: OnceLock<bool> = OnceLock::new();

/// Asks the server what it is, with the few functions that every server with modules has.
///
/// # Errors
/// Why the module cannot be in this server, as a sentence.
///
/// # Safety
/// `ctx` is the context of the module's load function.
pub unsafe fn find(ctx: *mut raw::RedisModuleCtx) -> Result<Host, String> {
    // SAFETY: the table was filled in by the module's initialisation and is only read here.
    let needed = unsafe {
        [
            (&raw const raw::RedisModule_GetServerInfo).read().is_some(),
            (&raw const raw::RedisModule_ServerInfoGetFieldC)
                .read()
                .is_some(),
            (&raw const raw::RedisModule_FreeServerInfo)
                .read()
                .is_some(),
        ]
    };
    if needed != [true; 3] {
        return Err(
            "this server cannot say what it is; Redis 7.0.5, Valkey 7.2 or later is needed"
                .to_owned(),
        );
    }
    // SAFETY: valid context and C strings, functions that are there; what is returned lives as long as `info`, which is
    // freed when it has been read.
    let host = unsafe {
        let info = rm!(RedisModule_GetServerInfo)(ctx, c"server".as_ptr());
        let field = |name: &CStr| {
            let text = rm!(RedisModule_ServerInfoGetFieldC)(info, name.as_ptr());
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy())
        };
        let host = Host::parse(
            field(c"server_name").as_deref(),
            field(c"redis_version").as_deref(),
            field(c"valkey_version").as_deref(),
        );
        rm!(RedisModule_FreeServerInfo)(ctx, info);
        host?
    };
    // What does not depend on options is said first: the functions of a server that is too old are not looked at.
    host.check(Setting {
        several_databases: false,
        accept_valkey_8_1: false,
    })?;
    Ok(*HOST.get_or_init(|| host))
}

/// What of the server's set-up a refusal depends on.
pub fn setting(ctx: Ctx<'_>, accept_valkey_8_1: bool) -> Setting {
    let in_cluster = *IN_CLUSTER.get_or_init(|| ctx.flags().is_in_cluster());
    let selected = ctx.db();
    let several = ctx.select(1);
    ctx.select(selected);
    Setting {
        // A node of a cluster refuses MOVE and COPY ... DB where it has one database only, as all had before Valkey 9.
        several_databases: several && !in_cluster,
        accept_valkey_8_1,
    }
}

/// How slots can move whole here.
pub fn slot_migration() -> SlotMigration {
    HOST.get()
        .map_or(SlotMigration::ByKey, |host| host.slot_migration())
}

/// Whether the server can end the wait of a parked client by itself.
pub fn can_end_waits() -> bool {
    HOST.get().is_some_and(|host| host.can_end_waits())
}

/// Whether the user `default` is the same one for as long as the server runs.
#[inline]
pub fn keeps_default_user() -> bool {
    HOST.get().is_some_and(|host| host.keeps_default_user())
}

/// Whether this is a node of a cluster.
#[inline]
pub fn is_in_cluster() -> bool {
    IN_CLUSTER.get() == Some(&true)
}

/// Whether the server has a function that not all have.
///
/// # Safety
/// `function` points to an entry of the table that the module's initialisation filled in.
pub unsafe fn has<F>(function: *const Option<F>) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*function).is_some() }
}

/// Makes a category of the ACL for what applications need, where the server knows such.
///
/// # Safety
/// `ctx` is the context of the module's load function.
pub unsafe fn add_category(ctx: *mut raw::RedisModuleCtx, name: &CStr) -> bool {
    // SAFETY: the caller's promise, and a C string; the function is there.
    unsafe {
        has(&raw const raw::RedisModule_AddACLCategory)
            && rm!(RedisModule_AddACLCategory)(ctx, name.as_ptr()) == raw::REDISMODULE_OK as c_int
    }
}
