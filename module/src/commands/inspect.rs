//! `MCACHE.INSPECT key` and `MCACHE.TAGINFO tag`: what is known of an entry, and of a tag.

use mcache_core::entry::Entry;
use mcache_core::epoch::Epoch;
use mcache_core::error::Error;
use mcache_core::index::{Scope, Why};
use mcache_core::server::{Dead, fresh_ms};

use super::check_tags;
use crate::redis::{self, Access, Args, Ctx, Held, Mode};
use crate::state;

/// `MCACHE.INSPECT key`: leaves no trace in statistics and eviction.
pub fn inspect(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let key = ctx.open(args.string(1), Mode::Peek);
    let mut entry = match key.held() {
        Held::Nothing => {
            ctx.reply_null();
            return Ok(());
        }
        Held::Foreign => return Err(Error::WrongType),
        Held::Entry(entry) => entry,
    };
    let now_ms = redis::now_ms();
    let (condition, reason, tags) = state::with(|s| {
        let reason = s.why_dead(&mut entry, now_ms).map(|why| match why {
            Dead::Invalidated(Why::Floor) => {
                b"below the floor: stored before a restart, a promotion or a repair".to_vec()
            }
            Dead::Invalidated(Why::Tag(record)) => {
                [b"invalidated by the tag ", s.index.name(record)].concat()
            }
            Dead::Over => b"its time is over; its key waits to be removed".to_vec(),
            Dead::Unconfirmed => {
                b"read from this replica's own file; its primary has not been reached since"
                    .to_vec()
            }
            Dead::Unlinked => b"what was read could not be believed".to_vec(),
            Dead::Husk => {
                b"only its key is left: it was dead when it came here from a file, by RESTORE, COPY, RENAME or another \
                server, or came with a tag that its sender may not write"
                    .to_vec()
            }
        });
        let tags = s.tags(ctx.db(), &entry);
        let condition = s.condition(&mut entry, || now_ms);
        (condition, reason, tags)
    });
    let field = |name: &str| ctx.reply_bytes(name.as_bytes());
    ctx.reply_map(if reason.is_some() { 8 } else { 7 });
    field("state");
    field(condition.word());
    field("ttl_ms");
    let left_ms = fresh_ms(&entry, now_ms);
    ctx.reply_integer(left_ms.map_or(-1, |ms| ms as i64));
    field("age_ms");
    // Of a husk it is not known when it was filled.
    let filled_ms = match entry.birth() {
        Epoch::ZERO => now_ms,
        birth => birth.unix_ms(),
    };
    ctx.reply_integer(now_ms.saturating_sub(filled_ms) as i64);
    field("bytes");
    ctx.reply_integer(Entry::bytes(&entry) as i64);
    field("manual");
    ctx.reply_integer(i64::from(entry.is_manual()));
    field("birth");
    ctx.reply_integer(entry.birth().0 as i64);
    field("tags");
    ctx.reply_array(tags.len());
    tags.iter().for_each(|tag| ctx.reply_bytes(tag));
    if let Some(reason) = reason {
        field("reason");
        ctx.reply_bytes(&reason);
    }
    Ok(())
}

/// `MCACHE.TAGINFO tag`
pub fn taginfo(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    check_tags(ctx, args, 1, Access::Read)?;
    let (db, tag) = (ctx.db(), args.bytes(1));
    let (entries, bytes, last) = state::with(|s| {
        let entries = s.index.count(db, std::iter::once(tag), Scope::All);
        (
            entries,
            s.index.bytes_of(db, tag),
            s.fills.last_invalidation(tag),
        )
    });
    let field = |name: &str| ctx.reply_bytes(name.as_bytes());
    ctx.reply_map(3);
    field("entries");
    ctx.reply_integer(entries as i64);
    field("bytes");
    ctx.reply_integer(bytes as i64);
    field("last_invalidation_ms");
    ctx.reply_integer(last.map_or(-1, |epoch| epoch.unix_ms() as i64));
    Ok(())
}
