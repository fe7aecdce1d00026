//! `MCACHE.INVALIDATE [AUTO] [TAGS] tag [tag ...]`
//!
//! A few entries are deleted at once, and replicated as what it is: UNLINK. Many become dead in constant time and are
//! reclaimed later; then the decision is replicated, with its epoch.

use mcache_core::command::Invalidate;
use mcache_core::error::Error;

use super::check_tags;
use crate::config;
use crate::ffi::api::{self, Access, Args, Ctx};
use crate::{reclaim, state};

/// `MCACHE.INVALIDATE`. Replies how many entries were made dead; beyond `mcache.reclaim-inline-max` an entry that carries
/// two of the tags counts twice, for nobody looks at the entries.
pub fn invalidate(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let Invalidate { auto, tags_from } = Invalidate::parse(&args, config::limits())?;
    check_tags(ctx, args, tags_from, Access::Write)?;
    let (db, tags) = (ctx.db(), args.tail_bytes(tags_from));
    let inline_max = config::reclaim_inline_max();
    let (few, killed, epoch) = state::with(|s| {
        let epoch = s.note_invalidation(tags.clone(), auto, api::now_ms());
        s.stats.invalidations += 1;
        let count = s.index.count(db, tags.clone(), auto);
        if count <= inline_max {
            let few = if count > 0 {
                s.index.carriers(db, tags.clone(), auto)
            } else {
                Vec::new()
            };
            return (few, 0, epoch);
        }
        (Vec::new(), s.index.kill(db, tags, auto), epoch)
    });
    let deleted: Vec<_> = few
        .into_iter()
        .filter_map(|entry| reclaim::delete(ctx, db, entry))
        .collect();
    if !deleted.is_empty() {
        ctx.replicate_unlink(&deleted);
    }
    if killed > 0 {
        ctx.replicate_invalidate(epoch.0, auto, args.tail(tags_from));
        reclaim::arm(ctx);
    }
    let invalidated = deleted.len() + killed;
    state::with(|s| {
        s.stats.entries_invalidated += invalidated as u64;
        s.stats.reclaimed += deleted.len() as u64;
    });
    ctx.reply_integer(invalidated as i64);
    Ok(())
}
