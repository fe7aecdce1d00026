//! A set of small numbers that finds its lowest one in as many steps as it has levels, at any size: a bit for each, a
//! bit for each word that has one, and so on.

use crate::alloc::class;

/// Enough for 64^3 numbers under one word; of more, the words on top are looked through.
const LEVELS: usize = 3;

pub(crate) struct Bits {
    /// The numbers; which words of them have any; which words of those do.
    levels: [Vec<u64>; LEVELS],
}

impl Default for Bits {
    fn default() -> Self {
        Bits::new()
    }
}

impl Bits {
    pub(crate) const fn new() -> Self {
        Bits {
            levels: [const { Vec::new() }; LEVELS],
        }
    }

    /// Adds a number.
    pub(crate) fn insert(&mut self, mut at: usize) {
        for words in &mut self.levels {
            if words.len() <= at / 64 {
                words.resize(at / 64 + 1, 0);
            }
            let before = words[at / 64];
            words[at / 64] = before | 1 << (at % 64);
            if before != 0 {
                return;
            }
            at /= 64;
        }
    }

    /// Takes a number out.
    pub(crate) fn remove(&mut self, mut at: usize) {
        for words in &mut self.levels {
            let Some(word) = words.get_mut(at / 64) else {
                return;
            };
            *word &= !(1 << (at % 64));
            if *word != 0 {
                return;
            }
            at /= 64;
        }
    }

    /// Adds a number or takes it out.
    pub(crate) fn put(&mut self, at: usize, is_in: bool) {
        match is_in {
            true => self.insert(at),
            false => self.remove(at),
        }
    }

    /// Whether a number is in it.
    pub(crate) fn has(&self, at: usize) -> bool {
        let word = self.levels[0].get(at / 64);
        word.is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// The lowest number.
    pub(crate) fn first(&self) -> Option<usize> {
        let [low @ .., top] = &self.levels;
        let word = top.iter().position(|word| *word != 0)?;
        let mut at = word * 64 + top[word].trailing_zeros() as usize;
        for words in low.iter().rev() {
            at = at * 64 + words[at].trailing_zeros() as usize;
        }
        Some(at)
    }

    /// Gives back the room for numbers from `bound` on; there are none.
    pub(crate) fn shrink(&mut self, mut bound: usize) {
        for words in &mut self.levels {
            bound = bound.div_ceil(64);
            words.truncate(bound);
            words.shrink_to_fit();
        }
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |words: &Vec<u64>| class(words.capacity() * 8);
        self.levels.iter().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn behaves_like_an_ordered_set() {
        let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
        for bound in [3, 64, 65, 5_000, 300_000, 1 << 24] {
            let (mut bits, mut model) = (Bits::new(), BTreeSet::new());
            assert_eq!(bits.first(), None);
            for _ in 0..2_000 {
                let at = rng.usize(..bound);
                match rng.u8(..3) {
                    0 => {
                        bits.put(at, true);
                        model.insert(at);
                    }
                    1 => {
                        bits.put(at, false);
                        model.remove(&at);
                    }
                    _ => {
                        if let Some(first) = model.pop_first() {
                            bits.remove(first);
                        }
                    }
                }
                assert_eq!(bits.first(), model.first().copied());
                assert_eq!(bits.has(at), model.contains(&at));
                if rng.u8(..) == 0 {
                    bits.shrink(model.last().map_or(0, |last| last + 1));
                }
            }
            while let Some(first) = bits.first() {
                assert_eq!(model.pop_first(), Some(first));
                bits.remove(first);
            }
            assert!(model.is_empty());
            bits.shrink(0);
            assert_eq!(bits.bytes(), 0);
        }
    }
}
