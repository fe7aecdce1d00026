//! Commands as clients write them, parsed into types that need no further checks. Arguments left over are errors.

mod packed;

use crate::entry::{Attributes, Entry, MAX_BYTES, MAX_KEY_BYTES, MAX_TAG_BYTES, MAX_TAGS, NEVER};
use crate::epoch::{Epoch, Token};
use crate::error::Error;
use crate::feed::Named;
use crate::index::Scope;
use crate::text::{MAX_PATTERN_BYTES, MAX_TTL_S, integer, is_word, seconds_ms};

pub use packed::{Packed, PackedTags};

/// Limits that the configuration sets.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most tags in one command.
    pub tags: usize,
    /// Longest tag in bytes.
    pub tag_bytes: usize,
}

/// The arguments of a command, its name included as number 0; a view, so that parsing copies nothing.
pub trait Arguments {
    /// How many there are.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The bytes of one of them; empty beyond the end.
    fn get(&self, at: usize) -> &[u8];
}

impl<T: AsRef<[u8]>> Arguments for [T] {
    fn len(&self) -> usize {
        <[T]>::len(self)
    }
    fn get(&self, at: usize) -> &[u8] {
        <[T]>::get(self, at).map_or(&[], AsRef::as_ref)
    }
}

/// When a SET stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnlyIf {
    /// With or without an entry under the key.
    Always,
    /// Only where no live entry is.
    Absent,
    /// Only over a live entry.
    Present,
}

/// `MCACHE.SET key ttl value [SWR seconds] [TOKEN token] [NX|XX] [MANUAL] [NEAR subscription] [TAGS tag [tag ...]]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Set {
    /// `None`: no expiry.
    pub ttl_ms: Option<u64>,
    /// How long after the ttl the entry may be served stale.
    pub swr_ms: u32,
    /// When the fill began, if the caller knows.
    pub token: Option<Token>,
    /// NX, XX or neither.
    pub only_if: OnlyIf,
    /// Spared by `INVALIDATE AUTO`.
    pub manual: bool,
    /// For which near cache the value is stored.
    pub near: Option<Named>,
    /// Index of the first tag; everything from here on is a tag.
    pub tags_from: usize,
}

impl Set {
    /// Index of the key among the arguments.
    pub const KEY: usize = 1;
    /// Index of the value among the arguments.
    pub const VALUE: usize = 3;

    /// Parses; the caller has checked that there are at least four arguments.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse<A: Arguments + ?Sized>(args: &A, limits: Limits) -> Result<Set, Error> {
        let ttl_ms =
            seconds_ms(args.get(2), MAX_TTL_S).ok_or_else(|| Error::Ttl(args.get(2).to_vec()))?;
        for (what, at, max) in [
            ("key", Set::KEY, MAX_KEY_BYTES),
            ("value", Set::VALUE, MAX_BYTES),
        ] {
            let got = args.get(at).len();
            if got > max {
                return Err(Error::TooLong { what, got, max });
            }
        }
        let mut set = Set {
            ttl_ms: (ttl_ms > 0).then_some(ttl_ms),
            swr_ms: 0,
            token: None,
            only_if: OnlyIf::Always,
            manual: false,
            near: None,
            tags_from: args.len(),
        };
        let (mut at, mut swr_given) = (4, false);
        while at < args.len() {
            let word = args.get(at);
            at += 1;
            if is_word(word, b"TAGS") {
                check_tags(args, at, limits, limits.tag_bytes)?;
                set.tags_from = at;
                break;
            } else if is_word(word, b"TOKEN") {
                if at == args.len() {
                    return Err(Error::Missing {
                        after: "TOKEN",
                        expected: "a token",
                    });
                }
                let token = Token::parse(args.get(at)).ok_or(Error::Token)?;
                if set.token.replace(token).is_some() {
                    return Err(Error::Twice("TOKEN"));
                }
                at += 1;
            } else if is_word(word, b"SWR") {
                if at == args.len() {
                    return Err(Error::Missing {
                        after: "SWR",
                        expected: "seconds",
                    });
                }
                let swr = seconds_ms(args.get(at), u64::from(u32::MAX) / 1000);
                set.swr_ms = swr.ok_or_else(|| Error::Swr(args.get(at).to_vec()))? as u32;
                if std::mem::replace(&mut swr_given, true) {
                    return Err(Error::Twice("SWR"));
                }
                at += 1;
            } else if is_word(word, b"NX") || is_word(word, b"XX") {
                let wanted = if word[0].eq_ignore_ascii_case(&b'N') {
                    OnlyIf::Absent
                } else {
                    OnlyIf::Present
                };
                if set.only_if != OnlyIf::Always && set.only_if != wanted {
                    return Err(Error::Exclusive("NX", "XX"));
                }
                set.only_if = wanted;
            } else if is_word(word, b"MANUAL") {
                set.manual = true;
            } else if is_word(word, b"NEAR") {
                let named = subscription(args, at)?;
                if set.near.replace(named).is_some() {
                    return Err(Error::Twice("NEAR"));
                }
                at += 1;
            } else {
                return Err(Error::Syntax {
                    expected: "SWR, TOKEN, NX, XX, MANUAL, NEAR or TAGS",
                    got: word.to_vec(),
                });
            }
        }
        if set.swr_ms > 0 && set.ttl_ms.is_none() {
            return Err(Error::SwrWithoutTtl);
        }
        Ok(set)
    }
}

