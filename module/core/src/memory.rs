//! The memory of invalidations: when was this tag last invalidated?
//!
//! A fill that began before the last invalidation of any of its tags must be refused even when no entry carries the tag
//! any more, so the answer has to outlive the tag. It is kept in a table of fixed size shaped like a processor cache:
//! a tag's hash selects a set; a set holds the last few tags invalidated there with their epochs, exactly, and one
//! `floor` epoch into which older ones fold. A fill is refused wrongly only when more than [`WAYS`] other tags of the
//! same set were invalidated while it ran; it is never accepted wrongly.

use crate::alloc::class;
use crate::epoch::Epoch;
use crate::work;

/// Tags remembered exactly in a set.
pub const WAYS: usize = 4;
/// Most tags that a table remembers exactly.
pub const MAX_TAGS: usize = 1 << 22;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Set {
    tags: [u32; WAYS],
    epochs: [Epoch; WAYS],
    /// The last invalidation among the tags of this set that are no longer listed.
    floor: Epoch,
}

impl Set {
    fn note(&mut self, tag: u32, epoch: Epoch) {
        let way = self.tags.iter().position(|t| *t == tag).unwrap_or_else(|| {
            let oldest = (0..WAYS).min_by_key(|w| self.epochs[*w]).unwrap_or(0);
            self.floor = self.floor.max(self.epochs[oldest]);
            self.tags[oldest] = tag;
            self.epochs[oldest] = Epoch::ZERO;
            oldest
        });
        self.epochs[way] = self.epochs[way].max(epoch);
    }

    /// Takes over what another set remembers, as far as there is room; the rest folds.
    fn absorb(&mut self, other: &Set) {
        self.floor = self.floor.max(other.floor);
        let mut noted: Vec<_> = other.tags.iter().copied().zip(other.epochs).collect();
        // Oldest first, so that what folds is the oldest.
        noted.sort_by_key(|(_, epoch)| *epoch);
        for (tag, epoch) in noted.into_iter().filter(|(tag, _)| *tag != 0) {
            match self.epochs.iter().min() {
                Some(oldest) if *oldest > epoch && !self.tags.contains(&tag) => {
                    self.floor = self.floor.max(epoch);
                }
                _ => self.note(tag, epoch),
            }
        }
    }
}

/// What is known of a tag's last invalidation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Last {
    /// When it was, or later.
    pub epoch: Epoch,
    /// It was exactly then.
    pub exact: bool,
}

/// Sets allocated together.
const CHUNK: usize = 64;

/// A table of sets. A chunk is allocated when something is noted in it.
#[derive(Debug)]
struct Sets {
    chunks: Vec<Option<Box<[Set; CHUNK]>>>,
    len: usize,
    allocated: usize,
}

impl Sets {
    fn new(len: usize) -> Self {
        let mut chunks = Vec::new();
        chunks.resize_with(len.div_ceil(CHUNK), || None);
        Sets {
            chunks,
            len,
            allocated: 0,
        }
    }

    #[inline]
    fn at(&self, hash: u64) -> usize {
        hash as usize & (self.len - 1)
    }

    #[inline]
    fn get(&self, at: usize) -> Option<&Set> {
        self.chunks[at / CHUNK]
            .as_ref()
            .map(|chunk| &chunk[at % CHUNK])
    }

    fn get_mut(&mut self, at: usize) -> &mut Set {
        let chunk = &mut self.chunks[at / CHUNK];
        self.allocated += usize::from(chunk.is_none());
        let chunk = chunk.get_or_insert_with(|| Box::new([Set::default(); CHUNK]));
        &mut chunk[at % CHUNK]
    }

    fn free(&mut self, chunk: usize) {
        self.allocated -= usize::from(self.chunks[chunk].take().is_some());
    }

    #[inline]
    fn last(&self, hash: u64) -> Last {
        let never = Last {
            epoch: Epoch::ZERO,
            exact: false,
        };
        let Some(set) = self.get(self.at(hash)) else {
            return never;
        };
        let tag = tag(hash);
        match set.tags.iter().position(|t| *t == tag) {
            Some(way) => Last {
                epoch: set.epochs[way],
                exact: true,
            },
            None => Last {
                epoch: set.floor,
                ..never
            },
        }
    }

    fn bytes(&self) -> usize {
        self.allocated * class(size_of::<[Set; CHUNK]>())
            + class(self.chunks.capacity() * size_of::<Option<Box<[Set; CHUNK]>>>())
    }
}

/// The bits that tell tags of one set apart; never zero, which marks an unused way.
#[inline]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}

