//! The near cache of one process: views of servers, and the values in a plain map.

use std::collections::BTreeMap;

use mcache_core::near::{Asked, Change, Data, Kept, View};

use crate::node::Near;
use crate::world::{Key, Value, key_name, slot_of};

struct Held {
    node: usize,
    value: Value,
    cell: u64,
    data: Data,
    end_ms: u64,
}

#[derive(Default)]
pub struct NearCache {
    pub views: BTreeMap<usize, View>,
    held: BTreeMap<Key, Held>,
}

impl NearCache {
    pub fn view(&mut self, node: usize) -> &mut View {
        self.views.entry(node).or_default()
    }

    /// Forgets what is to be forgotten.
    pub fn apply(&mut self, node: usize, changes: Vec<Change>) {
        for change in changes {
            self.held.retain(|key, held| {
                let concerned = match change {
                    Change::Everything => true,
                    Change::Flush { before } => held.data.number < before,
                    Change::Tag {
                        digest,
                        spares_manual,
                        before,
                    } => {
                        held.data.number < before
                            && held.data.digests.contains(&digest)
                            && !(spares_manual && held.data.manual)
                    }
                    Change::Cell { cell, before } => held.data.number < before && held.cell == cell,
                    Change::Slots {
                        first,
                        last,
                        before,
                    } => held.data.number < before && (first..=last).contains(&slot_of(*key)),
                };
                held.node != node || !concerned
            });
        }
    }

    /// What may be served now.
    pub fn get(&self, key: Key, now_ms: u64) -> Option<Value> {
        let held = self.held.get(&key)?;
        let serves = self.views.get(&held.node)?.serves(now_ms) && now_ms < held.end_ms;
        serves.then_some(held.value)
    }

    /// Puts a value away if that is allowed.
    pub fn put(
        &mut self,
        node: usize,
        asked: &Asked,
        key: Key,
        value: Value,
        near: Near,
    ) -> Result<(), Kept> {
        let name = key_name(key);
        let view = self.view(node);
        view.admit(asked, &name, &near.data)?;
        let cell = view.cell(&name).expect("joined");
        let end_ms = mcache_core::near::end_ms(asked.sent_ms, near.life_ms, 0, 0);
        self.held.insert(
            key,
            Held {
                node,
                value,
                cell,
                data: near.data,
                end_ms,
            },
        );
        Ok(())
    }
}
