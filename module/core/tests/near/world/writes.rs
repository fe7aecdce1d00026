//! Calls that change the database, invalidate, and wait until that is settled.

use super::*;

impl World {
    pub(super) fn write(&mut self, process: usize) {
        self.next += 1;
        let write = self.next;
        let what = match self.rng.u8(..16) {
            0 => {
                for row in &mut self.database.tags {
                    row.iter_mut().for_each(|version| *version += 1);
                }
                self.database
                    .keys
                    .iter_mut()
                    .for_each(|version| *version += 1);
                What::Everything(self.database.clone())
            }
            1..4 => {
                let key = self.rng.u8(..KEYS);
                self.database.keys[usize::from(key)] += 1;
                What::Key(key, self.database.keys[usize::from(key)])
            }
            n => {
                let kind = match n {
                    4..6 => Kind::Auto,
                    6..8 => Kind::Soft,
                    _ => Kind::Hard,
                };
                let many = if n == 15 { 3 } else { 1 };
                let mut tags = Vec::new();
                for _ in 0..many {
                    let tag = self.rng.u8(..TAGS);
                    // One version a tag, also for entries that are spared: floors tell them apart.
                    for row in &mut self.database.tags {
                        row[usize::from(tag)] += 1;
                    }
                    tags.push((tag, self.database.tags[0][usize::from(tag)]));
                }
                What::Tags(tags, kind)
            }
        };
        let pending = match &what {
            What::Key(key, _) => [self.owner[group_of(*key)]].into(),
            _ => (0..SHARDS).collect(),
        };
        let own = match &what {
            What::Tags(tags, _) => {
                let names = tags.iter().map(|(tag, _)| tag_name(*tag).into());
                Own::Tags(names.collect())
            }
            What::Key(key, _) => Own::Keys(vec![key_name(*key).into()]),
            What::Everything(_) => Own::Everything,
        };
        // A process whose own invalidation failed for good does not exist here: it is repeated until it is
        // acknowledged.
        let one = &mut self.processes[process];
        one.own.raise(&what);
        let mut ids = Vec::new();
        for node in 0..NODES {
            let (id, changes) = one.cache.view(node).invalidating(own.clone());
            one.cache.apply(node, changes);
            ids.push((node, id));
        }
        one.writes.insert(
            write,
            Write {
                what,
                pending,
                own: ids,
                settles: BTreeMap::new(),
                settled: Default::default(),
            },
        );
        let shards: Vec<usize> = self.processes[process].writes[&write]
            .pending
            .iter()
            .copied()
            .collect();
        for shard in shards {
            self.send_write(process, write, shard);
        }
        self.counts.writes += 1;
    }

    pub(super) fn send_write(&mut self, process: usize, write: u64, shard: usize) {
        let one = &self.processes[process];
        let Some(writing) = one.writes.get(&write) else {
            return;
        };
        // A key is cleared where it lives now.
        let shard_now = match writing.what {
            What::Key(key, _) => self.owner[group_of(key)],
            _ => shard,
        };
        let node = one.primaries[shard_now];
        let request = match &writing.what {
            What::Tags(tags, kind) => Request::Invalidate {
                tags: tags.iter().map(|(tag, _)| *tag).collect(),
                kind: *kind,
            },
            What::Key(key, _) => Request::Clear { key: *key },
            What::Everything(_) => Request::Flush,
        };
        let pending = Pending::Write { write, shard, node };
        self.send(process, node, pending, request, 300_000);
    }

    pub(super) fn acknowledged(
        &mut self,
        process: usize,
        write: u64,
        shard: usize,
        node: usize,
        settle: Settle,
    ) {
        let one = &mut self.processes[process];
        let Some(writing) = one.writes.get_mut(&write) else {
            return;
        };
        writing.settles.insert(shard, (node, settle));
        writing.pending.remove(&shard);
        if !writing.pending.is_empty() {
            return;
        }
        let writing = writing.clone();
        self.acknowledged.raise(&writing.what);
        for (node, id) in &writing.own {
            let changes = one.cache.view(*node).acknowledged(*id);
            one.cache.apply(*node, changes);
        }
        for (shard, (node, settle)) in writing.settles {
            self.settle(process, write, shard, node, settle);
        }
    }

    pub(super) fn settle(
        &mut self,
        process: usize,
        write: u64,
        shard: usize,
        node: usize,
        settle: Settle,
    ) {
        let one = &self.processes[process];
        let (now_ms, life) = (one.clock.ms(self.now_us), one.life);
        match settle.step(now_ms) {
            Step::Settled => self.settled(process, write, shard),
            Step::Ask { until_ms } => {
                let left_us = (until_ms - now_ms) * 1_000;
                let prefixes = match &one.writes[&write].what {
                    What::Tags(tags, _) => {
                        let names: Vec<Vec<u8>> =
                            tags.iter().map(|(tag, _)| tag_name(*tag)).collect();
                        Prefixes::new(names.iter().map(Vec::as_slice)).expect("few")
                    }
                    _ => Prefixes::all(),
                };
                let request = Request::Settle {
                    timeout_us: left_us,
                    prefixes,
                };
                self.send(
                    process,
                    node,
                    Pending::Settle { write, shard },
                    request,
                    left_us + 500_000,
                );
                self.after(
                    left_us,
                    Event::SettleByTime {
                        process,
                        life,
                        write,
                        shard,
                    },
                );
            }
        }
    }

    /// Without an answer, the clock of the process tells.
    pub(super) fn settle_by_time(&mut self, process: usize, write: u64, shard: usize) {
        let one = &self.processes[process];
        let now_ms = one.clock.ms(self.now_us);
        let Some(writing) = one.writes.get(&write) else {
            return;
        };
        if writing.settled.contains(&shard) {
            return;
        }
        let Some((_, settle)) = writing.settles.get(&shard) else {
            return;
        };
        match settle.step(now_ms) {
            Step::Settled => {
                self.counts.settled_by_time += 1;
                self.settled(process, write, shard);
            }
            Step::Ask { .. } => {
                let life = one.life;
                self.after(
                    1_000,
                    Event::SettleByTime {
                        process,
                        life,
                        write,
                        shard,
                    },
                );
            }
        }
    }

    pub(super) fn settled(&mut self, process: usize, write: u64, shard: usize) {
        let one = &mut self.processes[process];
        let Some(writing) = one.writes.get_mut(&write) else {
            return;
        };
        writing.settled.insert(shard);
        if writing.settled.len() == writing.settles.len()
            && let Some(writing) = one.writes.remove(&write)
        {
            self.settled.raise(&writing.what);
            self.counts.settled += 1;
        }
    }
}
