//! One server: the logic of the crate, put together as the module does, around a keyspace that is a map.
//!
//! It owns its entries. Time, randomness and messages come from the world; what it wants to tell others is left in `wakes`
//! and `log`.

use std::collections::{BTreeMap, HashMap};

use mcache_core::early;
use mcache_core::encode::{self, Decoded};
use mcache_core::entry::{Attributes, Entry};
use mcache_core::epoch::{Epoch, Token};
use mcache_core::fills::Fills;
use mcache_core::index::{Index, Scope, Task, Verdict};
use mcache_core::lease::{Answer, Asked, Leases, Waiter};

use crate::world::{Key, TAGS_A_KEY, Tag, Value, is_manual, tags_of};

/// So few that invalidations push each other out of the exact part of the memory all the time.
const REMEMBERED_TAGS: usize = 4;

const HUSK: Attributes = Attributes {
    birth: Epoch::ZERO,
    manual: false,
    swr_ms: 0,
    softened: false,
};

/// What a client asks.
#[derive(Clone, Copy, Debug)]
pub enum Request {
    Get(Key),
    Fetch {
        key: Key,
        lease_ms: u64,
        wait_ms: u64,
        early_ms: u64,
    },
    Token,
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
    Invalidate(Invalidation),
    Flush,
}

#[derive(Clone, Copy, Debug)]
pub struct Invalidation {
    pub tag: Tag,
    pub auto: bool,
    pub soft: bool,
    /// Whether its entries are few enough to be dealt with at once.
    pub at_once: bool,
}

impl Invalidation {
    fn scope(&self) -> Scope {
        if self.auto { Scope::Auto } else { Scope::All }
    }
}

/// What it is told.
#[derive(Clone, Copy, Debug)]
pub enum Reply {
    Hit(Value, Option<Token>),
    Stale(Value, Option<Token>),
    Miss(Token),
    Busy,
    Nothing,
    Token(Token),
    Done,
    /// With what a replica must have applied before it knows.
    Invalidated {
        offset: usize,
    },
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
    Invalidate(Invalidation, Epoch),
    Shorten {
        key: Key,
        deadline_ms: u64,
    },
    Flush,
}

