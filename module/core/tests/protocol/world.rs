//! Everything around the servers: clients, the network, the store that knows the truth, and what goes wrong.
//!
//! What is checked, always: no `hit` older than the last acknowledged invalidation of one of its tags at the time the
//! read began, no `stale` older than the last hard one; one filler a key; the index equals the keyspace. And at the
//! end, when nothing is under way any more: nothing outdated is stored, and no client waits.

mod clients;
mod counts;
mod disasters;

use std::collections::{BTreeMap, HashMap};

use mcache_core::epoch::Token;

use crate::server::{Dump, Invalidation, Reply, Request, Server};
pub use counts::Counts;

pub type Key = u8;
pub type Tag = u8;
/// Which version of each of its tags' records it was made from.
pub type Value = [u32; TAGS_A_KEY];

pub const TAGS_A_KEY: usize = 2;
const KEYS: u8 = 6;
const TAGS: u8 = 8;
const SHARDS: usize = 2;
/// Virtual time during which things begin.
const HORIZON_MS: u64 = 4_000;
/// By then everything is over.
const END_MS: u64 = 60_000;
/// How far a clock may be off, either way: two of them by less than the second that is promised.
const SKEW_MS: i64 = 480;
/// Milliseconds since 1970 at which histories begin.
const BEGINNING_MS: i64 = 1_800_000_000_000;

pub fn tags_of(key: Key) -> [Tag; TAGS_A_KEY] {
    [key % TAGS, (key * 2 + 1) % TAGS]
}

/// Whether automatic invalidations spare it.
pub fn is_manual(key: Key) -> bool {
    key == KEYS - 1
}

/// Versions that must not be undercut.
#[derive(Clone, Copy, Default)]
struct Floors {
    /// By what is live.
    live: Value,
    /// By what is served at all.
    stale: Value,
}

/// The database behind the cache.
#[derive(Default)]
struct Store {
    versions: [u32; TAGS as usize],
    /// The last version whose invalidation is acknowledged, by whether it concerns manual entries, and by whether it is
    /// hard.
    acknowledged: [[[u32; TAGS as usize]; 2]; 2],
}

impl Store {
    fn read(&self, key: Key) -> Value {
        tags_of(key).map(|tag| self.versions[usize::from(tag)])
    }

    fn floors(&self, key: Key) -> Floors {
        let [any, hard] = self.acknowledged[usize::from(is_manual(key))];
        Floors {
            live: tags_of(key).map(|tag| any[usize::from(tag)]),
            stale: tags_of(key).map(|tag| hard[usize::from(tag)]),
        }
    }

    fn acknowledge(&mut self, write: &Write) {
        let Invalidation {
            tag, auto, soft, ..
        } = write.invalidation;
        for manual in [false, true] {
            for hard in [false, true] {
                if auto && manual || soft && hard {
                    continue;
                }
                let version = &mut self.acknowledged[usize::from(manual)][usize::from(hard)]
                    [usize::from(tag)];
                *version = (*version).max(write.version);
            }
        }
    }
}

/// A change that is being told to every shard.
struct Write {
    invalidation: Invalidation,
    version: u32,
    pending: Vec<usize>,
}

/// A client that reads one key, and fills it if told to.
struct Reader {
    key: Key,
    floors: Floors,
    shard: usize,
    filling: Option<Token>,
    loaded: Value,
}

struct Shard {
    primary: Server,
    replica: Server,
    /// Operations of the primary's log that the replica has applied.
    applied: usize,
    /// Counts primaries: what was sent to an earlier one is lost.
    term: u64,
    skew_ms: i64,
    /// MIGRATE holds the server up; what arrives meanwhile waits.
    held_up: Option<Vec<(u64, Request)>>,
}

#[derive(Clone, Copy, Debug)]
enum Disaster {
    Failover,
    Restart,
    ReplicaRestart,
    ClockJump,
    Migrate,
    Flush,
}

