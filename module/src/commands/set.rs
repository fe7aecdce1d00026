//! `MCACHE.SET key ttl value [SWR seconds] [TOKEN token] [NX|XX] [MANUAL] [TAGS tag [tag ...]]`
//!
//! Value, tags, ttl and index change together. The order below matters: everything that can fail comes before
//! anything that changes.

use mcache_core::command::Set;
use mcache_core::error::Error;
use mcache_core::server::{Store, Stored};

use super::check_tags;
use crate::redis::{self, Access, Args, Ctx, Held, Key, Mode};
use crate::{config, parking, state};

/// `MCACHE.SET`
pub fn set(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let set = Set::parse(&args, config::limits())?;
    check_tags(ctx, args, set.tags_from, Access::Write)?;
    let key = ctx.open(args.string(Set::KEY), Mode::Write);
    let present = match key.held() {
        Held::Nothing => None,
        Held::Entry(entry) => Some(entry),
        Held::Foreign => return Err(Error::WrongType),
    };
    let tags = args.tail_bytes(set.tags_from);
    let now_ms = redis::now_ms();
    let Some(admitted) = state::with(|s| s.admit(&set, tags.clone(), present, now_ms)) else {
        drop(key);
        // The holder of the lease has tried and failed: the next in line is not to wait for its end.
        if let Some(token) = set.token {
            parking::release(ctx, args.bytes(Set::KEY), token);
        }
        ctx.reply_null();
        return Ok(());
    };
    let store = Store {
        db: ctx.db(),
        key: args.bytes(Set::KEY),
        value: args.bytes(Set::VALUE),
        tags,
        attributes: admitted.attributes,
        present,
    };
    put(&key, store);
    key.set_deadline(admitted.deadline_ms);
    drop(key);
    ctx.replicate_set(
        args.string(Set::KEY),
        admitted.deadline_ms.map_or(-1, |ms| ms as i64),
        admitted.attributes.birth.0,
        admitted.attributes.pack(),
        args.string(Set::VALUE),
        args.tail(set.tags_from),
    );
    parking::filled(ctx, args.bytes(Set::KEY));
    ctx.reply_ok();
    Ok(())
}

/// Stores a value in an open key and in the index.
pub fn put<'a>(key: &Key<'_>, store: Store<'_, impl Iterator<Item = &'a [u8]>>) {
    match state::with(|s| s.store(store)) {
        Stored::InPlace => {}
        Stored::New(new) => key.put(new),
        Stored::Replaced(new) => key.replace(new),
    }
}
