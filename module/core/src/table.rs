//! A hash table that grows and shrinks one shard at a time: no operation pays for moving a million of anything.
//!
//! Linear hashing: values are spread over shards of about [`LOAD`] by the lower bits of their hash. When the average
//! exceeds that, one shard is divided in two; when there are too many shards, the last one goes back into the one it
//! came from. So the most that one insertion or removal moves is one shard.
//!
//! Values are small and their hashes are asked of the caller, who has what the values stand for.

use hashbrown::HashTable;

use crate::alloc::{class, shrink};
use crate::work;

/// Values in a shard on average. Between one division and the next it holds up to twice as many, which still fits into
/// a table of 512 places.
const LOAD: usize = 192;
/// With fewer in a shard, the last one goes back into another.
const UNITED: usize = LOAD * 3 / 4;
/// Shards allocated together: the directory, too, grows in pieces.
const BLOCK: usize = 16;

/// Bytes that a table of small numbers takes for each, on average: a place and a control byte, half of the places in
/// use.
pub(crate) const SLOT: usize = 11;

pub(crate) struct Table<T> {
    blocks: Vec<Vec<HashTable<T>>>,
    shards: usize,
    /// The least `2^n - 1` that is not below the last shard's number.
    mask: u64,
    len: usize,
    /// Bytes of the shards themselves.
    bytes: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table::new()
    }
}

/// Bytes allocated for a shard.
fn size<T>(table: &HashTable<T>) -> usize {
    class(table.allocation_size())
}

