//! What goes wrong, what comes of it, and how it is at the end.

use mcache_core::feed::{Settings, Standing};

use super::*;

/// How long a cluster node that is cut off takes to notice, and how much later its successor is elected at the
/// earliest.
const NODE_TIMEOUT_US: u64 = 500_000;

impl World {
    fn any_node(&mut self) -> usize {
        self.rng.usize(..NODES)
    }

    /// A shard that is not being changed already; from now on it is.
    fn change_a_shard(&mut self) -> Option<usize> {
        let shard = self.rng.usize(..SHARDS);
        (!std::mem::replace(&mut self.changing[shard], true)).then_some(shard)
    }

    pub(super) fn strike(&mut self, disaster: Disaster) {
        self.counts.strike(&format!("{disaster:?}"));
        trace!(self, "{disaster:?}");
        match disaster {
            Disaster::Pause => {
                let process = self.rng.usize(..PROCESSES);
                let until_us = self.now_us + self.rng.u64(50_000..3_000_000);
                self.processes[process].paused_until_us = until_us;
            }
            Disaster::Kill => self.kill(),
            Disaster::Leave => self.leave(),
            Disaster::Cut => {
                let process = self.rng.usize(..PROCESSES);
                let node = self.any_node();
                self.processes[process].reaches[node] = false;
                let for_us = self.rng.u64(100_000..2_500_000);
                self.after(for_us, Event::Reach { process, node });
            }
            Disaster::Freeze => {
                let node = self.any_node();
                self.freeze(node);
            }
            Disaster::FreezeAndReplace => {
                if let Some(shard) = self.change_a_shard() {
                    let node = self.primary[shard];
                    let thaws_us = self.now_us + self.rng.u64(5_300_000..9_000_000);
                    self.servers[node].frozen_until_us = thaws_us;
                    let promoted_us = self.rng.u64(20_000..300_000);
                    self.after(promoted_us, Event::Promote(shard));
                    // Some do not reach the successor until it does.
                    for process in 0..PROCESSES {
                        if self.rng.bool() {
                            let node = node ^ 1;
                            self.processes[process].reaches[node] = false;
                            let reached_us = thaws_us + self.rng.u64(100_000..1_500_000);
                            self.at(reached_us, Event::Reach { process, node });
                        }
                    }
                    // It hears of its successor a little after it runs again.
                    let heard_us = thaws_us + self.rng.u64(1_000..90_000);
                    self.at(heard_us, Event::Learns { node });
                }
            }
            Disaster::CrashAndReplace => {
                if let Some(shard) = self.change_a_shard() {
                    let node = self.primary[shard];
                    self.stop(node);
                    let promoted_us = self.rng.u64(1_000..300_000);
                    self.after(promoted_us, Event::Promote(shard));
                    let back_us = promoted_us + self.rng.u64(1_000..3_000_000);
                    self.after(back_us, Event::Rejoins { node });
                }
            }
            Disaster::HandOver => {
                if let Some(shard) = self.change_a_shard() {
                    let node = self.primary[shard];
                    self.promote(shard);
                    self.servers[node].node.demote();
                    self.flush_replies(node);
                }
            }
            Disaster::Restart => {
                if let Some(shard) = self.change_a_shard() {
                    let node = self.primary[shard];
                    let cache = self.servers[node].node.cache.clone();
                    self.stop(node);
                    let down_us = self.rng.u64(1_000..400_000);
                    self.after(down_us, Event::Starts { node, cache });
                }
            }
            Disaster::Isolate => self.isolate(),
            Disaster::MoveSlots => {
                let group = self.rng.usize(..GROUPS);
                self.move_slots(group);
            }
            Disaster::WallJump => {
                let node = self.any_node();
                let by_us = self.rng.i64(-20_000_000..20_000_000);
                self.servers[node].node.clock.set_wall(by_us);
            }
            Disaster::FeedOff => {
                let settings = Settings {
                    on: false,
                    ..self.settings
                };
                let node = self.any_node();
                self.configure(node, settings);
                let for_us = self.rng.u64(1_000..500_000);
                self.after(for_us, Event::On { node });
            }
            Disaster::Lease => {
                self.settings.lease_ms = [100, 200, 500, 1_000, 5_000][self.rng.usize(..5)];
                self.longest_ms = self.longest_ms.max(self.settings.lease_ms);
                for node in 0..NODES {
                    self.configure(node, self.settings);
                }
            }
            Disaster::LogShrinks => {
                self.settings.bytes = 300;
                for node in 0..NODES {
                    self.configure(node, self.settings);
                }
            }
            Disaster::Replicas => {
                let node = self.any_node();
                self.servers[node].node.standing.writes_allowed = false;
                let for_us = self.rng.u64(50_000..1_500_000);
                self.after(for_us, Event::Replicas { node });
            }
        }
    }

