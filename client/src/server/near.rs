//! What a near cache asks of the server: the feed, reads that say what they are worth, invalidations that say who must
//! still hear of them. Spelling and reading without I/O first, then the calls.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mcache_core::{
    feed::{HashKey, read_events},
    near::{Answer, Data},
};
use redis::{Cmd, Value, aio::MultiplexedConnection};
use tokio::time::timeout;

use super::{
    RedisProvider, Topology,
    call::CallError,
    command::{self, unexpected},
    link::Urgency,
    settle::{Acknowledged, Settling},
    slots::Node,
};
use crate::{
    Error, ErrorKind, Result, Tags,
    near::NearData,
    provider::{FetchOptions, Lookup, Mode, Store},
};

// ---- spelling and reading ----

fn feed(position: Option<&[u8]>, wait: Duration, prefix: &[u8]) -> Cmd {
    let mut cmd = redis::cmd("MCACHE.FEED");
    cmd.arg(position.unwrap_or(b"NEW"));
    cmd.arg("WAIT").arg(wait.as_millis() as u64);
    cmd.arg("PREFIX").arg(prefix);
    cmd
}

fn read_feed(value: Value) -> Result<Answer> {
    let Value::Array(parts) = value else {
        return Err(unexpected("an answer of FEED", &value));
    };
    let mut parts = parts.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let position = command::read_text(next())?;
    let lease_ms = command::read_count(next())?;
    let more = command::read_int(next())? != 0;
    let events = command::read_text(next())?;
    let events = read_events(&events)
        .ok_or_else(|| Error::new(ErrorKind::Protocol, "FEED told what are no events"))?;
    let gap = match next() {
        Value::Nil => None,
        Value::Array(gap) => {
            let Ok([key, bits]) = <[Value; 2]>::try_from(gap) else {
                return Err(unexpected("hash key and cell bits", &Value::Nil));
            };
            let key = command::read_text(key)?;
            let key = <[u8; 16]>::try_from(&key[..]);
            let key = key.map_err(|_| unexpected("sixteen bytes", &Value::Nil))?;
            let bits = u32::try_from(command::read_count(bits)?).unwrap_or(u32::MAX);
            Some((HashKey::new(key), bits))
        }
        other => return Err(unexpected("hash key and cell bits", &other)),
    };
    Ok(Answer {
        position: (&position[..]).into(),
        lease_ms,
        more,
        events,
        gap,
    })
}

/// What is said beside a value; `None`: it must not be kept.
fn read_near(value: Value) -> Result<Option<NearData>> {
    let parts = match value {
        Value::Nil => return Ok(None),
        Value::Array(parts) => parts,
        other => return Err(unexpected("four parts or nil", &other)),
    };
    let Ok([number, life, manual, digests]) = <[Value; 4]>::try_from(parts) else {
        return Err(unexpected("four parts or nil", &Value::Nil));
    };
    let digests = command::read_text(digests)?;
    let chunks = digests.chunks_exact(8);
    if !chunks.remainder().is_empty() {
        return Err(unexpected("digests of eight bytes", &Value::Nil));
    }
    let digests = chunks.map(|bytes| bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)));
    Ok(Some(NearData {
        data: Data {
            number: command::read_count(number)?,
            manual: command::read_int(manual)? != 0,
            digests: digests.collect(),
        },
        // -1: it does not end.
        life_ms: u64::try_from(command::read_int(life)?).ok(),
    }))
}

/// State, value, token and what is said beside it.
fn read_lookup(value: Value) -> Result<(Option<Lookup>, Option<NearData>)> {
    let Value::Array(mut parts) = value else {
        return Err(unexpected("state, value, token and near", &value));
    };
    let near = match parts.len() {
        4 => parts.pop().unwrap_or(Value::Nil),
        _ => Value::Nil,
    };
    Ok((command::read_lookup(Value::Array(parts))?, read_near(near)?))
}