/// The hash within a shard, whose lower bits must not be those that chose the shard.
#[inline]
fn inner(hash: u64) -> u64 {
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Table {
            blocks: Vec::new(),
            shards: 0,
            mask: 0,
            len: 0,
            bytes: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
            + class(self.blocks.capacity() * size_of::<Vec<HashTable<T>>>())
            + self.blocks.len() * class(BLOCK * size_of::<HashTable<T>>())
    }

    #[inline]
    fn shard(&self, hash: u64) -> usize {
        let at = (hash & self.mask) as usize;
        if at < self.shards {
            at
        } else {
            at & (self.mask >> 1) as usize
        }
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, mut eq: impl FnMut(&T) -> bool) -> Option<&T> {
        let at = self.shard(hash);
        let table = self.blocks.get(at / BLOCK)?.get(at % BLOCK)?;
        table.find(inner(hash), |value| {
            work::step(1);
            eq(value)
        })
    }

    /// [`Table::find`], for a caller that puts a value of the same hash in its place.
    pub(crate) fn find_mut(&mut self, hash: u64, mut eq: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let at = self.shard(hash);
        let table = self.blocks.get_mut(at / BLOCK)?.get_mut(at % BLOCK)?;
        table.find_mut(inner(hash), |value| {
            work::step(1);
            eq(value)
        })
    }

    /// Looks where a value would be, and compares nothing: something of the memory that [`Table::find`] is about to
    /// read. Of several hashes in a row the processor waits for their memory at the same time.
    #[inline]
    pub(crate) fn touch(&self, hash: u64) -> Option<&T> {
        let at = self.shard(hash);
        let table = self.blocks.get(at / BLOCK)?.get(at % BLOCK)?;
        table.find(inner(hash), |_| true)
    }

    /// Adds a value; an equal one may be there.
    pub(crate) fn insert(&mut self, hash: u64, value: T, rehash: impl Fn(&T) -> u64) {
        if self.shards == 0 {
            self.push_shard(HashTable::new());
        }
        let at = self.shard(hash);
        let table = &mut self.blocks[at / BLOCK][at % BLOCK];
        let again = |value: &T| {
            work::step(1);
            inner(rehash(value))
        };
        if table.len() == table.capacity() {
            let before = size(table);
            table.reserve(1, again);
            self.bytes = self.bytes + size(table) - before;
        }
        table.insert_unique(inner(hash), value, again);
        self.len += 1;
        if self.len > self.shards * LOAD {
            self.divide(rehash);
        }
    }

    fn push_shard(&mut self, table: HashTable<T>) {
        if self.shards.is_multiple_of(BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        if let Some(block) = self.blocks.last_mut() {
            block.push(table);
        }
        if self.shards as u64 > self.mask {
            self.mask = self.mask << 1 | 1;
        }
        self.shards += 1;
    }

    fn pop_shard(&mut self) -> Option<HashTable<T>> {
        let table = self.blocks.last_mut()?.pop();
        self.shards -= 1;
        if self.shards.is_multiple_of(BLOCK) {
            self.blocks.pop();
            shrink(&mut self.blocks);
        }
        if self.shards as u64 <= (self.mask >> 1) + 1 {
            self.mask >>= 1;
        }
        table
    }

    #[cold]
    fn divide(&mut self, rehash: impl Fn(&T) -> u64) {
        let number = self.shards as u64;
        let mask = if number > self.mask {
            self.mask << 1 | 1
        } else {
            self.mask
        };
        let from = (number & (mask >> 1)) as usize;
        let old = &mut self.blocks[from / BLOCK][from % BLOCK];
        work::step(old.len());
        let before = size(old);
        let again = |value: &T| inner(rehash(value));
        // Of the right size from the start, and the old one keeps its own: it will need it again.
        let mut new = HashTable::with_capacity(old.len() / 2);
        for value in old.extract_if(|value| rehash(value) & mask == number) {
            let hash = again(&value);
            new.insert_unique(hash, value, again);
        }
        self.bytes = self.bytes + size(old) + size(&new) - before;
        self.push_shard(new);
    }

    #[cold]
    fn unite(&mut self, rehash: impl Fn(&T) -> u64) {
        let into = ((self.shards as u64 - 1) & (self.mask >> 1)) as usize;
        let Some(last) = self.pop_shard() else { return };
        work::step(last.len());
        let freed = size(&last);
        let table = &mut self.blocks[into / BLOCK][into % BLOCK];
        let before = size(table);
        let again = |value: &T| inner(rehash(value));
        table.reserve(last.len(), again);
        for value in last {
            let hash = again(&value);
            table.insert_unique(hash, value, again);
        }
        self.bytes = self.bytes + size(table) - before - freed;
    }

    /// Takes one value out.
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        mut eq: impl FnMut(&T) -> bool,
        rehash: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let at = self.shard(hash);
        let table = self.blocks.get_mut(at / BLOCK)?.get_mut(at % BLOCK)?;
        let found = table.find_entry(inner(hash), |value| {
            work::step(1);
            eq(value)
        });
        let (value, _) = found.ok()?.remove();
        self.len -= 1;
        if self.len == 0 {
            *self = Table::new();
            return Some(value);
        }
        if table.len() * 3 < table.capacity() {
            let before = size(table);
            table.shrink_to(table.len() * 3 / 2, |value| {
                work::step(1);
                inner(rehash(value))
            });
            self.bytes = self.bytes + size(table) - before;
        }
        if self.len < (self.shards - 1) * UNITED {
            self.unite(rehash);
        }
        Some(value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten().flat_map(HashTable::iter)
    }

    /// Takes a whole shard away, for a caller that takes the table apart a piece at a time and looks nothing up any
    /// more.
    pub(crate) fn tear_off(&mut self) -> Option<HashTable<T>> {
        let shard = self.pop_shard()?;
        self.len -= shard.len();
        self.bytes -= size(&shard);
        if self.shards == 0 {
            *self = Table::new();
        }
        Some(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn hash(value: &u32) -> u64 {
        u64::from(*value).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 20
    }

    /// As a set does, growing to a hundred thousand and back; no step moves more than a shard.
    #[test]
    fn behaves_like_a_set_and_no_step_is_long() {
        let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
        let mut table = Table::new();
        let mut model = HashSet::new();
        for step in 0..300_000u32 {
            let grow = if step < 150_000 { 230 } else { 30 };
            let value = rng.u32(..200_000);
            let (steps, ()) = work::of(|| {
                if rng.u8(..) < grow {
                    if model.insert(value) {
                        table.insert(hash(&value), value, hash);
                    }
                } else {
                    let removed = table.remove(hash(&value), |v| *v == value, hash);
                    assert_eq!(removed.is_some(), model.remove(&value));
                }
            });
            assert!(steps < 3 * 512, "{steps} steps at {} values", table.len());
            assert_eq!(table.len(), model.len());
            let other = rng.u32(..200_000);
            let found = table.find(hash(&other), |v| *v == other);
            assert_eq!(found.is_some(), model.contains(&other));
        }
        assert_eq!(table.iter().copied().collect::<HashSet<_>>(), model);
        let mut torn = HashSet::new();
        while let Some(shard) = table.tear_off() {
            assert!(shard.len() < 512);
            torn.extend(shard);
        }
        assert_eq!((torn, table.len(), table.bytes()), (model, 0, 0));
    }

    #[test]
    fn looking_up_takes_as_many_comparisons_in_a_million_as_in_a_thousand() {
        let steps = |size: u32| {
            let mut table = Table::new();
            (0..size).for_each(|value| table.insert(hash(&value), value, hash));
            work::of(|| {
                (size..size + 10_000)
                    .for_each(|v| assert!(table.find(hash(&v), |o| *o == v).is_none()))
            })
            .0
        };
        let (few, many) = (steps(1_000), steps(1_000_000));
        assert!(many <= few * 3 / 2 + 1_000, "{many} beside {few}");
    }
}
