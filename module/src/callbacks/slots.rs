//! Whole slots that move: what Redis 8.4 and Valkey 9 announce of it.
//!
//! A server that sends slots away sends what is replicated for their keys along. So while it does, there is a listener,
//! and an invalidation, which has no key, goes under one of each migration's.
//!
//! Redis trims slots that have gone by detaching their tables and freeing them on another thread, entry by entry
//! without a word. For a module that hears of trimmed keys it deletes key by key instead, which is all that the
//! subscription is for. Where it does not (a debugging switch), the slots are taken out of the index before.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ops::RangeInclusive;

use mcache_core::feed::SlotSet;
use mcache_core::host::SlotMigration;
use redis_module::raw;

use crate::redis::guard::guard;
use crate::redis::{host, rm};
use crate::{listeners, state};

/// A name of 40 characters and the zero behind it.
type NodeName = [c_char; 41];

/// What Redis 8.4 adds to the classes of keyspace events: a key that was deleted because its slot has gone.
pub const KEY_TRIMMED: c_int = 1 << 17;
/// What Valkey 9 has to be told, or it refuses to move slots whole.
pub const HANDLE_ATOMIC_SLOT_MIGRATION: c_int = 1 << 5;

/// Redis: slots come and go.
const REDIS_MIGRATION: u64 = 18;
/// Redis: slots that have gone are trimmed.
const REDIS_TRIM: u64 = 19;
/// Valkey: slots come and go.
const VALKEY_MIGRATION: u64 = 19;

#[repr(C)]
struct RedisRange {
    start: u16,
    end: u16,
}

/// Redis's `RedisModuleSlotRangeArray`; the ranges stand behind it.
#[repr(C)]
struct RedisRanges {
    count: i32,
    ranges: [RedisRange; 0],
}

/// Redis's `RedisModuleClusterSlotMigrationInfo`.
#[repr(C)]
struct RedisMigration {
    version: u64,
    source: NodeName,
    destination: NodeName,
    task: *const c_char,
    slots: *const RedisRanges,
}

/// Redis's `RedisModuleClusterSlotMigrationTrimInfo`.
#[repr(C)]
struct RedisTrim {
    version: u64,
    slots: *const RedisRanges,
}

#[repr(C)]
struct ValkeyRange {
    start: c_int,
    end: c_int,
}

/// Valkey's `ValkeyModuleAtomicSlotMigrationInfo`.
#[repr(C)]
struct ValkeyMigration {
    version: u64,
    job: NodeName,
    ranges: *const ValkeyRange,
    count: u32,
}

/// Subscribes to what this server announces.
///
/// # Safety
/// `ctx` is the context of the module's load function.
pub unsafe fn subscribe(ctx: *mut raw::RedisModuleCtx) -> Result<(), &'static str> {
    let events: &[(u64, raw::RedisModuleEventCallback, &'static str)] = match host::slot_migration()
    {
        SlotMigration::ByKey => &[],
        SlotMigration::Redis => &[
            (
                REDIS_MIGRATION,
                Some(on_redis_migration),
                "ClusterSlotMigration",
            ),
            (REDIS_TRIM, Some(on_redis_trim), "ClusterSlotMigrationTrim"),
        ],
        SlotMigration::Valkey => &[(
            VALKEY_MIGRATION,
            Some(on_valkey_migration),
            "AtomicSlotMigration",
        )],
    };
    for (id, callback, name) in events {
        let event = raw::RedisModuleEvent {
            id: *id,
            dataver: 1,
        };
        // SAFETY: a valid context and a function that lives as long as the module.
        if unsafe { rm!(RedisModule_SubscribeToServerEvent)(ctx, event, *callback) }
            != raw::REDISMODULE_OK as c_int
        {
            return Err(name);
        }
    }
    Ok(())
}

/// Slots begin to be sent away.
fn export_started(name: &[u8], slots: impl Iterator<Item = RangeInclusive<u16>>) {
    state::with(|s| s.exports.started(name, slots));
    listeners::may_have_come();
}

/// They are no longer sent, whether they have arrived or not.
fn export_ended(name: &[u8]) {
    state::with(|s| s.exports.ended(name));
}

/// # Safety
/// `slots` is what Redis passes to an event, alive during its callback.
unsafe fn redis_ranges<'a>(
    slots: *const RedisRanges,
) -> impl Iterator<Item = RangeInclusive<u16>> + use<'a> {
    // SAFETY: the caller's promise: so many ranges stand behind the number.
    let ranges: &'a [RedisRange] = unsafe {
        let count = usize::try_from((*slots).count).unwrap_or(0);
        std::slice::from_raw_parts((&raw const (*slots).ranges).cast(), count)
    };
    ranges.iter().map(|range| range.start..=range.end)
}

unsafe extern "C" fn on_redis_migration(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    sub: u64,
    data: *mut c_void,
) {
    const MIGRATE_STARTED: u64 = 3;
    const MIGRATE_FAILED: u64 = 4;
    const MIGRATE_COMPLETED: u64 = 5;
    guard((), || {
        // SAFETY: the data of this event is a `RedisModuleClusterSlotMigrationInfo`, with the name and the slots of a
        // task.
        let (name, slots) = unsafe {
            let info = &*data.cast::<RedisMigration>();
            (
                CStr::from_ptr(info.task).to_bytes(),
                redis_ranges(info.slots),
            )
        };
        match sub {
            MIGRATE_STARTED => export_started(name, slots),
            MIGRATE_FAILED | MIGRATE_COMPLETED => export_ended(name),
            _ => {}
        }
    });
}

unsafe extern "C" fn on_redis_trim(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    sub: u64,
    data: *mut c_void,
) {
    const BACKGROUND: u64 = 2;
    if sub != BACKGROUND {
        return;
    }
    guard((), || {
        // SAFETY: the data of this event is a `RedisModuleClusterSlotMigrationTrimInfo`. The tables are detached
        // afterwards, so every entry is still there.
        let slots: Vec<_> = unsafe { redis_ranges((*data.cast::<RedisTrim>()).slots) }.collect();
        let mut set = SlotSet::default();
        for range in &slots {
            set.add(*range.start(), *range.end());
        }
        state::with(|s| {
            // Its keys go without a word for each.
            s.feed.slots_flushed(&set);
            s.index.forget_slots(slots);
        });
    });
}

unsafe extern "C" fn on_valkey_migration(
    _: *mut raw::RedisModuleCtx,
    _: raw::RedisModuleEvent,
    sub: u64,
    data: *mut c_void,
) {
    const EXPORT_STARTED: u64 = 1;
    const EXPORT_ABORTED: u64 = 3;
    const EXPORT_COMPLETED: u64 = 5;
    guard((), || {
        // SAFETY: the data of this event is a `ValkeyModuleAtomicSlotMigrationInfo`, with so many ranges as it says.
        let (name, ranges) = unsafe {
            let info = &*data.cast::<ValkeyMigration>();
            let name: &[u8] = std::slice::from_raw_parts((&raw const info.job).cast(), 40);
            let ranges = match info.count {
                0 => &[][..],
                count => std::slice::from_raw_parts(info.ranges, count as usize),
            };
            (name, ranges)
        };
        let slots = ranges
            .iter()
            .filter_map(|range| Some(range.start.try_into().ok()?..=range.end.try_into().ok()?));
        match sub {
            EXPORT_STARTED => export_started(name, slots),
            EXPORT_ABORTED | EXPORT_COMPLETED => export_ended(name),
            _ => {}
        }
    });
}
