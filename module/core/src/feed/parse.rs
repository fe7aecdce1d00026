//! The commands of the feed as clients write them. Arguments left over are errors.

use super::group::MAX_COUNT;
use super::lease;
use super::position::{Named, Position};
use super::prefixes::Prefixes;
use crate::command::Arguments;
use crate::error::Error;
use crate::text::integer;

/// Events in one answer unless COUNT says otherwise.
const DEFAULT_COUNT: usize = 1_000;
/// Longest SETTLE, in milliseconds: no lease is longer.
const MAX_SETTLE_MS: u64 = 60_000;

/// `MCACHE.FEED NEW|position [WAIT ms] [COUNT n] [PREFIX prefix ...]`, or `MCACHE.FEED position END`
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FeedCommand {
    /// Asks what happened since.
    Call {
        /// `None`: NEW, or a position that no server knows.
        position: Option<Position>,
        /// It is not NEW.
        goes_on: bool,
        /// How long it may be parked.
        wait_ms: u64,
        /// Most events in the answer.
        count: usize,
        /// What it wants to hear of.
        prefixes: Prefixes,
    },
    /// Gives up.
    End(Named),
}

impl FeedCommand {
    /// Parses; the caller has checked that there are at least two arguments.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse<A: Arguments + ?Sized>(args: &A) -> Result<FeedCommand, Error> {
        let is = |at: usize, word: &str| args.get(at).eq_ignore_ascii_case(word.as_bytes());
        let goes_on = !is(1, "NEW");
        if goes_on && args.len() == 3 && is(2, "END") {
            return Ok(FeedCommand::End(Named::parse(args.get(1))));
        }
        let (mut wait_ms, mut count) = (0, DEFAULT_COUNT);
        let mut prefixes = Prefixes::all();
        let mut at = 2;
        while at < args.len() {
            if is(at, "PREFIX") {
                prefixes = parse_prefixes(args, at + 1)?;
                break;
            } else if is(at, "WAIT") {
                wait_ms = number(args, at + 1, "WAIT", 0, lease::LONGEST_MS)?;
            } else if is(at, "COUNT") {
                count = number(args, at + 1, "COUNT", 1, MAX_COUNT as u64)? as usize;
            } else {
                return Err(Error::Syntax {
                    expected: "WAIT, COUNT, PREFIX, or END by itself",
                    got: args.get(at).to_vec(),
                });
            }
            at += 2;
        }
        Ok(FeedCommand::Call {
            position: Position::parse(args.get(1)).filter(|_| goes_on),
            goes_on,
            wait_ms,
            count,
            prefixes,
        })
    }
}

/// `MCACHE.SETTLE timeout-ms [PREFIX prefix ...]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettleCommand {
    /// How long it may be parked; 0 replies at once.
    pub timeout_ms: u64,
    /// Of which names it asks.
    pub prefixes: Prefixes,
}

impl SettleCommand {
    /// Parses; the caller has checked that there are at least two arguments.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse<A: Arguments + ?Sized>(args: &A) -> Result<SettleCommand, Error> {
        let timeout_ms = number(args, 1, "timeout", 0, MAX_SETTLE_MS)?;
        let prefixes = match args.len() {
            2 => Prefixes::all(),
            _ if args.get(2).eq_ignore_ascii_case(b"PREFIX") => parse_prefixes(args, 3)?,
            _ => {
                return Err(Error::Syntax {
                    expected: "PREFIX",
                    got: args.get(2).to_vec(),
                });
            }
        };
        Ok(SettleCommand {
            timeout_ms,
            prefixes,
        })
    }
}

/// `MCACHE.NEARGET subscription key [key ...]`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NearGet {
    /// For whom the values are read.
    pub named: Named,
}

impl NearGet {
    /// Index of the first key among the arguments.
    pub const KEYS: usize = 2;

    /// Parses; the caller has checked that there are at least three arguments.
    pub fn parse<A: Arguments + ?Sized>(args: &A) -> NearGet {
        NearGet {
            named: Named::parse(args.get(1)),
        }
    }
}

