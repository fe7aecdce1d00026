//! GET and FETCH: what is served, and who is told to fill.
//!
//! ```text
//!   live entry                       hit   value
//!   live, EARLY and soon to expire   hit   value token    the caller holds the lease; no other caller does
//!   stale, no caller refreshes it    stale value token    the caller holds the lease
//!   stale, another caller does       stale value
//!   none, no caller fills it yet     miss        token    the caller holds the lease
//!   none, another caller does        parked up to WAIT, then by what woke it: hit, miss and token, or busy
//! ```
//! On a replica there are no leases, for there are no fills: a miss comes without a token. So it does for a caller who
//! may not write the key, and while memory has run out.

use std::hash::Hash;

use super::condition::fresh_ms;
use super::{Condition, Edge, Server};
use crate::early;
use crate::entry::Entry;
use crate::epoch::Token;
use crate::lease::Asked;

/// A caller of FETCH and what it wants.
#[derive(Clone, Copy, Debug)]
pub struct Fetcher<'a> {
    /// The database.
    pub db: usize,
    /// The key.
    pub key: &'a [u8],
    /// The client's id.
    pub client: u64,
    /// How long its lease is to last.
    pub lease_ms: u64,
    /// It is ready to be parked.
    pub may_wait: bool,
    /// Most clients parked at once.
    pub max_waiters: usize,
}

/// What FETCH replies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fetched {
    /// A live entry; with a token, the caller refreshes it early.
    Hit(Entry, Option<Token>),
    /// A stale entry; with a token, the caller refreshes it.
    Stale(Entry, Option<Token>),
    /// Nothing; with a token, the caller fills it.
    Miss(Option<Token>),
    /// Another caller fills it, and this one does not wait.
    Busy,
    /// Another caller fills it, and this one is to be parked ([`Server::park`]).
    Park,
}

impl<W: Copy + Eq + Hash> Server<W> {
    /// GET: the entry, if it is to be served. `turned_stale` is called when it is the first time that the entry is
    /// found stale: those who keep its value and track the key are to be told.
    #[inline]
    pub fn lookup(
        &mut self,
        found: Option<Entry>,
        now_ms: impl FnOnce() -> u64,
        turned_stale: impl FnOnce(),
    ) -> Option<Entry> {
        if let Some(mut entry) = found {
            match self.condition(&mut entry, now_ms) {
                Condition::Live => {
                    self.stats.hits += 1;
                    return Some(entry);
                }
                Condition::Stale if entry.tell_stale() => turned_stale(),
                Condition::Stale => {}
                Condition::Dead => self.stats.dead_hits += 1,
            }
        }
        self.stats.misses += 1;
        None
    }

    /// FETCH. `early_ms`: how long a fill takes, for the chance to refresh a live entry early; 0 never does. `caller`
    /// is asked only where it matters who it is: most calls are hits. `may_fill` says whether the caller may write the
    /// key and there is memory for what it would write; those who may not get hits and misses, and cost nothing.
    /// `turned_stale` as for [`Server::lookup`].
    #[inline]
    pub fn fetch<'a>(
        &mut self,
        early_ms: u64,
        caller: impl FnOnce() -> Fetcher<'a>,
        found: Option<Entry>,
        edge: &impl Edge,
        may_fill: impl Fn() -> bool,
        turned_stale: impl FnOnce(),
    ) -> Fetched {
        let condition = match found {
            Some(mut entry) => self.condition(&mut entry, || edge.now_ms()),
            None => Condition::Dead,
        };
        if let (Condition::Live, Some(entry), 0) = (condition, found, early_ms) {
            self.stats.hits += 1;
            return Fetched::Hit(entry, None);
        }
        let caller = caller();
        let mut ask = || self.ask(&caller, edge, &may_fill);
        match (condition, found) {
            (Condition::Live, Some(entry)) => {
                let due = fresh_ms(&entry, edge.now_ms())
                    .is_some_and(|left| early::is_due(left, early_ms, edge.random()));
                let token = due.then(|| ask()?.token()).flatten();
                self.stats.hits += 1;
                self.stats.early_refreshes += u64::from(token.is_some());
                Fetched::Hit(entry, token)
            }
            (Condition::Stale, Some(mut entry)) => {
                if entry.tell_stale() {
                    turned_stale();
                }
                let token = ask().and_then(Asked::token);
                self.stats.stale_hits += 1;
                Fetched::Stale(entry, token)
            }
            _ => {
                let asked = ask();
                self.stats.dead_hits += u64::from(found.is_some());
                match asked {
                    Some(Asked::Held) if !caller.may_wait => Fetched::Busy,
                    Some(Asked::Held) if self.leases.parked() >= caller.max_waiters => {
                        Fetched::Busy
                    }
                    // A place in line is the right to be the next who fills.
                    Some(Asked::Held) if may_fill() => Fetched::Park,
                    Some(Asked::Held) | None => {
                        self.stats.misses += 1;
                        Fetched::Miss(None)
                    }
                    Some(Asked::Granted(token)) => {
                        self.stats.misses += 1;
                        Fetched::Miss(Some(token))
                    }
                }
            }
        }
    }

    /// Asks for the right to fill a key; `None` where that right does not exist: on a replica, and for a caller who may
    /// not fill it. `may_fill` is asked only where a lease would be given.
    fn ask(
        &mut self,
        caller: &Fetcher<'_>,
        edge: &impl Edge,
        may_fill: &impl Fn() -> bool,
    ) -> Option<Asked> {
        if !edge.is_primary() {
            return None;
        }
        let now_ms = edge.now_ms();
        let Fetcher {
            db,
            key,
            client,
            lease_ms,
            ..
        } = *caller;
        if self.leases.is_held(db, key, now_ms) {
            return Some(Asked::Held);
        }
        if !may_fill() {
            return None;
        }
        let token = self.fills.unique_token(now_ms);
        Some(self.leases.ask(db, key, client, token, now_ms, lease_ms))
    }
}
