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
            // No INVALIDATE is sent for what a SET replaces; it goes with the feed, at most a lease later.
            let replaced_us = self.stored.replaced_us(key, value).unwrap_or(real_us);
            assert!(
                real_us <= replaced_us + self.longest_ms * 1_030 + 5_000,
                "key {key}: process {process} served {value:?} from its near cache at {real_us} us, replaced at {replaced_us} us"
            );
            self.counts.near_hits += 1;
            self.counts.pending_hits += u64::from(undercuts(value, acknowledged));
            return;
        }
        self.next += 1;
        let read = self.next;
        self.begin(process, read, key, false);
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

    /// The key changes, and what it becomes is stored over what is there.
    pub(super) fn store(&mut self, process: usize, key: Key) {
        self.next += 1;
        let read = self.next;
        self.begin(process, read, key, true);
        let node = self.processes[process].primaries[self.owner[group_of(key)]];
        let asked = None;
        let pending = Pending::Fetch { read, node, asked };
        self.send(process, node, pending, Request::Token { key }, 400_000);
        self.counts.stores += 1;
    }

    fn begin(&mut self, process: usize, read: u64, key: Key, changes: bool) {
        let reading = Read {
            key,
            acknowledged: self.acknowledged.of(key),
            changes,
            token: None,
            loaded: [0; 3],
        };
        self.processes[process].reads.insert(read, reading);
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
