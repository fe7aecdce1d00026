//! Where rows come from, and on whose behalf they are read, is part of the key.

use std::sync::Arc;

use harness::Postgres;
use mcache::{Cache, MemoryProvider};
use mcache_graph::{Entity, Graph, GraphError, GraphOptions, GraphQuery, Schema};
use mcache_postgres::{Mapping, PostgresResolver};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_postgres::{Config, NoTls};

use crate::support::runtime::runtime;

fn schema() -> Arc<Schema> {
    Arc::new(
        Schema::builder()
            .entity(Entity::new("Product").field("title"))
            .build()
            .unwrap(),
    )
}

fn resolver(postgres: &Postgres, tenant: &str) -> PostgresResolver {
    let mapping = Mapping::builder(schema())
        .default_schema(tenant)
        .build()
        .unwrap();
    PostgresResolver::new(postgres.conninfo().parse().unwrap(), NoTls, mapping.into()).unwrap()
}

fn cache(runtime: &Runtime) -> Cache {
    let build = Cache::builder_with(MemoryProvider::default())
        .caching(true)
        .build();
    runtime.block_on(build).unwrap()
}

fn ask(runtime: &Runtime, graph: &Graph, context: Value) -> Result<Vec<Value>, GraphError> {
    let query = GraphQuery::new("product")
        .fields(["title"])
        .context(context);
    let answer = runtime.block_on(graph.query(&query, &GraphOptions::cached()))?;
    Ok(answer.data)
}

#[test]
fn a_tenant_is_not_served_the_rows_of_another() {
    let (runtime, postgres) = (runtime(), Postgres::start());
    let cache = cache(&runtime);
    for tenant in ["a", "b"] {
        postgres.psql(&format!(
            "CREATE SCHEMA {tenant}; CREATE TABLE {tenant}.product (id text PRIMARY KEY, title text);
             INSERT INTO {tenant}.product VALUES ('1', 'of {tenant}')"
        ));
    }
    for _ in 0..2 {
        for tenant in ["a", "b"] {
            let graph = Graph::builder(schema(), resolver(&postgres, tenant))
                .cache(cache.clone())
                .build();
            let rows = ask(&runtime, &graph, Value::Null).unwrap();
            assert_eq!(rows, [json!({ "title": format!("of {tenant}") })]);
        }
    }
    // Another database, and a copy that says it is one.
    let restored = resolver(&postgres, "a").database("staging");
    let key = |resolver| {
        let graph = Graph::builder(schema(), resolver).build();
        let query = GraphQuery::new("product").fields(["title"]);
        runtime.block_on(async { graph.key(&query, &GraphOptions::default()).await.unwrap() })
    };
    assert_ne!(key(restored), key(resolver(&postgres, "a")));
    assert_eq!(key(resolver(&postgres, "a")), key(resolver(&postgres, "a")));
}

const POLICY: &str = "CREATE TABLE product (id text PRIMARY KEY, title text, owner text);
    INSERT INTO product VALUES ('1', 'of ann', 'ann'), ('2', 'of bob', 'bob');
    ALTER TABLE product ENABLE ROW LEVEL SECURITY; ALTER TABLE product FORCE ROW LEVEL SECURITY;
    CREATE POLICY own ON product USING (owner = current_setting('app.user', true));
    CREATE ROLE reader LOGIN; GRANT SELECT ON product TO reader";

fn reader(postgres: &Postgres) -> PostgresResolver {
    let mapping = Mapping::builder(schema()).build().unwrap();
    let conninfo = postgres.conninfo().replace("user=postgres", "user=reader");
    PostgresResolver::new(conninfo.parse().unwrap(), NoTls, mapping.into()).unwrap()
}

#[test]
fn what_a_session_variable_shows_to_one_is_not_served_to_another() {
    let (runtime, postgres) = (runtime(), Postgres::start());
    postgres.psql(POLICY);
    let cache = cache(&runtime);
    for _ in 0..2 {
        for user in ["ann", "bob"] {
            let resolver = reader(&postgres).setting("app.user", user).unwrap();
            let graph = Graph::builder(schema(), resolver)
                .cache(cache.clone())
                .build();
            let rows = ask(&runtime, &graph, Value::Null).unwrap();
            assert_eq!(rows, [json!({ "title": format!("of {user}") })]);
        }
    }
    assert!(
        reader(&postgres)
            .setting("app.user'; DROP TABLE product; --", "x")
            .is_err()
    );
    let hostile = reader(&postgres)
        .setting("app.user", r"'; DROP TABLE product; --\")
        .unwrap();
    let graph = Graph::builder(schema(), hostile).build();
    assert_eq!(
        ask(&runtime, &graph, Value::Null).unwrap(),
        Vec::<Value>::new()
    );
}

#[test]
fn a_context_that_names_who_asks_is_needed_and_obeyed() {
    let (runtime, postgres) = (runtime(), Postgres::start());
    postgres.psql(POLICY);
    let resolver = reader(&postgres)
        .setting_from_context("app.user", "user")
        .unwrap();
    runtime.block_on(resolver.check()).unwrap();
    let graph = Graph::builder(schema(), resolver)
        .cache(cache(&runtime))
        .build();
    for _ in 0..2 {
        for user in ["ann", "bob"] {
            let rows = ask(&runtime, &graph, json!({ "user": user })).unwrap();
            assert_eq!(rows, [json!({ "title": format!("of {user}") })]);
        }
    }
    for nobody in [
        Value::Null,
        json!({}),
        json!({ "user": null }),
        json!({ "user": ["ann"] }),
    ] {
        let refused = ask(&runtime, &graph, nobody).unwrap_err();
        let why = std::error::Error::source(&refused).unwrap().to_string();
        assert!(why.contains("no \"user\""), "{why}");
    }
}

#[test]
fn what_options_of_a_connection_show_is_not_served_to_another() {
    let (runtime, postgres) = (runtime(), Postgres::start());
    postgres.psql(POLICY);
    // Both may be the reader, and each has settings of its own.
    postgres.psql(
        "CREATE ROLE cid LOGIN IN ROLE reader; ALTER ROLE cid SET role = 'reader'; ALTER ROLE cid SET app.\"user\" = 'ann';
         CREATE ROLE dee LOGIN IN ROLE reader; ALTER ROLE dee SET role = 'reader'; ALTER ROLE dee SET app.\"user\" = 'bob'",
    );
    let cache = cache(&runtime);
    let by_options = |user: &str| ("reader", format!("-c app.user={user}"), user.to_owned());
    let by_role = |role, user: &str| (role, String::new(), user.to_owned());
    let readers = [
        by_options("ann"),
        by_options("bob"),
        by_role("cid", "ann"),
        by_role("dee", "bob"),
    ];
    for _ in 0..2 {
        for (role, options, user) in &readers {
            let mut config: Config = postgres.conninfo().parse().unwrap();
            config.user(*role).options(options);
            let mapping = Mapping::builder(schema()).build().unwrap();
            let resolver = PostgresResolver::new(config, NoTls, mapping.into()).unwrap();
            let graph = Graph::builder(schema(), resolver)
                .cache(cache.clone())
                .build();
            let rows = ask(&runtime, &graph, Value::Null).unwrap();
            assert_eq!(rows, [json!({ "title": format!("of {user}") })]);
        }
    }
}
