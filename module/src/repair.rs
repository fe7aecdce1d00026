//! What is done after a bug: nothing that was stored is trusted, and the keyspace is searched for what the index
//! forgot.
//!
//! The search takes a piece of the keyspace at a time. An entry that it finds becomes a husk in its place, which the
//! index names and reclaim deletes.

use crate::redis::global::MainThread;
use crate::redis::guard::Repair;
use crate::redis::{self, Ctx, Cursor, Held, Mode, OwnedStr};
use crate::{bell, near, state};

/// Every bug is counted; where something was being changed, the state begins anew.
pub const REPAIR: Repair = Repair {
    count: || state::with(|s| s.stats.panics += 1),
    repair: || {
        state::with(|s| s.repaired(redis::now_ms()));
        // What the feed was about to write down may be lost: near caches are to forget everything.
        near::begin_anew();
        bell::ring();
    },
};

/// How far a search has come.
struct Search {
    number: u64,
    db: usize,
    cursor: Cursor,
}

static SEARCH: MainThread<Option<Search>> = MainThread::new();

/// What [`search`] needs; called once, when the module is loaded.
pub fn init() {
    SEARCH.set(None);
}

/// Goes on with the search, if there is one, until it is over or `enough` says so.
pub fn search(ctx: Ctx<'_>, enough: impl Fn() -> bool) {
    let selected = ctx.db();
    while let Some(number) = state::with(|s| s.search())
        && !enough()
    {
        let before = SEARCH.with(Option::take);
        let mut at = before
            .filter(|at| at.number == number)
            .unwrap_or_else(|| Search {
                number,
                db: 0,
                cursor: Cursor::new(),
            });
        if !ctx.select(at.db) {
            state::with(|s| s.search_ended(number));
            continue;
        }
        let mut found = Vec::new();
        let more = ctx.scan_on(&at.cursor, |key, entry| {
            found.extend(entry.map(|entry| (OwnedStr::new(key), entry)));
        });
        for (name, entry) in found {
            let key = ctx.open(name.as_raw(), Mode::Write);
            // It may have expired since.
            if !matches!(key.held(), Held::Entry(held) if held == entry) {
                continue;
            }
            if let Some(husk) = state::with(|s| s.astray(at.db, name.as_bytes(), entry)) {
                key.replace(husk);
            }
        }
        if !more {
            (at.db, at.cursor) = (at.db + 1, Cursor::new());
        }
        SEARCH.with(|search| *search = Some(at));
    }
    ctx.select(selected);
}