enum Event {
    Read,
    Write,
    Disaster(Disaster),
    Deliver {
        shard: usize,
        term: u64,
        client: u64,
        request: Request,
    },
    Reply {
        client: u64,
        reply: Reply,
    },
    Lost {
        client: u64,
    },
    /// The loader reads the database.
    Load {
        client: u64,
    },
    /// And is done with what it read.
    Loaded {
        client: u64,
    },
    Vanish {
        client: u64,
    },
    Acknowledged {
        shard: usize,
        term: u64,
        client: u64,
        offset: usize,
    },
    Replicate {
        shard: usize,
        term: u64,
    },
    Reclaim {
        shard: usize,
    },
    Timer {
        shard: usize,
    },
    MigrateArrives {
        from: usize,
        term: u64,
        to: usize,
        to_term: u64,
        dump: Option<Dump>,
        key: Key,
    },
    MigrateEnds {
        from: usize,
        term: u64,
        to: usize,
        key: Key,
    },
}

pub struct World {
    rng: fastrand::Rng,
    now_ms: u64,
    queue: BTreeMap<(u64, u64), Event>,
    store: Store,
    shards: Vec<Shard>,
    owner: [usize; KEYS as usize],
    readers: HashMap<u64, Reader>,
    writes: HashMap<u64, Write>,
    next: u64,
    /// What a replica keeps when it is promoted; with `keep`, an invalidation counts once a replica has it.
    keep_on_promote: bool,
    /// Failovers, restarts and migrations at all.
    counts: Counts,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let keep_on_promote = rng.bool();
        let shard = |rng: &mut fastrand::Rng| {
            let skew_ms = rng.i64(-SKEW_MS..=SKEW_MS);
            let now_ms = (BEGINNING_MS + skew_ms) as u64;
            Shard {
                primary: started(Server::new(rng.u64(..), now_ms, true)),
                replica: started(Server::new(rng.u64(..), now_ms, false)),
                applied: 0,
                term: 0,
                skew_ms,
                held_up: None,
            }
        };
        let shards = (0..SHARDS).map(|_| shard(&mut rng)).collect();
        let mut world = World {
            // A server remembers nothing from before it began, so migrations need time to count.
            now_ms: 0,
            queue: BTreeMap::new(),
            store: Store::default(),
            shards,
            owner: std::array::from_fn(|key| key % SHARDS),
            readers: HashMap::new(),
            writes: HashMap::new(),
            next: 0,
            keep_on_promote,
            counts: Counts::default(),
            rng,
        };
        for _ in 0..world.rng.u32(20..200) {
            world.at_random(Event::Read);
        }
        for _ in 0..world.rng.u32(0..60) {
            world.at_random(Event::Write);
        }
        for _ in 0..world.rng.u32(0..8) {
            let disaster = match world.rng.u8(..10) {
                0 => Disaster::Failover,
                1 => Disaster::Restart,
                2 => Disaster::ClockJump,
                3 => Disaster::Flush,
                4 | 5 => Disaster::ReplicaRestart,
                // What a promoted replica keeps may include what its primary had refused to take over from another
                // shard and not deleted yet: with `keep`, slots should rest (docs/consistency.md).
                _ if keep_on_promote => Disaster::Failover,
                _ => Disaster::Migrate,
            };
            world.at_random(Event::Disaster(disaster));
        }
        world
    }

    fn at_random(&mut self, event: Event) {
        // From a while after the servers began, so that what migrates is not refused for that alone.
        let at_ms = self.rng.u64(0..HORIZON_MS);
        self.at(at_ms, event);
    }

    /// Events of one moment come in random order.
    fn at(&mut self, at_ms: u64, event: Event) {
        let order = self.rng.u64(..);
        self.queue.insert((at_ms, order), event);
    }

    fn after(&mut self, delay_ms: u64, event: Event) {
        self.at(self.now_ms + delay_ms, event);
    }

    fn delay_ms(&mut self) -> u64 {
        match self.rng.u8(..20) {
            0 => self.rng.u64(0..200),
            _ => self.rng.u64(0..8),
        }
    }

    fn clock_ms(&self, shard: usize) -> u64 {
        (BEGINNING_MS + self.now_ms as i64 + self.shards[shard].skew_ms) as u64
    }

    pub fn run(mut self) -> Counts {
        while let Some(((at_ms, _), event)) = self.queue.pop_first() {
            assert!(at_ms < END_MS, "something goes on for ever");
            self.now_ms = at_ms;
            self.step(event);
            for shard in 0..SHARDS {
                self.after_each_step(shard);
            }
        }
        self.finish()
    }

    fn finish(mut self) -> Counts {
        assert!(
            self.readers.is_empty(),
            "{} readers stuck",
            self.readers.len()
        );
        assert!(
            self.writes.is_empty(),
            "{} writers stuck",
            self.writes.len()
        );
        for shard in 0..SHARDS {
            let now_ms = self.clock_ms(shard);
            // Half-way through, and when all is done.
            self.compare(shard, now_ms);
            let server = &mut self.shards[shard].primary;
            while server.reclaim(now_ms) {}
            self.compare(shard, now_ms);
            let server = &mut self.shards[shard].primary;
            server.check();
            assert_eq!(server.waiting(), 0, "a client is parked for ever");
            self.counts.in_doubt += server.in_doubt();
            for (key, value, stale) in server.served(now_ms) {
                let floors = self.store.floors(key);
                let floor = if stale { floors.stale } else { floors.live };
                assert_at_least(value, floor, "at rest", key);
            }
        }
        self.counts
    }

    /// Clients that were woken reply, and what is left to do is done later.
    fn after_each_step(&mut self, shard: usize) {
        let now_ms = self.clock_ms(shard);
        let wakes = std::mem::take(&mut self.shards[shard].primary.wakes);
        for (client, answer) in wakes {
            if let Some(reply) = self.shards[shard].primary.woken(client, answer, now_ms) {
                self.reply(client, reply);
            }
        }
    }

    fn reply(&mut self, client: u64, reply: Reply) {
        let delay_ms = self.delay_ms();
        self.after(delay_ms, Event::Reply { client, reply });
    }

    fn send(&mut self, shard: usize, client: u64, request: Request) {
        let term = self.shards[shard].term;
        let delay_ms = self.delay_ms();
        let deliver = Event::Deliver {
            shard,
            term,
            client,
            request,
        };
        self.after(delay_ms, deliver);
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Read => self.read(),
            Event::Write => self.write(),
            Event::Disaster(disaster) => self.disaster(disaster),
            Event::Deliver {
                shard,
                term,
                client,
                request,
            } => {
                if self.shards[shard].term != term {
                    return self.lost(client);
                }
                self.deliver(shard, client, request);
            }
            Event::Reply { client, reply } => self.replied(client, reply),
            Event::Lost { client } => self.lost(client),
            Event::Load { client } => self.load(client),
            Event::Loaded { client } => self.loaded(client),
            Event::Vanish { client } => self.vanish(client),
            Event::Acknowledged {
                shard,
                term,
                client,
                offset,
            } => {
                self.acknowledged(shard, term, client, offset);
            }
            Event::Replicate { shard, term } => self.replicate(shard, term),
            Event::Reclaim { shard } => {
                let now_ms = self.clock_ms(shard);
                if self.rng.u8(..) < 40 {
                    self.compare(shard, now_ms);
                }
                if self.shards[shard].primary.reclaim(now_ms) {
                    let delay_ms = self.rng.u64(0..20);
                    self.after(delay_ms, Event::Reclaim { shard });
                }
                self.schedule_replication(shard);
            }
            Event::Timer { shard } => {
                let now_ms = self.clock_ms(shard);
                self.shards[shard].primary.expire_leases(now_ms);
                if self.shards[shard].primary.waiting() > 0 {
                    self.after(5, Event::Timer { shard });
                }
            }
            Event::MigrateArrives {
                from,
                term,
                to,
                to_term,
                dump,
                key,
            } => {
                self.migrate_arrives(from, term, to, to_term, dump, key);
            }
            Event::MigrateEnds {
                from,
                term,
                to,
                key,
            } => self.migrate_ends(from, term, to, key),
        }
    }

    fn deliver(&mut self, shard: usize, client: u64, request: Request) {
        // What a client sent before it closed its connection is not looked at after that.
        if !self.readers.contains_key(&client) && !self.writes.contains_key(&writer_of(client)) {
            return;
        }
        if let Some(held_up) = &mut self.shards[shard].held_up {
            return held_up.push((client, request));
        }
        let key = match request {
            Request::Get(key)
            | Request::Fetch { key, .. }
            | Request::Set { key, .. }
            | Request::Release { key, .. } => Some(key),
            Request::Token | Request::Invalidate(_) | Request::Flush => None,
        };
        // Moved: the client asks again elsewhere, or not at all.
        if key.is_some_and(|key| self.owner[usize::from(key)] != shard) {
            return self.lost(client);
        }
        let now_ms = self.clock_ms(shard);
        let random = self.rng.u64(..);
        let server = &mut self.shards[shard].primary;
        match server.handle(client, request, random, now_ms) {
            Some(Reply::Invalidated { offset }) => {
                let (term, delay_ms) = (self.shards[shard].term, self.delay_ms());
                let acknowledged = Event::Acknowledged {
                    shard,
                    term,
                    client,
                    offset,
                };
                self.after(delay_ms, acknowledged);
            }
            Some(reply) => self.reply(client, reply),
            None => {
                self.counts.parked += 1;
                self.after(1, Event::Timer { shard });
            }
        }
        if matches!(request, Request::Invalidate(_)) {
            self.shards[shard].primary.check();
            // The moment at which what is dead and what is stale has not been dealt with yet.
            if self.rng.u8(..) < 12 {
                self.full_sync(shard);
            }
            let delay_ms = self.rng.u64(0..2) * self.rng.u64(0..60);
            self.after(delay_ms, Event::Reclaim { shard });
        }
        self.schedule_replication(shard);
    }

    // ---- replication ----

    fn schedule_replication(&mut self, shard: usize) {
        let Shard {
            ref primary,
            applied,
            term,
            ..
        } = self.shards[shard];
        if applied < primary.log.len() {
            let delay_ms = self.delay_ms();
            self.after(delay_ms, Event::Replicate { shard, term });
        }
    }

    fn replicate(&mut self, shard: usize, term: u64) {
        let now_ms = self.clock_ms(shard);
        let Shard {
            primary,
            replica,
            applied,
            term: now,
            ..
        } = &mut self.shards[shard];
        if *now != term || *applied >= primary.log.len() {
            return;
        }
        // A burst, as the network has it.
        let until = self.rng.usize(*applied + 1..=primary.log.len());
        for op in &primary.log[*applied..until] {
            replica.apply(op, now_ms);
        }
        *applied = until;
        replica.check();
        self.schedule_replication(shard);
    }
}

impl Shard {
    fn counts_of_the_dead(&self, counts: &mut Counts) {
        counts.in_doubt += self.primary.in_doubt();
    }
}

fn started(mut server: Server) -> Server {
    server.started();
    server
}

/// A writer talks to each shard over a connection of its own.
fn writer_at(writer: u64, shard: usize) -> u64 {
    1 << 32 | writer << 4 | shard as u64
}

/// Readers have small numbers.
fn is_writer(client: u64) -> bool {
    client >> 32 != 0
}

fn writer_of(client: u64) -> u64 {
    (client & 0xffff_ffff) >> 4
}

fn shard_of_writer(client: u64) -> usize {
    (client & 15) as usize
}

fn assert_at_least(value: Value, floor: Value, what: &str, key: Key) {
    let newer = value
        .iter()
        .zip(floor)
        .all(|(version, floor)| *version >= floor);
    assert!(
        newer,
        "{what} of key {key}: {value:?}, acknowledged were {floor:?}"
    );
}
