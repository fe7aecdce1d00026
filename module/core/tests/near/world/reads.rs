//! Calls that read.

use mcache_core::near::Asked;

use super::*;

impl World {
    pub(super) fn read(&mut self, process: usize, key: Key) {
        let real_us = self.now_us;
        let (settled, acknowledged) = (self.settled.of(key), self.acknowledged.of(key));
        let one = &self.processes[process];
        let now_ms = one.clock.ms(real_us);
        if let Some(value) = one.cache.get(key, now_ms) {
            assert!(
                !undercuts(value, settled),
                "key {key}: process {process} served {value:?} from its near cache at {real_us} us, settled is {settled:?}"
            );
            let own = one.own.of(key);
            assert!(
                !undercuts(value, own),
                "key {key}: process {process} served {value:?} from its near cache, its own is {own:?}"
            );
            self.counts.near_hits += 1;
            self.counts.pending_hits += u64::from(undercuts(value, acknowledged));
            return;
        }
        self.next += 1;
        let read = self.next;
        self.processes[process].reads.insert(
            read,
            Read {
                key,
                acknowledged,
                token: None,
                loaded: [0; 3],
            },
        );
        let node = self.processes[process].primaries[self.owner[group_of(key)]];
        let asked = self.processes[process].cache.view(node).ask(now_ms);
        let near = asked.as_ref().map(|asked| asked.position.to_vec());
        let pending = Pending::Fetch { read, node, asked };
        self.send(
            process,
            node,
            pending,
            Request::Fetch { key, near },
            400_000,
        );
    }

    /// The database is read at one moment of a load, and the load is over at a later one.
    pub(super) fn loaded(&mut self, process: usize, read: u64, node: usize) {
        let real_us = self.now_us;
        let one = &mut self.processes[process];
        let Some(reading) = one.reads.get(&read).cloned() else {
            return;
        };
        let now_ms = one.clock.ms(real_us);
        let asked = one.cache.view(node).ask(now_ms);
        let near = asked.as_ref().map(|asked| asked.position.to_vec());
        let request = Request::Set {
            key: reading.key,
            value: reading.loaded,
            token: reading.token,
            near,
        };
        let pending = Pending::Set { read, node, asked };
        self.send(process, node, pending, request, 400_000);
    }

    pub(super) fn put(
        &mut self,
        process: usize,
        node: usize,
        asked: Option<Asked>,
        key: Key,
        value: Value,
        near: Option<crate::node::Near>,
    ) {
        let (Some(asked), Some(near)) = (asked, near) else {
            return;
        };
        match self.processes[process]
            .cache
            .put(node, &asked, key, value, near)
        {
            Ok(()) => self.counts.put_away += 1,
            Err(_) => self.counts.not_put_away += 1,
        }
    }
}
