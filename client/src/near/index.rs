//! Finds the entries of the near cache that an event concerns: by tag, by cell, by slot. Exact; it grows and shrinks
//! with the entries.
//!
//! Knows keys and digests, no values. It changes in the same step as the store: see `mod.rs`.

use std::collections::{HashMap, HashSet, hash_map::Entry};
use std::sync::Arc;

use mcache_core::near::Change;

/// What a membership takes: eight bytes in the entry, and its place in the table.
const MEMBERSHIP_BYTES: usize = 48;

/// What an entry takes beside its key, its value and its memberships: rows of the index and of the store.
const ENTRY_BYTES: usize = 256;

/// How many bytes an entry counts as, from the bytes of its key and value and the number of its tags. A value counts
/// twice: its bytes, and what they are decoded to when it is shared.
pub(super) fn weight(key: usize, value: usize, tags: usize) -> u64 {
    (ENTRY_BYTES + key + 2 * value + (tags + 1) * MEMBERSHIP_BYTES) as u64
}

/// What the index knows of an entry.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) key: Arc<[u8]>,
    /// The primary it came from.
    pub(super) origin: u32,
    /// The last event before it was read.
    pub(super) number: u64,
    /// INVALIDATE AUTO spares it.
    pub(super) manual: bool,
    pub(super) cell: u64,
    pub(super) slot: u16,
    pub(super) digests: Vec<u64>,
}

/// The entries that share a tag or a cell. Mostly there is one.
#[derive(Debug)]
enum Members {
    One(u32),
    Many(HashSet<u32>),
}

/// Members by primary and digest, of tags or of cells: each primary makes digests under a hash key of its own.
type Table = HashMap<(u32, u64), Members>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Index {
    rows: Vec<Option<Row>>,
    free: Vec<u32>,
    tags: Table,
    cells: Table,
}

impl Index {
    /// The number by which the entry is known from now on, until it is removed.
    pub(super) fn add(&mut self, mut row: Row) -> u32 {
        // A tag that is named twice is one membership.
        row.digests.sort_unstable();
        row.digests.dedup();
        let id = self.free.pop().unwrap_or(self.rows.len() as u32);
        for digest in &row.digests {
            join(&mut self.tags, (row.origin, *digest), id);
        }
        join(&mut self.cells, (row.origin, row.cell), id);
        match self.rows.get_mut(id as usize) {
            Some(place) => *place = Some(row),
            None => self.rows.push(Some(row)),
        }
        id
    }

    /// Takes the entry out; `None` if it is not in the index.
    pub(super) fn remove(&mut self, id: u32) -> Option<Row> {
        let row = self.rows.get_mut(id as usize)?.take()?;
        for digest in &row.digests {
            leave(&mut self.tags, (row.origin, *digest), id);
        }
        leave(&mut self.cells, (row.origin, row.cell), id);
        self.free.push(id);
        Some(row)
    }

    /// The last event before the entry was read.
    pub(super) fn number(&self, id: u32) -> Option<u64> {
        Some(self.rows.get(id as usize)?.as_ref()?.number)
    }

    /// The entries from this primary that the change concerns.
    pub(super) fn concerned(&self, origin: u32, change: &Change) -> Vec<u32> {
        match *change {
            Change::Everything => self.scan(|row| row.origin == origin),
            Change::Flush { before } => {
                self.scan(|row| row.origin == origin && row.number < before)
            }
            Change::Slots {
                first,
                last,
                before,
            } => self.scan(|row| {
                row.origin == origin && row.number < before && (first..=last).contains(&row.slot)
            }),
            Change::Tag {
                digest,
                spares_manual,
                before,
            } => self.among(self.tags.get(&(origin, digest)), |row| {
                row.number < before && !(spares_manual && row.manual)
            }),
            Change::Cell { cell, before } => {
                self.among(self.cells.get(&(origin, cell)), |row| row.number < before)
            }
        }
    }

    fn scan(&self, concerned: impl Fn(&Row) -> bool) -> Vec<u32> {
        let rows = self.rows.iter().zip(0u32..);
        rows.filter_map(|(row, id)| row.as_ref().is_some_and(&concerned).then_some(id))
            .collect()
    }

