//! `MCACHE.HELP`

use mcache_core::error::Error;

use super::table::COMMANDS;
use crate::ffi::api::{Args, Ctx};

/// `MCACHE.HELP`: a line of syntax and a line of meaning for each command.
pub fn help(ctx: Ctx<'_>, _: Args<'_>) -> Result<(), Error> {
    let shown: Vec<_> = COMMANDS
        .iter()
        .filter(|command| !command.syntax.is_empty())
        .collect();
    ctx.reply_array(shown.len() * 2);
    for command in shown {
        ctx.reply_bytes(command.syntax.as_bytes());
        ctx.reply_bytes(format!("    {}", command.summary.to_string_lossy()).as_bytes());
    }
    Ok(())
}