/// A value and what is said beside it.
pub(crate) struct FoundNear {
    pub(crate) value: Bytes,
    pub(crate) near: Option<NearData>,
    /// Under which question it was read.
    pub(crate) asked: Option<usize>,
}

fn read_many(value: Value, expected: usize, asked: usize) -> Result<Vec<Option<FoundNear>>> {
    let values = match value {
        Value::Array(values) if values.len() == expected => values,
        other => return Err(unexpected("one value or nil per key", &other)),
    };
    let read = |value: Value| match value {
        Value::Nil => Ok(None),
        Value::Array(parts) => {
            let Ok([value, near]) = <[Value; 2]>::try_from(parts) else {
                return Err(unexpected("value and near", &Value::Nil));
            };
            Ok(Some(FoundNear {
                value: command::read_text(value)?,
                near: read_near(near)?,
                asked: Some(asked),
            }))
        }
        other => Err(unexpected("value and near", &other)),
    };
    values.into_iter().map(read).collect()
}

/// Count, leases to be waited for, for how many milliseconds. A server that knows of no near caches says the count
/// alone.
fn read_invalidated(value: Value) -> Result<Acknowledged> {
    let parts = match value {
        Value::Int(_) => return Ok(Acknowledged::settled(command::read_count(value)?)),
        Value::Array(parts) => parts,
        other => return Err(unexpected("count, leases, milliseconds", &other)),
    };
    let Ok([count, leases, longest_ms]) = <[Value; 3]>::try_from(parts) else {
        return Err(unexpected("count, leases, milliseconds", &Value::Nil));
    };
    Ok(Acknowledged::now(
        command::read_count(count)?,
        command::read_count(leases)?,
        command::read_count(longest_ms)?,
    ))
}

// ---- the feed ----

/// A connection on which the feed is asked.
pub(crate) struct FeedLine {
    connection: MultiplexedConnection,
    /// How much longer than it may be parked a call is waited for.
    patience: Duration,
    /// How long the server parked the last calls at most, as far as is known.
    lease: Option<Duration>,
}

/// Why there is no answer.
pub(crate) enum FeedError {
    /// The server says no, in its own words.
    Refused(String),
    /// The connection is of no use any more.
    Broken(Error),
}

impl FeedLine {
    /// One call. Given up, the connection must not be used again: the answer may still come.
    pub(crate) async fn ask(
        &mut self,
        position: Option<&[u8]>,
        wait: Duration,
        prefix: &[u8],
    ) -> Result<Answer, FeedError> {
        let cmd = feed(position, wait, prefix);
        // The server parks for a third of the lease; before the first answer it is not known how long that is.
        let parked = self.lease.map_or(wait, |lease| (lease / 3).min(wait));
        // A process that waits for longer than a lease serves nothing meanwhile, and the server keeps the log for ten.
        let patience = self
            .lease
            .map_or(self.patience, |lease| lease.min(self.patience));
        let asked = timeout(
            parked.saturating_add(patience),
            self.connection.send_packed_command(&cmd),
        );
        let answer = match asked.await {
            Err(_) => {
                return Err(FeedError::Broken(Error::new(
                    ErrorKind::Timeout,
                    "FEED has no answer",
                )));
            }
            Ok(Err(error)) => return Err(FeedError::Broken(CallError::from(error).into())),
            Ok(Ok(answer)) => answer,
        };
        let answer = match answer.extract_error() {
            Ok(answer) => answer,
            Err(error) => {
                let text = error.to_string();
                let error = Error::from(CallError::from(error));
                // NONEAR, NOPERM, or a server that does not know the command.
                let is_refused = error.is_refused() || error.kind() == ErrorKind::ModuleMissing;
                return Err(match is_refused {
                    true => FeedError::Refused(text),
                    false => FeedError::Broken(error),
                });
            }
        };
        let answer = read_feed(answer).map_err(FeedError::Broken)?;
        if answer.lease_ms > 0 {
            self.lease = Some(Duration::from_millis(answer.lease_ms));
        }
        Ok(answer)
    }
}

