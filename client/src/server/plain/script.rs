//! What is said to the script and what its answers mean. No I/O.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value};

use super::{
    super::command::{LEASE_OR_WAIT_MAX, argument},
    digest::{digest, digests, mark},
};
use crate::{
    Error, ErrorKind, Result,
    provider::{EntryState, FetchOptions, Inspection, Lookup, Mode, Store, Token},
};

/// The script as it is, but for the two names in it.
const PARTS: [&str; 4] = [
    include_str!("room.lua"),
    include_str!("judge.lua"),
    include_str!("read.lua"),
    include_str!("write.lua"),
];

/// No duration given to the server is longer: about a century.
const EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The text that one server runs, and its name. The client that loads it draws it at random and loads it on no other
/// server: a server that knows it by its digest has been running since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Witness {
    pub(super) name: Bytes,
    /// In hexadecimal, as EVALSHA takes it.
    pub(super) sha: Bytes,
}

impl Witness {
    const NAME_BYTES: usize = 16;
    const SHA_BYTES: usize = 40;

    /// From the two in a row.
    fn read(both: &[u8]) -> Option<Self> {
        let is_long_enough = both.len() == Self::NAME_BYTES + Self::SHA_BYTES;
        is_long_enough.then(|| Self {
            name: Bytes::copy_from_slice(&both[..Self::NAME_BYTES]),
            sha: Bytes::copy_from_slice(&both[Self::NAME_BYTES..]),
        })
    }

    /// From the beginning of the room's own key.
    pub(super) fn of_room(value: &Value) -> Option<Self> {
        match value {
            Value::BulkString(bytes) => Self::read(bytes.get(1..)?),
            _ => None,
        }
    }
}

/// A text that no other process has, and its name.
pub(super) fn new_text(group_max: usize) -> (String, Bytes) {
    let name = format!("{:016x}", fastrand::u64(..));
    let text = PARTS.concat();
    let text = text.replace("@WITNESS@", &name);
    (
        text.replace("@GROUP_MAX@", &group_max.to_string()),
        name.into(),
    )
}

/// One call of the script, without the text it is a call of.
pub(super) struct Call {
    keys: usize,
    words: Cmd,
    /// About how large it is.
    bytes: usize,
}

impl Call {
    fn new(operation: &str, room: &[u8], keys: &[&[u8]], bytes: usize) -> Self {
        let mut words = Cmd::with_capacity(12 + keys.len(), bytes + 160);
        words.arg(room);
        for key in keys {
            words.arg(*key);
        }
        words.arg(operation);
        Self {
            keys: 1 + keys.len(),
            words,
            bytes,
        }
    }

    fn arg(mut self, argument: impl redis::ToRedisArgs) -> Self {
        self.words.arg(argument);
        self
    }

    /// Said to the text of this digest.
    pub(super) fn to(&self, sha: &[u8]) -> Cmd {
        let mut cmd = Cmd::with_capacity(16, self.bytes + 224);
        cmd.arg("EVALSHA").arg(sha).arg(self.keys);
        for argument in self.words.args_iter() {
            if let redis::Arg::Simple(bytes) = argument {
                cmd.arg(bytes);
            }
        }
        cmd
    }
}

/// Makes the room, unless another than `gone` is its witness.
pub(super) fn turn(room: &[u8], sha: &[u8], gone: &[u8]) -> Call {
    let incarnation = fastrand::u64(..).to_be_bytes();
    Call::new("T", room, &[], 64)
        .arg(sha)
        .arg(&incarnation[..])
        .arg(gone)
}

pub(super) fn get(room: &[u8], key: &[u8]) -> Call {
    Call::new("G", room, &[key], key.len())
}

pub(super) fn get_many(room: &[u8], keys: &[&[u8]]) -> Call {
    Call::new("M", room, keys, keys.iter().map(|key| key.len()).sum())
}

pub(super) fn fetch(room: &[u8], key: &[u8], options: &FetchOptions, lease: Duration) -> Call {
    let lease = options.lease.unwrap_or(lease).min(LEASE_OR_WAIT_MAX);
    let early = match options.early {
        Duration::ZERO => 0,
        fill => mcache_core::early::ahead_ms(millis(fill), fastrand::u64(..)) as u64,
    };
    Call::new("F", room, &[key], key.len())
        .arg(&who()[..])
        .arg(millis(lease).max(1))
        .arg(early)
        .arg(u8::from(!options.wait.is_zero()))
}

