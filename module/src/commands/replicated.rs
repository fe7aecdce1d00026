//! `MCACHE.REPLSET`, `MCACHE.REPLINVALIDATE` and `MCACHE.REPLSHORTEN`: what a primary decided, for its replicas and for the append-only file.
//!
//! They carry absolute deadlines and epochs and are applied without asking again: limits, permissions, conditions and
//! tokens were checked where the decision was made.

use mcache_core::command::{Invalidate, Set};
use mcache_core::entry::Attributes;
use mcache_core::epoch::Epoch;
use mcache_core::error::Error;
use mcache_core::server::Store;

use super::set::put;
use crate::config;
use crate::redis::{Args, Ctx, Held, Mode};
use crate::state;

fn integer(args: Args<'_>, at: usize, what: &'static str) -> Result<i64, Error> {
    std::str::from_utf8(args.bytes(at))
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::Integer {
            what,
            got: args.bytes(at).to_vec(),
            min: 0,
            max: i64::MAX as u64,
        })
}

fn check_origin(ctx: Ctx<'_>, name: &'static str) -> Result<(), Error> {
    let flags = ctx.flags();
    if flags.is_replicated() || flags.is_loading() {
        Ok(())
    } else {
        Err(Error::Internal(name))
    }
}

/// `MCACHE.REPLSET key deadline-ms birth attributes value [tag ...]`; a deadline of -1 is none.
pub fn replset(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    const VALUE: usize = 5;
    check_origin(ctx, "MCACHE.REPLSET")?;
    let deadline = integer(args, 2, "deadline")?;
    let birth = Epoch(integer(args, 3, "birth")? as u64);
    let packed = integer(args, 4, "attributes")?;
    let attributes = Attributes::unpack(packed as u64, birth).ok_or_else(|| Error::Integer {
        what: "attributes",
        got: args.bytes(4).to_vec(),
        min: 0,
        max: u64::from(u32::MAX) << 2 | 3,
    })?;
    let drop = config::on_restart() == config::OnRestart::Drop;
    if state::with(|s| s.admit_replicated(birth, drop)) {
        let key = ctx.open(args.string(Set::KEY), Mode::Write);
        let present = match key.held() {
            Held::Nothing => None,
            Held::Entry(entry) => Some(entry),
            Held::Foreign => return Err(Error::WrongType),
        };
        let store = Store {
            db: ctx.db(),
            key: args.bytes(Set::KEY),
            value: args.bytes(VALUE),
            tags: args.tail_bytes(VALUE + 1),
            attributes,
            present,
        };
        put(&key, store);
        key.set_deadline(u64::try_from(deadline).ok());
    }
    ctx.replicate_verbatim();
    ctx.reply_ok();
    Ok(())
}

/// `MCACHE.REPLINVALIDATE epoch mode tag [tag ...]`
pub fn replinvalidate(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    check_origin(ctx, "MCACHE.REPLINVALIDATE")?;
    let epoch = Epoch(integer(args, 1, "epoch")? as u64);
    let mode = integer(args, 2, "mode")? as u64;
    let Invalidate {
        scope,
        soft,
        tags_from,
        ..
    } = Invalidate::from_mode(mode, 3).ok_or_else(|| Error::Integer {
        what: "mode",
        got: args.bytes(2).to_vec(),
        min: 0,
        max: 3,
    })?;
    let (db, tags) = (ctx.db(), args.tail_bytes(tags_from));
    let concerned = state::with(|s| s.invalidate_replicated(db, tags, scope, soft, epoch));
    ctx.replicate_verbatim();
    ctx.reply_integer(concerned as i64);
    Ok(())
}

/// `MCACHE.REPLSHORTEN key deadline-ms`: the primary dealt with a softly invalidated entry.
pub fn replshorten(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    check_origin(ctx, "MCACHE.REPLSHORTEN")?;
    let deadline = integer(args, 2, "deadline")?;
    let key = ctx.open(args.string(1), Mode::Write);
    if let Held::Entry(entry) = key.held() {
        key.set_deadline(u64::try_from(deadline).ok());
        state::with(|s| s.shortened(ctx.db(), entry));
    }
    drop(key);
    ctx.replicate_verbatim();
    ctx.reply_ok();
    Ok(())
}
