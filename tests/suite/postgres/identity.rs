//! Rows are the ones PostgreSQL means, for keys of each type: in its order, with its equality.

use std::sync::Arc;

use harness::Postgres;
use mcache_graph::{
    Direction, Entity, Field, Graph, GraphOptions, GraphQuery, Pagination, Relation, Schema,
};
use mcache_postgres::{Mapping, PostgresError, PostgresResolver};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

use crate::support::runtime::runtime;

struct World {
    runtime: Runtime,
    postgres: Postgres,
    graph: Graph,
}

fn schema<const N: usize>(entities: [Entity; N]) -> Arc<Schema> {
    let builder = entities
        .into_iter()
        .fold(Schema::builder(), |builder, entity| builder.entity(entity));
    Arc::new(builder.build().unwrap())
}

fn resolver(postgres: &Postgres, schema: &Arc<Schema>) -> PostgresResolver {
    let mapping = Mapping::builder(schema.clone()).build().unwrap();
    PostgresResolver::new(postgres.conninfo().parse().unwrap(), NoTls, mapping.into()).unwrap()
}

impl World {
    fn new<const N: usize>(sql: &str, entities: [Entity; N]) -> Self {
        let postgres = Postgres::start();
        postgres.psql(sql);
        let schema = schema(entities);
        let runtime = runtime();
        let graph = Graph::builder(schema.clone(), resolver(&postgres, &schema)).build();
        Self {
            runtime,
            postgres,
            graph,
        }
    }

    fn ask(&self, query: &GraphQuery) -> Vec<Value> {
        let answer = self
            .runtime
            .block_on(self.graph.query(query, &GraphOptions::default()));
        answer.unwrap().data
    }
}

#[test]
fn relations_by_keys_beyond_doubles_and_64_bits_find_their_own_rows() {
    for kind in [Field::number("author_id"), Field::integer("author_id")] {
        let id = kind.kind();
        let world = World::new(
            "CREATE TABLE author (id numeric(30) PRIMARY KEY, name text);
             CREATE TABLE post (id numeric(30) PRIMARY KEY, author_id numeric(30), title text);
             INSERT INTO author VALUES (9007199254740992, 'Ann'), (9007199254740993, 'Bob'),
               (123456789012345678901234567890, 'Cid'), (123456789012345678901234567891, 'Dee');
             INSERT INTO post SELECT id + 5, id, 'of ' || name FROM author",
            [
                Entity::new("Author")
                    .id_type(id)
                    .field("name")
                    .relation(Relation::has_many("posts", "Post", "author_id")),
                Entity::new("Post")
                    .id_type(id)
                    .field("title")
                    .field(kind)
                    .relation(Relation::belongs_to("author", "Author", "author_id")),
            ],
        );
        let authors = world.ask(&GraphQuery::new("author").fields(["name", "posts.title"]));
        let pairs: Vec<String> = authors
            .iter()
            .map(|a| format!("{} {}", a["name"], a["posts"]))
            .collect();
        assert_eq!(
            pairs,
            ["Ann", "Bob", "Cid", "Dee"]
                .map(|name| format!("\"{name}\" [{{\"title\":\"of {name}\"}}]"))
        );
        let one = GraphQuery::new("post")
            .fields(["title", "author.name"])
            .filters(json!({ "author_id": "123456789012345678901234567891" }));
        assert_eq!(
            world.ask(&one),
            [json!({ "title": "of Dee", "author": { "name": "Dee" } })]
        );
        let each = world.runtime.block_on(world.graph.query_each(
            &GraphQuery::new("author").fields(["name"]),
            "id",
            [
                json!(9_007_199_254_740_993_i64),
                json!("123456789012345678901234567890"),
                json!(9_007_199_254_740_992_i64),
            ],
            &GraphOptions::default(),
        ));
        let names: Vec<Value> = each
            .unwrap()
            .into_iter()
            .map(|result| result.data[0]["name"].clone())
            .collect();
        assert_eq!(names, ["Bob", "Cid", "Ann"]);
    }
}

