//! The commands as the server spells them, and what its answers mean. No I/O.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value};

use crate::{
    Error, ErrorKind, Result,
    provider::{EntryState, FetchOptions, Inspection, Lookup, Mode, Store, Token},
};

/// What the server accepts for leases and waits.
pub(super) const LEASE_OR_WAIT_MAX: Duration = Duration::from_secs(600);

/// Enough for the keywords and numbers of any command, so that building one allocates once.
const KEYWORD_BYTES: usize = 96;

pub(super) fn get(key: &[u8]) -> Cmd {
    keyed("MCACHE.GET", key, 0)
}

pub(super) fn get_many<'a>(keys: impl IntoIterator<Item = &'a Bytes>) -> Cmd {
    let mut cmd = redis::cmd("MCACHE.MGET");
    for key in keys {
        cmd.arg(&key[..]);
    }
    cmd
}

/// `brief`: a hit of which there is nothing else to say may be answered with its value alone, if the lease is said.
pub(super) fn fetch(key: &[u8], options: FetchOptions, brief: bool) -> Cmd {
    let mut cmd = keyed("MCACHE.FETCH", key, 48);
    if let Some(lease) = options.lease {
        if !brief {
            cmd.arg("LEASE");
        }
        cmd.arg(millis(lease.min(LEASE_OR_WAIT_MAX)).max(1));
    }
    if !options.wait.is_zero() {
        cmd.arg("WAIT")
            .arg(millis(options.wait.min(LEASE_OR_WAIT_MAX)));
    }
    if !options.early.is_zero() {
        cmd.arg("EARLY")
            .arg(millis(options.early.min(LEASE_OR_WAIT_MAX)).max(1));
    }
    cmd
}

/// Whether a server answers so because it does not know `brief-ms` yet.
pub(super) fn knows_no_brief(error: &Error) -> bool {
    error.is_refused()
        && error
            .to_string()
            .contains("expected LEASE, WAIT, EARLY or NEAR")
}

pub(super) fn token(key: &[u8]) -> Cmd {
    keyed("MCACHE.TOKEN", key, 0)
}

/// `near`: the subscription of the near cache that is to keep it.
pub(super) fn set(entry: &Store<'_>, near: Option<&[u8]>) -> Cmd {
    let bytes =
        entry.key.len() + entry.value.len() + entry.tags.iter().map(<[u8]>::len).sum::<usize>();
    let mut cmd = Cmd::with_capacity(14 + entry.tags.len(), bytes + KEYWORD_BYTES);
    cmd.arg("MCACHE.SET").arg(entry.key);
    match entry.ttl {
        Some(ttl) => cmd.arg(seconds(ttl)),
        None => cmd.arg(0),
    };
    cmd.arg(&entry.value[..]);
    // What never expires has no time after its time.
    if !entry.swr.is_zero() && entry.ttl.is_some() {
        cmd.arg("SWR").arg(seconds(entry.swr));
    }
    if let Some(token) = entry.token {
        cmd.arg("TOKEN").arg(token.as_bytes());
    }
    if entry.manual {
        cmd.arg("MANUAL");
    }
    if let Some(subscription) = near {
        cmd.arg("NEAR").arg(subscription);
    }
    // Last, because everything after it is a tag.
    if !entry.tags.is_empty() {
        cmd.arg("TAGS");
        for tag in entry.tags {
            cmd.arg(tag);
        }
    }
    cmd
}

pub(super) fn release(key: &[u8], token: &Token) -> Cmd {
    let mut cmd = keyed("MCACHE.RELEASE", key, token.as_bytes().len());
    cmd.arg(token.as_bytes());
    cmd
}

/// RELEASE of the lease that came with this answer to FETCH.
pub(super) fn give_back(fetch: &Cmd, answer: Value) -> Option<Cmd> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let Some(Value::BulkString(token)) = parts.into_iter().nth(2) else {
        return None;
    };
    let key = argument(fetch, 1)?;
    Some(release(key, &Token::new(token)))
}

/// The words of a command, its name included, counted from 0.
pub(super) fn argument(cmd: &Cmd, position: usize) -> Option<&[u8]> {
    match cmd.args_iter().nth(position)? {
        redis::Arg::Simple(bytes) => Some(bytes),
        _ => None,
    }
}

/// Removes the entry, and keeps fills from storing it that are under way.
pub(super) fn clear(key: &[u8]) -> Cmd {
    keyed("MCACHE.CLEAR", key, 0)
}

