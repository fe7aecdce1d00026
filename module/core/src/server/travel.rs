//! Entries on their way out: into a file, to a replica, to another server, into a digest.

use std::hash::Hash;

use super::Server;
use crate::encode;
use crate::entry::{Attributes, Entry};
use crate::epoch::Token;

impl<W: Copy + Eq + Hash> Server<W> {
    /// What an RDB file or a DUMP payload says of an entry, and whether its value goes along.
    pub fn saved(&mut self, entry: &Entry, now_ms: u64) -> (Vec<u8>, bool) {
        // Which invalidations are taken into account is known up to now; not by a replica that its primary has not
        // reached since it read the entry from its own file.
        let saved = match self.unconfirmed {
            false => self.fills.token(now_ms),
            true => Token {
                incarnation: 0,
                epoch: entry.birth(),
            },
        };
        match self.travels(entry) {
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

    /// Bytes that an entry takes beside its own allocation; none for one that the index does not name.
    pub fn bytes_beside(&self, db: usize, entry: &Entry) -> usize {
        match self.index.lists(db, entry.id(), *entry) {
            true => self.index.bytes_beside(entry),
            false => 0,
        }
    }

    /// The names of an entry's tags, as far as they are known: of one that the index does not name none is.
    pub fn tags(&self, db: usize, entry: &Entry) -> Vec<Vec<u8>> {
        match self.index.lists(db, entry.id(), *entry) {
            true => self.index.names(entry).map(<[u8]>::to_vec).collect(),
            false => Vec::new(),
        }
    }

    /// What is kept of an entry where the dead have nothing but their key, in files as in `DEBUG DIGEST`: attributes
    /// and tags. Primary and replicas have the same, whenever nothing is under way between them: an entry that waits
    /// for reclaim counts as what it is about to become.
    pub fn kept<'a>(
        &'a self,
        entry: &'a Entry,
    ) -> Option<(Attributes, impl ExactSizeIterator<Item = &'a [u8]>)> {
        let attributes = self.travels(entry)?;
        Some((attributes, self.index.names(entry)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::NEVER;
    use crate::epoch::Epoch;
    use crate::fills::Fills;
    use crate::server::{Awaited, Store, Stored};

    /// Where such a dump is restored, everything that was invalidated since the birth counts: the replica may not have
    /// heard of it.
    #[test]
    fn a_replica_that_its_primary_has_not_reached_does_not_vouch_for_what_it_dumps() {
        let mut server: Server<u32> = Server::new(Fills::new(7, 1, 64), Awaited::kept());
        let birth = Epoch(5 << 16);
        let stored = server.store(Store {
            db: 0,
            key: b"k",
            value: b"v",
            tags: std::iter::once(&b"t"[..]),
            attributes: Attributes {
                birth,
                ends_ms: NEVER,
                ..Attributes::HUSK
            },
            present: None,
        });
        let Stored::New(entry) = stored else {
            panic!("there was none");
        };
        let saved = |server: &mut Server<u32>| {
            let (bytes, with_value) = server.saved(&entry, 1_000);
            assert!(with_value);
            let decoded = encode::decode(encode::VERSION, &bytes);
            decoded.expect("what was just encoded").saved
        };
        server.unconfirmed = true;
        let doubtful = Token {
            incarnation: 0,
            epoch: birth,
        };
        assert_eq!(saved(&mut server), doubtful);
        server.linked();
        let vouched = saved(&mut server);
        assert_eq!(vouched.incarnation, 7);
        assert!(vouched.epoch > birth);
        server.left(0, entry);
        Entry::free_all([entry]);
    }
}
