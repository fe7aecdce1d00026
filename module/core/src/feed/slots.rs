//! The hash slots that this server owns in a cluster, and what changed.

/// Slots of a cluster.
pub const SLOTS: usize = 16_384;
/// More ranges than these are told as everything.
const MAX_RANGES: usize = 256;

/// A set of slots.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet(Box<[u64; SLOTS / 64]>);

impl Default for SlotSet {
    fn default() -> Self {
        SlotSet(Box::new([0; SLOTS / 64]))
    }
}

impl SlotSet {
    /// Adds the slots of a range, both ends included.
    pub fn add(&mut self, first: u16, last: u16) {
        for slot in first..=last.min(SLOTS as u16 - 1) {
            self.0[usize::from(slot) / 64] |= 1 << (slot % 64);
        }
    }

    /// Whether a slot is in it.
    pub fn has(&self, slot: u16) -> bool {
        let slot = usize::from(slot);
        slot < SLOTS && self.0[slot / 64] & 1 << (slot % 64) != 0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Those that the other set has not.
    pub fn without(&self, other: &SlotSet) -> SlotSet {
        let mut rest = self.clone();
        for (word, other) in rest.0.iter_mut().zip(other.0.iter()) {
            *word &= !other;
        }
        rest
    }

    /// As items of an event, `first << 32 | last` each; `None` if they are too many.
    pub(super) fn ranges(&self) -> Option<Box<[u64]>> {
        let mut ranges: Vec<u64> = Vec::new();
        let mut slot = 0u64;
        while slot < SLOTS as u64 {
            if !self.has(slot as u16) {
                slot += 1;
                continue;
            }
            let first = slot;
            while slot < SLOTS as u64 && self.has(slot as u16) {
                slot += 1;
            }
            if ranges.len() == MAX_RANGES {
                return None;
            }
            ranges.push(first << 32 | (slot - 1));
        }
        Some(ranges.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_told_as_ranges() {
        let (mut before, mut after) = (SlotSet::default(), SlotSet::default());
        before.add(0, 16_383);
        after.add(10, 12);
        after.add(100, 16_383);
        let lost = before.without(&after).ranges().expect("few");
        assert_eq!(*lost, [9, 13 << 32 | 99]);
        assert!(after.without(&before).is_empty() && !after.is_empty());
        let mut scattered = SlotSet::default();
        for slot in (0..16_384).step_by(2) {
            scattered.add(slot, slot);
        }
        assert_eq!(scattered.ranges(), None);
    }
}
