//! PgBouncer, and pools of the caller's: what works there works, and what cannot is refused when it begins.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, Pool};
use harness::wait;
use mcache_graph::{Entity, Field, Graph, GraphError, GraphOptions, GraphQuery, Schema};
use mcache_postgres::{Mapping, PostgresError, PostgresResolver};
use serde_json::json;
use tokio_postgres::{Config, NoTls};

use crate::postgres::shop::{Recorder, Shop, mapping, schema};

fn fill(shop: &Shop) {
    shop.postgres.psql(
        "INSERT INTO product (id, title, \"the rank\") SELECT 'p' || i, 'title ' || i, i FROM generate_series(1, 20) AS i;
         INSERT INTO product_variant SELECT 'v' || i, 'sku ' || i, 'p' || i FROM generate_series(1, 20) AS i",
    );
}

/// Many queries at once, of several shapes, more than there are connections.
fn many(shop: &Shop, graph: &Graph) {
    shop.runtime.block_on(async {
        let ask = |i: u32| async move {
            let query = GraphQuery::new("product")
                .fields(["title", "variants.sku"])
                .filters(json!({ "rank": i }));
            graph.query(&query, &GraphOptions::default()).await
        };
        for result in futures_util::future::join_all((1..=20).flat_map(|i| [ask(i), ask(i)])).await
        {
            let rows = result.unwrap().data;
            assert_eq!(rows[0]["variants"].as_array().unwrap().len(), 1);
        }
    });
}

#[test]
fn a_resolver_works_behind_a_pooler_that_shares_sessions() {
    let shop = Shop::open();
    fill(&shop);
    let bouncer = shop
        .postgres
        .pgbouncer("transaction", "default_pool_size = 3");
    let config: Config = bouncer.conninfo().parse().unwrap();
    let resolver = PostgresResolver::new(config, NoTls, mapping())
        .unwrap()
        .transaction_pooled();
    shop.runtime.block_on(resolver.check()).unwrap();
    many(&shop, &Graph::builder(schema(), resolver).build());
}

#[test]
fn a_resolver_that_needs_sessions_refuses_a_pooler_that_shares_them_and_names_the_setting() {
    let shop = Shop::open();
    fill(&shop);
    for (mode, lines) in [
        ("transaction", ""),
        (
            "transaction",
            "default_pool_size = 1\nquery_wait_timeout = 2",
        ),
        ("transaction", "server_round_robin = 1"),
        ("statement", ""),
    ] {
        let bouncer = shop.postgres.pgbouncer(mode, lines);
        let resolver =
            PostgresResolver::new(bouncer.conninfo().parse().unwrap(), NoTls, mapping()).unwrap();
        let graph = Graph::builder(schema(), resolver).build();
        let query = GraphQuery::new("product").fields(["title"]);
        let refused = shop
            .runtime
            .block_on(graph.query(&query, &GraphOptions::default()))
            .unwrap_err();
        let GraphError::Resolver { source, .. } = &refused else {
            panic!("{refused}")
        };
        assert!(
            source.to_string().contains("transaction_pooled()"),
            "{mode}, {lines}: {source}"
        );
        drop(bouncer);
        std::fs::remove_file(shop.postgres.socket_dir().join(".s.PGSQL.6432")).ok();
    }
    // A pool of sessions is none of that.
    let bouncer = shop.postgres.pgbouncer("session", "");
    let resolver =
        PostgresResolver::new(bouncer.conninfo().parse().unwrap(), NoTls, mapping()).unwrap();
    many(&shop, &Graph::builder(schema(), resolver).build());
}

#[test]
fn a_source_refuses_a_pooler_that_shares_sessions_and_its_lag_grows() {
    let shop = Shop::open();
    let bouncer = shop.postgres.pgbouncer("transaction", "");
    let config: Config = bouncer.conninfo().parse().unwrap();
    let mut source = shop.outbox.source(config.clone(), NoTls);
    let refused = shop.runtime.block_on(source.check()).unwrap_err();
    assert!(matches!(refused, PostgresError::Pooler { .. }), "{refused}");
    assert!(
        refused.to_string().contains("pool_mode = session"),
        "{refused}"
    );
    let recorder = Recorder::new();
    let invalidator = shop.invalidator_with(source, &recorder, |builder| builder);
    wait::until("the lag shows it", || {
        invalidator.stats().lag > Duration::from_secs(3)
    });
    assert_eq!(recorder.calls(), 0);
}

#[test]
fn a_source_works_behind_a_pooler_that_does_not_share_sessions() {
    let shop = Shop::open();
    let bouncer = shop.postgres.pgbouncer("session", "");
    let recorder = Recorder::new();
    let source = shop
        .outbox
        .source(bouncer.conninfo().parse().unwrap(), NoTls);
    let _invalidator = shop.invalidator_with(source, &recorder, |builder| builder);
    for i in 1..=12 {
        shop.postgres
            .psql(&format!("INSERT INTO product (id) VALUES ('p{i}')"));
        recorder.wait_for(&[&format!("Product:p{i}")]);
    }
}

#[test]
fn a_pool_of_the_callers_is_used_and_its_sessions_stay_as_they_are() {
    let shop = Shop::open();
    fill(&shop);
    shop.postgres.psql("UPDATE product SET deleted_at = '2026-01-31 12:00:00+00' WHERE id = 'p7'; ALTER ROLE postgres SET timezone = 'Asia/Kathmandu'");
    let pool = Pool::builder(Manager::new(shop.config(), NoTls))
        .max_size(2)
        .build()
        .unwrap();
    let graph = Graph::builder(
        schema(),
        PostgresResolver::over_pool(pool.clone(), mapping()),
    )
    .build();
    shop.postgres.psql("UPDATE product SET deleted_at = NULL");
    many(&shop, &graph);
    shop.runtime.block_on(async {
        let client = pool.get().await.unwrap();
        let row = client
            .query_one("SELECT current_setting('timezone')", &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, &str>(0), "Asia/Kathmandu");
    });
}