/// UNLINK and not DEL: freeing a large value is no reason to hold the server up.
pub(super) fn unlink(key: &[u8]) -> Cmd {
    keyed("UNLINK", key, 0)
}

/// `near`: the answer is to say which near caches have still to hear of it.
pub(super) fn invalidate<'a>(
    tags: impl IntoIterator<Item = &'a [u8]>,
    mode: Mode,
    near: bool,
) -> Cmd {
    let mut cmd = redis::cmd("MCACHE.INVALIDATE");
    if mode.is_auto() {
        cmd.arg("AUTO");
    }
    if mode.is_soft() {
        cmd.arg("SOFT");
    }
    if near {
        cmd.arg("NEAR");
    }
    // Always said, so that a tag may be any bytes, an option word included.
    cmd.arg("TAGS");
    for tag in tags {
        cmd.arg(tag);
    }
    cmd
}

pub(super) fn inspect(key: &[u8]) -> Cmd {
    keyed("MCACHE.INSPECT", key, 0)
}

pub(super) fn read_value(value: Value) -> Result<Option<Bytes>> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        other => Err(unexpected("a value or nil", &other)),
    }
}

pub(super) fn read_values(value: Value, expected: usize) -> Result<Vec<Option<Bytes>>> {
    match value {
        Value::Array(values) if values.len() == expected => {
            values.into_iter().map(read_value).collect()
        }
        other => Err(unexpected("one value or nil per key", &other)),
    }
}

/// `None`: a miss on a replica, which hands out no right to fill.
pub(super) fn read_lookup(value: Value) -> Result<Option<Lookup>> {
    let parts = match value {
        Value::Array(parts) => parts,
        Value::BulkString(value) => return Ok(Some(Lookup::Hit(value.into()))),
        other => return Err(unexpected("state, value and token", &other)),
    };
    let Ok([state, value, token]) = <[Value; 3]>::try_from(parts) else {
        return Err(unexpected("state, value and token", &Value::Nil));
    };
    let token = match token {
        Value::Nil => None,
        token => Some(read_token(token)?),
    };
    let state = read_text(state)?;
    match (&state[..], read_value(value)?, token) {
        (b"hit", Some(value), None) => Ok(Some(Lookup::Hit(value))),
        (b"hit", Some(value), Some(token)) => Ok(Some(Lookup::Early { value, token })),
        (b"stale", Some(value), token) => Ok(Some(Lookup::Stale { value, token })),
        (b"miss", None, Some(token)) => Ok(Some(Lookup::Miss { token })),
        (b"miss", None, None) => Ok(None),
        (b"busy", None, None) => Ok(Some(Lookup::Busy)),
        _ => Err(Error::new(
            ErrorKind::Protocol,
            format!(
                "FETCH answered `{}` with the wrong parts",
                state.escape_ascii()
            ),
        )),
    }
}

pub(super) fn read_token(value: Value) -> Result<Token> {
    read_text(value).map(Token::new)
}

pub(super) fn read_stored(value: Value) -> Result<bool> {
    match value {
        Value::Okay => Ok(true),
        Value::Nil => Ok(false),
        other => Err(unexpected("OK or nil", &other)),
    }
}

pub(super) fn read_count(value: Value) -> Result<u64> {
    match value {
        Value::Int(count) if count >= 0 => Ok(count as u64),
        other => Err(unexpected("a count", &other)),
    }
}

pub(super) fn read_inspection(value: Value) -> Result<Option<Inspection>> {
    let fields = match value {
        Value::Nil => return Ok(None),
        Value::Map(fields) => fields,
        Value::Array(flat) => pairs(flat),
        other => return Err(unexpected("a map or nil", &other)),
    };
    let mut found = Inspection::new(EntryState::Live, 0);
    let mut state_seen = false;
    for (name, value) in fields {
        match &read_text(name)?[..] {
            b"state" => {
                state_seen = true;
                found.state = match &read_text(value)?[..] {
                    b"live" => EntryState::Live,
                    b"stale" => EntryState::Stale,
                    b"dead" => EntryState::Dead,
                    other => {
                        return Err(Error::new(
                            ErrorKind::Protocol,
                            format!("unknown state `{}`", other.escape_ascii()),
                        ));
                    }
                };
            }
            b"ttl_ms" => {
                found.ttl = u64::try_from(read_int(value)?)
                    .ok()
                    .map(Duration::from_millis)
            }
            b"age_ms" => found.age = Duration::from_millis(read_count(value)?),
            b"bytes" => found.bytes = read_count(value)?,
            b"manual" => found.manual = read_int(value)? != 0,
            b"birth" => found.birth = read_number(value)?,
            b"tags" => found.tags = read_names(value)?,
            b"reason" => {
                found.reason = Some(String::from_utf8_lossy(&read_text(value)?).into_owned())
            }
            // Later servers may say more.
            _ => {}
        }
    }
    match state_seen {
        true => Ok(Some(found)),
        false => Err(Error::new(
            ErrorKind::Protocol,
            "INSPECT named no state".to_owned(),
        )),
    }
}

