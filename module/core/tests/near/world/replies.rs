//! What a process does with a reply, or without one.

use super::*;

impl World {
    /// A reply, or `None` when patience ended.
    pub(super) fn replied(&mut self, process: usize, call: u64, reply: Option<Reply>) {
        let Some(pending) = self.processes[process].pending.remove(&call) else {
            return;
        };
        trace!(self, "process {process} has {reply:?} for {pending:?}");
        let life = self.processes[process].life;
        match (pending, reply) {
            (Pending::Feed { node, sent }, reply) => self.fed(process, node, &sent, reply),
            (Pending::Fetch { read, node, asked }, reply) => {
                let Some(reading) = self.processes[process].reads.get(&read).cloned() else {
                    return;
                };
                match reply {
                    Some(Reply::Hit(value, near)) => {
                        assert!(
                            !undercuts(value, reading.acknowledged),
                            "the simulated server breaks its own promise: key {}, {value:?}, {:?}, server {node}, {} us",
                            reading.key,
                            reading.acknowledged,
                            self.now_us
                        );
                        self.counts.hits += 1;
                        self.put(process, node, asked, reading.key, value, near);
                        self.processes[process].reads.remove(&read);
                    }
                    Some(Reply::Miss(token)) => {
                        if reading.changes {
                            self.database.keys[usize::from(reading.key)] += 1;
                        }
                        let loaded = self.database.of_everybody(reading.key);
                        if let Some(reading) = self.processes[process].reads.get_mut(&read) {
                            reading.token = Some(token);
                            reading.loaded = loaded;
                        }
                        let delay_us = self.rng.u64(100..60_000);
                        self.after(
                            delay_us,
                            Event::Loaded {
                                process,
                                life,
                                read,
                                node,
                            },
                        );
                        self.counts.loads += 1;
                    }
                    _ => {
                        self.processes[process].reads.remove(&read);
                        self.look_around(process);
                    }
                }
            }
            (Pending::Set { read, node, asked }, reply) => {
                let Some(reading) = self.processes[process].reads.remove(&read) else {
                    return;
                };
                match reply {
                    Some(Reply::Stored(near)) => {
                        self.put(process, node, asked, reading.key, reading.loaded, near);
                    }
                    Some(_) => self.counts.refused_fills += 1,
                    None => self.counts.lost_fills += 1,
                }
            }
            (Pending::Write { write, shard, node }, reply) => {
                let now_ms = self.processes[process].clock.ms(self.now_us);
                match reply {
                    Some(Reply::Acknowledged(waits)) => {
                        let longest_ms = waits.longest_us.div_ceil(1_000);
                        let settle = Settle::acknowledged(waits.leases, longest_ms, now_ms);
                        self.acknowledged(process, write, shard, node, settle);
                    }
                    Some(Reply::Cleared) => {
                        let settle = Settle::unknown(now_ms);
                        self.acknowledged(process, write, shard, node, settle);
                    }
                    _ => {
                        self.counts.retries += 1;
                        self.look_around(process);
                        let delay_us = self.rng.u64(1_000..50_000);
                        self.after(
                            delay_us,
                            Event::Retry {
                                process,
                                life,
                                write,
                                shard,
                            },
                        );
                    }
                }
            }
            (Pending::Settle { write, shard }, reply) => {
                if let Some(Reply::Settled(state)) = reply {
                    if let Some((_, settle)) = self.processes[process]
                        .writes
                        .get_mut(&write)
                        .and_then(|writing| writing.settles.get_mut(&shard))
                    {
                        settle.replied(state.waiting);
                    }
                    if state.waiting == 0 {
                        self.counts.settled_by_answer += 1;
                        self.counts.ran_out += state.ran_out;
                        self.settled(process, write, shard);
                    }
                }
            }
            (Pending::End, _) => {}
        }
    }
}
