//! What one hash tag holds, and with which text it is talked to: finding the text that is its witness, and making the
//! room anew where there is none.
//!
//! ```text
//!             no text yet                        the server does not know the text (NOSCRIPT)
//!                  │                                          │
//!                  ▼                                          ▼
//!       who is the room's witness? ── another than ours ──▶ talk to that one
//!                  │ none, or the one that is gone
//!                  ▼
//!       SCRIPT LOAD a text that is new, then let it make the room: everything in it is dead
//! ```

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use redis::{Cmd, Value};

use super::script::{self, Answer, Call, Witness};
use crate::{Error, ErrorKind, Result};

/// How often a call follows a room whose witness changes under it before it leaves it to the next.
const ATTEMPTS: usize = 6;

/// What carries a command to the node of a room.
pub(super) trait Carry: Sync {
    fn carry<'a>(
        &'a self,
        key: &'a [u8],
        cmd: &'a Arc<Cmd>,
        how: How,
    ) -> Pin<Box<dyn Future<Output = Result<Value>> + Send + 'a>>;
}

/// In which way a command travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It has something to fall back to.
    Optional,
    /// As `Optional`; the answer may be large.
    Value,
    /// As `Value`; a lease may come with the answer, which is given back if the caller has gone by then.
    Leasing,
    /// As `Optional`; it brings so many bytes.
    Large(usize),
    /// It has to arrive.
    Urgent,
}

pub(super) struct Room {
    /// What is before each of its keys, the hash tag included.
    prefix: Bytes,
    /// Its own key.
    key: Bytes,
    group_max: usize,
    witness: Mutex<Option<Witness>>,
    /// One finds out or makes it at a time.
    recovering: tokio::sync::Mutex<()>,
}

impl Room {
    pub(super) fn new(prefix: String, group_max: usize) -> Self {
        Self {
            key: format!("{prefix}c").into(),
            prefix: prefix.into(),
            group_max,
            witness: Mutex::default(),
            recovering: tokio::sync::Mutex::default(),
        }
    }

    /// Its own key, which is where it is.
    pub(super) fn place(&self) -> &[u8] {
        &self.key
    }

    /// The key in the server of an entry.
    pub(super) fn entry(&self, name: &[u8]) -> Bytes {
        [&self.prefix, &b"v:"[..], name].concat().into()
    }

    /// Where those who wait for a lease are told.
    pub(super) fn channel(&self) -> Bytes {
        [&self.prefix, &b"w"[..]].concat().into()
    }

    /// Calls the script with these arguments, after the steps that it needs (finding the room's witness, loading the
    /// script).
    pub(super) async fn call(
        &self,
        wire: &impl Carry,
        key: &[u8],
        call: &Call,
        how: How,
    ) -> Result<Vec<Value>> {
        for _ in 0..ATTEMPTS {
            let Some(witness) = self.witness() else {
                Box::pin(self.recover(wire, None, how)).await?;
                continue;
            };
            match self.say(wire, key, &witness, call, how).await? {
                Some(Answer::Done(parts)) => return Ok(parts),
                Some(Answer::Another(other)) => self.believe(other),
                Some(Answer::Foreign) => return Err(foreign()),
                Some(Answer::NoRoom) => {
                    let turn = script::turn(&self.key, &witness.sha, b"");
                    Box::pin(self.say(wire, &self.key, &witness, &turn, how)).await?;
                }
                None => Box::pin(self.recover(wire, Some(witness), how)).await?,
            }
        }
        Err(changing())
    }

    /// `None`: the server does not know the text.
    async fn say(
        &self,
        wire: &impl Carry,
        key: &[u8],
        witness: &Witness,
        call: &Call,
        how: How,
    ) -> Result<Option<Answer>> {
        let cmd = Arc::new(call.to(&witness.sha));
        match wire.carry(key, &cmd, how).await {
            Err(error) if is_unknown_script(&error) => Ok(None),
            answer => Answer::read(answer?).map(Some),
        }
    }

    /// The text is gone that was known, or none was.
    async fn recover(&self, wire: &impl Carry, gone: Option<Witness>, how: How) -> Result<()> {
        let _one = self.recovering.lock().await;
        if self.witness() != gone {
            return Ok(());
        }
        let how = match how {
            How::Urgent => How::Urgent,
            _ => How::Optional,
        };
        // The first 57 bytes, of an entry of any size. Only a hint: the entry's text decides.
        let mut look = redis::cmd("GETRANGE");
        look.arg(&self.key[..]).arg(0).arg(56);
        let there = Witness::of_room(&wire.carry(&self.key, &Arc::new(look), how).await?);
        if let Some(there) = there
            && Some(&there.name) != gone.as_ref().map(|gone| &gone.name)
        {
            self.believe(there);
            return Ok(());
        }
        // Never loaded twice and never by another: what a server knows by this digest, it was told since it started.
        let (text, name) = script::new_text(self.group_max);
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(text);
        let sha = match wire.carry(&self.key, &Arc::new(load), how).await? {
            Value::BulkString(sha) => sha.into(),
            Value::SimpleString(sha) => sha.into(),
            _ => {
                return Err(Error::new(
                    ErrorKind::Protocol,
                    "SCRIPT LOAD did not answer with a digest",
                ));
            }
        };
        let ours = Witness { name, sha };
        let gone = gone.map(|gone| gone.name).unwrap_or_default();
        let turn = script::turn(&self.key, &ours.sha, &gone);
        match self.say(wire, &self.key, &ours, &turn, how).await? {
            Some(Answer::Done(_)) => {
                tracing::debug!(room = %self.key.escape_ascii(), "made anew: nothing from before is served");
                self.believe(ours);
                Ok(())
            }
            Some(Answer::Another(other)) => {
                self.believe(other);
                Ok(())
            }
            Some(Answer::Foreign) => Err(foreign()),
            // Loaded into one server and called in another: the next attempt is with another text.
            Some(Answer::NoRoom) | None => Err(changing()),
        }
    }

    fn witness(&self) -> Option<Witness> {
        self.witness
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn believe(&self, witness: Witness) {
        *self.witness.lock().unwrap_or_else(PoisonError::into_inner) = Some(witness);
    }
}

/// Rooms by the hash of the key, all at the same server or in the same cluster.
#[derive(Clone)]
pub(super) struct Rooms(Arc<[Room]>);

impl Rooms {
    pub(super) fn new(rooms: Vec<Room>) -> Self {
        Self(rooms.into())
    }

    pub(super) fn index(&self, key: &[u8]) -> usize {
        match self.0.len() {
            1 => 0,
            rooms => (super::digest::digest(key) % rooms as u64) as usize,
        }
    }

    pub(super) fn of(&self, key: &[u8]) -> &Room {
        &self.0[self.index(key)]
    }

    pub(super) fn all(&self) -> &[Room] {
        &self.0
    }
}

fn is_unknown_script(error: &Error) -> bool {
    error.code() == Some("NOSCRIPT")
}

fn foreign() -> Error {
    Error::new(
        ErrorKind::Refused,
        "the namespace is used by another version of mcache; give this one a namespace of its own",
    )
}

fn changing() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the server changes under the call: its scripts or the node are not those of a moment ago",
    )
}
