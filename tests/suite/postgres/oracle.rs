//! The oracle on a real PostgreSQL: after each change, every cached result equals a fresh one.
//!
//! Several consumers read one database through schemas of different releases and from two tenants' schemas, into one
//! shared cache. Releases come and go, sessions have odd settings, tables are changed by statements and by what no
//! trigger sees. A *pair* is one cached result, compared with a fresh run after one change; misses and fills do not
//! count.
//!
//! It must be able to fail: [`Breach`] breaks one property at a time, and each breach must be noticed.

mod releases;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use harness::{Seed, wait};
use mcache::Tags;
use mcache::change::{
    BoxError, BoxFuture, ChangeEvent, EventTags, InvalidationTarget, Invalidator,
};
use mcache_graph::{
    ChangeTags, Fetch, Graph, GraphOptions, GraphQuery, GraphResult, Resolver, ResolverError, Rows,
};
use mcache_postgres::{Mapping, Outbox, PostgresResolver};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

use crate::postgres::shop::connect;
use crate::postgres::{oracle_changes, oracle_keys};
use crate::support::runtime::runtime;
pub use releases::{IDS, MOODS, POSTS, RANKS, SCORES, uuid};
use releases::{queries, release};

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breach {
    None,
    /// One consumer's acknowledgement counts for all.
    SharedAcknowledgement,
    /// An installation takes away the triggers of others.
    StolenTriggers,
    /// Nothing looks at the catalogue.
    BlindToDdl,
    /// Keys do not say where rows come from.
    KeyWithoutOrigin,
    /// Texts are made under the writer's settings.
    SettingsOfTheWriter,
    /// A consumer that was expired comes back and goes on as if it had missed nothing.
    ForgivenAbsence,
    /// Numbers are told apart as doubles.
    DoublesForTags,
    /// Of a key of several columns, tags have the first.
    FirstColumnOnly,
}

const BREACHES: [Breach; 8] = [
    Breach::SharedAcknowledgement,
    Breach::StolenTriggers,
    Breach::BlindToDdl,
    Breach::KeyWithoutOrigin,
    Breach::SettingsOfTheWriter,
    Breach::ForgivenAbsence,
    Breach::DoublesForTags,
    Breach::FirstColumnOnly,
];

const TENANTS: [&str; 2] = ["one", "two"];

const TABLES: &str = "
    CREATE TABLE author (id numeric(30) PRIMARY KEY, name text COLLATE by_icu, mood mood, score numeric, token bytea,
                         seen_at timestamptz, deleted_at timestamptz);
    CREATE TABLE post (id uuid PRIMARY KEY, author_id numeric(30), title text, rank numeric, doc jsonb, token bytea)";

/// Nothing looks at the catalogue any more.
const BLIND: &str = "DROP EVENT TRIGGER IF EXISTS mcache_on_ddl;
    CREATE OR REPLACE FUNCTION mcache.look() RETURNS TABLE (changed text, complete boolean) LANGUAGE sql
    AS 'SELECT NULL::text, true WHERE false'";

/// Entries of all consumers, shared as one namespace would be.
#[derive(Default)]
struct Store {
    entries: Mutex<HashMap<String, Kept>>,
}

struct Kept {
    result: GraphResult,
    tags: Vec<String>,
    /// Whose it is: the others' tags may reach it, its own must.
    consumer: usize,
}

/// A cache as one consumer clears it, and the last barrier it was told.
struct Target {
    store: Arc<Store>,
    barrier: Mutex<u64>,
}

impl Target {
    fn clear(&self, tags: &[&[u8]]) {
        let mut entries = self.store.entries.lock().unwrap();
        entries.retain(|_, kept| !kept.tags.iter().any(|tag| tags.contains(&tag.as_bytes())));
        drop(entries);
        for tag in tags {
            let tag = std::str::from_utf8(tag).expect("a change clears text");
            if let Some(number) = tag.strip_prefix("barrier ").and_then(|n| n.parse().ok()) {
                let mut barrier = self.barrier.lock().unwrap();
                *barrier = (*barrier).max(number);
            }
        }
    }
}

