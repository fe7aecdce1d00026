//! INVALIDATE: what is done at once and what later, and what reclaim does to an entry whose turn has come.
//!
//! A few entries are dealt with at once, one by one. Many become dead or stale in constant time; reclaim comes to them
//! later, with the same tasks.

use super::{Edge, Server};
use crate::command::{Invalidate, ReplInvalidate};
use crate::entry::Entry;
use crate::epoch::Epoch;
use crate::index::{Scope, Task};

/// What an INVALIDATE has to do, and has done.
#[derive(Debug)]
#[must_use]
pub struct Invalidated {
    /// When it was.
    pub epoch: Epoch,
    /// How far that is ahead of the wall clock, in milliseconds: entries become stale by the clock, and the replicas
    /// are to be told the same moment.
    pub ahead_ms: u64,
    /// A few entries, each to be dealt with now; the decision itself then needs no replication.
    pub at_once: Vec<Task>,
    /// How many memberships became dead or stale just now; then the decision is to be replicated, with its epoch.
    pub later: usize,
}

impl<W> Server<W> {
    /// Invalidates tags; up to `inline_max` memberships are dealt with at once.
    pub fn invalidate<'a>(
        &mut self,
        db: usize,
        tags: impl Iterator<Item = &'a [u8]> + Clone,
        scope: Scope,
        soft: bool,
        inline_max: usize,
        now_ms: u64,
    ) -> Invalidated {
        let epoch = self.fills.tick(now_ms);
        self.stats.invalidations += 1;
        // Each tag is read and hashed once: most are carried by no entry, and this is all that is done about them.
        let mut count = 0;
        for tag in tags.clone() {
            let hash = self.index.hash(tag);
            self.fills.note_hashed(hash, scope, epoch);
            count += self.index.count_hashed(db, tag, hash, scope);
        }
        // Also of tags that no entry carries: near caches may.
        self.feed.invalidated(db as u32, tags.clone(), scope, soft);
        let since = epoch.not_after(now_ms);
        let mut invalidated = Invalidated {
            epoch,
            ahead_ms: epoch.unix_ms() - since.unix_ms(),
            at_once: Vec::new(),
            later: 0,
        };
        if count == 0 {
            return invalidated;
        }
        if count <= inline_max {
            let carriers = self.index.carriers(db, tags, scope).into_iter();
            let task = |entry: Entry| match soft && entry.swr_ms() > 0 {
                true => Task::Shorten {
                    db,
                    entry,
                    since: self.index.stale_since(&entry, since),
                },
                false => Task::Delete { db, entry },
            };
            invalidated.at_once = carriers.map(task).collect();
        } else {
            invalidated.later = self.make_worse(db, tags, scope, soft.then_some(since));
        }
        invalidated
    }

    /// Does what a primary decided. Returns how many memberships it concerns.
    pub fn invalidate_replicated<'a>(
        &mut self,
        db: usize,
        tags: impl Iterator<Item = &'a [u8]> + Clone,
        replicated: ReplInvalidate,
        edge: &impl Edge,
    ) -> usize {
        let ReplInvalidate {
            epoch,
            ahead_ms,
            what: Invalidate { scope, soft, .. },
        } = replicated;
        // What cannot be true is invalidated all the same, and now.
        let (epoch, since) = match self.credible(epoch, edge) {
            true => (epoch, epoch.earlier_by(ahead_ms)),
            false => {
                let now_ms = edge.now_ms();
                let epoch = self.fills.tick(now_ms);
                (epoch, epoch.not_after(now_ms))
            }
        };
        self.fills.note_at(tags.clone(), scope, epoch);
        self.make_worse(db, tags, scope, soft.then_some(since))
    }

    fn make_worse<'a>(
        &mut self,
        db: usize,
        tags: impl Iterator<Item = &'a [u8]>,
        scope: Scope,
        soft_since: Option<Epoch>,
    ) -> usize {
        match soft_since {
            Some(since) => self.index.soften(db, tags, scope, since),
            None => self.index.kill(db, tags, scope),
        }
    }

    /// A softly invalidated entry ends at `ends_ms` or earlier: from now on a mark in it says that it is stale. The
    /// deadline of its key is to be corrected.
    pub fn shortened(&mut self, db: usize, entry: Entry, ends_ms: u64) {
        if self.index.lists(db, entry.id(), entry) {
            self.index.shortened(db, entry, ends_ms);
        }
    }

    /// The keyspace does not hold under its name what the index handed out as entry number `id`: true if the index
    /// still lists it, which is a bug. Then it is taken out, so that reclaim cannot meet it again and again; else it
    /// expired when the key was opened, and is gone already.
    pub fn absent(&mut self, db: usize, id: u32, entry: Entry) -> bool {
        let listed = self.index.lists(db, id, entry);
        if listed {
            self.index.unlink(db, entry);
        }
        listed
    }
}
