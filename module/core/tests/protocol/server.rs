//! One server: the pure logic of the crate, put together as the module does, around a keyspace that is a map.
//!
//! It owns its entries. Time and messages come from the world; what it wants to tell others is left in `wakes` and `log`.

use std::collections::{BTreeMap, HashMap};

use mcache_core::entry::{Attributes, Entry};
use mcache_core::epoch::{Clock, Epoch, Token};
use mcache_core::hash;
use mcache_core::index::{Index, Scope, Task, Verdict};
use mcache_core::lease::{Answer, Asked, Leases, Waiter};
use mcache_core::memory::Memory;

use crate::world::{Key, Tag, Value, Weakness, tags_of};

/// So few sets that invalidations push each other out of the exact part of the memory all the time.
const MEMORY_SETS: usize = 2;

const HUSK: Attributes = Attributes {
    birth: Epoch::ZERO,
    manual: false,
    swr_ms: 0,
};

/// What a client asks.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    Fetch {
        key: Key,
        lease_ms: u64,
        wait_ms: u64,
    },
    Token {
        key: Key,
    },
    Set {
        key: Key,
        value: Value,
        token: Token,
        ttl_ms: u64,
        swr_ms: u32,
    },
    Release {
        key: Key,
        token: Token,
    },
    Invalidate {
        tags: [Tag; 2],
        soft: bool,
        /// Whether it is small enough to be dealt with at once.
        at_once: bool,
    },
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reply {
    Hit(Value),
    Stale(Value, Option<Token>),
    Miss(Token),
    Busy,
    Token(Token),
    Stored(bool),
    Released,
    /// With the replication offset that WAIT would wait for.
    Invalidated(usize),
}

/// One command of the replication stream: what was decided.
#[derive(Clone, Debug)]
pub enum Op {
    Set {
        key: Key,
        value: Value,
        attributes: Attributes,
        deadline_ms: u64,
    },
    Unlink(Key),
    Invalidate {
        tags: [Tag; 2],
        soft: bool,
        epoch: Epoch,
    },
    Shorten {
        key: Key,
        deadline_ms: u64,
    },
    Flush,
}

#[derive(Clone, Copy)]
struct Stored {
    entry: Entry,
    deadline_ms: u64,
}

#[derive(Clone, Copy)]
struct Parked {
    key: Key,
    lease_ms: u64,
}

pub struct Server {
    clock: Clock,
    incarnation: u64,
    index: Index,
    keyspace: BTreeMap<Key, Stored>,
    memory: Memory,
    last_invalidation: Epoch,
    token_floor: Epoch,
    pub leases: Leases<u64>,
    parked: HashMap<u64, Parked>,
    /// Whom to tell what, soon.
    pub wakes: Vec<(u64, Answer)>,
    /// Everything replicated since this server became primary.
    pub log: Vec<Op>,
    weakness: Weakness,
}

impl Drop for Server {
    fn drop(&mut self) {
        for stored in std::mem::take(&mut self.keyspace).into_values() {
            // SAFETY: the index goes away with the server and does not look at its entries.
            unsafe { stored.entry.free() };
        }
    }
}

impl Server {
    pub fn new(now_ms: u64, incarnation: u64, weakness: Weakness) -> Self {
        Server {
            clock: Clock::new(now_ms),
            incarnation,
            index: Index::new(),
            keyspace: BTreeMap::new(),
            memory: Memory::new(MEMORY_SETS),
            last_invalidation: Epoch::ZERO,
            token_floor: Epoch::ZERO,
            leases: Leases::default(),
            parked: HashMap::new(),
            wakes: Vec::new(),
            log: Vec::new(),
            weakness,
        }
    }

    // ---- clients ----

