//! Entries that Redis asked for and announces, announces wrongly, late or never: what was freed is never linked, what
//! is not linked is never served, and what the keyspace does not hold does not stop reclaim.

use mcache_core::encode::Decoded;
use mcache_core::entry::{Attributes, Entry, NEVER};
use mcache_core::epoch::{Epoch, Token};
use mcache_core::fills::Fills;
use mcache_core::index::{Scope, Task};
use mcache_core::server::{Awaited, Condition, Edge, Renamed, Server, Store, Stored};

const DB: usize = 0;
const NOW_MS: u64 = 1_000_000;
const ATTRIBUTES: Attributes = Attributes {
    birth: Epoch(NOW_MS << 16),
    manual: false,
    swr_ms: 0,
    softened: false,
    ends_ms: NEVER,
};

struct Replica;

impl Edge for Replica {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }
    fn random(&self) -> u64 {
        0
    }
    fn is_primary(&self) -> bool {
        false
    }
}

struct Keyspace {
    server: Server<u32>,
    awaited: &'static Awaited,
}

impl Keyspace {
    fn new() -> Self {
        let awaited = Awaited::kept();
        Keyspace {
            server: Server::new(Fills::new(1, NOW_MS, 64), awaited),
            awaited,
        }
    }

    fn load(&mut self, key: &[u8], tags: &[&str]) -> Entry {
        let decoded = Decoded {
            attributes: ATTRIBUTES,
            says_its_end: true,
            saved: Token {
                incarnation: 2,
                epoch: Epoch(NOW_MS << 16),
            },
            tags: tags.iter().map(|tag| tag.as_bytes()).collect(),
        };
        let loaded = self.server.load(key, b"v", Some(decoded), false, &Replica);
        loaded.expect("it is credible")
    }

    fn free(&self, entry: Entry) {
        self.awaited.is_freed(entry);
        // SAFETY: each test frees an entry once, when it is in no index.
        unsafe { entry.free() };
    }

    fn entries(&mut self) -> usize {
        self.server.index.settle();
        self.server.index.sizes().entries
    }

    fn condition(&self, mut entry: Entry) -> Condition {
        self.server.condition(&mut entry, || NOW_MS)
    }

    fn renamed(&mut self, key: &[u8], entry: Entry) -> Entry {
        match self.server.renamed(DB, key, entry) {
            Renamed::Fresh(fresh) => fresh,
            other => panic!("it left: {other:?}"),
        }
    }

    fn leave(&mut self, entry: Entry) {
        self.server.left(DB, entry);
        self.free(entry);
    }
}

#[test]
fn an_entry_that_was_freed_unannounced_is_not_linked_when_another_key_of_its_name_arrives() {
    for on_another_thread in [false, true] {
        let mut keyspace = Keyspace::new();
        let entry = keyspace.load(b"k", &["t"]);
        if on_another_thread {
            let (awaited, address) = (keyspace.awaited, entry.as_raw() as usize);
            let freeing = std::thread::spawn(move || {
                // SAFETY: made by `load` and linked nowhere; not used afterwards.
                unsafe {
                    let entry = Entry::from_raw(address as *mut _).expect("not null");
                    awaited.is_freed(entry);
                    entry.free();
                }
            });
            freeing.join().expect("it frees");
        } else {
            keyspace.free(entry);
        }
        keyspace.server.arrived(DB, b"k", None, true);
        assert_eq!(keyspace.entries(), 0);
    }
}

#[test]
fn only_the_entry_that_waits_is_forgotten_when_something_is_freed() {
    let mut keyspace = Keyspace::new();
    let early = keyspace.load(b"early", &["t"]);
    keyspace.server.arrived(DB, b"early", None, true);
    let late = keyspace.load(b"late", &["t"]);
    keyspace.leave(early);
    keyspace.server.arrived(DB, b"late", None, true);
    assert_eq!(keyspace.entries(), 1);
    assert_eq!(keyspace.condition(late), Condition::Live);
    keyspace.leave(late);
}

