//! Marks: which keys near caches may hold, by cells of a fixed table.
//!
//! A key that was given to a near cache marks its cell. A change under a key of a marked cell is told, as the cell,
//! and clears it: near caches then forget every key of that cell. The mark does not live in the entry, so it outlives
//! eviction, expiry and reclaim; two keys that share a cell only make for an event too many.

/// Cells are numbered by so many low bits of a key's digest.
pub const CELL_BITS: u32 = 20;

/// One bit a cell: 128 KiB.
pub(super) struct Marks(Box<[u64]>);

impl Marks {
    pub fn new() -> Self {
        Marks(vec![0; (1 << CELL_BITS) / 64].into())
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.0.len() * 8
    }

    /// Notes that a key of this cell was given away.
    pub fn set(&mut self, cell: u64) {
        self.0[(cell / 64) as usize] |= 1 << (cell % 64);
    }

    /// Takes the mark away; whether there was one.
    pub fn clear(&mut self, cell: u64) -> bool {
        let word = &mut self.0[(cell / 64) as usize];
        let bit = 1 << (cell % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }
}

/// The cell of a key with this digest.
pub fn cell(digest: u64) -> u64 {
    digest & ((1 << CELL_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_told_once() {
        let mut marks = Marks::new();
        assert_eq!(marks.bytes(), 128 * 1024);
        for digest in [0, 63, 64, u64::MAX] {
            let cell = cell(digest);
            assert!(!marks.clear(cell));
            marks.set(cell);
            marks.set(cell);
            assert!(marks.clear(cell) && !marks.clear(cell));
        }
    }
}
