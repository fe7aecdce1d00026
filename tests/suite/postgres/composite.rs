//! Keys of several columns on a real PostgreSQL: the rows that are found, the changes that are captured, and what the
//! database says of the keys.

use std::sync::Arc;

use harness::{Postgres, wait};
use mcache::change::Invalidator;
use mcache::{Cache, MemoryProvider, Source};
use mcache_graph::{
    Dependency, Direction, Entity, Field, Graph, GraphOptions, GraphQuery, Pagination, Relation,
    Schema,
};
use mcache_postgres::{Mapping, Outbox, PostgresResolver, Table};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

use super::shop::connect;
use crate::support::runtime::runtime;

const TABLES: &str = r#"
    CREATE TABLE orders ("the tenant" varchar(20), number bigint, state text, parent_number bigint,
        PRIMARY KEY ("the tenant", number));
    CREATE TABLE line (tenant text, order_number int, position smallint, product uuid, weight int,
        PRIMARY KEY (tenant, order_number, position));
    CREATE TABLE product (tenant text, id uuid, name text, PRIMARY KEY (tenant, id));
    CREATE TABLE order_product (tenant text, order_number bigint, product uuid,
        PRIMARY KEY (tenant, order_number, product));
    INSERT INTO orders SELECT t, n, t || n, CASE n WHEN 2 THEN 1 END FROM unnest(ARRAY['a', 'a|1', 'b']) AS t, generate_series(1, 2) AS n;
    INSERT INTO product SELECT t, ('00000000-0000-0000-0000-00000000000' || n)::uuid, t || n
        FROM unnest(ARRAY['a', 'a|1', 'b']) AS t, generate_series(1, 2) AS n;
    INSERT INTO line SELECT o."the tenant", o.number, p, ('00000000-0000-0000-0000-00000000000' || p)::uuid, o.number * 10 - p
        FROM orders AS o, generate_series(1, 2) AS p;
    INSERT INTO line VALUES ('b', 1, 3, NULL, 5);
    INSERT INTO order_product SELECT tenant, order_number, product FROM line WHERE position = 1;
"#;

const IDS: [&str; 2] = [
    "00000000-0000-0000-0000-000000000001",
    "00000000-0000-0000-0000-000000000002",
];

fn schema() -> Arc<Schema> {
    let weight = Dependency::on("Line").keyed(["tenant", "order_number"], ["tenant", "number"]);
    let order = Entity::new("Order")
        .key(["tenant", "number"])
        .fields([Field::integer("number"), Field::integer("parent_number")])
        .field("state")
        .field(Field::computed("weight").depends_on(weight))
        .relation(
            Relation::has_many("lines", "Line", ["tenant", "order_number"]).ordered_by("weight"),
        )
        .relation(Relation::belongs_to(
            "parent",
            "Order",
            ["tenant", "parent_number"],
        ))
        .relation(Relation::linked_many("products", "Product", "OrderProduct"));
    let line = Entity::new("Line")
        .key(["tenant", "order_number", "position"])
        .fields(["order_number", "position", "weight"].map(Field::integer))
        .field(Field::uuid("product"))
        .relation(Relation::belongs_to(
            "order",
            "Order",
            ["tenant", "order_number"],
        ))
        .relation(Relation::belongs_to(
            "item",
            "Product",
            ["tenant", "product"],
        ));
    let product = Entity::new("Product")
        .key(["tenant", "id"])
        .field(Field::uuid("id"))
        .field("name")
        .relation(Relation::linked_many("orders", "Order", "OrderProduct"));
    let link = Entity::link(
        "OrderProduct",
        (["tenant", "order_number"], "Order"),
        (["tenant", "product"], "Product"),
    )
    .fields([Field::integer("order_number"), Field::uuid("product")]);
    let builder = Schema::builder();
    let builder = builder
        .entity(order)
        .entity(line)
        .entity(product)
        .entity(link);
    Arc::new(builder.build().unwrap())
}

struct World {
    runtime: Runtime,
    postgres: Postgres,
    mapping: Arc<Mapping>,
    graph: Graph,
}

impl World {
    fn new() -> Self {
        let postgres = Postgres::start();
        postgres.psql(TABLES);
        let orders = Table::named("orders").column("tenant", "the tenant");
        let mapping = Mapping::builder(schema()).table("Order", orders).build();
        let mapping = Arc::new(mapping.unwrap());
        let config = postgres.conninfo().parse().unwrap();
        let resolver = PostgresResolver::new(config, NoTls, mapping.clone()).unwrap();
        let resolver = resolver.compute(
            "Order",
            "weight",
            "SELECT keys.row_id, to_jsonb(sum(l.weight)) FROM keys
             JOIN line AS l ON l.tenant = keys.tenant AND l.order_number = keys.number GROUP BY 1",
        );
        let resolver = resolver.unwrap();
        let runtime = runtime();
        runtime.block_on(resolver.check()).unwrap();
        let graph = Graph::builder(mapping.schema().clone(), resolver).build();
        Self {
            runtime,
            postgres,
            mapping,
            graph,
        }
    }

