//! What an entry is good for at the moment: the one place that compares it with the clock.

use super::Server;
use crate::entry::Entry;
use crate::index::Verdict;

/// What an entry is good for at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// To be served.
    Live,
    /// Past its ttl or softly invalidated, within its SWR window.
    Stale,
    /// Never to be served again.
    Dead,
}

impl Condition {
    /// The word for it in replies.
    pub fn word(self) -> &'static str {
        match self {
            Condition::Live => "live",
            Condition::Stale => "stale",
            Condition::Dead => "dead",
        }
    }
}

impl<W> Server<W> {
    /// Looks at what the index says and, only for entries with an SWR window, at the key's deadline and the clock. An entry
    /// that no index holds is dead: no invalidation would reach it.
    #[inline]
    pub fn condition(
        &self,
        entry: &mut Entry,
        deadline_ms: impl FnOnce() -> Option<u64>,
        now_ms: impl FnOnce() -> u64,
    ) -> Condition {
        if !entry.is_linked() {
            return Condition::Dead;
        }
        let swr_ms = u64::from(entry.swr_ms());
        match self.index.verdict(entry) {
            Verdict::Live if swr_ms == 0 => Condition::Live,
            Verdict::Live if entry.is_softened() => Condition::Stale,
            Verdict::Live => match deadline_ms() {
                Some(deadline) if now_ms() + swr_ms >= deadline => Condition::Stale,
                _ => Condition::Live,
            },
            // Its deadline is about to be shortened to about this.
            Verdict::Soft(since) if now_ms() < since.unix_ms() + swr_ms => Condition::Stale,
            Verdict::Soft(_) | Verdict::Dead => Condition::Dead,
        }
    }
}

/// How long an entry stays fresh by its deadline: 0 within its SWR window, `None` if it never ends.
pub fn fresh_ms(entry: &Entry, deadline_ms: Option<u64>, now_ms: u64) -> Option<u64> {
    let end_ms = deadline_ms?.saturating_sub(u64::from(entry.swr_ms()));
    Some(end_ms.saturating_sub(now_ms))
}
