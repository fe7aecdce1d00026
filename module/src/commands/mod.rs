//! One short file per command: parse, open, decide, apply, reply.

pub mod debug;
pub mod feed;
pub mod fetch;
pub mod get;
pub mod inspect;
pub mod invalidate;
pub mod nearget;
pub mod replicated;
pub mod scan;
pub mod set;
pub mod settle;
pub mod table;
pub mod token;

use mcache_core::error::Error;

use crate::redis::{Access, Args, Ctx};

/// Checks that the user may do this with every tag from `from` on: Redis itself checks keys only.
///
/// # Errors
/// Names the first tag that the user may not touch.
pub fn check_tags(ctx: Ctx<'_>, args: Args<'_>, from: usize, access: Access) -> Result<(), Error> {
    if args.tail(from).is_empty() {
        return Ok(());
    }
    let Some(user) = ctx.user() else {
        return Ok(());
    };
    match args
        .tail(from)
        .iter()
        .position(|tag| !user.may(access, *tag))
    {
        Some(at) => Err(Error::TagPermission(args.bytes(from + at).to_vec())),
        None => Ok(()),
    }
}
