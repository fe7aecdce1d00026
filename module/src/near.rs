//! Near caches: the edge of `mcache_core::feed`. Who may be granted leases, who is woken when, and what a read says for
//! a near cache beside the value.
//!
//! While no near cache subscribes, nothing here does anything: [`turn`] asks one question.

use std::sync::atomic::{AtomicBool, Ordering};

use mcache_core::entry::Entry;
use mcache_core::feed::{Feed, HashKey, Identity, Named, NearData, SlotSet, Standing, Wake};
use mcache_core::server::fresh_ms;

use crate::redis::global::MainThread;
use crate::redis::{self, Blocked, Ctx, Key, Told, Watcher};
use crate::{config, state};

/// How old what is known of the cluster may be, at least and at most, in microseconds: looking takes longer in large
/// ones. The longest lease of predecessors is waited for so much longer (`mcache_core::feed::lease`).
const LOOK_US: (u64, u64) = (10_000, mcache_core::feed::lease::LOOK_US);
/// Looking may take this part of the time.
const LOOK_PART: u64 = 20;

/// What was seen of the server and its cluster.
struct Seen {
    cluster_ok: bool,
    writes_allowed: bool,
    slots: Option<SlotSet>,
    at_us: u64,
    again_us: u64,
}

static SEEN: MainThread<Seen> = MainThread::new();
/// The timer that is set: its number, and when it fires.
static ALARM: MainThread<Option<(u64, u64)>> = MainThread::new();

/// What [`turn`] needs; called once, when the module is loaded, before options are read.
pub fn init() {
    SEEN.set(Seen {
        cluster_ok: true,
        writes_allowed: true,
        slots: None,
        at_us: 0,
        again_us: 0,
    });
    ALARM.set(None);
    let (identity, now_us) = (identity(), redis::boot_us());
    state::with(|s| s.feed = Feed::off(identity, now_us));
}

fn identity() -> Identity {
    let random = [redis::random_u64(), redis::random_u64()];
    let mut key = [0; 16];
    for (half, number) in key.chunks_exact_mut(8).zip(random) {
        half.copy_from_slice(&number.to_le_bytes());
    }
    Identity {
        incarnation: redis::random_u64(),
        hash_key: HashKey::new(key),
    }
}

/// The server became the primary.
pub fn promoted() {
    let (identity, now_us) = (identity(), redis::boot_us());
    SEEN.with(|seen| seen.again_us = 0);
    state::with(|s| s.feed.promoted(identity, now_us));
}

/// What the server is at the moment; tells the feed which slots it owns.
pub fn standing(ctx: Ctx<'_>) -> Standing {
    let flags = ctx.flags();
    let now_us = redis::boot_us();
    if SEEN.with(|seen| seen.again_us <= now_us || seen.at_us > now_us) {
        let writes_allowed = redis::would_execute_writes(ctx);
        let (cluster_ok, slots) = match flags.is_cluster() {
            false => (true, None),
            true => {
                let slots = SlotSet::of_myself(&redis::cluster_nodes(ctx)).unwrap_or_default();
                let ok = redis::cluster_state_is_ok(ctx) && !slots.is_empty();
                (ok, Some(slots))
            }
        };
        let took_us = redis::boot_us() - now_us;
        let (least, most) = LOOK_US;
        SEEN.with(|seen| {
            *seen = Seen {
                cluster_ok,
                writes_allowed,
                slots,
                at_us: now_us,
                again_us: now_us + (took_us * LOOK_PART).clamp(least, most),
            };
        });
        SEEN.with(|seen| {
            if let Some(slots) = &seen.slots {
                state::with(|s| s.feed.slots(slots, now_us));
            }
        });
    }
    SEEN.with(|seen| Standing {
        primary: flags.is_primary(),
        loading: flags.is_loading(),
        cluster_ok: seen.cluster_ok,
        writes_allowed: seen.writes_allowed,
    })
}

/// The slots that this server has in its cluster, as of a moment ago; `None` if it is in none.
pub fn slots_here(ctx: Ctx<'_>) -> Option<SlotSet> {
    standing(ctx);
    SEEN.with(|seen| seen.slots.clone())
}

/// For how many milliseconds a live entry may be served: until it is no longer fresh, or until Redis removes its key,
/// which EXPIRE may have brought forward. `None`: without end.
pub fn life_ms(key: &Key<'_>, entry: &Entry) -> Option<u64> {
    let now_ms = redis::now_ms();
    let kept_ms = key.deadline_ms().map(|at_ms| at_ms.saturating_sub(now_ms));
    fresh_ms(entry, now_ms).into_iter().chain(kept_ms).min()
}

/// Does what is due, if there is anything to do at all. Called after each step that may have told the feed something.
#[inline]
pub fn turn(ctx: Ctx<'_>) {
    if !state::with(|s| s.feed.is_idle()) {
        run(ctx);
    }
}

#[cold]
fn run(ctx: Ctx<'_>) {
    state::with(|s| s.feed.run(redis::boot_us()));
    deliver(ctx);
}

