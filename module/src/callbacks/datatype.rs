//! The native data type: how Redis saves, loads, copies, measures and frees entries.
//!
//! | callback | what it does |
//! |---|---|
//! | `rdb_load`, `rdb_save` | versioned encoding; tags by name; a dead entry travels as a husk, and what cannot be read or believed is loaded as one |
//! | `aof_rewrite` | one `MCACHE.REPLSET`, also of a dead entry, as a husk; Redis adds the expiry |
//! | `unlink2` | the entry leaves the keyspace: it leaves the index first |
//! | `free` | memory, and a word to `Awaited`: it may run on a background thread (FLUSHALL ASYNC) on entries still linked |
//! | `copy2` | a new entry, linked when Redis announces the new key |
//! | `defrag` | one allocation that moves; the index is told |
//! | `mem_usage2`, `free_effort2`, `digest` | as their names say |
//!
//! Absent: `aux_load`/`aux_save` (an RDB file without entries must load where the module is missing, and epochs need no
//! saving: births are in the entries and tokens of another run are refused).

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use mcache_core::alloc::class;
use mcache_core::encode;
use mcache_core::entry::{Attributes, Entry, NEVER};
use redis_module::raw;

use crate::commands::debug::{Place, panic_if_asked};
use crate::config::{self, OnRestart};
use crate::redis::guard::{guard, guard_apart, guard_reading};
use crate::redis::{self, OwnedStr, Redis, Str, bytes, kind, rm};
use crate::state;

/// Nine characters, as Redis demands; part of the file format for ever.
const NAME: &std::ffi::CStr = c"mcache-tv";

/// Registers the type.
///
/// # Safety
/// `ctx` is the context of the module's load function.
pub unsafe fn register(ctx: *mut raw::RedisModuleCtx) -> Result<(), &'static str> {
    let methods = raw::RedisModuleTypeMethods {
        // Version 4 is Redis 7.0's. The struct of the bindings is longer, and Redis reads by version.
        version: 4,
        rdb_load: Some(rdb_load),
        rdb_save: Some(rdb_save),
        aof_rewrite: Some(aof_rewrite),
        mem_usage: None,
        digest: Some(digest),
        free: Some(free),
        aux_load: None,
        aux_save: None,
        aux_save_triggers: 0,
        free_effort: None,
        unlink: None,
        copy: None,
        defrag: Some(defrag),
        mem_usage2: Some(mem_usage),
        free_effort2: Some(free_effort),
        unlink2: Some(unlink),
        copy2: Some(copy),
        aux_save2: None,
    };
    // SAFETY: the caller's promise; the callbacks are those below.
    unsafe { kind::register(ctx, NAME, encode::VERSION, methods) }
}

/// The entry that Redis passes to a callback.
///
/// # Safety
/// `value` is a live value of our type.
unsafe fn entry(value: *const c_void) -> Entry {
    // SAFETY: the caller's promise; such a value is never null.
    unsafe { Entry::from_raw(value.cast_mut()) }.expect("a value of our type is never null")
}

/// A buffer that Redis allocated for us.
struct RedisBuffer {
    start: *mut std::ffi::c_char,
    len: usize,
}

impl RedisBuffer {
    /// # Safety
    /// `io` is the stream of a running `rdb_load`.
    unsafe fn read(io: *mut raw::RedisModuleIO) -> Option<RedisBuffer> {
        let mut len = 0;
        // SAFETY: the caller's promise. With HANDLE_IO_ERRORS set, null means that the stream broke.
        let start = unsafe { rm!(RedisModule_LoadStringBuffer)(io, &mut len) };
        if start.is_null() {
            None
        } else {
            Some(RedisBuffer { start, len })
        }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes were allocated and filled in.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.len) }
    }
}

impl Drop for RedisBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated by Redis for us, freed once.
        unsafe { rm!(RedisModule_Free)(self.start.cast()) };
    }
}