    pub(super) fn aftermath(&mut self, event: Event) {
        trace!(self, "{event:?}");
        match event {
            Event::Reach { process, node } => {
                self.processes[process].reaches[node] = true;
                self.look_around(process);
            }
            Event::Promote(shard) => self.promote(shard),
            Event::Learns { node } => {
                if self.primary[node / 2] != node {
                    self.servers[node].node.demote();
                    self.flush_replies(node);
                }
                self.changing[node / 2] = false;
            }
            Event::Notices { node } => self.servers[node].node.cluster_up = false,
            Event::Rejoins { node } => {
                self.start(node, Cache::default());
                self.servers[node].node.demote();
                self.changing[node / 2] = false;
            }
            Event::Starts { node, cache } => {
                let cache = if self.keeps { cache } else { Cache::default() };
                self.start(node, cache);
                self.changing[node / 2] = false;
            }
            Event::On { node } => self.configure(node, self.settings),
            Event::Disconnected {
                node,
                process,
                process_life,
            } => self.disconnected(node, process, process_life),
            Event::Replicas { node } => self.servers[node].node.standing.writes_allowed = true,
            other => unreachable!("{other:?}"),
        }
    }

    fn configure(&mut self, node: usize, settings: Settings) {
        let server = &mut self.servers[node];
        let now_us = server.node.now_us(self.now_us);
        server.node.feed.configure(settings, now_us);
        self.flush_replies(node);
    }

    fn kill(&mut self) {
        let process = self.rng.usize(..PROCESSES);
        for node in 0..NODES {
            self.hang_up(process, node);
        }
        // What it had begun to invalidate is not acknowledged any more.
        self.processes[process].replace();
        self.follow_all(process);
    }

    /// It shuts down in order: END at every server, then another one starts.
    fn leave(&mut self) {
        let process = self.rng.usize(..PROCESSES);
        for node in 0..NODES {
            if let Some(position) = self.processes[process].cache.view(node).position() {
                let position = position.to_vec();
                self.send(
                    process,
                    node,
                    Pending::End,
                    Request::End { position },
                    100_000,
                );
            }
        }
        self.processes[process].replace();
        // Sometimes all are gone for so long that the log stops.
        let pause_us = self.rng.u64(0..2_500_000);
        self.processes[process].paused_until_us = self.now_us + pause_us;
        self.follow_all(process);
    }

    fn freeze(&mut self, node: usize) {
        let until_us = self.now_us + self.rng.u64(20_000..1_500_000);
        let frozen_until_us = &mut self.servers[node].frozen_until_us;
        *frozen_until_us = (*frozen_until_us).max(until_us);
    }

    /// A primary loses the majority, and some processes with it; its successor is elected after it has noticed.
    fn isolate(&mut self) {
        let Some(shard) = self.change_a_shard() else {
            return;
        };
        let node = self.primary[shard];
        let heals_us = NODE_TIMEOUT_US * 3 + self.rng.u64(0..7_000_000);
        for process in 0..PROCESSES {
            // A process reaches one side only: it is cut off from `away`.
            let away = if self.rng.bool() { node } else { node ^ 1 };
            self.processes[process].reaches[away] = false;
            self.after(
                heals_us,
                Event::Reach {
                    process,
                    node: away,
                },
            );
        }
        self.after(NODE_TIMEOUT_US, Event::Notices { node });
        let promoted_us = NODE_TIMEOUT_US + self.rng.u64(30_000..NODE_TIMEOUT_US);
        self.after(promoted_us, Event::Promote(shard));
        let heard_us = heals_us + self.rng.u64(1_000..90_000);
        self.after(heard_us, Event::Learns { node });
    }