    fn among(&self, members: Option<&Members>, concerned: impl Fn(&Row) -> bool) -> Vec<u32> {
        let is_concerned = |id: &u32| {
            let row = self.rows.get(*id as usize).and_then(Option::as_ref);
            row.is_some_and(&concerned)
        };
        match members {
            None => Vec::new(),
            Some(Members::One(id)) => Some(*id).filter(is_concerned).into_iter().collect(),
            Some(Members::Many(ids)) => ids.iter().copied().filter(is_concerned).collect(),
        }
    }

    /// How many entries there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }
}

fn join(table: &mut Table, name: (u32, u64), id: u32) {
    match table.entry(name) {
        Entry::Vacant(place) => {
            place.insert(Members::One(id));
        }
        Entry::Occupied(mut place) => match place.get_mut() {
            Members::One(other) => {
                let both = HashSet::from([*other, id]);
                place.insert(Members::Many(both));
            }
            Members::Many(ids) => {
                ids.insert(id);
            }
        },
    }
}

fn leave(table: &mut Table, name: (u32, u64), id: u32) {
    let Entry::Occupied(mut place) = table.entry(name) else {
        return;
    };
    let is_empty = match place.get_mut() {
        Members::One(other) => *other == id,
        Members::Many(ids) => {
            ids.remove(&id);
            ids.is_empty()
        }
    };
    if is_empty {
        place.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rng: &mut fastrand::Rng) -> Row {
        Row {
            key: Arc::from(rng.u64(..).to_le_bytes().as_slice()),
            origin: rng.u32(..2),
            number: rng.u64(..20),
            manual: rng.bool(),
            cell: rng.u64(..8),
            slot: rng.u16(..16),
            digests: (0..rng.usize(..5)).map(|_| rng.u64(..6)).collect(),
        }
    }

    fn change(rng: &mut fastrand::Rng) -> Change {
        let before = rng.u64(..22);
        match rng.u8(..5) {
            0 => Change::Everything,
            1 => Change::Flush { before },
            2 => Change::Slots {
                first: rng.u16(..16),
                last: rng.u16(..16),
                before,
            },
            3 => Change::Cell {
                cell: rng.u64(..8),
                before,
            },
            _ => Change::Tag {
                digest: rng.u64(..6),
                spares_manual: rng.bool(),
                before,
            },
        }
    }

    /// What the words of `Change` say, row by row.
    fn concerns(change: &Change, origin: u32, row: &Row) -> bool {
        row.origin == origin
            && match *change {
                Change::Everything => true,
                Change::Flush { before } => row.number < before,
                Change::Slots {
                    first,
                    last,
                    before,
                } => row.number < before && first <= row.slot && row.slot <= last,
                Change::Cell { cell, before } => row.number < before && row.cell == cell,
                Change::Tag {
                    digest,
                    spares_manual,
                    before,
                } => {
                    row.number < before
                        && row.digests.contains(&digest)
                        && !(spares_manual && row.manual)
                }
            }
    }

    #[test]
    fn it_finds_exactly_what_a_change_concerns_and_is_as_large_as_its_entries() {
        let seed = match std::env::var("MCACHE_SEED") {
            Ok(text) => text.parse().expect("MCACHE_SEED is a number"),
            Err(_) => fastrand::u64(..1_000_000_000),
        };
        println!("MCACHE_SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut index = Index::default();
        let mut there: HashSet<u32> = HashSet::new();
        for _ in 0..20_000 {
            match rng.u8(..3) {
                0 | 1 => {
                    assert!(there.insert(index.add(row(&mut rng))));
                }
                _ => {
                    let (origin, change) = (rng.u32(..2), change(&mut rng));
                    let found: HashSet<u32> =
                        index.concerned(origin, &change).into_iter().collect();
                    let expected = there.iter().copied().filter(|id| {
                        let row = index.rows[*id as usize].as_ref().expect("it is there");
                        concerns(&change, origin, row)
                    });
                    assert_eq!(found, expected.collect(), "{change:?}");
                    for id in found {
                        there.remove(&id);
                        assert!(index.remove(id).is_some());
                        assert!(index.remove(id).is_none());
                    }
                }
            }
            assert_eq!(index.len(), there.len());
        }
        for id in there {
            index.remove(id);
        }
        assert!(index.tags.is_empty() && index.cells.is_empty());
    }
}
