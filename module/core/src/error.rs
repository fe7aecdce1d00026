//! What is said to a client whose command is refused. The text is the whole reply: code word first.

use crate::text::{MAX_PATTERN_BYTES, MAX_TTL_S};

/// A refused command; nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Error {
    #[error("ERR syntax error: expected {expected}, got '{}'", shown(.got))]
    Syntax {
        expected: &'static str,
        got: Vec<u8>,
    },
    #[error("ERR syntax error: {after} must be followed by {expected}")]
    Missing {
        after: &'static str,
        expected: &'static str,
    },
    #[error("ERR syntax error: {0} and {1} exclude each other")]
    Exclusive(&'static str, &'static str),
    #[error("ERR syntax error: {0} given twice")]
    Twice(&'static str),
    #[error("ERR invalid ttl '{}': expected seconds, a decimal number from 0 (no expiry) to {MAX_TTL_S}", shown(.0))]
    Ttl(Vec<u8>),
    #[error("ERR invalid SWR '{}': expected seconds, a decimal number from 0 to 4294967", shown(.0))]
    Swr(Vec<u8>),
    #[error("ERR SWR needs a ttl: an entry without expiry never becomes stale")]
    SwrWithoutTtl,
    #[error("ERR invalid {what} '{}': expected an integer from {min} to {max}", shown(.got))]
    Integer {
        what: &'static str,
        got: Vec<u8>,
        min: u64,
        max: u64,
    },
    #[error("ERR invalid token: expected the 32 hex digits that FETCH or TOKEN returned")]
    Token,
    #[error("ERR empty tag")]
    EmptyTag,
    #[error("ERR too many tags: {got}, mcache.max-tags is {max}")]
    TooManyTags { got: usize, max: usize },
    #[error("ERR tag too long: {got} bytes, mcache.max-tag-bytes is {max}")]
    TagTooLong { got: usize, max: usize },
    #[error("ERR {what} too long: {got} bytes, at most {max}")]
    TooLong {
        what: &'static str,
        got: usize,
        max: usize,
    },
    #[error("ERR pattern too long: {0} bytes, at most {MAX_PATTERN_BYTES}")]
    PatternTooLong(usize),
    #[error("ERR too many prefixes: at most {max}")]
    TooManyPrefixes { max: usize },
    #[error("ERR writes are paused, and dead entries cannot be freed")]
    Paused,
    #[error("ERR {0} is for replication and the append-only file only")]
    Internal(&'static str),
    #[error("NOPERM this user has no permission to access the tag '{}'", shown(.0))]
    TagPermission(Vec<u8>),
    #[error(
        "NOPERM this user may not read every name: name prefixes that it may read, behind PREFIX"
    )]
    PrefixMissing,
    #[error("NOPERM this user may not read the names that begin with '{}'", shown(.0))]
    PrefixPermission(Vec<u8>),
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
}

/// An argument as it may stand in a reply: one line, printable, short.
fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 64;
    let text = bytes[..bytes.len().min(MOST)].escape_ascii().to_string();
    if bytes.len() > MOST {
        text + "..."
    } else {
        text
    }
}