    fn promote(&mut self, shard: usize) {
        let old = self.primary[shard];
        let new = old ^ 1;
        if !self.servers[new].up || self.servers[new].frozen_until_us > self.now_us {
            self.after(20_000, Event::Promote(shard));
            return;
        }
        let cache = match self.keeps {
            true => self.servers[old].node.cache.clone(),
            false => Cache::default(),
        };
        self.primary[shard] = new;
        let slots = self.slots_of(new);
        let real_us = self.now_us;
        self.servers[new].node.promote(cache, slots, real_us);
        // Unless it is told later.
        if self.servers[old].frozen_until_us <= real_us && self.servers[old].node.cluster_up {
            self.changing[shard] = false;
        }
        self.flush_replies(new);
        self.counts.promotions += 1;
    }

    fn stop(&mut self, node: usize) {
        let server = &mut self.servers[node];
        server.up = false;
        server.life += 1;
        server.parked.clear();
    }

    fn start(&mut self, node: usize, cache: Cache) {
        let clock = self.servers[node].node.clock.clone();
        let slots = self.slots_of(node);
        let real_us = self.now_us;
        let mut fresh = Node::new(&mut self.rng, clock, self.settings, slots, real_us);
        let slots = fresh.slots.clone();
        // It has the epochs of its former run from the file.
        fresh.promote(cache, slots, real_us);
        let server = &mut self.servers[node];
        server.node = fresh;
        server.up = true;
        server.life += 1;
        server.timer_us = None;
        server.frozen_until_us = 0;
    }

    /// A quarter of the slots go to the other shard, with what is in them or without.
    fn move_slots(&mut self, group: usize) {
        if self.changing.contains(&true) {
            return;
        }
        let from = self.primary[self.owner[group]];
        self.owner[group] = 1 - self.owner[group];
        let to = self.primary[self.owner[group]];
        if self.servers[from].frozen_until_us > self.now_us
            || self.servers[to].frozen_until_us > self.now_us
        {
            self.owner[group] = 1 - self.owner[group];
            return;
        }
        for key in (0..KEYS).filter(|key| group_of(*key) == group) {
            self.servers[from].node.lose(key);
            // Fills of it that are under way there must not count if the slot comes back.
            self.servers[from].node.refuse_fills(key, self.now_us);
        }
        for node in 0..NODES {
            let slots = self.slots_of(node);
            let server = &mut self.servers[node];
            server.node.slots = slots;
        }
        self.counts.slot_moves += 1;
    }

    // ---- the end ----

    pub(super) fn check_the_end(&mut self) {
        for (number, process) in self.processes.iter().enumerate() {
            assert!(
                process.writes.is_empty(),
                "process {number} waits for ever: {:?}",
                process.writes
            );
        }
        // The near caches hold what the database says: each change since is settled, unless the process
        // that made it died.
        for process in 0..PROCESSES {
            let one = &self.processes[process];
            let now_ms = one.clock.ms(self.horizon_us + CALM_US);
            for key in 0..KEYS {
                if let Some(value) = one.cache.get(key, now_ms) {
                    let settled = self.settled.of(key);
                    assert!(!undercuts(value, settled), "key {key}: {value:?} at rest");
                }
            }
        }
        let good = |server: &Server| server.up && server.node.standing == Standing::GOOD;
        // Where two failovers overlapped, an old primary may have been told of none: processes that reach it stay with
        // it.
        let alone = |node: usize| {
            let other = &self.servers[node ^ 1];
            !(other.up && other.node.standing.primary)
        };
        let healthy = self
            .primary
            .iter()
            .all(|node| good(&self.servers[*node]) && alone(*node));
        if healthy && self.settings.lease_ms < 5_000 {
            for process in 0..PROCESSES {
                let one = &self.processes[process];
                let now_ms = one.clock.ms(self.horizon_us + CALM_US);
                for node in self.primary {
                    let owns = self.owner.contains(&(node / 2));
                    let serves = one.cache.views[&node].serves(now_ms);
                    assert!(
                        serves || !owns,
                        "process {process} has no lease of a healthy server"
                    );
                }
            }
            self.counts.healthy_ends += 1;
        }
    }
}