    fn ask(&self, query: &GraphQuery) -> Vec<Value> {
        let options = GraphOptions::default();
        let answer = self.graph.query(query, &options);
        self.runtime.block_on(answer).unwrap().data
    }
}

fn order(tenant: &str, number: i64) -> GraphQuery {
    GraphQuery::new("order").filters(json!({ "tenant": tenant, "number": number }))
}

#[test]
fn rows_are_found_by_all_columns_of_their_keys() {
    let world = World::new();
    let fields = [
        "state",
        "weight",
        "lines.weight",
        "lines.item.name",
        "parent.state",
        "products.name",
    ];
    assert_eq!(
        world.ask(&order("a|1", 2).fields(fields)),
        [
            json!({ "state": "a|12", "weight": 37, "parent": { "state": "a|11" }, "products": [{ "name": "a|11" }],
            "lines": [{ "weight": 18, "item": { "name": "a|12" } }, { "weight": 19, "item": { "name": "a|11" } }] })
        ]
    );
    let orphan = GraphQuery::new("line").fields(["item.name", "order.state"]);
    let orphan = orphan.filters(json!({ "tenant": "b", "order_number": 1, "position": 3 }));
    assert_eq!(
        world.ask(&orphan),
        [json!({ "item": null, "order": { "state": "b1" } })]
    );
    let back = GraphQuery::new("product").fields(["orders.state"]);
    let back = back.filters(json!({ "tenant": "a", "id": IDS[0].to_uppercase() }));
    assert_eq!(
        world.ask(&back),
        [json!({ "orders": [{ "state": "a1" }, { "state": "a2" }] })]
    );
    for (filters, states) in [
        (json!({ "lines": { "weight": 5 } }), vec!["b1"]),
        (json!({ "products": { "name": "a1" } }), vec!["a1", "a2"]),
        (json!({ "parent": { "state": "a|11" } }), vec!["a|12"]),
        (
            json!({ "$not": { "products": { "name": ["a1", "a|11"] } } }),
            vec!["b1", "b2"],
        ),
        (
            json!({ "$or": [{ "tenant": "a", "number": 2 }, { "tenant": "b", "number": 1 }] }),
            vec!["a2", "b1"],
        ),
        (
            json!({ "tenant": ["a", "b"], "number": [2, 9] }),
            vec!["a2", "b2"],
        ),
    ] {
        let query = GraphQuery::new("order")
            .fields(["state"])
            .filters(filters.clone());
        let states: Vec<Value> = states
            .into_iter()
            .map(|state| json!({ "state": state }))
            .collect();
        assert_eq!(world.ask(&query), states, "{filters}");
    }
    // Pages do not overlap: equal rows are sorted by all of the key.
    let page = |skip| {
        let pagination = Pagination::new()
            .order("parent_number", Direction::Asc)
            .skip(skip)
            .take(2);
        let query = GraphQuery::new("order")
            .fields(["state"])
            .pagination(pagination);
        world.ask(&query)
    };
    let pages: Vec<Value> = [0, 2, 4].into_iter().flat_map(page).collect();
    let states: Vec<&str> = pages
        .iter()
        .filter_map(|row| row["state"].as_str())
        .collect();
    assert_eq!(states, ["a2", "a|12", "b2", "a1", "a|11", "b1"]);

    let each = |fields: &[&str], keys: Vec<Value>, query: GraphQuery| {
        let options = GraphOptions::default();
        let results = world.graph.query_each(&query, fields, keys, &options);
        let results = world.runtime.block_on(results).unwrap();
        results
            .into_iter()
            .map(|result| json!(result.data))
            .collect::<Vec<_>>()
    };
    let state = GraphQuery::new("order").fields(["state"]);
    // Among them one that no column can hold, and one that only a number beyond 64 bits names.
    let keys = vec![
        json!(["b", 1]),
        json!(["a|1", 2]),
        json!(["a\0", 1]),
        json!(["a", u64::MAX]),
    ];
    let b1 = json!([{ "state": "b1" }]);
    assert_eq!(
        each(&["tenant", "number"], keys, state.clone()),
        [b1, json!([{ "state": "a|12" }]), json!([]), json!([])]
    );
    let lines = GraphQuery::new("line").fields(["weight"]);
    assert_eq!(
        each(&["order_number", "tenant"], vec![json!([1, "a"])], lines),
        [json!([{ "weight": 9 }, { "weight": 8 }])]
    );
}

