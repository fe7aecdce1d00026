//! `MCACHE.GET key` and `MCACHE.MGET key [key ...]`: live entries only.

use mcache_core::command::Arguments;
use mcache_core::entry::Entry;
use mcache_core::error::Error;
use mcache_core::index::Verdict;

use crate::ffi::api::{self, Args, Ctx, Held, Key, Mode};
use crate::state::{self, State};

/// What an entry is good for at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// To be served.
    Live,
    /// Past its ttl or softly invalidated, within its SWR window.
    Stale,
    /// Never to be served again.
    Dead,
}

impl Condition {
    /// Looks at what the index says and, only for entries with an SWR window, at the clock.
    #[inline]
    pub fn of(s: &State, key: &Key<'_>, entry: &mut Entry) -> Condition {
        let swr_ms = u64::from(entry.swr_ms());
        match s.index.verdict(entry) {
            Verdict::Live if swr_ms == 0 => Condition::Live,
            Verdict::Live if entry.is_softened() => Condition::Stale,
            Verdict::Live => match key.deadline_ms() {
                Some(deadline) if api::now_ms() + swr_ms >= deadline => Condition::Stale,
                _ => Condition::Live,
            },
            // Its deadline is about to be shortened to about this.
            Verdict::Soft(since) if api::now_ms() < since.unix_ms() + swr_ms => Condition::Stale,
            Verdict::Soft(_) | Verdict::Dead => Condition::Dead,
        }
    }
}

/// `MCACHE.GET key`
pub fn get(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let key = ctx.open(args.string(1), Mode::Read);
    match key.held() {
        Held::Entry(entry) => serve(ctx, &key, entry),
        Held::Nothing => {
            state::with(|s| s.stats.misses += 1);
            ctx.reply_null();
        }
        Held::Foreign => return Err(Error::WrongType),
    }
    Ok(())
}

/// `MCACHE.MGET key [key ...]`: a key that holds no live entry, or a value of another type, is nil, as with MGET.
pub fn mget(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    ctx.reply_array(args.len() - 1);
    for name in args.tail(1) {
        let key = ctx.open(*name, Mode::Read);
        match key.held() {
            Held::Entry(entry) => serve(ctx, &key, entry),
            Held::Nothing | Held::Foreign => {
                state::with(|s| s.stats.misses += 1);
                ctx.reply_null();
            }
        }
    }
    Ok(())
}

#[inline]
fn serve(ctx: Ctx<'_>, key: &Key<'_>, mut entry: Entry) {
    let live = state::with(|s| match Condition::of(s, key, &mut entry) {
        Condition::Live => {
            s.stats.hits += 1;
            true
        }
        Condition::Stale => {
            s.stats.misses += 1;
            false
        }
        Condition::Dead => {
            s.stats.misses += 1;
            s.stats.dead_hits += 1;
            false
        }
    });
    if live {
        ctx.reply_bytes(entry.value());
    } else {
        ctx.reply_null();
    }
}
