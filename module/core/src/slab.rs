//! A chunked slab: stable `u32` ids for values, without growth spikes.
//!
//! A plain `Vec` doubles by copying everything it holds, which at a million entries holds the server for
//! milliseconds. Here a chunk of 1,024 slots is allocated when the previous ones are full and freed when its last
//! slot empties, so every operation is O(1) in the worst case and memory goes back to the allocator.

use crate::alloc::class;
use crate::work;

/// Slots in a chunk.
const CHUNK: usize = 1024;
/// 64-bit words of a chunk's bitmap of free slots.
const WORDS: usize = CHUNK / 64;

/// `Option<T>` and a bitmap instead of a free list inside the slots: a pointer costs 8 bytes here, not 16.
struct Chunk<T> {
    slots: Box<[Option<T>]>,
    free: [u64; WORDS],
    live: u16,
}

impl<T> Chunk<T> {
    fn new() -> Self {
        Chunk {
            slots: (0..CHUNK).map(|_| None).collect(),
            free: [u64::MAX; WORDS],
            live: 0,
        }
    }

    fn is_full(&self) -> bool {
        usize::from(self.live) == CHUNK
    }

    /// The lowest free slot, marked as used.
    fn take_free(&mut self) -> Option<usize> {
        let word = self.free.iter().position(|w| *w != 0)?;
        let bit = self.free[word].trailing_zeros() as usize;
        self.free[word] &= !(1 << bit);
        self.live += 1;
        Some(word * 64 + bit)
    }

    fn give_back(&mut self, slot: usize) {
        self.free[slot / 64] |= 1 << (slot % 64);
        self.live -= 1;
    }
}

/// What a search for the next id in use found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// This one.
    Id(u32),
    /// Nothing yet: go on at this one.
    Later(u32),
    /// Nothing more.
    End,
}

