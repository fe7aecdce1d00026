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

#[derive(Clone, Copy, Default)]
struct Set {
    tags: [u32; WAYS],
    epochs: [Epoch; WAYS],
    /// The last invalidation among the tags of this set that are no longer listed.
    floor: Epoch,
}

/// A fixed-size table of last invalidations by tag hash.
pub struct Memory {
    sets: Box<[Set]>,
    mask: u64,
}

impl Memory {
    /// A table of `sets` sets, rounded up to a power of two; it takes 56 bytes a set and never grows.
    pub fn new(sets: usize) -> Self {
        let sets = sets.clamp(1, 1 << 24).next_power_of_two();
        Memory {
            sets: vec![Set::default(); sets].into(),
            mask: sets as u64 - 1,
        }
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.sets.len() * size_of::<Set>()
    }

    /// Notes that the tag with this hash was invalidated at `epoch`, which is later than every epoch noted before.
    pub fn note(&mut self, hash: u64, epoch: Epoch) {
        let (tag, set) = (Self::tag(hash), &mut self.sets[(hash & self.mask) as usize]);
        let way = set.tags.iter().position(|t| *t == tag).unwrap_or_else(|| {
            let oldest = (0..WAYS).min_by_key(|w| set.epochs[*w]).unwrap_or(0);
            set.floor = set.floor.max(set.epochs[oldest]);
            set.tags[oldest] = tag;
            oldest
        });
        set.epochs[way] = epoch;
    }

    /// An upper bound of the tag's last invalidation: exact for the tags invalidated most recently.
    #[inline]
    pub fn last(&self, hash: u64) -> Epoch {
        let set = &self.sets[(hash & self.mask) as usize];
        let tag = Self::tag(hash);
        match set.tags.iter().position(|t| *t == tag) {
            Some(way) => set.epochs[way],
            None => set.floor,
        }
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
            assert_eq!(memory.last(hash), Epoch(step));
            let other = tags[rng.usize(..tags.len())];
            let exact = truth.get(&other).copied().unwrap_or_default();
            assert!(memory.last(other) >= exact, "a late fill would be accepted");
            // A fill that began 20 invalidations ago: refused only if it must be, nearly always.
            asked += 1;
            let began = Epoch(step.saturating_sub(20));
            wrong += usize::from(memory.last(other) > began && exact <= began);
        }
        assert!(wrong * 100 < asked, "{wrong} of {asked} refused wrongly");
    }
}