fn keyed(name: &str, key: &[u8], extra: usize) -> Cmd {
    let mut cmd = Cmd::with_capacity(6, name.len() + key.len() + extra);
    cmd.arg(name).arg(key);
    cmd
}

/// Whole milliseconds; what is not zero does not become zero, which means something else.
fn millis(duration: Duration) -> u64 {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    millis.max(u64::from(!duration.is_zero()))
}

/// Seconds with decimals where they are needed.
fn seconds(duration: Duration) -> String {
    match millis(duration) {
        millis if millis % 1000 == 0 => (millis / 1000).to_string(),
        millis => format!("{}.{:03}", millis / 1000, millis % 1000),
    }
}

fn pairs(flat: Vec<Value>) -> Vec<(Value, Value)> {
    let mut flat = flat.into_iter();
    std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
}

pub(super) fn read_text(value: Value) -> Result<Bytes> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        Value::SimpleString(text) => Ok(text.into()),
        other => Err(unexpected("text", &other)),
    }
}

pub(super) fn read_int(value: Value) -> Result<i64> {
    match value {
        Value::Int(number) => Ok(number),
        other => Err(unexpected("an integer", &other)),
    }
}

/// Epochs are u64 and may come as text where an integer of RESP is too small.
fn read_number(value: Value) -> Result<u64> {
    match value {
        Value::Int(number) => Ok(number as u64),
        other => {
            let text = read_text(other)?;
            std::str::from_utf8(&text)
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| unexpected("a number", &Value::BulkString(text.to_vec())))
        }
    }
}

fn read_names(value: Value) -> Result<Vec<Bytes>> {
    match value {
        Value::Array(names) | Value::Set(names) => names.into_iter().map(read_text).collect(),
        other => Err(unexpected("a list of names", &other)),
    }
}

