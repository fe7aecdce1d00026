//! What recent events concern: the check that a value passes before it is put away.
//!
//! A value is numbered with the last event before it was read. It may be put away unless an event after that concerns
//! it. The last event of each tag and cell is remembered in tables of fixed size that err towards refusing
//! (`crate::memory`).

use super::{Change, Data};
use crate::epoch::Epoch;
use crate::feed::{Kind, Told};
use crate::memory::Memory;

/// Tags, and cells, that are remembered exactly; 14 bytes each.
const REMEMBERED: usize = 4_096;

/// The last events, by what they concern.
#[derive(Debug)]
pub(super) struct Events {
    /// Events that concern every value that carries the tag.
    all: Memory,
    /// Events that spare MANUAL entries.
    auto: Memory,
    cells: Memory,
    /// The last event that concerns everything.
    everything: u64,
}

impl Default for Events {
    fn default() -> Self {
        Events {
            all: Memory::for_tags(REMEMBERED),
            auto: Memory::for_tags(REMEMBERED),
            cells: Memory::for_tags(REMEMBERED),
            everything: 0,
        }
    }
}

/// Cells are small numbers; the table wants 64 good bits.
pub(super) fn spread(cell: u64) -> u64 {
    (cell + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(32)
}

impl Events {
    /// Takes note of an event, and of what has to be forgotten for it.
    pub fn note(&mut self, told: &Told, changes: &mut Vec<Change>) {
        let before = told.number;
        let number = Epoch(told.number);
        match told.kind {
            Kind::Hard | Kind::Soft => {
                for digest in &told.items {
                    self.all.note(*digest, number);
                    changes.push(Change::Tag {
                        digest: *digest,
                        spares_manual: false,
                        before,
                    });
                }
            }
            Kind::Auto => {
                for digest in &told.items {
                    self.auto.note(*digest, number);
                    changes.push(Change::Tag {
                        digest: *digest,
                        spares_manual: true,
                        before,
                    });
                }
            }
            Kind::Key => {
                for cell in &told.items {
                    self.cells.note(spread(*cell), number);
                    changes.push(Change::Cell {
                        cell: *cell,
                        before,
                    });
                }
            }
            Kind::Slots => {
                // A value that was under way from a slot that is lost now: any value, for slots move rarely.
                self.everything = self.everything.max(before);
                for range in &told.items {
                    changes.push(Change::Slots {
                        first: (range >> 32) as u16,
                        last: *range as u16,
                        before,
                    });
                }
            }
            Kind::Flush | Kind::Floor => {
                self.everything = self.everything.max(before);
                changes.push(Change::Flush { before });
            }
        }
    }

    /// Whether an event after the value concerns it, or may.
    pub fn concern(&self, data: &Data, cell: u64) -> bool {
        let read = Epoch(data.number);
        let tag = |digest: &u64| {
            self.all.last(*digest).epoch > read
                || !data.manual && self.auto.last(*digest).epoch > read
        };
        self.everything > data.number
            || self.cells.last(spread(cell)).epoch > read
            || data.digests.iter().any(tag)
    }
}
