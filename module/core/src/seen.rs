//! The record ids of one command that were seen already: how a tag that is given twice is found.

use crate::tags::Tags;
use crate::work;

/// No id.
const FREE: u32 = u32::MAX;

/// A set of record ids, made for one command and thrown away: a table with room for twice as many as are expected, in
/// which one looks from where an id belongs to the next free place.
pub(crate) struct Seen {
    places: Vec<u32>,
    /// The upper bits of a spread id that say where it belongs.
    shift: u32,
    len: usize,
}

impl Seen {
    /// Room for about so many.
    pub(crate) fn new(expected: usize) -> Self {
        let places = (2 * expected).next_power_of_two().max(64);
        Seen {
            places: vec![FREE; places],
            shift: 64 - places.ilog2(),
            len: 0,
        }
    }

    /// Adds an id; false if it was there.
    #[inline]
    pub(crate) fn insert(&mut self, tags: &Tags, record: u32) -> bool {
        let mask = self.places.len() - 1;
        let mut at = (tags.spread(record) >> self.shift) as usize;
        loop {
            work::step(1);
            match self.places[at & mask] {
                FREE => break,
                other if other == record => return false,
                _ => at += 1,
            }
        }
        self.places[at & mask] = record;
        self.len += 1;
        if self.len * 2 > self.places.len() {
            self.grow(tags);
        }
        true
    }

    #[cold]
    fn grow(&mut self, tags: &Tags) {
        let mut larger = Seen::new(self.places.len());
        for record in self.places.iter().filter(|id| **id != FREE) {
            larger.insert(tags, *record);
        }
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Key;
    use std::collections::HashSet;

    #[test]
    fn tells_what_is_there_however_many_were_expected() {
        let seed = crate::seed::seed();
        let mut rng = fastrand::Rng::with_seed(seed);
        for expected in [0, 10, 600, 5_000] {
            let tags = Tags::new(Key::new([rng.u64(..), rng.u64(..)]));
            let (mut seen, mut model) = (Seen::new(expected), HashSet::new());
            for _ in 0..5_000 {
                let record = rng.u32(..3_000);
                assert_eq!(seen.insert(&tags, record), model.insert(record));
            }
        }
    }

    /// Ids that are apart by any fixed distance, of which an attacker may have thought: a few looks each.
    #[test]
    fn no_distance_between_ids_makes_it_slow() {
        let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
        for power in 0..20 {
            let tags = Tags::new(Key::new([rng.u64(..), rng.u64(..)]));
            let mut seen = Seen::new(1_000);
            let insert = || (0..1_000).for_each(|n| _ = seen.insert(&tags, n << power));
            let (steps, ()) = work::of(insert);
            assert!(steps < 20_000, "{steps} steps, 2^{power} apart");
        }
    }
}
