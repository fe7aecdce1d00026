//! The context of a callback, and what the server is at the moment.

use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::ptr::null_mut;

use mcache_core::host::SlotMigration;
use redis_module::raw;

use super::{OwnedStr, Str, host, rm};

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
    /// Slots that have gone to another server are being trimmed (Redis 8.4; in other servers the bit is not this
    /// one's).
    pub fn is_trimming(self) -> bool {
        const TRIM_IN_PROGRESS: u32 = 1 << 26;
        host::slot_migration() == SlotMigration::Redis && self.has(TRIM_IN_PROGRESS)
    }
    /// More memory is used than `maxmemory` allows: commands that need more are refused.
    pub fn is_out_of_memory(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_OOM)
    }
    /// A node of a cluster.
    pub fn is_in_cluster(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_CLUSTER)
    }
    /// The append-only file is on.
    pub fn has_aof(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_AOF)
    }
    /// A node of a cluster.
    pub fn is_cluster(self) -> bool {
        self.has(raw::REDISMODULE_CTX_FLAGS_CLUSTER)
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

/// Whether the server is a replica, or is about to be one: a node of a cluster knows from its own file that it is a
/// replica before it has found its primary.
pub fn is_replica() -> bool {
    /// Of the names of nodes, as Redis has them.
    const ID_BYTES: usize = 40;
    let flags = server_flags();
    if !flags.is_primary() {
        return true;
    }
    if !flags.has(raw::REDISMODULE_CTX_FLAGS_CLUSTER) {
        return false;
    }
    let (mut ip, mut primary) = ([0; 64], [0; ID_BYTES + 1]);
    let (mut port, mut node_flags) = (0, 0);
    // SAFETY: the buffers are as long as Redis demands (46 and 40 bytes); it accepts a null context for a call that
    // asks its own table of nodes.
    let found = unsafe {
        let own = rm!(RedisModule_GetMyClusterID)();
        !own.is_null()
            && rm!(RedisModule_GetClusterNodeInfo)(
                null_mut(),
                own,
                ip.as_mut_ptr(),
                primary.as_mut_ptr(),
                &mut port,
                &mut node_flags,
            ) == raw::REDISMODULE_OK as c_int
    };
    found && node_flags & raw::REDISMODULE_NODE_SLAVE as c_int != 0
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

    /// Tells those who watch or track the key that it changed. Does not come back.
    pub fn signal_modified(self, key: Str) {
        // SAFETY: valid context, and a string that outlives the call.
        unsafe { rm!(RedisModule_SignalModifiedKey)(self.raw, key) };
    }

    /// Announces a keyspace event of the class `d` (events of modules).
    #[inline]
    pub fn announce(self, event: &CStr, key: Str) {
        let class = raw::REDISMODULE_NOTIFY_MODULE as c_int;
        // SAFETY: valid context, a C string, and a string that outlives the call.
        unsafe { rm!(RedisModule_NotifyKeyspaceEvent)(self.raw, class, event.as_ptr(), key) };
    }

    /// The id of the client that sent the command.
    pub fn client(self) -> u64 {
        // SAFETY: valid context.
        unsafe { rm!(RedisModule_GetClientId)(self.raw) }
    }
}

impl Ctx<'_> {
    /// Whether the client has tracking on, so that it must hear of changes to every key that it has read. Redis
    /// remembers the keys of a command when it replies at once, and cannot for a client that a module has parked. With
    /// BCAST it remembers none.
    pub fn must_not_wait(self) -> bool {
        let id = self.client();
        let mut info = raw::RedisModuleClientInfo {
            version: 1,
            flags: 0,
            id: 0,
            addr: [0; 46],
            port: 0,
            db: 0,
        };
        // SAFETY: Redis fills in version 1 of this structure, for an id of any value.
        let known = unsafe { rm!(RedisModule_GetClientInfoById)((&raw mut info).cast(), id) } == 0;
        known
            && info.flags & u64::from(raw::REDISMODULE_CLIENTINFO_FLAG_TRACKING) != 0
            && !self.tracks_by_broadcast(id)
    }

    /// Whether a client that tracks does so in broadcasting mode: `B` among its flags in CLIENT LIST.
    fn tracks_by_broadcast(self, id: u64) -> bool {
        let id = OwnedStr::new(id.to_string().as_bytes());
        // SAFETY: valid context; the format says two C strings and a string; the reply is freed here.
        unsafe {
            let reply = rm!(RedisModule_Call)(
                self.raw,
                c"CLIENT".as_ptr(),
                c"ccs".as_ptr(),
                c"LIST".as_ptr(),
                c"ID".as_ptr(),
                id.as_raw(),
            );
            if reply.is_null() {
                return false;
            }
            let mut len = 0;
            let text = rm!(RedisModule_CallReplyStringPtr)(reply, &mut len);
            let line = match text.is_null() {
                true => &[],
                false => std::slice::from_raw_parts(text.cast::<u8>(), len),
            };
            let mut words = line.split(|byte| *byte == b' ');
            let flags = words.find_map(|word| word.strip_prefix(b"flags="));
            let broadcasts = flags.is_some_and(|flags| flags.contains(&b'B'));
            rm!(RedisModule_FreeCallReply)(reply);
            broadcasts
        }
    }
}

/// Whether writes are paused, so that replicas can catch up: during a failover nothing may be deleted, either.
pub fn writes_are_paused() -> bool {
    // SAFETY: takes nothing.
    (unsafe { rm!(RedisModule_AvoidReplicaTraffic)() }) != 0
}
