//! Which entries carry a tag. Exact: a key is in a tag's set as long as its entry is in the map, and a tag
//! without entries is not there.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::Tags;

/// Tag to keys.
#[derive(Default)]
pub(super) struct TagIndex {
    members: HashMap<Bytes, HashSet<Bytes>>,
}

impl TagIndex {
    /// Adds a key under each tag and returns the tags, without duplicates, sharing the index's own copies.
    pub(super) fn insert(&mut self, key: &Bytes, tags: &Tags) -> Box<[Bytes]> {
        let mut own = Vec::with_capacity(tags.len());
        for tag in tags {
            let shared = match self.members.get_key_value(tag) {
                Some((shared, _)) => shared.clone(),
                None => Bytes::copy_from_slice(tag),
            };
            if self
                .members
                .entry(shared.clone())
                .or_default()
                .insert(key.clone())
            {
                own.push(shared);
            }
        }
        own.into()
    }

    /// Takes a key out from under each tag.
    pub(super) fn remove(&mut self, key: &Bytes, tags: &[Bytes]) {
        for tag in tags {
            if let Some(members) = self.members.get_mut(tag) {
                members.remove(key);
                if members.is_empty() {
                    self.members.remove(tag);
                }
            }
        }
    }

    /// The keys that carry the tag.
    pub(super) fn members(&self, tag: &[u8]) -> Vec<Bytes> {
        self.members
            .get(tag)
            .map(|keys| keys.iter().cloned().collect())
            .unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn memberships(&self) -> usize {
        self.members.values().map(HashSet::len).sum()
    }

    #[cfg(test)]
    pub(super) fn tags(&self) -> usize {
        self.members.len()
    }
}
