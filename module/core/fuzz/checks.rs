//! What must hold for any bytes: run by the fuzzer (`make fuzz`) on what it finds, and by `tests/fuzz.rs` on the
//! corpus.
//!
//! A corpus file of `command` is a command line, one argument a line; of `encode` the version and the bytes of an
//! entry; of `text` a pattern and a text, divided by a line feed.

use mcache_core::Pattern;
use mcache_core::command::{Fetch, Invalidate, Limits, Scan, Set};
use mcache_core::encode::{self as encoding, decode};
use mcache_core::entry::{Entry, NEVER};
use mcache_core::epoch::{Epoch, Token};

const LIMITS: Limits = Limits {
    tags: 8,
    tag_bytes: 12,
};

/// No command line panics, and what is understood keeps the limits.
pub fn command(data: &[u8]) {
    let line: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let args = line.as_slice();
    if args.len() >= 4
        && let Ok(set) = Set::parse(args, LIMITS)
    {
        let tags = &args[set.tags_from..];
        assert!(tags.len() <= LIMITS.tags);
        assert!(
            tags.iter()
                .all(|tag| (1..=LIMITS.tag_bytes).contains(&tag.len()))
        );
        assert!(set.ttl_ms.is_none_or(|ms| (1..=NEVER * 3).contains(&ms)));
        assert!(set.swr_ms == 0 || set.ttl_ms.is_some());
    }
    if let Ok(invalidate) = Invalidate::parse(args, LIMITS) {
        let tags = &args[invalidate.tags_from..];
        assert!((1..=LIMITS.tags).contains(&tags.len()));
        assert!(tags.iter().all(|tag| !tag.is_empty()));
        let again = Invalidate::from_mode(invalidate.mode(), invalidate.tags_from);
        assert_eq!(again, Some(invalidate));
    }
    if let Ok(fetch) = Fetch::parse(args, 5_000, 600_000) {
        assert!((1..=600_000).contains(&fetch.lease_ms));
        assert!(fetch.wait_ms <= 600_000 && fetch.early_ms <= 600_000);
    }
    for patterns in [true, false] {
        if let Ok(scan) = Scan::parse(args, 2, patterns) {
            assert!((1..=Scan::MAX_COUNT).contains(&(scan.count as u64)));
            assert!(scan.pattern_at.is_none_or(|at| patterns && at < args.len()));
        }
    }
    for arg in args {
        if let Some(token) = Token::parse(arg) {
            assert_eq!(token.to_string().as_bytes(), *arg);
        }
    }
}

/// No bytes panic as an entry, and what is read is written the same and can be made.
pub fn encode(data: &[u8]) {
    let Some((version, bytes)) = data.split_first() else {
        return;
    };
    let version = i32::from(*version);
    let Some(decoded) = decode(version, bytes) else {
        return;
    };
    let tags = decoded.tags.iter();
    assert!(tags.clone().all(|tag| !tag.is_empty()));
    assert!(decoded.attributes.birth < Epoch::END && decoded.saved.epoch < Epoch::END);
    let again = encoding::encode(decoded.attributes, decoded.saved, tags);
    if version == encoding::VERSION {
        assert_eq!(again, bytes);
    }
    let expected = encoding::Decoded {
        says_its_end: true,
        ..decoded
    };
    assert_eq!(decode(encoding::VERSION, &again).as_ref(), Some(&expected));
    let entry = Entry::new(
        b"key",
        b"value",
        expected.attributes,
        &vec![0; expected.tags.len()],
    );
    assert_eq!(entry.attributes(), expected.attributes);
    // SAFETY: not used afterwards.
    unsafe { entry.free() };
}

/// A pattern matches what the simplest matcher says that it matches.
pub fn text(data: &[u8]) {
    let cut = data.iter().position(|byte| *byte == b'\n');
    let (pattern, text) = data.split_at(cut.unwrap_or(data.len()));
    let text = text.strip_prefix(b"\n").unwrap_or(text);
    // The simple one takes the product of the lengths.
    if pattern.len() * text.len() < 1 << 16
        && let Some(built) = Pattern::new(pattern)
    {
        let mut steps = usize::MAX;
        let matches = built.matches(text, &mut steps);
        assert_eq!(matches, matches_simply(pattern, text));
    }
}

/// Which beginnings of the text the pattern so far matches, part by part.
fn matches_simply(mut pattern: &[u8], text: &[u8]) -> bool {
    let mut matched = vec![false; text.len() + 1];
    matched[0] = true;
    while let Some((part, rest)) = next_part(pattern) {
        pattern = rest;
        matched = match part {
            Part::Star => {
                let mut any = false;
                matched
                    .iter()
                    .map(|matched| {
                        any |= matched;
                        any
                    })
                    .collect()
            }
            Part::One(accepts) => {
                let step = (0..text.len()).map(|at| matched[at] && accepts(text[at]));
                std::iter::once(false).chain(step).collect()
            }
        };
    }
    matched[text.len()]
}

enum Part<'a> {
    Star,
    One(Box<dyn Fn(u8) -> bool + 'a>),
}

fn next_part(pattern: &[u8]) -> Option<(Part<'_>, &[u8])> {
    let (first, rest) = pattern.split_first()?;
    let literal = |byte: u8| Part::One(Box::new(move |other| other == byte));
    Some(match (first, rest) {
        (b'*', _) => (Part::Star, rest),
        (b'?', _) => (Part::One(Box::new(|_| true)), rest),
        (b'\\', [escaped, rest @ ..]) => (literal(*escaped), rest),
        (b'[', _) => class(rest),
        _ => (literal(*first), rest),
    })
}

/// What stands between brackets; a bracket that is never closed ends with the pattern.
fn class(inside: &[u8]) -> (Part<'_>, &[u8]) {
    let (negated, mut inside) = match inside {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, inside),
    };
    let mut ranges: Vec<(u8, u8)> = Vec::new();
    loop {
        inside = match inside {
            [] => break,
            [b']', rest @ ..] => {
                inside = rest;
                break;
            }
            [b'\\', byte, rest @ ..] => {
                ranges.push((*byte, *byte));
                rest
            }
            [a, b'-', b, rest @ ..] => {
                ranges.push((*a.min(b), *a.max(b)));
                rest
            }
            [byte, rest @ ..] => {
                ranges.push((*byte, *byte));
                rest
            }
        };
    }
    let accepts = move |byte: u8| {
        let found = ranges.iter().any(|(a, b)| (*a..=*b).contains(&byte));
        found != negated
    };
    (Part::One(Box::new(accepts)), inside)
}