/// A cached graph whose entries are cleared by what the database captures.
struct Cached {
    graph: Graph,
    _invalidator: Invalidator,
}

impl Cached {
    fn new(world: &World) -> Self {
        let config: tokio_postgres::Config = world.postgres.conninfo().parse().unwrap();
        let outbox = Outbox::new(world.mapping.clone(), "test");
        let (cache, _inside) = (
            world.runtime.block_on(async {
                outbox.install_with(config.clone(), NoTls).await.unwrap();
                let cache = Cache::builder_with(MemoryProvider::default()).caching(true);
                cache.build().await.unwrap()
            }),
            world.runtime.enter(),
        );
        world
            .postgres
            .psql("UPDATE mcache.position SET clear = false");
        let resolver = PostgresResolver::new(config.clone(), NoTls, world.mapping.clone()).unwrap();
        let graph = Graph::builder(world.mapping.schema().clone(), resolver);
        let graph = graph.cache(cache.clone()).build();
        let source = outbox.source(config, NoTls);
        let invalidator = Invalidator::builder(source, graph.change_tags());
        Self {
            _invalidator: invalidator.targets(cache.invalidation_targets()).spawn(),
            graph,
        }
    }

    fn serve(&self, world: &World, query: &GraphQuery) -> (Source, Value) {
        let options = GraphOptions::cached();
        let served = self.graph.serve(query, &options);
        let served = world.runtime.block_on(served).unwrap();
        (served.source, json!(served.value.data))
    }

    /// Makes a change, and sees that it clears these and leaves those.
    fn changes(&self, world: &World, sql: &str, cleared: &[GraphQuery], kept: &[GraphQuery]) {
        for query in cleared.iter().chain(kept) {
            self.serve(world, query);
            assert_eq!(self.serve(world, query).0, Source::Hit, "{query:?}");
        }
        world.postgres.psql(sql);
        for query in cleared {
            wait::until("what a change concerns is cleared", || {
                self.serve(world, query).0 == Source::Loaded
            });
        }
        for query in kept {
            assert_eq!(self.serve(world, query).0, Source::Hit, "{sql}: {query:?}");
        }
        for query in cleared.iter().chain(kept) {
            assert_eq!(
                self.serve(world, query).1,
                json!(world.ask(query)),
                "{sql}: {query:?}"
            );
        }
    }
}

#[test]
fn a_change_clears_by_all_columns_of_the_key_old_and_new() {
    let world = World::new();
    let cached = Cached::new(&world);
    let state = |tenant: &str, number| order(tenant, number).fields(["state"]);
    let lines = |tenant: &str, number| order(tenant, number).fields(["lines.weight"]);
    let products = |tenant: &str, number| order(tenant, number).fields(["products.name"]);
    cached.changes(
        &world,
        r#"UPDATE orders SET state = 'paid' WHERE "the tenant" = 'a' AND number = 1"#,
        &[state("a", 1)],
        &[state("a", 2), state("a|1", 1), state("b", 1), lines("a", 1)],
    );
    cached.changes(
        &world,
        "UPDATE line SET weight = 100 WHERE tenant = 'a|1' AND order_number = 1 AND position = 2",
        &[lines("a|1", 1)],
        &[
            lines("a", 1),
            lines("a|1", 2),
            lines("b", 1),
            state("a|1", 1),
        ],
    );
    // A part of the key changes: what was there is gone, and what was not is there.
    cached.changes(
        &world,
        r#"UPDATE orders SET "the tenant" = 'c' WHERE "the tenant" = 'a' AND number = 1"#,
        &[state("a", 1), state("c", 1)],
        &[state("a", 2), state("b", 1), state("c", 2)],
    );
    cached.changes(
        &world,
        "UPDATE line SET order_number = 2, position = 7 WHERE tenant = 'b' AND position = 3",
        &[lines("b", 1), lines("b", 2)],
        &[lines("a", 2), lines("a|1", 2)],
    );
    // A link is moved from one order to another, made and taken away.
    cached.changes(
        &world,
        &format!(
            "UPDATE order_product SET product = '{}' WHERE tenant = 'b' AND order_number = 1",
            IDS[1]
        ),
        &[products("b", 1)],
        &[products("b", 2), products("a|1", 1)],
    );
    cached.changes(
        &world,
        &format!("INSERT INTO order_product VALUES ('a|1', 2, '{}'); DELETE FROM order_product WHERE tenant = 'b' AND order_number = 2", IDS[1]),
        &[products("a|1", 2), products("b", 2)],
        &[products("b", 1), products("a|1", 1), products("a", 2)],
    );
    let named = GraphQuery::new("order")
        .fields(["state"])
        .filters(json!({ "products": { "name": "b1" } }));
    cached.changes(
        &world,
        &format!(
            "UPDATE product SET name = 'b1' WHERE tenant = 'a|1' AND id = '{}'",
            IDS[1]
        ),
        &[named, products("a|1", 2)],
        &[products("b", 1)],
    );
}

