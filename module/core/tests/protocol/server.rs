//! One server: the shipped `mcache_core::server` around a keyspace that is a map.
//!
//! What stands here is what Redis does: it keeps entries under keys with deadlines, expires them, writes them to files
//! and passes commands on. Every decision is the crate's. Time, randomness and messages come from the world; what it
//! wants to tell others is left in `wakes` and `log`.

mod messages;
mod replication;

use std::collections::{BTreeMap, HashMap};

use mcache_core::command::{OnlyIf, ReplInvalidate, Set};
use mcache_core::entry::{Attributes, Entry};
use mcache_core::epoch::{Epoch, Token};
use mcache_core::fills::Fills;
use mcache_core::index::Task;
use mcache_core::lease::{Answer, Released, Waiter, Wake};
use mcache_core::server::{self, Awaited, Condition, Edge, Fetched, Fetcher, Store, Stored};

use crate::world::{Key, TAGS_A_KEY, Tag, Value, is_manual, tags_of};
pub use messages::{Dump, Invalidation, Op, Reply, Request};

/// So few that invalidations push each other out of the exact part of the memory all the time.
const REMEMBERED_TAGS: usize = 4;

/// The one database.
const DB: usize = 0;

/// What the crate asks of the edge, at one moment.
struct Moment {
    now_ms: u64,
    random: u64,
    is_primary: bool,
}

impl Edge for Moment {
    fn now_ms(&self) -> u64 {
        self.now_ms
    }
    fn random(&self) -> u64 {
        self.random
    }
    fn is_primary(&self) -> bool {
        self.is_primary
    }
}

/// What the keyspace has under a key.
#[derive(Clone, Copy)]
struct Held {
    entry: Entry,
    deadline_ms: u64,
}

/// What a FETCH asks for.
struct Wanted {
    key: Key,
    lease_ms: u64,
    wait_ms: u64,
    early_ms: u64,
}

#[derive(Clone, Copy)]
struct Parked {
    key: Key,
    lease_ms: u64,
}

struct Holder {
    client: u64,
    token: Token,
    until_ms: u64,
}

/// What a digest tells of an entry: attributes, value, tags.
pub type Kept = (Attributes, Vec<u8>, Vec<Vec<u8>>);

pub struct Server {
    core: server::Server<u64>,
    awaited: &'static Awaited,
    keyspace: BTreeMap<Key, Held>,
    parked: HashMap<u64, Parked>,
    /// Who was told to fill which key, until when: kept apart from the leases, to check them.
    holders: BTreeMap<Key, Holder>,
    is_primary: bool,
    /// Whom to tell what, soon.
    pub wakes: Vec<Wake<u64>>,
    /// Everything replicated since this server became primary.
    pub log: Vec<Op>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for held in std::mem::take(&mut self.keyspace).into_values() {
            // SAFETY: the index goes away with the server and does not look at its entries.
            unsafe { held.entry.free() };
        }
    }
}

impl Server {
    pub fn new(incarnation: u64, now_ms: u64, is_primary: bool) -> Self {
        let awaited = Awaited::kept();
        Server {
            core: server::Server::new(Fills::new(incarnation, now_ms, REMEMBERED_TAGS), awaited),
            awaited,
            keyspace: BTreeMap::new(),
            parked: HashMap::new(),
            holders: BTreeMap::new(),
            is_primary,
            wakes: Vec::new(),
            log: Vec::new(),
        }
    }

    fn moment(&self, now_ms: u64, random: u64) -> Moment {
        Moment {
            now_ms,
            random,
            is_primary: self.is_primary,
        }
    }

    // ---- clients ----

