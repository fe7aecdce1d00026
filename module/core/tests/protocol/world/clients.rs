//! Clients: readers that fill, writers that invalidate, and connections that break.

use super::{
    Event, KEYS, Reader, SHARDS, TAGS, Value, World, Write, assert_at_least, is_writer,
    shard_of_writer, writer_at, writer_of,
};
use crate::server::{Invalidation, Reply, Request};

impl World {
    pub(super) fn read(&mut self) {
        let key = self.rng.u8(..KEYS);
        self.next += 1;
        let client = self.next;
        let reader = Reader {
            key,
            floors: self.store.floors(key),
            shard: self.owner[usize::from(key)],
            filling: None,
            loaded: Value::default(),
        };
        let shard = reader.shard;
        self.readers.insert(client, reader);
        let request = match self.rng.u8(..5) {
            0 => Request::Get(key),
            _ => Request::Fetch {
                key,
                lease_ms: self.rng.u64(5..150),
                wait_ms: self.rng.u64(0..2) * self.rng.u64(0..400),
                early_ms: self.rng.u64(0..2) * 200,
            },
        };
        self.send(shard, client, request);
        if self.rng.u8(..) < 6 {
            let delay_ms = self.rng.u64(0..100);
            self.after(delay_ms, Event::Vanish { client });
        }
    }

    pub(super) fn write(&mut self) {
        let tag = self.rng.u8(..TAGS);
        let version = &mut self.store.versions[usize::from(tag)];
        *version += 1;
        self.next += 1;
        let client = self.next;
        let invalidation = Invalidation {
            tag,
            auto: self.rng.bool(),
            soft: self.rng.u8(..3) == 0,
            at_once: self.rng.bool(),
        };
        let write = Write {
            invalidation,
            version: *version,
            pending: (0..SHARDS).collect(),
        };
        self.writes.insert(client, write);
        self.counts.invalidations += 1;
        for shard in 0..SHARDS {
            self.send(
                shard,
                writer_at(client, shard),
                Request::Invalidate(invalidation),
            );
        }
    }

    pub(super) fn replied(&mut self, client: u64, reply: Reply) {
        let Some(reader) = self.readers.get_mut(&client) else {
            return;
        };
        let (key, floors) = (reader.key, reader.floors);
        let token = match reply {
            Reply::Hit(value, token) => {
                assert_at_least(value, floors.live, "a hit", key);
                self.counts.hits += 1;
                self.counts.early += u64::from(token.is_some());
                token
            }
            Reply::Stale(value, token) => {
                assert_at_least(value, floors.stale, "a stale hit", key);
                self.counts.stale_hits += 1;
                token
            }
            Reply::Miss(token) | Reply::Token(token) => Some(token),
            Reply::Busy => {
                let shard = reader.shard;
                return self.send(shard, client, Request::Token);
            }
            Reply::Nothing | Reply::Done | Reply::Invalidated { .. } => None,
        };
        match token {
            Some(token) => {
                reader.filling = Some(token);
                let delay_ms = self.rng.u64(0..20);
                self.after(delay_ms, Event::Load { client });
            }
            None => {
                self.readers.remove(&client);
                self.disconnect(client);
            }
        }
    }

    pub(super) fn load(&mut self, client: u64) {
        let Some(reader) = self.readers.get_mut(&client) else {
            return;
        };
        reader.loaded = self.store.read(reader.key);
        self.counts.loads += 1;
        let delay_ms = self.rng.u64(0..2) * self.rng.u64(0..300);
        self.after(delay_ms, Event::Loaded { client });
    }

    pub(super) fn loaded(&mut self, client: u64) {
        let Some(&Reader {
            key,
            shard,
            loaded: value,
            filling: Some(token),
            ..
        }) = self.readers.get(&client)
        else {
            return;
        };
        let request = match self.rng.u8(..10) {
            0 => {
                self.counts.releases += 1;
                Request::Release { key, token }
            }
            _ => Request::Set {
                key,
                value,
                token,
                ttl_ms: self.rng.u64(1..800),
                swr_ms: self.rng.u32(0..2) * self.rng.u32(0..600),
            },
        };
        self.send(shard, client, request);
    }

    pub(super) fn vanish(&mut self, client: u64) {
        if self.readers.remove(&client).is_some() {
            self.counts.vanished += 1;
            self.disconnect(client);
        }
    }

    pub(super) fn disconnect(&mut self, client: u64) {
        for shard in 0..SHARDS {
            let now_ms = self.clock_ms(shard);
            self.shards[shard].primary.disconnected(client, now_ms);
        }
    }

    /// What was sent did not arrive, or no reply came.
    pub(super) fn lost(&mut self, client: u64) {
        if self.readers.remove(&client).is_some() {
            return self.disconnect(client);
        }
        // A reader that has vanished.
        if !is_writer(client) {
            return;
        }
        let shard = shard_of_writer(client);
        let Some(write) = self.writes.get(&writer_of(client)) else {
            return;
        };
        let invalidation = write.invalidation;
        self.counts.retried += 1;
        self.send(shard, client, Request::Invalidate(invalidation));
    }

    /// A shard has acknowledged an invalidation. With `on-promote keep` that counts once the replica has it: what WAIT
    /// is for, over the same connection.
    pub(super) fn acknowledged(&mut self, shard: usize, term: u64, client: u64, offset: usize) {
        if self.keep_on_promote {
            if self.shards[shard].term != term {
                return self.lost(client);
            }
            if self.shards[shard].applied < offset {
                let event = Event::Acknowledged {
                    shard,
                    term,
                    client,
                    offset,
                };
                return self.after(5, event);
            }
        }
        // The worst moment for a primary to die: what it has just acknowledged may be on no replica.
        if self.rng.u8(..) == 0 {
            self.failover(shard);
        }
        let id = writer_of(client);
        let Some(write) = self.writes.get_mut(&id) else {
            return;
        };
        write.pending.retain(|pending| *pending != shard);
        if write.pending.is_empty()
            && let Some(write) = self.writes.remove(&id)
        {
            self.store.acknowledge(&write);
        }
    }
}
