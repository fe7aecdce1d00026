//! The key of the hash of tag names decides where a record stands in a table and nothing else: two servers with
//! different keys that are told the same say the same, in the same order, with the same cursors, and save the same
//! bytes.

#[path = "support/seed.rs"]
mod seed;

use mcache_core::encode;
use mcache_core::entry::{Attributes, Entry, NEVER};
use mcache_core::epoch::{Epoch, Token};
use mcache_core::fills::{Fills, Refusal};
use mcache_core::hash::Key;
use mcache_core::index::{Index, Scope, Task};

/// Everything that a client, a file or a replica can see of a history, in words.
fn seen(seed: u64, key: Key) -> Vec<String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut index, mut seen) = (Index::with_key(key), Vec::new());
    let mut entries = Vec::new();
    for n in 0..2_000u64 {
        let tags: Vec<String> = (0..rng.usize(..40))
            .map(|_| format!("t{}", rng.u32(..500)))
            .collect();
        let attributes = Attributes {
            birth: Epoch(n),
            manual: rng.u8(..) < 50,
            swr_ms: rng.u32(..2) * 500,
            softened: false,
            ends_ms: NEVER,
        };
        let mut records = Vec::new();
        let names = tags.iter().map(String::as_bytes);
        index.resolve(0, names, attributes.manual, &mut records);
        let entry = Entry::new(format!("k{n}").as_bytes(), b"v", attributes, &records);
        index.link(0, entry);
        entries.push(entry);
        let saved = Token {
            incarnation: 1,
            epoch: Epoch(n),
        };
        let bytes = encode::encode(attributes, saved, index.names(&entry));
        seen.push(format!("saved {}", bytes.escape_ascii()));
    }
    let mut cursor = 0;
    loop {
        let (next, page) = index.scan_tags(0, cursor, 17, None);
        seen.push(format!("tags {next} {page:?}"));
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    for n in 0..50 {
        let names = [format!("t{n}"), format!("t{}", n + 100)];
        let names = || names.iter().map(String::as_bytes);
        let (_, page) = index.scan_entries(0, b"t7", n << 1, 10);
        let keys: Vec<_> = page.iter().map(Entry::key).collect();
        seen.push(format!(
            "entries {keys:?} {}",
            index.count(0, names(), Scope::All)
        ));
        match n % 2 {
            0 => _ = index.kill(0, names(), Scope::Auto),
            _ => _ = index.soften(0, names(), Scope::All, Epoch(3_000 + n)),
        }
    }
    while let Some(task) = index.next_task() {
        match task {
            Task::Shorten { db, entry, epoch } => {
                seen.push(format!("shorten {} {epoch:?}", entry.key().escape_ascii()));
                index.shortened(db, entry, 5_000);
            }
            Task::Delete { db, entry } => {
                seen.push(format!("delete {}", entry.key().escape_ascii()));
                index.unlink(db, entry);
            }
        }
    }
    seen.push(format!("{} tags left", index.sizes().tags));
    // SAFETY: the index is not used any more.
    entries.iter().for_each(|entry| unsafe { entry.free() });
    seen
}

#[test]
fn what_is_seen_of_an_index_does_not_depend_on_the_key() {
    let seed = seed::seed();
    let expected = seen(seed, Key::new([1, 2]));
    for key in [Key::new([3, 4]), Key::new([u64::MAX, 0]), Key::worst()] {
        let seen = seen(seed, key);
        for (one, other) in expected.iter().zip(&seen) {
            assert_eq!(one, other);
        }
        assert_eq!(expected.len(), seen.len());
    }
}

/// Not with the key, nor without one: a fill that must be refused is refused, and one that must not be is stored as
/// long as the memory of invalidations is large enough.
#[test]
fn which_fills_are_refused_does_not_depend_on_the_key() {
    for key in [Key::new([1, 2]), Key::new([3, 4])] {
        let mut fills = Fills::with_key(key, 7, 1_000, 65_536);
        let early = fills.token(1_000);
        let names: Vec<String> = (0..1_000).map(|n| format!("t{n}")).collect();
        let invalidated = names.iter().step_by(2).map(String::as_bytes);
        fills.note(invalidated, Scope::All, 1_500);
        for (n, name) in names.iter().enumerate() {
            let tags = [name.as_bytes()].into_iter();
            let birth = fills.birth(Some(early), tags, false, Epoch(1), 2_000);
            match n % 2 {
                0 => assert_eq!(birth, Err(Refusal::Invalidated)),
                _ => assert_eq!(birth, Ok(early.epoch)),
            }
        }
    }
}
