//! `MCACHE.FETCH key [brief-ms] [LEASE ms] [WAIT ms] [EARLY ms] [NEAR subscription]` and `MCACHE.RELEASE key token`.
//! What is replied when, core decides: `mcache_core::server`, `read.rs`.

use mcache_core::command::Fetch;
use mcache_core::epoch::Token;
use mcache_core::error::Error;
use mcache_core::lease::Answer;
use mcache_core::server::{Fetched, Fetcher};

use crate::config::{self, MAX_MS};
use crate::near::{self, Near};
use crate::redis::{self, Access, Args, Blocked, Ctx, Held, Mode, Parked, Redis, Str, Told};
use crate::{parking, state};

/// `MCACHE.FETCH key [brief-ms] [LEASE ms] [WAIT ms] [EARLY ms] [NEAR subscription]`
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
    let caller = || Fetcher {
        db: ctx.db(),
        key: args.bytes(1),
        client: ctx.client(),
        lease_ms: fetch.lease_ms,
        may_wait: may_wait && !ctx.flags().denies_blocking() && !ctx.must_not_wait(),
        max_waiters: config::max_waiters(),
    };
    let turned_stale = || ctx.signal_modified(args.string(1));
    let may_fill = || may_fill(ctx, args.string(1));
    match state::with(|s| {
        s.fetch(
            fetch.early_ms,
            caller,
            found,
            &Redis,
            may_fill,
            turned_stale,
        )
    }) {
        Fetched::Hit(entry, token) => {
            let near = fetch.near.and_then(|named| {
                let life_ms = near::life_ms(&key, &entry);
                near::give(ctx.db(), named, args.bytes(1), &entry, life_ms)
            });
            match (token, fetch.near) {
                (None, None) => reply_plain_hit(ctx, fetch, entry.value()),
                _ => reply(ctx, fetch, State::Hit, Some(entry.value()), token, near),
            }
        }
        Fetched::Stale(entry, token) => {
            reply(ctx, fetch, State::Stale, Some(entry.value()), token, None);
        }
        Fetched::Miss(token) => reply(ctx, fetch, State::Miss, None, token, None),
        Fetched::Busy => reply(ctx, fetch, State::Busy, None, None, None),
        Fetched::Park => {
            drop(key);
            parking::park::<Waiting>(ctx, args.bytes(1), fetch.lease_ms, fetch.wait_ms);
        }
    }
    Ok(())
}

/// A hit of which there is nothing else to say. It is most of what clients hear, and an array takes them and us several
/// times as long as its parts.
fn reply_plain_hit(ctx: Ctx<'_>, fetch: Fetch, value: &[u8]) {
    if fetch.brief {
        return ctx.reply_bytes(value);
    }
    ctx.reply_array(3);
    ctx.reply_hit();
    ctx.reply_bytes(value);
    ctx.reply_null();
}

/// A lease goes only to a caller that may write the key, and while there is memory for what it would write: Redis has
/// checked that it may read the key.
fn may_fill(ctx: Ctx<'_>, key: Str) -> bool {
    let may_write = || ctx.user().is_none_or(|user| user.may(Access::Write, key));
    !ctx.flags().is_out_of_memory() && may_write()
}

/// What a parked client replies once it is woken.
struct Waiting;

impl Waiting {
    fn answer(ctx: Ctx<'_>, args: Args<'_>, answer: Answer) {
        state::with(|s| s.answered(answer));
        let fetch = match Fetch::parse(&args, config::lease_ms(), MAX_MS) {
            Ok(fetch) => fetch,
            Err(error) => return ctx.reply_error(&error.to_string()),
        };
        // What the user may do may have changed meanwhile, and so may the memory that there is.
        let may_run = ctx.may_run(args);
        if let Answer::Fill(token) = answer
            && !(may_run && may_fill(ctx, args.string(1)))
        {
            parking::release(ctx, args.bytes(1), token);
            if may_run {
                return reply(ctx, fetch, State::Miss, None, None, None);
            }
        }
        if !may_run {
            return ctx.reply_error("NOPERM this user may not fetch this key any more");
        }
        match answer {
            Answer::Busy => reply(ctx, fetch, State::Busy, None, None, None),
            Answer::Fill(token) => reply(ctx, fetch, State::Miss, None, Some(token), None),
            Answer::Moved(slot) => ctx.reply_error(&redis::redirection(ctx, slot)),
            Answer::Look => {
                if let Err(error) = look(ctx, args, fetch, false) {
                    ctx.reply_error(&error.to_string());
                }
            }
        }
    }
}

impl Parked for Waiting {
    fn answered(ctx: Ctx<'_>, args: Args<'_>, told: Option<Told>) {
        let answer = match told {
            Some(Told::Lease(answer)) => answer,
            _ => Answer::Busy,
        };
        Self::answer(ctx, args, answer);
    }

    fn timed_out(ctx: Ctx<'_>, args: Args<'_>, blocked: Blocked) {
        parking::leave(blocked);
        Self::answer(ctx, args, Answer::Busy);
    }

    fn gone(blocked: Blocked) {
        parking::leave(blocked);
    }
}

/// What FETCH says of an entry.
#[derive(Clone, Copy)]
enum State {
    Hit,
    Stale,
    Miss,
    Busy,
}

/// State, value, token; and with NEAR what the near cache is told of a live value.
fn reply(
    ctx: Ctx<'_>,
    fetch: Fetch,
    state: State,
    value: Option<&[u8]>,
    token: Option<Token>,
    near: Option<Near>,
) {
    ctx.reply_array(3 + usize::from(fetch.near.is_some()));
    match state {
        State::Hit => ctx.reply_hit(),
        State::Stale => ctx.reply_bytes(b"stale"),
        State::Miss => ctx.reply_bytes(b"miss"),
        State::Busy => ctx.reply_bytes(b"busy"),
    }
    match value {
        Some(value) => ctx.reply_bytes(value),
        None => ctx.reply_null(),
    }
    match token {
        Some(token) => ctx.reply_bytes(token.to_string().as_bytes()),
        None => ctx.reply_null(),
    }
    if fetch.near.is_some() {
        near::reply(ctx, near);
    }
}

/// `MCACHE.RELEASE key token`: 1 if the token held the key's lease, else 0.
pub fn release(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let token = Token::parse(args.bytes(2)).ok_or(Error::Token)?;
    ctx.reply_integer(i64::from(parking::release(ctx, args.bytes(1), token)));
    Ok(())
}