pub(super) fn token(room: &[u8], key: &[u8]) -> Call {
    Call::new("K", room, &[key], key.len()).arg(&who()[..])
}

pub(super) fn store(room: &[u8], key: &[u8], entry: &Store<'_>) -> Call {
    let mut tags: Vec<(u64, &[u8])> = entry.tags.iter().map(|tag| (digest(tag), tag)).collect();
    tags.sort_unstable();
    tags.dedup();
    let mut names = Vec::new();
    for (_, tag) in &tags {
        names.extend_from_slice(&u32::try_from(tag.len()).unwrap_or(u32::MAX).to_be_bytes());
        names.extend_from_slice(tag);
    }
    let digests: Vec<u8> = tags
        .iter()
        .flat_map(|(digest, _)| digest.to_be_bytes())
        .collect();
    let (ttl, swr) = match entry.ttl {
        Some(ttl) => (millis(ttl).max(1), millis(entry.swr)),
        // What never expires has no time after its time.
        None => (0, 0),
    };
    let bytes = key.len() + entry.value.len() + names.len() + digests.len();
    Call::new("S", room, &[key], bytes)
        .arg(entry.token.map_or(&b""[..], said))
        .arg(u8::from(entry.manual))
        .arg(ttl)
        .arg(swr)
        .arg(digests)
        .arg(names)
        .arg(&entry.value[..])
        .arg(&mark(entry.key)[..])
}

/// A token of ours, or something that is none: nothing at all would mean that the fill begins now.
fn said(token: &Token) -> &[u8] {
    match token.as_bytes().len() {
        32 => token.as_bytes(),
        _ => b"?",
    }
}

pub(super) fn release(room: &[u8], key: &[u8], token: &Token) -> Call {
    Call::new("R", room, &[key], key.len()).arg(token.as_bytes())
}

/// What gives back the lease that came with this answer to a call of [`fetch`].
pub(super) fn give_back(fetch: &Cmd, answer: Value) -> Option<Cmd> {
    let Answer::Done(parts) = Answer::read(answer).ok()? else {
        return None;
    };
    let Found::Answer(
        Lookup::Miss { token }
        | Lookup::Early { token, .. }
        | Lookup::Stale {
            token: Some(token), ..
        },
    ) = read_lookup(parts).ok()?
    else {
        return None;
    };
    // EVALSHA, the text's digest, the number of keys, the room's key, the entry's.
    let [sha, room, key] = [1, 3, 4].map(|position| argument(fetch, position));
    Some(release(room?, key?, &token).to(sha?))
}

/// `name` is the key as the caller knows it.
pub(super) fn clear(room: &[u8], key: &[u8], name: &[u8]) -> Call {
    Call::new("C", room, &[key], key.len()).arg(&mark(name)[..])
}

pub(super) fn invalidate<'a>(
    room: &[u8],
    tags: impl Iterator<Item = &'a [u8]>,
    mode: Mode,
) -> Call {
    let digests = digests(tags);
    Call::new("I", room, &[], digests.len())
        .arg(u8::from(mode.is_auto()))
        .arg(u8::from(mode.is_soft()))
        .arg(digests)
}

pub(super) fn inspect(room: &[u8], key: &[u8]) -> Call {
    Call::new("N", room, &[key], key.len())
}

/// What the script said, before what was asked for.
pub(super) enum Answer {
    Done(Vec<Value>),
    /// Another text is the room's witness.
    Another(Witness),
    /// Of a version that we do not know.
    Foreign,
    /// There is no room yet.
    NoRoom,
}

impl Answer {
    pub(super) fn read(value: Value) -> Result<Self> {
        let Value::Array(mut parts) = value else {
            return Err(unexpected("an answer of the script"));
        };
        if parts.is_empty() {
            return Err(unexpected("an answer of the script"));
        }
        let rest = parts.split_off(1);
        match (&parts[0], &rest[..]) {
            (Value::Int(1), _) => Ok(Self::Done(rest)),
            (Value::Int(0), [Value::BulkString(both)]) => Witness::read(both)
                .map(Self::Another)
                .ok_or_else(|| unexpected("the name of a script")),
            (Value::Int(2), _) => Ok(Self::Foreign),
            (Value::Int(3), _) => Ok(Self::NoRoom),
            _ => Err(unexpected("an answer of the script")),
        }
    }
}

