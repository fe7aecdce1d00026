//! The oracle over a server, with a near cache: what another process invalidates is not served from near once that is
//! settled.

use std::sync::Arc;

use harness::{Seed, Server};
use mcache::{Cache, NearOptions, Source, server::RedisOptions};
use mcache_graph::{Graph, GraphError, GraphOptions, GraphQuery, QueryError};

use super::changes::random_change;
use super::is_long;
use super::queries::random_query;
use super::world::World;
use crate::support::runtime::run;

/// Results that were near hits after a change and compared with fresh ones.
const NEAR_PAIRS: u64 = 3_000;
const NEAR_PAIRS_LONG: u64 = 100_000;

#[derive(Debug, Default)]
struct Totals {
    changes: u64,
    pairs: u64,
    /// Of these, near hits.
    near: u64,
}

/// The process that reads, with a near cache, and the one that invalidates, without.
struct Processes {
    reader: Cache,
    writer: Cache,
}

impl Processes {
    async fn start(server: &Server) -> Self {
        let builder = || {
            let redis = RedisOptions::default().command_deadline(std::time::Duration::from_secs(5));
            Cache::builder(server.url()).redis(redis).caching(true)
        };
        let reader = builder().near(NearOptions::new()).build();
        Self {
            reader: reader.await.expect("a cache"),
            writer: builder().build().await.expect("a cache"),
        }
    }

    /// One world; the first result that is older than an invalidation that was settled before it was asked for.
    /// `tells`: whether the writer invalidates at all.
    async fn world(&self, seed: &mut Seed, totals: &mut Totals, tells: bool) -> Option<String> {
        let World { schema, store } = World::random(seed);
        let store = Arc::new(store);
        let graph = Graph::builder(schema.clone(), store.clone()).cache(self.reader.clone());
        let graph = graph.build();
        let mut queries = Vec::new();
        for _ in 0..seed.usize(4..12) {
            let query = random_query(seed, &schema);
            if fresh(&graph, &query).await {
                queries.push(query);
            }
        }
        let mut stale = None;
        for _ in 0..seed.usize(5..25) {
            for query in &queries {
                served(&graph, query).await;
            }
            let Some(event) = random_change(seed, &schema, &store) else {
                continue;
            };
            totals.changes += 1;
            let tags = graph.change_tags().of(&event).expect("it is known");
            if tells {
                let told = self.writer.invalidate(tags.iter()).await.expect("sent");
                assert!(told.is_settled(), "{seed}");
            }
            for query in &queries {
                let (source, result) = served(&graph, query).await;
                totals.pairs += 1;
                totals.near += u64::from(source == Source::Near);
                let now = graph.load(query, &GraphOptions::default()).await;
                let now = now.expect("it was answered before").into_result();
                if *result != now {
                    stale.get_or_insert(format!(
                        "{query:?}\nchange: {event:?}\n{source:?}: {result:?}\nfresh: {now:?}"
                    ));
                }
            }
        }
        let cleared = self.writer.clear_all().await.expect("sent");
        assert!(cleared.is_settled(), "{seed}");
        stale
    }
}

async fn served(graph: &Graph, query: &GraphQuery) -> (Source, Arc<mcache_graph::GraphResult>) {
    let served = graph.serve_shared(query, &GraphOptions::cached()).await;
    let served = served.expect("a resolver in memory answers");
    (served.source, served.value)
}

/// Whether it is a query: a random one may go round in circles.
async fn fresh(graph: &Graph, query: &GraphQuery) -> bool {
    match graph.load(query, &GraphOptions::default()).await {
        Ok(_) => true,
        Err(GraphError::Query(QueryError::Cycle { .. })) => false,
        Err(error) => panic!("{error} ({query:?})"),
    }
}

fn server() -> Server {
    // The lease is as long as it can be, for a busy machine.
    let server = Server::builder().feed(5_000).start();
    server.session().await_predecessors();
    server
}

#[test]
fn no_near_result_is_stale() {
    let mut seed = Seed::draw("graph_oracle::near::no_near_result_is_stale");
    let wanted = if is_long() {
        NEAR_PAIRS_LONG
    } else {
        NEAR_PAIRS
    };
    let server = server();
    run(async {
        let processes = Processes::start(&server).await;
        let mut totals = Totals::default();
        while totals.near < wanted {
            let stale = processes.world(&mut seed, &mut totals, true).await;
            assert_eq!(stale, None, "{seed}, {totals:?}");
            // Without a near hit in so many there is no near cache.
            assert!(totals.pairs < 100 * wanted, "{seed}, {totals:?}");
        }
        println!("{totals:?}");
    });
}

#[test]
fn a_change_that_is_not_told_is_noticed_from_near() {
    let mut seed = Seed::draw("graph_oracle::near::a_change_that_is_not_told");
    let server = server();
    run(async {
        let processes = Processes::start(&server).await;
        let mut totals = Totals::default();
        for _ in 0..200 {
            let stale = processes.world(&mut seed, &mut totals, false).await;
            if stale.is_some_and(|stale| stale.contains("\nNear: ")) {
                return;
            }
        }
        panic!("it went unnoticed ({seed}): {totals:?}");
    });
}
