//! `MCACHE.INVALIDATE [AUTO] [SOFT] [NEAR] [TAGS] tag [tag ...]`
//!
//! A few entries are dealt with at once, and what is replicated is what was done: UNLINK, or a shorter deadline. Many
//! become dead or stale in constant time and are dealt with later; then the decision is replicated, with its epoch.

use mcache_core::command::Invalidate;
use mcache_core::error::Error;

use super::check_tags;
use crate::config;
use crate::reclaim::Job;
use crate::redis::{self, Access, Args, Ctx};
use crate::{bell, near, state};

/// `MCACHE.INVALIDATE`. Replies how many entries it concerned; beyond `mcache.reclaim-inline-max` an entry that carries
/// two of the tags counts twice, because the entries are not looked at. With NEAR also how many near leases may let
/// what it concerns be served, and for how many milliseconds at most; before that, every slot that was gained counts.
pub fn invalidate(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let invalidate = Invalidate::parse(&args, config::limits())?;
    let Invalidate {
        scope,
        soft,
        near: asks,
        tags_from,
    } = invalidate;
    check_tags(ctx, args, tags_from, Access::Write)?;
    let (db, tags) = (ctx.db(), args.tail_bytes(tags_from));
    let inline_max = config::reclaim_inline_max();
    let (epoch, jobs, later) = state::with(|s| {
        let done = s.invalidate(db, tags.clone(), scope, soft, inline_max, redis::now_ms());
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
        bell::ring();
    }
    state::with(|s| {
        s.stats.reclaimed += deleted.len() as u64;
        s.stats.entries_invalidated += invalidated as u64;
    });
    if asks {
        near::standing(ctx);
        let waits = state::with(|s| s.feed.waits(db as u32, tags, redis::boot_us()));
        ctx.reply_array(3);
        ctx.reply_integer(invalidated as i64);
        ctx.reply_integer(waits.leases as i64);
        ctx.reply_integer(waits.longest_us.div_ceil(1_000) as i64);
    } else {
        ctx.reply_integer(invalidated as i64);
    }
    near::turn(ctx);
    Ok(())
}
