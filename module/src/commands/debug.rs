//! `MCACHE.DEBUG SELFCHECK|DRAIN` and `MCACHE.RECLAIM`: for tests and for those who run the server.

use std::sync::atomic::{AtomicU8, Ordering};

use mcache_core::error::Error;
use mcache_core::host::SlotMigration;

use crate::redis::{Args, Ctx, Mode, OwnedStr, host, writes_are_paused};
use crate::{reclaim, state};

/// `MCACHE.DEBUG SELFCHECK`: compares the index with the keyspace, entry by entry, in every database.
pub fn selfcheck(ctx: Ctx<'_>, _: Args<'_>) -> Result<(), Error> {
    match self_check(ctx) {
        Ok(()) => ctx.reply_ok(),
        Err(disagreement) => ctx.reply_error(&format!("ERR {disagreement}")),
    }
    Ok(())
}

/// `MCACHE.DEBUG DRAIN`: frees everything that is dead, however long it takes. A write: not for replicas, nor for
/// scripts that only read, and it waits while writes are paused.
pub fn drain(ctx: Ctx<'_>, _: Args<'_>) -> Result<(), Error> {
    // Redis lets it through where it only seems to be a write, as in a script that began before the pause. What has
    // expired is hidden then, and cannot be deleted: there would be no end.
    if writes_are_paused() {
        return Err(Error::Paused);
    }
    let freed = reclaim::run(ctx, None);
    ctx.reply_integer(freed as i64);
    Ok(())
}

fn self_check(ctx: Ctx<'_>) -> Result<(), String> {
    let selected = ctx.db();
    let result = (0..).take_while(|db| ctx.select(*db)).try_for_each(|db| {
        let mut keyspace = Vec::new();
        ctx.scan(|key, entry| keyspace.extend(entry.map(|entry| (key.to_vec(), entry))));
        if host::slot_migration() == SlotMigration::Redis {
            // It scans past keys of slots that the server does not have (any more, or yet).
            for entry in state::with(|s| s.index.not_among(db, &keyspace)) {
                let name = OwnedStr::new(entry.key());
                if ctx.open(name.as_raw(), Mode::Any).holds(entry) {
                    keyspace.push((entry.key().to_vec(), entry));
                }
            }
        }
        state::with(|s| s.index.verify(db, &keyspace))
    });
    ctx.select(selected);
    result
}

/// `MCACHE.PANIC` and the two below exist only in a server that was started with this variable in its environment: so
/// that tests can see what a bug in the module does, and no client of a shop ever can.
pub const PANICS: &str = "MCACHE_TEST_PANICS";

/// A bug in a command that changes what is stored.
pub fn panic(_: Ctx<'_>, _: Args<'_>) -> Result<(), Error> {
    panic!("asked for, in a command that changes things");
}

/// A bug in a command that changes nothing.
pub fn panic_reading(_: Ctx<'_>, _: Args<'_>) -> Result<(), Error> {
    panic!("asked for, in a command that reads");
}

/// Where a bug can be asked for. Each is within a change, so that something is half done.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Place {
    /// Ten times a second.
    Cron = 1,
    /// An entry leaves, and the index names it still.
    Unlink,
    /// It does not any more.
    Unlinked,
    /// On the thread that frees an entry, which may be a background thread.
    Free,
    /// A database is emptied.
    Flush,
    /// Two databases are exchanged.
    Swap,
    /// An entry was moved in memory, and the index knows its old place.
    Defrag,
    /// A value is read from a file or a dump.
    Load,
    /// A key was loaded.
    Loaded,
    /// A key was restored or copied.
    Arrive,
    /// A key has another name.
    Rename,
    /// An entry is copied.
    Copy,
    /// An entry is written to a file or a dump.
    Save,
    /// An entry is written to the append-only file.
    Rewrite,
    /// Slots that have gone are freed on another thread.
    Trim,
    /// A value is in the index, and not in the keyspace yet.
    Store,
}

const PLACES: [(&[u8], Place); 16] = [
    (b"cron", Place::Cron),
    (b"unlink", Place::Unlink),
    (b"unlinked", Place::Unlinked),
    (b"free", Place::Free),
    (b"flush", Place::Flush),
    (b"swap", Place::Swap),
    (b"defrag", Place::Defrag),
    (b"load", Place::Load),
    (b"loaded", Place::Loaded),
    (b"arrive", Place::Arrive),
    (b"rename", Place::Rename),
    (b"copy", Place::Copy),
    (b"save", Place::Save),
    (b"rewrite", Place::Rewrite),
    (b"trim", Place::Trim),
    (b"store", Place::Store),
];

/// The [`Place`] asked for, or 0.
static ASKED: AtomicU8 = AtomicU8::new(0);

/// Asks for a bug the next time that a place is reached.
pub fn panic_later(ctx: Ctx<'_>, args: Args<'_>) -> Result<(), Error> {
    let named = args.bytes(1);
    let place = PLACES.iter().find(|(name, _)| *name == named);
    ASKED.store(
        place.map_or(0, |(_, place)| *place as u8),
        Ordering::Relaxed,
    );
    match place {
        Some(_) => ctx.reply_ok(),
        None => ctx.reply_error("ERR there is no such place"),
    }
    Ok(())
}

/// The bug that was asked for, once. Where none was, one load: every entry that leaves passes here.
#[inline]
pub fn panic_if_asked(place: Place) {
    if ASKED.load(Ordering::Relaxed) == place as u8 {
        ASKED.store(0, Ordering::Relaxed);
        panic!("asked for, in a callback");
    }
}

/// `MCACHE.RECLAIM`: one slice; the event loop calls it while there is something to free.
pub fn reclaim(ctx: Ctx<'_>, _: Args<'_>) -> Result<(), Error> {
    let freed = reclaim::slice(ctx);
    ctx.reply_integer(freed as i64);
    Ok(())
}

/// `MCACHE.WRITABLE`: changes nothing, and nothing is replicated.
pub fn writable(ctx: Ctx<'_>, _: Args<'_>) -> Result<(), Error> {
    ctx.reply_ok();
    Ok(())
}
