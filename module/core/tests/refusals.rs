//! How often a fill is refused although none of its tags was invalidated since it began: measured against an exact
//! memory, beside what the size of the table lets expect. `cargo test -p mcache-core --test refusals -- --nocapture`
//! prints the table that `docs/operations.md` shows; `MCACHE_SEED` replays a run.

#[path = "support/seed.rs"]
mod seed;

use std::collections::HashMap;

use mcache_core::epoch::Epoch;
use mcache_core::memory::{Memory, WAYS};

/// Invalidated tags are drawn from so many, so that nearly all that are noted during a fill are different.
const TAGS: usize = 2_000_000;

/// The chance that a tag's set has let go of an invalidation noted since the fill began: more than [`WAYS`] of
/// `noted` tags fell into it. The number that do is Poisson distributed with the mean `noted / sets`.
fn expected(noted: usize, tags: usize) -> f64 {
    let mean = noted as f64 / (tags / WAYS) as f64;
    let mut term = (-mean).exp();
    let mut at_most_ways = 0.0;
    for k in 0..=WAYS {
        at_most_ways += term;
        term *= mean / (k + 1) as f64;
    }
    1.0 - at_most_ways
}

/// The share of tags for which a fill that began `noted` invalidations ago is refused wrongly.
fn measured(rng: &mut fastrand::Rng, noted: usize, tags: usize) -> f64 {
    let hashes: Vec<u64> = (0..TAGS).map(|_| rng.u64(..)).collect();
    let mut memory = Memory::for_tags(tags);
    let mut exact: HashMap<u64, Epoch> = HashMap::new();
    let mut epoch = 0;
    let (mut wrong, mut asked) = (0, 0);
    for round in 0..20 {
        let began = Epoch(epoch);
        // The first round fills the table: a server that has run for a while.
        let count = if round == 0 { tags * 2 } else { noted };
        for _ in 0..count {
            epoch += 1;
            let hash = hashes[rng.usize(..TAGS)];
            memory.note(hash, Epoch(epoch));
            exact.insert(hash, Epoch(epoch));
        }
        if round == 0 {
            continue;
        }
        for _ in 0..50_000 {
            let hash = hashes[rng.usize(..TAGS)];
            let truth = exact.get(&hash).copied().unwrap_or_default();
            let last = memory.last(hash).epoch;
            assert!(last >= truth, "a late fill would be accepted");
            asked += usize::from(truth <= began);
            wrong += usize::from(truth <= began && last > began);
        }
    }
    wrong as f64 / asked as f64
}

#[test]
fn a_tag_is_refused_wrongly_as_often_as_the_size_of_the_table_lets_expect() {
    let seed = seed::seed();
    println!(
        "invalidation-memory-tags  invalidated during the fill  refused wrongly, a tag (expected)"
    );
    let mut rng = fastrand::Rng::with_seed(seed);
    for tags in [16_384, 262_144] {
        for noted in [tags / 16, tags / 8, tags / 4, tags / 2, tags] {
            let (measured, expected) = (measured(&mut rng, noted, tags), expected(noted, tags));
            println!("{tags:24}  {noted:27}  {measured:.6} ({expected:.6})");
            let tolerance = expected * 0.3 + 0.0003;
            assert!(
                (measured - expected).abs() < tolerance,
                "{tags} tags, {noted} invalidated: {measured}, expected {expected}"
            );
        }
    }
}
