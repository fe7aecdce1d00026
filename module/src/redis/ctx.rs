//! The context of a callback, and what the server is at the moment.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::ptr::null_mut;

use redis_module::raw;

use super::rm;

/// What the server is and does at the moment.
#[derive(Clone, Copy)]
pub struct Flags(c_int);

impl Flags {
    fn has(self, flag: u32) -> bool {
        self.0 & flag as c_int != 0
    }
    /// A primary.
    pub fn is_primary(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_MASTER)
    }
    /// Reading an RDB or AOF file.
    pub fn is_loading(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_LOADING)
    }
    /// The command came from the primary.
    pub fn is_replicated(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_REPLICATED)
    }
    /// The caller cannot wait: a transaction, a script, another module.
    pub fn denies_blocking(self) -> bool {
        self.is_script()
            || self.has(raw::REDISMODULE_CTX_FLAGS_MULTI)
            || self.has(raw::REDISMODULE_CTX_FLAGS_DENY_BLOCKING)
    }
    /// A node of a cluster.
    pub fn is_in_cluster(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_CLUSTER)
    }
    /// The append-only file is on.
    pub fn has_aof(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_AOF)
    }
    /// A script is running.
    pub fn is_script(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_LUA)
    }
}

/// What the server is, for callbacks without a context.
pub fn server_flags() -> Flags {
    // SAFETY: Redis leaves out what concerns a client when the context is null.
    Flags(unsafe { rm!(RedisModule_GetContextFlags)(null_mut()) })
}

/// The context of a callback.
#[derive(Clone, Copy)]
pub struct Ctx<'a> {
    raw: *mut raw::RedisModuleCtx,
    callback: PhantomData<&'a ()>,
}

impl<'a> Ctx<'a> {
    /// # Safety
    /// The context is valid as long as `'a`.
    pub unsafe fn new(raw: *mut raw::RedisModuleCtx) -> Self {
        Ctx {
            raw,
            callback: PhantomData,
        }
    }

    /// For calls that take Redis's own type.
    pub(super) fn raw(self) -> *mut raw::RedisModuleCtx {
        self.raw
    }

    /// The selected database.
    #[inline]
    pub fn db(self) -> usize {
        // SAFETY: valid context.
        (unsafe { rm!(RedisModule_GetSelectedDb)(self.raw) }) as usize
    }

    /// Selects a database; false if the server has no such one.
    pub fn select(self, db: usize) -> bool {
        // SAFETY: valid context.
        (unsafe { rm!(RedisModule_SelectDb)(self.raw, db as c_int) })
            == raw::REDISMODULE_OK as c_int
    }

    /// What the server is and does at the moment.
    pub fn flags(self) -> Flags {
        // SAFETY: valid context.
        Flags(unsafe { rm!(RedisModule_GetContextFlags)(self.raw) })
    }

    /// The id of the client that sent the command.
    pub fn client(self) -> u64 {
        // SAFETY: valid context.
        unsafe { rm!(RedisModule_GetClientId)(self.raw) }
    }
}

/// Whether writes are paused, so that replicas can catch up: during a failover nothing may be deleted, either.
pub fn writes_are_paused() -> bool {
    // SAFETY: takes nothing.
    (unsafe { rm!(RedisModule_AvoidReplicaTraffic)() }) != 0
}
