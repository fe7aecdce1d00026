//! `MCACHE.FEED NEW|position [WAIT ms] [COUNT n] [PREFIX prefix ...]` and `MCACHE.FEED position END`: what near caches
//! hear. What is answered when, core decides: `mcache_core::feed`.

use mcache_core::error::Error;
use mcache_core::feed::{Answer, CELL_BITS, Call, FeedCommand, Outcome, Prefixes, Refusal, Ticket};

use crate::redis::{self, Access, Args, Blocked, Ctx, OwnedStr, Parked, Told};
use crate::state;
use crate::{config, near};

/// `MCACHE.FEED`
pub fn feed(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let (position, goes_on, wait_ms, count, prefixes) = match FeedCommand::parse(&args)? {
        FeedCommand::End(named) => {
            let now_us = redis::boot_us();
            let ended = named
                .0
                .is_some_and(|position| state::with(|s| s.feed.end(position, now_us)));
            near::deliver(ctx);
            ctx.reply_integer(i64::from(ended));
            return Ok(());
        }
        FeedCommand::Call {
            position,
            goes_on,
            wait_ms,
            count,
            prefixes,
        } => (position, goes_on, wait_ms, count, prefixes),
    };
    check_prefixes(ctx, &prefixes)?;
    let mut standing = near::standing(ctx);
    // A server that Redis does not tell of changed keys cannot tell near caches of them.
    standing.writes_allowed &= !standing.primary || !config::feed_settings().on || near::watch(ctx);
    let may_wait = goes_on && !ctx.flags().denies_blocking();
    let call = Call {
        position,
        db: ctx.db() as u32,
        prefixes,
        wait_us: if may_wait { wait_ms * 1_000 } else { 0 },
        count,
        random: redis::random_u64(),
    };
    let now_us = redis::boot_us();
    match state::with(|s| s.feed.call(call, standing, now_us)) {
        Err(refusal) => ctx.reply_error(&refusal.to_string()),
        Ok(Outcome::Answer(answer)) => reply(ctx, &answer),
        Ok(Outcome::Wait(ticket)) => {
            let blocked = ctx.block::<Waiting>(ticket.wait_us() / 1_000);
            state::with(|s| s.feed.park(ticket, blocked));
        }
    }
    near::deliver(ctx);
    Ok(())
}

/// Digests of tags are told to each user who may read the names that begin so. Redis 7.0 cannot be asked about a
/// prefix, only about a key: the prefix itself must be a key that the user may read, as it is with `~prefix*`.
fn check_prefixes(ctx: Ctx<'_>, prefixes: &Prefixes) -> Result<(), Error> {
    let Some(user) = ctx.user() else {
        return Ok(());
    };
    let may = |prefix: &[u8]| user.may(Access::Read, OwnedStr::new(prefix).as_raw());
    // Without any it hears of every name, and every name begins with nothing.
    if prefixes.iter().next().is_none() && !may(b"") {
        return Err(Error::PrefixMissing);
    }
    match prefixes.iter().find(|prefix| !may(prefix)) {
        Some(prefix) => Err(Error::PrefixPermission(prefix.to_vec())),
        None => Ok(()),
    }
}

fn reply(ctx: Ctx<'_>, answer: &Answer) {
    ctx.reply_array(4 + usize::from(answer.gap.is_some()));
    ctx.reply_bytes(answer.position.to_string().as_bytes());
    ctx.reply_integer(answer.lease_ms as i64);
    ctx.reply_integer(i64::from(answer.more));
    ctx.reply_bytes(&answer.events);
    if let Some(hash_key) = answer.gap {
        ctx.reply_array(2);
        ctx.reply_bytes(hash_key.as_bytes());
        ctx.reply_integer(i64::from(CELL_BITS));
    }
}

/// What a parked call replies once it is woken: everything up to that moment.
struct Waiting;

impl Waiting {
    fn answer(ctx: Ctx<'_>, ticket: Ticket) {
        let standing = near::standing(ctx);
        match state::with(|s| s.feed.woken(ticket, standing, redis::boot_us())) {
            Ok(answer) => reply(ctx, &answer),
            Err(refusal) => ctx.reply_error(&refusal.to_string()),
        }
    }
}

impl Parked for Waiting {
    fn answered(ctx: Ctx<'_>, _: Args<'_>, told: Option<Told>) {
        match told {
            Some(Told::Feed(ticket)) => Self::answer(ctx, ticket),
            Some(Told::Refused(refusal)) => ctx.reply_error(&refusal.to_string()),
            _ => ctx.reply_error(&Refusal::Replaced.to_string()),
        }
    }

    fn timed_out(ctx: Ctx<'_>, _: Args<'_>, blocked: Blocked) {
        match near::leave_feed(blocked) {
            Some(ticket) => Self::answer(ctx, ticket),
            None => ctx.reply_error(&Refusal::Replaced.to_string()),
        }
    }

    fn gone(blocked: Blocked) {
        // That confirms nothing and ends no lease.
        near::leave_feed(blocked);
    }
}
