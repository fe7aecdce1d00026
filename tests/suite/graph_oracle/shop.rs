//! What precision is worth: the hit ratio of both levels on one store, one stream of 95 % reads and
//! 5 % writes, hits compared with fresh results.

mod store;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use harness::Seed;
use mcache::change::ChangeEvent;
use mcache_graph::{Graph, GraphOptions, GraphQuery, GraphResult, Precision, TagSet};

use super::{Totals, ready};
use store::Shop;

const PRODUCTS: usize = 120;
const VARIANTS: usize = 3;
const CATEGORIES: usize = 12;
const CUSTOMERS: usize = 80;
const CURRENCIES: [&str; 3] = ["eur", "usd", "gbp"];

/// Reads and writes before hits are counted, so that first reads do not count as misses.
const WARM_UP: usize = 1_500;

/// Reads and writes that are counted, of the default run and of the long one.
const STEPS: usize = 3_000;
const STEPS_LONG: usize = 20_000;

#[test]
fn precise_tags_hit_at_least_twice_as_often_as_compatible_ones() {
    let mut seed = Seed::draw("graph_oracle::shop");
    let mix = Mix::run(&mut seed, STEPS, 5);
    println!("{}", mix.table());
    let [precise, compatible] = &mix.levels;
    assert!(
        precise.hit_ratio() >= 2.0 * compatible.hit_ratio(),
        "precise {:.3}, compatible {:.3} ({seed})",
        precise.hit_ratio(),
        compatible.hit_ratio(),
    );
}

/// Writes `docs/results/oracle.md` after a long run.
pub fn report(totals: &Totals, seed: &Seed) {
    let mut mix_seed = Seed::fixed(1);
    let mix = Mix::run(&mut mix_seed, STEPS_LONG, 1);
    let mut text = format!(
        "# The oracle: what it checked\n\n\
         Written by `MCACHE_LONG=1 cargo test -p mcache-tests --test suite graph_oracle` ({seed}).\n\
         How it works: [graph.md](../graph.md#the-oracle).\n\n\
         ## No stale result\n\n\
         | | |\n|---|---|\n\
         | random worlds (schema, data, queries) | {} |\n\
         | changes applied and told | {} |\n\
         | fills, of which interrupted by changes | {}, {} |\n\
         | **(query, change) pairs: cached result compared with a fresh one** | **{}** |\n\
         | **stale results** | **0** |\n\
         | results cleared | {} |\n\n",
        totals.worlds,
        totals.changes,
        totals.fills,
        totals.interrupted_fills,
        totals.pairs,
        totals.cleared,
    );
    text.push_str("## Hit ratio on a store-like mix\n\n");
    text.push_str(&mix.table());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/results/oracle.md");
    std::fs::write(path, &text).unwrap_or_else(|error| panic!("{path}: {error}"));
    println!("{text}\nwritten to {path}");
}

/// One run of the mix, both levels side by side.
struct Mix {
    levels: [Level; 2],
    kinds: Vec<&'static str>,
    reads: usize,
    writes: usize,
    checked: u64,
}

/// A cache in memory with the tags of one level of precision.
struct Level {
    graph: Graph,
    entries: HashMap<String, Kept>,
    keys_by_tag: HashMap<String, Vec<String>>,
    /// Hits and reads by kind of query.
    hits: HashMap<&'static str, (u64, u64)>,
    cleared: u64,
    tags: Vec<usize>,
}

struct Kept {
    result: GraphResult,
    tags: TagSet,
}

impl Mix {
    /// `check_every`: one in so many reads is compared with a fresh result if it hit.
    fn run(seed: &mut Seed, steps: usize, check_every: usize) -> Self {
        let shop = Arc::new(Shop::new(seed));
        let level = |precision| Level {
            graph: Graph::builder(shop.schema.clone(), shop.store.clone())
                .precision(precision)
                .build(),
            entries: HashMap::new(),
            keys_by_tag: HashMap::new(),
            hits: HashMap::new(),
            cleared: 0,
            tags: Vec::new(),
        };
        let mut mix = Self {
            levels: [level(Precision::Precise), level(Precision::Compatible)],
            kinds: Vec::new(),
            reads: 0,
            writes: 0,
            checked: 0,
        };
        for step in 0..WARM_UP + steps {
            if step == WARM_UP {
                mix.forget_counts();
            }
            if seed.chance(95) {
                let (kind, query) = shop.random_read(seed);
                if !mix.kinds.contains(&kind) {
                    mix.kinds.push(kind);
                }
                mix.reads += 1;
                let hits = mix.levels.each_mut().map(|level| level.read(kind, &query));
                let hits: Vec<GraphResult> = hits.into_iter().flatten().collect();
                if hits.is_empty() || step % check_every != 0 {
                    continue;
                }
                let fresh = ready(mix.levels[0].graph.load(&query, &GraphOptions::default()));
                let fresh = fresh.expect("a query of the shop").into_result();
                for hit in hits {
                    assert_eq!(hit, fresh, "stale {kind}: {query:?} ({seed})");
                    mix.checked += 1;
                }
            } else {
                mix.writes += 1;
                for event in shop.random_write(seed, step) {
                    mix.levels.iter_mut().for_each(|level| level.clear(&event));
                }
            }
        }
        mix
    }

