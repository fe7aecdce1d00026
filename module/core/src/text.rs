//! Numbers and patterns as clients write them.

use crate::work;

/// Longest ttl in seconds: ten thousand years, so that a deadline in milliseconds always fits.
pub(crate) const MAX_TTL_S: u64 = 315_360_000_000;

/// Seconds with an optional fraction, in milliseconds rounded up (so a positive ttl never becomes "no expiry").
///
/// `None` for anything but digits with at most one point among or around them.
pub(crate) fn seconds_ms(text: &[u8], max_s: u64) -> Option<u64> {
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    if whole.is_empty() && fraction.is_empty() || text.len() > 40 {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { integer(whole)? };
    if !fraction.iter().all(u8::is_ascii_digit) || whole > max_s {
        return None;
    }
    let millis = (0..3).fold(0u64, |n, i| {
        n * 10 + fraction.get(i).map_or(0, |d| u64::from(d - b'0'))
    });
    let rest = fraction.iter().skip(3).any(|d| *d != b'0');
    let total = whole * 1000 + millis + u64::from(rest);
    (total <= max_s * 1000).then_some(total)
}

/// A decimal integer without sign.
pub(crate) fn integer(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0u64, |n, d| match d {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(d - b'0')),
        _ => None,
    })
}

/// Longest pattern in bytes.
pub const MAX_PATTERN_BYTES: usize = 1024;
/// Words of a set of states: one more state than there are bytes in a pattern.
const WORDS: usize = MAX_PATTERN_BYTES / 64 + 1;

/// One of Redis's glob patterns: `*`, `?`, `[abc]`, `[^a-z]` and `\` before a character taken literally.
///
/// All ways in which the pattern could match are followed at once, as bits of a word: state `n` says that the first `n`
/// units of the pattern match what was read so far, and a star in front of a unit lets its state stay. So a match takes
/// one step per byte of the text and 64 units of the pattern, for any text and pattern, and it never goes back.
pub struct Pattern {
    /// Words of a set of states.
    words: usize,
    units: usize,
    /// By byte: the states that it leads on from.
    leads_on: Vec<u64>,
    /// The states that stay: those behind a star.
    stays: [u64; WORDS],
}

impl Pattern {
    /// `None` if it is longer than 1,024 bytes.
    pub fn new(pattern: &[u8]) -> Option<Pattern> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return None;
        }
        let words = pattern.len() / 64 + 1;
        let mut built = Pattern {
            words,
            units: 0,
            leads_on: vec![0; 256 * words],
            stays: [0; WORDS],
        };
        let mut rest = pattern;
        while let Some(first) = rest.first() {
            let (word, bit) = (built.units / 64, 1 << (built.units % 64));
            if *first == b'*' {
                built.stays[word] |= bit;
                rest = &rest[1..];
                continue;
            }
            rest = unit(rest, |byte| {
                built.leads_on[usize::from(byte) * words + word] |= bit;
            });
            built.units += 1;
        }
        Some(built)
    }

    /// Whether the whole text matches. Takes the steps it took off `steps`.
    pub fn matches(&self, text: &[u8], steps: &mut usize) -> bool {
        let mut states = [0u64; WORDS];
        states[0] = 1;
        let (last, last_bit) = (self.units / 64, 1 << (self.units % 64));
        let ends_in_star = self.stays[last] & last_bit != 0;
        for byte in text {
            if ends_in_star && states[last] & last_bit != 0 {
                return true;
            }
            work::step(self.words);
            *steps = steps.saturating_sub(self.words);
            let leads_on = &self.leads_on[usize::from(*byte) * self.words..][..self.words];
            let (mut carry, mut any) = (0, 0);
            for ((state, leads_on), stays) in states.iter_mut().zip(leads_on).zip(&self.stays) {
                let on = *state & leads_on;
                *state = *state & stays | on << 1 | carry;
                carry = on >> 63;
                any |= *state;
            }
            if any == 0 {
                return false;
            }
        }
        states[last] & last_bit != 0
    }
}

/// Calls `allow` for every byte that the first unit of a pattern matches (not a star); returns what is behind it.
fn unit(pattern: &[u8], mut allow: impl FnMut(u8)) -> &[u8] {
    let (first, rest) = (pattern[0], &pattern[1..]);
    match (first, rest) {
        (b'?', _) => {
            (0..=255).for_each(allow);
            rest
        }
        (b'\\', [literal, rest @ ..]) => {
            allow(*literal);
            rest
        }
        (b'[', _) => {
            let (negated, mut rest) = match rest {
                [b'^', rest @ ..] => (true, rest),
                _ => (false, rest),
            };
            let mut class = [false; 256];
            loop {
                rest = match rest {
                    [] => break,
                    [b']', after @ ..] => {
                        rest = after;
                        break;
                    }
                    [b'\\', literal, after @ ..] => {
                        class[usize::from(*literal)] = true;
                        after
                    }
                    [a, b'-', b, after @ ..] => {
                        let (from, to) = (*a.min(b), *a.max(b));
                        class[usize::from(from)..=usize::from(to)].fill(true);
                        after
                    }
                    [literal, after @ ..] => {
                        class[usize::from(*literal)] = true;
                        after
                    }
                };
            }
            (0..=255)
                .filter(|byte| class[usize::from(*byte)] != negated)
                .for_each(allow);
            rest
        }
        _ => {
            allow(first);
            rest
        }
    }
}

