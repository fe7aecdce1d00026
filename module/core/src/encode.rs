//! The bytes of an entry in RDB files, DUMP payloads and migrations, versioned from the first day.
//!
//! A value is saved as two strings: what is encoded here, and the payload as it is (so that Redis can compress it).
//!
//! ```text
//! version 2, integers little-endian:
//!   flags u8 (1 MANUAL, 2 softened) │ birth u64 │ saved u64 │ incarnation u64 │ ends_ms u64 │ swr_ms u32
//!   │ tags u32 │ { length u32 │ bytes } per tag
//! version 1: the same without ends_ms: an entry ended with the deadline of its key.
//! ```
//! `saved` is the epoch at which the entry was written, and alive, by the run of a server called `incarnation`: a
//! server that restores it needs to know of every invalidation since, or must not serve it.
//! A dead entry is saved as a husk: birth 0, no tags, no payload. The key and the deadline are Redis's business.
//!
//! In every version an entry is two strings: so a reader that does not know the version still finds its end, and
//! a file of a newer mcache loads, with dead entries in it.
//!
//! What is read here is what the sender says. What of it is believed is decided in `fills.rs` and `server/arrive.rs`.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::entry::{Attributes, MAX_TAG_BYTES, MAX_TAGS, NEVER};
use crate::epoch::{Epoch, Token};

/// The version that is written.
pub const VERSION: i32 = 2;

/// Attributes and tag names of an entry, read from a file or another server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded<'a> {
    /// What the entry is made with.
    pub attributes: Attributes,
    /// The attributes say when it ends. If not (version 1), it ends with the deadline of its key.
    pub says_its_end: bool,
    /// When it was written, and by whom.
    pub saved: Token,
    /// Its tags, all different, none empty.
    pub tags: TagNames<'a>,
}

/// Names of tags as they are encoded, one behind the other, each behind its length. Where they are read from a file
/// they stay in the bytes that were read: a file of a million entries has millions of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TagNames<'a> {
    bytes: Cow<'a, [u8]>,
    count: usize,
}

impl<'a> TagNames<'a> {
    /// How many they are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The names, in the order in which they were written.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        Names {
            bytes: &self.bytes,
            count: self.count,
        }
    }

    /// The same names in a buffer that is there already, in place of what it holds.
    pub(crate) fn copied_to(&self, mut buffer: Vec<u8>) -> TagNames<'static> {
        buffer.clear();
        buffer.extend_from_slice(&self.bytes);
        TagNames {
            bytes: Cow::Owned(buffer),
            count: self.count,
        }
    }

    /// The buffer that the names are in, to be used again.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes.into_owned()
    }
}

impl<'n> FromIterator<&'n [u8]> for TagNames<'static> {
    fn from_iter<I: IntoIterator<Item = &'n [u8]>>(names: I) -> Self {
        let (mut bytes, mut count) = (Vec::new(), 0);
        for name in names {
            push_name(&mut bytes, name);
            count += 1;
        }
        TagNames {
            bytes: Cow::Owned(bytes),
            count,
        }
    }
}

/// Names that are left to be read.
#[derive(Clone)]
struct Names<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Iterator for Names<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.count = self.count.checked_sub(1)?;
        take_name(&mut self.bytes)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Names<'_> {}

/// Writes the current version.
pub fn encode<'a>(
    attributes: Attributes,
    saved: Token,
    tags: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(41 + tags.len() * 48);
    bytes.push(attributes.to_bits());
    bytes.extend_from_slice(&attributes.birth.0.to_le_bytes());
    bytes.extend_from_slice(&saved.epoch.0.to_le_bytes());
    bytes.extend_from_slice(&saved.incarnation.to_le_bytes());
    bytes.extend_from_slice(&attributes.ends_ms.min(NEVER).to_le_bytes());
    bytes.extend_from_slice(&attributes.swr_ms.to_le_bytes());
    bytes.extend_from_slice(&(tags.len() as u32).to_le_bytes());
    for tag in tags {
        push_name(&mut bytes, tag);
    }
    bytes
}

/// A dead entry, of which nothing but its key is known.
pub fn husk() -> Vec<u8> {
    let nowhen = Token {
        incarnation: 0,
        epoch: Epoch(0),
    };
    encode(Attributes::HUSK, nowhen, std::iter::empty())
}

