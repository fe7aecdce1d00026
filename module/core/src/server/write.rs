//! SET: whether it stores, and the cheapest way of storing that keeps the index exact.

use super::{Condition, Edge, Server};
use crate::command::{OnlyIf, Set};
use crate::entry::{Attributes, Entry, NEVER, UNLINKED};
use crate::fills::Refusal;

/// What a SET stores, once it is decided that it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// What the entry is made with.
    pub attributes: Attributes,
    /// When its key expires, in milliseconds since 1970.
    pub deadline_ms: Option<u64>,
}

/// An entry to be stored under a key.
pub struct Store<'a, T> {
    /// The database.
    pub db: usize,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The tags, in any order; one that is given twice counts once.
    pub tags: T,
    /// Birth, flags and SWR window.
    pub attributes: Attributes,
    /// What the key holds now.
    pub present: Option<Entry>,
}

/// What is left to do in the keyspace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Stored {
    /// Nothing: the value was put into the memory of the one before.
    InPlace,
    /// The key is to hold this entry; it held none.
    New(Entry),
    /// The key is to hold this entry in the place of the present one, which is to be freed.
    Replaced(Entry),
}

impl<W> Server<W> {
    /// CLEAR: a fill of the key that is under way is refused, and near caches forget it, whether or not it is there.
    pub fn clear(&mut self, key: &[u8], now_ms: u64) {
        self.fills.note_key(key, now_ms);
        self.feed.key_changed(key, true);
    }

