//! `MCACHE.TOKEN key`: a token for a fill that did not begin with a miss reported by FETCH.

use mcache_core::error::Error;

use crate::redis::{self, Args, Ctx};
use crate::state;

/// `MCACHE.TOKEN key`. The key routes the command in a cluster: tokens are the node's.
pub fn token(ctx: Ctx<'_>, _: Args<'_>) -> Result<(), Error> {
    let token = state::with(|s| s.fills.token(redis::now_ms()));
    ctx.reply_bytes(token.to_string().as_bytes());
    Ok(())
}