#[test]
fn related_rows_come_in_the_order_of_the_database() {
    let world = World::new(
        "CREATE TYPE size AS ENUM ('small', 'large', 'huge');
         CREATE COLLATION by_icu (provider = icu, locale = 'en');
         CREATE TABLE shop (id text PRIMARY KEY);
         CREATE TABLE item (id text PRIMARY KEY, shop_id text, size size, weight numeric, label text COLLATE by_icu,
                            sold_at timestamptz);
         INSERT INTO shop VALUES ('s');
         INSERT INTO item VALUES
           ('1', 's', 'huge', 9007199254740993, 'b', 'infinity'), ('2', 's', 'small', 9007199254740992, 'A', '0044-03-15 BC'),
           ('3', 's', 'large', 'NaN', 'a', '-infinity'), ('4', 's', NULL, '-Infinity', 'B', '2026-01-01')",
        [
            Entity::new("Shop")
                .relation(Relation::has_many("by_size", "Item", "shop_id").ordered_by("size"))
                .relation(Relation::has_many("by_weight", "Item", "shop_id").ordered_by("weight"))
                .relation(Relation::has_many("by_label", "Item", "shop_id").ordered_by("label"))
                .relation(Relation::has_many("by_time", "Item", "shop_id").ordered_by("sold_at"))
                .relation(Relation::has_one("smallest", "Item", "shop_id").ordered_by("size")),
            Entity::new("Item")
                .fields(["shop_id", "size", "label"])
                .field(Field::number("weight"))
                .field(Field::timestamp("sold_at")),
        ],
    );
    let query = GraphQuery::new("shop").fields([
        "by_size.id",
        "by_weight.id",
        "by_label.id",
        "by_time.id",
        "by_time.sold_at",
        "smallest.id",
    ]);
    let shop = world.ask(&query).remove(0);
    let order = |relation: &str| {
        let items = shop[relation].as_array().unwrap();
        items
            .iter()
            .map(|item| item["id"].as_str().unwrap())
            .collect::<String>()
    };
    assert_eq!(order("by_size"), "2314");
    assert_eq!(order("by_weight"), "4213");
    assert_eq!(order("by_label"), "3214");
    assert_eq!(order("by_time"), "3241");
    assert_eq!(shop["smallest"]["id"], "2");
    assert_eq!(
        shop["by_time"][1]["sold_at"],
        "0044-03-15T00:00:00.000000Z BC"
    );
    // The same in a list, and in comparisons.
    let sorted = GraphQuery::new("item")
        .fields(["id"])
        .filters(json!({ "size": { "$gte": "large" } }))
        .pagination(Pagination::new().order("size", Direction::Desc));
    let none = GraphQuery::new("item")
        .fields(["id"])
        .filters(json!({ "size": "no label" }));
    assert_eq!(world.ask(&none), Vec::<Value>::new());
    assert_eq!(
        world.ask(&sorted),
        [json!({ "id": "1" }), json!({ "id": "3" })]
    );
}

#[test]
fn columns_with_an_equality_of_their_own_compare_as_the_database_does() {
    let world = World::new(
        "CREATE EXTENSION citext; CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE person (id text PRIMARY KEY, email citext, name text COLLATE ci, code char(5), address inet, span interval);
         INSERT INTO person VALUES ('1', 'Ann@X.org', 'ANN', 'ab', '10.0.0.1', '24:00:00'), ('2', 'b@x.org', 'Bob', 'c', '::1', '2 days')",
        [Entity::new("Person").fields(["email", "name", "code", "address", "span"])],
    );
    for filter in [
        json!({ "email": "ann@x.ORG" }),
        json!({ "email": ["ANN@x.org", "nobody"] }),
        json!({ "name": "ann" }),
        json!({ "code": "ab   " }),
        json!({ "address": "10.0.0.1/32" }),
        json!({ "span": "1 day" }),
        json!({ "span": { "$lt": "25 hours" } }),
    ] {
        let query = GraphQuery::new("person")
            .fields(["id"])
            .filters(filter.clone());
        assert_eq!(world.ask(&query), [json!({ "id": "1" })], "{filter}");
    }
    // Their values cannot be part of tags: refused with a sentence, at the first use and at the installation.
    for field in ["email", "name", "code", "address", "span"] {
        let schema = schema([Entity::new("Person").field(Field::text(field).lookup())]);
        let error = world
            .runtime
            .block_on(resolver(&world.postgres, &schema).check())
            .unwrap_err();
        assert!(matches!(error, PostgresError::Mismatch { .. }), "{error}");
        assert!(
            error.to_string().contains("an equality of its own"),
            "{error}"
        );
        let mapping = Mapping::builder(schema).build().unwrap();
        let outbox = mcache_postgres::Outbox::new(mapping.into(), "test");
        let installed = outbox.install_with(world.postgres.conninfo().parse().unwrap(), NoTls);
        assert!(world.runtime.block_on(installed).is_err(), "{field}");
    }
}