/// Reads any version ever written; `None` for bytes that no version writes. Linear in the input, and never allocates
/// more than a small multiple of it; nothing for an entry of few tags.
pub fn decode(version: i32, mut bytes: &[u8]) -> Option<Decoded<'_>> {
    /// Up to here comparing with all is quicker than a table.
    const FEW: usize = 16;
    let says_its_end = match version {
        1 => false,
        2 => true,
        _ => return None,
    };
    let bytes = &mut bytes;
    let [flags] = take(bytes)?;
    let birth = Epoch(u64::from_le_bytes(take(bytes)?));
    let epoch = Epoch(u64::from_le_bytes(take(bytes)?));
    if birth >= Epoch::END || epoch >= Epoch::END {
        return None;
    }
    let incarnation = u64::from_le_bytes(take(bytes)?);
    let saved = Token { incarnation, epoch };
    let ends_ms = match says_its_end {
        true => Some(u64::from_le_bytes(take(bytes)?)).filter(|ms| *ms <= NEVER)?,
        false => NEVER,
    };
    let swr_ms = u32::from_le_bytes(take(bytes)?);
    let attributes = Attributes::from_bits(flags, birth, swr_ms, ends_ms)?;
    let count = u32::from_le_bytes(take(bytes)?) as usize;
    // A tag takes at least five bytes, so a count that lies is found out before it is believed.
    if count > MAX_TAGS || count * 5 > bytes.len() {
        return None;
    }
    let names = *bytes;
    let mut few: [&[u8]; FEW] = [b""; FEW];
    // Hashed with a random key: who chooses the tags must not choose the number of comparisons.
    let mut many: HashSet<&[u8]> = match count > FEW {
        true => HashSet::with_capacity(count),
        false => HashSet::new(),
    };
    for at in 0..count {
        let tag = take_name(bytes)?;
        let is_new = match few.get_mut(..=at) {
            Some([before @ .., place]) if count <= FEW => {
                *place = tag;
                !before.contains(&tag)
            }
            _ => many.insert(tag),
        };
        if tag.is_empty() || tag.len() > MAX_TAG_BYTES || !is_new {
            return None;
        }
    }
    bytes.is_empty().then_some(Decoded {
        attributes,
        says_its_end,
        saved,
        tags: TagNames {
            bytes: Cow::Borrowed(names),
            count,
        },
    })
}

fn push_name(bytes: &mut Vec<u8>, name: &[u8]) {
    bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
    bytes.extend_from_slice(name);
}

