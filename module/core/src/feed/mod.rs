//! The feed: how near caches learn what was invalidated, and how long they may serve without having heard.
//!
//! A near cache *subscribes*, and from then on calls FEED with its *position*: it is told what happened since, and may
//! serve for one *near lease* from before it sent the call. Its next call *confirms* that it has applied what it was
//! told. An invalidation is *settled* when every subscription that it concerns has confirmed it, or its lease is over.
//! So a near cache that is stopped, cut off or dead delays a settling by one lease and never serves what was
//! invalidated.
//!
//! Pure: the time comes in as microseconds of a monotonic clock, what the server is comes in as a [`Standing`], and who
//! is to be woken goes out as [`Wake`]s. `W` is what the edge knows a parked client by. Every structure is bounded, and
//! while the log does not run nothing is written: [`Feed::is_running`] is all that a command asks.
//!
//! - this file: the parts, and when the log begins and ends
//! - `call.rs`: FEED · `tell.rs`: what becomes an event · `read.rs`: values for near caches · `wait.rs`: SETTLE ·
//!   `pace.rs`: what happens by itself · `parse.rs`: the grammar
//! - below them: `log` and `event`, `group` and `prefixes`, `settle`, `grant` and `lease`, `marks`, `slots`,
//!   `position`, `digest`

mod call;
mod digest;
mod event;
mod grant;
mod group;
pub mod lease;
mod log;
mod marks;
mod pace;
mod parse;
mod position;
mod prefixes;
mod read;
mod settle;
mod slots;
mod tell;
mod wait;

use std::collections::{BTreeMap, BTreeSet};

pub use call::{Answer, Call, Outcome, Ticket};
pub use digest::HashKey;
pub use event::{ALL_DATABASES, Kind, Told, read as read_events};
pub use grant::{Refusal, Standing};
pub use group::MAX_COUNT;
pub use marks::{CELL_BITS, cell};
pub use parse::{FeedCommand, NearGet, SettleCommand};
pub use position::{Named, Position};
pub use prefixes::{MAX_PREFIXES, Prefixes};
pub use read::{NearData, Reader};
pub use settle::{MAX_SETTLES, MAX_WAITS, Settled, Unsettled};
pub use slots::{SLOTS, SlotSet, redirection};
pub use wait::{Settling, Waits};

use call::Subscription;
use grant::Grants;
use group::Groups;
use log::Log;
use marks::Marks;
use pace::Round;
use settle::Settles;

/// A subscription is forgotten, and the log stops, so many leases after the last lease ended.
pub const LEASES_KEPT: u64 = 10;

/// What the configuration says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `mcache.feed`: whether near leases are granted at all.
    pub on: bool,
    /// `mcache.near-lease-ms`.
    pub lease_ms: u64,
    /// `mcache.feed-bytes`.
    pub bytes: usize,
    /// `mcache.max-subscribers`.
    pub subscribers: usize,
}

/// One run of a server: made from random bits when it starts and when it is promoted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Positions of another one are not known here.
    pub incarnation: u64,
    /// The key of digests.
    pub hash_key: HashKey,
}

/// A parked client and what it is told. It is no longer parked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake<W> {
    /// A FEED: ask [`Feed::woken`] what to answer, at the moment of the reply.
    Feed(W, Ticket),
    /// A FEED that is answered with an error.
    Refused(W, Refusal),
    /// A SETTLE.
    Settle(W, Settled),
}

/// Numbers for INFO.
#[derive(Clone, Copy, Default, Debug)]
#[allow(missing_docs)]
pub struct Stats {
    pub events: u64,
    pub gaps: u64,
    pub refusals: u64,
    pub settles: u64,
    pub settles_at_once: u64,
    pub near_reads: u64,
}

/// The feed of one server.
pub struct Feed<W> {
    identity: Identity,
    settings: Settings,
    generation: u32,
    /// `None` while there is no subscriber.
    log: Option<Log>,
    /// The number of the last event in this run of the server.
    end: u64,
    marks: Option<Marks>,
    /// The digest of the key whose entry left just now.
    left: Option<(u64, u64)>,
    subscriptions: BTreeMap<u64, Subscription<W>>,
    groups: Groups,
    by_handle: BTreeMap<W, u64>,
    /// When each parked call has waited for long enough.
    patience: BTreeSet<(u64, u64)>,
    settles: Settles<W>,
    grants: Grants,
    slots: Option<SlotSet>,
    round: Round,
    /// When subscriptions are looked through next.
    sweep_us: u64,
    /// When the last subscription ended, as far as is known.
    ended_us: u64,
    wakes: Vec<Wake<W>>,
    stats: Stats,
}