/// Ten times a second, whether or not a near cache subscribes: the feed notices when the server does not run.
pub fn tick(ctx: Ctx<'_>) {
    if config::feed_settings().on {
        state::with(|s| s.feed.alive(redis::boot_us()));
        // Slots that were gained count although no near cache asks.
        standing(ctx);
    }
    turn(ctx);
}

/// Whether Redis tells of keys.
static WATCHING: AtomicBool = AtomicBool::new(false);

/// The log has begun: Redis is asked to tell of keys that near caches may hold. Not before, so that where no near cache
/// ever subscribes no command pays for it. What leaves a key without one of these events (MIGRATE) comes by the
/// `unlink2` callback of the data type. Without it nothing is granted.
pub fn watch(ctx: Ctx<'_>) -> bool {
    if !WATCHING.load(Ordering::Relaxed) {
        WATCHING.store(redis::watch_keys::<Keys>(ctx), Ordering::Relaxed);
    }
    WATCHING.load(Ordering::Relaxed)
}

struct Keys;

impl Watcher for Keys {
    fn happened(ctx: Ctx<'_>, event: &[u8], key: &[u8]) {
        if !state::with(|s| s.feed.is_running()) {
            return;
        }
        match event {
            b"evicted" => state::with(|s| s.feed.key_left_by_itself(key)),
            b"expired" => state::with(|s| s.feed.key_expired(key, redis::now_ms())),
            _ => state::with(|s| s.feed.key_changed(key, false)),
        }
        set_timer(ctx);
    }
}

/// Wakes the clients that are to be woken, and sees to the timer.
pub fn deliver(ctx: Ctx<'_>) {
    for wake in state::with(|s| s.feed.take_wakes()) {
        let (blocked, told) = match wake {
            Wake::Feed(blocked, ticket) => (blocked, Told::Feed(ticket)),
            Wake::Refused(blocked, refusal) => (blocked, Told::Refused(refusal)),
            Wake::Settle(blocked, settled) => (blocked, Told::Settled(settled)),
        };
        redis::unblock(blocked, Some(told));
    }
    set_timer(ctx);
}

/// Has the timer fire when there is something to do next.
pub fn set_timer(ctx: Ctx<'_>) {
    let Some(at_us) = state::with(|s| s.feed.next_us()) else {
        return;
    };
    let before = ALARM.with(|alarm| *alarm);
    if before.is_some_and(|(_, before_us)| before_us <= at_us) {
        return;
    }
    if let Some((timer, _)) = before {
        ctx.stop_timer(timer);
    }
    let after_us = at_us.saturating_sub(redis::boot_us());
    let timer = ctx.start_timer(after_us.div_ceil(1_000), on_timer);
    ALARM.with(|alarm| *alarm = Some((timer, at_us)));
}

fn on_timer(ctx: Ctx<'_>) {
    ALARM.with(|alarm| *alarm = None);
    run(ctx);
}

/// A client that was parked in FEED is gone or has waited for long enough; true if it was still parked.
pub fn leave_feed(blocked: Blocked) -> Option<mcache_core::feed::Ticket> {
    let ticket = state::with(|s| s.feed.unpark(blocked))?;
    redis::unblock(blocked, None);
    Some(ticket)
}

/// The same in SETTLE: how it stands.
pub fn leave_settle(blocked: Blocked) -> Option<mcache_core::feed::Settled> {
    let settled = state::with(|s| s.feed.unpark_settle(blocked, redis::boot_us()))?;
    redis::unblock(blocked, None);
    Some(settled)
}

/// What a near cache is told of a value.
pub struct Near {
    data: NearData,
    life_ms: Option<u64>,
    manual: bool,
}

/// Notes that a live entry was read or stored for a near cache. `None` if that near cache may not keep it.
pub fn give(
    db: usize,
    named: Named,
    key: &[u8],
    entry: &Entry,
    life_ms: Option<u64>,
) -> Option<Near> {
    let now_us = redis::boot_us();
    let data = state::with(|s| {
        let reader = s.feed.reader(named.0?, db as u32, now_us)?;
        let state::State { feed, index, .. } = s;
        feed.give(reader, key, index.names(entry), now_us)
    })?;
    Some(Near {
        data,
        life_ms,
        manual: entry.is_manual(),
    })
}

/// Replies what a near cache is told: the number, life left in milliseconds (-1: it does not end), 1 if MANUAL, and the
/// digests of the tags, eight bytes each; or nil.
pub fn reply(ctx: Ctx<'_>, near: Option<Near>) {
    let Some(near) = near else {
        ctx.reply_null();
        return;
    };
    ctx.reply_array(4);
    ctx.reply_integer(near.data.number as i64);
    ctx.reply_integer(near.life_ms.map_or(-1, |ms| ms as i64));
    ctx.reply_integer(i64::from(near.manual));
    let digests: Vec<u8> = near
        .data
        .digests
        .iter()
        .flat_map(|digest| digest.to_le_bytes())
        .collect();
    ctx.reply_bytes(&digests);
}
