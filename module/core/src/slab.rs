//! A chunked slab: stable `u32` ids for values, without growth spikes.
//!
//! A plain `Vec` doubles by copying everything it holds, which at a million entries holds the server for
//! milliseconds. Here a chunk of 128 slots is allocated when the previous ones are full and freed when its last slot
//! empties, so memory goes back to the allocator. What grows by copying is the directory, four words a chunk: 2.5 MB at
//! ten million values, where a `Vec` of them would copy 240.

use crate::alloc::class;
use crate::bits::Bits;
use crate::work;

/// Slots in a chunk. Of a few hundred values the last chunk is not much; and its bytes are a size class of the
/// allocator, for values of 8, 24 and 32 bytes.
const CHUNK: usize = 128;
/// 64-bit words of a chunk's bitmap of free slots.
const WORDS: usize = CHUNK / 64;

/// The values of a chunk: an array of fixed size, so that a number within the chunk needs no check against its length.
type Slots<T> = Box<[Option<T>; CHUNK]>;

/// What else is known of a chunk. A bitmap instead of a free list inside the slots: a pointer costs 8 bytes there, not
/// 16.
struct Spare {
    free: [u64; WORDS],
    /// No word before this one has a free slot.
    low: u16,
    live: u16,
    /// How many passes of compaction had ended when it was allocated.
    made: u16,
}

impl Spare {
    const ALL: Spare = Spare {
        free: [u64::MAX; WORDS],
        low: 0,
        live: 0,
        made: 0,
    };

    fn is_full(&self) -> bool {
        usize::from(self.live) == CHUNK
    }

    /// The lowest free slot, marked as used.
    #[inline]
    fn take(&mut self) -> Option<usize> {
        let low = usize::from(self.low);
        let word = low + self.free.get(low..)?.iter().position(|w| *w != 0)?;
        self.low = word as u16;
        let bit = self.free[word].trailing_zeros() as usize;
        self.free[word] &= self.free[word] - 1;
        self.live += 1;
        Some(word * 64 + bit)
    }

    #[inline]
    fn give_back(&mut self, slot: usize) {
        self.free[slot / 64] |= 1 << (slot % 64);
        self.low = self.low.min((slot / 64) as u16);
        self.live -= 1;
    }
}

