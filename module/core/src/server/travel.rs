//! Entries on their way out: into a file, to a replica, to another server, into a digest.

use std::hash::Hash;

use super::Server;
use crate::encode;
use crate::entry::{Attributes, Entry};

impl<W: Copy + Eq + Hash> Server<W> {
    /// What an RDB file or a DUMP payload says of an entry, and whether its value goes along.
    pub fn saved(&mut self, entry: &Entry, now_ms: u64) -> (Vec<u8>, bool) {
        let saved = self.fills.token(now_ms);
        match self.travels(entry, now_ms) {
            Some(attributes) => {
                let tags = self.index.names(entry);
                (encode::encode(attributes, saved, tags), true)
            }
            None => (
                encode::encode(Attributes::HUSK, saved, std::iter::empty()),
                false,
            ),
        }
    }

    /// What is kept of an entry where the dead have nothing but their key: attributes and tags.
    pub fn kept<'a>(
        &'a self,
        entry: &'a Entry,
        now_ms: u64,
    ) -> Option<(Attributes, impl ExactSizeIterator<Item = &'a [u8]>)> {
        let attributes = self.travels(entry, now_ms)?;
        Some((attributes, self.index.names(entry)))
    }

    /// What `DEBUG DIGEST` is made of: what is kept, without the end of a softly invalidated entry, which the
    /// primary decides by its clock when reclaim comes to it.
    pub fn digested<'a>(
        &'a self,
        entry: &'a Entry,
        now_ms: u64,
    ) -> Option<(Attributes, impl ExactSizeIterator<Item = &'a [u8]>)> {
        let (mut attributes, tags) = self.kept(entry, now_ms)?;
        if attributes.softened {
            attributes.ends_ms = 0;
        }
        Some((attributes, tags))
    }
}
