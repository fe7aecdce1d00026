//! What the index says it takes is what the allocator sets aside for it, to the byte: while it grows, while it is full
//! of dead and soft records, while it is buried, and when it is empty again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[path = "support/seed.rs"]
mod seed;
#[path = "support/stage.rs"]
mod stage;

use mcache_core::alloc::class;
use mcache_core::encode::Decoded;
use mcache_core::entry::{Attributes, Entry, NEVER};
use mcache_core::epoch::Epoch;
use mcache_core::hash::Key;
use mcache_core::index::{Index, Scope, Task};
use stage::Stage;

thread_local! {
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, counting what jemalloc would set aside.
struct Counting;

fn count(bytes: usize, sign: isize) {
    // Not while a thread ends: its variables are gone, and no test runs there.
    let _ = BYTES.try_with(|total| total.set(total.get() + sign * class(bytes) as isize));
}

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// An index, and what was allocated within its own functions.
struct Measured {
    index: Index,
    entries: Vec<Entry>,
    records: Vec<u32>,
    allocated: isize,
}

impl Measured {
    fn new() -> Self {
        Measured {
            index: Index::with_key(Key::new([fastrand::u64(..), fastrand::u64(..)])),
            entries: Vec::new(),
            records: Vec::with_capacity(5_000),
            allocated: 0,
        }
    }

    fn within<T>(&mut self, body: impl FnOnce(&mut Index, &mut Vec<u32>) -> T) -> T {
        let before = BYTES.get();
        let result = body(&mut self.index, &mut self.records);
        self.allocated += BYTES.get() - before;
        result
    }

    fn set(&mut self, tags: &[String], swr_ms: u32) {
        let attributes = Attributes {
            birth: Epoch(10),
            manual: false,
            swr_ms,
            softened: false,
            ends_ms: NEVER,
        };
        let names = tags.iter().map(String::as_bytes);
        self.within(|index, records| index.resolve(0, names, false, records));
        let entry = Entry::new(b"sixteen bytes ok", b"value", attributes, &self.records);
        self.within(|index, _| index.link(0, entry));
        self.entries.push(entry);
    }

    fn delete(&mut self, entry: Entry) {
        if let Some(at) = self.entries.iter().position(|other| *other == entry) {
            self.entries.swap_remove(at);
        }
        self.take_out(entry);
    }

    /// As [`delete`](Self::delete), of one that is not in the list any more.
    fn take_out(&mut self, entry: Entry) {
        self.within(|index, _| index.unlink(0, entry));
        // SAFETY: it is in no index and in no list any more.
        unsafe { entry.free() };
    }

    /// Takes out all entries but some.
    fn keep(&mut self, which: impl Fn(usize) -> bool) {
        for (n, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
            if which(n) {
                self.entries.push(entry);
                continue;
            }
            self.take_out(entry);
        }
    }

    /// What an index of the same entries takes that never held others.
    fn fresh(&self) -> usize {
        let mut fresh = Measured::new();
        for entry in &self.entries {
            let names = self.index.names(entry);
            let names = names.map(|name| String::from_utf8(name.to_vec()).unwrap());
            fresh.set(&Vec::from_iter(names), 0);
        }
        fresh.index.sizes().index_bytes
    }

    /// Does what is to be done; then it takes little more than a fresh one.
    #[track_caller]
    fn comes_to_rest(&mut self) {
        let before = self.index.sizes().index_bytes;
        while self.within(|index, _| index.has_pending()) {
            assert_eq!(self.index.next_task(), None);
            self.within(|index, _| index.bury());
            self.check("moving together");
        }
        let (used, least) = (self.index.sizes().index_bytes, self.fresh());
        println!("{before} bytes, {used} at rest, {least} fresh");
        assert!(
            used <= least * 2 + 8_192,
            "{before} bytes, {used} at rest, {least} fresh"
        );
    }

    /// Bytes that the index says it takes outside of the entries.
    fn said(&self) -> usize {
        let sizes = self.index.sizes();
        sizes.index_bytes - sizes.memberships * 8
    }

    #[track_caller]
    fn check(&self, when: &str) {
        assert_eq!(self.said() as isize, self.allocated, "{when}");
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // SAFETY: the index is not used any more.
        self.entries
            .iter()
            .for_each(|entry| unsafe { entry.free() });
    }
}

#[test]
fn index_bytes_are_what_the_allocator_set_aside() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut it = Measured::new();
    it.check("empty");
    for round in 0..6 {
        for n in 0..3_000 {
            let count = match rng.u8(..) {
                0..3 => rng.usize(33..400),
                _ => rng.usize(..6),
            };
            let mut tags: Vec<String> = (0..count)
                .map(|_| format!("{:01$}", rng.u32(..9_000), rng.usize(1..40)))
                .collect();
            tags.push("of all".into());
            it.set(&tags, rng.u32(..2) * 1_000);
            if rng.u8(..) < 60 {
                let victim = it.entries[rng.usize(..it.entries.len())];
                it.delete(victim);
            }
            if n % 100 == 0 {
                it.check("growing");
            }
        }
        let names: Vec<String> = (0..500).map(|_| rng.u32(..9_000).to_string()).collect();
        let names = || names.iter().map(String::as_bytes);
        it.within(|index, _| index.soften(0, names(), Scope::All, Epoch(20 + round)));
        it.check("soft");
        let names = names().skip(250).chain([&b"of all"[..]]);
        match round {
            0 => _ = it.within(|index, _| index.kill(0, names, Scope::All)),
            1 => _ = it.within(|index, _| index.soften(0, names, Scope::All, Epoch(90))),
            _ => it.within(|index, _| index.raise_floor(Epoch(11))),
        }
        it.check("dead");
        while it.within(|index, _| index.has_pending()) {
            match it.within(|index, _| index.next_task()) {
                None => _ = it.within(|index, _| index.bury()),
                Some(Task::Delete { entry, .. }) => it.delete(entry),
                Some(Task::Shorten { db, entry, .. }) => {
                    it.within(|index, _| index.shortened(db, entry, 1_000));
                }
            }
            if rng.u8(..) == 0 {
                it.check("reclaiming");
            }
        }
        it.check("reclaimed");
        if round == 3 {
            it.within(|index, _| index.discard(0));
            it.entries.drain(..).for_each(|entry| {
                // SAFETY: the index has forgotten the database.
                unsafe { entry.free() }
            });
            it.check("flushed");
            while it.within(|index, _| index.bury()) {
                it.check("burying");
            }
        }
    }
    for entry in it.entries.clone() {
        it.delete(entry);
    }
    it.within(|index, _| index.settle());
    it.check("empty again");
    assert!(it.said() < 4_096);
}

