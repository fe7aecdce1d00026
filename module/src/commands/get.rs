//! `MCACHE.GET key` and `MCACHE.MGET key [key ...]`: live entries only.

use mcache_core::command::Arguments;
use mcache_core::entry::Entry;
use mcache_core::error::Error;

use crate::redis::{self, Args, Ctx, Held, Mode, Str};
use crate::state;

/// `MCACHE.GET key`
pub fn get(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let key = ctx.open(args.string(1), Mode::Read);
    match key.held() {
        Held::Entry(entry) => serve(ctx, args.string(1), Some(entry)),
        Held::Nothing => serve(ctx, args.string(1), None),
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
            Held::Entry(entry) => serve(ctx, *name, Some(entry)),
            Held::Nothing | Held::Foreign => serve(ctx, *name, None),
        }
    }
    Ok(())
}

#[inline]
fn serve(ctx: Ctx<'_>, name: Str, found: Option<Entry>) {
    match state::with(|s| s.lookup(found, redis::now_ms, || ctx.signal_modified(name))) {
        Some(entry) => ctx.reply_bytes(entry.value()),
        None => ctx.reply_null(),
    }
}
