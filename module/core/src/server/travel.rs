//! Entries on their way out: into a file, to a replica, to another server, into a digest.

use std::hash::Hash;

use super::Server;
use crate::encode;
use crate::entry::{Attributes, Entry};

impl<W: Copy + Eq + Hash> Server<W> {
    /// What an RDB file or a DUMP payload says of an entry, and whether its value goes along.
    pub fn saved(&mut self, entry: &Entry, now_ms: u64) -> (Vec<u8>, bool) {
        let saved = self.fills.token(now_ms);
        match self.is_husk(entry) {
            true => (
                encode::encode(Attributes::HUSK, saved, std::iter::empty()),
                false,
            ),
            false => {
                let tags = self.index.names(entry);
                (encode::encode(entry.attributes(), saved, tags), true)
            }
        }
    }

    /// What is kept of an entry where the dead are left out: attributes and tags.
    pub fn kept<'a>(
        &'a self,
        entry: &'a Entry,
    ) -> Option<(Attributes, impl ExactSizeIterator<Item = &'a [u8]>)> {
        (!self.is_husk(entry)).then(|| (entry.attributes(), self.index.names(entry)))
    }
}