pub(super) fn read_value(parts: Vec<Value>) -> Result<Option<Bytes>> {
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next()) {
        (None | Some(Value::Nil), None) => Ok(None),
        (Some(Value::BulkString(bytes)), None) => Ok(Some(bytes.into())),
        _ => Err(unexpected("a value or nothing")),
    }
}

pub(super) fn read_values(parts: Vec<Value>, expected: usize) -> Result<Vec<Option<Bytes>>> {
    if parts.len() != expected {
        return Err(unexpected("one value or nothing for each key"));
    }
    parts
        .into_iter()
        .map(|part| read_value(vec![part]))
        .collect()
}

/// What a FETCH found.
pub(super) enum Found {
    Answer(Lookup),
    /// Another process fills; the lease ends by then if it is not given back.
    Busy {
        ends_in: Duration,
    },
}

pub(super) fn read_lookup(parts: Vec<Value>) -> Result<Found> {
    let mut parts = parts.into_iter();
    let text = |part: Option<Value>| match part {
        Some(Value::BulkString(bytes)) => Some(Bytes::from(bytes)),
        _ => None,
    };
    let state = text(parts.next()).unwrap_or_default();
    let (first, second) = (parts.next(), parts.next());
    let token = |part| text(part).map(Token::new);
    match (&state[..], first) {
        (b"h", value @ Some(Value::BulkString(_))) => {
            let value = text(value).unwrap_or_default();
            Ok(Found::Answer(match token(second) {
                None => Lookup::Hit(value),
                Some(token) => Lookup::Early { value, token },
            }))
        }
        (b"s", value @ Some(Value::BulkString(_))) => Ok(Found::Answer(Lookup::Stale {
            value: text(value).unwrap_or_default(),
            token: token(second),
        })),
        (b"m", Some(Value::BulkString(bytes))) => Ok(Found::Answer(Lookup::Miss {
            token: Token::new(bytes),
        })),
        (b"b", Some(Value::Int(left))) => Ok(Found::Busy {
            ends_in: Duration::from_millis(u64::try_from(left).unwrap_or(0)),
        }),
        _ => Err(unexpected("state, value and token")),
    }
}

pub(super) fn read_token(mut parts: Vec<Value>) -> Result<Token> {
    match parts.pop() {
        Some(Value::BulkString(bytes)) => Ok(Token::new(bytes)),
        _ => Err(unexpected("a token")),
    }
}

pub(super) fn read_yes(mut parts: Vec<Value>) -> Result<bool> {
    match parts.pop() {
        Some(Value::Int(number)) => Ok(number > 0),
        _ => Err(unexpected("a number")),
    }
}

pub(super) fn read_inspection(parts: Vec<Value>) -> Result<Option<Inspection>> {
    if parts.is_empty() {
        return Ok(None);
    }
    let [state, ttl, age, bytes, manual, birth, names, why] =
        <[Value; 8]>::try_from(parts).map_err(|_| unexpected("what is known of an entry"))?;
    let number = |value: &Value| match value {
        Value::Int(number) => Ok(*number),
        _ => Err(unexpected("a number")),
    };
    let text = |value: Value| match value {
        Value::BulkString(bytes) => Some(Bytes::from(bytes)),
        _ => None,
    };
    let state = match text(state).as_deref() {
        Some(b"live") => EntryState::Live,
        Some(b"stale") => EntryState::Stale,
        Some(b"dead") => EntryState::Dead,
        _ => return Err(unexpected("a state")),
    };
    let bytes = u64::try_from(number(&bytes)?).unwrap_or(0);
    let mut found = Inspection::new(state, bytes);
    found.ttl = u64::try_from(number(&ttl)?).ok().map(Duration::from_millis);
    found.age = Duration::from_millis(u64::try_from(number(&age)?).unwrap_or(0));
    found.manual = number(&manual)? > 0;
    found.birth = u64::try_from(number(&birth)?).unwrap_or(0);
    found.tags = read_names(text(names).unwrap_or_default())?;
    found.reason = text(why).map(|why| String::from_utf8_lossy(&why).into_owned());
    Ok(Some(found))
}

