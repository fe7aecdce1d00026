//! One short file per command: parse, open, decide, apply, reply.

pub mod clear;
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
    let tags = args.tail(from);
    if tags.is_empty() {
        return Ok(());
    }
    match ctx.permitted(args) {
        Some(permitted) if !permitted.all(access, tags) => {
            let at = from + permitted.refused(access, tags);
            Err(Error::TagPermission(args.bytes(at).to_vec()))
        }
        _ => Ok(()),
    }
}