/// An entry on its way to another shard.
pub struct Dump {
    key: Key,
    meta: Vec<u8>,
    value: Value,
    ttl_ms: u64,
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

struct Holder {
    client: u64,
    token: Token,
    until_ms: u64,
}

pub struct Server {
    index: Index,
    fills: Fills,
    keyspace: BTreeMap<Key, Stored>,
    leases: Leases<u64>,
    parked: HashMap<u64, Parked>,
    /// Who was told to fill which key, until when: kept apart from `leases`, to check them.
    holders: BTreeMap<Key, Holder>,
    /// Whom to tell what, soon.
    pub wakes: Vec<(u64, Answer)>,
    /// Everything replicated since this server became primary.
    pub log: Vec<Op>,
    pub in_doubt: u64,
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
    pub fn new(incarnation: u64, now_ms: u64) -> Self {
        Server {
            index: Index::new(),
            fills: Fills::new(incarnation, now_ms, REMEMBERED_TAGS),
            keyspace: BTreeMap::new(),
            leases: Leases::default(),
            parked: HashMap::new(),
            holders: BTreeMap::new(),
            wakes: Vec::new(),
            log: Vec::new(),
            in_doubt: 0,
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
            Request::Get(key) => match self.look(key, now_ms) {
                Some((value, Verdict::Live, _)) => Reply::Hit(value, None),
                _ => Reply::Nothing,
            },
            Request::Fetch {
                key,
                lease_ms,
                wait_ms,
                early_ms,
            } => {
                if let Some((value, Verdict::Live, left_ms)) = self.look(key, now_ms) {
                    let due = early::is_due(left_ms, early_ms, random);
                    let token = if due {
                        self.ask(client, key, lease_ms, now_ms)
                    } else {
                        None
                    };
                    return Some(Reply::Hit(value, token));
                }
                return self.fetch(client, key, lease_ms, wait_ms, now_ms);
            }
            Request::Token => Reply::Token(self.fills.token(now_ms)),
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
                Reply::Done
            }
        })
    }

    /// Value, worth and the time left to live.
    fn look(&mut self, key: Key, now_ms: u64) -> Option<(Value, Verdict, u64)> {
        self.expire_key(key, now_ms);
        let stored = *self.keyspace.get(&key)?;
        let mut entry = stored.entry;
        let swr_ms = u64::from(entry.swr_ms());
        let end_ms = stored.deadline_ms.saturating_sub(swr_ms);
        let verdict = match self.index.verdict(&mut entry) {
            Verdict::Live if swr_ms > 0 && (entry.is_softened() || now_ms >= end_ms) => {
                Verdict::Soft(entry.birth())
            }
            Verdict::Soft(since) if now_ms >= since.unix_ms() + swr_ms => Verdict::Dead,
            other => other,
        };
        let value = (verdict != Verdict::Dead).then(|| decode(entry.value()))?;
        Some((value, verdict, end_ms.saturating_sub(now_ms)))
    }

    fn ask(&mut self, client: u64, key: Key, lease_ms: u64, now_ms: u64) -> Option<Token> {
        let token = self.fills.unique_token(now_ms);
        let asked = self.leases.ask(0, &[key], client, token, now_ms, lease_ms);
        (asked == Asked::Granted).then(|| self.granted(client, key, token, lease_ms, now_ms))
    }

    /// Takes note of who fills a key: there must be nobody else.
    fn granted(
        &mut self,
        client: u64,
        key: Key,
        token: Token,
        lease_ms: u64,
        now_ms: u64,
    ) -> Token {
        let holder = Holder {
            client,
            token,
            until_ms: now_ms + lease_ms,
        };
        if let Some(before) = self.holders.insert(key, holder) {
            assert!(before.until_ms <= now_ms, "two fill key {key} at once");
        }
        token
    }

    fn fetch(
        &mut self,
        client: u64,
        key: Key,
        lease_ms: u64,
        wait_ms: u64,
        now_ms: u64,
    ) -> Option<Reply> {
        let found = self.look(key, now_ms);
        if let Some((value, Verdict::Live, _)) = found {
            return Some(Reply::Hit(value, None));
        }
        let token = self.ask(client, key, lease_ms, now_ms);
        if let Some((value, _, _)) = found {
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

    /// How many clients wait.
    pub fn waiting(&self) -> usize {
        self.leases.parked()
    }

    fn set(&mut self, key: Key, value: Value, token: Token, ttl_ms: u64, swr_ms: u32, now_ms: u64) {
        let (names, manual) = (tags_of(key).map(name), is_manual(key));
        let floor = self.index.floor();
        let tags = names.iter().map(Vec::as_slice);
        let birth = self.fills.birth(Some(token), tags, manual, floor, now_ms);
        let Ok(birth) = birth else {
            self.in_doubt += u64::from(birth == Err(mcache_core::fills::Refusal::InDoubt));
            self.release(key, token, now_ms);
            return;
        };
        let attributes = Attributes {
            birth,
            manual,
            swr_ms,
            softened: false,
        };
        let deadline_ms = now_ms + ttl_ms + u64::from(swr_ms);
        self.store(key, value, attributes, deadline_ms);
        self.log.push(Op::Set {
            key,
            value,
            attributes,
            deadline_ms,
        });
        self.holders.remove(&key);
        let wakes = self.leases.filled(0, &[key]);
        self.wakes.extend(wakes);
    }

    fn release(&mut self, key: Key, token: Token, now_ms: u64) {
        if self.holders.get(&key).is_some_and(|it| it.token == token) {
            self.holders.remove(&key);
        }
        let Server { leases, fills, .. } = self;
        let fresh = || fills.unique_token(now_ms);
        let released = leases.release(0, &[key], token, now_ms, fresh);
        self.pass_on(released.flatten(), now_ms);
    }

    /// Leases that went to the next in line.
    fn pass_on(&mut self, wakes: impl IntoIterator<Item = (u64, Answer)>, now_ms: u64) {
        for (client, answer) in wakes {
            let parked = self.parked.get(&client).copied();
            if let (Answer::Fill(token), Some(Parked { key, lease_ms })) = (answer, parked) {
                self.granted(client, key, token, lease_ms, now_ms);
            }
            self.wakes.push((client, answer));
        }
    }

    fn invalidate(&mut self, invalidation: Invalidation, now_ms: u64) {
        let Invalidation { tag, soft, .. } = invalidation;
        let (name, scope) = (name(tag), invalidation.scope());
        let names = || std::iter::once(&name[..]);
        let epoch = self.fills.note(names(), scope, now_ms);
        if invalidation.at_once {
            for entry in self.index.carriers(0, names(), scope) {
                match soft && entry.swr_ms() > 0 {
                    true => self.shorten(entry, epoch, now_ms),
                    false => self.unlink(entry.key()[0]),
                }
            }
            return;
        }
        match soft {
            true => self.index.soften(0, names(), scope, epoch),
            false => self.index.kill(0, names(), scope),
        };
        self.log.push(Op::Invalidate(invalidation, epoch));
    }

    /// A client is gone: out of line, and its leases pass on.
    pub fn disconnected(&mut self, client: u64, now_ms: u64) {
        for own in self.leases.behind_itself(client) {
            self.leases.forget(own);
        }
        self.holders.retain(|_, holder| holder.client != client);
        let Server { leases, fills, .. } = self;
        let wakes = leases.disconnected(client, now_ms, || fills.unique_token(now_ms));
        self.pass_on(wakes, now_ms);
        self.leases.forget(client);
        self.parked.remove(&client);
        let woken = |client: &u64| self.wakes.iter().any(|(woken, _)| woken == client);
        let waiting = self.parked.iter().filter(|(client, _)| !woken(client));
        for (client, parked) in waiting {
            let filled = self.holders.contains_key(&parked.key);
            assert!(filled, "{client} waits, and nobody fills");
        }
    }

    /// The timer: leases and waits that are over.
    pub fn expire_leases(&mut self, now_ms: u64) {
        // Over for good, even if the clock is set back afterwards.
        self.holders.retain(|_, holder| holder.until_ms > now_ms);
        let Server { leases, fills, .. } = self;
        let wakes = leases.expire(now_ms, || fills.unique_token(now_ms));
        self.pass_on(wakes, now_ms);
    }

    fn flush(&mut self, now_ms: u64) {
        self.drop_everything();
        self.fills.refuse_all(now_ms);
        self.holders.clear();
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
        self.index
            .resolve(0, names, attributes.manual, &mut records);
        let entry = Entry::new(&[key], &encode_value(value), attributes, &records);
        let stored = Stored { entry, deadline_ms };
        match self.keyspace.insert(key, stored) {
            // SAFETY: both alive, the old one linked here, resolved just now; freed only afterwards.
            Some(old) => unsafe {
                self.index.replace(0, old.entry, entry);
                old.entry.free();
            },
            // SAFETY: alive, resolved just now in this database; unlinked before it is freed.
            None => unsafe { self.index.link(0, entry) },
        }
    }

    fn remove(&mut self, key: Key) -> bool {
        let Some(stored) = self.keyspace.remove(&key) else {
            return false;
        };
        // SAFETY: it came from the keyspace, where all entries are alive and linked, and is in it no more.
        unsafe {
            self.index.unlink(0, stored.entry);
            stored.entry.free();
        }
        true
    }

    fn unlink(&mut self, key: Key) {
        if self.remove(key) {
            self.log.push(Op::Unlink(key));
        }
    }

    fn shorten(&mut self, entry: Entry, epoch: Epoch, now_ms: u64) {
        let key = entry.key()[0];
        let Some(stored) = self.keyspace.get_mut(&key) else {
            return;
        };
        let wanted = epoch.unix_ms().min(now_ms) + u64::from(entry.swr_ms());
        stored.deadline_ms = stored.deadline_ms.min(wanted);
        let deadline_ms = stored.deadline_ms;
        // SAFETY: the keyspace holds it, so it is alive and linked.
        unsafe { self.index.shortened(0, entry) };
        self.log.push(Op::Shorten { key, deadline_ms });
    }

    /// One piece of reclaim. Primaries only. Whether there was anything to do.
    pub fn reclaim(&mut self, now_ms: u64) -> bool {
        match self.index.next_task() {
            Some(Task::Delete { entry, .. }) => self.unlink(entry.key()[0]),
            Some(Task::Shorten { entry, epoch, .. }) => self.shorten(entry, epoch, now_ms),
            None => {
                self.index.bury();
            }
        }
        self.index.has_pending()
    }

    /// The index equals the keyspace.
    pub fn check(&mut self) {
        let keyspace: Vec<_> = self
            .keyspace
            .iter()
            .map(|(key, stored)| (vec![*key], stored.entry))
            .collect();
        // SAFETY: the keyspace holds them, so they are alive.
        unsafe { self.index.verify(0, &keyspace) }.expect("the index equals the keyspace");
    }

    /// Everything that would be served, with whether it is stale.
    pub fn served(&mut self, now_ms: u64) -> Vec<(Key, Value, bool)> {
        let keys: Vec<Key> = self.keyspace.keys().copied().collect();
        let look = |key| {
            let (value, verdict, _) = self.look(key, now_ms)?;
            Some((key, value, verdict != Verdict::Live))
        };
        keys.into_iter().filter_map(look).collect()
    }

    // ---- replication, persistence, migration ----

    /// What a full synchronisation or a file holds: the dead without their values.
    pub fn data_set(&self) -> Vec<Op> {
        let op = |(key, stored): (&Key, &Stored)| Op::Set {
            key: *key,
            value: decode(stored.entry.value()),
            attributes: match self.index.judge(&stored.entry) {
                Verdict::Live => stored.entry.attributes(),
                Verdict::Soft(_) | Verdict::Dead => HUSK,
            },
            deadline_ms: stored.deadline_ms,
        };
        self.keyspace.iter().map(op).collect()
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
                self.fills.observe(attributes.birth);
                self.store(*key, *value, *attributes, *deadline_ms);
            }
            Op::Unlink(key) => {
                self.remove(*key);
            }
            Op::Invalidate(invalidation, epoch) => {
                let (name, scope) = (name(invalidation.tag), invalidation.scope());
                let names = || std::iter::once(&name[..]);
                self.fills.note_at(names(), scope, *epoch);
                match invalidation.soft {
                    true => self.index.soften(0, names(), scope, *epoch),
                    false => self.index.kill(0, names(), scope),
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
        self.fills.new_run(incarnation, now_ms);
        if drop {
            let floor = self.fills.new_floor(now_ms);
            self.index.raise_floor(floor);
        }
    }

    /// Starts with what an earlier run left on disk. With `on-restart drop`: keys without values.
    pub fn load(&mut self, file: &[Op], drop: bool) {
        for op in file {
            let mut op = op.clone();
            if let Op::Set { attributes, .. } = &mut op
                && drop
            {
                *attributes = HUSK;
            }
            self.apply(&op);
        }
    }

    /// What MIGRATE sends; nothing for a key that is not there.
    pub fn dump(&mut self, key: Key, now_ms: u64) -> Option<Dump> {
        self.expire_key(key, now_ms);
        let stored = *self.keyspace.get(&key)?;
        let saved = self.fills.token(now_ms);
        let meta = match self.index.judge(&stored.entry) {
            Verdict::Live => {
                let names = self.index.names(&stored.entry);
                encode::encode(stored.entry.attributes(), saved, names)
            }
            Verdict::Soft(_) | Verdict::Dead => encode::encode(HUSK, saved, std::iter::empty()),
        };
        Some(Dump {
            key,
            meta,
            value: decode(stored.entry.value()),
            ttl_ms: stored.deadline_ms - now_ms,
        })
    }

    pub fn restore(&mut self, dump: &Dump, now_ms: u64) {
        let decoded = encode::decode(encode::VERSION, &dump.meta).expect("what we wrote");
        self.fills.observe(decoded.attributes.birth);
        let missed = self.fills.may_have_missed_an_invalidation(&decoded);
        let Decoded { attributes, .. } = decoded;
        let deadline_ms = now_ms + dump.ttl_ms;
        let dropped = missed || attributes.birth < self.index.floor();
        let taken = if dropped { HUSK } else { attributes };
        self.store(dump.key, dump.value, taken, deadline_ms);
        // Redis replicates RESTORE as it came: a replica takes it as it is, and hears of the deletion later.
        self.log.push(Op::Set {
            key: dump.key,
            value: dump.value,
            attributes,
            deadline_ms,
        });
    }

    /// MIGRATE is done: the key is elsewhere now, and so are those who wait for it.
    pub fn migrated(&mut self, key: Key) {
        self.unlink(key);
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
