//! From a change in PostgreSQL to what Redis serves: the whole way, with real servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Postgres, Seed, Server, wait};
use mcache::change::Invalidator;
use mcache::{Cache, Source};
use mcache_graph::{Graph, GraphOptions, GraphQuery, Pagination};
use mcache_postgres::{OutboxSource, PostgresResolver};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use crate::postgres::shop::{Shop, connect, mapping, percentiles, schema};
use crate::support::runtime::runtime;

/// The example that the README quotes.
#[path = "../../../examples/graph.rs"]
#[allow(dead_code, reason = "its main is the program's, not the test's")]
mod example;

/// What `make releases` runs.
#[path = "../../../examples/releases.rs"]
#[allow(dead_code, reason = "its main is the program's, not the test's")]
mod releases;

/// A shop whose queries are cached and whose changes are invalidated.
struct CachedShop {
    shop: Shop,
    redis: Server,
    graph: Graph,
    uncached: Graph,
    invalidator: Invalidator,
}

impl CachedShop {
    fn open() -> Self {
        Self::open_with(Server::start(), |source| source)
    }

    fn open_with(redis: Server, options: impl FnOnce(OutboxSource) -> OutboxSource) -> Self {
        let shop = Shop::open();
        let resolver = PostgresResolver::new(shop.config(), NoTls, mapping()).unwrap();
        let resolver = Arc::new(resolver);
        let (cache, invalidator) = shop.runtime.block_on(async {
            let cache = Cache::builder(redis.url())
                .caching(true)
                .build()
                .await
                .unwrap();
            let tags = Graph::builder(schema(), resolver.clone())
                .build()
                .change_tags();
            let invalidator = Invalidator::builder(options(shop.source()), tags)
                .targets(cache.invalidation_targets())
                .spawn();
            (cache, invalidator)
        });
        Self {
            graph: Graph::builder(schema(), resolver.clone())
                .cache(cache)
                .build(),
            uncached: Graph::builder(schema(), resolver).build(),
            shop,
            redis,
            invalidator,
        }
    }

    fn ask(&self, query: &GraphQuery) -> (Value, Source) {
        let options = GraphOptions::cached();
        let served = self
            .shop
            .runtime
            .block_on(self.graph.serve(query, &options));
        let served = served.unwrap();
        (json!(served.value), served.source)
    }

    fn fresh(&self, query: &GraphQuery) -> Value {
        let options = GraphOptions::default();
        let result = self
            .shop
            .runtime
            .block_on(self.uncached.query(query, &options));
        json!(result.unwrap())
    }

    /// Waits until every committed change is invalidated.
    fn settle(&self) {
        wait::until("every change is invalidated", || self.shop.waiting() == 0);
    }

    /// Asks until the answer is cached.
    fn warm(&self, query: &GraphQuery) {
        wait::until("the answer is cached", || self.ask(query).1 == Source::Hit);
    }
}

#[test]
fn the_example_shows_what_it_says() {
    let (redis, postgres) = (Server::start(), Postgres::start());
    let mut shown = Vec::new();
    runtime()
        .block_on(example::show(
            &redis.url(),
            &postgres.conninfo(),
            &mut shown,
        ))
        .unwrap();
    let (before, with, without) = (
        r#"[{"title":"Red shirt","variants":[{"sku":"SHIRT-S"}]}]"#,
        r#"[{"title":"Blue shirt","variants":[{"sku":"SHIRT-S"}]}]"#,
        r#"[{"title":"Blue shirt","variants":[]}]"#,
    );
    let expected = format!(
        "INSERT INTO product_variant VALUES ('v1', 'SHIRT-S', 'p1')\n  miss: {before}\n  hit: {before}\n\
         UPDATE product SET title = 'Blue shirt'\n  miss: {with}\n  hit: {with}\n\
         DELETE FROM product_variant\n  miss: {without}\n  hit: {without}\n"
    );
    assert_eq!(String::from_utf8(shown).unwrap(), expected);
    let readme = include_str!("../../../README.md");
    let quoted = expected.split("DELETE").next().unwrap();
    assert!(readme.contains(quoted), "the README shows what it prints");
    let code = readme
        .split("```rust,ignore\n")
        .find(|block| block.contains("Schema::builder"))
        .and_then(|block| block.split("```").next())
        .expect("the README quotes the example");
    let example = include_str!("../../../examples/graph.rs");
    for line in code.lines().map(str::trim) {
        assert!(example.contains(line), "not in examples/graph.rs: {line}");
    }
}

