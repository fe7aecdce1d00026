//! Processes that follow the feed of each primary.

use mcache_core::near::Sent;

use super::*;

impl World {
    /// Learns who the primaries are, as far as it reaches them.
    pub(super) fn look_around(&mut self, process: usize) {
        for shard in 0..SHARDS {
            let node = self.primary[shard];
            if self.processes[process].reaches[node] {
                self.processes[process].primaries[shard] = node;
            }
        }
        self.follow_all(process);
    }

    pub(super) fn follow_all(&mut self, process: usize) {
        for node in self.processes[process].primaries {
            if self.processes[process].follows.insert(node) {
                let life = self.processes[process].life;
                self.after(
                    0,
                    Event::Follow {
                        process,
                        life,
                        node,
                    },
                );
            }
        }
    }

    pub(super) fn hang_up(&mut self, process: usize, node: usize) {
        let process_life = self.processes[process].life;
        let delay_us = self.delay_us();
        self.after(
            delay_us,
            Event::Disconnected {
                node,
                process,
                process_life,
            },
        );
    }

    pub(super) fn call_feed(&mut self, process: usize, node: usize) {
        let real_us = self.now_us;
        let lease_ms = self.settings.lease_ms;
        let random = self.rng.u64(..);
        let count = [1, 2, 1_000][self.rng.usize(..3)];
        let one = &mut self.processes[process];
        if !one.primaries.contains(&node) {
            one.follows.remove(&node);
            return;
        }
        let now_ms = one.clock.ms(real_us);
        let sent = one.cache.view(node).call(now_ms);
        let position = sent.position.as_ref().map(|position| position.to_vec());
        let request = Request::Feed {
            position,
            prefixes: one.prefixes.clone(),
            wait_us: lease_ms * 1_000 / 3,
            count,
            random,
        };
        let patience_us = lease_ms * 700;
        self.send(
            process,
            node,
            Pending::Feed { node, sent },
            request,
            patience_us,
        );
    }

    pub(super) fn fed(&mut self, process: usize, node: usize, sent: &Sent, reply: Option<Reply>) {
        let life = self.processes[process].life;
        let delay_us = match reply {
            Some(Reply::Fed(answer)) => {
                self.counts.answers += 1;
                self.counts.gaps += u64::from(answer.gap.is_some());
                self.counts.truncated += u64::from(answer.more);
                self.counts.events += answer.events.len() as u64;
                let one = &mut self.processes[process];
                let changes = one.cache.view(node).answered(sent, answer);
                one.cache.apply(node, changes);
                self.rng.u64(..200)
            }
            refused => {
                if refused.is_none() {
                    // Its connection is given up.
                    self.hang_up(process, node);
                }
                self.counts.refusals += 1;
                self.look_around(process);
                self.rng.u64(1_000..20_000)
            }
        };
        self.after(
            delay_us,
            Event::Follow {
                process,
                life,
                node,
            },
        );
    }
}