    /// `None`: the client is parked.
    pub fn handle(
        &mut self,
        client: u64,
        request: Request,
        random: u64,
        now_ms: u64,
    ) -> Option<Reply> {
        Some(match request {
            Request::Get(key) => {
                let entry = self.open(key, now_ms);
                let found = self.core.lookup(entry, || now_ms, || ());
                found.map_or(Reply::Nothing, |e| Reply::Hit(decode(e.value()), None))
            }
            Request::Fetch {
                key,
                lease_ms,
                wait_ms,
                early_ms,
            } => {
                let wanted = Wanted {
                    key,
                    lease_ms,
                    wait_ms,
                    early_ms,
                };
                return self.fetch(client, wanted, random, now_ms);
            }
            Request::Token => Reply::Token(self.core.fills.token(now_ms)),
            Request::Set {
                key,
                value,
                token,
                ttl_ms,
                swr_ms,
            } => {
                self.set(key, value, token, ttl_ms, swr_ms, now_ms);
                Reply::Done
            }
            Request::Release { key, token } => {
                self.release(key, token, now_ms);
                Reply::Done
            }
            Request::Invalidate(invalidation) => {
                self.invalidate(invalidation, now_ms);
                Reply::Invalidated {
                    offset: self.log.len(),
                }
            }
            Request::Flush => {
                self.flush(now_ms);
                self.log.push(Op::Flush);
                Reply::Done
            }
        })
    }

    fn fetch(&mut self, client: u64, wanted: Wanted, random: u64, now_ms: u64) -> Option<Reply> {
        let Wanted {
            key,
            lease_ms,
            wait_ms,
            early_ms,
        } = wanted;
        let entry = self.open(key, now_ms);
        let caller = Fetcher {
            db: DB,
            key: &[key],
            client,
            lease_ms,
            may_wait: wait_ms > 0,
            max_waiters: usize::MAX,
        };
        let moment = self.moment(now_ms, random);
        let fetched = self
            .core
            .fetch(early_ms, || caller, entry, &moment, || true, || ());
        if let Fetched::Hit(_, Some(token))
        | Fetched::Stale(_, Some(token))
        | Fetched::Miss(Some(token)) = fetched
        {
            self.granted(client, key, token, lease_ms, now_ms);
        }
        Some(match fetched {
            Fetched::Hit(entry, token) => Reply::Hit(decode(entry.value()), token),
            Fetched::Stale(entry, token) => Reply::Stale(decode(entry.value()), token),
            Fetched::Miss(token) => Reply::Miss(token.expect("a primary")),
            Fetched::Busy => Reply::Busy,
            Fetched::Park => {
                let waiter = Waiter {
                    handle: client,
                    client,
                    lease_ms,
                    until_ms: now_ms + wait_ms,
                };
                assert!(self.core.park(DB, &[key], waiter), "the lease was held");
                self.parked.insert(client, Parked { key, lease_ms });
                return None;
            }
        })
    }

    /// Notes the client that fills a key: there must be no other.
    fn granted(&mut self, client: u64, key: Key, token: Token, lease_ms: u64, now_ms: u64) {
        let holder = Holder {
            client,
            token,
            until_ms: now_ms + lease_ms,
        };
        if let Some(before) = self.holders.insert(key, holder) {
            assert!(before.until_ms <= now_ms, "two fill key {key} at once");
        }
    }

    /// What a woken client replies, at the moment at which its turn comes. `None` if it is gone.
    pub fn woken(&mut self, client: u64, answer: Answer, now_ms: u64) -> Option<Reply> {
        let Parked { key, lease_ms } = self.parked.remove(&client)?;
        self.core.answered(answer);
        match answer {
            Answer::Busy => Some(Reply::Busy),
            Answer::Moved(_) => panic!("slots do not leave in these histories"),
            Answer::Fill(token) => Some(Reply::Miss(token)),
            Answer::Look => {
                let wanted = Wanted {
                    key,
                    lease_ms,
                    wait_ms: 0,
                    early_ms: 0,
                };
                self.fetch(client, wanted, 0, now_ms)
            }
        }
    }

    /// How many clients wait.
    pub fn waiting(&self) -> usize {
        self.core.leases.parked()
    }

    /// How many fills were refused in doubt.
    pub fn in_doubt(&self) -> u64 {
        self.core.stats.refused_fills_in_doubt
    }

