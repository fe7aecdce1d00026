//! Which keys have large values, as far as it is remembered: their commands travel on a connection of their own.
//!
//! A fixed table by hash of the key. A wrong answer costs a connection, nothing else.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// From so many bytes on a value is large: on its way it keeps others waiting longer than their own command takes.
pub(super) const LARGE_BYTES: usize = 64 * 1024;

const CELLS: usize = 1024;

/// The part of a cell that tells keys apart; the rest is the size in KiB.
const MARK: u64 = !0 << 32;

pub(super) struct Large {
    hasher: RandomState,
    cells: Box<[AtomicU64]>,
    /// Whether any cell was ever used: most caches have no large values.
    used: AtomicU64,
}

impl Default for Large {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            cells: (0..CELLS).map(|_| AtomicU64::new(0)).collect(),
            used: AtomicU64::new(0),
        }
    }
}

impl Large {
    /// The size of the key's value when it was last seen; zero: not large, or not known.
    pub(super) fn bytes_of(&self, key: &[u8]) -> usize {
        if self.used.load(Relaxed) == 0 {
            return 0;
        }
        let (cell, mark) = self.cell(key);
        match cell.load(Relaxed) {
            seen if seen & MARK == mark => ((seen & !MARK) as usize) << 10,
            _ => 0,
        }
    }

    /// The key's value has this size.
    pub(super) fn note(&self, key: &[u8], bytes: usize) {
        match bytes < LARGE_BYTES {
            true => {
                if self.bytes_of(key) > 0 {
                    self.cell(key).0.store(0, Relaxed);
                }
            }
            false => {
                let (cell, mark) = self.cell(key);
                let kibibytes = u64::try_from(bytes >> 10).unwrap_or(u64::MAX).min(!MARK);
                cell.store(mark | kibibytes, Relaxed);
                self.used.store(1, Relaxed);
            }
        }
    }

    fn cell(&self, key: &[u8]) -> (&AtomicU64, u64) {
        let hash = self.hasher.hash_one(key);
        (&self.cells[hash as usize % CELLS], hash & MARK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_value_is_remembered_until_it_is_seen_small() {
        let large = Large::default();
        assert_eq!(large.bytes_of(b"k"), 0);
        large.note(b"k", LARGE_BYTES - 1);
        assert_eq!(large.bytes_of(b"k"), 0);
        large.note(b"k", 48 << 20);
        assert_eq!(large.bytes_of(b"k"), 48 << 20);
        assert_eq!(large.bytes_of(b"other"), 0);
        large.note(b"k", 10);
        assert_eq!(large.bytes_of(b"k"), 0);
        large.note(b"k", usize::MAX);
        assert!(large.bytes_of(b"k") >= LARGE_BYTES);
    }
}