/// A table that is being taken over into one of another size.
#[derive(Debug)]
struct Old {
    sets: Sets,
    /// So many of its sets are taken over; where it grows, each as often as it is divided.
    done: usize,
}

impl Old {
    /// Into how many sets each of these is divided.
    fn parts(&self, new: &Sets) -> usize {
        (new.len / self.sets.len).max(1)
    }

    /// Whether what was known of this hash is taken over already.
    fn has_given(&self, hash: u64, new: &Sets) -> bool {
        let parts = self.parts(new);
        let part = hash as usize / self.sets.len % parts;
        self.sets.at(hash) * parts + part < self.done
    }
}

/// A table of last invalidations by tag hash. Its size changes by [`Memory::resize`] only, and then a bounded piece at
/// a time, by [`Memory::migrate`].
#[derive(Debug)]
pub struct Memory {
    sets: Sets,
    old: Option<Old>,
    /// The size wanted next, when the change under way is over.
    wanted: Option<usize>,
}

impl Memory {
    /// A table of `sets` sets, rounded up to a power of two; it takes up to 56 bytes a set.
    pub fn new(sets: usize) -> Self {
        Memory {
            sets: Sets::new(rounded(sets)),
            old: None,
            wanted: None,
        }
    }

    /// A table that remembers about so many tags exactly, rounded up to a power of two: 14 bytes each.
    pub fn for_tags(tags: usize) -> Self {
        Memory::new(tags.div_ceil(WAYS))
    }

    /// How many tags it can remember exactly, once a change of size is over.
    pub fn tags(&self) -> usize {
        self.wanted.unwrap_or(self.sets.len) * WAYS
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.sets.bytes() + self.old.as_ref().map_or(0, |old| old.sets.bytes())
    }

    /// Notes that the tag with this hash was invalidated at `epoch`, which is later than every epoch noted before.
    pub fn note(&mut self, hash: u64, epoch: Epoch) {
        work::step(1);
        let at = self.sets.at(hash);
        self.sets.get_mut(at).note(tag(hash), epoch);
    }

    /// An upper bound of the tag's last invalidation: exact for the tags invalidated most recently.
    #[inline]
    pub fn last(&self, hash: u64) -> Last {
        let last = self.sets.last(hash);
        match &self.old {
            Some(old) if !last.exact && !old.has_given(hash, &self.sets) => {
                let before = old.sets.last(hash);
                Last {
                    epoch: before.epoch.max(last.epoch),
                    exact: before.exact && before.epoch >= last.epoch,
                }
            }
            _ => last,
        }
    }

    /// Begins to change the size. At no moment it answers anything earlier than before: a set that is divided leaves a
    /// copy in each part, sets that become one keep the latest of all and fold the rest, and what is not taken over yet
    /// is asked as well.
    pub fn resize(&mut self, tags: usize) {
        let sets = rounded(tags.div_ceil(WAYS));
        if self.old.is_some() {
            self.wanted = Some(sets).filter(|sets| *sets != self.sets.len);
        } else if sets != self.sets.len {
            let sets = std::mem::replace(&mut self.sets, Sets::new(sets));
            self.old = Some(Old { sets, done: 0 });
        }
    }

    /// Whether a change of size is under way.
    pub fn is_migrating(&self) -> bool {
        self.old.is_some()
    }

    /// Takes a bounded piece over; true while there is more.
    pub fn migrate(&mut self) -> bool {
        /// Sets, or chunks of sets in which nothing was noted.
        const PIECE: usize = 512;
        let Some(old) = &mut self.old else {
            return false;
        };
        let parts = old.parts(&self.sets);
        for _ in 0..PIECE {
            work::step(1);
            let (from, part) = (old.done / parts, old.done % parts);
            if from == old.sets.len {
                self.old = None;
                if let Some(sets) = self.wanted.take() {
                    self.resize(sets * WAYS);
                }
                return self.old.is_some();
            }
            let Some(set) = old.sets.get(from) else {
                let next = (from / CHUNK + 1) * CHUNK;
                old.done = next.min(old.sets.len) * parts;
                continue;
            };
            if *set != Set::default() {
                let to = (from + part * old.sets.len) & (self.sets.len - 1);
                self.sets.get_mut(to).absorb(set);
            }
            old.done += 1;
            if old.done % (CHUNK * parts) == 0 {
                old.sets.free(from / CHUNK);
            }
        }
        true
    }
}