#[test]
fn two_services_and_two_releases_serve_nothing_stale() {
    let (redis, postgres) = (Server::start(), Postgres::start());
    let mut shown = Vec::new();
    let stale = runtime().block_on(releases::show(
        &redis.url(),
        &postgres.conninfo(),
        &mut shown,
    ));
    let shown = String::from_utf8(shown).unwrap();
    assert_eq!(stale.unwrap(), 0, "{shown}");
    // What one release does not show stays where the other clears it; what waited for the old one is told when it is
    // back.
    for line in [
        "shop 1   still cached: p1's title, all titles                           made anew: -",
        "shop 2   still cached: p1's title, all titles, p1's reviews             made anew: p1's price",
        "changes wait for a consumer that is away",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
}

#[test]
fn every_statement_leaves_only_fresh_answers() {
    let mut seed = Seed::draw("every_statement_leaves_only_fresh_answers");
    let shop = CachedShop::open();
    shop.shop.postgres.psql(
        "INSERT INTO product (id, title, \"the rank\", price) SELECT 'p' || i, 't' || i, i, i FROM generate_series(1, 9) AS i;
         INSERT INTO product_variant SELECT 'v' || i, 's' || i, 'p' || (i % 9 + 1) FROM generate_series(1, 20) AS i;
         INSERT INTO product_collection VALUES ('c1', 'one'), ('c2', 'two');
         INSERT INTO sales_channel VALUES ('s1', 'web'), ('s2', 'shop')",
    );
    let queries = [
        GraphQuery::new("product")
            .fields(["*", "variants.*"])
            .filters(json!({ "id": "p1" })),
        GraphQuery::new("product")
            .fields(["title"])
            .filters(json!({ "rank": { "$gt": 4 } })),
        GraphQuery::new("product")
            .fields(["id", "collection.title"])
            .pagination(Pagination::new().take(3).skip(1)),
        GraphQuery::new("product")
            .fields(["id", "sales_channels.name"])
            .filters(json!({ "collection_id": "c1" })),
        GraphQuery::new("product_variant").fields([
            "sku",
            "product.title",
            "product.collection.title",
        ]),
        GraphQuery::new("product")
            .fields(["id"])
            .filters(json!({ "variants": { "sku": "s7" } })),
        GraphQuery::new("product")
            .fields(["id", "metadata"])
            .filters(json!({ "id": ["p2", "p3"] })),
        GraphQuery::new("sales_channel").fields(["*"]),
    ];
    let mut hits = 0;
    for round in 0..120 {
        let (p, q, c, s) = (
            seed.u32(1..12),
            seed.u32(1..12),
            seed.u32(1..4),
            seed.u32(1..3),
        );
        let statement = match seed.u32(..14) {
            0 => format!("UPDATE product SET title = 'r{round}' WHERE id = 'p{p}'"),
            1 => format!("UPDATE product SET \"the rank\" = {q} WHERE id = 'p{p}'"),
            2 => {
                format!("UPDATE product SET metadata = '{{\"round\": {round}}}' WHERE id = 'p{p}'")
            }
            3 => format!("UPDATE product SET collection_id = 'c{c}' WHERE id IN ('p{p}', 'p{q}')"),
            4 => format!(
                "UPDATE product SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END WHERE id = 'p{p}'"
            ),
            5 => format!(
                "INSERT INTO product (id, \"the rank\") VALUES ('p{p}', {q}) ON CONFLICT (id) DO UPDATE SET title = 'up{round}'"
            ),
            6 => format!("DELETE FROM product WHERE id = 'p{p}'"),
            7 => format!(
                "UPDATE product_variant SET product_id = (SELECT min(id) FROM product WHERE id >= 'p{q}') WHERE id = 'v{p}'"
            ),
            8 => format!(
                "INSERT INTO product_variant SELECT 'n{round}', 's7', id FROM product WHERE id = 'p{p}'"
            ),
            9 => format!(
                "INSERT INTO link_product_sales_channel VALUES ('p{p}', 's{s}') ON CONFLICT DO NOTHING"
            ),
            10 => format!("DELETE FROM link_product_sales_channel WHERE product_id = 'p{p}'"),
            11 => format!("UPDATE product_collection SET title = 'r{round}' WHERE id = 'c{c}'"),
            12 => format!("UPDATE sales_channel SET name = 'r{round}' WHERE id = 's{s}'"),
            _ if seed.chance(20) => "TRUNCATE link_product_sales_channel".to_owned(),
            _ => format!("UPDATE product SET title = 'all{round}'"),
        };
        shop.shop.postgres.psql(&statement);
        shop.settle();
        for query in &queries {
            let (answer, source) = shop.ask(query);
            hits += usize::from(source == Source::Hit);
            assert_eq!(
                answer,
                shop.fresh(query),
                "round {round}, {source:?}: {statement}\n{query:?}"
            );
        }
    }
    assert!(
        hits > 300,
        "answers do come from the cache: {hits} of {}",
        120 * queries.len()
    );
}

#[test]
fn killing_redis_during_a_burst_leaves_nothing_stale() {
    // Entries outlive the crash, so that what was not invalidated before it would be served after it.
    let redis = Server::builder()
        .set("appendonly", "yes")
        .set("appendfsync", "always")
        .set("mcache.on-restart", "keep");
    let mut shop = CachedShop::open_with(redis.start(), |source| source);
    shop.shop.postgres.psql(
        "INSERT INTO product (id, title) SELECT 'p' || i, 'old' FROM generate_series(1, 40) AS i",
    );
    shop.settle();
    let by_id = |i: u32| {
        GraphQuery::new("product")
            .fields(["title"])
            .filters(json!({ "id": format!("p{i}") }))
    };
    (1..=40).for_each(|i| shop.warm(&by_id(i)));
    let update = |shop: &CachedShop, i: u32| {
        shop.shop.postgres.psql(&format!(
            "UPDATE product SET title = 'new' WHERE id = 'p{i}'"
        ));
    };
    (1..=10).for_each(|i| update(&shop, i));
    shop.redis.kill9();
    (11..=25).for_each(|i| update(&shop, i));
    assert!(
        shop.shop.waiting() > 0,
        "changes wait while there is no provider to tell"
    );
    // Answers are right all the while; they only cost more.
    assert_eq!(shop.ask(&by_id(20)).0["data"], json!([{ "title": "new" }]));
    shop.redis.start_again();
    (26..=40).for_each(|i| update(&shop, i));
    shop.settle();
    for i in 1..=40 {
        assert_eq!(
            shop.ask(&by_id(i)).0["data"],
            json!([{ "title": "new" }]),
            "p{i}"
        );
    }
}

#[test]
fn a_redis_that_hangs_is_told_when_it_wakes() {
    let shop = CachedShop::open();
    shop.shop.postgres.psql(
        "INSERT INTO product (id, title) SELECT 'p' || i, 'old' FROM generate_series(1, 10) AS i",
    );
    shop.settle();
    let by_id = |i: u32| {
        GraphQuery::new("product")
            .fields(["title"])
            .filters(json!({ "id": format!("p{i}") }))
    };
    (1..=10).for_each(|i| shop.warm(&by_id(i)));
    shop.redis.pause();
    shop.shop.postgres.psql("UPDATE product SET title = 'new'");
    wait::until("the invalidation fails", || {
        shop.invalidator.stats().targets[0].failures > 0
    });
    shop.redis.resume();
    shop.settle();
    for i in 1..=10 {
        assert_eq!(
            shop.ask(&by_id(i)).0["data"],
            json!([{ "title": "new" }]),
            "p{i}"
        );
    }
}

/// Its source looks once an hour by itself.
#[test]
fn a_committed_update_is_invisible_to_readers_as_soon_as_its_commit_is_told() {
    let hour = Duration::from_secs(3_600);
    let shop = CachedShop::open_with(Server::start(), |source| source.poll_interval(hour));
    shop.shop
        .postgres
        .psql("INSERT INTO product (id, title) VALUES ('p1', '0')");
    shop.settle();
    let query = GraphQuery::new("product")
        .fields(["title"])
        .filters(json!({ "id": "p1" }));
    let writer = shop.shop.runtime.block_on(connect(&shop.shop.postgres));
    let mut number = 0;
    percentiles("from commit to the first fresh answer", || {
        shop.warm(&query);
        number += 1;
        let update = format!("UPDATE product SET title = '{number}' WHERE id = 'p1'");
        shop.shop
            .runtime
            .block_on(writer.batch_execute(&update))
            .unwrap();
        let committed = Instant::now();
        let expected = json!([{ "title": number.to_string() }]);
        wait::until("a reader is served the new title", || {
            shop.ask(&query).0["data"] == expected
        });
        committed.elapsed()
    });
}
