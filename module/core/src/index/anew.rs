//! After a bug. A change that a panic ended half-way may have left an entry in some of its tags, an id in a record that
//! has none, a tag in two tables: what is left cannot be walked, and so not mended. It is forgotten, as one piece.
//!
//! The keyspace then holds entries that no index names. They were born before the new floor, so they are dead: what
//! they point to does not count. Their numbers and records are not believed: an entry is in the index if the index has
//! its pointer ([`Index::lists`]).

use super::Index;
use super::dbs::Dbs;
use crate::epoch::Epoch;

impl Index {
    /// Forgets every entry and every tag, without looking at any. Until [`Index::set_new_floor`] tells the floor,
    /// everything is dead. Frees what it forgets in one step.
    pub(crate) fn begin_anew(&mut self) {
        let mut fresh = Index::with_key(self.tags.key());
        fresh.floor = Epoch::END;
        fresh.listed = std::mem::take(&mut self.listed);
        fresh.listed.moved_all();
        // What goes on arriving beside must not arrive among what is served.
        fresh.staging = self.staging.is_some().then(Dbs::default);
        *self = fresh;
    }

    /// The floor of an index that began anew: above every birth so far.
    pub(crate) fn set_new_floor(&mut self, floor: Epoch) {
        self.floor = floor;
    }

    /// Whether a second data set is being loaded beside the one that is served.
    pub(crate) fn is_staging(&self) -> bool {
        self.staging.is_some()
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use crate::entry::{Attributes, Entry, NEVER};

    #[test]
    fn what_arrives_beside_while_the_index_begins_anew_is_not_served() {
        let mut index = Index::new();
        let arriving = |index: &mut Index, key: &[u8]| {
            let attributes = Attributes {
                birth: Epoch(5),
                ends_ms: NEVER,
                ..Attributes::HUSK
            };
            let entry = Entry::new(key, b"v", attributes, &[0]);
            index.adopt(0, entry, std::iter::once(&b"t"[..]), true);
            entry
        };
        index.begin_staging();
        let before = arriving(&mut index, b"before");
        index.begin_anew();
        index.set_new_floor(Epoch(4));
        let after = arriving(&mut index, b"after");
        assert_eq!(index.sizes().entries, 0);
        assert!(!index.lists(0, before.id(), before));
        // The transfer breaks off: Redis frees both, and the index must name neither.
        index.abort_staging();
        assert!(!index.lists(0, after.id(), after));
        Entry::free_all([before, after]);
    }
}
