//! Work grows with what a command names and with nothing else: not with how tags collide, in which order they come, how
//! large they are, what was invalidated before, or how much waits to be freed.
//!
//! Work is counted in steps (`mcache_core::work`), so the tests are exact on any machine; a release build counts
//! nothing.
#![cfg(debug_assertions)]

use mcache_core::Pattern;
use mcache_core::entry::{Attributes, Entry, NEVER};
use mcache_core::epoch::Epoch;
use mcache_core::hash::Key;
use mcache_core::index::{Index, Scope, Task};
use mcache_core::work;

/// An index and the keyspace that owns its entries.
struct World {
    index: Index,
    entries: Vec<Entry>,
    epoch: u64,
}

impl World {
    fn new() -> Self {
        World::with_key(Key::new([fastrand::u64(..), fastrand::u64(..)]))
    }

    fn with_key(key: Key) -> Self {
        World {
            index: Index::with_key(key),
            entries: Vec::new(),
            epoch: 10,
        }
    }

    /// Stores an entry with these tags. Returns the steps.
    fn set<T: AsRef<[u8]>>(&mut self, tags: &[T]) -> u64 {
        self.set_with(tags, 0)
    }

    fn set_with<T: AsRef<[u8]>>(&mut self, tags: &[T], swr_ms: u32) -> u64 {
        let attributes = Attributes {
            birth: Epoch(self.epoch),
            manual: false,
            swr_ms,
            softened: false,
            ends_ms: NEVER,
        };
        let key = format!("key:{}", self.entries.len());
        work::of(|| {
            let mut records = Vec::new();
            let names = tags.iter().map(AsRef::as_ref);
            self.index.resolve(0, names, false, &mut records);
            let entry = Entry::new(key.as_bytes(), b"v", attributes, &records);
            self.index.link(0, entry);
            self.entries.push(entry);
        })
        .0
    }

    fn delete(&mut self, entry: Entry) -> u64 {
        self.entries.retain(|other| *other != entry);
        self.take_out(entry)
    }

    /// As [`delete`](Self::delete), of one that is not in the list any more.
    fn take_out(&mut self, entry: Entry) -> u64 {
        let (steps, ()) = work::of(|| self.index.unlink(0, entry));
        // SAFETY: it is in no index and in no list any more.
        unsafe { entry.free() };
        steps
    }

    fn kill<T: AsRef<[u8]>>(&mut self, tags: &[T]) -> u64 {
        let names = tags.iter().map(AsRef::as_ref);
        work::of(|| self.index.kill(0, names, Scope::All)).0
    }

    fn soften<T: AsRef<[u8]>>(&mut self, tags: &[T]) -> u64 {
        self.epoch += 1;
        let names = tags.iter().map(AsRef::as_ref);
        let epoch = Epoch(self.epoch);
        work::of(|| self.index.soften(0, names, Scope::All, epoch)).0
    }

    /// Does what is to be done. Returns all steps, and the most that one task took.
    fn reclaim(&mut self) -> (u64, u64) {
        let (mut all, mut longest) = (0, 0);
        while self.index.has_pending() {
            let (steps, ()) = work::of(|| match self.index.next_task() {
                None => _ = self.index.bury(),
                Some(Task::Shorten { db, entry, .. }) => self.index.shortened(db, entry, NEVER),
                Some(Task::Delete { entry, .. }) => _ = self.delete(entry),
            });
            all += steps;
            longest = longest.max(steps);
        }
        (all, longest)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // SAFETY: the index is not used any more.
        self.entries
            .iter()
            .for_each(|entry| unsafe { entry.free() });
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n:06}")).collect()
}

/// `hostile` is within half as much again of `kind`.
#[track_caller]
fn assert_alike(hostile: u64, kind: u64) {
    assert!(
        hostile <= kind * 3 / 2,
        "{hostile} steps where {kind} are enough"
    );
}

