//! Records that were softly invalidated, until their members are dealt with.
//!
//! They wait in a queue per database. The records of one tag that became soft one after the other form a *group*; the
//! table of soft names holds the newest of each group. A hard invalidation marks the group dead: O(1), however many
//! records it has and however long the queue is.

use crate::epoch::Epoch;
use crate::slab::Slab;
use crate::table::Table;
use crate::work;

const NONE: u32 = u32::MAX;

/// A soft record.
struct Node {
    record: u32,
    /// When it became soft.
    epoch: Epoch,
    group: u32,
    /// Its neighbours in the group.
    older: u32,
    newer: u32,
    /// Its neighbours in the queue.
    before: u32,
    after: u32,
}

struct Group {
    newest: u32,
    /// Members of all its records.
    members: usize,
    /// The tag was invalidated for good since.
    dead: bool,
}

/// The soft records of one database, in the order in which they became soft.
pub(crate) struct Line {
    first: u32,
    last: u32,
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Line {
            first: NONE,
            last: NONE,
            len: 0,
        }
    }
}

impl Line {
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// What is to be done about the table of soft names when a record goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heir {
    /// Nothing: it was not in there.
    NotListed,
    /// It was the only one of its group: take it out.
    Nothing,
    /// This older record of the group takes its place.
    Record(u32),
}

/// All soft records of all databases.
#[derive(Default)]
pub(crate) struct Softs {
    nodes: Slab<Node>,
    by_record: Table<u32>,
    groups: Slab<Group>,
}

impl Softs {
    fn node(&self, record: u32) -> Option<u32> {
        let is_it = |id: &u32| self.nodes.get(*id).is_some_and(|n| n.record == record);
        self.by_record.find(u64::from(record), is_it).copied()
    }

    /// Adds a record with so many members at the end of a line; `newest` is the one that the table of soft names holds
    /// for its tag, if any.
    pub(crate) fn push(
        &mut self,
        line: &mut Line,
        record: u32,
        epoch: Epoch,
        members: usize,
        newest: Option<u32>,
    ) {
        let older = newest.and_then(|newest| self.node(newest));
        let group = older.and_then(|id| self.nodes.get(id)).map(|n| n.group);
        let group = group.unwrap_or_else(|| {
            self.groups.insert(Group {
                newest: NONE,
                members: 0,
                dead: false,
            })
        });
        let id = self.nodes.insert(Node {
            record,
            epoch,
            group,
            older: older.unwrap_or(NONE),
            newer: NONE,
            before: line.last,
            after: NONE,
        });
        if let Some(older) = self.nodes.get_mut(older.unwrap_or(NONE)) {
            older.newer = id;
        }
        if let Some(group) = self.groups.get_mut(group) {
            group.newest = id;
            group.members += members;
        }
        match self.nodes.get_mut(line.last) {
            Some(last) => last.after = id,
            None => line.first = id,
        }
        line.last = id;
        line.len += 1;
        let nodes = &self.nodes;
        self.by_record.insert(u64::from(record), id, |id| {
            nodes.get(*id).map_or(0, |n| u64::from(n.record))
        });
    }

    /// When the record became soft; `None` if its tag was invalidated for good since.
    pub(crate) fn since(&self, record: u32) -> Option<Epoch> {
        let node = self.nodes.get(self.node(record)?)?;
        let dead = self.groups.get(node.group)?.dead;
        (!dead).then_some(node.epoch)
    }

    /// The tag became soft again, and the clock may have gone back since: no record of the group became so later than
    /// that. Returns how many members that concerns: all of the group, or none. O(1) unless the clock went back.
    pub(crate) fn no_later_than(&mut self, newest: u32, epoch: Epoch) -> usize {
        let mut at = self.node(newest).unwrap_or(NONE);
        let mut is_earlier = false;
        // An older record of a group is never later than a newer one.
        while let Some(node) = self.nodes.get_mut(at)
            && epoch < node.epoch
        {
            work::step(1);
            node.epoch = epoch;
            at = node.older;
            is_earlier = true;
        }
        if is_earlier { self.members(newest) } else { 0 }
    }

