//! One server: the feed of the crate, and the least of a cache that it needs around it: values, tokens, and the memory
//! of invalidations that refuses a fill which began too early.

use std::collections::BTreeMap;

use mcache_core::epoch::{self, Epoch, Token};
use mcache_core::feed::{
    CELL_BITS, Call, Feed, HashKey, Identity, NearData, Outcome, Position, Prefixes, Settings,
    Settled, Settling, SlotSet, Standing, Waits, Wake, read_events,
};
use mcache_core::index::Scope;
use mcache_core::near::{Answer, Data};

use crate::clock::Clock;
use crate::world::{Key, Kind, TAGS, Tag, Value, is_manual, key_name, slot_of, tag_name, tags_of};

pub type Handle = u64;

#[derive(Clone, Debug)]
pub enum Request {
    Feed {
        position: Option<Vec<u8>>,
        prefixes: Prefixes,
        wait_us: u64,
        count: usize,
        random: u64,
    },
    End {
        position: Vec<u8>,
    },
    Settle {
        timeout_us: u64,
        prefixes: Prefixes,
    },
    Fetch {
        key: Key,
        near: Option<Vec<u8>>,
    },
    Token {
        key: Key,
    },
    Set {
        key: Key,
        value: Value,
        token: Option<Token>,
        near: Option<Vec<u8>>,
    },
    Invalidate {
        tags: Vec<Tag>,
        kind: Kind,
    },
    Clear {
        key: Key,
    },
    Flush,
}

#[derive(Clone, Debug)]
pub enum Reply {
    Fed(Answer),
    Refused,
    Ended,
    Settled(Settled),
    Hit(Value, Option<Near>),
    Miss(Token),
    Stored(Option<Near>),
    NotStored,
    Acknowledged(Waits),
    Cleared,
    /// Another server serves that.
    Moved,
}

/// What comes with a value that was read for a near cache.
#[derive(Clone, Debug)]
pub struct Near {
    pub data: Data,
    pub life_ms: Option<u64>,
}

#[derive(Clone, Debug)]
struct Stored {
    value: Value,
    birth: Epoch,
    /// By the monotonic clock of the server that stored it: enough for a simulation.
    ends_us: Option<u64>,
}

/// The cache itself: what a replica gets.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    entries: BTreeMap<Key, Stored>,
    /// The last invalidation of each tag, for MANUAL entries and for others.
    invalidated: [[Epoch; TAGS as usize]; 2],
    cleared: BTreeMap<Key, Epoch>,
    flushed: Epoch,
}

/// One server.
pub struct Node {
    pub feed: Feed<Handle>,
    pub clock: Clock,
    pub standing: Standing,
    /// It is up and sees the majority of the cluster, as far as it knows.
    pub cluster_up: bool,
    pub slots: SlotSet,
    pub cache: Cache,
    epochs: epoch::Clock,
    incarnation: u64,
    rng: fastrand::Rng,
}

fn identity(rng: &mut fastrand::Rng) -> Identity {
    Identity {
        incarnation: rng.u64(..),
        hash_key: HashKey::new(rng.u128(..).to_le_bytes()),
    }
}

impl Node {
    pub fn new(
        rng: &mut fastrand::Rng,
        clock: Clock,
        settings: Settings,
        slots: SlotSet,
        real_us: u64,
    ) -> Self {
        let mut rng = rng.fork();
        let identity = identity(&mut rng);
        Node {
            feed: Feed::new(identity, settings, clock.us(real_us)),
            epochs: epoch::Clock::new(clock.wall_ms(real_us)),
            incarnation: identity.incarnation,
            clock,
            standing: Standing::GOOD,
            cluster_up: true,
            slots,
            cache: Cache::default(),
            rng,
        }
    }

    /// The time that the feed is told.
    pub fn now_us(&self, real_us: u64) -> u64 {
        self.clock.us(real_us)
    }

    /// It takes over from another server, with what it was given, or empty.
    pub fn promote(&mut self, cache: Cache, slots: SlotSet, real_us: u64) {
        let identity = identity(&mut self.rng);
        self.incarnation = identity.incarnation;
        self.cache = cache;
        self.slots = slots;
        self.standing = Standing::GOOD;
        self.cluster_up = true;
        // Epochs of the former primary are passed, also if this wall clock is behind.
        let wall_ms = self.clock.wall_ms(real_us);
        let cache = &self.cache;
        let seen = cache.invalidated.iter().flatten();
        let seen = seen.chain(cache.cleared.values()).chain([&cache.flushed]);
        let births = cache.entries.values().map(|stored| &stored.birth);
        for epoch in seen.chain(births) {
            self.epochs.observe(*epoch);
        }
        self.epochs.tick(wall_ms);
        let now_us = self.now_us(real_us);
        self.feed.promoted(identity, now_us);
    }

