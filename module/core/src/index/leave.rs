//! Entries that leave or move without a word for each: what a server does to whole slots, and to memory.

use std::ops::RangeInclusive;

use super::Index;
use crate::entry::Entry;
use crate::slots::{SLOTS, slot};

impl Index {
    /// The allocator moved an entry: what stood at `old` stands at `new` now. False if the index does not hold it,
    /// which is so between its last moment in the keyspace and its end.
    pub fn moved(&mut self, db: usize, old: Entry, new: Entry) -> bool {
        let home = self.dbs.get_mut(db);
        let held = home.and_then(|home| home.entries.get_mut(new.id()));
        match held {
            Some(held) if *held == old => {
                *held = new;
                true
            }
            _ => false,
        }
    }

    /// Takes out every entry of these slots, in all databases: they are about to be freed without a word for each.
    /// O(entries).
    pub fn forget_slots(&mut self, slots: impl IntoIterator<Item = RangeInclusive<u16>>) {
        let mut gone = vec![false; usize::from(SLOTS)];
        for slot in slots.into_iter().flatten() {
            if let Some(gone) = gone.get_mut(usize::from(slot)) {
                *gone = true;
            }
        }
        for db in 0..self.dbs.len() {
            let bound = self.dbs.get(db).map_or(0, |home| home.entries.bound());
            for id in 0..bound {
                let home = self.dbs.get(db);
                let entry = home.and_then(|home| home.entries.get(id)).copied();
                if let Some(entry) = entry.filter(|entry| gone[usize::from(slot(entry.key()))]) {
                    self.unlink(db, entry);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Attributes, NEVER};
    use crate::epoch::Epoch;
    use crate::index::Scope;

    const BORN: Attributes = Attributes {
        birth: Epoch(9),
        manual: false,
        swr_ms: 0,
        softened: false,
        ends_ms: NEVER,
    };

    fn link(index: &mut Index, key: &[u8], tag: &[u8]) -> Entry {
        let entry = Entry::new(key, b"v", BORN, &[0]);
        index.adopt(0, entry, std::iter::once(tag), false);
        entry
    }

    fn count(index: &Index, tag: &[u8]) -> usize {
        index.count(0, std::iter::once(tag), Scope::All)
    }

    #[test]
    fn slots_that_go_take_their_entries_out_of_every_tag() {
        let mut index = Index::new();
        let keys: Vec<Vec<u8>> = (0..64).map(|n| format!("k{n}").into_bytes()).collect();
        let entries: Vec<Entry> = keys.iter().map(|key| link(&mut index, key, b"t")).collect();
        let gone = |key: &[u8]| (4_000..=11_999).contains(&slot(key));
        let going = keys.iter().filter(|key| gone(key)).count();
        assert!(
            (10..54).contains(&going),
            "{going} of 64 keys are in half of the slots"
        );
        index.forget_slots([4_000..=7_999, 8_000..=11_999]);
        assert_eq!(count(&index, b"t"), 64 - going);
        for (key, entry) in keys.iter().zip(&entries) {
            assert_eq!(entry.is_linked(), !gone(key));
        }
        index.forget_slots([0..=SLOTS - 1]);
        assert_eq!(count(&index, b"t"), 0);
        index.settle();
        assert_eq!(index.sizes().tags, 0);
        Entry::free_all(entries);
    }

    #[test]
    fn an_entry_that_was_moved_in_memory_is_found_under_its_tags() {
        let mut index = Index::new();
        let old = link(&mut index, b"k", b"t");
        let mut new = Entry::new(b"k", b"v", BORN, old.tags());
        new.set_id(old.id());
        new.set_position(0, old.position(0));
        assert!(index.moved(0, old, new));
        assert!(!index.moved(0, old, new), "it is not there any more");
        assert!(!index.moved(1, new, old), "nor in another database");
        assert_eq!(
            index.carriers(0, std::iter::once(&b"t"[..]), Scope::All),
            [new]
        );
        index.unlink(0, new);
        assert_eq!(count(&index, b"t"), 0);
        Entry::free_all([old, new]);
    }
}
