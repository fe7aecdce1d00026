//! The oracle: tags are right if and only if no change ever leaves a wrong result in the cache.
//!
//! Random data models, data, queries and changes; every change is told (with more or less detail), turned into
//! tags, and clears what carries them; then every result still there is compared with a fresh one. A
//! (query, change) pair is one such comparison. Fills are interrupted by changes at random, as they are
//! in production. And because an oracle that never objects proves nothing, tags are broken on purpose, one
//! property at a time, and each breach must be noticed.

mod changes;
mod each;
mod near;
mod plain;
mod queries;
mod shop;
mod world;

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use harness::Seed;
use mcache::change::ChangeEvent;
use mcache_graph::{
    Answer, BoxFuture, Fetch, Graph, GraphError, GraphOptions, GraphQuery, GraphResult,
    MemoryResolver, Precision, QueryError, Resolver, ResolverError, Rows, Schema, TagLimits,
    TagSet,
};

use changes::random_change;
use plain::Shelf;
use queries::random_query;
use world::World;

/// Pairs compared by `make test`, and by `make test-long` (`MCACHE_LONG=1`).
const PAIRS: u64 = 40_000;
const PAIRS_LONG: u64 = 1_500_000;

#[test]
fn no_cached_result_is_stale() {
    let mut seed = Seed::draw("graph_oracle::no_cached_result_is_stale");
    let pairs = if is_long() { PAIRS_LONG } else { PAIRS };
    let mut totals = Totals::default();
    while totals.pairs < pairs {
        let mut trial = Trial::random(&mut seed, Sabotage::None);
        if let Err(stale) = trial.run(&mut seed, &mut totals) {
            panic!("stale after {} pairs ({seed}):\n{stale}", totals.pairs);
        }
    }
    println!("{totals:#?}");
    if is_long() {
        shop::report(&totals, &seed);
    }
}

/// A quarter of the pairs, with the entries of each world kept by the provider that needs no module as well.
#[test]
fn no_result_cached_on_plain_redis_is_stale() {
    let mut seed = Seed::draw("graph_oracle::no_result_cached_on_plain_redis_is_stale");
    let pairs = if is_long() { PAIRS_LONG } else { PAIRS } / 4;
    let shelf = Rc::new(Shelf::open());
    let mut totals = Totals::default();
    while totals.pairs < pairs {
        let mut trial = Trial::random(&mut seed, Sabotage::None);
        shelf.next_world();
        trial.shelf = Some(shelf.clone());
        if let Err(stale) = trial.run(&mut seed, &mut totals) {
            panic!("stale after {} pairs ({seed}):\n{stale}", totals.pairs);
        }
    }
    println!("{totals:#?}");
    assert!(totals.cleared > 0 && totals.interrupted_fills > 0);
}

#[test]
fn a_broken_tag_function_is_noticed() {
    let mut seed = Seed::draw("graph_oracle::a_broken_tag_function_is_noticed");
    for sabotage in Sabotage::ALL {
        let mut totals = Totals::default();
        let noticed = (0..2_000).any(|_| {
            let mut trial = Trial::random(&mut seed, sabotage);
            trial.run(&mut seed, &mut totals).is_err()
        });
        assert!(
            noticed,
            "{sabotage:?} went unnoticed in {} pairs ({seed})",
            totals.pairs
        );
        println!("{sabotage:?}: noticed after {} pairs", totals.pairs);
    }
}

/// Ways to get tags wrong, each of which leaves something stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sabotage {
    None,
    /// Entries do not say that rows coming and going matter to them.
    Members,
    /// Entries do not say which fields matter to them.
    Fields,
    /// Entries do not say that an unknown value of a lookup could be theirs.
    UnknownValues,
    /// Entries do not say which entities they were made from.
    Entities,
    /// Entries do not say which rows they hold.
    Rows,
    /// Changes only tell how things are, not how they were.
    Before,
    /// Changes only tell how things were, not how they are.
    After,
    /// Of a key of several fields, tags have the first.
    FirstPart,
    /// Changes are told before they happen, so that a fill may read the old state afterwards.
    TooEarly,
}

impl Sabotage {
    const ALL: [Self; 9] = [
        Self::Members,
        Self::Fields,
        Self::UnknownValues,
        Self::Entities,
        Self::Rows,
        Self::Before,
        Self::After,
        Self::FirstPart,
        Self::TooEarly,
    ];

    /// A tag as a change clears it.
    fn cleared(self, tag: &str) -> String {
        if self != Self::FirstPart {
            return tag.to_owned();
        }
        let is_separator = |(at, c): &(usize, char)| *c == '|' && !tag[..*at].ends_with('\\');
        match tag.char_indices().find(is_separator) {
            Some((at, _)) => {
                let rest = tag[at..].find('#').map_or("", |aspect| &tag[at + aspect..]);
                format!("{}{rest}", &tag[..at])
            }
            None => tag.to_owned(),
        }
    }