#[test]
fn the_lag_grows_while_the_source_cannot_read() {
    let mut shop = Shop::open();
    let recorder = Recorder::new();
    let invalidator = shop.invalidator(&recorder);
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p1')");
    recorder.wait_for(&["Product:p1"]);
    shop.postgres.stop();
    wait::until("the lag shows it", || {
        invalidator.stats().lag > Duration::from_secs(3)
    });
    shop.postgres.start_again();
    wait::until("and that it is over", || {
        invalidator.stats().lag == Duration::ZERO
    });
}

/// A graph whose computed field reads a table by a name without a schema.
fn stock(config: Config, by_transaction: bool) -> Graph {
    let entity = Entity::new("Product")
        .field("title")
        .field(Field::computed("stock"));
    let schema = Arc::new(Schema::builder().entity(entity).build().unwrap());
    let mapping = Arc::new(Mapping::builder(schema.clone()).build().unwrap());
    let sql = "SELECT id, to_jsonb(count) FROM stock, input WHERE id = ANY (input.ids)";
    let mut resolver = PostgresResolver::new(config, NoTls, mapping)
        .unwrap()
        .compute("Product", "stock", sql)
        .unwrap();
    if by_transaction {
        resolver = resolver.transaction_pooled();
    }
    Graph::builder(schema, resolver).build()
}

/// PgBouncer without a word about parameters that it does not pass on.
const DROPS: &str = "ignore_startup_parameters = options";

#[test]
fn what_a_pooler_drops_of_a_connections_options_is_set_by_a_statement() {
    let shop = Shop::open();
    shop.postgres.psql(
        "CREATE SCHEMA tenant; INSERT INTO product (id) VALUES ('p1');
         CREATE TABLE tenant.stock (id text, count int); INSERT INTO tenant.stock VALUES ('p1', 7);
         CREATE TABLE stock (id text, count int); INSERT INTO stock VALUES ('p1', 1)",
    );
    let query = GraphQuery::new("product").fields(["stock"]);
    let mut keys = Vec::new();
    for mode in ["none", "session", "transaction"] {
        // Sessions that are shared are fewer than those who ask.
        let few = match mode {
            "transaction" => format!("{DROPS}\ndefault_pool_size = 3"),
            _ => DROPS.to_owned(),
        };
        let bouncer = (mode != "none").then(|| shop.postgres.pgbouncer(mode, &few));
        let conninfo = bouncer
            .as_ref()
            .map_or(shop.postgres.conninfo(), |bouncer| {
                bouncer.conninfo().to_owned()
            });
        for (options, count) in [("-c search_path=tenant", 7), ("", 1)] {
            let mut config: Config = conninfo.parse().unwrap();
            config.options(options);
            let graph = stock(config, mode == "transaction");
            let ask = async || {
                let rows = graph.query(&query, &GraphOptions::default()).await.unwrap();
                assert_eq!(rows.data[0]["stock"], json!(count), "{mode}, {options:?}");
            };
            shop.runtime.block_on(async {
                futures_util::future::join_all((0..12).map(|_| ask())).await;
                keys.push(graph.key(&query, &GraphOptions::default()).await.unwrap());
            });
        }
        drop(bouncer);
        std::fs::remove_file(shop.postgres.socket_dir().join(".s.PGSQL.6432")).ok();
    }
    // The path is part of the key, and the way there is not.
    assert_eq!(keys[..2], keys[2..4]);
    assert_eq!(keys[..2], keys[4..]);
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn a_setting_that_cannot_be_had_is_refused_by_its_name() {
    let shop = Shop::open();
    for mode in ["session", "transaction"] {
        let bouncer = shop.postgres.pgbouncer(mode, DROPS);
        let mut config: Config = bouncer.conninfo().parse().unwrap();
        config.options("-c statement_timeout=5000 -c no_such_setting=1");
        let graph = stock(config.clone(), mode == "transaction");
        let query = GraphQuery::new("product").fields(["title"]);
        let refused = shop
            .runtime
            .block_on(graph.query(&query, &GraphOptions::default()))
            .unwrap_err();
        let GraphError::Resolver { source, .. } = &refused else {
            panic!("{refused}")
        };
        assert!(
            source.to_string().contains("no_such_setting"),
            "{mode}: {source}"
        );
        if mode == "session" {
            let mut source = shop.outbox.source(config, NoTls);
            let refused = shop.runtime.block_on(source.check()).unwrap_err();
            assert!(refused.to_string().contains("no_such_setting"), "{refused}");
        }
        drop(bouncer);
        std::fs::remove_file(shop.postgres.socket_dir().join(".s.PGSQL.6432")).ok();
    }
}

#[test]
fn a_session_that_others_share_is_left_as_it_was() {
    let shop = Shop::open();
    fill(&shop);
    shop.postgres
        .psql("ALTER ROLE postgres SET bytea_output = 'escape'");
    let bouncer = shop
        .postgres
        .pgbouncer("transaction", "default_pool_size = 1");
    let config: Config = bouncer.conninfo().parse().unwrap();
    let resolver = PostgresResolver::new(config.clone(), NoTls, mapping())
        .unwrap()
        .transaction_pooled();
    many(&shop, &Graph::builder(schema(), resolver).build());
    shop.runtime.block_on(async {
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        let rows = client.simple_query("SHOW bytea_output").await.unwrap();
        let tokio_postgres::SimpleQueryMessage::Row(row) = &rows[1] else {
            panic!("{rows:?}")
        };
        assert_eq!(row.get(0), Some("escape"));
    });
}
