//! The PostgreSQL resolver answers every query as the resolver in memory does, in few statements.

mod draws;

use std::sync::Arc;

use harness::{Postgres, Seed, wait};
use mcache_graph::{
    Direction, Entity, Field, FieldType, Graph, GraphOptions, GraphQuery, GraphResult,
    MemoryResolver, Pagination, Schema,
};
use mcache_postgres::{Mapping, PostgresError, PostgresResolver, Table};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use crate::support::runtime::runtime;
use draws::{TABLES, fill, query, resolver, schema};

#[test]
fn it_equals_the_resolver_in_memory_on_random_data_and_queries() {
    let mut seed = Seed::draw("it_equals_the_resolver_in_memory_on_random_data_and_queries");
    let postgres = Postgres::start();
    postgres.psql(TABLES);
    let memory = Arc::new(MemoryResolver::new(schema()));
    fill(&mut seed, &postgres, &memory);
    let resolver = resolver(&postgres);
    let runtime = runtime();
    runtime.block_on(resolver.check()).unwrap();
    let expected = Graph::builder(schema(), memory).build();
    let actual = Graph::builder(schema(), resolver).build();
    let (mut rows, mut pages) = (0, 0);
    for n in 0..1_500 {
        let query = query(&mut seed, &schema());
        let options = GraphOptions::default();
        let ask = |graph: &Graph| runtime.block_on(graph.query(&query, &options));
        let expected: GraphResult = ask(&expected).unwrap();
        let actual = ask(&actual).unwrap_or_else(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            panic!(
                "query {n}: {error}: {cause:?}\n{}",
                serde_json::to_string(&query).unwrap()
            )
        });
        assert_eq!(
            actual,
            expected,
            "query {n}: {}",
            serde_json::to_string(&query).unwrap()
        );
        rows += expected.data.len();
        pages += usize::from(expected.metadata.is_some());
    }
    assert!(
        rows > 3_000 && pages > 300,
        "the queries find something: {rows} rows, {pages} pages"
    );
}

#[test]
fn a_query_costs_one_statement_a_level() {
    let postgres = Postgres::start_with(&[("fsync", "off"), ("log_statement", "all")]);
    postgres.psql(TABLES);
    postgres.psql(
        "INSERT INTO brand VALUES (1, 'x');
         INSERT INTO \"Items; --\" (id, title, brand_id) SELECT 'i' || i, 't', 1 FROM generate_series(1, 700) AS i;
         INSERT INTO part (id, item_id) SELECT gen_random_uuid(), 'i' || (i % 700) FROM generate_series(1, 2100) AS i",
    );
    let graph = Graph::builder(schema(), resolver(&postgres)).build();
    let query = GraphQuery::new("brand").fields(["name", "items.title", "items.parts.id"]);
    let result = runtime()
        .block_on(graph.query(&query, &GraphOptions::default()))
        .unwrap();
    assert_eq!(result.data[0]["items"].as_array().unwrap().len(), 700);
    assert_eq!(statements(&postgres), 3);

    // However many are asked for one by one.
    let query = GraphQuery::new("item").fields(["title", "parts.id", "brand.name"]);
    let ids = (1..=100).map(|number| format!("i{number}"));
    let options = GraphOptions::default();
    let results = runtime().block_on(graph.query_each(&query, "id", ids, &options));
    let results = results.unwrap();
    assert_eq!(results.len(), 100);
    for result in results {
        assert_eq!(result.data[0]["parts"].as_array().unwrap().len(), 3);
        assert_eq!(result.data[0]["brand"]["name"], "x");
    }
    assert_eq!(statements(&postgres), 3 + 3);
}

/// How many statements the server was given with parameters.
fn statements(postgres: &Postgres) -> usize {
    let log = postgres.log();
    log.lines().filter(|line| line.contains("execute")).count()
}