    fn set(&mut self, key: Key, value: Value, token: Token, ttl_ms: u64, swr_ms: u32, now_ms: u64) {
        let names = tags_of(key).map(name);
        let set = Set {
            ttl_ms: Some(ttl_ms),
            swr_ms,
            token: Some(token),
            only_if: OnlyIf::Always,
            manual: is_manual(key),
            near: None,
            tags_from: 0,
        };
        let present = self.open(key, now_ms);
        let tags = names.iter().map(Vec::as_slice);
        let Some(admitted) = self.core.admit(&set, &[key], tags, present, now_ms) else {
            self.release(key, token, now_ms);
            return;
        };
        let attributes = admitted.attributes;
        let deadline_ms = admitted.deadline_ms.expect("it has a ttl");
        self.store(key, value, attributes, deadline_ms);
        self.log.push(Op::Set {
            key,
            value,
            attributes,
            deadline_ms,
        });
        self.holders.remove(&key);
        let wakes = self.core.filled(DB, &[key], 1, || now_ms);
        self.over_by(now_ms);
        self.pass_on(wakes, now_ms);
    }

    fn release(&mut self, key: Key, token: Token, now_ms: u64) {
        if self.holders.get(&key).is_some_and(|it| it.token == token) {
            self.holders.remove(&key);
        }
        if let Released::PassedOn(wake) = self.core.release(DB, &[key], token, now_ms) {
            self.pass_on([wake], now_ms);
        }
    }

    /// Leases that went to the next in line.
    fn pass_on(&mut self, wakes: impl IntoIterator<Item = Wake<u64>>, now_ms: u64) {
        for (client, answer) in wakes {
            let parked = self.parked.get(&client).copied();
            if let (Answer::Fill(token), Some(Parked { key, lease_ms })) = (answer, parked) {
                self.granted(client, key, token, lease_ms, now_ms);
            }
            self.wakes.push((client, answer));
        }
    }

    fn invalidate(&mut self, invalidation: Invalidation, now_ms: u64) {
        let Invalidation {
            tag, soft, at_once, ..
        } = invalidation;
        let (name, inline_max) = (name(tag), if at_once { usize::MAX } else { 0 });
        let names = std::iter::once(&name[..]);
        let scope = invalidation.scope();
        let invalidated = self
            .core
            .invalidate(DB, names, scope, soft, inline_max, now_ms);
        let replicated = ReplInvalidate {
            epoch: invalidated.epoch,
            ahead_ms: invalidated.ahead_ms,
            what: invalidation.command(),
        };
        for task in invalidated.at_once {
            self.perform(task, now_ms);
        }
        if invalidated.later > 0 {
            self.log.push(Op::Invalidate(replicated, tag));
        }
    }

    /// A client is gone: out of line, and its leases pass on.
    pub fn disconnected(&mut self, client: u64, now_ms: u64) {
        self.holders.retain(|_, holder| holder.client != client);
        let gone = self.core.disconnected(client, now_ms);
        self.over_by(now_ms);
        assert!(gone.own.iter().all(|own| *own == client));
        self.pass_on(gone.wakes, now_ms);
        self.core.leave(client);
        self.parked.remove(&client);
        let woken = |client: &u64| self.wakes.iter().any(|(woken, _)| woken == client);
        let waiting = self.parked.iter().filter(|(client, _)| !woken(client));
        for (client, parked) in waiting {
            let filled = self.holders.contains_key(&parked.key);
            assert!(filled, "{client} waits, and no client fills");
        }
    }

    /// Each step of the server ends the leases that are over: for good, even if the clock is set back afterwards.
    fn over_by(&mut self, now_ms: u64) {
        self.holders.retain(|_, holder| holder.until_ms > now_ms);
    }

    /// The timer: leases and waits that are over.
    pub fn expire_leases(&mut self, now_ms: u64) {
        self.over_by(now_ms);
        let wakes = self.core.advance(now_ms);
        self.pass_on(wakes, now_ms);
    }

    fn flush(&mut self, now_ms: u64) {
        self.holders.clear();
        let wakes = self.core.flushed(Some(DB), now_ms);
        self.pass_on(wakes, now_ms);
        for held in std::mem::take(&mut self.keyspace).into_values() {
            // SAFETY: the index has just forgotten the database.
            unsafe { held.entry.free() };
        }
    }

    // ---- the keyspace ----

    /// What a key holds; opening a key finds what expired gone.
    fn open(&mut self, key: Key, now_ms: u64) -> Option<Entry> {
        let over = |held: &Held| held.deadline_ms <= now_ms;
        if self.keyspace.get(&key).is_some_and(over) {
            if !self.is_primary {
                // It waits for its primary to delete it.
                return None;
            }
            self.unlink(key);
        }
        self.keyspace.get(&key).map(|held| held.entry)
    }

