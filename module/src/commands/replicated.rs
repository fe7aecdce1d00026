//! `MCACHE.REPLSET`, `MCACHE.REPLINVALIDATE`, `MCACHE.REPLINVALIDATEALONG` and `MCACHE.REPLSHORTEN`: what a primary decided, for its
//! replicas, for the append-only file, and for the server that slots are on their way to.
//!
//! They carry absolute deadlines and epochs and are applied without asking again: limits, permissions, conditions and
//! tokens were checked where the decision was made. Only an entry that comes with its slot is held against what was
//! invalidated here, as one that comes by RESTORE is.

use mcache_core::command::{Invalidate, Set};
use mcache_core::entry::Attributes;
use mcache_core::epoch::Epoch;
use mcache_core::error::Error;
use mcache_core::server::{Replicated, Store};

use super::set::put;
use crate::config;
use crate::redis::{Args, Ctx, Held, Mode, Redis};
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
    let tags = args.tail_bytes(VALUE + 1);
    let verdict = state::with(|s| s.admit_replicated(attributes, tags.clone(), drop, &Redis));
    if verdict != Replicated::Ignored {
        let key = ctx.open(args.string(Set::KEY), Mode::Write);
        let present = match key.held() {
            Held::Nothing => None,
            Held::Entry(entry) => Some(entry),
            Held::Foreign => return Err(Error::WrongType),
        };
        let dead = verdict == Replicated::Dead;
        let store = Store {
            db: ctx.db(),
            key: args.bytes(Set::KEY),
            value: if dead { b"" } else { args.bytes(VALUE) },
            tags: tags.take(if dead { 0 } else { usize::MAX }),
            attributes: if dead { Attributes::HUSK } else { attributes },
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
    invalidate(ctx, args, 1)
}

/// `MCACHE.REPLINVALIDATEALONG key epoch mode tag [tag ...]`: the key takes the command to where its slot goes, and is not looked
/// at. Entries of other slots die, too, if they carry the tags: the invalidation is on its way to this server anyhow.
pub fn replinvalidatealong(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    check_origin(ctx, "MCACHE.REPLINVALIDATEALONG")?;
    invalidate(ctx, args, 2)
}

fn invalidate(ctx: Ctx<'_>, args: Args<'_>, from: usize) -> Result<(), Error> {
    let epoch = Epoch(integer(args, from, "epoch")? as u64);
    let mode = integer(args, from + 1, "mode")? as u64;
    let Invalidate {
        scope,
        soft,
        tags_from,
    } = Invalidate::from_mode(mode, from + 2).ok_or_else(|| Error::Integer {
        what: "mode",
        got: args.bytes(from + 1).to_vec(),
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
