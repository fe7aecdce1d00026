//! What Redis announces: databases flushed and swapped, files loading, roles changing, keys renamed.
//!
//! The `unlink2` callback of the data type tells of most entries that leave; these events tell of the rest, and of
//! entries that arrive without a command of ours.

use std::ffi::{CStr, c_char, c_int, c_void};

use mcache_core::entry::Entry;
use mcache_core::host::SlotMigration;
use mcache_core::server::{Renamed, corrected_deadline};
use redis_module::raw;

use super::slots;
use crate::commands::debug::{Place, panic_if_asked};
use crate::config::{OnPromote, on_promote};
use crate::redis::guard::guard;
use crate::redis::{self, Access, Ctx, Held, Mode, OwnedStr, Str, bytes, host, rm};
use crate::{bell, listeners, near, parking, reclaim, rounds, state};

/// Redis's `RedisModuleFlushInfo`, which the bindings leave out.
#[repr(C)]
struct FlushInfo {
    version: u64,
    sync: i32,
    /// -1: all databases.
    db: i32,
}

/// Redis's `RedisModuleSwapDbInfo`.
#[repr(C)]
struct SwapDbInfo {
    version: u64,
    first: i32,
    second: i32,
}

/// The beginning of Redis's `RedisModuleClientInfo`.
#[repr(C)]
struct ClientInfo {
    version: u64,
    flags: u64,
    id: u64,
}

/// Subscribes to everything.
///
/// # Safety
/// `ctx` is the context of the module's load function.
pub unsafe fn subscribe(ctx: *mut raw::RedisModuleCtx) -> Result<(), &'static str> {
    let callbacks: [(u64, raw::RedisModuleEventCallback, &'static str); 9] = [
        (raw::REDISMODULE_EVENT_FLUSHDB, Some(on_flush), "FlushDB"),
        (raw::REDISMODULE_EVENT_SWAPDB, Some(on_swap), "SwapDB"),
        (raw::REDISMODULE_EVENT_LOADING, Some(on_loading), "Loading"),
        (
            raw::REDISMODULE_EVENT_REPL_ASYNC_LOAD,
            Some(on_async_load),
            "ReplAsyncLoad",
        ),
        (
            raw::REDISMODULE_EVENT_REPLICATION_ROLE_CHANGED,
            Some(on_role),
            "ReplicationRoleChanged",
        ),
        (
            raw::REDISMODULE_EVENT_MASTER_LINK_CHANGE,
            Some(on_link),
            "MasterLinkChange",
        ),
        (
            raw::REDISMODULE_EVENT_CLIENT_CHANGE,
            Some(on_client),
            "ClientChange",
        ),
        (
            raw::REDISMODULE_EVENT_FORK_CHILD,
            Some(on_fork),
            "ForkChild",
        ),
        (raw::REDISMODULE_EVENT_CRON_LOOP, Some(on_cron), "CronLoop"),
    ];
    for (id, callback, name) in callbacks {
        let event = raw::RedisModuleEvent { id, dataver: 1 };
        // SAFETY: a valid context and a function that lives as long as the module.
        if unsafe { rm!(RedisModule_SubscribeToServerEvent)(ctx, event, callback) }
            != raw::REDISMODULE_OK as c_int
        {
            return Err(name);
        }
    }
    // SAFETY: the caller's promise.
    unsafe { slots::subscribe(ctx)? };
    let mut kinds = (raw::REDISMODULE_NOTIFY_GENERIC | raw::REDISMODULE_NOTIFY_LOADED) as c_int;
    if host::slot_migration() == SlotMigration::Redis {
        kinds |= slots::KEY_TRIMMED;
    }
    // SAFETY: as above.
    match unsafe { rm!(RedisModule_SubscribeToKeyspaceEvents)(ctx, kinds, Some(on_key)) } as isize {
        raw::REDISMODULE_OK => Ok(()),
        _ => Err("keyspace events"),
    }
}

unsafe extern "C" fn on_flush(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    sub: u64,
    data: *mut c_void,
) {
    // At START the entries are still there; afterwards a background thread may be freeing them.
    if sub != raw::REDISMODULE_SUBEVENT_FLUSHDB_START {
        return;
    }
    guard((), || {
        // SAFETY: the data of this event is a `RedisModuleFlushInfo`.
        let db = unsafe { (*data.cast::<FlushInfo>()).db };
        let db = usize::try_from(db).ok();
        panic_if_asked(Place::Flush);
        parking::look_again(state::with(|s| s.flushed(db, redis::now_ms())));
    });
}

