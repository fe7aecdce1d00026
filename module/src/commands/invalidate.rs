//! `MCACHE.INVALIDATE [AUTO] [SOFT] [TAGS] tag [tag ...]`
//!
//! A few entries are dealt with at once, and what is replicated is what was done: UNLINK, or a shorter deadline. Many
//! become dead or stale in constant time and are dealt with later; then the decision is replicated, with its epoch.

use mcache_core::command::Invalidate;
use mcache_core::entry::Entry;
use mcache_core::epoch::Epoch;
use mcache_core::error::Error;

use super::check_tags;
use crate::config;
use crate::ffi::api::{self, Access, Args, Ctx};
use crate::{reclaim, state};

/// `MCACHE.INVALIDATE`. Replies how many entries it concerned; beyond `mcache.reclaim-inline-max` an entry that carries
/// two of the tags counts twice, for nobody looks at the entries.
pub fn invalidate(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let invalidate = Invalidate::parse(&args, config::limits())?;
    let Invalidate {
        scope,
        soft,
        tags_from,
    } = invalidate;
    check_tags(ctx, args, tags_from, Access::Write)?;
    let (db, tags) = (ctx.db(), args.tail_bytes(tags_from));
    let inline_max = config::reclaim_inline_max();
    let (epoch, few, many) = state::with(|s| {
        let epoch = s.fills.note(tags.clone(), scope, api::now_ms());
        s.stats.invalidations += 1;
        let count = s.index.count(db, tags.clone(), scope);
        if count == 0 {
            (epoch, Vec::new(), 0)
        } else if count <= inline_max {
            (epoch, s.index.carriers(db, tags, scope), 0)
        } else if soft {
            (epoch, Vec::new(), s.index.soften(db, tags, scope, epoch))
        } else {
            (epoch, Vec::new(), s.index.kill(db, tags, scope))
        }
    });
    let invalidated = at_once(ctx, db, &few, soft.then_some(epoch)) + many;
    if many > 0 {
        ctx.replicate_invalidate(epoch.0, invalidate.mode(), args.tail(tags_from));
        reclaim::arm(ctx);
    }
    state::with(|s| s.stats.entries_invalidated += invalidated as u64);
    ctx.reply_integer(invalidated as i64);
    Ok(())
}

/// Deals with a few entries: those that may still be served stale get a shorter deadline, the others are deleted.
fn at_once(ctx: Ctx<'_>, db: usize, few: &[Entry], soft: Option<Epoch>) -> usize {
    let mut deleted = Vec::with_capacity(few.len());
    let mut shortened = 0;
    for entry in few {
        match soft {
            Some(epoch) if entry.swr_ms() > 0 => {
                shortened += usize::from(reclaim::shorten(ctx, db, *entry, epoch));
            }
            _ => deleted.extend(reclaim::delete(ctx, db, *entry)),
        }
    }
    if !deleted.is_empty() {
        ctx.replicate_unlink(&deleted);
    }
    state::with(|s| s.stats.reclaimed += deleted.len() as u64);
    deleted.len() + shortened
}
