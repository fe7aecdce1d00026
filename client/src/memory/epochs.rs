//! When each tag was last invalidated, in bounded memory.
//!
//! A fill may be under way for a tag that no entry carries any more, so invalidations are remembered after the
//! last member is gone. A fixed table by tag hash does that without growing: tags that share a cell share the
//! later of their invalidations, which can only refuse a fill that was good, never accept one that was not.

use std::hash::{BuildHasher, RandomState};

use crate::provider::Mode;

const CELLS: usize = 4096;

/// Last invalidations by tag hash.
pub(super) struct Invalidations {
    hasher: RandomState,
    cells: Box<[Cell]>,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    /// Of any mode.
    any: u64,
    /// Of the modes that do not spare manual entries.
    unsparing: u64,
}

impl Invalidations {
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            cells: vec![Cell::default(); CELLS].into(),
        }
    }

    /// Remembers that the tag was invalidated at this epoch.
    pub(super) fn record(&mut self, tag: &[u8], epoch: u64, mode: Mode) {
        let index = self.index(tag);
        let cell = &mut self.cells[index];
        cell.any = cell.any.max(epoch);
        if !mode.is_auto() {
            cell.unsparing = cell.unsparing.max(epoch);
        }
    }

    /// The last epoch at which an entry with this tag may have been invalidated.
    pub(super) fn last(&self, tag: &[u8], manual: bool) -> u64 {
        let cell = self.cells[self.index(tag)];
        if manual { cell.unsparing } else { cell.any }
    }

    fn index(&self, tag: &[u8]) -> usize {
        self.hasher.hash_one(tag) as usize % CELLS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_entry_remembers_only_what_does_not_spare_it() {
        let mut last = Invalidations::new();
        last.record(b"t", 5, Mode::Hard);
        last.record(b"t", 7, Mode::Auto);
        assert_eq!((last.last(b"t", true), last.last(b"t", false)), (5, 7));
        last.record(b"t", 6, Mode::Soft);
        assert_eq!((last.last(b"t", true), last.last(b"t", false)), (6, 7));
    }
}