impl InvalidationTarget for Target {
    fn name(&self) -> &str {
        "oracle"
    }

    fn invalidate_auto<'a>(&'a self, tags: &'a [&'a [u8]]) -> BoxFuture<'a, Result<(), BoxError>> {
        self.clear(tags);
        Box::pin(std::future::ready(Ok(())))
    }

    fn invalidate_auto_all(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        self.store.entries.lock().unwrap().clear();
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A resolver that does not say where its rows come from.
struct Nowhere(PostgresResolver);

impl Resolver for Nowhere {
    fn fetch<'a>(
        &'a self,
        fetch: Fetch<'a>,
    ) -> mcache_graph::BoxFuture<'a, Result<Rows, ResolverError>> {
        self.0.fetch(fetch)
    }
}

/// The tags of changes, or of changes whose numbers went through a double, or with one part of each key.
struct Tagger {
    tags: ChangeTags,
    breach: Breach,
}

impl EventTags for Tagger {
    fn tags(&self, event: &ChangeEvent, tags: &mut Tags) -> Result<(), BoxError> {
        let mut event = event.clone();
        if self.breach == Breach::DoublesForTags {
            let round = |text: &str| text.parse::<f64>().map(|double| format!("{double}"));
            for rows in [&mut event.before, &mut event.after].into_iter().flatten() {
                for value in rows.values_mut().flat_map(|row| row.values_mut()) {
                    if let Value::String(text) = value
                        && let Ok(rounded) = round(text)
                    {
                        *value = Value::String(rounded);
                    }
                }
            }
        }
        if self.breach != Breach::FirstColumnOnly {
            return self.tags.tags(&event, tags);
        }
        let mut right = Tags::default();
        self.tags.tags(&event, &mut right)?;
        tags.extend(
            right
                .iter()
                .map(|tag| oracle_keys::first_part(String::from_utf8_lossy(tag).into_owned())),
        );
        Ok(())
    }
}

/// One release of the service for one tenant.
struct Consumer {
    release: usize,
    graph: Graph,
    outbox: Outbox,
    target: Arc<Target>,
    invalidator: Option<Invalidator>,
    queries: Vec<GraphQuery>,
}

/// What a run did.
#[derive(Clone, Copy, Default)]
struct Totals {
    changes: u64,
    pairs: u64,
    hits: u64,
    reads: u64,
}

impl Totals {
    fn add(&mut self, more: Self) {
        self.changes += more.changes;
        self.pairs += more.pairs;
        self.hits += more.hits;
        self.reads += more.reads;
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            changes,
            pairs,
            hits,
            reads,
        } = self;
        write!(
            f,
            "{pairs} pairs after {changes} changes, {hits} of {reads} reads were hits"
        )
    }
}

struct World {
    runtime: Runtime,
    postgres: harness::Postgres,
    store: Arc<Store>,
    consumers: Vec<Consumer>,
    breach: Breach,
    barrier: u64,
    client: Client,
}

impl World {
    fn new(breach: Breach) -> Self {
        let runtime = runtime();
        let postgres = harness::Postgres::start();
        postgres.psql("CREATE TYPE mood AS ENUM ('sad', 'glad', 'wild'); CREATE COLLATION by_icu (provider = icu, locale = 'de')");
        for tenant in TENANTS {
            postgres.psql(&format!(
                "CREATE SCHEMA {tenant}; SET search_path = {tenant}, public; {TABLES}; {}",
                oracle_keys::TABLES
            ));
        }
        let client = runtime.block_on(connect(&postgres));
        let mut world = Self {
            runtime,
            postgres,
            store: Arc::default(),
            consumers: Vec::new(),
            breach,
            barrier: 0,
            client,
        };
        for tenant in TENANTS {
            for number in 0..3 {
                world.add(tenant, number);
            }
        }
        for consumer in 0..world.consumers.len() {
            world.start(consumer);
        }
        world
    }

