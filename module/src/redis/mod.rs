//! The floor: what the module calls. Redis's module API, as far as mcache uses it, in types that cannot be held
//! wrongly.
//!
//! Raw pointers come in only through callbacks (those of `callbacks/`, and the trampolines of `command.rs`,
//! `waiting.rs` and `eventloop.rs`) and are valid for the length of the callback; the lifetimes here say so. The
//! functions themselves were checked to be there when the module was loaded ([`check`]), so they are called without
//! another check on each call. Nothing here decides anything, and nothing here knows of the state.
//!
//! - this file: the functions, and those that need no context
//! - `ctx.rs`: the context of a callback; `reply.rs`, `replicate.rs`, `waiting.rs`, `user.rs`: what can be done with it
//! - `node.rs`: what the server says of itself and of its cluster
//! - `key.rs`: open keys; `kind.rs`: the data type; `string.rs`: strings and arguments
//! - `command.rs`: commands and how Redis calls them; `eventloop.rs`: work between two rounds of the event loop
//! - `host.rs`: which server this is
//! - `guard.rs`: the boundary that no panic crosses; `global.rs`: a value that belongs to the main thread

pub mod command;
mod ctx;
pub mod eventloop;
pub mod global;
pub mod guard;
pub mod host;
mod key;
pub mod kind;
mod node;
mod replicate;
mod reply;
mod string;
mod user;
mod waiting;

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::null_mut;
use std::sync::LazyLock;
use std::time::Instant;

use mcache_core::server::Edge;
use redis_module::raw;

pub use ctx::{Ctx, is_replica, server_flags, writes_are_paused};
pub use key::{Cursor, Held, Key, Mode};
pub use node::{
    cluster_node_timeout_ms, cluster_nodes, cluster_state_is_ok, redirection, rules_of, unlink,
    users, would_execute_writes,
};
pub use replicate::{is_heard, set_heard};
pub use reply::prepare as prepare_replies;
pub use string::{Args, OwnedStr, Str, bytes};
pub use user::{Access, Permitted};
pub use waiting::{Blocked, Parked, Told, unblock};

/// A function of the API. Reading it is part of the `unsafe` block that calls it: sound because [`check`] refused to
/// load the module where the function is missing, and the table never changes afterwards.
macro_rules! rm {
    ($name:ident) => {
        redis_module::raw::$name.unwrap_unchecked()
    };
}
pub(crate) use rm;

macro_rules! required {
    ($($name:ident),* $(,)?) => {
        /// The first function of the API that this server lacks.
        pub fn check() -> Result<(), &'static str> {
            // SAFETY: the table was filled in by the module's initialisation and is only read here.
            unsafe { $(if (&raw const raw::$name).read().is_none() { return Err(stringify!($name)); })* }
            Ok(())
        }
    };
}

required![
    RedisModule_BlockClient,
    RedisModule_UnblockClient,
    RedisModule_SetDisconnectCallback,
    RedisModule_GetBlockedClientHandle,
    RedisModule_GetBlockedClientPrivateData,
    RedisModule_CreateTimer,
    RedisModule_StopTimer,
    RedisModule_ACLCheckCommandPermissions,
    RedisModule_ACLCheckKeyPermissions,
    RedisModule_AvoidReplicaTraffic,
    RedisModule_Call,
    RedisModule_CallReplyArrayElement,
    RedisModule_CallReplyInteger,
    RedisModule_CallReplyLength,
    RedisModule_CallReplyStringPtr,
    RedisModule_CallReplyType,
    RedisModule_CloseKey,
    RedisModule_CreateCommand,
    RedisModule_CreateDataType,
    RedisModule_CreateModuleUser,
    RedisModule_CreateString,
    RedisModule_CreateSubcommand,
    RedisModule_DefragAlloc,
    RedisModule_DigestAddLongLong,
    RedisModule_DigestAddStringBuffer,
    RedisModule_DigestEndSequence,
    RedisModule_EmitAOF,
    RedisModule_EventLoopAdd,
    RedisModule_EventLoopDel,
    RedisModule_Free,
    RedisModule_FreeCallReply,
    RedisModule_FreeModuleUser,
    RedisModule_FreeServerInfo,
    RedisModule_FreeString,
    RedisModule_GetAbsExpire,
    RedisModule_GetClientId,
    RedisModule_GetClientInfoById,
    RedisModule_GetClusterNodeInfo,
    RedisModule_GetMyClusterID,
    RedisModule_GetClientUserNameById,
    RedisModule_GetCommand,
    RedisModule_GetContextFlags,
    RedisModule_GetCurrentUserName,
    RedisModule_GetDbIdFromDefragCtx,
    RedisModule_GetDbIdFromModuleKey,
    RedisModule_GetDbIdFromOptCtx,
    RedisModule_GetDetachedThreadSafeContext,
    RedisModule_GetKeyNameFromIO,
    RedisModule_GetModuleUserFromUserName,
    RedisModule_GetRandomBytes,
    RedisModule_GetSelectedDb,
    RedisModule_GetServerInfo,
    RedisModule_GetToKeyNameFromOptCtx,
    RedisModule_InfoAddFieldULongLong,
    RedisModule_InfoAddSection,
    RedisModule_KeyType,
    RedisModule_LoadConfigs,
    RedisModule_LoadStringBuffer,
    RedisModule_Log,
    RedisModule_Milliseconds,
    RedisModule_ModuleTypeGetType,
    RedisModule_ModuleTypeGetValue,
    RedisModule_ModuleTypeReplaceValue,
    RedisModule_ModuleTypeSetValue,
    RedisModule_NotifyKeyspaceEvent,
    RedisModule_OpenKey,
    RedisModule_RegisterInfoFunc,
    RedisModule_Replicate,
    RedisModule_ReplicateVerbatim,
    RedisModule_ReplyWithArray,
    RedisModule_ReplyWithCallReply,
    RedisModule_ReplyWithError,
    RedisModule_ReplyWithLongLong,
    RedisModule_ReplyWithMap,
    RedisModule_ReplyWithNull,
    RedisModule_ReplyWithSimpleString,
    RedisModule_ReplyWithStringBuffer,
    RedisModule_SaveStringBuffer,
    RedisModule_Scan,
    RedisModule_ScanCursorCreate,
    RedisModule_ScanCursorDestroy,
    RedisModule_SelectDb,
    RedisModule_ServerInfoGetFieldC,
    RedisModule_ServerInfoGetFieldUnsigned,
    RedisModule_SetAbsExpire,
    RedisModule_SetCommandInfo,
    RedisModule_SetModuleOptions,
    RedisModule_SetModuleUserACL,
    RedisModule_SignalModifiedKey,
    RedisModule_StringPtrLen,
    RedisModule_SubscribeToKeyspaceEvents,
    RedisModule_SubscribeToServerEvent,
    RedisModule_UnlinkKey,
];

