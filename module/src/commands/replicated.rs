//! `MCACHE.REPLSET`, `MCACHE.REPLINVALIDATE`, `MCACHE.REPLINVALIDATEALONG`, `MCACHE.REPLSHORTEN`,
//! `MCACHE.REPLFLOOR` and `MCACHE.REPLFLOORALONG`:
//! what a primary decided, for its replicas, for the append-only file, and for the server that slots are on their way
//! to.
//!
//! They carry absolute deadlines and epochs and are applied without asking again: limits, permissions, conditions and
//! tokens were checked where the decision was made. Only an entry that comes with its slot is held against what was
//! invalidated here, as one that comes by RESTORE is.

use mcache_core::command::{Packed, ReplInvalidate, ReplSet, floor_epoch, shortened_end_ms};
use mcache_core::entry::{Attributes, Entry, MAX_KEY_BYTES};
use mcache_core::error::Error;
use mcache_core::server::Store;

use super::set::put;
use crate::config;
use crate::redis::{Args, Ctx, Held, Key, Mode, Redis};
use crate::state;

fn check_origin(ctx: Ctx<'_>, name: &'static str) -> Result<(), Error> {
    let flags = ctx.flags();
    if flags.is_replicated() || flags.is_loading() {
        Ok(())
    } else {
        Err(Error::Internal(name))
    }
}

/// `MCACHE.REPLSET key value packed`, or `MCACHE.REPLSET key end-ms birth attributes value [tag ...]`; an end of -1 is
/// none. What cannot be read, or is not to be served, is stored dead: what follows in the stream may name its key.
pub fn replset(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    check_origin(ctx, "MCACHE.REPLSET")?;
    let got = args.bytes(ReplSet::KEY).len();
    if got > MAX_KEY_BYTES {
        let (what, max) = ("key", MAX_KEY_BYTES);
        return Err(Error::TooLong { what, got, max });
    }
    let key = ctx.open(args.string(ReplSet::KEY), Mode::Write);
    let present = match key.held() {
        Held::Nothing => None,
        Held::Entry(entry) => Some(entry),
        Held::Foreign => return Err(Error::WrongType),
    };
    match Packed::is(&args) {
        true => {
            let (read, tags) = Packed::parse(&args).unzip();
            let tags = tags.unwrap_or_default();
            store_replicated(ctx, args, &key, present, read, Packed::VALUE, tags);
        }
        false => {
            let (read, tags) = (ReplSet::parse(&args), args.tail_bytes(ReplSet::TAGS));
            store_replicated(ctx, args, &key, present, read, ReplSet::VALUE, tags);
        }
    }
    drop(key);
    ctx.announce(c"mcache.set", args.string(ReplSet::KEY));
    ctx.replicate_verbatim();
    ctx.reply_ok();
    Ok(())
}

fn store_replicated<'a>(
    ctx: Ctx<'_>,
    args: Args<'a>,
    key: &Key<'_>,
    present: Option<Entry>,
    read: Option<ReplSet>,
    value_at: usize,
    tags: impl Iterator<Item = &'a [u8]> + Clone,
) {
    let drop = config::on_restart() == config::OnRestart::Drop;
    let attributes = read.and_then(|read| {
        state::with(|s| s.admit_replicated(read.attributes, tags.clone(), drop, &Redis))
    });
    let (value, most_tags) = match attributes {
        Some(_) => (args.bytes(value_at), usize::MAX),
        None => (&b""[..], 0),
    };
    let store = Store {
        db: ctx.db(),
        key: args.bytes(ReplSet::KEY),
        value,
        tags: tags.take(most_tags),
        attributes: attributes.unwrap_or(Attributes::HUSK),
        present,
    };
    put(key, store);
    key.set_deadline(read.and_then(|read| read.deadline_ms));
}

/// `MCACHE.REPLINVALIDATE epoch mode tag [tag ...]`
pub fn replinvalidate(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    check_origin(ctx, "MCACHE.REPLINVALIDATE")?;
    invalidate(ctx, args, 1)
}

/// `MCACHE.REPLINVALIDATEALONG key epoch mode tag [tag ...]`: the key takes the command to where its slot goes, and is
/// not looked at. Entries of other slots die, too, if they carry the tags: the invalidation is on its way to this
/// server anyhow.
pub fn replinvalidatealong(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    check_origin(ctx, "MCACHE.REPLINVALIDATEALONG")?;
    invalidate(ctx, args, 2)
}

fn invalidate(ctx: Ctx<'_>, args: Args<'_>, from: usize) -> Result<(), Error> {
    let replicated = ReplInvalidate::parse(&args, from).unwrap_or(ReplInvalidate::doubtful(from));
    let (db, tags) = (ctx.db(), args.tail_bytes(replicated.what.tags_from));
    let concerned = state::with(|s| s.invalidate_replicated(db, tags, replicated, &Redis));
    ctx.replicate_verbatim();
    ctx.reply_integer(concerned as i64);
    Ok(())
}

/// `MCACHE.REPLSHORTEN key end-ms`: the primary dealt with a softly invalidated entry.
pub fn replshorten(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    check_origin(ctx, "MCACHE.REPLSHORTEN")?;
    let key = ctx.open(args.string(1), Mode::Write);
    if let Held::Entry(entry) = key.held() {
        state::with(|s| s.shortened(ctx.db(), entry, shortened_end_ms(args.bytes(2))));
        key.correct_deadline(entry);
    }
    drop(key);
    ctx.replicate_verbatim();
    ctx.reply_ok();
    Ok(())
}

/// `MCACHE.REPLFLOOR epoch`: the primary made everything dead that was born before.
pub fn replfloor(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    check_origin(ctx, "MCACHE.REPLFLOOR")?;
    raise_floor(ctx, args, 1)
}

/// `MCACHE.REPLFLOORALONG key epoch`: the key takes the command to where its slot goes, and is not looked at. What this
/// server has of its own dies, too: of what came with the slot it cannot be told apart.
pub fn replflooralong(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    check_origin(ctx, "MCACHE.REPLFLOORALONG")?;
    raise_floor(ctx, args, 2)
}

fn raise_floor(ctx: Ctx<'_>, args: Args<'_>, at: usize) -> Result<(), Error> {
    let epoch = floor_epoch(args.bytes(at));
    state::with(|s| s.floor_replicated(epoch, &Redis));
    ctx.replicate_verbatim();
    ctx.reply_ok();
    Ok(())
}