#[test]
fn the_database_says_which_keys_it_does_not_keep() {
    let postgres = Postgres::start();
    postgres.psql(
        "CREATE TABLE kept (a text NOT NULL, b int NOT NULL, UNIQUE (b, a));
         CREATE TABLE narrower (a text PRIMARY KEY, b int NOT NULL);
         CREATE TABLE wider (a text, b int, c int, PRIMARY KEY (a, b, c));
         CREATE TABLE partial (a text NOT NULL, b int NOT NULL);
         CREATE UNIQUE INDEX ON partial (a, b) WHERE b > 0;
         CREATE TABLE expression (a text NOT NULL, b int NOT NULL);
         CREATE UNIQUE INDEX ON expression (lower(a), b);
         CREATE TABLE including (a text NOT NULL, b int NOT NULL, c int);
         CREATE UNIQUE INDEX ON including (a, b) INCLUDE (c);
         CREATE TABLE nullable (a text NOT NULL, b int, UNIQUE (a, b));
         CREATE TABLE parts (a text, b int, PRIMARY KEY (a, b)) PARTITION BY LIST (a);
         CREATE TABLE none (a text, b int)",
    );
    let names = [
        "Kept",
        "Narrower",
        "Wider",
        "Partial",
        "Expression",
        "Including",
        "Nullable",
        "Parts",
        "None",
    ];
    let builder = names.into_iter().fold(Schema::builder(), |builder, name| {
        builder.entity(Entity::new(name).key(["a", "b"]).field(Field::integer("b")))
    });
    let mapping = Mapping::builder(Arc::new(builder.build().unwrap()))
        .build()
        .unwrap();
    let outbox = Outbox::new(mapping.into(), "test");
    let status = runtime().block_on(async {
        let mut client = connect(&postgres).await;
        outbox.install(&mut client).await.unwrap();
        outbox.status(&client).await.unwrap()
    });
    let weak: Vec<(&str, bool, Vec<&str>)> = status
        .weak_keys
        .iter()
        .map(|key| {
            let nullable = key.nullable.iter().map(String::as_str).collect();
            (&*key.entity, key.is_unique, nullable)
        })
        .collect();
    assert_eq!(
        weak,
        [
            ("Wider", false, vec![]),
            ("Partial", false, vec![]),
            ("Expression", false, vec![]),
            ("Nullable", true, vec!["b"]),
            ("None", false, vec!["a", "b"]),
        ]
    );
}

#[test]
fn a_table_without_a_key_is_read_right_and_cleared_widely() {
    let postgres = Postgres::start();
    postgres.psql(
        "CREATE TABLE log (host text NOT NULL, at int NOT NULL, said text);
         INSERT INTO log VALUES ('a', 1, 'x'), ('a', 1, 'y'), ('a', 2, 'z')",
    );
    let log = Entity::new("Log")
        .key(["host", "at"])
        .field(Field::integer("at"))
        .field("said");
    let schema = Arc::new(Schema::builder().entity(log).build().unwrap());
    let mapping = Arc::new(Mapping::builder(schema.clone()).build().unwrap());
    let config: tokio_postgres::Config = postgres.conninfo().parse().unwrap();
    let resolver = PostgresResolver::new(config, NoTls, mapping.clone()).unwrap();
    let world = World {
        runtime: runtime(),
        graph: Graph::builder(schema, resolver).build(),
        postgres,
        mapping,
    };
    let cached = Cached::new(&world);
    let at = |at: i64| {
        GraphQuery::new("log")
            .fields(["host"])
            .filters(json!({ "host": "a", "at": at }))
    };
    let said = |word: &str| {
        GraphQuery::new("log")
            .fields(["said"])
            .filters(json!({ "host": "a", "at": 1, "said": word }))
    };
    assert_eq!(world.ask(&at(1)).len(), 2);
    cached.changes(
        &world,
        "UPDATE log SET said = 'w' WHERE said = 'x'",
        &[said("x"), said("w")],
        &[at(2)],
    );
    // One of two is taken away, one is made two, one of two becomes another: none shows a field that changed.
    cached.changes(&world, "DELETE FROM log WHERE said = 'w'", &[at(1)], &[]);
    cached.changes(
        &world,
        "INSERT INTO log VALUES ('a', 1, 'v'), ('a', 1, 'u')",
        &[at(1)],
        &[],
    );
    cached.changes(
        &world,
        "UPDATE log SET at = 2, said = 'q' WHERE said IN ('v', 'u')",
        &[at(1), at(2)],
        &[],
    );
}