    /// `None`: the client is parked.
    pub fn handle(&mut self, client: u64, request: Request, now_ms: u64) -> Option<Reply> {
        Some(match request {
            Request::Fetch {
                key,
                lease_ms,
                wait_ms,
            } => return self.fetch(client, key, lease_ms, wait_ms, now_ms),
            Request::Token { .. } => Reply::Token(Token {
                incarnation: self.incarnation,
                epoch: self.clock.read(now_ms),
            }),
            Request::Set {
                key,
                value,
                token,
                ttl_ms,
                swr_ms,
            } => Reply::Stored(self.set(key, value, token, ttl_ms, swr_ms, now_ms)),
            Request::Release { key, token } => {
                self.release(key, token, now_ms);
                Reply::Released
            }
            Request::Invalidate {
                tags,
                soft,
                at_once,
            } => {
                self.invalidate(tags, soft, at_once, now_ms);
                Reply::Invalidated(self.log.len())
            }
        })
    }

    fn fetch(
        &mut self,
        client: u64,
        key: Key,
        lease_ms: u64,
        wait_ms: u64,
        now_ms: u64,
    ) -> Option<Reply> {
        self.expire_key(key, now_ms);
        let found = self.keyspace.get(&key).copied();
        let condition = found.map_or(Verdict::Dead, |stored| self.condition(stored, now_ms));
        let value = found.map(|stored| decode(stored.entry.value()));
        if let (Verdict::Live, Some(value)) = (condition, value) {
            return Some(Reply::Hit(value));
        }
        let token = Token {
            incarnation: self.incarnation,
            epoch: self.clock.tick(now_ms),
        };
        let asked = self.leases.ask(0, &[key], client, token, now_ms, lease_ms);
        let token = (asked == Asked::Granted).then_some(token);
        if let (Verdict::Soft(_), Some(value)) = (condition, value) {
            return Some(Reply::Stale(value, token));
        }
        if let Some(token) = token {
            return Some(Reply::Miss(token));
        }
        let waiter = Waiter {
            handle: client,
            client,
            lease_ms,
            until_ms: now_ms + wait_ms,
        };
        if wait_ms > 0 && self.leases.park(0, &[key], waiter) {
            self.parked.insert(client, Parked { key, lease_ms });
            return None;
        }
        Some(Reply::Busy)
    }

    /// What a woken client replies, at the moment at which its turn comes. `None` if it is gone.
    pub fn woken(&mut self, client: u64, answer: Answer, now_ms: u64) -> Option<Reply> {
        let Parked { key, lease_ms } = self.parked.remove(&client)?;
        match answer {
            Answer::Busy => Some(Reply::Busy),
            Answer::Fill(token) => Some(Reply::Miss(token)),
            Answer::Look => self.fetch(client, key, lease_ms, 0, now_ms),
        }
    }

    fn set(
        &mut self,
        key: Key,
        value: Value,
        token: Token,
        ttl_ms: u64,
        swr_ms: u32,
        now_ms: u64,
    ) -> bool {
        let now = self.clock.read(now_ms);
        if !self.accepts(token, now, key) {
            self.release(key, token, now_ms);
            return false;
        }
        let attributes = Attributes {
            birth: token.epoch,
            manual: false,
            swr_ms,
        };
        let deadline_ms = now_ms + ttl_ms + u64::from(swr_ms);
        self.store(key, value, attributes, deadline_ms);
        self.log.push(Op::Set {
            key,
            value,
            attributes,
            deadline_ms,
        });
        let wakes = self.leases.filled(0, &[key]);
        self.wakes.extend(wakes);
        true
    }

    fn accepts(&self, token: Token, now: Epoch, key: Key) -> bool {
        if self.weakness == Weakness::TokensIgnored {
            return true;
        }
        if token.incarnation != self.incarnation {
            return self.weakness == Weakness::IncarnationsIgnored;
        }
        if token.epoch > now || token.epoch < self.token_floor || token.epoch < self.index.floor() {
            return false;
        }
        let invalidated = |tag: Tag| self.memory.last(hash(&name(tag))) > token.epoch;
        !(token.epoch < self.last_invalidation && tags_of(key).into_iter().any(invalidated))
    }

    fn release(&mut self, key: Key, token: Token, now_ms: u64) {
        let (clock, incarnation) = (&mut self.clock, self.incarnation);
        let fresh = || Token {
            incarnation,
            epoch: clock.tick(now_ms),
        };
        let released = self.leases.release(0, &[key], token, now_ms, fresh);
        self.wakes.extend(released.flatten());
    }