fn chunk<T>() -> Slots<T> {
    let slots: Vec<Option<T>> = (0..CHUNK).map(|_| None).collect();
    match slots.into_boxed_slice().try_into() {
        Ok(slots) => slots,
        Err(_) => unreachable!("that many were made"),
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
    /// The values, which every look-up reads: a pointer for each chunk, and nothing beside it.
    chunks: Vec<Option<Slots<T>>>,
    /// Of each chunk, which slots are free.
    spare: Vec<Spare>,
    /// The chunks with a free slot, allocated or not.
    open: Bits,
    /// The chunk that the next value goes into, if it has room.
    next: usize,
    len: usize,
    /// Chunks that are allocated.
    full: usize,
    /// Chunks that the last pass of compaction could not free. One that goes away since may be one of them, unless it
    /// is younger.
    stuck: usize,
    /// The same of places in the directory beyond twice what is needed.
    held: usize,
    /// Values that were taken out since the pass under way began: the holes that it may not have seen.
    removed: usize,
    /// Passes of compaction that ended. The number comes round: then a chunk that is as old as all passes counts as
    /// young, and a pass comes later than it might.
    passes: u16,
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
            spare: Vec::new(),
            open: Bits::new(),
            next: 0,
            len: 0,
            full: 0,
            stuck: 0,
            held: 0,
            removed: 0,
            passes: 0,
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
            + class(self.chunks.capacity() * size_of::<Option<Slots<T>>>())
            + class(self.spare.capacity() * size_of::<Spare>())
            + self.open.bytes()
    }

    /// Frees one chunk with all that is in it, for a caller that takes the slab apart and looks nothing up any more;
    /// true while there are more.
    pub(crate) fn shed(&mut self) -> bool {
        let spare = self.spare.pop().map_or(0, |spare| usize::from(spare.live));
        if let Some(Some(_)) = self.chunks.pop() {
            self.len -= spare;
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
    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let mut at = self.next;
        if self.spare.get(at).is_none_or(Spare::is_full) {
            at = self.open.first().unwrap_or_else(|| self.add_chunk());
            self.next = at;
        }
        let slot = self.put(at, value);
        (at * CHUNK + slot) as u32
    }

    #[cold]
    fn add_chunk(&mut self) -> usize {
        let at = self.chunks.len();
        assert!(at < (1 << 31) / CHUNK, "slab full");
        self.chunks.push(None);
        self.spare.push(Spare::ALL);
        self.open.insert(at);
        at
    }

    /// Puts a value into the lowest free slot of a chunk that is not full.
    #[inline]
    fn put(&mut self, at: usize, value: T) -> usize {
        if self.chunks[at].is_none() {
            self.make_chunk(at);
        }
        let spare = &mut self.spare[at];
        let slot = spare.take().expect("an open chunk has a free slot");
        if spare.is_full() {
            self.open.remove(at);
        }
        if let Some(slots) = &mut self.chunks[at] {
            slots[slot % CHUNK] = Some(value);
        }
        self.len += 1;
        slot
    }

    #[cold]
    fn make_chunk(&mut self, at: usize) {
        self.chunks[at] = Some(chunk());
        self.spare[at].made = self.passes;
        self.full += 1;
        // Room that was filled since is not stuck any more.
        self.stuck = self.stuck.min(self.excess());
    }

    /// Takes a value out.
    #[inline]
    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let (at, slot) = (id as usize / CHUNK, id as usize % CHUNK);
        let value = self.chunks.get_mut(at)?.as_mut()?[slot].take()?;
        let spare = &mut self.spare[at];
        if spare.is_full() {
            self.open.insert(at);
            self.next = at;
        }
        spare.give_back(slot);
        self.len -= 1;
        self.removed += 1;
        if spare.live == 0 {
            self.drop_chunk(at);
        }
        Some(value)
    }

    #[cold]
    fn drop_chunk(&mut self, at: usize) {
        self.chunks[at] = None;
        self.full -= 1;
        if self.spare[at].made != self.passes {
            self.stuck = self.stuck.saturating_sub(1);
        }
        // The last one is what the directory ends with after a pass.
        if at + 1 == self.chunks.len() {
            self.held = 0;
        }
        if self.len == 0 {
            *self = Slab::new();
        }
    }

    /// Chunks that the values would not need if they stood together.
    fn excess(&self) -> usize {
        self.full - self.len.div_ceil(CHUNK)
    }

    /// Places in the directory beyond twice the chunks that there are.
    fn vacant(&self) -> usize {
        self.chunks.capacity().saturating_sub(self.full * 2)
    }

    /// Bytes that would go back if values moved together, but for what the last pass could not move.
    pub(crate) fn loose_bytes(&self) -> usize {
        let place = size_of::<Option<Slots<T>>>() + size_of::<Spare>();
        self.excess().saturating_sub(self.stuck) * class(CHUNK * size_of::<Option<T>>())
            + self.vacant().saturating_sub(self.held) * place
    }

    /// A pass of compaction begins.
    pub(crate) fn begin_pass(&mut self) {
        self.removed = 0;
    }

    /// Whether [`Slab::move_down`] would move the value.
    pub(crate) fn can_move_down(&self, id: u32) -> bool {
        let from = id as usize / CHUNK;
        from < self.chunks.len() && self.open.first().is_some_and(|to| to < from)
    }

    /// Moves a value into the lowest chunk with room, if that is below its own, and returns its new id.
    pub(crate) fn move_down(&mut self, id: u32) -> Option<u32> {
        if !self.can_move_down(id) {
            return None;
        }
        let value = self.remove(id)?;
        self.removed = self.removed.saturating_sub(1);
        // Not the chunk that it was in: others will leave that one, too.
        self.next = self.open.first().unwrap_or(0);
        Some(self.insert(value))
    }

    /// After a pass: gives back what the directory of chunks takes beyond the last one, has the lowest chunks used
    /// first, and notes what the pass could not free. False if `steps` end before.
    pub(crate) fn trim(&mut self, steps: &mut usize) -> bool {
        while let Some(None) = self.chunks.last() {
            if *steps == 0 {
                return false;
            }
            work::step(1);
            *steps -= 1;
            self.chunks.pop();
            self.spare.pop();
            self.open.remove(self.chunks.len());
        }
        // What stays is copied: only where little does.
        if self.chunks.len() * 2 < self.chunks.capacity() {
            self.chunks.shrink_to_fit();
            self.spare.shrink_to_fit();
        }
        self.open.shrink(self.chunks.len());
        self.next = self.open.first().unwrap_or(0);
        // What was taken out meanwhile may have left room behind the pass.
        self.stuck = self.excess().saturating_sub(self.removed / CHUNK);
        self.held = self.vacant();
        self.passes = self.passes.wrapping_add(1);
        true
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
                let free = self.spare[at].free[word];
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
        self.chunks.get(id as usize / CHUNK)?.as_ref()?[id as usize % CHUNK].as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.chunks.get_mut(id as usize / CHUNK)?.as_mut()?[id as usize % CHUNK].as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// The chunks with room are found, each once, and what is counted is there.
    fn verify<T>(slab: &Slab<T>) {
        let mut open = (0..).zip(&slab.spare).filter(|(_, spare)| !spare.is_full());
        assert_eq!(slab.open.first(), open.next().map(|(at, _)| at));
        assert_eq!(slab.full, slab.chunks.iter().flatten().count());
        let live: usize = slab.spare.iter().map(|spare| usize::from(spare.live)).sum();
        assert_eq!(slab.len, live);
    }

    /// Values that moved down are found under their new ids, the chunks above go back, and so does all of the rest.
    #[test]
    fn what_moves_down_leaves_no_chunk_behind() {
        let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
        let mut slab = Slab::new();
        for _ in 0..5 {
            let mut ids: Vec<(u32, u64)> = Vec::new();
            for value in 0..rng.u64(2_000..20_000) {
                ids.push((slab.insert(value), value));
            }
            rng.shuffle(&mut ids);
            let kept = rng.usize(1..ids.len() / 2);
            for (id, value) in ids.split_off(kept) {
                assert_eq!(slab.remove(id), Some(value));
            }
            assert!(slab.loose_bytes() > 0);
            ids.sort_unstable();
            slab.begin_pass();
            for (id, _) in &mut ids {
                *id = slab.move_down(*id).unwrap_or(*id);
                if rng.u8(..) == 0 {
                    verify(&slab);
                }
            }
            verify(&slab);
            while !slab.trim(&mut 2) {
                verify(&slab);
            }
            verify(&slab);
            assert_eq!((slab.full, slab.loose_bytes()), (kept.div_ceil(CHUNK), 0));
            for (id, value) in ids.drain(..) {
                assert_eq!(slab.remove(id), Some(value));
            }
            assert_eq!(slab.bytes(), 0);
        }
    }

    /// What a pass left apart is no reason for another one, until as much has gone.
    #[test]
    fn what_could_not_move_is_loose_no_more() {
        let mut slab = Slab::new();
        let ids: Vec<u32> = (0..CHUNK * 10).map(|value| slab.insert(value)).collect();
        for id in ids.iter().filter(|id| **id as usize % CHUNK >= 10) {
            slab.remove(*id);
        }
        let chunk = class(CHUNK * size_of::<Option<usize>>());
        assert_eq!(slab.loose_bytes(), 9 * chunk);
        slab.begin_pass();
        assert!(slab.trim(&mut 1));
        assert_eq!(slab.loose_bytes(), 0);
        let (first, second) = (&ids[..10], &ids[CHUNK..CHUNK + 10]);
        for id in first.iter().chain(second) {
            slab.remove(*id);
        }
        assert_eq!((slab.full, slab.loose_bytes()), (8, 0));
    }

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
            if step % 1_000 == 0 {
                verify(&slab);
            }
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
            5_000 / CHUNK
        );
        assert_eq!((slab.bytes(), slab.len()), (0, 0));
    }
}