/// Values under stable ids below 2^31.
pub(crate) struct Slab<T> {
    chunks: Vec<Option<Chunk<T>>>,
    /// Chunks with at least one free slot, allocated or not; each at most once.
    open: Vec<u32>,
    len: usize,
    /// Chunks that are allocated.
    full: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab::new()
    }
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Slab {
            chunks: Vec::new(),
            open: Vec::new(),
            len: 0,
            full: 0,
        }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// One past the highest id that can be in use.
    pub(crate) fn bound(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    /// Bytes allocated by the slab itself. O(1).
    pub(crate) fn bytes(&self) -> usize {
        self.full * class(CHUNK * size_of::<Option<T>>())
            + class(self.chunks.capacity() * size_of::<Option<Chunk<T>>>())
            + class(self.open.capacity() * 4)
    }

    /// Frees one chunk with all that is in it, for a caller that takes the slab apart and looks nothing up any more;
    /// true while there are more.
    pub(crate) fn shed(&mut self) -> bool {
        if let Some(Some(chunk)) = self.chunks.pop() {
            self.len -= usize::from(chunk.live);
            self.full -= 1;
        }
        if self.chunks.is_empty() {
            *self = Slab::new();
        }
        !self.chunks.is_empty()
    }

    /// Stores a value and returns its id.
    ///
    /// # Panics
    /// When 2^31 values are stored: memory ends long before (the payloads alone would be terabytes).
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let at = match self.open.last() {
            Some(&at) => at as usize,
            None => {
                let at = self.chunks.len();
                assert!(at < (1 << 31) / CHUNK, "slab full");
                self.chunks.push(None);
                self.open.push(at as u32);
                at
            }
        };
        self.full += usize::from(self.chunks[at].is_none());
        let chunk = self.chunks[at].get_or_insert_with(Chunk::new);
        let slot = chunk.take_free().expect("an open chunk has a free slot");
        chunk.slots[slot] = Some(value);
        if chunk.is_full() {
            self.open.pop();
        }
        self.len += 1;
        (at * CHUNK + slot) as u32
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let (at, slot) = (id as usize / CHUNK, id as usize % CHUNK);
        let chunk = self.chunks.get_mut(at)?.as_mut()?;
        let was_full = chunk.is_full();
        let value = chunk.slots[slot].take()?;
        chunk.give_back(slot);
        self.len -= 1;
        if was_full {
            self.open.push(at as u32);
        }
        if chunk.live == 0 {
            self.chunks[at] = None;
            self.full -= 1;
            if self.len == 0 {
                self.chunks = Vec::new();
                self.open = Vec::new();
            }
        }
        Some(value)
    }

    /// Chunks that are allocated.
    pub(crate) fn chunks(&self) -> usize {
        self.full
    }

    /// Whether at least half of the allocated chunks, and two more, could be given back if values moved together.
    pub(crate) fn is_sparse(&self) -> bool {
        self.full >= 2 * self.len.div_ceil(CHUNK) + 2
    }

    /// Whether [`Slab::move_down`] would move the value.
    pub(crate) fn can_move_down(&self, id: u32, finger: &mut usize) -> bool {
        let from = id as usize / CHUNK;
        let is_full = |chunk: &Option<Chunk<T>>| chunk.as_ref().is_some_and(Chunk::is_full);
        while *finger < from && self.chunks.get(*finger).is_some_and(is_full) {
            work::step(1);
            *finger += 1;
        }
        *finger < from.min(self.chunks.len())
    }

    /// Moves a value into the first chunk with room from number `finger` on, if that is below its own, and returns its
    /// new id. `finger` only rises: full chunks are passed once.
    pub(crate) fn move_down(&mut self, id: u32, finger: &mut usize) -> Option<u32> {
        if !self.can_move_down(id, finger) {
            return None;
        }
        let value = self.remove(id)?;
        // Of the last value of all, every chunk went with it.
        if self.chunks.is_empty() {
            return Some(self.insert(value));
        }
        self.full += usize::from(self.chunks[*finger].is_none());
        let chunk = self.chunks[*finger].get_or_insert_with(Chunk::new);
        let slot = chunk.take_free().expect("it is not full");
        chunk.slots[slot] = Some(value);
        self.len += 1;
        if chunk.is_full()
            && let Some(at) = self.open.iter().position(|open| *open as usize == *finger)
        {
            self.open.swap_remove(at);
        }
        Some((*finger * CHUNK + slot) as u32)
    }

    /// Gives back what the directory of chunks takes beyond the last one, and has the lowest chunks used first.
    /// O(chunks).
    pub(crate) fn trim(&mut self) {
        let used = self.chunks.iter().rposition(Option::is_some);
        self.chunks.truncate(used.map_or(0, |last| last + 1));
        let bound = self.chunks.len();
        self.open.retain(|chunk| (*chunk as usize) < bound);
        self.open.sort_unstable_by(|one, other| other.cmp(one));
        // What stays is copied: only where little does.
        if bound * 2 < self.chunks.capacity() {
            self.chunks.shrink_to_fit();
        }
        self.open.shrink_to_fit();
    }

    /// The first id in use from `from` on. Unused ids are skipped 64 at a time, unused chunks at once; after `steps`
    /// such skips it says where to go on.
    pub(crate) fn next_used(&self, from: u32, steps: &mut usize) -> Next {
        let (first, mut slot) = (from as usize / CHUNK, from as usize % CHUNK);
        for (at, chunk) in self.chunks.iter().enumerate().skip(first) {
            let words = chunk.as_ref().map_or(0..0, |_| slot / 64..WORDS);
            for word in words {
                let mask = if word == slot / 64 {
                    u64::MAX << (slot % 64)
                } else {
                    u64::MAX
                };
                let free = chunk.as_ref().map_or(u64::MAX, |chunk| chunk.free[word]);
                let used = !free & mask;
                if used != 0 {
                    let id = (at * CHUNK + word * 64) as u32 + used.trailing_zeros();
                    return Next::Id(id);
                }
                work::step(1);
                *steps = steps.saturating_sub(1);
            }
            slot = 0;
            work::step(1);
            *steps = steps.saturating_sub(1);
            if *steps == 0 && at + 1 < self.chunks.len() {
                return Next::Later(((at + 1) * CHUNK) as u32);
            }
        }
        Next::End
    }

    #[inline]
    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        self.chunks.get(id as usize / CHUNK)?.as_ref()?.slots[id as usize % CHUNK].as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.chunks.get_mut(id as usize / CHUNK)?.as_mut()?.slots[id as usize % CHUNK].as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn ids_are_stable_and_memory_goes_back() {
        let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
        let mut slab = Slab::new();
        let mut model = HashMap::new();
        for step in 0..50_000u64 {
            let growing = (step / 10_000) % 2 == 0;
            if model.is_empty() || rng.u8(..) < if growing { 200 } else { 60 } {
                let id = slab.insert(step);
                assert!(model.insert(id, step).is_none(), "id handed out twice");
            } else {
                let id = *model.keys().nth(rng.usize(..model.len().min(8))).unwrap();
                assert_eq!(slab.remove(id), model.remove(&id));
                assert_eq!(slab.remove(id), None);
            }
            assert_eq!(slab.len(), model.len());
        }
        let used = |from: u32| {
            let mut next = slab.next_used(from, &mut 1);
            while let Next::Later(from) = next {
                next = slab.next_used(from, &mut 1);
            }
            match next {
                Next::Id(id) => Some(id),
                _ => None,
            }
        };
        let ids = std::iter::successors(used(0), |id| used(id + 1));
        let mut seen: Vec<_> = ids.map(|id| (id, *slab.get(id).unwrap())).collect();
        let mut want: Vec<_> = model.iter().map(|(id, v)| (*id, *v)).collect();
        seen.sort_unstable();
        want.sort_unstable();
        assert_eq!(seen, want);
        let chunks = slab.chunks.iter().flatten().count();
        assert_eq!(slab.full, chunks);
        for id in want.into_iter().map(|(id, _)| id) {
            slab.remove(id);
        }
        assert_eq!(slab.bytes(), 0);
        (0..5_000).for_each(|n| _ = slab.insert(n));
        assert_eq!(
            std::iter::repeat_with(|| slab.shed())
                .take_while(|more| *more)
                .count(),
            4
        );
        assert_eq!((slab.bytes(), slab.len()), (0, 0));
    }
}