    fn forget_counts(&mut self) {
        self.reads = 0;
        self.writes = 0;
        for level in &mut self.levels {
            level.hits.clear();
            level.cleared = 0;
        }
    }

    fn table(&self) -> String {
        let [precise, compatible] = &self.levels;
        let mut text = format!(
            "{} reads, {} writes after a warm-up of {WARM_UP}, over {PRODUCTS} products, {} variants, {} prices; no \
             expiry, no eviction; hits compared with fresh results: {}, stale: 0.\n\n\
             | | precise | compatible |\n|---|---|---|\n",
            self.reads,
            self.writes,
            PRODUCTS * VARIANTS,
            PRODUCTS * VARIANTS * CURRENCIES.len(),
            self.checked,
        );
        let mut row = |name: &str, cell: &dyn Fn(&Level) -> String| {
            let _ = writeln!(
                text,
                "| {name} | {} | {} |",
                cell(precise),
                cell(compatible)
            );
        };
        row("**hit ratio**", &|level| {
            format!("**{:.1} %**", level.hit_ratio() * 100.0)
        });
        for kind in &self.kinds {
            row(kind, &|level| {
                let (hits, reads) = level.hits[kind];
                format!("{:.1} %", hits as f64 / reads as f64 * 100.0)
            });
        }
        row("results cleared per write", &|level| {
            format!("{:.1}", level.cleared as f64 / self.writes as f64)
        });
        row("tags per result: median, p90, max", &|level| {
            let mut tags = level.tags.clone();
            tags.sort_unstable();
            let at = |share: f64| tags[((tags.len() - 1) as f64 * share) as usize];
            format!("{}, {}, {}", at(0.5), at(0.9), at(1.0))
        });
        let _ = writeln!(
            text,
            "\nPrecise hits {:.1} times as often as compatible (goal: 2).",
            precise.hit_ratio() / compatible.hit_ratio(),
        );
        text
    }
}

impl Level {
    /// The cached result if there is one; else the entry is filled.
    fn read(&mut self, kind: &'static str, query: &GraphQuery) -> Option<GraphResult> {
        let key = ready(self.graph.key(query, &GraphOptions::default())).expect("rows in memory");
        let (hits, reads) = self.hits.entry(kind).or_default();
        *reads += 1;
        if let Some(kept) = self.entries.get(&key) {
            *hits += 1;
            return Some(kept.result.clone());
        }
        let loaded = ready(self.graph.load(query, &GraphOptions::default()));
        let answer = loaded.expect("a query of the shop");
        let tags = answer.tags().tags;
        let result = answer.into_result();
        for tag in tags.iter() {
            let keys = self.keys_by_tag.entry(tag.to_owned()).or_default();
            keys.push(key.clone());
        }
        self.tags.push(tags.len());
        self.entries.insert(key, Kept { result, tags });
        None
    }

    fn clear(&mut self, event: &ChangeEvent) {
        let tags = self
            .graph
            .change_tags()
            .of(event)
            .expect("an entity of the shop");
        for tag in tags.iter() {
            for key in self.keys_by_tag.remove(tag).unwrap_or_default() {
                let still = self
                    .entries
                    .get(&key)
                    .is_some_and(|kept| kept.tags.contains(tag));
                if still && self.entries.remove(&key).is_some() {
                    self.cleared += 1;
                }
            }
        }
    }

    fn hit_ratio(&self) -> f64 {
        let (hits, reads) = self.hits.values().fold((0, 0), |(hits, reads), kind| {
            (hits + kind.0, reads + kind.1)
        });
        hits as f64 / reads as f64
    }
}
