//! Reads for near caches: what the server tells them beside the value.

use super::position::Position;
use super::{Feed, marks};

/// A subscription for which values are read: known, and within its lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reader {
    subscription: u64,
    /// Until when it holds a lease.
    until_us: u64,
}

/// What a near cache needs to know of a value beside how long it lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NearData {
    /// The last event at the moment at which the value was read: events from there on may concern it, no earlier one
    /// does.
    pub number: u64,
    /// The digests of its tags.
    pub digests: Vec<u64>,
}

impl<W: Copy + Ord> Feed<W> {
    /// The subscription that a read names by any of its positions; `None` if it is unknown here, of another log, of
    /// another database or out of its lease. On a replica there is none.
    pub fn reader(&self, position: Position, db: u32, now_us: u64) -> Option<Reader> {
        if position.incarnation != self.identity.incarnation
            || position.generation != self.generation
            || self.log.is_none()
        {
            return None;
        }
        let known = self.subscriptions.get(&position.subscription)?;
        let group = self.groups.get(known.group)?;
        let may =
            known.generation == self.generation && group.db == db && known.lease_end_us > now_us;
        may.then_some(Reader {
            subscription: position.subscription,
            until_us: known.lease_end_us,
        })
    }

    /// Notes that a live value was read or stored for a near cache, and returns what the near cache is told beside it.
    /// `None` if a tag is outside the prefixes of the subscription: the near cache would not be told when that tag is
    /// invalidated. O(tags).
    pub fn give<'a>(
        &mut self,
        reader: Reader,
        key: &[u8],
        tags: impl Iterator<Item = &'a [u8]>,
        now_us: u64,
    ) -> Option<NearData> {
        self.tell_who_left();
        // If the read was parked, the lease may be over by now.
        let known = self.subscriptions.get(&reader.subscription)?;
        if known.lease_end_us.max(reader.until_us) <= now_us || known.generation != self.generation
        {
            return None;
        }
        let prefixes = &self.groups.get(known.group)?.prefixes;
        let hash_key = &self.identity.hash_key;
        let digests = tags
            .map(|tag| prefixes.cover(tag).then(|| hash_key.digest(tag)))
            .collect::<Option<Vec<u64>>>()?;
        let number = self.log.as_ref()?.end();
        self.marks.as_mut()?.set(marks::cell(hash_key.digest(key)));
        self.stats.near_reads += 1;
        Some(NearData { number, digests })
    }
}