    /// Decides whether a SET stores, without changing anything but the counters; `None` if it does not.
    pub fn admit<'a>(
        &mut self,
        set: &Set,
        key: &[u8],
        tags: impl Iterator<Item = &'a [u8]>,
        mut present: Option<Entry>,
        now_ms: u64,
    ) -> Option<Admitted> {
        // Live is what GET would serve.
        let live = present
            .as_mut()
            .is_some_and(|entry| self.condition(entry, || now_ms) == Condition::Live);
        let allowed = match set.only_if {
            OnlyIf::Always => true,
            OnlyIf::Absent => !live,
            OnlyIf::Present => live,
        };
        if !allowed {
            return None;
        }
        // Cleared since the fill began.
        if (set.token).is_some_and(|token| self.fills.key_cleared_since(key, token)) {
            self.stats.refused_fills += 1;
            return None;
        }
        let floor = self.index.floor();
        let birth = match self.fills.birth(set.token, tags, set.manual, floor, now_ms) {
            Ok(birth) => birth,
            Err(refusal) => {
                self.stats.refused_fills += 1;
                self.stats.refused_fills_in_doubt += u64::from(refusal == Refusal::InDoubt);
                return None;
            }
        };
        self.stats.fills += 1;
        let deadline_ms = set
            .ttl_ms
            .map(|ttl_ms| now_ms + ttl_ms + u64::from(set.swr_ms));
        let attributes = Attributes {
            birth,
            manual: set.manual,
            swr_ms: set.swr_ms,
            softened: false,
            ends_ms: deadline_ms.map_or(NEVER, |ms| ms.min(NEVER)),
        };
        Some(Admitted {
            attributes,
            deadline_ms,
        })
    }

    /// What is to be stored of an entry that a primary stored, that stands in an append-only file, or that comes with
    /// its slot: what it says, or a husk (`None`). Nothing at all would not do: RENAME, COPY and SET XX, which may
    /// follow in the file, must find the key, and the replicas of a server that slots move to get the same entry from
    /// the same stream.
    pub fn admit_replicated<'a>(
        &mut self,
        attributes: Attributes,
        tags: impl Iterator<Item = &'a [u8]>,
        drop_on_restart: bool,
        edge: &impl Edge,
    ) -> Option<Attributes> {
        let Attributes { birth, manual, .. } = attributes;
        if self.drops_what_it_loads(drop_on_restart) || !self.credible(birth, edge) {
            return None;
        }
        self.fills.observe(birth);
        // A primary executes what others replicate only while slots move to it.
        let comes_with_its_slot = !self.loading && edge.is_primary();
        let invalidated_here = comes_with_its_slot
            && (birth < self.index.floor()
                || (self.fills).may_have_been_invalidated_here(birth, manual, tags));
        (!invalidated_here).then_some(attributes)
    }

    /// Puts a value into the index: into the same memory, into a new entry in the same place of the index, or into a
    /// new entry with its own place. The keyspace must follow at once, as the result says.
    pub fn store<'a>(&mut self, store: Store<'_, impl Iterator<Item = &'a [u8]>>) -> Stored {
        let Store {
            db,
            key,
            value,
            tags,
            attributes,
            present,
        } = store;
        self.feed.key_changed(key, false);
        let index = &mut self.index;
        let listed = present.filter(|old| index.lists(db, old.id(), *old));
        let mut records = index.take_room();
        index.resolve_like(db, tags, attributes.manual, listed, &mut records);
        let entry = |records: &[u32]| Entry::new(key, value, attributes, records);
        let stored = match (present, listed) {
            (None, _) => {
                let new = entry(&records);
                index.link(db, new);
                Stored::New(new)
            }
            (Some(mut old), None) => {
                // The number that it had was another index's.
                old.set_id(UNLINKED);
                let new = entry(&records);
                index.link(db, new);
                Stored::Replaced(new)
            }
            (Some(mut old), Some(_)) => {
                let before = old.value().len();
                if old.tags() == &records[..]
                    && old.is_manual() == attributes.manual
                    // One that is dead from the start goes in as new, which hands it to reclaim.
                    && attributes.birth >= index.floor()
                    && old.overwrite(value, attributes)
                {
                    index.resized(db, before, value.len());
                    Stored::InPlace
                } else {
                    let new = entry(&records);
                    index.replace(db, old, new);
                    Stored::Replaced(new)
                }
            }
        };
        index.keep_room(records);
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::{Clock, Epoch};
    use crate::fills::{Fills, MAX_SKEW_MS};
    use crate::index::Scope;
    use crate::server::Awaited;

    const NOW_MS: u64 = 1_000_000;

    struct Role {
        is_primary: bool,
    }

    impl Edge for Role {
        fn now_ms(&self) -> u64 {
            // Later by more than clocks may be apart: an entry from the future is not believed.
            NOW_MS + 2 * MAX_SKEW_MS
        }
        fn random(&self) -> u64 {
            0
        }
        fn is_primary(&self) -> bool {
            self.is_primary
        }
    }

    fn at(unix_ms: u64) -> Epoch {
        Clock::new(unix_ms).now()
    }

    fn born(epoch: Epoch) -> Attributes {
        Attributes {
            birth: epoch,
            ends_ms: NEVER,
            ..Attributes::HUSK
        }
    }

    /// A server that has just heard of an invalidation of `t`, and when that was.
    fn server() -> (Server<u32>, Epoch) {
        let mut server = Server::new(Fills::new(7, NOW_MS - 60_000, 64), Awaited::kept());
        let tag = || std::iter::once(&b"t"[..]);
        let invalidated = server.invalidate(0, tag(), Scope::Auto, false, 10, NOW_MS);
        (server, invalidated.epoch)
    }

    fn is_stored(
        server: &mut Server<u32>,
        attributes: Attributes,
        tag: &[u8],
        is_primary: bool,
    ) -> bool {
        let role = Role { is_primary };
        server
            .admit_replicated(attributes, std::iter::once(tag), true, &role)
            .is_some()
    }

    #[test]
    fn an_entry_that_comes_with_its_slot_is_dead_if_it_was_invalidated_here() {
        let (mut server, epoch) = server();
        let before = born(at(NOW_MS - 30_000));
        let in_doubt = born(at(epoch.unix_ms() + MAX_SKEW_MS));
        let after = born(at(epoch.unix_ms() + MAX_SKEW_MS + 1));
        let manual = Attributes {
            manual: true,
            ..before
        };
        for (attributes, tag, expected) in [
            (before, &b"t"[..], false),
            (in_doubt, b"t", false),
            (after, b"t", true),
            (before, b"u", true),
            // AUTO spares it.
            (manual, b"t", true),
        ] {
            assert_eq!(
                is_stored(&mut server, attributes, tag, true),
                expected,
                "{attributes:?}"
            );
            // A replica takes what its primary took.
            let stored = is_stored(&mut server, attributes, tag, false);
            assert!(stored, "{attributes:?}");
        }
    }

    #[test]
    fn an_entry_that_is_dead_from_the_start_is_handed_to_reclaim_also_over_one_that_lives() {
        let (mut server, _) = server();
        let store = |server: &mut Server<u32>, attributes, present| {
            server.store(Store {
                db: 0,
                key: b"k",
                value: b"",
                tags: std::iter::empty(),
                attributes,
                present,
            })
        };
        let Stored::New(alive) = store(&mut server, born(at(NOW_MS)), None) else {
            panic!("there was none");
        };
        assert!(!server.index.has_pending());
        let Stored::Replaced(husk) = store(&mut server, Attributes::HUSK, Some(alive)) else {
            panic!("nothing tells reclaim of what is overwritten in place");
        };
        assert!(server.index.has_pending());
        server.left(0, husk);
        assert_eq!(server.index.next_task(), None);
        let Stored::New(first) = store(&mut server, Attributes::HUSK, None) else {
            panic!("there is none");
        };
        let task = crate::index::Task::Delete {
            db: 0,
            entry: first,
        };
        assert_eq!(server.index.next_task(), Some(task));
        server.left(0, first);
        Entry::free_all([alive, husk, first]);
    }
}
