//! Positions: how a subscriber says where in the feed it is, and which subscription it is.

use std::fmt;

/// A place in the feed of one server, for one subscription.
///
/// On the wire: 56 lower-case hexadecimal digits. Clients do not look into it. The subscription is a random number of
/// 64 bits, so a position cannot be guessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The run of the server that gave it out.
    pub incarnation: u64,
    /// Counts how often the log began anew in that run.
    pub generation: u32,
    /// Which subscription.
    pub subscription: u64,
    /// Every event up to this one is covered.
    pub number: u64,
}

impl Position {
    /// Length of the text form in bytes.
    pub const TEXT_LEN: usize = 56;

    /// Reads the text form; `None` for anything that `Display` does not write.
    pub fn parse(text: &[u8]) -> Option<Position> {
        if text.len() != Position::TEXT_LEN {
            return None;
        }
        Some(Position {
            incarnation: hex(&text[..16])?,
            generation: u32::try_from(hex(&text[16..24])?).ok()?,
            subscription: hex(&text[24..40])?,
            number: hex(&text[40..])?,
        })
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |n, d| {
        let digit = match d {
            b'0'..=b'9' => d - b'0',
            b'a'..=b'f' => d - b'a' + 10,
            _ => return None,
        };
        Some(n << 4 | u64::from(digit))
    })
}

/// A subscription that a read or a SET names by one of its positions; `None` where the text is no position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Named(pub Option<Position>);

impl Named {
    /// Reads the text form. What is none is a subscription that no server knows: after a rolling upgrade it may be
    /// another version's.
    pub fn parse(text: &[u8]) -> Named {
        Named(Position::parse(text))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position {
            incarnation,
            generation,
            subscription,
            number,
        } = self;
        write!(
            f,
            "{incarnation:016x}{generation:08x}{subscription:016x}{number:016x}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_text_form_and_nothing_else_parses() {
        let position = Position {
            incarnation: u64::MAX,
            generation: 7,
            subscription: 0xfeed,
            number: 1 << 63,
        };
        let text = position.to_string();
        assert_eq!(text.len(), Position::TEXT_LEN);
        assert_eq!(Position::parse(text.as_bytes()), Some(position));
        for bad in [
            "",
            "NEW",
            &text[1..],
            &format!("{text}0"),
            &text.to_uppercase(),
        ] {
            assert_eq!(Position::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
