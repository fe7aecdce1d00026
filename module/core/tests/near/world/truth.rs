//! The truth: which versions there are, and which must not be undercut.

use std::collections::BTreeMap;

use super::{KEYS, Key, Kind, TAGS, Value, is_manual, tags_of};
use crate::process::What;

/// Versions that must not be undercut.
#[derive(Clone, Debug, Default)]
pub struct Floors {
    /// By whether invalidations that spare MANUAL entries count.
    pub tags: [[u32; TAGS as usize]; 2],
    pub keys: [u32; KEYS as usize],
}

impl Floors {
    pub fn of(&self, key: Key) -> Value {
        let row = self.tags[usize::from(is_manual(key))];
        let [a, b] = tags_of(key).map(|tag| row[usize::from(tag)]);
        [a, b, self.keys[usize::from(key)]]
    }

    pub fn raise(&mut self, what: &What) {
        let up = |to: &mut u32, from: u32| *to = (*to).max(from);
        match what {
            What::Tags(tags, kind) => {
                for (tag, version) in tags {
                    up(&mut self.tags[0][usize::from(*tag)], *version);
                    if *kind != Kind::Auto {
                        up(&mut self.tags[1][usize::from(*tag)], *version);
                    }
                }
            }
            What::Key(key, version) => up(&mut self.keys[usize::from(*key)], *version),
            What::Everything(floors) => {
                for row in 0..2 {
                    for tag in 0..usize::from(TAGS) {
                        up(&mut self.tags[row][tag], floors.tags[row][tag]);
                    }
                }
                for key in 0..usize::from(KEYS) {
                    up(&mut self.keys[key], floors.keys[key]);
                }
            }
        }
    }
}

pub fn undercuts(value: Value, floor: Value) -> bool {
    value.iter().zip(floor).any(|(value, floor)| *value < floor)
}

impl Floors {
    /// The newest version: every change counts in the database.
    pub fn of_everybody(&self, key: Key) -> Value {
        let [a, b] = tags_of(key).map(|tag| self.tags[0][usize::from(tag)]);
        [a, b, self.keys[usize::from(key)]]
    }
}

/// Which values were ever stored under each key, and when another one took the place of each.
#[derive(Default)]
pub struct Stored(BTreeMap<Key, BTreeMap<Value, Option<u64>>>);

impl Stored {
    /// A server has stored this value.
    pub fn stored(&mut self, key: Key, value: Value, now_us: u64) {
        let values = self.0.entry(key).or_default();
        for replaced_us in values.values_mut() {
            replaced_us.get_or_insert(now_us);
        }
        values.insert(value, None);
    }

    /// Since when another one is in its place.
    pub fn replaced_us(&self, key: Key, value: Value) -> Option<u64> {
        *self.0.get(&key)?.get(&value)?
    }
}