// ---- calls ----

impl RedisProvider {
    /// The primaries there are now.
    pub(crate) async fn nodes(&self) -> Result<Vec<Node>> {
        match &self.topology {
            Topology::Single(_) => Ok(vec![Node::the_only()]),
            Topology::Cluster(cluster) => cluster.nodes().await,
        }
    }

    /// The primary that owns the key.
    pub(crate) async fn node_of(&self, key: &[u8]) -> Result<Node> {
        match &self.topology {
            Topology::Single(_) => Ok(Node::the_only()),
            Topology::Cluster(cluster) => cluster.node_of(key).await,
        }
    }

    /// There may be another primary.
    pub(crate) fn look_again(&self) {
        if let Topology::Cluster(cluster) = &self.topology {
            cluster.refresh_soon();
        }
    }

    /// A connection for the feed of this primary.
    pub(crate) async fn feed_line(&self, node: &Node) -> Result<FeedLine> {
        let link = match &self.topology {
            Topology::Single(link) => link.clone(),
            Topology::Cluster(cluster) => cluster.link(node)?,
        };
        let connection = link.dial_apart("feed").await.map_err(CallError::from)?;
        Ok(FeedLine {
            connection,
            patience: link.command_deadline(),
            lease: None,
        })
    }

    /// Gives a subscription up. If that does not arrive, its lease ends by itself.
    pub(crate) async fn end_feed(&self, node: &Node, position: &[u8]) -> Result<()> {
        let mut line = self.feed_line(node).await?;
        let mut cmd = redis::cmd("MCACHE.FEED");
        cmd.arg(position).arg("END");
        let ended = line.connection.send_packed_command(&cmd).await;
        Ok(ended.map(drop).map_err(CallError::from)?)
    }

    /// FETCH, and what the near cache may make of it.
    pub(crate) async fn fetch_near(
        &self,
        key: &[u8],
        options: FetchOptions,
        position: &[u8],
    ) -> Result<(Lookup, Option<NearData>)> {
        let mut cmd = command::fetch(key, options, false);
        cmd.arg("NEAR").arg(position);
        let (lookup, near) = read_lookup(self.call_fetch(key, Arc::new(cmd), &options).await?)?;
        Ok((lookup.ok_or_else(|| self.is_replica())?, near))
    }

    /// Live values of several keys. `ask` notes a question to a primary before it is sent, and numbers it.
    pub(crate) async fn get_many_near(
        &self,
        keys: &[Bytes],
        mut ask: impl FnMut(&Node) -> Option<(Arc<[u8]>, usize)>,
    ) -> Result<Vec<Option<FoundNear>>> {
        let Some(first) = keys.first() else {
            return Ok(Vec::new());
        };
        let cluster = match &self.topology {
            Topology::Cluster(cluster) => cluster,
            Topology::Single(_) => {
                let bytes: usize = keys.iter().map(|key| self.large.bytes_of(key)).sum();
                let (cmd, asked) = get_many(keys.iter(), ask(&Node::the_only()));
                let answer = match bytes {
                    0 => self.call(first, &cmd).await?,
                    bytes => self.call_bulk(first, &cmd, bytes).await?,
                };
                let found = read_found(answer, keys.len(), asked)?;
                for (key, found) in keys.iter().zip(&found) {
                    let bytes = found.as_ref().map_or(0, |found| found.value.len());
                    self.large.note(key, bytes);
                }
                return Ok(found);
            }
        };
        let map = cluster.map().await?;
        cluster
            .call_split(
                keys,
                |keys| {
                    let node = map.link_for(keys[0]).ok().map(|(node, _)| node);
                    get_many(keys.into_iter(), node.and_then(&mut ask))
                },
                read_found,
            )
            .await
    }