    /// Whether the table of soft names holds this record.
    pub(crate) fn is_listed(&self, record: u32) -> bool {
        let Some(id) = self.node(record) else {
            return false;
        };
        let group = self.nodes.get(id).and_then(|n| self.groups.get(n.group));
        group.is_some_and(|g| !g.dead && g.newest == id)
    }

    /// The members of all records of a record's group.
    pub(crate) fn members(&self, record: u32) -> usize {
        let node = self.node(record).and_then(|id| self.nodes.get(id));
        node.and_then(|n| self.groups.get(n.group))
            .map_or(0, |g| g.members)
    }

    /// The records of a record's group, the newest first. None of them is without members.
    pub(crate) fn group(&self, newest: u32) -> impl Iterator<Item = u32> {
        let first = self.node(newest).and_then(|id| self.nodes.get(id));
        std::iter::successors(first, |node| self.nodes.get(node.older)).map(|node| node.record)
    }

    /// Marks the group dead whose newest record this is. Returns how many members that concerns.
    pub(crate) fn kill(&mut self, newest: u32) -> usize {
        let node = self.node(newest).and_then(|id| self.nodes.get(id));
        let group = node.and_then(|n| self.groups.get_mut(n.group));
        group.map_or(0, |group| {
            group.dead = true;
            group.members
        })
    }

    /// A member left the record.
    pub(crate) fn left(&mut self, record: u32) {
        let node = self.node(record).and_then(|id| self.nodes.get(id));
        if let Some(group) = node.and_then(|n| self.groups.get_mut(n.group)) {
            group.members -= 1;
        }
    }

    /// The record that became soft first.
    pub(crate) fn first(&self, line: &Line) -> Option<u32> {
        self.nodes.get(line.first).map(|node| node.record)
    }

    /// The records of a line, in order.
    pub(crate) fn iter(&self, line: &Line) -> impl Iterator<Item = u32> {
        std::iter::successors(self.nodes.get(line.first), |n| self.nodes.get(n.after))
            .map(|node| node.record)
    }

    /// Takes a record out.
    pub(crate) fn remove(&mut self, line: &mut Line, record: u32) -> Heir {
        let nodes = &self.nodes;
        let id = self.by_record.remove(
            u64::from(record),
            |id| nodes.get(*id).is_some_and(|n| n.record == record),
            |id| nodes.get(*id).map_or(0, |n| u64::from(n.record)),
        );
        let Some((id, node)) = id.and_then(|id| Some((id, self.nodes.remove(id)?))) else {
            return Heir::NotListed;
        };
        match self.nodes.get_mut(node.before) {
            Some(before) => before.after = node.after,
            None => line.first = node.after,
        }
        match self.nodes.get_mut(node.after) {
            Some(after) => after.before = node.before,
            None => line.last = node.before,
        }
        line.len -= 1;
        if let Some(older) = self.nodes.get_mut(node.older) {
            older.newer = node.newer;
        }
        if let Some(newer) = self.nodes.get_mut(node.newer) {
            newer.older = node.older;
        }
        let Some(group) = self.groups.get_mut(node.group) else {
            return Heir::NotListed;
        };
        if group.newest != id {
            return Heir::NotListed;
        }
        let dead = group.dead;
        let heir = self.nodes.get(node.older).map(|n| n.record);
        match heir {
            Some(_) => group.newest = node.older,
            None => _ = self.groups.remove(node.group),
        }
        match (dead, heir) {
            (true, _) => Heir::NotListed,
            (false, None) => Heir::Nothing,
            (false, Some(record)) => Heir::Record(record),
        }
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        self.nodes.bytes() + self.by_record.bytes() + self.groups.bytes()
    }
}