fn parse_prefixes<A: Arguments + ?Sized>(args: &A, from: usize) -> Result<Prefixes, Error> {
    if from >= args.len() {
        return Err(Error::Missing {
            after: "PREFIX",
            expected: "at least one prefix",
        });
    }
    Prefixes::new((from..args.len()).map(|at| args.get(at)))
}

fn number<A: Arguments + ?Sized>(
    args: &A,
    at: usize,
    what: &'static str,
    min: u64,
    max: u64,
) -> Result<u64, Error> {
    if at >= args.len() {
        return Err(Error::Missing {
            after: what,
            expected: "a number",
        });
    }
    integer(args.get(at))
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| Error::Integer {
            what,
            got: args.get(at).to_vec(),
            min,
            max,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(line: &str) -> Result<FeedCommand, String> {
        let args: Vec<&str> = line.split(' ').collect();
        FeedCommand::parse(&args[..]).map_err(|error| error.to_string())
    }

    #[test]
    fn feed_as_it_is_written() {
        let position = Position {
            incarnation: 1,
            generation: 2,
            subscription: 3,
            number: 4,
        };
        let Ok(FeedCommand::Call {
            position: at,
            goes_on: true,
            wait_ms: 300,
            count: 5,
            prefixes,
        }) = feed(&format!("FEED {position} wait 300 Count 5 PREFIX a PREFIX"))
        else {
            panic!()
        };
        assert_eq!(at, Some(position));
        let names: Vec<&[u8]> = prefixes.iter().collect();
        assert_eq!(
            names,
            [b"PREFIX".as_slice(), b"a"],
            "everything behind PREFIX"
        );
        assert_eq!(
            feed(&format!("FEED {position} end")),
            Ok(FeedCommand::End(Named(Some(position))))
        );
        let Ok(FeedCommand::Call {
            position: None,
            goes_on: false,
            wait_ms: 0,
            ..
        }) = feed("FEED new")
        else {
            panic!()
        };
        let Ok(FeedCommand::Call {
            position: None,
            goes_on: true,
            ..
        }) = feed("FEED of-another-version")
        else {
            panic!()
        };
        for (line, error) in [
            (
                "FEED NEW END",
                "ERR syntax error: expected WAIT, COUNT, PREFIX, or END by itself, got 'END'",
            ),
            (
                "FEED NEW WAIT",
                "ERR syntax error: WAIT must be followed by a number",
            ),
            (
                "FEED NEW WAIT 5001",
                "ERR invalid WAIT '5001': expected an integer from 0 to 5000",
            ),
            (
                "FEED NEW COUNT 0",
                "ERR invalid COUNT '0': expected an integer from 1 to 10000",
            ),
            (
                "FEED NEW PREFIX",
                "ERR syntax error: PREFIX must be followed by at least one prefix",
            ),
        ] {
            assert_eq!(feed(line), Err(error.to_string()), "{line}");
        }
        let many = format!("FEED NEW PREFIX{}", " p".repeat(17));
        assert_eq!(
            feed(&many),
            Err("ERR too many prefixes: at most 16".to_string())
        );
    }

    #[test]
    fn settle_as_it_is_written() {
        let settle = |line: &str| {
            let args: Vec<&str> = line.split(' ').collect();
            SettleCommand::parse(&args[..]).map_err(|error| error.to_string())
        };
        let parsed = settle("SETTLE 1000 prefix a").expect("right");
        assert_eq!(parsed.timeout_ms, 1_000);
        assert!(parsed.prefixes.cover(b"ab") && !parsed.prefixes.cover(b"b"));
        assert_eq!(settle("SETTLE 0").expect("right").prefixes, Prefixes::all());
        for line in [
            "SETTLE x",
            "SETTLE 60001",
            "SETTLE 1 PREFIX",
            "SETTLE 1 NEAR a",
        ] {
            assert!(settle(line).is_err(), "{line}");
        }
    }
}