fn read_names(mut rest: Bytes) -> Result<Vec<Bytes>> {
    let mut names = Vec::new();
    while !rest.is_empty() {
        let length = rest
            .get(..4)
            .and_then(|length| <[u8; 4]>::try_from(length).ok())
            .map(|length| u32::from_be_bytes(length) as usize)
            .filter(|length| rest.len() >= 4 + length)
            .ok_or_else(|| unexpected("the names of tags"))?;
        let tail = rest.split_off(4 + length);
        names.push(rest.slice(4..));
        rest = tail;
    }
    Ok(names)
}

/// Tells a lease from every other.
fn who() -> [u8; 8] {
    fastrand::u64(..).to_be_bytes()
}

/// Whole milliseconds; what is not zero does not become zero, which means something else.
fn millis(duration: Duration) -> u64 {
    let millis = u64::try_from(duration.min(EVER).as_millis()).unwrap_or(u64::MAX);
    millis.max(u64::from(!duration.is_zero()))
}

fn unexpected(expected: &str) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("expected {expected}, got something else"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tags;

    fn words(cmd: &Cmd) -> Vec<Vec<u8>> {
        cmd.args_iter()
            .map(|arg| match arg {
                redis::Arg::Simple(bytes) => bytes.to_vec(),
                other => panic!("unexpected argument {other:?}"),
            })
            .collect()
    }

    #[test]
    fn no_two_texts_are_the_same_and_no_name_is_left_open() {
        let ((one, _), (other, name)) = (new_text(512), new_text(512));
        assert_ne!(one, other);
        assert!(!other.contains('@'));
        assert!(other.contains(std::str::from_utf8(&name).expect("text")));
        assert_eq!(name.len(), Witness::NAME_BYTES);
    }

    #[test]
    fn a_call_names_text_keys_and_operation() {
        let cmd = words(&get(b"{r}:c", b"{r}:v:k").to(b"abc"));
        let expected: [&[u8]; 6] = [b"EVALSHA", b"abc", b"2", b"{r}:c", b"{r}:v:k", b"G"];
        assert_eq!(cmd, expected);
    }

    #[test]
    fn the_digests_of_an_entry_are_in_the_order_of_its_names() {
        let tags = Tags::from_iter(["b", "a", "b", "c"]);
        let cmd = words(&store(b"{r}:c", b"k", &Store::new(b"k", "v", &tags)).to(b"abc"));
        let (digests, names) = (&cmd[10], read_names(cmd[11].clone().into()).expect("names"));
        assert_eq!(names.len(), 3, "each once");
        for (name, found) in names.iter().zip(digests.chunks(8)) {
            assert_eq!(found, digest(name).to_be_bytes());
        }
        assert!(digests.chunks(8).is_sorted());
    }

    #[test]
    fn an_answer_is_understood_or_an_error() {
        let both = Value::BulkString(vec![b'a'; 56]);
        let read = |parts| Answer::read(Value::Array(parts));
        assert!(matches!(
            read(vec![Value::Int(0), both]),
            Ok(Answer::Another(_))
        ));
        assert!(matches!(read(vec![Value::Int(3)]), Ok(Answer::NoRoom)));
        assert!(matches!(read(vec![Value::Int(2)]), Ok(Answer::Foreign)));
        for nonsense in [
            Vec::new(),
            vec![Value::Int(9)],
            vec![Value::Int(0), Value::BulkString(vec![b'a'])],
        ] {
            assert!(read(nonsense).is_err());
        }
        assert!(Answer::read(Value::Okay).is_err());
        assert!(read_lookup(vec![Value::BulkString(b"h".to_vec())]).is_err());
        assert!(read_names(Bytes::from_static(&[0, 0, 0, 9, 1])).is_err());
    }

    #[test]
    fn no_duration_overflows_and_none_becomes_zero() {
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert!(millis(Duration::MAX) < 1 << 43);
    }
}
