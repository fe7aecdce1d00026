//! `MCACHE.DEBUG SELFCHECK|DRAIN` and `MCACHE.RECLAIM`: for tests and for those who run the server.

use mcache_core::error::Error;

use crate::redis::{Args, Ctx};
use crate::{reclaim, state};

/// `MCACHE.DEBUG SELFCHECK`: compares the index with the keyspace, entry by entry, in every database.
/// `MCACHE.DEBUG DRAIN`: frees everything that is dead, however long it takes.
pub fn debug(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let word = args.bytes(1);
    if word.eq_ignore_ascii_case(b"SELFCHECK") {
        match self_check(ctx) {
            Ok(()) => ctx.reply_ok(),
            Err(disagreement) => ctx.reply_error(&format!("ERR {disagreement}")),
        }
    } else if word.eq_ignore_ascii_case(b"DRAIN") {
        let freed = if ctx.flags().is_primary() {
            reclaim::run(ctx, None)
        } else {
            0
        };
        ctx.reply_integer(freed as i64);
    } else {
        return Err(Error::Syntax {
            expected: "SELFCHECK or DRAIN",
            got: word.to_vec(),
        });
    }
    Ok(())
}

fn self_check(ctx: Ctx<'_>) -> Result<(), String> {
    let selected = ctx.db();
    let result = (0..).take_while(|db| ctx.select(*db)).try_for_each(|db| {
        let mut keyspace = Vec::new();
        ctx.scan(|key, entry| keyspace.extend(entry.map(|entry| (key.to_vec(), entry))));
        state::with(|s| s.index.verify(db, &keyspace))
    });
    ctx.select(selected);
    result
}

/// `MCACHE.RECLAIM`: one slice; the event loop calls it while there is something to free.
pub fn reclaim(ctx: Ctx<'_>, _: Args<'_>) -> Result<(), Error> {
    let freed = reclaim::slice(ctx);
    ctx.reply_integer(freed as i64);
    Ok(())
}

/// `MCACHE.WRITABLE`: changes nothing, and nothing is replicated.
pub fn writable(ctx: Ctx<'_>, _: Args<'_>) -> Result<(), Error> {
    ctx.reply_ok();
    Ok(())
}