/// `MCACHE.INVALIDATE [AUTO] [SOFT] [NEAR] [TAGS] tag [tag ...]`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invalidate {
    /// AUTO spares MANUAL entries.
    pub scope: Scope,
    /// SOFT makes stale instead of dead.
    pub soft: bool,
    /// NEAR also replies how many near leases are to be waited for.
    pub near: bool,
    /// Index of the first tag.
    pub tags_from: usize,
}

impl Invalidate {
    /// Scope and kind in one integer, for the replication stream.
    pub fn mode(self) -> u64 {
        u64::from(self.scope == Scope::Auto) | u64::from(self.soft) << 1
    }

    /// The reverse of [`Invalidate::mode`]; `None` for a number it never makes.
    pub fn from_mode(mode: u64, tags_from: usize) -> Option<Invalidate> {
        let scope = if mode & 1 == 1 {
            Scope::Auto
        } else {
            Scope::All
        };
        (mode < 4).then_some(Invalidate {
            scope,
            soft: mode & 2 == 2,
            near: false,
            tags_from,
        })
    }

    /// Parses. If the first argument is an option word, TAGS is required, so any byte string can be a tag.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse<A: Arguments + ?Sized>(args: &A, limits: Limits) -> Result<Invalidate, Error> {
        let mut invalidate = Invalidate {
            scope: Scope::All,
            soft: false,
            near: false,
            tags_from: 1,
        };
        let mut word = args.get(1);
        if is_word(word, b"TAGS") || Self::is_option(word) {
            let mut at = 1;
            while !is_word(word, b"TAGS") {
                if is_word(word, b"AUTO") {
                    invalidate.scope = Scope::Auto;
                } else if is_word(word, b"SOFT") {
                    invalidate.soft = true;
                } else if is_word(word, b"NEAR") {
                    invalidate.near = true;
                } else if at < args.len() {
                    return Err(Error::Syntax {
                        expected: "AUTO, SOFT, NEAR or TAGS",
                        got: word.to_vec(),
                    });
                } else {
                    return Err(Error::Missing {
                        after: "AUTO, SOFT or NEAR",
                        expected: "TAGS",
                    });
                }
                at += 1;
                word = args.get(at);
            }
            invalidate.tags_from = at + 1;
        }
        // Not their length: a limit lowered at run time must not shield what is already stored.
        check_tags(args, invalidate.tags_from, limits, usize::MAX)?;
        Ok(invalidate)
    }

    #[inline]
    fn is_option(word: &[u8]) -> bool {
        is_word(word, b"AUTO") || is_word(word, b"SOFT") || is_word(word, b"NEAR")
    }
}

/// `MCACHE.REPLSET key end-ms birth attributes value [tag ...]`: a stored entry in append-only files that were
/// rewritten; an end of -1 is none. The replication stream says the same in fewer words, see [`Packed`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplSet {
    /// When the entry ends, if it does, and so when its key is to expire.
    pub deadline_ms: Option<u64>,
    /// What the entry is made with.
    pub attributes: Attributes,
}

impl ReplSet {
    /// Index of the key among the arguments.
    pub const KEY: usize = 1;
    /// Index of the value among the arguments.
    pub const VALUE: usize = 5;
    /// Index of the first tag.
    pub const TAGS: usize = 6;

    /// Parses; `None` for what no server writes. Limits of the configuration are not asked: they were, where it was
    /// decided.
    pub fn parse<A: Arguments + ?Sized>(args: &A) -> Option<ReplSet> {
        let read = Self::read(args.get(2), args.get(3), args.get(4))?;
        let mut tags = (Self::TAGS..args.len()).map(|at| args.get(at).len());
        let sound = tags.len() <= MAX_TAGS
            && tags.all(|len| (1..=MAX_TAG_BYTES).contains(&len))
            && Entry::fits(args.get(Self::KEY), args.get(Self::VALUE));
        sound.then_some(read)
    }

