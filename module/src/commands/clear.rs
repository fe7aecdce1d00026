//! `MCACHE.CLEAR key [key ...]`: UNLINK that a fill under way cannot undo, and that near caches hear of.

use mcache_core::error::Error;

use crate::near;
use crate::redis::{self, Args, Ctx};
use crate::state;

/// `MCACHE.CLEAR`. Replies how many keys were removed.
pub fn clear(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    state::with(|s| {
        for key in args.tail_bytes(1) {
            s.clear(key, redis::now_ms());
        }
    });
    // Events, tracking, replication and callers that wait for a fill: as with the command of Redis.
    ctx.reply_integer(redis::unlink(ctx, args.tail(1)));
    near::turn(ctx);
    Ok(())
}