unsafe extern "C" fn rdb_load(io: *mut raw::RedisModuleIO, version: c_int) -> *mut c_void {
    // SAFETY: `io` is valid during the callback.
    let read = guard_reading(None, || unsafe {
        // With something else than two strings the stream is damaged: where the next value begins is not known.
        let (meta, value) = (RedisBuffer::read(io)?, RedisBuffer::read(io)?);
        let name = rm!(RedisModule_GetKeyNameFromIO)(io);
        (!name.is_null()).then(|| (bytes(name), meta, value))
    });
    let Some((name, meta, value)) = read else {
        return null_mut();
    };
    let load = |value: &[u8], read| {
        let drop = config::on_restart() == OnRestart::Drop;
        state::with(|s| s.load(name, value, read, drop, &Redis)).map_or(null_mut(), Entry::as_raw)
    };
    let loaded = guard_reading(None, || {
        panic_if_asked(Place::Load);
        Some(load(value.bytes(), encode::decode(version, meta.bytes())))
    });
    // What a bug keeps from being read is dead in a file and an error to its sender, as what cannot be read: the rest
    // of the file is loaded all the same.
    loaded.unwrap_or_else(|| guard_reading(null_mut(), || load(b"", None)))
}

unsafe extern "C" fn rdb_save(io: *mut raw::RedisModuleIO, value: *mut c_void) {
    // SAFETY: `value` is ours and `io` is valid during the callback. Runs in a forked child, too: it changes nothing.
    let saved = guard_reading(None, || unsafe {
        panic_if_asked(Place::Save);
        Some(state::with(|s| s.saved(&entry(value), redis::now_ms())))
    });
    // A file with nothing at all in this place would not load.
    let (meta, with_value) = saved.unwrap_or_else(|| (encode::husk(), false));
    // SAFETY: as above.
    guard_reading((), || unsafe {
        let entry = entry(value);
        let payload = if with_value { entry.value() } else { b"" };
        rm!(RedisModule_SaveStringBuffer)(io, meta.as_ptr().cast(), meta.len());
        rm!(RedisModule_SaveStringBuffer)(io, payload.as_ptr().cast(), payload.len());
    });
}

unsafe extern "C" fn aof_rewrite(
    io: *mut raw::RedisModuleIO,
    key: *mut raw::RedisModuleString,
    value: *mut c_void,
) {
    // SAFETY: as in `rdb_save`. Redis keeps references of its own to the strings it needs.
    let kept = guard_reading(None, || unsafe {
        panic_if_asked(Place::Rewrite);
        let entry = entry(value);
        state::with(|s| {
            let (attributes, tags) = s.kept(&entry)?;
            Some((attributes, tags.map(OwnedStr::new).collect::<Vec<_>>()))
        })
    });
    // SAFETY: as above.
    guard_reading((), || unsafe {
        let entry = entry(value);
        // Of a dead one its key: RENAME, COPY and SET XX, which may follow in the file, must find it.
        let payload = if kept.is_some() { entry.value() } else { b"" };
        let (attributes, tags) = kept.unwrap_or((Attributes::HUSK, Vec::new()));
        let tags: Vec<Str> = tags.iter().map(OwnedStr::as_raw).collect();
        rm!(RedisModule_EmitAOF)(
            io,
            c"MCACHE.REPLSET".as_ptr(),
            c"slllbv".as_ptr(),
            key,
            // When the entry ends; Redis writes behind it when the key does.
            match attributes.ends_ms {
                NEVER.. => -1i64,
                ends_ms => ends_ms as i64,
            },
            attributes.birth.0 as i64,
            attributes.pack() as i64,
            payload.as_ptr(),
            payload.len(),
            tags.as_ptr(),
            tags.len(),
        );
    });
}

unsafe extern "C" fn unlink(ctx: *mut raw::RedisModuleKeyOptCtx, value: *const c_void) {
    // SAFETY: `ctx` is valid during the callback.
    let db = unsafe { rm!(RedisModule_GetDbIdFromOptCtx)(ctx) } as usize;
    // SAFETY: `value` is ours and alive; it is freed, or renamed, only after this. Should a bug keep the entry in the
    // index, the index is forgotten before Redis frees the entry.
    guard((), || unsafe {
        panic_if_asked(Place::Unlink);
        state::with(|s| s.left(db, entry(value)));
        panic_if_asked(Place::Unlinked);
    });
}