unsafe extern "C" fn on_client(
    ctx: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    sub: u64,
    data: *mut c_void,
) {
    if sub != raw::REDISMODULE_SUBEVENT_CLIENT_CHANGE_DISCONNECTED {
        return;
    }
    guard((), || {
        // SAFETY: the data of this event is a `RedisModuleClientInfo`; the context is valid during the callback.
        unsafe { parking::disconnected(Ctx::new(ctx), (*data.cast::<ClientInfo>()).id) };
    });
}

unsafe extern "C" fn on_swap(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    _: u64,
    data: *mut c_void,
) {
    guard((), || {
        // SAFETY: the data of this event is a `RedisModuleSwapDbInfo`.
        let info = unsafe { &*data.cast::<SwapDbInfo>() };
        let (first, second) = (info.first as usize, info.second as usize);
        panic_if_asked(Place::Swap);
        parking::look_again(state::with(|s| s.swapped(first, second, redis::now_ms())));
    });
}

unsafe extern "C" fn on_loading(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    sub: u64,
    _: *mut c_void,
) {
    guard((), || {
        if sub < raw::REDISMODULE_SUBEVENT_LOADING_ENDED {
            let as_primary = !redis::is_replica();
            state::with(|s| s.load_begins(as_primary));
        } else {
            state::with(|s| s.load_ended());
        }
    });
}

unsafe extern "C" fn on_async_load(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    sub: u64,
    _: *mut c_void,
) {
    guard((), || {
        state::with(|s| match sub {
            raw::REDISMODULE_SUBEVENT_REPL_ASYNC_LOAD_STARTED => s.index.begin_staging(),
            raw::REDISMODULE_SUBEVENT_REPL_ASYNC_LOAD_COMPLETED => s.loaded_beside(),
            _ => s.index.abort_staging(),
        });
    });
}

unsafe extern "C" fn on_fork(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    _: u64,
    _: *mut c_void,
) {
    listeners::may_have_come();
}

unsafe extern "C" fn on_role(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    sub: u64,
    _: *mut c_void,
) {
    listeners::may_have_come();
    guard((), || {
        if sub == raw::REDISMODULE_EVENT_REPLROLECHANGED_NOW_MASTER {
            let drop = on_promote() == OnPromote::Drop;
            state::with(|s| s.promoted(redis::random_u64(), drop, redis::now_ms()));
            near::promoted();
        } else {
            // A replica hands out no leases; Redis has already sent its parked clients away.
            parking::look_again(state::with(|s| s.demoted(redis::now_ms())));
            state::with(|s| s.feed.demoted());
        }
    });
}

unsafe extern "C" fn on_link(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    sub: u64,
    _: *mut c_void,
) {
    if sub == raw::REDISMODULE_SUBEVENT_MASTER_LINK_UP {
        guard((), || state::with(|s| s.linked()));
    }
}

unsafe extern "C" fn on_cron(
    ctx: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    _: u64,
    _: *mut c_void,
) {
    guard((), || {
        panic_if_asked(Place::Cron);
        // The first one means that the files on disk, if any, have been read.
        state::with(|s| s.started());
        // SAFETY: valid during the callback.
        let ctx = unsafe { Ctx::new(ctx) };
        if reclaim::is_wanted(ctx) {
            bell::ring();
        }
        rounds::tidy(ctx);
        parking::advance(ctx);
        parking::follow_slots(ctx);
        near::tick(ctx);
        listeners::look(ctx);
    });
}