    fn spares(self, tag: &str) -> bool {
        let about = |what: &str| {
            tag.ends_with(&format!("#{what}")) || tag.ends_with(&format!(":list:{what}"))
        };
        match self {
            Self::Members => !about("+"),
            Self::Fields => !["text", "code", "rank", "price", "flag"]
                .iter()
                .any(|name| about(name)),
            Self::UnknownValues => !tag.contains("=*"),
            Self::Entities => !tag.ends_with(":*") || tag.ends_with(":list:*"),
            Self::Rows => tag.contains(":list:") || tag.contains('=') || tag.ends_with(":*"),
            _ => true,
        }
    }

    fn distort(self, mut event: ChangeEvent) -> ChangeEvent {
        match self {
            Self::Before => event.before = event.after.clone(),
            Self::After if event.before.is_some() => event.after = event.before.clone(),
            _ => {}
        }
        event
    }
}

/// What was done, for the report.
#[derive(Debug, Default)]
struct Totals {
    worlds: u64,
    changes: u64,
    fills: u64,
    interrupted_fills: u64,
    /// Results compared with a fresh one after a change.
    pairs: u64,
    /// Results a change cleared.
    cleared: u64,
    /// Of these, results that had not changed.
    cleared_needlessly: u64,
}

/// One world, some queries, some changes.
struct Trial {
    store: Arc<Interrupted>,
    graph: Graph,
    queries: Vec<GraphQuery>,
    cached: Vec<Option<Cached>>,
    sabotage: Sabotage,
    /// Where the entries are kept as well.
    shelf: Option<Rc<Shelf>>,
}

struct Cached {
    /// Which fill made it.
    fill: u64,
    result: GraphResult,
    tags: TagSet,
}

/// The store, in which changes happen in the middle of a fill.
struct Interrupted {
    schema: Arc<Schema>,
    store: MemoryResolver,
    interruption: Mutex<Option<Interruption>>,
}

struct Interruption {
    /// How many fetches to let pass before each change.
    every: usize,
    fetches: usize,
    seed: Seed,
    events: Vec<ChangeEvent>,
}

impl Resolver for Interrupted {
    fn fetch<'a>(&'a self, fetch: Fetch<'a>) -> BoxFuture<'a, Result<Rows, ResolverError>> {
        Box::pin(async move {
            let rows = self.store.fetch(fetch).await;
            let mut interruption = self
                .interruption
                .lock()
                .expect("no test thread panics here");
            if let Some(interruption) = &mut *interruption {
                interruption.fetches += 1;
                if interruption.fetches % interruption.every == 0 {
                    let event = random_change(&mut interruption.seed, &self.schema, &self.store);
                    interruption.events.extend(event);
                }
            }
            rows
        })
    }
}

impl Trial {
    fn random(seed: &mut Seed, sabotage: Sabotage) -> Self {
        let World { schema, store } = World::random(seed);
        let queries: Vec<GraphQuery> = (0..seed.usize(4..16))
            .map(|_| random_query(seed, &schema))
            .collect();
        let store = Arc::new(Interrupted {
            schema: schema.clone(),
            store,
            interruption: Mutex::new(None),
        });
        let limits = TagLimits::default()
            .fields_max(*seed.pick(&[0, 4, 512]))
            .rows_max(*seed.pick(&[0, 3, 1_024]))
            .total_max(*seed.pick(&[0, 12, 4_000]))
            .changed_rows_max(*seed.pick(&[1, 1_000]));
        let limits = if seed.chance(60) {
            TagLimits::default()
        } else {
            limits
        };
        let is_compatible = sabotage == Sabotage::None && seed.chance(15);
        let precision = if is_compatible {
            Precision::Compatible
        } else {
            Precision::Precise
        };
        Self {
            graph: Graph::builder(schema, store.clone())
                .limits(limits)
                .precision(precision)
                .build(),
            cached: queries.iter().map(|_| None).collect(),
            queries,
            store,
            sabotage,
            shelf: None,
        }
    }

    /// Changes, clears, compares. `Err` describes a stale result.
    fn run(&mut self, seed: &mut Seed, totals: &mut Totals) -> Result<(), String> {
        totals.worlds += 1;
        for _ in 0..seed.usize(10..60) {
            for position in 0..self.queries.len() {
                if self.cached[position].is_none() && seed.chance(70) {
                    self.fill(seed, position, totals)?;
                }
            }
            let event = random_change(seed, self.graph.schema(), &self.store.store);
            if let Some(event) = event {
                self.clear(&event, totals);
                self.compare(&format!("{event:?}"), totals)?;
            }
        }
        Ok(())
    }