/// Who hears what happens to keys.
pub trait Watcher {
    /// The event, and the key.
    fn happened(ctx: Ctx<'_>, event: &[u8], key: &[u8]);
}

unsafe extern "C" fn on_key<W: Watcher>(
    ctx: *mut raw::RedisModuleCtx,
    _: c_int,
    event: *const c_char,
    key: Str,
) -> c_int {
    guard::guard((), || {
        // SAFETY: valid during the callback.
        let (ctx, event, key) = unsafe { (Ctx::new(ctx), CStr::from_ptr(event), bytes(key)) };
        W::happened(ctx, event.to_bytes(), key);
    });
    raw::REDISMODULE_OK as c_int
}

/// Has Redis tell from now on of keys that come, change their name or their deadline, or go, by any command; false if
/// it refuses.
pub fn watch_keys<W: Watcher>(ctx: Ctx<'_>) -> bool {
    let kinds = raw::REDISMODULE_NOTIFY_GENERIC
        | raw::REDISMODULE_NOTIFY_NEW
        // A command that overwrites an entry by another type says so in the class of that type only.
        | raw::REDISMODULE_NOTIFY_STRING
        | raw::REDISMODULE_NOTIFY_LIST
        | raw::REDISMODULE_NOTIFY_SET
        | raw::REDISMODULE_NOTIFY_ZSET
        | raw::REDISMODULE_NOTIFY_HASH
        | raw::REDISMODULE_NOTIFY_STREAM
        | raw::REDISMODULE_NOTIFY_EXPIRED
        | raw::REDISMODULE_NOTIFY_EVICTED;
    // SAFETY: valid context, and a function that lives as long as the module.
    let subscribed =
        unsafe { rm!(RedisModule_SubscribeToKeyspaceEvents)(ctx.raw(), kinds, Some(on_key::<W>)) };
    subscribed as isize == raw::REDISMODULE_OK
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    // SAFETY: takes nothing, reads the clock.
    (unsafe { rm!(RedisModule_Milliseconds)() }) as u64
}

/// Nanoseconds of a clock that never goes back, from the first call on.
pub fn monotonic_ns() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGAN.elapsed().as_nanos() as u64
}

/// Nanoseconds of processor time that this thread has used.
pub fn processor_ns() -> u64 {
    let time = clock(libc::CLOCK_THREAD_CPUTIME_ID);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Microseconds of a clock that never goes back and goes on while the machine sleeps: near leases are counted on it.
pub fn boot_us() -> u64 {
    let time = clock(libc::CLOCK_BOOTTIME);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// What a clock says that every Linux since 2.6.39 has.
fn clock(id: libc::clockid_t) -> libc::timespec {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes into a structure of its own type.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time
}

/// What the logic asks of Redis.
pub struct Redis;

impl Edge for Redis {
    fn now_ms(&self) -> u64 {
        now_ms()
    }
    fn random(&self) -> u64 {
        random_u64()
    }
    fn is_primary(&self) -> bool {
        server_flags().is_primary()
    }
}

/// A random number.
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: writes eight bytes into a buffer of eight.
    unsafe { rm!(RedisModule_GetRandomBytes)(bytes.as_mut_ptr(), bytes.len()) };
    u64::from_ne_bytes(bytes)
}

/// Writes a warning to the server's log.
pub fn log_warning(text: &str) {
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    // SAFETY: Redis accepts a null context; the format takes the one C string that follows it.
    unsafe {
        rm!(RedisModule_Log)(
            null_mut(),
            c"warning".as_ptr(),
            c"%s".as_ptr(),
            text.as_ptr(),
        )
    };
}
