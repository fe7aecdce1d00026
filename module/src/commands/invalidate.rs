//! `MCACHE.INVALIDATE [AUTO] [SOFT] [TAGS] tag [tag ...]`
//!
//! A few entries are dealt with at once, and what is replicated is what was done: UNLINK, or a shorter deadline. Many
//! become dead or stale in constant time and are dealt with later; then the decision is replicated, with its epoch.

use mcache_core::command::Invalidate;
use mcache_core::error::Error;

use super::check_tags;
use crate::config;
use crate::reclaim::{self, Job};
use crate::redis::{self, Access, Args, Ctx};
use crate::state;

/// `MCACHE.INVALIDATE`. Replies how many entries it concerned; beyond `mcache.reclaim-inline-max` an entry that carries
/// two of the tags counts twice, because the entries are not looked at.
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
    let (epoch, jobs, later) = state::with(|s| {
        let done = s.invalidate(db, tags, scope, soft, inline_max, redis::now_ms());
        let jobs: Vec<_> = done.at_once.into_iter().map(Job::new).collect();
        (done.epoch, jobs, done.later)
    });
    let mut deleted = Vec::with_capacity(jobs.len());
    let performed = jobs.into_iter().map(|job| job.perform(ctx, &mut deleted));
    let invalidated = performed.map(usize::from).sum::<usize>() + later;
    if !deleted.is_empty() {
        ctx.replicate_unlink(&deleted);
    }
    if later > 0 {
        let (mode, tags) = (invalidate.mode(), args.tail(tags_from));
        // Replicas and file hear of it either way, and once is enough.
        let along: Vec<[u8; 2]> = state::with(|s| s.exports.keys().collect());
        if along.is_empty() {
            ctx.replicate_invalidate(epoch.0, mode, tags);
        }
        for key in along {
            ctx.replicate_invalidate_along(key, epoch.0, mode, tags);
        }
        reclaim::arm(ctx);
    }
    state::with(|s| {
        s.stats.reclaimed += deleted.len() as u64;
        s.stats.entries_invalidated += invalidated as u64;
    });
    ctx.reply_integer(invalidated as i64);
    Ok(())
}