#[test]
fn json_keeps_every_digit_and_texts_do_not_depend_on_the_session() {
    let world = World::new(
        "ALTER ROLE postgres SET bytea_output = 'escape'; ALTER ROLE postgres SET intervalstyle = 'sql_standard';
         ALTER ROLE postgres SET extra_float_digits = '-10'; ALTER ROLE postgres SET timezone = 'Asia/Kathmandu';
         ALTER ROLE postgres SET datestyle = 'German';
         CREATE TABLE thing (id text PRIMARY KEY, raw bytea, span interval, ratio float8, day date, doc jsonb);
         INSERT INTO thing VALUES ('1', '\\x00ff', '1 day 2 hours', 0.1::float8 + 0.2, '2026-01-31',
           '{\"price\": 12345678901234567890.123456789, \"n\": 1.5}')",
        [Entity::new("Thing")
            .fields(["raw", "span", "day"])
            .field(Field::number("ratio"))
            .field(Field::json("doc"))],
    );
    let thing = world.ask(&GraphQuery::new("thing").fields(["*"])).remove(0);
    assert_eq!(
        thing,
        json!({ "id": "1", "raw": "\\x00ff", "span": "1 day 02:00:00", "day": "2026-01-31", "ratio": 0.300_000_000_000_000_04,
                "doc": { "price": "12345678901234567890.123456789", "n": 1.5 } })
    );
}

#[test]
fn a_time_that_moves_is_refused_and_a_boundary_ends_an_entry_in_time() {
    let world = World::new(
        "CREATE TABLE price_list (id text PRIMARY KEY, starts_at timestamptz);
         INSERT INTO price_list VALUES ('past', now() - interval '1 day'), ('next', now() + interval '1 hour'),
           ('later', now() + interval '2 hours'), ('never', 'infinity')",
        [Entity::new("PriceList").field(Field::timestamp("starts_at")).boundary("starts_at")],
    );
    for moving in ["now", "today", "tomorrow 12:00", "2026-01-01 yesterday"] {
        let query = GraphQuery::new("price_list")
            .fields(["id"])
            .filters(json!({ "starts_at": { "$lte": moving } }));
        let refused = world
            .runtime
            .block_on(world.graph.query(&query, &GraphOptions::default()));
        assert!(
            refused.unwrap_err().to_string().contains("valid_until"),
            "{moving}"
        );
    }
    let cache = world.runtime.block_on(async {
        let provider = mcache::MemoryProvider::default();
        mcache::Cache::builder_with(provider)
            .caching(true)
            .build()
            .await
            .unwrap()
    });
    let schema = world.graph.schema().clone();
    let graph = Graph::builder(schema.clone(), resolver(&world.postgres, &schema))
        .cache(cache.clone())
        .build();
    let query = GraphQuery::new("price_list")
        .fields(["id"])
        .filters(json!({ "starts_at": { "$lte": "2027-01-01" } }));
    world.runtime.block_on(async {
        let mut options = GraphOptions::cached();
        options.cache.ttl = Some(std::time::Duration::from_secs(30 * 86_400));
        graph.query(&query, &options).await.unwrap();
        let key = graph.key(&query, &options).await.unwrap();
        let ttl = cache.inspect(key).await.unwrap().unwrap().ttl.unwrap();
        assert!(ttl.as_secs() <= 3_600 && ttl.as_secs() > 3_000, "{ttl:?}");
    });
}

#[test]
fn a_column_that_rounds_is_no_key_and_no_lookup() {
    let postgres = Postgres::start();
    postgres.psql(
        "CREATE DOMAIN rough AS real; CREATE DOMAIN rougher AS rough; CREATE DOMAIN word AS text; CREATE DOMAIN words AS word;
         CREATE TABLE product (id words PRIMARY KEY, r real, d double precision, o rougher, n numeric);
         INSERT INTO product VALUES ('p1', 0.1, 0.1, 0.1, 0.1)",
    );
    let runtime = runtime();
    let check = |field: Field| {
        let schema = schema([Entity::new("Product").field(field)]);
        runtime.block_on(resolver(&postgres, &schema).check())
    };
    for column in ["r", "d", "o"] {
        let refused = check(Field::number(column).lookup()).unwrap_err();
        let words = refused.to_string();
        assert!(
            matches!(refused, PostgresError::Mismatch { .. }) && words.contains("rounds"),
            "{words}"
        );
        assert!(check(Field::integer(column).lookup()).is_err());
        check(Field::number(column)).unwrap();
    }
    // Of a key that is a domain over a domain over a text as well.
    check(Field::number("n").lookup()).unwrap();
}
