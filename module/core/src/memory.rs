//! The memory of invalidations: when was this tag last invalidated?
//!
//! A fill that began before the last invalidation of any of its tags must be refused even when no entry carries the tag
//! any more, so the answer has to outlive the tag. It is kept in a table of fixed size shaped like a processor cache:
//! a tag's hash selects a set; a set holds the last few tags invalidated there with their epochs, exactly, and one
//! `floor` epoch into which older ones fold. A fill is refused wrongly only when more than [`WAYS`] other tags of the
//! same set were invalidated while it ran; it is never accepted wrongly.

use crate::epoch::Epoch;

/// Tags remembered exactly in a set.
pub const WAYS: usize = 4;
/// Most tags that a table remembers exactly.
pub const MAX_TAGS: usize = 1 << 22;

#[derive(Clone, Copy, Default, Debug)]
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

/// A fixed-size table of last invalidations by tag hash.
#[derive(Debug)]
pub struct Memory {
    sets: Box<[Set]>,
    mask: u64,
}

impl Memory {
    /// A table of `sets` sets, rounded up to a power of two; it takes 56 bytes a set and grows only by [`Memory::resize`].
    pub fn new(sets: usize) -> Self {
        let sets = sets.clamp(1, MAX_TAGS / WAYS).next_power_of_two();
        Memory {
            sets: vec![Set::default(); sets].into(),
            mask: sets as u64 - 1,
        }
    }

    /// A table that remembers about so many tags exactly, rounded up to a power of two: 14 bytes each.
    pub fn for_tags(tags: usize) -> Self {
        Memory::new(tags.div_ceil(WAYS))
    }

    /// How many tags it can remember exactly.
    pub fn tags(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.sets.len() * size_of::<Set>()
    }

    /// Notes that the tag with this hash was invalidated at `epoch`, which is later than every epoch noted before.
    pub fn note(&mut self, hash: u64, epoch: Epoch) {
        self.sets[(hash & self.mask) as usize].note(Self::tag(hash), epoch);
    }

    /// An upper bound of the tag's last invalidation: exact for the tags invalidated most recently.
    #[inline]
    pub fn last(&self, hash: u64) -> Last {
        let set = &self.sets[(hash & self.mask) as usize];
        let tag = Self::tag(hash);
        match set.tags.iter().position(|t| *t == tag) {
            Some(way) => Last {
                epoch: set.epochs[way],
                exact: true,
            },
            None => Last {
                epoch: set.floor,
                exact: false,
            },
        }
    }

    /// Changes the size, and answers nothing earlier than before: a set that is divided leaves a copy in each part, sets
    /// that become one keep the latest of all and fold the rest.
    pub fn resize(&mut self, tags: usize) {
        let mut resized = Memory::for_tags(tags);
        if resized.sets.len() >= self.sets.len() {
            for (at, set) in resized.sets.iter_mut().enumerate() {
                *set = self.sets[at & self.mask as usize];
            }
        } else {
            for (at, set) in self.sets.iter().enumerate() {
                resized.sets[at & resized.mask as usize].absorb(set);
            }
        }
        *self = resized;
    }

    /// The bits that tell tags of one set apart; never zero, which marks an unused way.
    #[inline]
    fn tag(hash: u64) -> u32 {
        (hash >> 32) as u32 | 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Never below the truth; equal to it for the most recent tags of a set.
    #[test]
    fn errs_towards_refusing_only() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
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

    /// Whatever the order of notes and changes of size: never below the truth, and never below what was answered before.
    #[test]
    fn forgets_nothing_when_its_size_changes() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut memory = Memory::for_tags(64);
        let mut truth: HashMap<u64, Epoch> = HashMap::new();
        let tags: Vec<u64> = (0..500).map(|_| rng.u64(..)).collect();
        for step in 1..20_000u64 {
            if rng.u8(..) == 0 {
                let before: Vec<Epoch> = tags.iter().map(|t| memory.last(*t).epoch).collect();
                let size = 1 << rng.u32(..12);
                memory.resize(size);
                assert!(memory.tags() >= size && memory.bytes() == memory.tags() * 14);
                for (tag, before) in tags.iter().zip(before) {
                    assert!(memory.last(*tag).epoch >= before);
                }
            }
            let hash = tags[rng.usize(..tags.len())];
            memory.note(hash, Epoch(step));
            truth.insert(hash, Epoch(step));
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
        for (n, tag) in tags.iter().enumerate() {
            let epoch = Epoch(10 + n as u64);
            assert_eq!(memory.last(*tag), Last { epoch, exact: true });
        }
        memory.resize(1);
        assert_eq!(memory.tags(), 4);
        assert!(memory.last(tags[0]).exact, "four fit into one set");
    }
}