    pub fn demote(&mut self) {
        self.standing.primary = false;
        self.feed.demoted();
    }

    /// Says what slots it has, as the edge does before it answers.
    fn look_at_the_cluster(&mut self, now_us: u64) {
        let slots = self.slots.clone();
        self.feed.slots(&slots, now_us);
        self.standing.cluster_ok = self.cluster_up && !slots.is_empty();
    }

    /// Executes a request; `None` if its client is parked.
    pub fn execute(&mut self, handle: Handle, request: Request, real_us: u64) -> Option<Reply> {
        let now_us = self.now_us(real_us);
        self.look_at_the_cluster(now_us);
        Some(match request {
            Request::Feed {
                position,
                prefixes,
                wait_us,
                count,
                random,
            } => {
                let call = Call {
                    position: position.as_deref().and_then(Position::parse),
                    db: 0,
                    prefixes,
                    wait_us,
                    count,
                    random,
                };
                match self.feed.call(call, self.standing, now_us) {
                    Ok(Outcome::Answer(answer)) => Reply::Fed(client_side(answer)),
                    Ok(Outcome::Wait(ticket)) => {
                        self.feed.park(ticket, handle);
                        return None;
                    }
                    Err(_) => Reply::Refused,
                }
            }
            Request::End { position } => {
                if let Some(position) = Position::parse(&position) {
                    self.feed.end(position, now_us);
                }
                Reply::Ended
            }
            Request::Settle {
                timeout_us,
                prefixes,
            } => match self.feed.settle(0, &prefixes, timeout_us, now_us) {
                Settling::Now(state) => Reply::Settled(state),
                Settling::Wait(unsettled) => {
                    self.feed.park_settle(unsettled, handle);
                    return None;
                }
            },
            Request::Fetch { key, .. }
            | Request::Token { key }
            | Request::Set { key, .. }
            | Request::Clear { key }
                if !self.slots.has(slot_of(key)) =>
            {
                Reply::Moved
            }
            Request::Token { .. } => Reply::Miss(self.token(real_us)),
            Request::Fetch { key, near } => self.fetch(key, near, real_us),
            Request::Set {
                key,
                value,
                token,
                near,
            } => self.set(key, value, token, near, real_us),
            Request::Invalidate { tags, kind } => self.invalidate(&tags, kind, real_us),
            Request::Clear { key } => {
                let epoch = self.epochs.tick(self.clock.wall_ms(real_us));
                self.cache.cleared.insert(key, epoch);
                self.cache.entries.remove(&key);
                self.feed.key_changed(&key_name(key), true);
                Reply::Cleared
            }
            Request::Flush => {
                self.cache.flushed = self.epochs.tick(self.clock.wall_ms(real_us));
                self.cache.entries.clear();
                self.feed.flushed(Some(0));
                Reply::Cleared
            }
        })
    }

    fn fetch(&mut self, key: Key, near: Option<Vec<u8>>, real_us: u64) -> Reply {
        let now_us = self.now_us(real_us);
        let live = self
            .cache
            .entries
            .get(&key)
            .filter(|stored| stored.ends_us.is_none_or(|ends_us| ends_us > now_us))
            .cloned();
        match live {
            Some(stored) => Reply::Hit(stored.value, self.near(key, near, &stored, now_us)),
            None => Reply::Miss(self.token(real_us)),
        }
    }

    fn token(&mut self, real_us: u64) -> Token {
        Token {
            incarnation: self.incarnation,
            epoch: self.epochs.read(self.clock.wall_ms(real_us)),
        }
    }

    fn near(
        &mut self,
        key: Key,
        near: Option<Vec<u8>>,
        stored: &Stored,
        now_us: u64,
    ) -> Option<Near> {
        let position = Position::parse(&near?)?;
        let reader = self.feed.reader(position, 0, now_us)?;
        let tags = tags_of(key).map(tag_name);
        let tags = tags.iter().map(Vec::as_slice);
        let NearData { number, digests } = self.feed.give(reader, &key_name(key), tags, now_us)?;
        Some(Near {
            data: Data {
                number,
                manual: is_manual(key),
                digests,
            },
            life_ms: stored.ends_us.map(|ends_us| (ends_us - now_us) / 1_000),
        })
    }