#[test]
fn the_connection_used_last_is_used_next() {
    let postgres = Postgres::start();
    postgres.psql(TABLES);
    let graph = Graph::builder(schema(), resolver(&postgres)).build();
    let runtime = runtime();
    let query = GraphQuery::new("brand").fields(["name"]);
    let options = GraphOptions::default();
    let crowd = (0..8).map(|_| graph.query(&query, &options));
    for result in runtime.block_on(futures_util::future::join_all(crowd)) {
        result.unwrap();
    }
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mcache'";
    assert_eq!(postgres.psql(count), "8");
    let since = postgres.psql("SELECT clock_timestamp()");
    for _ in 0..20 {
        runtime.block_on(graph.query(&query, &options)).unwrap();
    }
    let busy = postgres.psql(&format!("{count} AND query_start > '{since}'"));
    assert_eq!(busy, "1", "statements are prepared on each connection anew");
}

#[test]
fn values_come_back_as_they_are() {
    let postgres = Postgres::start();
    postgres.psql(
        "CREATE DOMAIN cents AS bigint;
         CREATE TABLE thing (
            id int PRIMARY KEY, exact numeric, big bigint, double float8, single float4, money cents, yes bool,
            day date, local timestamp, instant timestamptz, doc json, list text[], grid int[], line text, one char(4));
         INSERT INTO thing VALUES
            (1, 12345678901234567890.123456789, 9223372036854775807, 0.1, 0.1, 5, true, '2026-01-31',
             '2026-01-31 12:00:00.5', '2026-01-31 12:00:00+02', '{\"b\": 1, \"a\": [1.5, null]}',
             '{\"a,b\",NULL,\"\"}', '{{1,2},{3,4}}', E'two\\nlines', 'ab'),
            (2, 'NaN', -1, 'Infinity', 1e-5, NULL, NULL, 'infinity', '0001-01-01', '-infinity', 'null', NULL, '{}', '', NULL),
            (3, 10.50, 0, 1e300, 3, 0, false, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    );
    let schema = Schema::builder()
        .entity(
            Entity::new("Thing")
                .id_type(FieldType::Integer)
                .field(Field::number("exact"))
                .field(Field::integer("big"))
                .fields([
                    Field::number("double"),
                    Field::number("single"),
                    Field::integer("money"),
                ])
                .field(Field::boolean("yes"))
                .fields([
                    Field::timestamp("day"),
                    Field::timestamp("local"),
                    Field::timestamp("instant"),
                ])
                .fields([Field::json("doc"), Field::json("list"), Field::json("grid")])
                .fields(["line", "one"]),
        )
        .build();
    let schema = Arc::new(schema.unwrap());
    let mapping = Arc::new(Mapping::builder(schema.clone()).build().unwrap());
    let config = postgres.conninfo().parse().unwrap();
    let graph = Graph::builder(
        schema,
        PostgresResolver::new(config, NoTls, mapping).unwrap(),
    )
    .build();
    let result = runtime()
        .block_on(graph.query(
            &GraphQuery::new("thing").fields(["*"]),
            &GraphOptions::default(),
        ))
        .unwrap();
    assert_eq!(
        result.data,
        [
            json!({
                "id": 1, "exact": "12345678901234567890.123456789", "big": i64::MAX, "double": 0.1, "single": 0.1,
                "money": 5, "yes": true, "day": "2026-01-31T00:00:00.000000Z",
                "local": "2026-01-31T12:00:00.500000Z", "instant": "2026-01-31T10:00:00.000000Z",
                "doc": { "b": 1, "a": [1.5, null] }, "list": ["a,b", null, ""], "grid": [[1, 2], [3, 4]],
                "line": "two\nlines", "one": "ab",
            }),
            json!({
                "id": 2, "exact": "NaN", "big": -1, "double": "Infinity", "single": 1e-5, "money": null, "yes": null,
                "day": "infinity", "local": "0001-01-01T00:00:00.000000Z", "instant": "-infinity", "doc": null,
                "list": null, "grid": [], "line": "", "one": null,
            }),
            json!({
                "id": 3, "exact": 10.5, "big": 0, "double": 1e300, "single": 3, "money": 0, "yes": false, "day": null,
                "local": null, "instant": null, "doc": null, "list": null, "grid": null, "line": null, "one": null,
            }),
        ]
    );
}

#[test]
fn nothing_a_caller_sends_becomes_sql() {
    let postgres = Postgres::start();
    postgres.psql(TABLES);
    postgres.psql("INSERT INTO tag (id, label) VALUES ('t1', 'kept')");
    let graph = Graph::builder(schema(), resolver(&postgres)).build();
    let runtime = runtime();
    let ask = |query: GraphQuery| runtime.block_on(graph.query(&query, &GraphOptions::default()));
    let attacks = [
        "'; DROP TABLE tag; --",
        "\"; DROP TABLE tag; --",
        "label\" = '' OR 1=1; --",
        "\\'; DROP TABLE tag; --",
        "$1",
        "t0.label",
        "{\"}",
        "a\0b",
        "' OR 'x'='x",
    ];
    for attack in attacks {
        // As a name it is unknown.
        for query in [
            GraphQuery::new(attack).fields(["id"]),
            GraphQuery::new("tag").fields([attack]),
            GraphQuery::new("tag").fields([format!("items.{attack}")]),
            GraphQuery::new("tag")
                .fields(["id"])
                .filters(json!({ attack: "x" })),
            GraphQuery::new("tag")
                .fields(["id"])
                .filters(json!({ "label": { attack: "x" } })),
            GraphQuery::new("tag")
                .fields(["id"])
                .pagination(Pagination::new().order(attack, Direction::Asc)),
        ] {
            assert!(ask(query).is_err(), "{attack}");
        }
        // As a value it is a value.
        for condition in [
            json!(attack),
            json!([attack]),
            json!({ "$like": attack }),
            json!({ "$ilike": attack }),
        ] {
            let filters = json!({ "label": condition });
            let found = ask(GraphQuery::new("tag").fields(["id"]).filters(filters)).unwrap();
            assert_eq!(found.data, Vec::<Value>::new(), "{attack}");
        }
        let others = json!({ "label": { "$ne": attack }, "id": { "$nin": [attack] } });
        let found = ask(GraphQuery::new("tag").fields(["label"]).filters(others)).unwrap();
        assert_eq!(found.data, [json!({ "label": "kept" })], "{attack}");
        // Where no text fits at all it is equal to nothing.
        let by_id = json!({ "id": attack });
        let found = ask(GraphQuery::new("part").fields(["id"]).filters(by_id)).unwrap();
        assert_eq!(found.data, Vec::<Value>::new(), "{attack}");
    }
    let beyond = json!({ "rank": { "$lt": u64::MAX } });
    ask(GraphQuery::new("item").fields(["id"]).filters(beyond)).unwrap();
    assert_eq!(postgres.psql("SELECT label FROM tag"), "kept");
}

#[test]
fn shapes_of_queries_that_somebody_makes_up_do_not_pile_up() {
    let postgres = Postgres::start();
    // What a connection has prepared, seen through that connection: there is only one.
    let schema = Schema::builder()
        .entity(Entity::new("Prepared").field("statement"))
        .build();
    let schema = Arc::new(schema.unwrap());
    let view = Table::named("pg_prepared_statements")
        .in_schema("pg_catalog")
        .column("id", "name");
    let mapping = Mapping::builder(schema.clone())
        .table("Prepared", view)
        .build()
        .unwrap();
    let config = postgres.conninfo().parse().unwrap();
    let resolver = PostgresResolver::with_connections(config, NoTls, mapping.into(), 1).unwrap();
    let graph = Graph::builder(schema, resolver).build();
    let runtime = runtime();
    let mut most = 0;
    for n in 0..1_000_usize {
        let any: Vec<Value> = (0..n % 40)
            .map(|i| json!({ "statement": i.to_string() }))
            .collect();
        let filters = json!({ "$or": [{ "$or": any }, { "id": { "$ne": null } }], "$and": vec![json!({}); n / 40] });
        let query = GraphQuery::new("prepared").fields(["id"]).filters(filters);
        let found = runtime
            .block_on(graph.query(&query, &GraphOptions::default()))
            .unwrap();
        most = most.max(found.data.len());
    }
    assert!((100..600).contains(&most), "{most} statements were kept");
}

#[test]
fn a_restart_of_postgresql_costs_an_error_at_most_while_it_lasts() {
    let mut postgres = Postgres::start();
    postgres.psql(TABLES);
    let graph = Graph::builder(schema(), resolver(&postgres)).build();
    let runtime = runtime();
    let query = GraphQuery::new("tag").fields(["id"]);
    let ask = || runtime.block_on(graph.query(&query, &GraphOptions::default()));
    ask().unwrap();
    postgres.stop();
    let error = ask().unwrap_err();
    assert!(std::error::Error::source(&error).is_some(), "{error}");
    postgres.start_again();
    ask().unwrap();
    postgres.restart();
    ask().unwrap();
}

#[test]
fn a_mapping_that_does_not_fit_is_named() {
    let postgres = Postgres::start();
    postgres.psql(TABLES);
    postgres.psql("ALTER TABLE part DROP COLUMN rank");
    let error = runtime().block_on(resolver(&postgres).check()).unwrap_err();
    assert!(
        matches!(&error, PostgresError::Mismatch { entity, .. } if &**entity == "Part"),
        "{error}"
    );
    assert!(error.to_string().contains("rank"), "{error}");
}

#[test]
fn computed_fields_are_made_once_a_level() {
    let postgres = Postgres::start_with(&[("fsync", "off"), ("log_statement", "all")]);
    postgres.psql(
        "CREATE TABLE variant (id text PRIMARY KEY, sku text);
         CREATE TABLE level (variant_id text, stocked int);
         CREATE TABLE price (variant_id text, currency text, amount numeric);
         INSERT INTO variant VALUES ('v1', 'a'), ('v2', 'b'), ('v3', 'c');
         INSERT INTO level VALUES ('v1', 3), ('v1', 4), ('v2', 1);
         INSERT INTO price VALUES ('v1', 'eur', 9.90), ('v1', 'usd', 11), ('v2', 'usd', 12)",
    );
    let schema = Schema::builder()
        .entity(
            Entity::new("Variant")
                .field("sku")
                .field(Field::computed("stock"))
                .field(Field::computed("price")),
        )
        .build();
    let schema = Arc::new(schema.unwrap());
    let mapping = Arc::new(Mapping::builder(schema.clone()).build().unwrap());
    let resolver = PostgresResolver::new(postgres.conninfo().parse().unwrap(), NoTls, mapping)
        .unwrap()
        .compute(
            "Variant",
            "stock",
            "SELECT variant_id, to_jsonb(sum(stocked)) FROM level, input WHERE variant_id = ANY (input.ids) GROUP BY 1",
        )
        .unwrap()
        .compute(
            "Variant",
            "price",
            "SELECT variant_id, jsonb_build_object('amount', amount, 'locale', input.locale) FROM price, input
             WHERE variant_id = ANY (input.ids) AND currency = input.context->>'currency_code'",
        )
        .unwrap();
    let runtime = runtime();
    runtime.block_on(resolver.check()).unwrap();
    let executed = || postgres.log().matches("execute").count();
    let checked = executed();
    let graph = Graph::builder(schema, resolver).build();
    let query = GraphQuery::new("variant")
        .fields(["sku", "stock", "price"])
        .context(json!({ "currency_code": "eur" }));
    let result = runtime
        .block_on(graph.query(&query, &GraphOptions::default()))
        .unwrap();
    assert_eq!(
        result.data,
        [
            json!({ "sku": "a", "stock": 7, "price": { "amount": 9.9, "locale": null } }),
            json!({ "sku": "b", "stock": 1, "price": null }),
            json!({ "sku": "c", "stock": null, "price": null }),
        ]
    );
    wait::until("the statements are logged", || executed() >= checked + 3);
    assert_eq!(executed(), checked + 3);
}