    fn invalidate(&mut self, tags: [Tag; 2], soft: bool, at_once: bool, now_ms: u64) {
        let epoch = self.clock.tick(now_ms);
        self.note(tags, epoch);
        let names = tags.map(name);
        let names = || names.iter().map(Vec::as_slice);
        if at_once {
            for entry in self.index.carriers(0, names(), Scope::All) {
                match soft && entry.swr_ms() > 0 {
                    true => self.shorten(entry, epoch),
                    false => self.unlink(entry.key()[0]),
                }
            }
            return;
        }
        match soft {
            true => self.index.soften(0, names(), Scope::All, epoch),
            false => self.index.kill(0, names(), Scope::All),
        };
        self.log.push(Op::Invalidate { tags, soft, epoch });
    }

    fn note(&mut self, tags: [Tag; 2], epoch: Epoch) {
        self.clock.observe(epoch);
        self.last_invalidation = self.last_invalidation.max(epoch);
        tags.map(|tag| self.memory.note(hash(&name(tag)), epoch));
    }

    /// A client is gone: out of line, and its leases pass on.
    pub fn disconnected(&mut self, client: u64, now_ms: u64) {
        let (clock, incarnation) = (&mut self.clock, self.incarnation);
        let fresh = || Token {
            incarnation,
            epoch: clock.tick(now_ms),
        };
        let wakes = self.leases.disconnected(client, now_ms, fresh);
        self.wakes.extend(wakes);
        self.leases.forget(client);
        self.parked.remove(&client);
    }

    /// The timer: leases and waits that are over.
    pub fn expire_leases(&mut self, now_ms: u64) {
        let (clock, incarnation) = (&mut self.clock, self.incarnation);
        let fresh = || Token {
            incarnation,
            epoch: clock.tick(now_ms),
        };
        let wakes = self.leases.expire(now_ms, fresh);
        self.wakes.extend(wakes);
    }

    /// FLUSHALL.
    pub fn flush(&mut self, now_ms: u64) {
        self.drop_everything();
        self.token_floor = self.clock.tick(now_ms);
        let wakes = self.leases.clear(None);
        self.wakes.extend(wakes);
        self.log.push(Op::Flush);
    }

    fn drop_everything(&mut self) {
        self.index.discard(0);
        for stored in std::mem::take(&mut self.keyspace).into_values() {
            // SAFETY: the index has just forgotten the database.
            unsafe { stored.entry.free() };
        }
    }

    // ---- the keyspace ----

    fn condition(&self, stored: Stored, now_ms: u64) -> Verdict {
        let mut entry = stored.entry;
        let swr_ms = u64::from(entry.swr_ms());
        match self.index.verdict(&mut entry) {
            Verdict::Live if swr_ms > 0 && now_ms + swr_ms >= stored.deadline_ms => {
                Verdict::Soft(entry.birth())
            }
            Verdict::Soft(since) if now_ms >= since.unix_ms() + swr_ms => Verdict::Dead,
            other => other,
        }
    }

    fn expire_key(&mut self, key: Key, now_ms: u64) {
        let over = |stored: &Stored| stored.deadline_ms <= now_ms;
        if self.keyspace.get(&key).is_some_and(over) {
            self.unlink(key);
        }
    }

    fn store(&mut self, key: Key, value: Value, attributes: Attributes, deadline_ms: u64) {
        let names = tags_of(key).map(name);
        let mut records = Vec::new();
        let husk = attributes.birth == Epoch::ZERO;
        let names = names.iter().map(Vec::as_slice).filter(|_| !husk);
        self.index.resolve(0, names, false, &mut records);
        let entry = Entry::new(&[key], &encode(value), attributes, &records);
        // SAFETY: alive, resolved just now in this database; unlinked before it is freed.
        unsafe { self.index.link(0, entry) };
        let old = self.keyspace.insert(key, Stored { entry, deadline_ms });
        if let Some(old) = old {
            self.free(old.entry);
        }
    }