/// The formula of docs/operations.md, for entries whose tags are one of all, one of a hundredth, and some of their own;
/// names of 16 bytes.
#[test]
fn index_bytes_follow_the_formula_of_the_documentation() {
    for (entries, own) in [(1_000, 1), (20_000, 1), (20_000, 10), (3_000, 100)] {
        let mut it = Measured::new();
        for n in 0..entries {
            let mut tags = vec!["shared by all 00".to_owned()];
            tags.push(format!("a hundredth {:04}", n / 100));
            tags.extend((0..own).map(|t| format!("own {t:04} {n:07}")));
            it.set(&tags, 0);
        }
        let sizes = it.index.sizes();
        let (entries, tags) = (entries as f64, sizes.tags as f64);
        let memberships = sizes.memberships as f64;
        let unique = entries * own as f64;
        let shared = memberships - unique;
        // 8 an entry; 8 a membership in the entry; 4 to 6 more of a shared tag; 24, the name and the table for a tag.
        let formula = entries * 8.0
            + memberships * 8.0
            + shared * 5.0
            + tags * (24.0 + 16.0 + 11.0)
            + 8.0 * 1024.0;
        let told = sizes.index_bytes as f64;
        println!("{entries} entries, {own} own tags: {told} bytes, by the formula {formula:.0}");
        assert!(
            (told / formula - 1.0).abs() < 0.2,
            "{entries} entries, {own} own tags: {told} bytes, by the formula {formula:.0}"
        );
        // What MEMORY USAGE says of each, summed up, is what the index takes, but for its chunks.
        let beside: usize = it.entries.iter().map(|e| it.index.bytes_beside(e)).sum();
        let within = sizes.memberships * 8;
        let sum = (beside + within) as f64;
        println!("  of the entries: {sum:.0}");
        assert!(sum < told && sum > told * 0.8 - 8.0 * 1024.0);
    }
}

