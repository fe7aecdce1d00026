//! Numbers and patterns as clients write them.

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

/// Matches Redis's glob patterns: `*`, `?`, `[abc]`, `[^a-z]` and `\` before a character taken literally.
///
/// Iterative with one point of return, so the time is bounded by the product of the lengths for any pattern.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on after a mismatch: behind the last star, which then swallows one byte more.
    let mut retry = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            retry = Some((p + 1, t));
            p += 1;
            continue;
        }
        if t == text.len() {
            return p == pattern.len();
        }
        match one(&pattern[p..], text[t]) {
            Some(used) => (p, t) = (p + used, t + 1),
            None => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    (p, t) = (star, from + 1);
                }
                None => return false,
            },
        }
    }
}

/// Bytes of the pattern that match this one byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        b'[' => {
            let negated = pattern.get(1) == Some(&b'^');
            let mut at = if negated { 2 } else { 1 };
            let mut found = false;
            while at < pattern.len() && pattern[at] != b']' {
                if pattern[at] == b'\\' && at + 1 < pattern.len() {
                    at += 1;
                    found |= pattern[at] == byte;
                } else if pattern.get(at + 1) == Some(&b'-') && at + 2 < pattern.len() {
                    let (a, b) = (pattern[at], pattern[at + 2]);
                    found |= (a.min(b)..=a.max(b)).contains(&byte);
                    at += 2;
                } else {
                    found |= pattern[at] == byte;
                }
                at += 1;
            }
            (found != negated).then_some((at + 1).min(pattern.len()))
        }
        literal => (literal == byte).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(
            !matches(&b"a*".repeat(30), &b"a".repeat(29)),
            "ends in time"
        );
    }
}