    fn add(&mut self, tenant: &str, number: usize) {
        let schema = release(number);
        let mapping: Arc<Mapping> = Mapping::builder(schema.clone())
            .default_schema(tenant)
            .build()
            .unwrap()
            .into();
        let config = self.postgres.conninfo().parse().unwrap();
        let resolver =
            PostgresResolver::with_connections(config, NoTls, mapping.clone(), 2).unwrap();
        let graph = match self.breach {
            Breach::KeyWithoutOrigin => Graph::builder(schema, Nowhere(resolver)).build(),
            _ => Graph::builder(schema, resolver).build(),
        };
        self.consumers.push(Consumer {
            release: number,
            graph,
            outbox: Outbox::new(mapping, "oracle"),
            target: Arc::new(Target {
                store: self.store.clone(),
                barrier: Mutex::new(0),
            }),
            invalidator: None,
            queries: queries(number),
        });
    }

    /// Installs a consumer and lets it work.
    fn start(&mut self, which: usize) {
        let config: tokio_postgres::Config = self.postgres.conninfo().parse().unwrap();
        let outbox = &self.consumers[which].outbox;
        self.runtime
            .block_on(outbox.install_with(config.clone(), NoTls))
            .unwrap();
        match self.breach {
            // As if an installation dropped what its own mapping does not name.
            Breach::StolenTriggers => {
                let other = TENANTS[usize::from(which < self.consumers.len() / 2)];
                self.postgres.psql(&format!(
                    "DO $$ DECLARE t record; BEGIN
                       FOR t IN SELECT tgname, tgrelid::regclass AS rel FROM pg_trigger AS g JOIN pg_class AS c ON c.oid = g.tgrelid
                                WHERE tgname LIKE 'mcache%' AND c.relnamespace = '{other}'::regnamespace LOOP
                         EXECUTE format('DROP TRIGGER %I ON %s', t.tgname, t.rel); END LOOP; END $$; {BLIND}"
                ));
            }
            Breach::BlindToDdl => {
                self.postgres.psql(BLIND);
            }
            Breach::SettingsOfTheWriter => {
                self.postgres.psql(
                    "DO $$ DECLARE f regprocedure; BEGIN
                       FOR f IN SELECT oid FROM pg_proc WHERE proname LIKE 'capture_%' LOOP
                         EXECUTE format('ALTER FUNCTION %s RESET ALL', f); END LOOP; END $$",
                );
            }
            Breach::ForgivenAbsence => {
                self.postgres
                    .psql("UPDATE mcache.position SET clear = false");
            }
            _ => {}
        }
        let consumer = &mut self.consumers[which];
        let _inside = self.runtime.enter();
        let source = consumer
            .outbox
            .source(config, NoTls)
            .look_interval(Duration::from_millis(200));
        let tags = Tagger {
            tags: consumer.graph.change_tags(),
            breach: self.breach,
        };
        let builder = Invalidator::builder(source, tags);
        consumer.invalidator = Some(builder.target(consumer.target.clone()).spawn());
    }

