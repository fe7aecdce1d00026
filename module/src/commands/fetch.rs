//! `MCACHE.FETCH key [LEASE ms] [WAIT ms] [EARLY ms] [NEAR subscription]` and `MCACHE.RELEASE key token`. What is replied when, core decides:
//! `mcache_core::server`, `read.rs`.

use mcache_core::command::Fetch;
use mcache_core::epoch::Token;
use mcache_core::error::Error;
use mcache_core::lease::Answer;
use mcache_core::server::{Fetched, Fetcher};

use crate::config::{self, MAX_MS};
use crate::near::{self, Near};
use crate::redis::{Args, Blocked, Ctx, Held, Mode, Parked, Redis, Told};
use crate::{parking, state};

/// `MCACHE.FETCH key [LEASE ms] [WAIT ms] [EARLY ms] [NEAR subscription]`
pub fn fetch(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let fetch = Fetch::parse(&args, config::lease_ms(), MAX_MS)?;
    look(ctx, args, fetch, fetch.wait_ms > 0)
}

fn look(ctx: Ctx<'_>, args: Args<'_>, fetch: Fetch, may_wait: bool) -> Result<(), Error> {
    let key = ctx.open(args.string(1), Mode::Read);
    let found = match key.held() {
        Held::Foreign => return Err(Error::WrongType),
        Held::Nothing => None,
        Held::Entry(entry) => Some(entry),
    };
    let caller = Fetcher {
        db: ctx.db(),
        key: args.bytes(1),
        client: ctx.client(),
        lease_ms: fetch.lease_ms,
        early_ms: fetch.early_ms,
        may_wait: may_wait && !ctx.flags().denies_blocking(),
        max_waiters: config::max_waiters(),
    };
    match state::with(|s| s.fetch(&caller, found, || key.deadline_ms(), &Redis)) {
        Fetched::Hit(entry, token) => reply(ctx, c"hit", Some(entry.value()), token),
        Fetched::Stale(entry, token) => reply(ctx, c"stale", Some(entry.value()), token),
        Fetched::Miss(token) => reply(ctx, c"miss", None, token),
        Fetched::Busy => reply(ctx, c"busy", None, None),
        Fetched::Park => {
            drop(key);
            parking::park::<Waiting>(ctx, args.bytes(1), fetch.lease_ms, fetch.wait_ms);
        }
    }
    Ok(())
}

/// What a parked client replies once it is woken.
struct Waiting;

impl Parked for Waiting {
    fn answered(ctx: Ctx<'_>, args: Args<'_>, answer: Answer) {
        state::with(|s| s.answered(answer));
        match answer {
            Answer::Busy => reply(ctx, c"busy", None, None),
            Answer::Fill(token) => reply(ctx, c"miss", None, Some(token)),
            Answer::Look => {
                let looked = Fetch::parse(&args, config::lease_ms(), MAX_MS)
                    .and_then(|fetch| look(ctx, args, fetch, false));
                if let Err(error) = looked {
                    ctx.reply_error(&error.to_string());
                }
            }
        }
    }

    fn timed_out(ctx: Ctx<'_>, args: Args<'_>, blocked: Blocked) {
        parking::leave(blocked);
        Self::answered(ctx, args, Answer::Busy);
    }

    fn gone(blocked: Blocked) {
        parking::leave(blocked);
    }
}

fn reply(ctx: Ctx<'_>, state: &std::ffi::CStr, value: Option<&[u8]>, token: Option<Token>) {
    ctx.reply_array(3);
    ctx.reply_bytes(state.to_bytes());
    match value {
        Some(value) => ctx.reply_bytes(value),
        None => ctx.reply_null(),
    }
    match token {
        Some(token) => ctx.reply_bytes(token.to_string().as_bytes()),
        None => ctx.reply_null(),
    }
}

/// `MCACHE.RELEASE key token`: 1 if the token held the key's lease, else 0.
pub fn release(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let token = Token::parse(args.bytes(2)).ok_or(Error::Token)?;
    ctx.reply_integer(i64::from(parking::release(ctx, args.bytes(1), token)));
    Ok(())
}
