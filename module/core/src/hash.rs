//! The keyed hash of tag names.
//!
//! A user who may store entries chooses tag names, so with a hash that is the same everywhere such a user could compute
//! names that collide. A seed alone does not help: several quick hashes have names that collide under every seed. This
//! one evaluates a polynomial at a secret point, modulo the prime 2^61 - 1:
//!
//! ```text
//!   c[1] r^k + c[2] r^(k-1) + ... + c[k] r + length        c: the name in pieces of 7 bytes, r: the secret point
//! ```
//!
//! Two different names are two different polynomials (of the same length: another coefficient; of another length:
//! another constant), and their difference has at most k roots. So for *any* two names, however they were chosen, at
//! most k of the 2^59 points make them equal: 147 of 2^59 for the longest names under the default limit. That is a
//! proof, and it is why this is not a faster mixing function whose resistance can only be believed. A multiplication by
//! a secret odd factor spreads the result: for its upper bits, names collide with twice the chance of a perfect hash at
//! most.
//!
//! The key must not be learnt: a hash never leaves the process, is saved nowhere, and orders nothing that a client
//! sees. Should it be learnt nevertheless, what a bucket can cost is bounded in `crate::tags`.

const PRIME: u64 = (1 << 61) - 1;
/// 7 bytes: less than the prime, so that different pieces are different coefficients.
const PIECE: u64 = (1 << 56) - 1;

/// The secret of a process.
#[derive(Clone, Copy)]
pub struct Key {
    /// Where polynomials are evaluated, and its square; both below 2^60, which keeps sums within 64 bits.
    point: u64,
    square: u64,
    factor: u64,
    /// Where numbers begin that are spread.
    start: u64,
}

impl Default for Key {
    /// A key that is the same everywhere: for tests and tools only.
    fn default() -> Self {
        Key::new([0x6d63_6163_6865, 0x7461_6773])
    }
}

impl Key {
    /// A key made of 128 random bits.
    pub fn new(random: [u64; 2]) -> Self {
        let mut state = random[0];
        // Every second point or so will do, and there are 2^59 of them.
        let (point, square) = loop {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let point = mix(state) >> 4;
            let square = u128::from(point) * u128::from(point) % u128::from(PRIME);
            if point > 1 && square < 1 << 60 {
                break (point, square as u64);
            }
        };
        Key {
            point,
            square,
            factor: mix(random[1]) | 1,
            start: mix(!random[1]),
        }
    }

    /// The key under which all names collide: shows what a bucket costs at worst.
    #[doc(hidden)]
    pub fn worst() -> Self {
        Key {
            point: 0,
            square: 0,
            factor: 0,
            start: 0,
        }
    }

    /// Spreads numbers over 64 bits: those of a random sequence whose beginning is secret. A multiplication alone would
    /// lay numbers that are apart by a fixed distance side by side.
    #[inline]
    pub(crate) fn spread(&self, number: u32) -> u64 {
        mix(self.start.wrapping_add(u64::from(number)))
    }

    /// The hash of a name.
    #[inline]
    pub fn hash(&self, name: &[u8]) -> u64 {
        let mut sum = 0;
        let mut rest = name;
        while let Some(head) = rest.first_chunk::<15>() {
            sum = self.two(sum, low(head) & PIECE, high(head) & PIECE);
            rest = &rest[14..];
        }
        sum = match rest.len() {
            0 => sum,
            1..8 => fold(u128::from(sum + short(rest)) * u128::from(self.point)),
            len => {
                let last = rest.last_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
                let first = rest
                    .first_chunk::<8>()
                    .map_or(0, |b| u64::from_le_bytes(*b));
                self.two(sum, first & PIECE, last >> (8 * (15 - len)))
            }
        };
        // The upper half is the better one, and most tables look at the lower bits.
        (sum + name.len() as u64)
            .wrapping_mul(self.factor)
            .rotate_left(32)
    }

    #[inline]
    fn two(&self, sum: u64, first: u64, second: u64) -> u64 {
        fold(
            u128::from(sum + first) * u128::from(self.square)
                + u128::from(second) * u128::from(self.point),
        )
    }
}

/// A number below 2^63 that is the same modulo the prime; `x` is below 2^124.
#[inline]
fn fold(x: u128) -> u64 {
    (x as u64 & PRIME) + (x >> 61) as u64
}

#[inline]
fn low(head: &[u8; 15]) -> u64 {
    head.first_chunk::<8>()
        .map_or(0, |b| u64::from_le_bytes(*b))
}

#[inline]
fn high(head: &[u8; 15]) -> u64 {
    head.last_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b))
}

/// Up to 7 bytes as a number.
#[inline]
fn short(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return u64::from(first) | u64::from(last) << (8 * (len - 4));
    }
    let at = |i: usize| u64::from(bytes[i]) << (8 * i);
    at(0) | at(len / 2) | at(len - 1)
}

/// The finalizer of splitmix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// The polynomial as the first lines of this file have it, without any shortcut.
    fn plainly(key: &Key, name: &[u8]) -> u64 {
        let prime = u128::from(PRIME);
        let pieces = name.chunks(7).map(|piece| {
            let number = |(i, byte): (usize, &u8)| u128::from(*byte) << (8 * i);
            piece.iter().enumerate().map(number).sum::<u128>()
        });
        let sum = pieces.fold(0, |sum, c| (sum + c) * u128::from(key.point) % prime);
        ((sum + name.len() as u128) % prime) as u64
    }

    #[test]
    fn is_the_polynomial_it_says_it_is() {
        let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
        for _ in 0..2_000 {
            let key = Key::new([rng.u64(..), rng.u64(..)]);
            let name: Vec<u8> = (0..rng.usize(..300)).map(|_| rng.u8(..)).collect();
            // Undo the factor: its inverse modulo 2^64, by Newton's method.
            let inverse = (0..6).fold(key.factor, |x, _| {
                x.wrapping_mul(2u64.wrapping_sub(key.factor.wrapping_mul(x)))
            });
            let sum = key.hash(&name).rotate_right(32).wrapping_mul(inverse);
            assert_eq!(sum % PRIME, plainly(&key, &name), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn names_that_differ_by_zero_bytes_or_by_their_end_are_different() {
        let key = Key::default();
        let names: Vec<Vec<u8>> = (0..100)
            .map(|n| vec![0; n])
            .chain((1..100).map(|n| [vec![0; n - 1], vec![1]].concat()))
            .collect();
        let hashes: HashSet<u64> = names.iter().map(|name| key.hash(name)).collect();
        assert_eq!(hashes.len(), names.len());
    }

    #[test]
    fn another_key_is_another_hash() {
        let [one, other] = [[1, 2], [3, 4]].map(Key::new);
        let same = (0..1_000u32)
            .filter(|n| one.hash(&n.to_le_bytes()) == other.hash(&n.to_le_bytes()))
            .count();
        assert_eq!(same, 0);
    }

    /// The bits that tables use are spread evenly over names as applications make them.
    #[test]
    fn buckets_fill_evenly() {
        let key = Key::new([5, 6]);
        for shift in [0, 3, 16, 32] {
            let mut buckets = [0u32; 256];
            for n in 0..256 * 64 {
                let hash = key.hash(format!("Product:prod_{n}").as_bytes());
                buckets[(hash >> shift) as usize % 256] += 1;
            }
            let worst = buckets.iter().max().copied().unwrap_or(0);
            assert!(worst < 64 + 6 * 8, "{worst} of 64 expected");
        }
    }
}
