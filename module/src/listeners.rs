//! Whether there is a listener to what is replicated: a replica, the backlog kept for one, the append-only file, or the
//! server that slots are on their way to.
//!
//! `RedisModule_Replicate` builds its argument vector before Redis finds that there is none: a fifth of the
//! instructions of a SET with tags, and most servers used as a cache have neither replicas nor a file. So it is called
//! only while a listener may be listening.
//!
//! Silence is asked for, never guessed: ten times a second a primary asks Redis whether there is a listener, and only a
//! "no" to all questions counts. From then on a listener can only begin in three ways, of which Redis tells us before
//! the next command. With a migration of whole slots: their new owner gets what is replicated for their keys. With
//! a *fork*: a replica is in step only from the fork of its full synchronisation on (a partial one needs the backlog,
//! and there was none), and a file that is switched on takes commands only from the fork of its first rewrite on; what
//! was written before the fork is in what the fork writes. Or with a change of *role*: a server that
//! was a replica in between has a backlog although it never forked.

use crate::redis::{self, Ctx};
use crate::state;

/// A listener may have come: the server forked, its role changed, or slots begin to move.
pub fn may_have_come() {
    redis::set_heard(true);
}

/// Asks Redis. Called from the cron.
pub fn look(ctx: Ctx<'_>) {
    let flags = ctx.flags();
    if redis::is_heard()
        && flags.is_primary()
        && !flags.has_aof()
        && !state::with(|s| s.exports.any())
        && !ctx.has_replicas_or_backlog()
    {
        redis::set_heard(false);
    }
}