/// Names of 32 bytes that have one and the same XXH3 for every other 24 bytes: without a seed its secret is public, and
/// a piece that equals the secret makes its product zero. They cost what any other names do.
#[test]
fn tags_that_collide_under_a_public_hash_cost_as_much_as_others() {
    let secret: [u8; 8] = 0x396c_bd0e_a5e1_d8a4u64.to_le_bytes();
    let public = xxhash_rust::xxh3::xxh3_64;
    // Find the eight bytes that zero the first product: the hash then ignores the next eight.
    let zeroes = [secret, [0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe]]
        .into_iter()
        .find(|s| {
            let name = |n: u64| [&s[..], &n.to_le_bytes(), &[0; 16]].concat();
            public(&name(1)) == public(&name(2))
        })
        .expect("one of the two is the beginning of XXH3's secret");
    let colliding: Vec<Vec<u8>> = (0..24_000u64)
        .map(|n| [&zeroes[..], &n.to_le_bytes(), &[0; 16]].concat())
        .collect();
    assert!(colliding.iter().all(|n| public(n) == public(&colliding[0])));
    let kind: Vec<String> = names("Product:prod_of_the_same_len", 24_000);

    let run = |names: &[&[u8]]| {
        let mut world = World::new();
        let stored: u64 = names.chunks(4_000).map(|tags| world.set(tags)).sum();
        let killed = world.kill(names);
        (stored, killed)
    };
    let hostile = run(&colliding.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let friendly = run(&kind.iter().map(String::as_bytes).collect::<Vec<_>>());
    assert_alike(hostile.0, friendly.0);
    assert_alike(hostile.1, friendly.1);
}

/// If the key of the hash were known and all names collided, a look-up would still take a logarithm of their number.
#[test]
fn a_bucket_has_a_bound_even_if_all_names_collide() {
    let tags = names("t", 24_000);
    let run = |key| {
        let mut world = World::with_key(key);
        let stored: u64 = tags.chunks(4_000).map(|tags| world.set(tags)).sum();
        let looked_up = work::of(|| {
            let names = tags.iter().map(String::as_bytes);
            world.index.count(0, names, Scope::All)
        })
        .0;
        let mut listed = 0;
        let mut cursor = 0;
        loop {
            let (next, page) = world.index.scan_tags(0, cursor, 1_000, None);
            listed += page.len();
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(listed, tags.len());
        let killed = world.kill(&tags);
        world.reclaim();
        assert_eq!(world.index.sizes().tags, 0);
        (stored, looked_up, killed)
    };
    let (hostile, kind) = (run(Key::worst()), run(Key::new([1, 2])));
    // 8 in the table and a logarithm of 24,000 in the map, for each of two tables and two classes.
    let bound = 24_000 * (8 + 16) * 4;
    assert!(hostile.0 <= kind.0 + bound, "{} {}", hostile.0, kind.0);
    assert!(hostile.1 <= kind.1 + bound, "{} {}", hostile.1, kind.1);
    assert!(hostile.2 <= kind.2 + bound, "{} {}", hostile.2, kind.2);
}

#[test]
fn a_look_up_takes_as_many_comparisons_among_a_million_tags_as_among_a_thousand() {
    let steps = |size: usize| {
        let mut world = World::new();
        let all = names("t", size);
        all.chunks(4_000).for_each(|tags| _ = world.set(tags));
        let others = names("other", 4_000);
        let found = all[..1_000].iter().chain(&others);
        let found: Vec<&[u8]> = found.map(String::as_bytes).collect();
        work::of(|| world.index.count(0, found.into_iter(), Scope::All)).0
    };
    let (few, many) = (steps(1_000), steps(1_000_000));
    assert!(many <= few * 3 / 2 + 500, "{many} beside {few}");
}

/// Storing into an index that grows moves one shard at most, at any size.
#[test]
fn no_set_pays_for_the_growth_of_the_index() {
    let mut world = World::new();
    let mut longest = 0;
    for tags in names("t", 300_000).chunks(3) {
        longest = longest.max(world.set(tags));
    }
    assert!(longest <= 3 * 2_000, "{longest} steps for three tags");
}

/// 62 entries that carry the same 4,095 tags, in one order or each in its own.
#[test]
fn the_order_of_tags_does_not_matter_to_what_leaving_costs() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    for count in [20, 62, 600, 4_095] {
        let run = |shuffled: bool| {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut world = World::new();
            let mut tags = names("t", count);
            for _ in 0..62 {
                if shuffled {
                    rng.shuffle(&mut tags);
                }
                world.set(&tags);
            }
            world.kill(&["t000007"]);
            world.reclaim().0
        };
        let (hostile, kind) = (run(true), run(false));
        // Entries of up to 32 tags are searched: a constant.
        let searched = if count <= 32 {
            62 * 32 * count as u64
        } else {
            0
        };
        assert!(
            hostile <= kind * 3 / 2 + searched,
            "{count} tags: {hostile} steps where {kind} are enough"
        );
    }
}

/// An entry that had few tags is overwritten by one with many, in the same place of the index.
#[test]
fn an_entry_that_came_to_have_many_tags_leaves_as_quickly_as_any() {
    let mut world = World::new();
    let many = names("t", 2_000);
    let mut backwards = many.clone();
    backwards.reverse();
    world.set(&many);
    let attributes = world.entries[0].attributes();
    for tags in [&many[..30], &many[..]] {
        let mut records = Vec::new();
        let names = tags.iter().map(String::as_bytes);
        world.index.resolve(0, names, false, &mut records);
        let new = Entry::new(b"grows", b"v", attributes, &records);
        if tags.len() == 30 {
            world.index.link(0, new);
            world.entries.push(new);
        } else {
            let old = std::mem::replace(&mut world.entries[1], new);
            world.index.replace(0, old, new);
            // SAFETY: it is in no index and in no list any more.
            unsafe { old.free() };
        }
    }
    world.set(&backwards);
    let first = world.entries[0];
    let steps = world.delete(first);
    assert!(steps <= 8 * 2_000, "{steps} steps to leave 2,000 tags");
    world.kill(&["t000000"]);
    let (steps, _) = world.reclaim();
    assert!(steps <= 2 * 10 * 2_000, "{steps} steps");
}

#[test]
fn a_hard_invalidation_after_a_soft_one_takes_no_longer_than_before() {
    let run = |soft: bool| {
        let mut world = World::new();
        let tags = names("t", 4_000);
        for tag in &tags {
            world.set_with(&[tag], 1_000);
        }
        if soft {
            world.soften(&tags);
        }
        world.kill(&tags)
    };
    assert_alike(run(true), run(false));
}

/// A tag that became soft a thousand times before reclaim came to it.
#[test]
fn a_hard_invalidation_takes_no_longer_because_its_tag_became_soft_often() {
    let run = |times: usize| {
        let mut world = World::new();
        for _ in 0..times {
            world.set_with(&["t"], 1_000);
            world.soften(&["t"]);
        }
        let counted = work::of(|| world.index.count(0, [&b"t"[..]].into_iter(), Scope::All));
        assert_eq!(counted.1, times);
        (counted.0, world.kill(&["t"]))
    };
    let (often, once) = (run(1_000), run(1));
    assert_alike(often.0, once.0);
    assert_alike(often.1, once.1);
}

#[test]
fn numbers_for_info_take_no_longer_because_much_is_dead() {
    let run = |dead: usize| {
        let mut world = World::new();
        let tags = names("t", dead);
        tags.chunks(100).for_each(|tags| _ = world.set(tags));
        world.kill(&tags);
        let (steps, sizes) = work::of(|| world.index.sizes());
        assert_eq!(sizes.pending_reclaim, dead);
        steps
    };
    assert_eq!(run(100_000), run(10));
}

/// A page of ENTRIES does not look at tags while nothing is dead, and ends early when it has to look at many.
#[test]
fn listing_entries_costs_their_number_and_has_a_bound_on_its_work() {
    let page = |tags: usize, dead: bool| {
        let mut world = World::new();
        let tags = names("t", tags);
        (0..1_000).for_each(|_| _ = world.set(&tags));
        if dead {
            world.set(&["other"]);
            world.kill(&["other"]);
        }
        let (steps, (_, found)) = work::of(|| world.index.scan_entries(0, b"t000000", 0, 1_000));
        (steps, found.len())
    };
    let (many, few) = (page(600, false), page(1, false));
    assert_eq!((many.1, few.1), (1_000, 1_000));
    assert_alike(many.0, few.0);
    let (steps, found) = page(600, true);
    assert!(found < 1_000, "a page ends early");
    assert!(steps < 600_000, "{steps}");
}

#[test]
fn listing_tags_has_a_bound_on_its_work_whatever_the_pattern_and_the_names() {
    let mut world = World::new();
    let long = "a".repeat(1_000);
    let tags: Vec<String> = (0..10_000).map(|n| format!("{n}{long}")).collect();
    tags.chunks(4_000).for_each(|tags| _ = world.set(tags));
    for pattern in [
        "*a".repeat(500),
        format!("*{}b", "a".repeat(900)),
        "*".into(),
    ] {
        let pattern = Pattern::new(pattern.as_bytes()).unwrap();
        let (steps, (cursor, _)) = work::of(|| world.index.scan_tags(0, 0, 10_000, Some(&pattern)));
        assert!(steps <= 300_000, "{steps}");
        assert!(cursor > 0, "there is more");
    }
}

/// Every record of a large and deep index, some in long lists, soft or dead, goes away in small pieces.
#[test]
fn a_flushed_database_is_freed_in_bounded_steps() {
    let mut world = World::new();
    for n in 0..30_000 {
        world.set_with(&["all", &format!("u{n}"), &format!("s{n}")], 1_000);
    }
    world.soften(&names("s", 10));
    let soft: Vec<String> = (0..3_000).map(|n| format!("s{n}")).collect();
    world.soften(&soft);
    let dead: Vec<String> = (0..3_000).map(|n| format!("u{n}")).collect();
    world.kill(&dead);
    let (steps, ()) = work::of(|| world.index.discard(0));
    assert!(steps <= 100, "{steps} steps to let go");
    let mut longest = 0;
    loop {
        let (steps, more) = work::of(|| world.index.bury());
        longest = longest.max(steps);
        if !more {
            break;
        }
    }
    assert!(longest <= 2_000, "{longest} steps at once");
    assert!(!world.index.has_pending());
    let left = world.index.sizes().index_bytes;
    assert!(left < 4_096, "{left} bytes left");
}

/// One dead record keeps a hundred thousand others in the queue whose members went by themselves.
#[test]
fn records_without_members_are_dropped_in_bounded_steps() {
    let mut world = World::new();
    world.set(&["first"]);
    let first = world.entries[0];
    world.kill(&["first"]);
    let tags = names("t", 100_000);
    for tags in tags.chunks(1_000) {
        world.set(tags);
        world.kill(tags);
    }
    // The others expire, one after the other; only the first one stays.
    for entry in world.entries.clone() {
        if entry != first {
            let steps = world.delete(entry);
            assert!(steps <= 1_000 * 8 + 500, "{steps} steps");
        }
    }
    let steps = world.delete(first);
    assert!(steps <= 500, "{steps} steps for one tag");
    let (_, longest) = world.reclaim();
    assert!(longest <= 4_000, "{longest} steps at once");
    assert_eq!(world.index.sizes().pending_reclaim, 0);
}

/// Entries below the floor that went by themselves before reclaim came to them.
#[test]
fn stale_ids_are_passed_over_in_bounded_steps() {
    let mut world = World::new();
    world.index.raise_floor(Epoch(100));
    (0..50_000).for_each(|_| _ = world.set(&["t"]));
    for entry in std::mem::take(&mut world.entries) {
        world.index.unlink(0, entry);
        // SAFETY: it is in no index and in no list any more.
        unsafe { entry.free() };
    }
    let (_, longest) = world.reclaim();
    assert!(longest <= 4_000, "{longest} steps at once");
}

/// Tags too large to be moved keep chunks of their own, between which all others have gone: entries that come and go
/// there are no reason to look at everything again.
#[test]
fn what_cannot_move_is_not_looked_at_again_for_what_comes_and_goes() {
    let mut world = World::new();
    for n in 0..400 {
        let own = (0..255).map(|t| format!("u{n} {t}"));
        world.set(&Vec::from_iter(own.chain([format!("large {n}")])));
    }
    for n in 0..400 * 300 {
        world.set(&[format!("large {}", n % 400)]);
    }
    let large = world.entries.split_off(400);
    for entry in std::mem::replace(&mut world.entries, large) {
        world.take_out(entry);
    }
    world.reclaim();
    let mut steps = 0;
    for n in 0..10_000 {
        world.set(&[format!("come {n}"), format!("and gone {n}")]);
        let entry = world.entries.pop().unwrap();
        world.take_out(entry);
        world.index.settle();
        steps += world.reclaim().0;
    }
    assert!(steps <= 200_000, "{steps} steps");
}

/// The first entry has the youngest tag, and a few hundred thousand tags stand close together before it: a piece of the
/// pass does not walk past all of them. Nor does a command that stores something meanwhile.
#[test]
fn a_piece_of_a_pass_and_a_command_beside_it_are_bounded_by_nothing_in_the_index() {
    let mut world = World::new();
    world.set(&["first"]);
    for n in 0..30_000 {
        world.set(&(0..20).map(|t| format!("u{n} {t}")).collect::<Vec<_>>());
    }
    let first = world.entries.remove(0);
    world.delete(first);
    world.index.settle();
    world.set(&["takes the place of the first", "youngest"]);
    let mut sparse = world.entries.split_off(10_000);
    world.entries.push(sparse.pop().unwrap());
    for (n, entry) in sparse.into_iter().enumerate() {
        if n % 10 == 0 {
            world.entries.push(entry);
            continue;
        }
        world.take_out(entry);
    }
    assert!(world.index.has_pending());
    let (mut longest, mut longest_set) = (0, 0);
    while world.index.has_pending() {
        assert_eq!(world.index.next_task(), None);
        let (steps, _) = work::of(|| world.index.bury());
        longest = longest.max(steps);
        longest_set = longest_set.max(world.set(&["all"]));
    }
    assert!(longest <= 1_000, "{longest} steps at once");
    assert!(longest_set <= 1_000, "{longest_set} steps to store");
}

/// What ends a pass of compaction, too: the directories of a slab whose values have gone, but for the first and one in
/// its middle.
#[test]
fn no_piece_of_a_pass_grows_with_the_chunks_that_there_were() {
    let mut world = World::new();
    for n in 0..40_000 {
        world.set(&(0..10).map(|t| format!("u{n} {t}")).collect::<Vec<_>>());
    }
    let all = std::mem::take(&mut world.entries);
    for (n, entry) in all.into_iter().enumerate() {
        match n % 20_000 {
            77 => world.entries.push(entry),
            _ => _ = world.take_out(entry),
        }
    }
    world.index.settle();
    let (_, longest) = world.reclaim();
    assert!(longest <= 1_000, "{longest} steps at once");
    assert!(world.index.sizes().index_bytes < 16_384);
}

/// Redis may be configured with tens of thousands of databases: the next task, whether there is one, and what a piece
/// of tidying does cost the same as with one.
#[test]
fn what_is_to_be_done_costs_the_same_in_many_databases_as_in_one() {
    const DATABASES: usize = 30_000;
    let mut index = Index::new();
    let mut entries = Vec::new();
    let mut longest = 0;
    let mut set = |index: &mut Index, db: usize| {
        let mut records = Vec::new();
        let attributes = Attributes {
            birth: Epoch(10),
            ends_ms: NEVER,
            ..Attributes::HUSK
        };
        index.resolve(db, [&b"t"[..]].into_iter(), false, &mut records);
        let entry = Entry::new(b"k", b"v", attributes, &records);
        let (steps, ()) = work::of(|| index.link(db, entry));
        assert!(steps <= 10, "{steps} steps to store");
        entries.push(entry);
    };
    for db in 0..DATABASES {
        set(&mut index, db);
    }
    let count = |steps: u64, longest: &mut u64| *longest = steps.max(*longest);
    // Once for all that changed.
    let (steps, pending) = work::of(|| index.has_pending());
    assert!(!pending && steps <= 10 * DATABASES as u64);
    for round in 0..50 {
        let db = DATABASES - 1 - round * 500;
        index.kill(db, [&b"t"[..]].into_iter(), Scope::All);
        count(work::of(|| index.has_pending()).0, &mut longest);
        let (steps, task) = work::of(|| index.next_task());
        count(steps, &mut longest);
        let Some(Task::Delete { db: of, entry }) = task else {
            panic!("{task:?}");
        };
        assert_eq!((of, entry), (db, entries[db]));
        count(work::of(|| index.unlink(db, entry)).0, &mut longest);
        while index.has_pending() {
            let (steps, task) = work::of(|| index.next_task());
            assert_eq!(task, None);
            count(steps, &mut longest);
            count(work::of(|| index.bury()).0, &mut longest);
        }
        count(work::of(|| index.sizes()).0, &mut longest);
    }
    assert!(longest <= 2_000, "{longest} steps at once");
    // SAFETY: the index is not used any more.
    entries.iter().for_each(|entry| unsafe { entry.free() });
}