    /// Stores; whether it was accepted, and what the near cache may make of it.
    pub(crate) async fn store_near(
        &self,
        entry: Store<'_>,
        position: &[u8],
    ) -> Result<(bool, Option<NearData>)> {
        let (cmd, bytes) = (command::set(&entry, Some(position)), entry.value.len());
        match self.call_store(entry.key, &cmd, bytes).await? {
            near @ Value::Array(_) => Ok((true, read_near(near)?)),
            other => Ok((command::read_stored(other)?, None)),
        }
    }

    /// Invalidates at every primary; how many entries, and which near caches have still to hear of it.
    pub(crate) async fn invalidate_near(
        &self,
        tags: &Tags,
        mode: Mode,
        prefix: &Bytes,
    ) -> Result<(u64, Settling)> {
        let (mut entries, mut settling) = (0, Settling::default());
        let mut rest = tags.iter();
        while rest.len() > 0 {
            let some = rest.by_ref().take(super::TAGS_PER_INVALIDATE);
            let cmd = command::invalidate(some, mode, true);
            match &self.topology {
                Topology::Single(link) => {
                    let answer = link.call(&cmd, Urgency::MustArrive).await?;
                    let one = read_invalidated(answer)?;
                    entries += one.entries;
                    settling.add(link.settlers(), one, prefix);
                }
                Topology::Cluster(cluster) => {
                    for (link, one) in cluster.call_primaries(&cmd, read_invalidated).await? {
                        entries += one.entries;
                        settling.add(link.settlers(), one, prefix);
                    }
                }
            }
        }
        Ok((entries, settling))
    }

    /// What was acknowledged just now, without a word about near caches.
    pub(crate) async fn settling(&self, prefix: &Bytes) -> Settling {
        let mut settling = Settling::default();
        match &self.topology {
            Topology::Single(link) => {
                settling.add(link.settlers(), Acknowledged::unknown(), prefix)
            }
            Topology::Cluster(cluster) => {
                // Primaries that are not known are waited for by time.
                for link in cluster.primaries().await.unwrap_or_default() {
                    settling.add(link.settlers(), Acknowledged::unknown(), prefix);
                }
                if settling.is_settled() {
                    settling.by_time_alone();
                }
            }
        }
        settling
    }
}

/// NEARGET where there is a subscription, else MGET; and the number of the question.
fn get_many<'a>(
    keys: impl Iterator<Item = &'a Bytes>,
    asked: Option<(Arc<[u8]>, usize)>,
) -> (Cmd, Option<usize>) {
    let Some((position, number)) = asked else {
        return (command::get_many(keys), None);
    };
    let mut cmd = redis::cmd("MCACHE.NEARGET");
    cmd.arg(&position[..]);
    for key in keys {
        cmd.arg(&key[..]);
    }
    (cmd, Some(number))
}

fn read_found(
    answer: Value,
    expected: usize,
    asked: Option<usize>,
) -> Result<Vec<Option<FoundNear>>> {
    let Some(asked) = asked else {
        let plain = command::read_values(answer, expected)?.into_iter();
        return Ok(plain
            .map(|value| {
                value.map(|value| FoundNear {
                    value,
                    near: None,
                    asked: None,
                })
            })
            .collect());
    };
    read_many(answer, expected, asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_beside_a_value_is_read_as_it_is_written() {
        let beside = |life, manual, digests: &[u8]| {
            let digests = Value::BulkString(digests.to_vec());
            let (life, manual) = (Value::Int(life), Value::Int(manual));
            read_near(Value::Array(vec![Value::Int(7), life, manual, digests]))
        };
        let digests = [1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128];
        let near = beside(-1, 1, &digests).expect("read").expect("near");
        assert_eq!((near.data.number, near.data.manual), (7, true));
        assert_eq!(near.data.digests, [0x0201, 1 << 63]);
        assert_eq!(near.life_ms, None, "it does not end");
        let near = beside(0, 0, &[]).expect("read").expect("near");
        assert_eq!((near.data.manual, near.life_ms), (false, Some(0)));
        assert!(beside(1, 0, &[1, 2]).is_err(), "half a digest");
        assert!(read_near(Value::Nil).expect("read").is_none());
    }
}