unsafe extern "C" fn free(value: *mut c_void) {
    // This may be a background thread: nothing of the state is touched but the one pointer that may be.
    guard_apart(|| {
        // SAFETY: Redis frees each value once, after `unlink2`, after the FlushDB event that discarded the index, or
        // before it was linked; and it is not linked afterwards, for that is what `AWAITED` is told.
        unsafe {
            let entry = entry(value);
            state::AWAITED.is_freed(entry);
            entry.free();
            panic_if_asked(Place::Free);
        }
    });
}

unsafe extern "C" fn copy(
    ctx: *mut raw::RedisModuleKeyOptCtx,
    value: *const c_void,
) -> *mut c_void {
    // SAFETY: `value` is ours; the destination's name is alive during the callback.
    guard_reading(null_mut(), || unsafe {
        panic_if_asked(Place::Copy);
        let entry = entry(value);
        let to = bytes(rm!(RedisModule_GetToKeyNameFromOptCtx)(ctx));
        state::with(|s| s.duplicate(to, &entry)).map_or(null_mut(), Entry::as_raw)
    })
}

unsafe extern "C" fn mem_usage(
    ctx: *mut raw::RedisModuleKeyOptCtx,
    value: *const c_void,
    _: usize,
) -> usize {
    // SAFETY: `value` is ours, and `ctx` is valid during the callback.
    guard_reading(0, || unsafe {
        let entry = entry(value);
        // Redis's own two headers of a value of ours, the entry, and its share of the index with the tags that it alone
        // carries.
        const HEADERS: usize = 32;
        let db = rm!(RedisModule_GetDbIdFromOptCtx)(ctx) as usize;
        HEADERS + class(entry.bytes()) + state::with(|s| s.bytes_beside(db, &entry))
    })
}

unsafe extern "C" fn free_effort(_: *mut raw::RedisModuleKeyOptCtx, _: *const c_void) -> usize {
    // One allocation.
    1
}

unsafe extern "C" fn digest(md: *mut raw::RedisModuleDigest, value: *mut c_void) {
    // SAFETY: `value` is ours and `md` is valid during the callback.
    guard_reading((), || unsafe {
        let entry = entry(value);
        state::with(|s| {
            // A dead entry and its husk on a replica count as the same.
            if let Some((attributes, tags)) = s.kept(&entry) {
                let add = |bytes: &[u8]| {
                    rm!(RedisModule_DigestAddStringBuffer)(md, bytes.as_ptr().cast(), bytes.len())
                };
                add(entry.value());
                rm!(RedisModule_DigestAddLongLong)(md, attributes.birth.0 as i64);
                rm!(RedisModule_DigestAddLongLong)(md, attributes.pack() as i64);
                rm!(RedisModule_DigestAddLongLong)(md, attributes.ends_ms as i64);
                tags.for_each(add);
            }
            rm!(RedisModule_DigestEndSequence)(md);
        });
    });
}

unsafe extern "C" fn defrag(
    ctx: *mut raw::RedisModuleDefragCtx,
    _: *mut raw::RedisModuleString,
    value: *mut *mut c_void,
) -> c_int {
    // SAFETY: `value` points to a value of ours in the keyspace, where the address of the copy is to be put. Redis
    // copies the bytes and frees the old ones: an entry is one allocation that does not refer to itself.
    guard((), || unsafe {
        let old = entry(*value);
        let moved = rm!(RedisModule_DefragAlloc)(ctx, *value);
        if moved.is_null() {
            return;
        }
        *value = moved;
        let db = rm!(RedisModule_GetDbIdFromDefragCtx)(ctx) as usize;
        panic_if_asked(Place::Defrag);
        state::with(|s| s.index.moved(db, old, entry(moved)));
    });
    // Nothing is left for later.
    0
}
