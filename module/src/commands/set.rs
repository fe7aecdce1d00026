//! `MCACHE.SET key ttl value [SWR seconds] [TOKEN token] [NX|XX] [MANUAL] [TAGS tag [tag ...]]`
//!
//! Value, tags, ttl and index change together. The order below matters: everything that can fail comes before
//! anything that changes.

use mcache_core::command::{Condition, Set};
use mcache_core::entry::{Attributes, Entry};
use mcache_core::error::Error;
use mcache_core::fills::Refusal;
use mcache_core::index::Verdict;

use super::check_tags;
use crate::ffi::api::{self, Access, Args, Ctx, Held, Key, Mode};
use crate::state::{self, State};
use crate::{config, parking};

/// `MCACHE.SET`
pub fn set(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let set = Set::parse(&args, config::limits())?;
    check_tags(ctx, args, set.tags_from, Access::Write)?;
    let key = ctx.open(args.string(Set::KEY), Mode::Write);
    let mut present = match key.held() {
        Held::Nothing => None,
        Held::Entry(entry) => Some(entry),
        Held::Foreign => return Err(Error::WrongType),
    };
    let now_ms = api::now_ms();
    let birth = state::with(|s| {
        let live = present
            .as_mut()
            .is_some_and(|entry| s.index.verdict(entry) != Verdict::Dead);
        let allowed = match set.condition {
            Condition::Always => true,
            Condition::Absent => !live,
            Condition::Present => live,
        };
        if !allowed {
            return None;
        }
        let birth = s.fills.birth(
            set.token,
            args.tail_bytes(set.tags_from),
            set.manual,
            s.index.floor(),
            now_ms,
        );
        match birth {
            Ok(_) => s.stats.fills += 1,
            Err(refusal) => {
                s.stats.refused_fills += 1;
                s.stats.refused_fills_in_doubt += u64::from(refusal == Refusal::InDoubt);
            }
        }
        birth.ok()
    });
    let Some(birth) = birth else {
        drop(key);
        // Whoever holds the lease has tried and failed: the next in line is not to wait for its end.
        if let Some(token) = set.token {
            parking::release(ctx, args.bytes(Set::KEY), token);
        }
        ctx.reply_null();
        return Ok(());
    };
    let attributes = Attributes {
        birth,
        manual: set.manual,
        swr_ms: set.swr_ms,
        softened: false,
    };
    let deadline_ms = set
        .ttl_ms
        .map(|ttl_ms| now_ms + ttl_ms + u64::from(set.swr_ms));
    let tags = args.tail(set.tags_from);
    store(
        ctx,
        &key,
        present,
        args,
        attributes,
        set.tags_from,
        Set::VALUE,
    );
    key.set_deadline(deadline_ms);
    drop(key);
    let deadline = deadline_ms.map_or(-1, |ms| ms as i64);
    ctx.replicate_set(
        args.string(Set::KEY),
        deadline,
        birth.0,
        state::pack(attributes),
        args.string(Set::VALUE),
        tags,
    );
    parking::filled(ctx, args.bytes(Set::KEY));
    ctx.reply_ok();
    Ok(())
}

/// Puts a value into an open key, in the cheapest way that keeps the index exact: into the same memory, into a new entry
/// in the same place of the index, or into a new entry with its own place.
pub fn store(
    ctx: Ctx<'_>,
    key: &Key<'_>,
    present: Option<Entry>,
    args: Args<'_>,
    attributes: Attributes,
    tags_from: usize,
    value_at: usize,
) {
    let db = ctx.db();
    let (name, value) = (args.bytes(Set::KEY), args.bytes(value_at));
    let stored = state::with(|s| {
        let State { index, records, .. } = s;
        index.resolve(db, args.tail_bytes(tags_from), attributes.manual, records);
        let Some(mut old) = present else {
            let new = Entry::new(name, value, attributes, records);
            // SAFETY: the records were resolved just now, in this database; the entry goes into the keyspace below.
            unsafe { index.link(db, new) };
            return Stored::New(new);
        };
        let before = old.value().len();
        if old.tags() == &records[..]
            && old.is_manual() == attributes.manual
            && old.overwrite(value, attributes)
        {
            index.resized(db, before, value.len());
            return Stored::InPlace;
        }
        let new = Entry::new(name, value, attributes, records);
        // SAFETY: both are alive; the old one is in the keyspace of this database, so it is linked; the records were
        // resolved just now.
        unsafe { index.replace(db, old, new) };
        Stored::Replaced { old, new }
    });
    match stored {
        Stored::InPlace => {}
        Stored::New(new) => key.put(new),
        Stored::Replaced { old, new } => {
            key.replace(new);
            // SAFETY: it is out of the index and out of the keyspace.
            unsafe { old.free() };
        }
    }
}

enum Stored {
    InPlace,
    New(Entry),
    Replaced { old: Entry, new: Entry },
}