    fn read(end: &[u8], birth: &[u8], attributes: &[u8]) -> Option<ReplSet> {
        let deadline_ms = match end {
            b"-1" => None,
            text => Some(integer(text)?).filter(|ms| i64::try_from(*ms).is_ok()),
        };
        let ends_ms = deadline_ms.map_or(NEVER, |ms| ms.min(NEVER));
        let birth = Epoch(integer(birth)?);
        Some(ReplSet {
            deadline_ms,
            attributes: Attributes::unpack(integer(attributes)?, birth, ends_ms)?,
        })
    }
}

/// `MCACHE.REPLINVALIDATE epoch mode tag [tag ...]`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplInvalidate {
    /// When it was.
    pub epoch: Epoch,
    /// How far that is ahead of the wall clock by which what is soft becomes stale, in milliseconds.
    pub ahead_ms: u64,
    /// What was invalidated, and how.
    pub what: Invalidate,
}

impl ReplInvalidate {
    /// Parses what begins with the epoch at argument `from`; `None` for what no server writes.
    pub fn parse<A: Arguments + ?Sized>(args: &A, from: usize) -> Option<ReplInvalidate> {
        let (epoch, mode) = (integer(args.get(from))?, integer(args.get(from + 1))?);
        let (mode, ahead_ms) = (mode & 3, mode >> 2);
        let what = Invalidate::from_mode(mode, from + 2)?;
        (ahead_ms == 0 || what.soft).then_some(ReplInvalidate {
            epoch: Epoch(epoch),
            ahead_ms,
            what,
        })
    }

    /// Scope, kind and, of what is soft, the lead in one integer: nearly always there is none, and then it is
    /// [`Invalidate::mode`].
    pub fn mode(self) -> u64 {
        let ahead_ms = if self.what.soft { self.ahead_ms } else { 0 };
        self.what.mode() | ahead_ms << 2
    }

    /// What is done instead of what cannot be read: everything named is invalidated, and an epoch that no server
    /// reaches is taken for now.
    pub fn doubtful(from: usize) -> ReplInvalidate {
        ReplInvalidate {
            epoch: Epoch::END,
            ahead_ms: 0,
            what: Invalidate {
                scope: Scope::All,
                soft: false,
                near: false,
                tags_from: from + 2,
            },
        }
    }
}

/// The epoch that `MCACHE.REPLFLOOR epoch` names; one that no server reaches, if it cannot be read.
pub fn floor_epoch(text: &[u8]) -> Epoch {
    integer(text).map_or(Epoch::END, Epoch)
}

/// When an entry ends that a primary dealt with, as `MCACHE.REPLSHORTEN key end-ms` says; at once, if that cannot be
/// read.
pub fn shortened_end_ms(text: &[u8]) -> u64 {
    integer(text).unwrap_or(0)
}

/// `MCACHE.FETCH key [brief-ms] [LEASE ms] [WAIT ms] [EARLY ms] [NEAR subscription]`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// How long the lease lasts.
    pub lease_ms: u64,
    /// How long to wait for another client's fill; 0 does not wait.
    pub wait_ms: u64,
    /// How long a fill takes, for the chance to refresh a live entry early; 0 never does.
    pub early_ms: u64,
    /// A hit of which there is nothing else to say is answered with its value alone: `brief-ms` was given.
    pub brief: bool,
    /// For which near cache the value is read.
    pub near: Option<Named>,
}

