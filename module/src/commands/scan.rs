//! `MCACHE.TAGS cursor [MATCH pattern] [COUNT n]` and `MCACHE.ENTRIES tag cursor [COUNT n]`.
//!
//! Each call does a bounded amount of work, and shows a user only what the user's key patterns cover.

use mcache_core::Pattern;
use mcache_core::command::{Arguments, Scan};
use mcache_core::error::Error;

use crate::redis::{Access, Args, Ctx, Held, Mode, OwnedStr, Permitted};
use crate::state;

fn visible(permitted: Option<&Permitted>, name: &[u8]) -> bool {
    permitted.is_none_or(|rules| rules.all(Access::Read, &[OwnedStr::new(name).as_raw()]))
}

/// `MCACHE.TAGS cursor [MATCH pattern] [COUNT n]`: tags with their numbers of entries.
pub fn tags(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let scan = Scan::parse(&args, 1, true)?;
    let pattern = scan.pattern_at.and_then(|at| Pattern::new(args.get(at)));
    let (cursor, found) = state::with(|s| {
        s.index.settle();
        let (cursor, page) = s
            .index
            .scan_tags(ctx.db(), scan.cursor, scan.count, pattern.as_ref());
        let page = page
            .into_iter()
            .map(|(name, entries)| (name.to_vec(), entries));
        (cursor, page.collect::<Vec<_>>())
    });
    let permitted = ctx.permitted(args);
    let found: Vec<_> = found
        .into_iter()
        .filter(|(name, _)| visible(permitted.as_ref(), name))
        .collect();
    ctx.reply_array(2);
    ctx.reply_bytes(cursor.to_string().as_bytes());
    ctx.reply_array(found.len() * 2);
    for (name, entries) in found {
        ctx.reply_bytes(&name);
        ctx.reply_integer(entries as i64);
    }
    Ok(())
}

/// `MCACHE.ENTRIES tag cursor [COUNT n]`: keys of the entries that carry a tag.
pub fn entries(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let scan = Scan::parse(&args, 2, false)?;
    let permitted = ctx.permitted(args);
    if let Some(permitted) = &permitted
        && !permitted.all(Access::Read, &[args.string(1)])
    {
        return Err(Error::TagPermission(args.bytes(1).to_vec()));
    }
    let (cursor, page) = state::with(|s| {
        s.index
            .scan_entries(ctx.db(), args.bytes(1), scan.cursor, scan.count)
    });
    // Copied before any key is opened: that may delete an entry whose time is over.
    let page: Vec<_> = page
        .into_iter()
        .map(|entry| (entry.key().to_vec(), entry))
        .collect();
    let carries = |key: &[u8], entry| {
        let found = ctx.open(OwnedStr::new(key).as_raw(), Mode::Peek).held();
        matches!(found, Held::Entry(found) if found == entry)
    };
    let shown = page
        .iter()
        .filter(|(key, entry)| visible(permitted.as_ref(), key) && carries(key, *entry));
    let keys: Vec<_> = shown.map(|(key, _)| key).collect();
    ctx.reply_array(2);
    ctx.reply_bytes(cursor.to_string().as_bytes());
    ctx.reply_array(keys.len());
    keys.iter().for_each(|key| ctx.reply_bytes(key));
    Ok(())
}