    fn store(&mut self, key: Key, value: Value, attributes: Attributes, deadline_ms: u64) {
        let names = tags_of(key).map(name);
        let present = self.keyspace.get(&key).map(|held| held.entry);
        let stored = self.core.store(Store {
            db: DB,
            key: &[key],
            value: &encode_value(value),
            tags: names.iter().map(Vec::as_slice),
            attributes,
            present,
        });
        let entry = match (stored, present) {
            (Stored::InPlace, Some(entry)) => entry,
            (Stored::New(entry), None) => entry,
            (Stored::Replaced(entry), Some(old)) => {
                // SAFETY: it is out of the index, and out of the keyspace in a moment.
                unsafe { old.free() };
                entry
            }
            _ => panic!("{stored:?} over {present:?}"),
        };
        self.keyspace.insert(key, Held { entry, deadline_ms });
    }

    fn remove(&mut self, key: Key) -> bool {
        let Some(held) = self.keyspace.remove(&key) else {
            return false;
        };
        // What is removed here is never announced under another name.
        self.core.left(DB, held.entry);
        // SAFETY: it is out of keyspace and index.
        unsafe { held.entry.free() };
        true
    }

    fn unlink(&mut self, key: Key) {
        if self.remove(key) {
            self.log.push(Op::Unlink(key));
        }
    }

    /// Does what is to be done with an entry.
    fn perform(&mut self, task: Task, now_ms: u64) {
        match task {
            Task::Delete { db, entry } => {
                let (key, id) = (entry.key()[0], entry.id());
                if self.open(key, now_ms) == Some(entry) {
                    self.unlink(key);
                } else {
                    let listed = self.core.absent(db, id, entry);
                    assert!(!listed, "the index names what the keyspace does not hold");
                }
            }
            Task::Shorten { db, entry, since } => {
                let key = entry.key()[0];
                if self.open(key, now_ms) != Some(entry) {
                    return;
                }
                let ends_ms = server::softened_end_ms(&entry, since);
                self.core.shortened(db, entry, ends_ms);
                self.correct_deadline(key);
                self.log.push(Op::Shorten { key, ends_ms });
            }
        }
    }

    /// What a slice of reclaim begins with.
    pub fn tell_floor(&mut self) {
        self.log.extend(self.core.floor_to_tell().map(Op::Floor));
    }

    /// Keys that hold nothing but their name.
    pub fn husks(&self) -> Vec<Key> {
        let is_husk = |held: &Held| held.entry.birth() == Epoch::ZERO;
        let husks = self.keyspace.iter().filter(|(_, held)| is_husk(held));
        husks.map(|(key, _)| *key).collect()
    }

    /// One piece of reclaim. Primaries only. Whether there was anything to do.
    pub fn reclaim(&mut self, now_ms: u64) -> bool {
        self.tell_floor();
        match self.core.index.next_task() {
            Some(task) => self.perform(task, now_ms),
            None => {
                self.core.index.bury();
            }
        }
        self.core.index.has_pending()
    }

    /// The index equals the keyspace.
    pub fn check(&mut self) {
        let keyspace: Vec<_> = self
            .keyspace
            .iter()
            .map(|(key, held)| (vec![*key], held.entry))
            .collect();
        let verified = self.core.index.verify(DB, &keyspace);
        verified.expect("the index equals the keyspace");
    }

    /// Everything that would be served, with whether it is stale.
    pub fn served(&mut self, now_ms: u64) -> Vec<(Key, Value, bool)> {
        let keys: Vec<Key> = self.keyspace.keys().copied().collect();
        let look = |key| {
            let mut entry = self.open(key, now_ms)?;
            match self.core.condition(&mut entry, || now_ms) {
                Condition::Dead => None,
                condition => Some((key, decode(entry.value()), condition == Condition::Stale)),
            }
        };
        keys.into_iter().filter_map(look).collect()
    }
}

fn name(tag: Tag) -> Vec<u8> {
    format!("tag:{tag}").into_bytes()
}

fn encode_value(value: Value) -> Vec<u8> {
    value.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn decode(bytes: &[u8]) -> Value {
    let version = |at: usize| {
        let at = at * 4;
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    };
    std::array::from_fn::<u32, TAGS_A_KEY, _>(version)
}