/// Whether an argument is this keyword, which consists of letters, in upper or lower case. For keywords of a few bytes
/// that is one comparison: the two cases of a letter differ in one bit, and no other byte becomes a letter by it.
#[inline]
pub(crate) fn is_word<const N: usize>(argument: &[u8], word: &[u8; N]) -> bool {
    const LOWER: u8 = 0x20;
    debug_assert!(word.iter().all(u8::is_ascii_alphabetic));
    <&[u8; N]>::try_from(argument)
        .is_ok_and(|argument| argument.map(|byte| byte | LOWER) == word.map(|byte| byte | LOWER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &[u8], text: &[u8]) -> bool {
        Pattern::new(pattern).is_some_and(|pattern| pattern.matches(text, &mut 0))
    }

    #[test]
    fn seconds() {
        for (text, ms) in [
            ("0", 0),
            ("1", 1000),
            ("1.5", 1500),
            (".25", 250),
            ("2.", 2000),
            ("0.0001", 1),
            ("3600", 3_600_000),
            ("1.2345", 1235),
            ("00.1000", 100),
            ("100", 100_000),
        ] {
            assert_eq!(seconds_ms(text.as_bytes(), 1_000_000), Some(ms), "{text}");
        }
        for bad in [
            "",
            ".",
            "-1",
            "+1",
            "1e3",
            "nan",
            "inf",
            "1.2.3",
            " 1",
            "1 ",
            "0x1",
            "1000001",
            "1000000.001",
            "99999999999999999999999",
        ] {
            assert_eq!(seconds_ms(bad.as_bytes(), 1_000_000), None, "{bad}");
        }
    }

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[ab]c", "bc", true),
            ("[^ab]c", "bc", false),
            ("[a-c]x", "bx", true),
            ("[c-a]x", "bx", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("*:list:\\*", "Product:list:*", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("[", "x", false),
            ("[]", "x", false),
            ("a\\", "a\\", true),
            ("a*?", "ab", true),
            ("a*?", "a", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    /// Redis's own rules, followed byte by byte with every way tried: the slow definition.
    fn slowly(pattern: &[u8], text: &[u8]) -> bool {
        let Some(first) = pattern.first() else {
            return text.is_empty();
        };
        if *first == b'*' {
            return (0..=text.len()).any(|at| slowly(&pattern[1..], &text[at..]));
        }
        let Some(byte) = text.first() else {
            return false;
        };
        let mut allowed = false;
        let rest = unit(pattern, |b| allowed |= b == *byte);
        allowed && slowly(rest, &text[1..])
    }

    #[test]
    fn patterns_match_what_trying_every_way_matches() {
        let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
        let mut of = |alphabet: &[u8], most: usize| -> Vec<u8> {
            (0..rng.usize(..=most))
                .map(|_| alphabet[rng.usize(..alphabet.len())])
                .collect()
        };
        for _ in 0..20_000 {
            let (pattern, text) = (of(b"ab*?[]^-\\", 10), of(b"abc-", 8));
            let (p, t) = (pattern.escape_ascii(), text.escape_ascii());
            assert_eq!(matches(&pattern, &text), slowly(&pattern, &text), "{p} {t}");
        }
        // Over several words.
        for _ in 0..2_000 {
            let (mut pattern, text) = (of(b"ab?", 150), of(b"ab", 150));
            let star = pattern.len() / 3;
            pattern.insert(star, b'*');
            assert_eq!(matches(&pattern, &text), slowly(&pattern, &text));
        }
    }

    /// The patterns that are worst where a mismatch goes back and tries again.
    #[cfg(debug_assertions)]
    #[test]
    fn no_pattern_takes_more_steps_than_its_words_for_each_byte() {
        let text = b"a".repeat(1_000);
        let long = b"a".repeat(500);
        for pattern in [
            b"a*".repeat(30),
            b"*a".repeat(512),
            [b"*".to_vec(), long.clone(), b"b".to_vec()].concat(),
            [b"*".to_vec(), long.clone(), b"?b*".to_vec(), long].concat(),
            [b"*[".to_vec(), b"b".repeat(1_000), b"]".to_vec()].concat(),
        ] {
            let words = pattern.len() as u64 / 64 + 1;
            let (steps, _) = work::of(|| matches(&pattern, &text));
            assert!(steps <= words * 1_000, "{steps}");
        }
        assert!(Pattern::new(&b"*".repeat(MAX_PATTERN_BYTES + 1)).is_none());
    }

    #[test]
    fn words_are_what_they_are_in_upper_and_lower_case_and_nothing_else() {
        for word in ["TAGS", "tags", "tAgS"] {
            assert!(is_word(word.as_bytes(), b"TAGS"), "{word}");
        }
        for other in ["", "TAG", "TAGSS", "AUTO"] {
            assert!(!is_word(other.as_bytes(), b"TAGS"), "{other}");
        }
        for at in 0..4 {
            for byte in 0..=u8::MAX {
                let mut word = *b"TaGs";
                word[at] = byte;
                let expected = word.eq_ignore_ascii_case(b"TAGS");
                assert_eq!(is_word(&word, b"TAGS"), expected, "{}", word.escape_ascii());
            }
        }
    }
}
