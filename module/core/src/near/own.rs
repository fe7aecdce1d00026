//! Invalidations of this process itself: they take effect before they are sent, and again when they are acknowledged.

use std::collections::HashMap;

use super::events::spread;
use super::{Change, Data};
use crate::epoch::Epoch;
use crate::feed::HashKey;
use crate::memory::Memory;

/// Names under way at once; an invalidation that would exceed them counts as one of everything.
const MAX_NAMES: usize = 65_536;
/// Names of acknowledged ones that are remembered exactly.
const REMEMBERED: usize = 4_096;

/// What this process is about to change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Own {
    /// INVALIDATE of these tags.
    Tags(Vec<Box<[u8]>>),
    /// SET, CLEAR or the like of these keys.
    Keys(Vec<Box<[u8]>>),
    /// A flush.
    Everything,
}

impl Own {
    fn names(&self) -> &[Box<[u8]>] {
        match self {
            Own::Tags(names) | Own::Keys(names) => names,
            Own::Everything => &[],
        }
    }
}

/// One that is under way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OwnId(u64);

/// Those that are under way, and the last ones that are not any more.
#[derive(Debug)]
pub(super) struct Pending {
    /// Their names: digests change when the server does.
    under_way: HashMap<OwnId, Own>,
    names: usize,
    everything: usize,
    /// By digest of a tag, how many of them name it.
    tags: HashMap<u64, usize>,
    /// By key.
    keys: HashMap<Box<[u8]>, usize>,
    hash_key: Option<HashKey>,
    /// When tags and cells were last acknowledged, in moments of this process.
    done_tags: Memory,
    done_cells: Memory,
    done_everything: u64,
    next: u64,
}

impl Default for Pending {
    fn default() -> Self {
        Pending {
            under_way: HashMap::new(),
            names: 0,
            everything: 0,
            tags: HashMap::new(),
            keys: HashMap::new(),
            hash_key: None,
            done_tags: Memory::for_tags(REMEMBERED),
            done_cells: Memory::for_tags(REMEMBERED),
            done_everything: 0,
            next: 0,
        }
    }
}

impl Pending {
    pub fn begin(&mut self, own: Own, hash_key: Option<&HashKey>) -> OwnId {
        let own = match self.names + own.names().len() > MAX_NAMES {
            true => Own::Everything,
            false => own,
        };
        self.next += 1;
        let id = OwnId(self.next);
        self.names += own.names().len();
        match &own {
            Own::Tags(names) => {
                if let Some(hash_key) = hash_key {
                    for name in names {
                        *self.tags.entry(hash_key.digest(name)).or_default() += 1;
                    }
                }
            }
            Own::Keys(names) => {
                for name in names {
                    *self.keys.entry(name.clone()).or_default() += 1;
                }
            }
            Own::Everything => self.everything += 1,
        }
        self.under_way.insert(id, own);
        id
    }

    /// It is acknowledged, at this moment.
    pub fn end(&mut self, id: OwnId, moment: u64, cell_mask: u64) {
        let Some(own) = self.under_way.remove(&id) else {
            return;
        };
        self.names -= own.names().len();
        match (own, self.hash_key) {
            (Own::Tags(names), Some(hash_key)) => {
                for name in names {
                    let digest = hash_key.digest(&name);
                    self.done_tags.note(digest, Epoch(moment));
                    decrement(&mut self.tags, &digest);
                }
            }
            (Own::Keys(names), hash_key) => {
                for name in names {
                    if let Some(hash_key) = hash_key {
                        let cell = hash_key.digest(&name) & cell_mask;
                        self.done_cells.note(spread(cell), Epoch(moment));
                    }
                    decrement(&mut self.keys, &name);
                }
            }
            // What was asked for before the first answer is not put away for another reason: there was no view.
            (Own::Tags(_), None) => {}
            (Own::Everything, _) => {
                self.everything -= 1;
                self.done_everything = moment;
            }
        }
    }

    /// Digests are made under another key from now on.
    pub fn rekey(&mut self, hash_key: &HashKey) {
        self.hash_key = Some(*hash_key);
        self.tags.clear();
        for own in self.under_way.values() {
            if let Own::Tags(names) = own {
                for name in names {
                    *self.tags.entry(hash_key.digest(name)).or_default() += 1;
                }
            }
        }
        // What was asked for under the former key is not put away any more.
        self.done_tags = Memory::for_tags(REMEMBERED);
        self.done_cells = Memory::for_tags(REMEMBERED);
    }

    /// What it concerns. AUTO or not, for a value of one's own one moment more is no loss.
    pub fn changes(&self, id: OwnId, cell_mask: u64) -> Vec<Change> {
        let (Some(own), Some(hash_key)) = (self.under_way.get(&id), &self.hash_key) else {
            return Vec::new();
        };
        let before = u64::MAX;
        match own {
            Own::Tags(names) => names
                .iter()
                .map(|name| Change::Tag {
                    digest: hash_key.digest(name),
                    spares_manual: false,
                    before,
                })
                .collect(),
            Own::Keys(names) => names
                .iter()
                .map(|name| Change::Cell {
                    cell: hash_key.digest(name) & cell_mask,
                    before,
                })
                .collect(),
            Own::Everything => vec![Change::Flush { before }],
        }
    }

    /// Whether one concerns a value that was asked for at this moment.
    pub fn concern(&self, data: &Data, key: &[u8], cell: u64, asked: u64) -> bool {
        let asked_at = Epoch(asked);
        self.everything > 0
            || self.done_everything > asked
            || !self.keys.is_empty() && self.keys.contains_key(key)
            || self.done_cells.last(spread(cell)).epoch > asked_at
            || data.digests.iter().any(|digest| {
                !self.tags.is_empty() && self.tags.contains_key(digest)
                    || self.done_tags.last(*digest).epoch > asked_at
            })
    }
}

fn decrement<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