    /// Waits until every running consumer was told of everything that is committed.
    fn settle(&mut self) -> Result<(), String> {
        self.barrier += 1;
        let barrier = self.barrier;
        // A table that was swapped for one without triggers is cleared at each look: one is due before answers are
        // compared. A look leaves out what another is looking at, and that one may have begun before the change: it is
        // waited for.
        let mark = format!(
            "SELECT FROM mcache.seen FOR UPDATE; SELECT mcache.look(); SELECT mcache.invalidate(ARRAY['barrier {barrier}'])"
        );
        self.runtime
            .block_on(self.client.batch_execute(&mark))
            .unwrap();
        let running = self
            .consumers
            .iter()
            .filter(|consumer| consumer.invalidator.is_some());
        for consumer in running {
            let told = || *consumer.target.barrier.lock().unwrap() >= barrier;
            if self.breach == Breach::SharedAcknowledgement {
                // It may never be told: that is the breach.
                let deadline = Instant::now() + Duration::from_millis(300);
                while !told() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(1));
                }
            } else {
                wait::until("a consumer is told of the barrier", told);
            }
        }
        Ok(())
    }

    fn change(&mut self, seed: &mut Seed) -> String {
        let tenant = TENANTS[seed.u64(..2) as usize];
        let sql = oracle_changes::statement(seed);
        let settings = [
            "SET bytea_output = 'escape'",
            "SET timezone = 'Asia/Kathmandu'",
            "SET datestyle = 'German'; SET extra_float_digits = -10",
            "SET intervalstyle = 'sql_standard'",
            "SET session_replication_role = 'replica'",
        ];
        let odd = settings[seed.u64(..settings.len() as u64) as usize];
        let all = format!("RESET ALL; SET search_path = {tenant}, public; {odd}; {sql}");
        if self.breach == Breach::SharedAcknowledgement {
            // All but the first go on from wherever the first is.
            let shared = "UPDATE mcache.position SET acknowledged = pg_current_snapshot() WHERE consumer > 1";
            self.runtime.block_on(async {
                self.client
                    .batch_execute(&format!("{all}; RESET ALL"))
                    .await
                    .unwrap();
                self.client.batch_execute(shared).await.unwrap();
            });
            return format!("{tenant}: {sql}");
        }
        self.runtime
            .block_on(self.client.batch_execute(&format!("{all}; RESET ALL")))
            .unwrap();
        format!("{tenant}: {sql}")
    }

    /// A release ends, is forgotten, comes back; or another process installs.
    fn release_comes_or_goes(&mut self, seed: &mut Seed) {
        let which = seed.u64(..self.consumers.len() as u64) as usize;
        if self.consumers[which].invalidator.is_none() {
            self.start(which);
            return;
        }
        match seed.u64(..3) {
            0 => {
                self.consumers[which].invalidator = None;
                if seed.chance(60) {
                    // Two days pass, and the nightly pruning finds no process there.
                    let name = self.consumers[which].outbox.consumer_name();
                    self.postgres.psql(&format!(
                        "UPDATE mcache.lease SET until = now() - interval '2 days'
                         WHERE consumer = (SELECT id FROM mcache.consumer WHERE name = '{name}')"
                    ));
                    let other = &self.consumers[(which + 1) % self.consumers.len()];
                    self.runtime.block_on(async {
                        let mut client = connect(&self.postgres).await;
                        other.outbox.prune(&mut client).await.unwrap();
                    });
                }
            }
            _ => {
                let config = self.postgres.conninfo().parse().unwrap();
                let outbox = &self.consumers[which].outbox;
                self.runtime
                    .block_on(outbox.install_with(config, NoTls))
                    .unwrap();
            }
        }
    }

    /// Compares what is cached, fills what is not.
    fn compare(&mut self, after: &str, totals: &mut Totals) -> Result<(), String> {
        for (number, consumer) in self.consumers.iter().enumerate() {
            if consumer.invalidator.is_none() {
                continue;
            }
            let options = GraphOptions::default();
            // Side by side: one comparison waits for PostgreSQL while another thinks. Not all of them, which would wait
            // for one another's connections for as long as a loaded machine likes.
            let (graph, options) = (&consumer.graph, &options);
            let answers = consumer.queries.iter().map(|query| async move {
                let key = graph.key(query, options).await.unwrap();
                let answer = graph.load(query, options).await;
                (query, key, answer.expect("every query has an answer"))
            });
            let answers = stream::iter(answers).buffered(4);
            let answers = self.runtime.block_on(answers.collect::<Vec<_>>());
            for (query, key, answer) in answers {
                totals.reads += 1;
                let tags: Vec<String> = answer.tags().tags.iter().map(str::to_owned).collect();
                let fresh = answer.into_result();
                let mut entries = self.store.entries.lock().unwrap();
                match entries.get(&key) {
                    Some(kept) => {
                        totals.hits += 1;
                        totals.pairs += 1;
                        if kept.result != fresh {
                            return Err(format!(
                                "after {after}\nrelease {} ({}) is served\n  {:?}\nfor {query:?}, which is now\n  {:?}\ntags {:?}",
                                consumer.release, kept.consumer, kept.result, fresh, kept.tags
                            ));
                        }
                    }
                    None => {
                        entries.insert(
                            key,
                            Kept {
                                result: fresh,
                                tags,
                                consumer: number,
                            },
                        );
                    }
                }
            }
        }
        Ok(())
    }

    fn run(&mut self, seed: &mut Seed, changes: u64, totals: &mut Totals) -> Result<(), String> {
        self.settle()?;
        self.compare("the beginning", totals)?;
        for _ in 0..changes {
            let what = self.change(seed);
            totals.changes += 1;
            let often = if self.breach == Breach::ForgivenAbsence {
                40
            } else {
                12
            };
            if seed.chance(often) {
                self.release_comes_or_goes(seed);
            }
            self.settle()?;
            self.compare(&what, totals)?;
        }
        Ok(())
    }
}

