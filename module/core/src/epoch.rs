//! Epochs order fills and invalidations; tokens carry them to clients and back.

use std::fmt;

/// A point in the server's own order of events: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16
/// (a hybrid logical clock, after Kulkarni et al. 2014). An invalidation gets an epoch greater than every epoch before
/// it, a fill gets the current one; so comparing the two says exactly which came first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Before everything: an entry born here is dead.
    pub const ZERO: Epoch = Epoch(0);

    /// No epoch is as late as this, in the year 6429. What claims to be is not believed: the clock goes on from the
    /// latest epoch that it has seen, and must not come to its end.
    pub const END: Epoch = Epoch(1 << 63);

    /// The wall-clock part, in milliseconds since 1970.
    pub fn unix_ms(self) -> u64 {
        self.0 >> 16
    }
}

/// The epoch counter of one server.
#[derive(Debug)]
pub struct Clock {
    now: Epoch,
}

impl Clock {
    /// A clock that starts at the given wall-clock time.
    pub fn new(unix_ms: u64) -> Self {
        Clock {
            now: Epoch((unix_ms << 16).max(1)),
        }
    }

    /// The current epoch.
    #[inline]
    pub fn now(&self) -> Epoch {
        self.now
    }

    /// The current epoch, brought up to the wall clock: what a fill that begins now gets.
    #[inline]
    pub fn read(&mut self, unix_ms: u64) -> Epoch {
        self.now = self.now.max(Epoch(unix_ms << 16));
        self.now
    }

    /// The next epoch: greater than every epoch given out or observed before, also when the wall clock goes back.
    pub fn tick(&mut self, unix_ms: u64) -> Epoch {
        self.now = Epoch((self.now.0 + 1).max(unix_ms << 16));
        self.now
    }

    /// Takes note of an epoch made elsewhere (a primary, a file): later ticks are greater.
    pub fn observe(&mut self, epoch: Epoch) {
        self.now = self.now.max(epoch);
    }
}

/// What a miss hands out: the run of the server that issued it, and the epoch at which the fill began.
///
/// On the wire: 32 lower-case hexadecimal digits, incarnation first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// A random number chosen when the server process starts and when it is promoted.
    pub incarnation: u64,
    /// When the fill began.
    pub epoch: Epoch,
}

impl Token {
    /// Length of the text form in bytes.
    pub const TEXT_LEN: usize = 32;

    /// Reads the text form; `None` for anything that [`Token`]'s `Display` does not write.
    pub fn parse(text: &[u8]) -> Option<Token> {
        let (incarnation, epoch) = text.split_at_checked(16)?;
        Some(Token {
            incarnation: hex(incarnation)?,
            epoch: Epoch(hex(epoch)?),
        })
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    if digits.len() != 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |n, d| {
        let digit = match d {
            b'0'..=b'9' => d - b'0',
            b'a'..=b'f' => d - b'a' + 10,
            _ => return None,
        };
        Some(n << 4 | u64::from(digit))
    })
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.incarnation, self.epoch.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_grow_even_when_the_wall_clock_goes_back() {
        let mut clock = Clock::new(1_000);
        let a = clock.tick(1_000);
        let b = clock.tick(900);
        let c = clock.tick(2_000);
        assert!(a < b && b < c);
        assert_eq!(c.unix_ms(), 2_000);
        let d = clock.read(2_001);
        assert!(d > c && clock.read(1_999) == d && clock.tick(2_001) > d);
        clock.observe(Epoch(c.0 + 70_000));
        assert!(clock.tick(0) > Epoch(c.0 + 70_000));
    }

    #[test]
    fn a_token_survives_its_text_form_and_nothing_else_parses() {
        let token = Token {
            incarnation: 0xfeed_0000_0000_0001,
            epoch: Epoch(42),
        };
        let text = token.to_string();
        assert_eq!(text.len(), Token::TEXT_LEN);
        assert_eq!(Token::parse(text.as_bytes()), Some(token));
        for bad in [
            "",
            "0",
            &text[1..],
            &format!("{text}0"),
            &text.to_uppercase(),
            &text.replace('f', "g"),
        ] {
            assert_eq!(Token::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