fn rounded(sets: usize) -> usize {
    sets.clamp(1, MAX_TAGS / WAYS).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Never below the truth; equal to it for the most recent tags of a set.
    #[test]
    fn errs_towards_refusing_only() {
        let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
        let mut memory = Memory::new(64);
        let mut truth: HashMap<u64, Epoch> = HashMap::new();
        let tags: Vec<u64> = (0..2_000).map(|_| rng.u64(..)).collect();
        let (mut wrong, mut asked) = (0, 0);
        for step in 1..20_000u64 {
            let hash = tags[rng.usize(..tags.len())];
            memory.note(hash, Epoch(step));
            truth.insert(hash, Epoch(step));
            assert_eq!(
                memory.last(hash),
                Last {
                    epoch: Epoch(step),
                    exact: true
                }
            );
            let other = tags[rng.usize(..tags.len())];
            let exact = truth.get(&other).copied().unwrap_or_default();
            let last = memory.last(other);
            assert!(last.epoch >= exact, "a late fill would be accepted");
            assert!(!last.exact || last.epoch == exact);
            // A fill that began 20 invalidations ago: refused only if it must be, nearly always.
            asked += 1;
            let began = Epoch(step.saturating_sub(20));
            wrong += usize::from(last.epoch > began && exact <= began);
        }
        assert!(wrong * 100 < asked, "{wrong} of {asked} refused wrongly");
    }

    /// In any order of notes and changes of size: never below the truth, and never below what was answered before.
    #[test]
    fn forgets_nothing_when_its_size_changes() {
        let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
        let mut memory = Memory::for_tags(64);
        let mut truth: HashMap<u64, Epoch> = HashMap::new();
        let tags: Vec<u64> = (0..500).map(|_| rng.u64(..)).collect();
        for step in 1..20_000u64 {
            if rng.u8(..) == 0 {
                let before: Vec<Epoch> = tags.iter().map(|t| memory.last(*t).epoch).collect();
                let size = 1 << rng.u32(..12);
                memory.resize(size);
                assert!(memory.tags() >= size);
                for (tag, before) in tags.iter().zip(before) {
                    assert!(memory.last(*tag).epoch >= before);
                }
            }
            let migrating = memory.is_migrating();
            let (steps, more) = work::of(|| rng.u8(..) < 60 && memory.migrate());
            assert!(steps <= 512 && (migrating || !more));
            let hash = tags[rng.usize(..tags.len())];
            memory.note(hash, Epoch(step));
            truth.insert(hash, Epoch(step));
            assert_eq!(memory.last(hash).epoch, Epoch(step));
            for tag in &tags {
                let exact = truth.get(tag).copied().unwrap_or_default();
                assert!(
                    memory.last(*tag).epoch >= exact,
                    "a late fill would be accepted"
                );
            }
        }
    }

    #[test]
    fn a_bigger_table_still_knows_exactly_what_the_smaller_one_knew() {
        let mut memory = Memory::for_tags(4);
        let tags: Vec<u64> = (0..4u64).map(|n| n << 33 | n).collect();
        for (n, tag) in tags.iter().enumerate() {
            memory.note(*tag, Epoch(10 + n as u64));
        }
        memory.resize(64);
        while memory.migrate() {}
        for (n, tag) in tags.iter().enumerate() {
            let epoch = Epoch(10 + n as u64);
            assert_eq!(memory.last(*tag), Last { epoch, exact: true });
        }
        memory.resize(1);
        while memory.migrate() {}
        assert_eq!(memory.tags(), 4);
        assert!(memory.last(tags[0]).exact, "four fit into one set");
    }

    /// Fifty megabytes and back: no step copies more than a piece, and a table of which little is used takes little.
    #[test]
    fn a_change_of_size_goes_in_bounded_steps() {
        let mut memory = Memory::for_tags(MAX_TAGS);
        let hashes: Vec<u64> = (0..10_000u64)
            .map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .collect();
        for (n, hash) in hashes.iter().enumerate() {
            memory.note(*hash, Epoch(1 + n as u64));
        }
        for tags in [1 << 16, MAX_TAGS, 64, 1 << 14] {
            let (steps, ()) = work::of(|| memory.resize(tags));
            assert!(steps < 10);
            loop {
                let (steps, more) = work::of(|| memory.migrate());
                assert!(steps <= 512, "{steps}");
                if !more {
                    break;
                }
            }
            assert_eq!(memory.tags(), tags);
        }
        for (n, hash) in hashes.iter().enumerate() {
            assert!(memory.last(*hash).epoch >= Epoch(1 + n as u64));
        }
        assert!(memory.bytes() <= (1 << 14) * 14 + 4_096);
    }
}