pub fn pick<'a>(seed: &mut Seed, from: &[&'a str]) -> &'a str {
    from[seed.u64(..from.len() as u64) as usize]
}

fn is_long() -> bool {
    std::env::var_os("MCACHE_LONG").is_some()
}

/// The pairs of a run: a share of two minutes in `make test`, what the issue asks for in `make test-long`, or what
/// `MCACHE_ORACLE_PAIRS` says. Runs add up: each draws a seed of its own.
fn pairs_wanted() -> u64 {
    match std::env::var("MCACHE_ORACLE_PAIRS") {
        Ok(pairs) => pairs.parse().expect("MCACHE_ORACLE_PAIRS is a number"),
        Err(_) if is_long() => 1_000_000,
        Err(_) => 10_000,
    }
}

#[test]
fn no_cached_result_is_stale_on_a_real_database() {
    let mut seed = Seed::draw("no_cached_result_is_stale_on_a_real_database");
    let wanted = pairs_wanted();
    // A world takes turns between PostgreSQL and us; several keep all processors busy.
    let side_by_side = if wanted > 100_000 {
        std::thread::available_parallelism().map_or(1, usize::from)
    } else {
        1
    };
    let changes = if wanted > 100_000 { 200 } else { 60 };
    let seeds = Mutex::new(std::iter::repeat_with(move || seed.u64(..1_000_000_000)));
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|threads| {
        for _ in 0..side_by_side {
            threads.spawn(|| {
                while totals.lock().unwrap().pairs < wanted {
                    let number = seeds.lock().unwrap().next().expect("endless");
                    let mut own = Totals::default();
                    let mut world = World::new(Breach::None);
                    if let Err(stale) = world.run(&mut Seed::fixed(number), changes, &mut own) {
                        panic!("world {number}: {stale}");
                    }
                    let mut all = totals.lock().unwrap();
                    all.add(own);
                    println!("world {number}: {own}; together {all}");
                }
            });
        }
    });
    let totals = *totals.lock().unwrap();
    println!("{totals}");
    assert!(
        totals.hits * 2 > totals.reads,
        "a cache that is empty proves nothing"
    );
}

#[test]
#[ignore = "takes minutes: make oracle-broken, make test-long"]
fn each_breach_is_noticed() {
    let only = std::env::var("MCACHE_BREACH")
        .ok()
        .filter(|name| !name.is_empty());
    for breach in BREACHES {
        if only
            .as_ref()
            .is_some_and(|only| *only != format!("{breach:?}"))
        {
            continue;
        }
        let mut seed = Seed::draw("each_breach_is_noticed");
        let mut totals = Totals::default();
        let noticed = (0..6).any(|_| World::new(breach).run(&mut seed, 150, &mut totals).is_err());
        println!("{breach:?}: noticed {noticed}, {} pairs", totals.pairs);
        assert!(
            noticed,
            "{breach:?} was not noticed in {} pairs",
            totals.pairs
        );
    }
}