#[inline]
fn take_name<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(take(bytes)?) as usize;
    let (name, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(name)
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
        ends_ms: 0x0000_1122_3344_5566,
    };

    const SAVED: Token = Token {
        incarnation: 5,
        epoch: Epoch(9),
    };

    /// The golden bytes of version 1: they must be readable for ever.
    const V1: &[u8] = b"\x01\x08\x07\x06\x05\x04\x03\x02\x01\x09\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\xf4\x01\0\0\x02\0\0\0\x01\0\0\0a\x03\0\0\0b\0c";
    /// The golden bytes of version 2: they must be written as long as no version 3 is, and readable for ever.
    const V2: &[u8] = b"\x01\x08\x07\x06\x05\x04\x03\x02\x01\x09\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x66\x55\x44\x33\x22\x11\0\0\xf4\x01\0\0\x02\0\0\0\x01\0\0\0a\x03\0\0\0b\0c";

    /// Where the end of an entry stands in version 2.
    const ENDS_AT: usize = 25;

    fn encode_again(decoded: &Decoded<'_>) -> Vec<u8> {
        encode(decoded.attributes, decoded.saved, decoded.tags.iter())
    }

    #[test]
    fn version_2_is_written_and_read_as_it_always_was() {
        let tags: [&[u8]; 2] = [b"a", b"b\0c"];
        assert_eq!(encode(ATTRIBUTES, SAVED, tags.into_iter()), V2);
        let decoded = decode(2, V2).unwrap();
        assert_eq!((decoded.attributes, decoded.saved), (ATTRIBUTES, SAVED));
        assert!(decoded.says_its_end);
        assert!(decoded.tags.iter().eq(tags));
    }

    #[test]
    fn version_1_is_read_as_it_always_was_and_does_not_say_when_the_entry_ends() {
        let decoded = decode(1, V1).unwrap();
        let attributes = Attributes {
            ends_ms: NEVER,
            ..ATTRIBUTES
        };
        assert_eq!((decoded.attributes, decoded.saved), (attributes, SAVED));
        assert!(!decoded.says_its_end);
        assert_eq!(decoded.tags, decode(2, V2).unwrap().tags);
    }

    #[test]
    fn what_no_version_writes_is_refused() {
        for (version, bytes) in [(1, V2), (2, V1), (0, V2), (3, V2), (-1, V2)] {
            assert_eq!(decode(version, bytes), None, "as version {version}");
        }
        for (version, bytes) in [(1, V1), (2, V2)] {
            for end in 0..bytes.len() {
                assert_eq!(decode(version, &bytes[..end]), None, "cut at {end}");
            }
            assert_eq!(decode(version, &[bytes, &[0]].concat()), None, "too long");
            for at in [1, 9] {
                let mut late = bytes.to_vec();
                late[at..at + 8].copy_from_slice(&Epoch::END.0.to_le_bytes());
                assert_eq!(decode(version, &late), None, "an epoch that never was");
            }
            for flag in 2..8 {
                let mut flagged = bytes.to_vec();
                flagged[0] |= 1 << flag;
                assert_eq!(decode(version, &flagged), None, "flag {flag}");
            }
            // Two tags of one and of three bytes stand at the end.
            let count_at = bytes.len() - 12 - 4;
            for claim in [0, 1, 3, 65_536, 1 << 31, u32::MAX] {
                for at in [count_at, count_at + 4, count_at + 9] {
                    let mut lying = bytes.to_vec();
                    lying[at..at + 4].copy_from_slice(&claim.to_le_bytes());
                    if lying != bytes {
                        let decoded = decode(version, &lying);
                        // A length of 3 is the truth at one place, and 1 at the other.
                        assert_eq!(decoded, None, "{claim} at {at}");
                    }
                }
            }
        }
        let mut late = V2.to_vec();
        late[ENDS_AT..ENDS_AT + 8].copy_from_slice(&(NEVER + 1).to_le_bytes());
        assert_eq!(decode(2, &late), None, "an end after the last one");
        let twice: [&[u8]; 2] = [b"a", b"a"];
        assert_eq!(
            decode(2, &encode(ATTRIBUTES, SAVED, twice.into_iter())),
            None
        );
        // Also among more than are compared with each other.
        let names: Vec<[u8; 1]> = (1..=40).map(|byte| [byte]).collect();
        for count in 2..=names.len() {
            let all = names[..count].iter().map(|name| &name[..]);
            let bytes = encode(ATTRIBUTES, SAVED, all.clone());
            let decoded = decode(2, &bytes).expect("all are different");
            assert!(decoded.tags.iter().eq(all));
            for again in 0..count - 1 {
                let last = [&names[again][..]];
                let twice: Vec<&[u8]> = all_but_last(&names[..count]).chain(last).collect();
                let bytes = encode(ATTRIBUTES, SAVED, twice.into_iter());
                assert_eq!(decode(2, &bytes), None, "{again} again among {count}");
            }
        }
        let longest: [&[u8]; 1] = [&[1; MAX_TAG_BYTES]];
        let bytes = encode(ATTRIBUTES, SAVED, longest.into_iter());
        assert!(decode(2, &bytes).is_some());
        let longer: [&[u8]; 1] = [&[1; MAX_TAG_BYTES + 1]];
        let bytes = encode(ATTRIBUTES, SAVED, longer.into_iter());
        assert_eq!(decode(2, &bytes), None, "a tag that no option allows");
        let empty: [&[u8]; 1] = [b""];
        assert_eq!(
            decode(2, &encode(ATTRIBUTES, SAVED, empty.into_iter())),
            None
        );
    }

    fn all_but_last(names: &[[u8; 1]]) -> impl Iterator<Item = &[u8]> {
        names[..names.len() - 1].iter().map(|name| &name[..])
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_but_never_crash() {
        let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
        for _ in 0..100_000 {
            let (version, mut bytes) = match rng.bool() {
                true => (1, V1.to_vec()),
                false => (2, V2.to_vec()),
            };
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
            let Some(decoded) = decode(version, &bytes) else {
                continue;
            };
            let mut again = encode_again(&decoded);
            if version == 1 {
                again.drain(ENDS_AT..ENDS_AT + 8);
            }
            assert_eq!(again, bytes);
        }
    }
}
