//! Everything around servers and processes: the network, the database that knows the truth, and what is checked.
//!
//! Checked always: no near hit older than what was settled when the call began, nor than what its own process had begun
//! to invalidate, nor of a value in whose place another one was stored more than a lease before; no value from a server
//! older than what was acknowledged (else the simulation of the server is wrong). And at the end, when nothing goes
//! wrong any more: every write is settled, every process serves hits, and none is outdated.

/// With `MCACHE_TRACE` a history is told as it happens.
macro_rules! trace {
    ($world:expr, $($what:tt)*) => {
        if $world.traced {
            println!("{:>9} us: {}", $world.now_us, format_args!($($what)*));
        }
    };
}

mod disasters;
mod following;
mod network;
mod reads;
mod replies;
mod truth;
mod writes;

use std::collections::BTreeMap;

use mcache_core::feed::{Prefixes, Settings, SlotSet};
use mcache_core::near::{Own, Settle, Step};

use crate::clock::Clock;
use crate::counts::Counts;
use crate::node::{Cache, Handle, Node, Reply, Request};
use crate::process::{Pending, Process, Read, What, Write};

pub use truth::{Floors, Stored, undercuts};

pub type Key = u8;
pub type Tag = u8;
/// Versions of the two tags of a key, and of the key itself, from which it was made.
pub type Value = [u32; 3];

pub const KEYS: u8 = 8;
pub const TAGS: u8 = 6;
pub const SHARDS: usize = 2;
/// Slots move in groups of so many.
const GROUPS: usize = 4;
const GROUP: u16 = 4_096;
pub const NODES: usize = 4;
const PROCESSES: usize = 3;
/// Virtual time during which things begin and go wrong, in a short history and in a long one: leases of predecessors
/// are waited for in seconds.
const HORIZONS_US: [u64; 2] = [3_000_000, 15_000_000];
/// And after that until all is over.
const CALM_US: u64 = 14_000_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Hard,
    Auto,
    Soft,
}

pub fn tags_of(key: Key) -> [Tag; 2] {
    [key % TAGS, (key * 2 + 1) % TAGS]
}

pub fn is_manual(key: Key) -> bool {
    key % 4 == 3
}

pub fn slot_of(key: Key) -> u16 {
    group_of(key) as u16 * GROUP + u16::from(key)
}

fn group_of(key: Key) -> usize {
    usize::from(key) % GROUPS
}

pub fn key_name(key: Key) -> Vec<u8> {
    format!("key:{key}").into_bytes()
}

/// Tags are of two tenants.
pub fn tag_name(tag: Tag) -> Vec<u8> {
    format!("{}:{tag}", ["eu", "us"][usize::from(tag % 2)]).into_bytes()
}

#[derive(Clone, Copy, Debug)]
enum Disaster {
    Pause,
    Kill,
    Cut,
    Freeze,
    FreezeAndReplace,
    CrashAndReplace,
    HandOver,
    Restart,
    Isolate,
    MoveSlots,
    WallJump,
    FeedOff,
    Lease,
    LogShrinks,
    Replicas,
    Leave,
}

/// What needs most to coincide with it is struck most often.
const DISASTERS: [Disaster; 18] = [
    Disaster::Pause,
    Disaster::Kill,
    Disaster::Cut,
    Disaster::Freeze,
    Disaster::FreezeAndReplace,
    Disaster::FreezeAndReplace,
    Disaster::FreezeAndReplace,
    Disaster::CrashAndReplace,
    Disaster::HandOver,
    Disaster::Restart,
    Disaster::Isolate,
    Disaster::MoveSlots,
    Disaster::WallJump,
    Disaster::FeedOff,
    Disaster::Lease,
    Disaster::LogShrinks,
    Disaster::Replicas,
    Disaster::Leave,
];

#[derive(Debug)]
enum Event {
    Read(usize, Key),
    Store(usize, Key),
    Write(usize),
    Evict(Key),
    Disaster(Disaster),
    Deliver {
        node: usize,
        life: u64,
        process: usize,
        process_life: u64,
        call: u64,
        request: Request,
    },
    Reply {
        process: usize,
        life: u64,
        call: u64,
        reply: Reply,
    },
    Timeout {
        process: usize,
        life: u64,
        call: u64,
    },
    Loaded {
        process: usize,
        life: u64,
        read: u64,
        node: usize,
    },
    Retry {
        process: usize,
        life: u64,
        write: u64,
        shard: usize,
    },
    Follow {
        process: usize,
        life: u64,
        node: usize,
    },
    SettleByTime {
        process: usize,
        life: u64,
        write: u64,
        shard: usize,
    },
    Timer(usize),
    Cron,
    Reach {
        process: usize,
        node: usize,
    },
    Promote(usize),
    Learns {
        node: usize,
    },
    Rejoins {
        node: usize,
    },
    Notices {
        node: usize,
    },
    Starts {
        node: usize,
        cache: Cache,
    },
    On {
        node: usize,
    },
    Disconnected {
        node: usize,
        process: usize,
        process_life: u64,
    },
    Replicas {
        node: usize,
    },
}