/// Two hundred thousand entries expire but for one in ten thousand: what is left of the index is little, in steps of
/// bounded length.
#[test]
fn the_few_that_outlive_many_keep_little_of_the_index() {
    for tags in [1, 3, 12] {
        let mut it = Measured::new();
        for n in 0..200_000 / tags {
            let own = (1..tags).map(|t| format!("own {t} {n}"));
            let tags: Vec<String> = own.chain([format!("shared {}", n / 20)]).collect();
            it.set(&tags, 0);
        }
        let full = it.said();
        it.keep(|n| n % (10_000 / tags) == 77);
        let (survivors, before) = (it.entries.len(), it.said());
        let mut longest = 0;
        while it.within(|index, _| index.has_pending()) {
            assert_eq!(it.index.next_task(), None);
            let (steps, _) = mcache_core::work::of(|| it.within(|index, _| index.bury()));
            longest = longest.max(steps);
            it.check("moving together");
        }
        let after = it.said();
        println!(
            "{tags} tags: {full} bytes full; {survivors} survivors: {before} bytes, {after} together, {longest} steps at once"
        );
        assert_eq!(survivors, 20);
        // A chunk of each kind (entries, records, lists), a shard of names, directories.
        let fixed = 9 * 1024;
        assert!(after < fixed + survivors * 1_024, "{after} bytes");
        assert!(longest <= 2_000, "{longest} steps at once");
    }
}

/// After anything has come and gone, an index at rest takes little more than one that was made with what is left.
#[test]
fn an_index_at_rest_takes_little_more_than_a_fresh_one() {
    let seed = seed::seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    // The keys of the names' hashes.
    fastrand::seed(seed);
    let mut it = Measured::new();
    let mut worst = 0.0_f64;
    for round in 0..60 {
        let shared = rng.u32(1..2_000);
        let most = rng.usize(1..60);
        let mut made = 0;
        while made < 12_000 {
            let count = rng.usize(1..=most);
            made += count;
            let tags: std::collections::BTreeSet<String> = (0..count)
                .map(|t| match rng.bool() {
                    true => format!("s{}", rng.u32(..shared)),
                    false => format!("Product:prod_{round} {made} {t}"),
                })
                .collect();
            it.set(&Vec::from_iter(tags), 0);
        }
        let kept = rng.usize(..it.entries.len());
        if rng.bool() {
            rng.shuffle(&mut it.entries);
        }
        for entry in it.entries.split_off(kept) {
            it.delete(entry);
        }
        while it.within(|index, _| index.has_pending()) {
            it.within(|index, _| index.bury());
        }
        let (used, least) = (it.index.sizes().index_bytes, it.fresh());
        worst = worst.max(used.saturating_sub(8192) as f64 / least.max(1) as f64);
        let most = least * 2 + 8_192;
        assert!(
            used <= most,
            "round {round}: {used} bytes, {least} fresh, for {kept} entries"
        );
    }
    println!("at worst {worst:.2} times");
}

/// The chunks of those that came later go by themselves, but not what the directories of chunks took.
#[test]
fn the_first_that_outlive_many_keep_no_directory_of_the_others() {
    let mut it = Measured::new();
    for n in 0..100_000 {
        it.set(
            &[format!("a{n}"), format!("b{n}"), format!("s{}", n / 3)],
            0,
        );
    }
    it.keep(|n| n < 20);
    it.comes_to_rest();
}

/// What leaves behind a pass that is under way has not been seen by it.
#[test]
fn what_is_deleted_behind_a_pass_is_moved_together_as_well() {
    let mut it = Measured::new();
    for n in 0..60_000 {
        it.set(&[format!("a{n}"), format!("s{}", n / 3)], 0);
    }
    it.keep(|n| n % 10 > 5);
    for _ in 0..200 {
        assert!(it.within(|index, _| index.bury()), "the pass is under way");
    }
    it.keep(|n| n % 150 == 0);
    it.comes_to_rest();
}

