//! A stored entry as replicas and append-only files are told of it.

use super::{Arguments, ReplSet};
use crate::entry::{Attributes, Entry, MAX_TAG_BYTES, MAX_TAGS};
use crate::text::integer;

/// The last word of `MCACHE.REPLSET key value packed`: end, birth and attributes, and each tag behind its length, as in
/// `-1 65536 0 3:tag 5:other`. A word costs the server as much as a hundred bytes do, on both sides and in the file.
pub struct Packed;

impl Packed {
    /// Index of the value among the arguments.
    pub const VALUE: usize = 2;
    const PACKED: usize = 3;

    /// Whether the command has this form.
    pub fn is<A: Arguments + ?Sized>(args: &A) -> bool {
        args.len() == Self::PACKED + 1
    }

    /// Writes the word.
    pub fn write<'a>(
        deadline_ms: Option<u64>,
        attributes: Attributes,
        tags: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Vec<u8> {
        const NUMBERS: usize = 3 * 21;
        let room = tags.clone().map(|tag| tag.len() + 7).sum::<usize>();
        let mut word = Vec::with_capacity(NUMBERS + room);
        match deadline_ms {
            Some(ms) => push_number(&mut word, ms),
            None => word.extend_from_slice(b"-1"),
        }
        word.push(b' ');
        push_number(&mut word, attributes.birth.0);
        word.push(b' ');
        push_number(&mut word, attributes.pack());
        for tag in tags {
            word.push(b' ');
            push_number(&mut word, tag.len() as u64);
            word.push(b':');
            word.extend_from_slice(tag);
        }
        word
    }

    /// Reads the arguments; `None` for what no server writes.
    pub fn parse<A: Arguments + ?Sized>(args: &A) -> Option<(ReplSet, PackedTags<'_>)> {
        let mut word = args.get(Self::PACKED).splitn(4, |byte| *byte == b' ');
        let (end, birth, attributes) = (word.next()?, word.next()?, word.next()?);
        let read = ReplSet::read(end, birth, attributes)?;
        let mut tags = PackedTags {
            rest: match word.next() {
                // The beginning of a tag that is not there.
                Some([]) => return None,
                rest => rest.unwrap_or_default(),
            },
            count: 0,
        };
        let mut left = tags.clone();
        while !left.rest.is_empty() {
            let tag = left.take_tag()?;
            tags.count += 1;
            if !(1..=MAX_TAG_BYTES).contains(&tag.len()) || tags.count > MAX_TAGS {
                return None;
            }
        }
        Entry::fits(args.get(ReplSet::KEY), args.get(Self::VALUE)).then_some((read, tags))
    }
}

/// The tags of a [`Packed`] word.
#[derive(Clone, Default, Debug)]
pub struct PackedTags<'a> {
    rest: &'a [u8],
    count: usize,
}

impl<'a> PackedTags<'a> {
    fn take_tag(&mut self) -> Option<&'a [u8]> {
        let colon = self.rest.iter().position(|byte| *byte == b':')?;
        let length = usize::try_from(integer(&self.rest[..colon])?).ok()?;
        let (tag, rest) = self.rest[colon + 1..].split_at_checked(length)?;
        self.rest = match rest {
            [] => rest,
            [b' ', next @ ..] if !next.is_empty() => next,
            _ => return None,
        };
        Some(tag)
    }
}

impl<'a> Iterator for PackedTags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.count = self.count.checked_sub(1)?;
        self.take_tag()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

fn push_number(word: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    word.extend_from_slice(&digits[at..]);
}