#[test]
fn an_entry_is_linked_once_however_often_its_key_is_announced() {
    let mut keyspace = Keyspace::new();
    let entry = keyspace.load(b"k", &["t"]);
    keyspace
        .server
        .arrived(DB, b"k", Some((entry, None)), false);
    keyspace
        .server
        .arrived(DB, b"k", Some((entry, None)), false);
    assert_eq!(keyspace.entries(), 1);
    keyspace.leave(entry);
}

#[test]
fn what_was_never_announced_is_not_served_saved_or_copied_and_is_replaced_cleanly() {
    let mut keyspace = Keyspace::new();
    let lost = keyspace.load(b"k", &["t", "u"]);
    keyspace.server.arrived(DB, b"another key", None, true);
    assert_eq!(keyspace.condition(lost), Condition::Dead);
    assert!(keyspace.server.kept(&lost).is_none());
    let copy = keyspace.server.duplicate(b"copy", &lost);
    let copy = copy.expect("a key short enough");
    assert_eq!(copy.value(), b"");
    keyspace.free(copy);
    keyspace.server.shortened(DB, lost, NEVER);
    let stored = keyspace.server.store(Store {
        db: DB,
        key: b"k",
        value: b"v",
        tags: [&b"t"[..], b"u"].into_iter(),
        attributes: ATTRIBUTES,
        present: Some(lost),
    });
    let Stored::Replaced(new) = stored else {
        panic!("{stored:?}");
    };
    keyspace.free(lost);
    let listed = [(b"k".to_vec(), new)];
    keyspace.server.index.verify(DB, &listed).expect("exact");
    keyspace.leave(new);
    assert_eq!(keyspace.entries(), 0);
}

#[test]
fn a_renamed_entry_keeps_its_tags_only_while_they_are_certainly_known() {
    for something_changes in [false, true] {
        let mut keyspace = Keyspace::new();
        let entry = keyspace.load(b"old", &["t"]);
        keyspace.server.arrived(DB, b"old", None, true);
        keyspace.server.left(DB, entry);
        if something_changes {
            // Another module does something between `rename_from` and `rename_to`: the record is another tag's now.
            let other = keyspace.load(b"other", &["another tag"]);
            keyspace.server.arrived(DB, b"other", None, true);
            let fresh = keyspace.renamed(b"new", entry);
            assert_eq!(fresh.birth(), Epoch::ZERO, "a husk");
            keyspace.free(entry);
            keyspace.leave(fresh);
            keyspace.leave(other);
        } else {
            let fresh = keyspace.renamed(b"new", entry);
            keyspace.free(entry);
            assert!(keyspace.server.index.names(&fresh).eq([b"t"]));
            keyspace.leave(fresh);
        }
        assert_eq!(keyspace.entries(), 0);
    }
}

#[test]
fn an_entry_that_the_keyspace_no_longer_holds_does_not_stop_reclaim() {
    let mut keyspace = Keyspace::new();
    let mut entries = Vec::new();
    for n in 0..10u8 {
        entries.push(keyspace.load(&[n], &["t"]));
        keyspace.server.arrived(DB, &[n], None, true);
    }
    let tags = || [&b"t"[..]].into_iter();
    let done = keyspace
        .server
        .invalidate(DB, tags(), Scope::All, false, 0, NOW_MS);
    assert_eq!(done.later, 10);
    let mut steps = 0;
    while let Some(task) = keyspace.server.index.next_task() {
        let Task::Delete { db, entry } = task else {
            panic!("{task:?}");
        };
        // The keyspace holds none of them.
        assert!(keyspace.server.absent(db, entry.id(), entry));
        steps += 1;
        assert!(steps <= 10, "reclaim meets the same entry again and again");
    }
    assert_eq!((steps, keyspace.entries()), (10, 0));
    let gone = entries[0];
    assert!(!keyspace.server.absent(DB, 0, gone), "only once");
    entries.into_iter().for_each(|entry| keyspace.free(entry));
}