struct Server {
    node: Node,
    /// Counts its lives.
    life: u64,
    up: bool,
    frozen_until_us: u64,
    /// Handles of parked calls: whose they are.
    parked: BTreeMap<Handle, (usize, u64, u64)>,
    timer_us: Option<u64>,
}

pub struct World {
    rng: fastrand::Rng,
    now_us: u64,
    queue: BTreeMap<(u64, u64), Event>,
    servers: Vec<Server>,
    processes: Vec<Process>,
    /// Who is the primary of each shard, and which shard owns each group of slots.
    primary: [usize; SHARDS],
    owner: [usize; GROUPS],
    changing: [bool; SHARDS],
    database: Floors,
    acknowledged: Floors,
    settled: Floors,
    stored: Stored,
    /// The longest lease that was configured in this history.
    longest_ms: u64,
    horizon_us: u64,
    settings: Settings,
    /// What a new primary begins with: what the former one had, or nothing.
    keeps: bool,
    next: u64,
    traced: bool,
    counts: Counts,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let settings = Settings {
            on: true,
            lease_ms: [100, 400, 1_000, 1_000][rng.usize(..4)],
            bytes: [400, 1_500, 100_000][rng.usize(..3)],
            subscribers: 16,
        };
        let mut world = World {
            now_us: 0,
            queue: BTreeMap::new(),
            servers: Vec::new(),
            processes: Vec::new(),
            primary: [0, 2],
            owner: [0, 1, 0, 1],
            changing: [false; SHARDS],
            database: Floors::default(),
            acknowledged: Floors::default(),
            settled: Floors::default(),
            stored: Stored::default(),
            longest_ms: settings.lease_ms,
            horizon_us: HORIZONS_US[rng.usize(..2)],
            settings,
            keeps: rng.bool(),
            next: 0,
            traced: std::env::var_os("MCACHE_TRACE").is_some(),
            counts: Counts::default(),
            rng,
        };
        for node in 0..NODES {
            let clock = Clock::any(&mut world.rng);
            let slots = world.slots_of(node);
            let mut server = Node::new(&mut world.rng, clock, settings, slots, 0);
            if !world.primary.contains(&node) {
                server.demote();
            }
            world.servers.push(Server {
                node: server,
                life: 0,
                up: true,
                frozen_until_us: 0,
                parked: BTreeMap::new(),
                timer_us: None,
            });
        }
        for process in 0..PROCESSES {
            let clock = Clock::any(&mut world.rng);
            let prefixes = match world.rng.u8(..3) {
                0 => Prefixes::new([b"eu:".as_slice()].into_iter()).expect("one"),
                _ => Prefixes::all(),
            };
            let primaries = world.primary;
            world
                .processes
                .push(Process::new(clock, prefixes, primaries));
            world.follow_all(process);
        }
        for _ in 0..world.rng.u64(300..1_500) * world.horizon_us / HORIZONS_US[0] / 2 {
            let process = world.rng.usize(..PROCESSES);
            let key = world.rng.u8(..KEYS);
            world.some_time(Event::Read(process, key));
        }
        for _ in 0..world.rng.u64(10..60) * world.horizon_us / HORIZONS_US[0] / 2 {
            let process = world.rng.usize(..PROCESSES);
            world.some_time(Event::Write(process));
        }
        for _ in 0..world.rng.u32(0..20) {
            let process = world.rng.usize(..PROCESSES);
            let key = world.rng.u8(..KEYS);
            world.some_time(Event::Store(process, key));
        }
        for _ in 0..world.rng.u32(0..20) {
            let key = world.rng.u8(..KEYS);
            world.some_time(Event::Evict(key));
        }
        for _ in 0..world.rng.u32(0..7) {
            let disaster = DISASTERS[world.rng.usize(..DISASTERS.len())];
            world.some_time(Event::Disaster(disaster));
        }
        world.at(0, Event::Cron);
        world
    }

    fn slots_of(&self, node: usize) -> SlotSet {
        let mut slots = SlotSet::default();
        for (group, shard) in self.owner.iter().enumerate() {
            if *shard == node / 2 {
                let first = group as u16 * GROUP;
                slots.add(first, first + GROUP - 1);
            }
        }
        slots
    }

    fn some_time(&mut self, event: Event) {
        let at_us = self.rng.u64(5_000..self.horizon_us);
        self.at(at_us, event);
    }

    /// Events of one moment come in random order.
    fn at(&mut self, at_us: u64, event: Event) {
        let order = self.rng.u64(..);
        self.queue.insert((at_us.max(self.now_us), order), event);
    }

    fn after(&mut self, delay_us: u64, event: Event) {
        self.at(self.now_us + delay_us, event);
    }

    fn delay_us(&mut self) -> u64 {
        match self.rng.u8(..40) {
            0 if self.now_us < self.horizon_us => self.rng.u64(2_000..300_000),
            _ => self.rng.u64(30..1_500),
        }
    }

    fn is_lost(&mut self) -> bool {
        self.now_us < self.horizon_us && self.rng.u8(..60) == 0
    }

    // ---- the run ----

    pub fn run(mut self) -> Counts {
        while let Some(((at_us, _), event)) = self.queue.pop_first() {
            self.now_us = at_us;
            if at_us >= self.horizon_us + CALM_US {
                break;
            }
            self.dispatch(event);
        }
        self.check_the_end();
        self.counts
    }

    /// When whom an event concerns can take part in it: a process that is stopped and a server that is frozen cannot.
    fn held_up_until(&self, event: &Event) -> u64 {
        match event {
            Event::Read(process, _)
            | Event::Store(process, _)
            | Event::Write(process)
            | Event::Reply { process, .. }
            | Event::Timeout { process, .. }
            | Event::Loaded { process, .. }
            | Event::Retry { process, .. }
            | Event::Follow { process, .. }
            | Event::SettleByTime { process, .. } => self.processes[*process].paused_until_us,
            Event::Deliver { node, .. }
            | Event::Timer(node)
            | Event::Disconnected { node, .. }
            | Event::Learns { node }
            | Event::Notices { node } => self.servers[*node].frozen_until_us,
            _ => 0,
        }
    }

    fn dispatch(&mut self, event: Event) {
        let until_us = self.held_up_until(&event);
        if until_us > self.now_us {
            let later_us = until_us + self.rng.u64(..3_000);
            return self.at(later_us, event);
        }
        match event {
            Event::Read(process, key) => self.read(process, key),
            Event::Store(process, key) => self.store(process, key),
            Event::Write(process) => self.write(process),
            Event::Evict(key) => {
                let node = self.primary[self.owner[group_of(key)]];
                self.servers[node].node.lose(key);
                self.counts.evictions += 1;
            }
            Event::Disaster(disaster) => self.strike(disaster),
            Event::Deliver {
                node,
                life,
                process,
                process_life,
                call,
                request,
            } => {
                if self.servers[node].up && self.servers[node].life == life {
                    self.deliver(node, process, process_life, call, request);
                }
            }
            Event::Reply {
                process,
                life,
                call,
                reply,
            } => {
                if self.processes[process].life == life {
                    self.replied(process, call, Some(reply));
                }
            }
            Event::Timeout {
                process,
                life,
                call,
            } => {
                if self.processes[process].life == life {
                    self.replied(process, call, None);
                }
            }
            Event::Loaded {
                process,
                life,
                read,
                node,
            } => {
                if self.processes[process].life == life {
                    self.loaded(process, read, node);
                }
            }
            Event::Retry {
                process,
                life,
                write,
                shard,
            } => {
                if self.processes[process].life == life {
                    self.send_write(process, write, shard);
                }
            }
            Event::Follow {
                process,
                life,
                node,
            } => {
                if self.processes[process].life == life {
                    self.call_feed(process, node);
                }
            }
            Event::SettleByTime {
                process,
                life,
                write,
                shard,
            } => {
                if self.processes[process].life == life {
                    self.settle_by_time(process, write, shard);
                }
            }
            Event::Timer(node) => {
                if self.servers[node]
                    .timer_us
                    .is_some_and(|at| at <= self.now_us)
                {
                    self.servers[node].timer_us = None;
                }
                self.turn(node);
            }
            Event::Cron => {
                for node in 0..NODES {
                    if self.servers[node].frozen_until_us <= self.now_us && self.servers[node].up {
                        self.turn(node);
                    }
                }
                self.after(100_000, Event::Cron);
            }
            other => self.aftermath(other),
        }
    }
}
