//! `MCACHE.FETCH key [LEASE ms] [WAIT ms] [EARLY ms]` and `MCACHE.RELEASE key token`.
//!
//! ```text
//!   live entry                       hit   value
//!   live, EARLY and soon to expire   hit   value token    the caller holds the lease; nobody else does
//!   stale, nobody refreshes it yet   stale value token    the caller holds the lease
//!   stale, somebody does             stale value
//!   none, nobody fills it yet        miss        token    the caller holds the lease
//!   none, somebody does              parked up to WAIT, then by what woke it: hit, miss and token, or busy
//! ```
//! On a replica there are no leases, for there are no fills: a miss comes without a token.

use mcache_core::command::Fetch;
use mcache_core::early;
use mcache_core::entry::Entry;
use mcache_core::epoch::Token;
use mcache_core::error::Error;
use mcache_core::lease::{Answer, Asked};

use super::get::Condition;
use crate::config::{self, MAX_MS};
use crate::ffi::api::{self, Args, Ctx, Held, Key, Mode};
use crate::{parking, state};

/// `MCACHE.FETCH key [LEASE ms] [WAIT ms] [EARLY ms]`
pub fn fetch(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let fetch = Fetch::parse(&args, config::lease_ms(), MAX_MS)?;
    look(ctx, args, fetch, fetch.wait_ms > 0)
}

/// What a parked client replies once it is woken.
pub fn answer(ctx: Ctx<'_>, args: Args<'_>, answer: Answer) {
    match answer {
        Answer::Busy => reply(ctx, c"busy", None, None),
        Answer::Fill(token) => {
            state::with(|s| s.stats.misses += 1);
            reply(ctx, c"miss", None, Some(token));
        }
        Answer::Look => {
            let looked = Fetch::parse(&args, config::lease_ms(), MAX_MS)
                .and_then(|fetch| look(ctx, args, fetch, false));
            if let Err(error) = looked {
                ctx.reply_error(&error.to_string());
            }
        }
    }
}

fn look(ctx: Ctx<'_>, args: Args<'_>, fetch: Fetch, may_wait: bool) -> Result<(), Error> {
    let key = ctx.open(args.string(1), Mode::Read);
    let (condition, entry) = match key.held() {
        Held::Foreign => return Err(Error::WrongType),
        Held::Nothing => (Condition::Dead, None),
        Held::Entry(mut entry) => (
            state::with(|s| Condition::of(s, &key, &mut entry)),
            Some(entry),
        ),
    };
    if let (Condition::Live, Some(entry)) = (condition, &entry) {
        let refresh = if fetch.early_ms > 0 && is_due(&key, entry, fetch.early_ms) {
            ask(ctx, args.bytes(1), fetch.lease_ms).token()
        } else {
            None
        };
        state::with(|s| {
            s.stats.hits += 1;
            s.stats.early_refreshes += u64::from(refresh.is_some());
        });
        reply(ctx, c"hit", Some(entry.value()), refresh);
        return Ok(());
    }
    let asked = ask(ctx, args.bytes(1), fetch.lease_ms);
    if let (Condition::Stale, Some(entry)) = (condition, &entry) {
        state::with(|s| s.stats.stale_hits += 1);
        reply(ctx, c"stale", Some(entry.value()), asked.token());
        return Ok(());
    }
    drop(key);
    state::with(|s| s.stats.dead_hits += u64::from(entry.is_some()));
    let room = || state::with(|s| s.leases.parked()) < config::max_waiters();
    match asked {
        Lease::Held if may_wait && room() && !ctx.flags().denies_blocking() => {
            parking::park(ctx, args.bytes(1), fetch.lease_ms, fetch.wait_ms);
        }
        Lease::Held => reply(ctx, c"busy", None, None),
        Lease::Ours(_) | Lease::Nobody => {
            state::with(|s| s.stats.misses += 1);
            reply(ctx, c"miss", None, asked.token());
        }
    }
    Ok(())
}

/// Whether a live entry is to be refreshed although it has not expired yet.
fn is_due(key: &Key<'_>, entry: &Entry, early_ms: u64) -> bool {
    key.deadline_ms().is_some_and(|deadline_ms| {
        let end_ms = deadline_ms.saturating_sub(u64::from(entry.swr_ms()));
        let left_ms = end_ms.saturating_sub(api::now_ms());
        early::is_due(left_ms, early_ms, api::random_u64())
    })
}

enum Lease {
    /// The caller fills the key.
    Ours(Token),
    /// Somebody else does.
    Held,
    /// Nobody can: this is a replica.
    Nobody,
}

impl Lease {
    fn token(&self) -> Option<Token> {
        match self {
            Lease::Ours(token) => Some(*token),
            Lease::Held | Lease::Nobody => None,
        }
    }
}

fn ask(ctx: Ctx<'_>, key: &[u8], lease_ms: u64) -> Lease {
    if !ctx.flags().is_primary() {
        return Lease::Nobody;
    }
    let (db, client) = (ctx.db(), ctx.client());
    state::with(|s| {
        let now_ms = api::now_ms();
        let token = s.fills.unique_token(now_ms);
        match s.leases.ask(db, key, client, token, now_ms, lease_ms) {
            Asked::Granted => Lease::Ours(token),
            Asked::Held => Lease::Held,
        }
    })
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
