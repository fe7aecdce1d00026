//! A server without Redis: what tests of its decisions need of a keyspace and of a clock that stands still.

// Each test target uses a part of it.
#![allow(dead_code)]

use mcache_core::command::{OnlyIf, Set};
use mcache_core::encode::Decoded;
use mcache_core::entry::{Attributes, Entry};
use mcache_core::epoch::{Epoch, Token};
use mcache_core::fills::Fills;
use mcache_core::index::Scope;
use mcache_core::lease::Waiter;
use mcache_core::server::{Awaited, Condition, Edge, Fetched, Fetcher, Server, Store, Stored};

pub const NOW_MS: u64 = 1_000_000;

pub struct Role {
    pub is_primary: bool,
}

pub const PRIMARY: Role = Role { is_primary: true };
pub const REPLICA: Role = Role { is_primary: false };

impl Edge for Role {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }
    fn random(&self) -> u64 {
        0
    }
    fn is_primary(&self) -> bool {
        self.is_primary
    }
}

/// A server, and the entries that its keyspace owns.
pub struct Stage {
    pub server: Server<u32>,
    pub entries: Vec<Entry>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for entry in self.entries.drain(..) {
            // SAFETY: the index goes away with the server and does not look at its entries.
            unsafe { entry.free() };
        }
    }
}

pub fn at(ms: u64) -> Epoch {
    Epoch(ms << 16)
}

pub fn attributes(swr_ms: u32, ends_ms: u64) -> Attributes {
    Attributes {
        birth: at(NOW_MS),
        manual: false,
        swr_ms,
        softened: false,
        ends_ms,
    }
}

pub fn tags() -> impl Iterator<Item = &'static [u8]> + Clone {
    std::iter::once(&b"t"[..])
}

impl Stage {
    pub fn new() -> Self {
        Stage {
            server: Server::new(Fills::new(7, NOW_MS, 64), Awaited::kept()),
            entries: Vec::new(),
        }
    }

    pub fn store(&mut self, db: usize, key: &[u8], attributes: Attributes) -> Entry {
        self.store_under(&[b"t"], db, key, attributes)
    }

    pub fn store_under(
        &mut self,
        tags: &[&[u8]],
        db: usize,
        key: &[u8],
        attributes: Attributes,
    ) -> Entry {
        let stored = self.server.store(Store {
            db,
            key,
            value: b"v",
            tags: tags.iter().copied(),
            attributes,
            present: None,
        });
        let Stored::New(entry) = stored else {
            panic!("{stored:?}")
        };
        self.entries.push(entry);
        entry
    }

    pub fn admit(&mut self, token: Option<Token>, ttl_ms: u64, swr_ms: u32) -> Option<Attributes> {
        let set = Set {
            ttl_ms: Some(ttl_ms),
            swr_ms,
            token,
            only_if: OnlyIf::Always,
            manual: false,
            near: None,
            tags_from: 0,
        };
        let admitted = self.server.admit(&set, b"k", tags(), None, NOW_MS)?;
        assert_eq!(admitted.deadline_ms, Some(admitted.attributes.ends_ms));
        Some(admitted.attributes)
    }

    pub fn condition(&self, mut entry: Entry) -> Condition {
        self.server.condition(&mut entry, || NOW_MS)
    }

    pub fn fetch(&mut self, client: u64, may_fill: bool, max_waiters: usize) -> Fetched {
        self.fetch_as(&PRIMARY, client, may_fill, max_waiters)
    }

    pub fn fetch_from(&mut self, role: &Role, client: u64) -> Fetched {
        self.fetch_as(role, client, true, 10)
    }

    fn fetch_as(
        &mut self,
        role: &Role,
        client: u64,
        may_fill: bool,
        max_waiters: usize,
    ) -> Fetched {
        let caller = Fetcher {
            db: 0,
            key: b"k",
            client,
            lease_ms: 5_000,
            may_wait: true,
            max_waiters,
        };
        self.server
            .fetch(0, || caller, None, role, || may_fill, || ())
    }

    pub fn park(&mut self, client: u64, until_ms: u64) {
        let waiter = Waiter {
            handle: client as u32,
            client,
            lease_ms: 5_000,
            until_ms,
        };
        assert!(self.server.park(0, b"k", waiter), "the lease is held");
    }

    /// As Redis asks for a value that it loads, from a file whose entries say when they end, or do not.
    pub fn load(&mut self, decoded: Decoded<'_>, drop: bool, role: &Role) -> Option<Entry> {
        let entry = self.server.load(b"k", b"v", Some(decoded), drop, role)?;
        self.entries.push(entry);
        Some(entry)
    }

    pub fn soften(&mut self) {
        let done = self
            .server
            .invalidate(0, tags(), Scope::All, true, 0, NOW_MS);
        assert_eq!(done.later, 1);
    }
}

pub fn decoded(attributes: Attributes, says_its_end: bool) -> Decoded<'static> {
    Decoded {
        attributes,
        says_its_end,
        saved: Token {
            incarnation: 7,
            epoch: at(NOW_MS),
        },
        tags: tags().collect(),
    }
}
