//! Messages: lost, late, repeated, out of order; and servers that execute them.

use super::*;

impl World {
    pub(super) fn send(
        &mut self,
        process: usize,
        node: usize,
        pending: Pending,
        request: Request,
        patience_us: u64,
    ) {
        self.next += 1;
        let call = self.next;
        let life = self.processes[process].life;
        self.processes[process].pending.insert(call, pending);
        self.after(
            patience_us,
            Event::Timeout {
                process,
                life,
                call,
            },
        );
        let copies = match self.rng.u8(..100) {
            // A late duplicate: the connection was given up, its bytes arrive nevertheless.
            0 if self.now_us < self.horizon_us => 2,
            _ => 1,
        };
        for _ in 0..copies {
            if self.processes[process].reaches[node] && !self.is_lost() {
                let delay_us = self.delay_us();
                let node_life = self.servers[node].life;
                let request = request.clone();
                self.after(
                    delay_us,
                    Event::Deliver {
                        node,
                        life: node_life,
                        process,
                        process_life: life,
                        call,
                        request,
                    },
                );
            } else {
                self.counts.lost += 1;
            }
        }
    }

    pub(super) fn reply(&mut self, node: usize, to: (usize, u64, u64), reply: Reply) {
        let (process, life, call) = to;
        if self.processes[process].reaches[node] && !self.is_lost() {
            let delay_us = self.delay_us();
            self.after(
                delay_us,
                Event::Reply {
                    process,
                    life,
                    call,
                    reply,
                },
            );
        } else {
            self.counts.lost += 1;
        }
    }

    pub(super) fn deliver(
        &mut self,
        node: usize,
        process: usize,
        process_life: u64,
        call: u64,
        request: Request,
    ) {
        let shard = node / 2;
        let one = &self.servers[node].node;
        let serves = self.primary[shard] == node && one.cluster_up && one.standing.writes_allowed;
        // Of a server that was replaced only the feed is asked: what it serves itself is another guarantee's affair.
        let asked = serves || matches!(request, Request::Feed { .. } | Request::End { .. });
        let to = (process, process_life, call);
        if !asked {
            return self.reply(node, to, Reply::Moved);
        }
        self.next += 1;
        let handle = self.next;
        let real_us = self.now_us;
        trace!(
            self,
            "server {node} executes {request:?} of process {process}"
        );
        let stores = match &request {
            Request::Set { key, value, .. } => Some((*key, *value)),
            _ => None,
        };
        match self.servers[node].node.execute(handle, request, real_us) {
            Some(reply) => {
                if let (Some((key, value)), Reply::Stored(_)) = (stores, &reply) {
                    self.stored.stored(key, value, real_us);
                }
                self.reply(node, to, reply);
            }
            None => {
                self.servers[node].parked.insert(handle, to);
                self.counts.parked += 1;
            }
        }
        self.flush_replies(node);
    }

    /// A server notices that connections of a process are gone.
    pub(super) fn disconnected(&mut self, node: usize, process: usize, process_life: u64) {
        let real_us = self.now_us;
        let server = &mut self.servers[node];
        let gone: Vec<Handle> = server
            .parked
            .iter()
            .filter(|(_, (of, life, _))| (*of, *life) == (process, process_life))
            .map(|(handle, _)| *handle)
            .collect();
        let now_us = server.node.now_us(real_us);
        for handle in gone {
            server.parked.remove(&handle);
            let feed = &mut server.node.feed;
            if feed.unpark(handle).is_none() {
                feed.unpark_settle(handle, now_us);
            }
            self.counts.disconnects += 1;
        }
    }

    pub(super) fn turn(&mut self, node: usize) {
        let real_us = self.now_us;
        let replies = self.servers[node].node.run(real_us);
        self.hand_out(node, replies);
    }

    pub(super) fn flush_replies(&mut self, node: usize) {
        let real_us = self.now_us;
        let replies = self.servers[node].node.replies(real_us);
        self.hand_out(node, replies);
    }

    pub(super) fn hand_out(&mut self, node: usize, replies: Vec<(Handle, Reply)>) {
        for (handle, reply) in replies {
            if let Some(to) = self.servers[node].parked.remove(&handle) {
                self.reply(node, to, reply);
            }
        }
        let server = &mut self.servers[node];
        if let Some(next_us) = server.node.next_us() {
            let next_us = next_us.max(self.now_us + 50);
            if server.timer_us.is_none_or(|at_us| next_us < at_us) {
                server.timer_us = Some(next_us);
                self.at(next_us, Event::Timer(node));
            }
        }
    }
}
