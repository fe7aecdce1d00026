//! `MCACHE.SETTLE timeout-ms [PREFIX prefix ...]`: waits until no near cache serves what was invalidated so far.

use mcache_core::error::Error;
use mcache_core::feed::{Refusal, SettleCommand, Settled, Settling};

use crate::near;
use crate::redis::{self, Args, Blocked, Ctx, Parked, Told};
use crate::state;

/// `MCACHE.SETTLE`. Replies how many subscriptions have confirmed, how many ran out of their lease, and how many are
/// still waited for.
pub fn settle(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let command = SettleCommand::parse(&args)?;
    if !near::standing(ctx).primary {
        ctx.reply_error(&Refusal::Replica.to_string());
        return Ok(());
    }
    let timeout_us = match ctx.flags().denies_blocking() {
        true => 0,
        false => command.timeout_ms * 1_000,
    };
    let (db, now_us) = (ctx.db() as u32, redis::boot_us());
    match state::with(|s| s.feed.settle(db, &command.prefixes, timeout_us, now_us)) {
        Settling::Now(settled) => reply(ctx, settled),
        Settling::Wait(unsettled) => {
            let blocked = ctx.block::<Waiting>(unsettled.left_us() / 1_000);
            state::with(|s| s.feed.park_settle(unsettled, blocked));
        }
    }
    near::turn(ctx);
    Ok(())
}

fn reply(ctx: Ctx<'_>, settled: Settled) {
    ctx.reply_array(3);
    ctx.reply_integer(settled.confirmed as i64);
    ctx.reply_integer(settled.ran_out as i64);
    ctx.reply_integer(settled.waiting as i64);
}

struct Waiting;

impl Parked for Waiting {
    fn answered(ctx: Ctx<'_>, _: Args<'_>, told: Option<Told>) {
        match told {
            Some(Told::Settled(settled)) => reply(ctx, settled),
            _ => ctx.reply_error(&Refusal::Replica.to_string()),
        }
    }

    fn timed_out(ctx: Ctx<'_>, _: Args<'_>, blocked: Blocked) {
        match near::leave_settle(blocked) {
            Some(settled) => reply(ctx, settled),
            None => ctx.reply_error(&Refusal::Replica.to_string()),
        }
    }

    fn gone(blocked: Blocked) {
        near::leave_settle(blocked);
    }
}