impl<W> Feed<W> {
    /// A feed that is switched off.
    pub fn off(identity: Identity, now_us: u64) -> Self {
        let settings = Settings {
            on: false,
            lease_ms: lease::LONGEST_MS,
            bytes: 0,
            subscribers: 0,
        };
        Feed {
            identity,
            settings,
            generation: 1,
            log: None,
            end: 0,
            marks: None,
            left: None,
            subscriptions: BTreeMap::new(),
            groups: Groups::default(),
            by_handle: BTreeMap::new(),
            patience: BTreeSet::new(),
            settles: Settles::default(),
            grants: Grants::new(now_us),
            slots: None,
            round: Round::default(),
            sweep_us: 0,
            ended_us: 0,
            wakes: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// Whether anything has to be written down.
    #[inline]
    pub fn is_running(&self) -> bool {
        self.log.is_some()
    }
}

impl<W: Copy + Ord> Feed<W> {
    /// The feed of a server that starts. The server that ran before it may have granted leases.
    pub fn new(identity: Identity, settings: Settings, now_us: u64) -> Self {
        let mut feed = Feed::off(identity, now_us);
        feed.configure(settings, now_us);
        feed
    }

    /// Whether there is anything that [`Feed::run`] could have to do.
    pub fn is_idle(&self) -> bool {
        self.log.is_none() && self.subscriptions.is_empty() && self.settles.len() == 0
    }

    /// What the configuration says.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// The server was promoted: its predecessor may have granted leases, and it knows no subscription.
    pub fn promoted(&mut self, identity: Identity, now_us: u64) {
        self.stop_log();
        self.drop_subscriptions();
        self.identity = identity;
        self.succeed(now_us);
    }

    /// The server became a replica. It grants nothing any more; what it granted runs out.
    pub fn demoted(&mut self) {
        self.stop_log();
    }

    /// Takes over what the configuration says now. A shorter lease concerns leases granted from now on.
    pub fn configure(&mut self, settings: Settings, now_us: u64) {
        let was_on = std::mem::replace(&mut self.settings, settings).on;
        if let Some(log) = &mut self.log {
            log.resize(settings.bytes);
        }
        if was_on && !settings.on {
            self.stop_log();
        }
        if settings.on && !was_on {
            // While it was off, slots were not counted, and another server may have granted.
            self.slots = None;
            self.grants.resumed(now_us);
            self.succeed(now_us);
        }
    }

    /// From now on leases of predecessors may run, if the feed is on here and hence everywhere.
    fn succeed(&mut self, now_us: u64) {
        if self.settings.on {
            self.grants.succeed(now_us);
        }
    }

    /// Begins to write down what happens.
    fn start_log(&mut self, now_us: u64) -> &mut Log {
        let Settings {
            lease_ms, bytes, ..
        } = self.settings;
        self.grants.run(lease_ms, now_us);
        let end = self.end;
        self.log.get_or_insert_with(|| {
            self.groups.restart(end);
            self.marks = Some(Marks::new());
            Log::new(end, bytes)
        })
    }

    /// Ends the log: every position so far is a gap. Leases that were granted run on.
    fn stop_log(&mut self) {
        if self.log.take().is_none() {
            return;
        }
        self.marks = None;
        self.left = None;
        self.generation += 1;
        // What was not told yet will be forgotten with everything else.
        let parked: Vec<W> = self.by_handle.keys().copied().collect();
        for handle in parked {
            self.unpark(handle);
            let refusal = if self.settings.on {
                Refusal::Replica
            } else {
                Refusal::Off
            };
            self.wakes.push(Wake::Refused(handle, refusal));
        }
    }

    fn drop_subscriptions(&mut self) {
        let all: Vec<u64> = self.subscriptions.keys().copied().collect();
        for subscription in all {
            self.remove(subscription);
        }
    }

    fn remove(&mut self, subscription: u64) {
        let Some(gone) = self.subscriptions.remove(&subscription) else {
            return;
        };
        self.groups.leave(gone.group);
        if let Some(parked) = gone.parked {
            self.by_handle.remove(&parked.handle);
            self.patience.remove(&(parked.until_us, subscription));
            self.wakes
                .push(Wake::Refused(parked.handle, Refusal::Replaced));
        }
    }

    // ---- numbers for INFO ----

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// How many subscriptions there are.
    pub fn subscribers(&self) -> usize {
        self.subscriptions.len()
    }

    /// Bytes of the log and the marks.
    pub fn bytes(&self) -> usize {
        let log = self.log.as_ref().map_or(0, Log::bytes);
        log + self.marks.as_ref().map_or(0, Marks::bytes)
    }

    /// How many FEEDs are parked.
    pub fn parked(&self) -> usize {
        self.by_handle.len()
    }

    /// How many SETTLEs are parked.
    pub fn settling(&self) -> usize {
        self.settles.len()
    }

    /// The longest that a parked SETTLE took.
    pub fn longest_settle_us(&self) -> u64 {
        self.settles.longest_us
    }

    /// How long predecessors' leases may still run, in microseconds.
    pub fn predecessors_us(&self, now_us: u64) -> u64 {
        let until_us = self.grants.predecessors(now_us).unwrap_or(now_us);
        until_us - now_us
    }
}