/// As above, where the pass is in a database that is flushed and filled anew.
#[test]
fn what_is_stored_and_deleted_behind_a_pass_is_moved_together_as_well() {
    let mut it = Measured::new();
    for n in 0..60_000 {
        it.set(&[format!("a{n}")], 0);
    }
    it.keep(|n| n % 10 > 5);
    for _ in 0..150 {
        assert!(it.within(|index, _| index.bury()), "the pass is under way");
    }
    it.within(|index, _| index.discard(0));
    // SAFETY: the index has forgotten the database.
    let free = |entry: Entry| unsafe { entry.free() };
    it.entries.drain(..).for_each(free);
    for n in 0..20_000 {
        it.set(&["all".to_owned(), format!("a{}", n / 2)], 0);
    }
    it.keep(|n| n % 150 == 0);
    it.comes_to_rest();
}

/// Tags of some dozens of entries each stand far apart: they are moved as well, or the chunks that they keep take
/// several times what they do.
#[test]
fn tags_with_some_dozens_of_entries_keep_little_more_than_they_take() {
    for members in [60, 70, 130, 250, 300] {
        let mut it = Measured::new();
        for n in 0..100 {
            let own = (0..127).map(|t| format!("u{n} {t}"));
            it.set(&Vec::from_iter(own.chain([format!("shared {n}")])), 0);
        }
        for n in 0..100 * members {
            it.set(&[format!("shared {}", n % 100)], 0);
        }
        it.keep(|n| n >= 100);
        it.comes_to_rest();
    }
}

/// A tag of a million entries of which a thousand stay: what named the chunks of its list goes back, too.
#[test]
fn a_list_that_was_long_keeps_no_directory_of_what_it_was() {
    for many in [false, true] {
        let mut it = Measured::new();
        let mut tags = vec!["of all".to_owned()];
        if many {
            tags.extend((0..32).map(|n| format!("shared {n}")));
        }
        for _ in 0..if many { 60_000 } else { 1_000_000 } {
            it.set(&tags, 0);
        }
        it.keep(|n| n % 900 == 0);
        it.comes_to_rest();
        assert!(it.index.sizes().index_bytes < it.fresh() + 8_192);
    }
}

/// An entry with very many tags that arrives by name, as in a file: what was needed to find them goes back.
#[test]
fn an_entry_with_very_many_tags_leaves_no_traces_when_it_is_gone() {
    let mut it = Measured::new();
    let tags: Vec<String> = (0..60_000).map(|n| format!("t{n}")).collect();
    let records = vec![0; tags.len()];
    let entry = Entry::new(b"k", b"v", Attributes::HUSK, &records);
    let names = tags.iter().map(String::as_bytes);
    it.within(|index, _| index.adopt(0, entry, names, false));
    it.entries.push(entry);
    it.check("arrived");
    it.delete(entry);
    it.within(|index, _| index.settle());
    it.check("gone");
    assert!(it.said() < 4_096, "{} bytes left", it.said());
}

/// The same of a SET, and of what is loaded from a file: a server keeps next to nothing beside what it counts.
#[test]
fn a_server_keeps_nothing_of_a_large_entry_that_it_does_not_count() {
    let mut stage = Stage::new();
    let large: Vec<Vec<u8>> = (0..60_000).map(|n| format!("t{n}").into_bytes()).collect();
    let large: Vec<&[u8]> = large.iter().map(Vec::as_slice).collect();
    let attributes = stage::attributes(0, NEVER);
    let unseen = |stage: &Stage| BYTES.get() - stage.server.index.sizes().index_bytes as isize;
    let mut before = None;
    for tags in [&large[..1], &large[..], &large[..1]] {
        let entry = stage.store_under(tags, 0, b"k", attributes);
        stage.server.left(0, entry);
        stage.entries.clear();
        // SAFETY: it is in no index and in no list any more.
        unsafe { entry.free() };
        stage.server.load_begins(true);
        let decoded = Decoded {
            tags: tags.iter().copied().collect(),
            ..stage::decoded(attributes, true)
        };
        let loaded = stage.load(decoded, false, &stage::PRIMARY);
        stage.server.load_ended();
        stage.entries.clear();
        // SAFETY: it was never announced, so it is in no index.
        loaded.iter().for_each(|entry| unsafe { entry.free() });
        stage.server.index.settle();
        while stage.server.tidy() {}
        let now = unseen(&stage);
        let kept = now - *before.get_or_insert(now);
        assert!(kept <= 2_048, "{kept} bytes after {} tags", tags.len());
    }
}
