//! The bytes of an entry in RDB files, DUMP payloads and migrations, versioned from the first day.
//!
//! A value is saved as two strings: what is encoded here, and the payload as it is (so that Redis can compress it).
//!
//! ```text
//! version 1, integers little-endian:
//!   flags u8 (1 MANUAL, 2 softened) │ birth u64 │ saved u64 │ incarnation u64 │ swr_ms u32
//!   │ tags u32 │ { length u32 │ bytes } per tag
//! ```
//! `saved` is the epoch at which the entry was written, and alive, by the run of a server called `incarnation`: whoever
//! restores it needs to know of every invalidation since, or must not serve it.
//! A dead entry is saved as a husk: birth 0, no tags, no payload. The key and the deadline are Redis's business.

use std::collections::HashSet;

use crate::entry::{Attributes, MAX_TAGS};
use crate::epoch::{Epoch, Token};

/// The version that is written.
pub const VERSION: i32 = 1;

/// Attributes and tag names of an entry, read from a file or another server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// What the entry is made with.
    pub attributes: Attributes,
    /// When it was written, and by whom.
    pub saved: Token,
    /// Its tags, all different, none empty.
    pub tags: Vec<Box<[u8]>>,
}

/// Writes the current version.
pub fn encode<'a>(
    attributes: Attributes,
    saved: Token,
    tags: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(33 + tags.len() * 48);
    bytes.push(attributes.to_bits());
    bytes.extend_from_slice(&attributes.birth.0.to_le_bytes());
    bytes.extend_from_slice(&saved.epoch.0.to_le_bytes());
    bytes.extend_from_slice(&saved.incarnation.to_le_bytes());
    bytes.extend_from_slice(&attributes.swr_ms.to_le_bytes());
    bytes.extend_from_slice(&(tags.len() as u32).to_le_bytes());
    for tag in tags {
        bytes.extend_from_slice(&(tag.len() as u32).to_le_bytes());
        bytes.extend_from_slice(tag);
    }
    bytes
}

/// Reads any version ever written; `None` for bytes that no version writes. Never allocates more than a small multiple
/// of the input.
pub fn decode(version: i32, bytes: &[u8]) -> Option<Decoded> {
    match version {
        1 => decode_v1(bytes),
        _ => None,
    }
}

fn decode_v1(mut bytes: &[u8]) -> Option<Decoded> {
    let bytes = &mut bytes;
    let [flags] = take(bytes)?;
    let birth = Epoch(u64::from_le_bytes(take(bytes)?));
    let epoch = Epoch(u64::from_le_bytes(take(bytes)?));
    if birth >= Epoch::END || epoch >= Epoch::END {
        return None;
    }
    let incarnation = u64::from_le_bytes(take(bytes)?);
    let saved = Token { incarnation, epoch };
    let attributes = Attributes::from_bits(flags, birth, u32::from_le_bytes(take(bytes)?))?;
    let count = u32::from_le_bytes(take(bytes)?) as usize;
    // A tag takes at least five bytes, so a count that lies is found out before it is believed.
    if count > MAX_TAGS || count * 5 > bytes.len() {
        return None;
    }
    let mut tags: Vec<Box<[u8]>> = Vec::with_capacity(count);
    // The standard library's set: its hash has a random key, so a payload cannot be made of names that collide.
    let mut seen: HashSet<&[u8]> = HashSet::with_capacity(count);
    for _ in 0..count {
        let length = u32::from_le_bytes(take(bytes)?) as usize;
        let (tag, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        if tag.is_empty() || !seen.insert(tag) {
            return None;
        }
        tags.push(tag.into());
    }
    bytes.is_empty().then_some(Decoded {
        attributes,
        saved,
        tags,
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTRIBUTES: Attributes = Attributes {
        birth: Epoch(0x0102_0304_0506_0708),
        manual: true,
        swr_ms: 500,
        softened: false,
    };

    const SAVED: Token = Token {
        incarnation: 5,
        epoch: Epoch(9),
    };

    /// The golden bytes of version 1: they must be readable for ever.
    const V1: &[u8] = b"\x01\x08\x07\x06\x05\x04\x03\x02\x01\x09\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\xf4\x01\0\0\x02\0\0\0\x01\0\0\0a\x03\0\0\0b\0c";

    #[test]
    fn version_1_is_written_and_read_as_it_always_was() {
        let tags: [&[u8]; 2] = [b"a", b"b\0c"];
        assert_eq!(encode(ATTRIBUTES, SAVED, tags.into_iter()), V1);
        let decoded = decode(1, V1).unwrap();
        assert_eq!((decoded.attributes, decoded.saved), (ATTRIBUTES, SAVED));
        assert_eq!(
            decoded.tags,
            [Box::from(&b"a"[..]), Box::from(&b"b\0c"[..])]
        );
        assert_eq!(decode(2, V1), None);
        for at in [1, 9] {
            let mut late = V1.to_vec();
            late[at..at + 8].copy_from_slice(&Epoch::END.0.to_le_bytes());
            assert_eq!(decode(1, &late), None, "an epoch that never was");
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_but_never_crash() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for end in 0..V1.len() {
            assert_eq!(decode(1, &V1[..end]), None, "cut at {end}");
        }
        for _ in 0..100_000 {
            let mut bytes = V1.to_vec();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
            if let Some(decoded) = decode(1, &bytes) {
                assert_eq!(
                    encode(
                        decoded.attributes,
                        decoded.saved,
                        decoded.tags.iter().map(|t| &**t)
                    ),
                    bytes
                );
            }
        }
        let twice: [&[u8]; 2] = [b"a", b"a"];
        assert_eq!(
            decode(1, &encode(ATTRIBUTES, SAVED, twice.into_iter())),
            None
        );
    }
}
