//! Queries that read from a replica are not left with what the replica had not replayed yet.

use std::sync::Arc;

use harness::wait;
use mcache::change::Invalidator;
use mcache::{Cache, MemoryProvider, Source};
use mcache_graph::{Graph, GraphOptions, GraphQuery};
use mcache_postgres::PostgresResolver;
use serde_json::json;
use tokio_postgres::NoTls;

use crate::postgres::shop::{Recorder, Shop, mapping, schema};

#[test]
fn a_change_is_invalidated_again_once_the_replica_has_it() {
    let shop = Shop::open();
    shop.postgres
        .psql("INSERT INTO product (id, title) VALUES ('p1', 'old')");
    let replica = shop.postgres.replica();
    let resolver = PostgresResolver::new(replica.conninfo().parse().unwrap(), NoTls, mapping());
    let recorder = Recorder::new();
    let (graph, _invalidator) = shop.runtime.block_on(async {
        let cache = Cache::builder_with(MemoryProvider::default()).caching(true);
        let cache = cache.build().await.unwrap();
        let graph = Graph::builder(schema(), Arc::new(resolver.unwrap()));
        let graph = graph.cache(cache.clone()).build();
        let replicas = [replica.conninfo().parse().unwrap()];
        let source = shop.source().read_replicas(replicas, NoTls);
        let invalidator = Invalidator::builder(source, graph.change_tags())
            .targets(cache.invalidation_targets())
            .target(recorder.clone())
            .spawn();
        (graph, invalidator)
    });
    let query = GraphQuery::new("product")
        .fields(["title"])
        .filters(json!({ "id": "p1" }));
    let ask = || {
        let options = GraphOptions::cached();
        let served = shop.runtime.block_on(graph.serve(&query, &options));
        let served = served.unwrap();
        (served.value.data[0]["title"].clone(), served.source)
    };
    wait::until("the insertion is invalidated", || shop.waiting() == 0);
    wait::until("the answer is cached", || {
        ask() == (json!("old"), Source::Hit)
    });

    replica.psql("SELECT pg_wal_replay_pause()");
    wait::until("the replica stands still", || {
        replica.psql("SELECT pg_get_wal_replay_pause_state()") == "paused"
    });
    recorder.clear();
    shop.postgres.psql("UPDATE product SET title = 'new'");
    wait::until("the change is invalidated", || {
        recorder.count("Product:p1") > 0
    });
    // The replica is behind, and what is filled from it is too: no one can do better yet.
    wait::until("the old answer is cached again", || {
        ask() == (json!("old"), Source::Hit)
    });
    assert_eq!(recorder.count("Product:p1"), 1);
    assert_eq!(
        shop.waiting(),
        1,
        "not forgotten before the second invalidation"
    );

    replica.psql("SELECT pg_wal_replay_resume()");
    wait::until("the second invalidation is acknowledged", || {
        shop.waiting() == 0
    });
    assert_eq!(recorder.count("Product:p1"), 2);
    assert_eq!(ask().0, json!("new"));
}
