//! Every eviction policy with memory that is always short: what is served was not invalidated, and invalidations
//! arrive.

use std::time::Duration;

use harness::Seed;
use mcache::Tags;
use mcache::provider::{FetchOptions, Lookup, Mode, Provider, Store};

use super::{bare, provider};
use crate::support::runtime::run;

const KEYS: usize = 2_000;
const TAGS: usize = 200;

/// What is served must have begun after the last invalidation of each of its tags.
struct Truth {
    now: usize,
    invalidated: Vec<usize>,
    hits: usize,
}

/// Which tags a key carries: always the same, one of them shared by many.
fn tags_of(key: usize) -> [usize; 3] {
    [key % TAGS, (key * 7 + 1) % TAGS, key % 4]
}

fn storm(policy: &str, steps: usize) {
    let mut seed = Seed::draw(policy);
    let server = bare()
        .set("maxmemory", "4mb")
        .set("maxmemory-policy", policy)
        .start();
    let provider = provider(&server.url());
    let mut truth = Truth {
        now: 0,
        invalidated: vec![0; TAGS],
        hits: 0,
    };
    let (mut full, mut refused) = (0, 0);
    run(async {
        for _ in 0..steps {
            truth.now += 1;
            let key = seed.usize(..KEYS);
            let name = format!("k{key}");
            if seed.u32(..20) == 0 {
                let tag = match seed.bool() {
                    true => seed.usize(..TAGS),
                    // One that a quarter of all entries carry.
                    false => seed.usize(..4),
                };
                let tags = Tags::from_iter([format!("t{tag}")]);
                let told = provider.invalidate(&tags, Mode::Hard).await;
                told.unwrap_or_else(|error| panic!("{policy}: {error}"));
                truth.invalidated[tag] = truth.now;
                continue;
            }
            let options = FetchOptions::new().lease(Duration::from_millis(50));
            let token = match provider.fetch(name.as_bytes(), options).await {
                Ok(Lookup::Hit(value)) => {
                    let began: usize = value
                        .split(|byte| *byte == b' ')
                        .next()
                        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
                        .expect("a number");
                    for tag in tags_of(key) {
                        let at = truth.invalidated[tag];
                        assert!(at < began, "{policy}: {name} of {began}, tag {tag} at {at}");
                    }
                    truth.hits += 1;
                    continue;
                }
                Ok(Lookup::Miss { token }) => token,
                Ok(_) => continue,
                Err(error) => {
                    assert!(error.is_unavailable(), "{policy}: {error}");
                    continue;
                }
            };
            let value = format!("{} {}", truth.now, "x".repeat(seed.usize(100..6_000)));
            let tags: Tags = tags_of(key).map(|tag| format!("t{tag}")).iter().collect();
            let entry = Store::new(name.as_bytes(), value, &tags)
                .token(&token)
                .ttl(Duration::from_secs(seed.u64(1..600)));
            match provider.store(entry).await {
                Ok(true) => {}
                Ok(false) => refused += 1,
                Err(error) => {
                    assert_eq!(policy, "noeviction", "{error}");
                    assert!(error.is_unavailable(), "{error}");
                    full += 1;
                }
            }
        }
    });
    let evicted = server.session().info("stats", "evicted_keys");
    println!(
        "{policy}: {} hits, {evicted} evicted, {full} refused for want of memory, {refused} by rule",
        truth.hits
    );
    assert!(truth.hits > 0, "{policy}: a cache that never serves");
    match policy {
        "noeviction" => assert!(full > 0, "memory was never short"),
        _ => assert!(evicted > 0, "{policy}: nothing was evicted"),
    }
}

#[test]
fn no_policy_makes_a_dead_entry_live_and_memory_that_is_full_refuses_no_invalidation() {
    let steps = match std::env::var_os("MCACHE_LONG") {
        Some(_) => 200_000,
        None => 6_000,
    };
    for policy in [
        "noeviction",
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ] {
        storm(policy, steps);
    }
}