    fn set(
        &mut self,
        key: Key,
        value: Value,
        token: Option<Token>,
        near: Option<Vec<u8>>,
        real_us: u64,
    ) -> Reply {
        let now_us = self.now_us(real_us);
        let wall_ms = self.clock.wall_ms(real_us);
        let birth = match token {
            None => self.epochs.read(wall_ms),
            Some(token) if token.incarnation == self.incarnation => token.epoch,
            Some(_) => return Reply::NotStored,
        };
        let row = self.cache.invalidated[usize::from(is_manual(key))];
        let outdated = birth < self.cache.flushed
            || tags_of(key)
                .into_iter()
                .any(|tag| row[usize::from(tag)] > birth)
            || self
                .cache
                .cleared
                .get(&key)
                .is_some_and(|cleared| *cleared > birth);
        if outdated {
            return Reply::NotStored;
        }
        let stored = Stored {
            value,
            birth,
            ends_us: (self.rng.u8(..8) == 0).then(|| now_us + self.rng.u64(1_000..2_000_000)),
        };
        self.cache.entries.insert(key, stored.clone());
        self.feed.key_changed(&key_name(key), false);
        Reply::Stored(self.near(key, near, &stored, now_us))
    }

    fn invalidate(&mut self, tags: &[Tag], kind: Kind, real_us: u64) -> Reply {
        let epoch = self.epochs.tick(self.clock.wall_ms(real_us));
        for tag in tags {
            self.cache.invalidated[0][usize::from(*tag)] = epoch;
            if kind != Kind::Auto {
                self.cache.invalidated[1][usize::from(*tag)] = epoch;
            }
        }
        self.cache.entries.retain(|key, stored| {
            let spared = kind == Kind::Auto && is_manual(*key) || stored.birth > epoch;
            spared || !tags_of(*key).iter().any(|tag| tags.contains(tag))
        });
        let (scope, soft) = match kind {
            Kind::Hard => (Scope::All, false),
            Kind::Auto => (Scope::Auto, false),
            Kind::Soft => (Scope::All, true),
        };
        let names: Vec<Vec<u8>> = tags.iter().map(|tag| tag_name(*tag)).collect();
        let names = names.iter().map(Vec::as_slice);
        self.feed.invalidated(0, names.clone(), scope, soft);
        Reply::Acknowledged(self.feed.waits(0, names, self.now_us(real_us)))
    }

    /// Expiry, eviction, reclaim: an entry leaves without a word.
    pub fn lose(&mut self, key: Key) {
        self.cache.entries.remove(&key);
    }

    /// Fills of the key that began before are refused.
    pub fn refuse_fills(&mut self, key: Key, real_us: u64) {
        let epoch = self.epochs.tick(self.clock.wall_ms(real_us));
        self.cache.cleared.insert(key, epoch);
    }

    /// Does what is due by itself, and returns the replies.
    pub fn run(&mut self, real_us: u64) -> Vec<(Handle, Reply)> {
        let now_us = self.now_us(real_us);
        self.feed.run(now_us);
        self.replies(real_us)
    }

    /// Replies to the clients that were woken.
    pub fn replies(&mut self, real_us: u64) -> Vec<(Handle, Reply)> {
        let now_us = self.now_us(real_us);
        self.look_at_the_cluster(now_us);
        let wakes = self.feed.take_wakes();
        let reply = |wake| match wake {
            Wake::Settle(handle, state) => (handle, Reply::Settled(state)),
            Wake::Refused(handle, _) => (handle, Reply::Refused),
            Wake::Feed(handle, ticket) => match self.feed.woken(ticket, self.standing, now_us) {
                Ok(answer) => (handle, Reply::Fed(client_side(answer))),
                Err(_) => (handle, Reply::Refused),
            },
        };
        wakes.into_iter().map(reply).collect()
    }

    /// When it has something to do by itself.
    pub fn next_us(&self) -> Option<u64> {
        self.feed.next_us().map(|us| self.clock.real_us(us))
    }
}

/// An answer as the client reads it from the wire.
fn client_side(answer: mcache_core::feed::Answer) -> Answer {
    Answer {
        position: answer.position.to_string().into_bytes().into(),
        lease_ms: answer.lease_ms,
        more: answer.more,
        events: read_events(&answer.events).expect("written by the feed"),
        gap: answer.gap.map(|hash_key| (hash_key, CELL_BITS)),
    }
}