/// Says what came instead without repeating a value that may be large or private.
pub(super) fn unexpected(expected: &str, value: &Value) -> Error {
    let kind = match value {
        Value::Nil => "nil",
        Value::Int(_) => "an integer",
        Value::BulkString(_)
        | Value::SimpleString(_)
        | Value::Okay
        | Value::VerbatimString { .. } => "text",
        Value::Array(_) | Value::Set(_) => "an array",
        Value::Map(_) => "a map",
        _ => "something else",
    };
    Error::new(
        ErrorKind::Protocol,
        format!("expected {expected}, got {kind}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tags;

    fn words(cmd: &Cmd) -> Vec<String> {
        cmd.args_iter()
            .map(|arg| match arg {
                redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                other => panic!("unexpected argument {other:?}"),
            })
            .collect()
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn set_spells_every_option_and_puts_tags_last() {
        let tags = Tags::from_iter(["a", "TOKEN"]);
        let token = Token::new("0123");
        let full = Store {
            key: b"k",
            value: Bytes::from_static(b"v"),
            ttl: Some(Duration::from_millis(1500)),
            swr: Duration::from_secs(30),
            tags: &tags,
            manual: true,
            token: Some(&token),
        };
        assert_eq!(
            words(&set(&full, None)),
            [
                "MCACHE.SET",
                "k",
                "1.500",
                "v",
                "SWR",
                "30",
                "TOKEN",
                "0123",
                "MANUAL",
                "TAGS",
                "a",
                "TOKEN"
            ]
        );
        let plain = Store {
            ttl: None,
            tags: &Tags::new(),
            manual: false,
            token: None,
            ..full
        };
        assert_eq!(words(&set(&plain, None)), ["MCACHE.SET", "k", "0", "v"]);
    }

    #[test]
    fn a_lifetime_too_short_to_spell_does_not_become_no_expiry() {
        assert_eq!(seconds(Duration::from_nanos(1)), "0.001");
        assert_eq!(seconds(Duration::from_secs(3600)), "3600");
        assert_eq!(millis(Duration::from_micros(10)), 1);
        assert_eq!(millis(Duration::ZERO), 0);
    }

    #[test]
    fn invalidate_always_says_tags() {
        let tags = Tags::from_iter(["AUTO"]);
        let spelled = |mode| words(&invalidate(&tags, mode, false));
        assert_eq!(spelled(Mode::Hard), ["MCACHE.INVALIDATE", "TAGS", "AUTO"]);
        assert_eq!(
            spelled(Mode::AutoSoft),
            ["MCACHE.INVALIDATE", "AUTO", "SOFT", "TAGS", "AUTO"]
        );
    }

    #[test]
    fn fetch_names_only_what_differs_from_the_servers_defaults() {
        assert_eq!(
            words(&fetch(b"k", FetchOptions::default(), false)),
            ["MCACHE.FETCH", "k"]
        );
        let options = FetchOptions {
            wait: Duration::from_secs(2),
            lease: Some(Duration::from_millis(5)),
            early: Duration::from_millis(7),
        };
        assert_eq!(
            words(&fetch(b"k", options, true)),
            ["MCACHE.FETCH", "k", "5", "WAIT", "2000", "EARLY", "7"]
        );
        assert_eq!(words(&fetch(b"k", options, false))[2..4], ["LEASE", "5"]);
    }

    #[test]
    fn each_answer_of_fetch_is_understood_and_nothing_else() {
        let answer =
            |state: &str, value, token| read_lookup(Value::Array(vec![bulk(state), value, token]));
        let value = || bulk("v");
        let token = || bulk("t");
        let understood = [
            (read_lookup(bulk("v")), Some(Lookup::Hit("v".into()))),
            (
                answer("hit", value(), Value::Nil),
                Some(Lookup::Hit("v".into())),
            ),
            (
                answer("hit", value(), token()),
                Some(Lookup::Early {
                    value: "v".into(),
                    token: Token::new("t"),
                }),
            ),
            (
                answer("stale", value(), token()),
                Some(Lookup::Stale {
                    value: "v".into(),
                    token: Some(Token::new("t")),
                }),
            ),
            (
                answer("miss", Value::Nil, token()),
                Some(Lookup::Miss {
                    token: Token::new("t"),
                }),
            ),
            (answer("miss", Value::Nil, Value::Nil), None),
            (answer("busy", Value::Nil, Value::Nil), Some(Lookup::Busy)),
        ];
        for (answer, expected) in understood {
            assert_eq!(answer.unwrap(), expected);
        }
        for nonsense in [
            answer("hit", Value::Nil, Value::Nil),
            answer("miss", value(), token()),
            answer("perhaps", value(), token()),
            read_lookup(Value::Array(vec![bulk("hit")])),
            read_lookup(Value::Okay),
        ] {
            assert!(matches!(nonsense.unwrap_err().kind(), ErrorKind::Protocol));
        }
    }

    #[test]
    fn an_inspection_reads_the_same_from_both_protocols() {
        let fields = [
            ("state", bulk("dead")),
            ("ttl_ms", Value::Int(-1)),
            ("age_ms", Value::Int(12)),
            ("bytes", Value::Int(7)),
            ("manual", Value::Int(1)),
            ("birth", bulk("18446744073709551615")),
            ("tags", Value::Array(vec![bulk("a"), bulk("b")])),
            ("reason", bulk("tag a was invalidated")),
            ("of_a_later_version", Value::Nil),
        ];
        let map = Value::Map(
            fields
                .iter()
                .map(|(name, value)| (bulk(name), value.clone()))
                .collect(),
        );
        let flat = Value::Array(
            fields
                .iter()
                .flat_map(|(name, value)| [bulk(name), value.clone()])
                .collect(),
        );
        let found = read_inspection(map).unwrap().unwrap();
        assert_eq!(found.state, EntryState::Dead);
        assert_eq!((found.ttl, found.bytes, found.manual), (None, 7, true));
        assert_eq!(found.birth, u64::MAX);
        assert_eq!(found.tags, ["a", "b"]);
        assert_eq!(read_inspection(flat).unwrap().unwrap(), found);
        assert_eq!(read_inspection(Value::Nil).unwrap(), None);
        assert!(read_inspection(Value::Array(Vec::new())).is_err());
    }
}
