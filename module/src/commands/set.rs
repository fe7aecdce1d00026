//! `MCACHE.SET key ttl value [SWR seconds] [TOKEN token] [NX|XX] [MANUAL] [NEAR subscription] [TAGS tag [tag ...]]`
//!
//! Value, tags, ttl and index change together. The order below matters: everything that can fail comes before
//! anything that changes.

use mcache_core::command::Set;
use mcache_core::entry::Entry;
use mcache_core::error::Error;
use mcache_core::server::{Store, Stored};

use super::check_tags;
use super::debug::{Place, panic_if_asked};
use crate::redis::{self, Access, Args, Ctx, Held, Key, Mode};
use crate::{config, near, parking, state};

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
    let (name, value) = (args.bytes(Set::KEY), args.bytes(Set::VALUE));
    let now_ms = redis::now_ms();
    let admitted = state::with(|s| s.admit(&set, name, tags.clone(), present, now_ms));
    let Some(admitted) = admitted else {
        drop(key);
        // The holder of the lease has tried and failed: the next in line is not to wait for its end.
        if let Some(token) = set.token {
            parking::release(ctx, name, token);
        }
        ctx.reply_null();
        return Ok(());
    };
    let store = Store {
        db: ctx.db(),
        key: name,
        value,
        tags,
        attributes: admitted.attributes,
        present,
    };
    let stored = put(&key, store);
    key.set_deadline(admitted.deadline_ms);
    drop(key);
    ctx.replicate_set(
        args.string(Set::KEY),
        args.string(Set::VALUE),
        admitted.deadline_ms,
        admitted.attributes,
        args.tail_bytes(set.tags_from),
    );
    ctx.announce(c"mcache.set", args.string(Set::KEY));
    parking::filled(ctx, name, value.len());
    match set
        .near
        .and_then(|named| near::give(ctx.db(), named, name, &stored, set.ttl_ms))
    {
        Some(near) => near::reply(ctx, Some(near)),
        None => ctx.reply_ok(),
    }
    near::turn(ctx);
    Ok(())
}

/// Stores a value in an open key and in the index; returns the entry that holds it.
pub fn put<'a>(key: &Key<'_>, store: Store<'_, impl Iterator<Item = &'a [u8]>>) -> Entry {
    let present = store.present;
    let stored = state::with(|s| s.store(store));
    panic_if_asked(Place::Store);
    match stored {
        Stored::InPlace => present.expect("a value is put in the place of one that is there"),
        Stored::New(new) => {
            key.put(new);
            new
        }
        Stored::Replaced(new) => {
            key.replace(new);
            new
        }
    }
}