impl Fetch {
    /// Parses; `lease_ms` is the default, `max_ms` bounds both times.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse<A: Arguments + ?Sized>(
        args: &A,
        lease_ms: u64,
        max_ms: u64,
    ) -> Result<Fetch, Error> {
        let mut fetch = Fetch {
            lease_ms,
            wait_ms: 0,
            early_ms: 0,
            brief: false,
            near: None,
        };
        let time = |what, got: &[u8], min| {
            let wrong = || Error::Integer {
                what,
                got: got.to_vec(),
                min,
                max: max_ms,
            };
            let ms = integer(got).filter(|ms| (min..=max_ms).contains(ms));
            ms.ok_or_else(wrong)
        };
        let mut at = 2;
        if args.len() > 2 && args.get(2).first().is_some_and(u8::is_ascii_digit) {
            fetch.lease_ms = time("brief-ms", args.get(2), 1)?;
            fetch.brief = true;
            at = 3;
        }
        while at < args.len() {
            if is_word(args.get(at), b"NEAR") {
                fetch.near = Some(subscription(args, at + 1)?);
                at += 2;
                continue;
            }
            let (what, min, field) = match args.get(at).to_ascii_uppercase().as_slice() {
                b"LEASE" => ("LEASE", 1, &mut fetch.lease_ms),
                b"WAIT" => ("WAIT", 0, &mut fetch.wait_ms),
                b"EARLY" => ("EARLY", 0, &mut fetch.early_ms),
                _ => {
                    return Err(Error::Syntax {
                        expected: "LEASE, WAIT, EARLY or NEAR",
                        got: args.get(at).to_vec(),
                    });
                }
            };
            if at + 1 == args.len() {
                return Err(Error::Missing {
                    after: what,
                    expected: "milliseconds",
                });
            }
            *field = time(what, args.get(at + 1), min)?;
            at += 2;
        }
        Ok(fetch)
    }
}

/// The subscription behind NEAR.
fn subscription<A: Arguments + ?Sized>(args: &A, at: usize) -> Result<Named, Error> {
    match at < args.len() {
        true => Ok(Named::parse(args.get(at))),
        false => Err(Error::Missing {
            after: "NEAR",
            expected: "a subscription",
        }),
    }
}

/// Checks the number of tags from `from` to the end, that none is empty, and that none has more than `longest` bytes.
/// Looks at each once: reading an argument is a call.
fn check_tags<A: Arguments + ?Sized>(
    args: &A,
    from: usize,
    limits: Limits,
    longest: usize,
) -> Result<(), Error> {
    let got = args.len().saturating_sub(from);
    if got == 0 {
        return Err(Error::Missing {
            after: "TAGS",
            expected: "at least one tag",
        });
    }
    if got > limits.tags {
        return Err(Error::TooManyTags {
            got,
            max: limits.tags,
        });
    }
    let mut too_long = None;
    for at in from..args.len() {
        match args.get(at).len() {
            0 => return Err(Error::EmptyTag),
            got if got > longest && too_long.is_none() => too_long = Some(got),
            _ => {}
        }
    }
    match too_long {
        Some(got) => Err(Error::TagTooLong { got, max: longest }),
        None => Ok(()),
    }
}

/// `cursor [MATCH pattern] [COUNT n]`, as the scanning commands have it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scan {
    /// Where to go on; 0 begins.
    pub cursor: u64,
    /// Index of the pattern among the arguments.
    pub pattern_at: Option<usize>,
    /// How much work a call may do.
    pub count: usize,
}

impl Scan {
    /// Most that COUNT can ask for: a page is built in memory and must not hold the server for long.
    pub const MAX_COUNT: u64 = 10_000;

    /// Parses from `at`, where the cursor stands. Patterns are understood only where `patterns` says so.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse<A: Arguments + ?Sized>(
        args: &A,
        at: usize,
        patterns: bool,
    ) -> Result<Scan, Error> {
        let cursor = integer(args.get(at)).ok_or_else(|| Error::Integer {
            what: "cursor",
            got: args.get(at).to_vec(),
            min: 0,
            max: u64::MAX,
        })?;
        let mut scan = Scan {
            cursor,
            pattern_at: None,
            count: 100,
        };
        let mut at = at + 1;
        while at < args.len() {
            let word = args.get(at);
            at += 1;
            if patterns && is_word(word, b"MATCH") {
                if at == args.len() {
                    return Err(Error::Missing {
                        after: "MATCH",
                        expected: "a pattern",
                    });
                }
                let bytes = args.get(at).len();
                if bytes > MAX_PATTERN_BYTES {
                    return Err(Error::PatternTooLong(bytes));
                }
                scan.pattern_at = Some(at);
            } else if is_word(word, b"COUNT") {
                if at == args.len() {
                    return Err(Error::Missing {
                        after: "COUNT",
                        expected: "a number",
                    });
                }
                let got = args.get(at);
                let count = integer(got).filter(|n| (1..=Scan::MAX_COUNT).contains(n));
                scan.count = count.ok_or_else(|| Error::Integer {
                    what: "COUNT",
                    got: got.to_vec(),
                    min: 1,
                    max: Scan::MAX_COUNT,
                })? as usize;
            } else {
                let expected = if patterns { "MATCH or COUNT" } else { "COUNT" };
                return Err(Error::Syntax {
                    expected,
                    got: word.to_vec(),
                });
            }
            at += 1;
        }
        Ok(scan)
    }
}

#[cfg(test)]
mod tests;