    /// Fills one entry, perhaps with changes in between; as the server does, refuses the fill if any
    /// of its tags was cleared since it began.
    fn fill(
        &mut self,
        seed: &mut Seed,
        position: usize,
        totals: &mut Totals,
    ) -> Result<(), String> {
        let interruption = seed.chance(25).then(|| Interruption {
            every: seed.usize(1..5),
            fetches: 0,
            seed: Seed::fixed(seed.u64(..)),
            events: Vec::new(),
        });
        *self.interruption() = interruption;
        let shelf = self.shelf.clone();
        let token = shelf.as_ref().map(|shelf| shelf.token(position));
        let fill = totals.fills;
        let loaded = self.load(position).map(|answer| {
            let mut tags = TagSet::new();
            let made_from = answer.tags().tags;
            tags.extend(made_from.iter().filter(|tag| self.sabotage.spares(tag)));
            let result = answer.into_result();
            Cached { fill, result, tags }
        });
        let interruption = self.interruption().take();
        let events = interruption.map_or_else(Vec::new, |interruption| interruption.events);

        totals.fills += 1;
        totals.interrupted_fills += u64::from(!events.is_empty());
        if self.sabotage == Sabotage::TooEarly {
            events.iter().for_each(|event| self.clear(event, totals));
        }
        let tags = loaded.as_ref().map(|cached| cached.tags.clone());
        self.cached[position] = loaded;
        if self.sabotage != Sabotage::TooEarly {
            events.iter().for_each(|event| self.clear(event, totals));
        }
        if let (Some(shelf), Some(token), Some(tags)) = (shelf, token, tags) {
            // It comes after what happened meanwhile was told.
            let stored = shelf.store(position, fill, &tags, &token);
            assert_eq!(stored, self.cached[position].is_some(), "fill {fill}");
        }
        if events.is_empty() {
            return Ok(());
        }
        self.compare(&format!("during a fill: {events:?}"), totals)
    }

    /// A fresh answer; `None` if the random query is none (it goes round in circles).
    fn load(&self, position: usize) -> Option<Answer<'_>> {
        let query = &self.queries[position];
        match ready(self.graph.load(query, &GraphOptions::default())) {
            Ok(answer) => Some(answer),
            Err(GraphError::Query(QueryError::Cycle { .. })) => None,
            Err(error) => panic!("{error} ({query:?})"),
        }
    }

    fn fresh(&self, position: usize) -> Option<GraphResult> {
        self.load(position).map(Answer::into_result)
    }

    fn clear(&mut self, event: &ChangeEvent, totals: &mut Totals) {
        totals.changes += 1;
        let event = self.sabotage.distort(event.clone());
        let cleared = self
            .graph
            .change_tags()
            .of(&event)
            .expect("the entity is in the schema");
        let cleared: Vec<String> = cleared
            .iter()
            .map(|tag| self.sabotage.cleared(tag))
            .collect();
        if let Some(shelf) = &self.shelf {
            shelf.invalidate(&cleared);
        }
        for position in 0..self.cached.len() {
            let hit = |cached: &mut Cached| cleared.iter().any(|tag| cached.tags.contains(tag));
            if let Some(cached) = self.cached[position].take_if(hit) {
                totals.cleared += 1;
                let fresh = self.fresh(position);
                totals.cleared_needlessly += u64::from(fresh.as_ref() == Some(&cached.result));
            }
        }
    }

    fn compare(&mut self, change: &str, totals: &mut Totals) -> Result<(), String> {
        if let Some(shelf) = &self.shelf {
            let fill = |cached: &Option<Cached>| cached.as_ref().map(|cached| cached.fill);
            let expected: Vec<Option<u64>> = self.cached.iter().map(fill).collect();
            let found = shelf.fills(expected.len());
            if found != expected {
                return Err(format!(
                    "change: {change}\non plain Redis: {found:?}\nexpected: {expected:?}"
                ));
            }
        }
        for position in 0..self.cached.len() {
            if self.cached[position].is_none() {
                continue;
            }
            totals.pairs += 1;
            let fresh = self.fresh(position);
            let cached = self.cached[position].as_ref();
            if let (Some(cached), Some(fresh)) = (cached, fresh)
                && cached.result != fresh
            {
                return Err(format!(
                    "query: {}\nchange: {change}\ncached: {:?}\nfresh: {:?}\ntags: {:?}\nschema: {:?}",
                    serde_json::to_string(&self.queries[position]).expect("queries are JSON"),
                    cached.result,
                    fresh,
                    cached.tags,
                    self.graph.schema(),
                ));
            }
        }
        Ok(())
    }

    fn interruption(&self) -> std::sync::MutexGuard<'_, Option<Interruption>> {
        self.store
            .interruption
            .lock()
            .expect("no test thread panics here")
    }
}

/// The output of a future that never waits.
fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a resolver in memory never waits"),
    }
}

fn is_long() -> bool {
    std::env::var_os("MCACHE_LONG").is_some_and(|value| value == "1")
}
