//! What the server says of itself and of its cluster.

use std::ffi::CStr;

use redis_module::raw;

use super::{Ctx, OwnedStr, Str, rm};

/// A reply of a command that was called, freed when dropped.
struct Reply(*mut raw::RedisModuleCallReply);

impl Reply {
    fn kind(&self) -> u32 {
        match self.0.is_null() {
            true => raw::REDISMODULE_REPLY_NULL as u32,
            // SAFETY: a reply that is not freed yet.
            false => (unsafe { rm!(RedisModule_CallReplyType)(self.0) }) as u32,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        if self.kind() != raw::REDISMODULE_REPLY_STRING as u32 {
            return Vec::new();
        }
        let mut len = 0;
        // SAFETY: a bulk reply; its bytes live as long as it does and are copied here.
        unsafe {
            let start = rm!(RedisModule_CallReplyStringPtr)(self.0, &mut len);
            match start.is_null() {
                true => Vec::new(),
                false => std::slice::from_raw_parts(start.cast(), len).to_vec(),
            }
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: freed once.
            unsafe { rm!(RedisModule_FreeCallReply)(self.0) };
        }
    }
}

fn cluster(ctx: Ctx<'_>, what: &CStr) -> Vec<u8> {
    // SAFETY: valid context; the format names one C string.
    let reply = unsafe {
        rm!(RedisModule_Call)(ctx.raw(), c"CLUSTER".as_ptr(), c"c".as_ptr(), what.as_ptr())
    };
    Reply(reply).bytes()
}

/// The list of the cluster's nodes as this one knows it.
pub fn cluster_nodes(ctx: Ctx<'_>) -> Vec<u8> {
    cluster(ctx, c"NODES")
}

/// Whether this node thinks that the cluster is in order: it sees the majority, and every slot is served.
pub fn cluster_state_is_ok(ctx: Ctx<'_>) -> bool {
    let info = cluster(ctx, c"INFO");
    info.split(|byte| *byte == b'\n')
        .any(|line| line.trim_ascii() == b"cluster_state:ok")
}

/// `cluster-node-timeout`; `None` where CONFIG cannot be asked.
pub fn cluster_node_timeout_ms(ctx: Ctx<'_>) -> Option<u64> {
    // SAFETY: valid context; the format names two C strings.
    let reply = unsafe {
        rm!(RedisModule_Call)(
            ctx.raw(),
            c"CONFIG".as_ptr(),
            c"cc".as_ptr(),
            c"GET".as_ptr(),
            c"cluster-node-timeout".as_ptr(),
        )
    };
    let reply = Reply(reply);
    if reply.kind() != raw::REDISMODULE_REPLY_ARRAY as u32 {
        return None;
    }
    // SAFETY: an array that is not freed yet, which owns its element; null if it has no such element.
    let value = unsafe {
        let element = rm!(RedisModule_CallReplyArrayElement)(reply.0, 1);
        if element.is_null() {
            return None;
        }
        let mut len = 0;
        let start = rm!(RedisModule_CallReplyStringPtr)(element, &mut len);
        if start.is_null() {
            return None;
        }
        std::slice::from_raw_parts(start.cast(), len)
    };
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The error for a client whose key is in a slot that this server does not have: where to go instead.
pub fn redirection(ctx: Ctx<'_>, slot: u16) -> String {
    mcache_core::feed::redirection(&cluster_nodes(ctx), slot)
}

/// The names of all users of the ACL.
pub fn users(ctx: Ctx<'_>) -> Vec<OwnedStr> {
    // SAFETY: valid context; the format names one C string.
    let reply = unsafe {
        let word = c"USERS".as_ptr();
        rm!(RedisModule_Call)(ctx.raw(), c"ACL".as_ptr(), c"c".as_ptr(), word)
    };
    let reply = Reply(reply);
    if reply.kind() != raw::REDISMODULE_REPLY_ARRAY as u32 {
        return Vec::new();
    }
    // SAFETY: an array that is not freed yet, and positions within it; elements are freed with it.
    unsafe {
        (0..rm!(RedisModule_CallReplyLength)(reply.0))
            .map(|at| {
                let element = rm!(RedisModule_CallReplyArrayElement)(reply.0, at);
                let mut len = 0;
                let start = rm!(RedisModule_CallReplyStringPtr)(element, &mut len);
                match start.is_null() {
                    true => OwnedStr::new(b""),
                    false => OwnedStr::new(std::slice::from_raw_parts(start.cast(), len)),
                }
            })
            .collect()
    }
}

/// The line of ACL LIST about a user, without its beginning, "user name "; `None` if there is none. O(users): for
/// servers that do not tell it otherwise.
pub fn rules_of(ctx: Ctx<'_>, name: &[u8]) -> Option<Vec<u8>> {
    // SAFETY: valid context; the format names one C string.
    let reply = unsafe {
        let word = c"LIST".as_ptr();
        rm!(RedisModule_Call)(ctx.raw(), c"ACL".as_ptr(), c"c".as_ptr(), word)
    };
    let reply = Reply(reply);
    if reply.kind() != raw::REDISMODULE_REPLY_ARRAY as u32 {
        return None;
    }
    let of_name = |line: &[u8]| {
        let rest = line.strip_prefix(b"user ")?.strip_prefix(name)?;
        rest.strip_prefix(b" ").map(<[u8]>::to_vec)
    };
    // SAFETY: an array that is not freed yet, and positions within it; elements are freed with it.
    unsafe {
        (0..rm!(RedisModule_CallReplyLength)(reply.0)).find_map(|at| {
            let element = rm!(RedisModule_CallReplyArrayElement)(reply.0, at);
            let mut len = 0;
            let start = rm!(RedisModule_CallReplyStringPtr)(element, &mut len);
            match start.is_null() {
                true => None,
                false => of_name(std::slice::from_raw_parts(start.cast(), len)),
            }
        })
    }
}

/// UNLINK of these keys, replicated; how many there were.
pub fn unlink(ctx: Ctx<'_>, keys: &[Str]) -> i64 {
    // SAFETY: valid context; the format names a vector of strings, and that it is to be replicated.
    let reply = unsafe {
        rm!(RedisModule_Call)(
            ctx.raw(),
            c"UNLINK".as_ptr(),
            c"!v".as_ptr(),
            keys.as_ptr(),
            keys.len(),
        )
    };
    let reply = Reply(reply);
    match reply.kind() == raw::REDISMODULE_REPLY_INTEGER as u32 {
        // SAFETY: an integer reply that is not freed yet.
        true => unsafe { rm!(RedisModule_CallReplyInteger)(reply.0) },
        false => 0,
    }
}

/// Whether the server would execute a write now: it is a primary, as many replicas are connected as it asks for, and
/// saving has not failed. Redis checks that for writes that scripts call, so this calls a write that changes nothing,
/// as a script would.
pub fn would_execute_writes(ctx: Ctx<'_>) -> bool {
    // SAFETY: valid context; the format names no arguments.
    let reply = unsafe {
        rm!(RedisModule_Call)(
            ctx.raw(),
            c"mcache.writable".as_ptr(),
            // As a script would; errors come as replies.
            c"SE".as_ptr(),
        )
    };
    let reply = Reply(reply);
    !reply.0.is_null() && reply.kind() != raw::REDISMODULE_REPLY_ERROR as u32
}