    fn free(&mut self, entry: Entry) {
        // SAFETY: it came from the keyspace, where all entries are alive and linked, and is in it no more.
        unsafe {
            self.index.unlink(0, entry);
            entry.free();
        }
    }

    fn unlink(&mut self, key: Key) {
        if let Some(stored) = self.keyspace.remove(&key) {
            self.free(stored.entry);
            self.log.push(Op::Unlink(key));
        }
    }

    fn shorten(&mut self, entry: Entry, epoch: Epoch) {
        let key = entry.key()[0];
        let Some(stored) = self.keyspace.get_mut(&key) else {
            return;
        };
        let wanted = epoch.unix_ms() + u64::from(entry.swr_ms());
        stored.deadline_ms = stored.deadline_ms.min(wanted);
        self.log.push(Op::Shorten {
            key,
            deadline_ms: stored.deadline_ms,
        });
    }

    /// One piece of reclaim. Primaries only.
    pub fn reclaim(&mut self) {
        match self.index.next_task() {
            Some(Task::Delete { entry, .. }) => self.unlink(entry.key()[0]),
            Some(Task::Shorten { entry, epoch, .. }) => {
                self.shorten(entry, epoch);
                // SAFETY: the keyspace holds it.
                unsafe { self.index.shortened(0, entry) };
            }
            None => {
                self.index.bury();
            }
        }
    }

    pub fn check(&self) {
        let entries = self.keyspace.values().map(|stored| stored.entry);
        for entry in entries {
            assert!(entry.is_linked(), "an entry the index does not know");
        }
    }

    // ---- replication ----

    /// What a full sync sends: the dead without their values.
    pub fn data_set(&self, now_ms: u64) -> Vec<Op> {
        let mut ops = vec![Op::Flush];
        ops.extend(self.keyspace.iter().map(|(key, stored)| {
            let dead = self.index.judge(&stored.entry) != Verdict::Live;
            let _ = now_ms;
            Op::Set {
                key: *key,
                value: decode(stored.entry.value()),
                attributes: match dead {
                    true => HUSK,
                    false => stored.entry.attributes(),
                },
                deadline_ms: stored.deadline_ms,
            }
        }));
        ops
    }

    /// Does what its primary did.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Set {
                key,
                value,
                attributes,
                deadline_ms,
            } => {
                self.clock.observe(attributes.birth);
                self.store(*key, *value, *attributes, *deadline_ms);
            }
            Op::Unlink(key) => {
                if let Some(stored) = self.keyspace.remove(key) {
                    self.free(stored.entry);
                }
            }
            Op::Invalidate { tags, soft, epoch } => {
                self.note(*tags, *epoch);
                let names = tags.map(name);
                let names = names.iter().map(Vec::as_slice);
                match soft {
                    true => self.index.soften(0, names, Scope::All, *epoch),
                    false => self.index.kill(0, names, Scope::All),
                };
            }
            Op::Shorten { key, deadline_ms } => {
                if let Some(stored) = self.keyspace.get_mut(key) {
                    stored.deadline_ms = *deadline_ms;
                    let entry = stored.entry;
                    // SAFETY: the keyspace holds it.
                    unsafe { self.index.shortened(0, entry) };
                }
            }
            Op::Flush => self.drop_everything(),
        }
    }

    /// It takes the place of its primary.
    pub fn promote(&mut self, incarnation: u64, drop: bool, now_ms: u64) {
        self.incarnation = incarnation;
        let epoch = self.clock.tick(now_ms);
        if drop {
            self.index.raise_floor(epoch);
        }
    }

    /// Starts with what an earlier run left on disk: with `on-restart drop`, keys without values.
    pub fn load(&mut self, ops: &[Op]) {
        for op in ops {
            if let Op::Set {
                key,
                value,
                deadline_ms,
                ..
            } = op
            {
                self.store(*key, *value, HUSK, *deadline_ms);
            }
        }
    }
}

fn name(tag: Tag) -> Vec<u8> {
    format!("tag:{tag}").into_bytes()
}

fn encode(value: Value) -> Vec<u8> {
    value.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn decode(bytes: &[u8]) -> Value {
    let version = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    [version(0), version(4)]
}
