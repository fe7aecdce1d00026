//! `MCACHE.DEBUG SELFCHECK|DRAIN` and `MCACHE.RECLAIM`: for tests and for those who run the server.

use std::sync::atomic::{AtomicBool, Ordering};

use mcache_core::error::Error;

use crate::redis::{Args, Ctx, writes_are_paused};
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

static ASKED: AtomicBool = AtomicBool::new(false);

/// Asks for a bug in the next callback that [`panic_if_asked`].
pub fn panic_later(ctx: Ctx<'_>, _: Args<'_>) -> Result<(), Error> {
    ASKED.store(true, Ordering::Relaxed);
    ctx.reply_ok();
    Ok(())
}

/// The bug that was asked for, once. Where none was, one load: every entry that leaves passes here.
#[inline]
pub fn panic_if_asked() {
    if ASKED.load(Ordering::Relaxed) {
        ASKED.store(false, Ordering::Relaxed);
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
