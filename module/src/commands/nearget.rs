//! `MCACHE.NEARGET subscription key [key ...]`: MGET for near caches.

use mcache_core::command::Arguments;
use mcache_core::error::Error;
use mcache_core::feed::{Named, NearGet};

use crate::near;
use crate::redis::{self, Args, Ctx, Held, Mode};
use crate::state;

/// `MCACHE.NEARGET`. For each key nil, or the value and what the near cache is told of it.
pub fn nearget(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let NearGet { named } = NearGet::parse(&args);
    ctx.reply_array(args.len() - NearGet::KEYS);
    for at in NearGet::KEYS..args.len() {
        one(ctx, args, at, named);
    }
    Ok(())
}

fn one(ctx: Ctx<'_>, args: Args<'_>, at: usize, named: Named) {
    let key = ctx.open(args.string(at), Mode::Read);
    let found = match key.held() {
        Held::Entry(entry) => Some(entry),
        Held::Nothing | Held::Foreign => None,
    };
    let Some(entry) = state::with(|s| {
        s.lookup(found, redis::now_ms, || {
            ctx.signal_modified(args.string(at))
        })
    }) else {
        ctx.reply_null();
        return;
    };
    let life_ms = near::life_ms(&key, &entry);
    ctx.reply_array(2);
    ctx.reply_bytes(entry.value());
    near::reply(
        ctx,
        near::give(ctx.db(), named, args.bytes(at), &entry, life_ms),
    );
}