unsafe extern "C" fn on_key(
    ctx: *mut raw::RedisModuleCtx,
    _: c_int,
    event: *const c_char,
    key: *mut raw::RedisModuleString,
) -> c_int {
    // SAFETY: valid during the callback.
    let (ctx, event) = unsafe { (Ctx::new(ctx), CStr::from_ptr(event)) };
    // Every DEL and EXPIRE of the server comes by here: decide quickly.
    match event.to_bytes() {
        b"loaded" => guard((), || {
            // SAFETY: alive during the callback.
            let name = unsafe { bytes(key) };
            let found = match state::with(|s| s.needs_the_deadline()) {
                // The name that comes with this event is not a string that can be kept, so opening the key under it
                // would crash the server.
                true => found(ctx, OwnedStr::new(name).as_raw()).1,
                false => None,
            };
            panic_if_asked(Place::Loaded);
            state::with(|s| s.arrived(ctx.db(), name, found, true));
        }),
        // A client that waits for a fill of what was just deleted asks again. Reclaim and expiry are no such events.
        b"del" => guard((), || {
            if parking::anybody_waits() {
                // SAFETY: alive during the callback.
                parking::filled(ctx, unsafe { bytes(key) }, 0);
            }
        }),
        b"restore" | b"copy_to" => guard((), || {
            // SAFETY: alive during the callback.
            let name = unsafe { bytes(key) };
            let (db, found) = found(ctx, key);
            panic_if_asked(Place::Arrive);
            match forbidden(ctx, key) {
                false => state::with(|s| s.arrived(db, name, found, false)),
                true => {
                    let husk = state::with(|s| s.arrived_forbidden(db, name, found));
                    if let Some(husk) = husk {
                        ctx.open(key, Mode::Write).replace(husk);
                    }
                }
            }
            correct_deadline(ctx, key);
        }),
        // Freshness is the entry's: its key may go earlier, and not later.
        b"expire" | b"persist" => guard((), || correct_deadline(ctx, key)),
        b"rename_to" | b"move_to" => guard((), || {
            let open = ctx.open(key, Mode::Write);
            let Held::Entry(entry) = open.held() else {
                return;
            };
            let db = open.db().unwrap_or_else(|| ctx.db());
            // SAFETY: alive during the callback.
            let name = unsafe { bytes(key) };
            panic_if_asked(Place::Rename);
            match state::with(|s| s.renamed(db, name, entry)) {
                Renamed::Known => {}
                Renamed::Fresh(fresh) => {
                    open.replace(fresh);
                    open.correct_deadline(fresh);
                }
                Renamed::TooLong => open.unlink(),
            }
        }),
        _ => {}
    }
    raw::REDISMODULE_OK as c_int
}

/// Whether what arrives carries a tag that its sender may not write. Redis does not say who sent a RESTORE or COPY, so
/// it must be allowed to every user that may have. Replicas take what their primary took.
fn forbidden(ctx: Ctx<'_>, key: Str) -> bool {
    let arriving = || {
        state::with(|s| {
            let arriving = s.arriving()?;
            let tags: Vec<_> = arriving.tags.iter().map(OwnedStr::new).collect();
            Some((tags, arriving.copied_from.map(OwnedStr::new)))
        })
    };
    if redis::is_replica() {
        return false;
    }
    let Some((tags, copied_from)) = arriving() else {
        return false;
    };
    let tags: Vec<Str> = tags.iter().map(OwnedStr::as_raw).collect();
    // SAFETY: alive during the callback.
    let name = unsafe { bytes(key) };
    let word = OwnedStr::new;
    let commands = match copied_from {
        Some(from) => vec![vec![word(b"COPY"), from, word(name)]],
        None => [&b"RESTORE"[..], b"RESTORE-ASKING"]
            .map(|command| vec![word(command), word(name), word(b"0"), word(b"")])
            .into(),
    };
    commands.iter().any(|command| {
        let command: Vec<Str> = command.iter().map(OwnedStr::as_raw).collect();
        ctx.some_sender_lacks(&command, Access::Write, &tags)
    })
}

/// The entry that a key holds, and when the key expires.
fn found(ctx: Ctx<'_>, key: Str) -> (usize, Option<(Entry, Option<u64>)>) {
    let key = ctx.open(key, Mode::Peek);
    let db = key.db().unwrap_or_else(|| ctx.db());
    match key.held() {
        Held::Entry(entry) => (db, Some((entry, key.deadline_ms()))),
        Held::Nothing | Held::Foreign => (db, None),
    }
}

/// Sees to it that a key whose deadline was moved does not outlive its entry.
fn correct_deadline(ctx: Ctx<'_>, key: Str) {
    let late = |(entry, deadline_ms)| corrected_deadline(&entry, deadline_ms);
    if let Some(deadline_ms) = found(ctx, key).1.and_then(late) {
        ctx.open(key, Mode::Write).set_deadline(Some(deadline_ms));
    }
}
