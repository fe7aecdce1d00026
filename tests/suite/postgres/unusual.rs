//! Unusual databases and unusual statements: after each, what is cached equals what is there.

use std::sync::Arc;
use std::time::Duration;

use harness::{Postgres, wait};
use mcache::change::Invalidator;
use mcache::{Cache, MemoryProvider, Source};
use mcache_graph::{Entity, Field, FieldType, Graph, GraphOptions, GraphQuery, Relation, Schema};
use mcache_postgres::{Mapping, Outbox, PostgresResolver, Table};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_postgres::{Config, NoTls};

use super::shop::{Recorder, Shop, connect, mapping};
use crate::support::runtime::runtime;

/// How many of these changes leave a cached result wrong, each with what is served.
#[track_caller]
fn none_is_stale(world: &World, queries: &[GraphQuery], changes: &[&str]) {
    let stale: Vec<String> = changes
        .iter()
        .flat_map(|change| world.stale_after(queries, change))
        .collect();
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}

/// A database, queries that are cached, and an invalidator that clears them.
struct World {
    runtime: Runtime,
    postgres: Postgres,
    outbox_schema: &'static str,
    graph: Graph,
    fresh: Graph,
    _invalidator: Invalidator,
}

impl World {
    fn new<const N: usize>(sql: &str, entities: [Entity; N]) -> Self {
        Self::mapped(sql, entities, &[], "mcache")
    }

    fn mapped<const N: usize>(
        sql: &str,
        entities: [Entity; N],
        tables: &[(&str, Table)],
        outbox_schema: &'static str,
    ) -> Self {
        let postgres = Postgres::start();
        postgres.psql(sql);
        let builder = entities
            .into_iter()
            .fold(Schema::builder(), |builder, entity| builder.entity(entity));
        let schema = Arc::new(builder.build().unwrap());
        let mapping = tables.iter().fold(
            Mapping::builder(schema.clone()),
            |builder, (entity, table)| builder.table(entity, table.clone()),
        );
        let mapping = Arc::new(mapping.build().unwrap());
        let runtime = runtime();
        let config: Config = postgres.conninfo().parse().unwrap();
        let resolver = PostgresResolver::new(config.clone(), NoTls, mapping.clone()).unwrap();
        let resolver = Arc::new(resolver);
        let fresh = Graph::builder(schema.clone(), resolver.clone()).build();
        let outbox = Outbox::new(mapping, "test").schema(outbox_schema);
        let (graph, invalidator) = runtime.block_on(async {
            outbox.install(&mut connect(&postgres).await).await.unwrap();
            let cache = Cache::builder_with(MemoryProvider::default());
            let cache = cache.caching(true).build().await.unwrap();
            let invalidator = Invalidator::builder(
                outbox
                    .source(config, NoTls)
                    .look_interval(Duration::from_secs(1)),
                fresh.change_tags(),
            )
            .targets(cache.invalidation_targets())
            .spawn();
            (
                Graph::builder(schema, resolver).cache(cache).build(),
                invalidator,
            )
        });
        let world = Self {
            runtime,
            postgres,
            outbox_schema,
            graph,
            fresh,
            _invalidator: invalidator,
        };
        wait::until("what an older outbox may have left is cleared", || {
            world.ours("SELECT NOT bool_or(clear) FROM $.position") == "t"
        });
        world
    }

    /// Runs SQL in which `$` is the schema of the outbox.
    fn ours(&self, sql: &str) -> String {
        let quoted = format!("\"{}\"", self.outbox_schema.replace('"', "\"\""));
        self.postgres.psql(&sql.replace('$', &quoted))
    }

    fn settle(&self) {
        wait::until("every change is invalidated", || {
            self.ours("SELECT count(*) FROM $.outbox") == "0"
        });
    }

    fn fresh(&self, query: &GraphQuery) -> Value {
        let options = GraphOptions::default();
        let asked = self.fresh.query(query, &options);
        json!(self.runtime.block_on(asked).unwrap())
    }

    fn ask(&self, query: &GraphQuery) -> (Value, Source) {
        let options = GraphOptions::cached();
        let served = self
            .runtime
            .block_on(self.graph.serve(query, &options))
            .unwrap();
        (json!(served.value), served.source)
    }

    /// The queries whose cached results `change` leaves wrong.
    fn stale_after(&self, queries: &[GraphQuery], change: &str) -> Vec<String> {
        for query in queries {
            wait::until("it is cached", || self.ask(query).1 == Source::Hit);
        }
        let before: Vec<Value> = queries.iter().map(|query| self.fresh(query)).collect();
        self.postgres.psql(change);
        self.settle();
        let mut changed = 0;
        let mut stale = Vec::new();
        for (query, before) in queries.iter().zip(before) {
            let (fresh, cached) = (self.fresh(query), self.ask(query).0);
            changed += usize::from(fresh != before);
            if fresh != cached {
                stale.push(format!("{change}\n  is {fresh}\n  served {cached}"));
            }
        }
        assert_ne!(changed, 0, "{change} changes nothing that is asked for");
        stale
    }
}

fn list(entity: &str, fields: &[&str]) -> GraphQuery {
    GraphQuery::new(entity).fields(fields.iter().copied())
}

#[test]
fn a_part_that_is_an_entity_itself_is_told_of_statements_on_the_whole() {
    let world = World::new(
        "CREATE TABLE vehicle (id text PRIMARY KEY, name text);
         CREATE TABLE car (doors int) INHERITS (vehicle); INSERT INTO car VALUES ('c1', 'a', 4);
         CREATE TABLE orders (id text, region text, total int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
         CREATE TABLE orders_eu PARTITION OF orders FOR VALUES IN ('eu');
         CREATE TABLE orders_us PARTITION OF orders FOR VALUES IN ('us');
         INSERT INTO orders VALUES ('o1', 'eu', 1), ('o2', 'us', 2)",
        [
            Entity::new("Vehicle").field("name"),
            Entity::new("Car")
                .field("name")
                .field(Field::integer("doors")),
            Entity::new("Orders")
                .field("region")
                .field(Field::integer("total")),
            Entity::new("OrdersEu").field(Field::integer("total")),
        ],
    );
    let queries = [
        list("car", &["name", "doors"]),
        list("vehicle", &["name"]),
        list("orders", &["id", "region", "total"]),
        list("orders_eu", &["id", "total"]),
        list("orders_eu", &["id"]),
        list("orders_eu", &["id"]).filters(json!({ "id": "o2" })),
    ];
    let changes = [
        "UPDATE car SET name = 'b'",
        "UPDATE vehicle SET name = 'c'",
        "UPDATE orders SET total = 7 WHERE id = 'o1'",
        "UPDATE orders SET region = 'eu' WHERE id = 'o2'",
        "UPDATE orders SET region = 'us' WHERE id = 'o2'",
        "UPDATE orders_eu SET total = 8",
        "INSERT INTO orders VALUES ('o3', 'eu', 3)",
        "DELETE FROM orders WHERE id = 'o3'",
        "MERGE INTO orders AS o USING (VALUES ('o1', 'eu'), ('o4', 'eu')) AS n (id, region) ON o.id = n.id
           WHEN MATCHED THEN UPDATE SET total = 77 WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.region, 4)",
        "TRUNCATE orders",
        "DELETE FROM vehicle",
    ];
    none_is_stale(&world, &queries, &changes);
}

#[test]
fn a_type_within_a_type_that_changes_is_noticed() {
    let tables = [
        ("domains", "feeling", "sad"),
        ("nested", "deeper", "sad"),
        ("lists", "mood[]", "{sad}"),
        ("ranges", "moods", "[sad,glad]"),
        ("pairs", "pair", "(sad,1)"),
        ("pair_lists", "pair[]", r#"{"(sad,1)"}"#),
    ];
    let mut sql = String::from(
        "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN feeling AS mood; CREATE DOMAIN deeper AS feeling;
         CREATE TYPE moods AS RANGE (subtype = mood); CREATE TYPE pair AS (a mood, b int);",
    );
    for (table, column, value) in tables {
        sql += &format!(
            "CREATE TABLE {table} (id text PRIMARY KEY, it {column}); INSERT INTO {table} VALUES ('1', '{value}');"
        );
    }
    let entities = tables.map(|(table, ..)| Entity::new(&pascal(table)).field(Field::json("it")));
    let world = World::new(&sql, entities);
    let queries = tables.map(|(table, ..)| list(&pascal(table), &["it"]));
    let at_once = [
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
        "ALTER TYPE pair RENAME ATTRIBUTE b TO c",
        "ALTER TYPE pair ADD ATTRIBUTE d int",
    ];
    none_is_stale(&world, &queries, &at_once);
    world.postgres.psql("DROP EVENT TRIGGER mcache_on_ddl");
    // A look passes over what the source looks at meanwhile.
    let at_a_look = [
        "ALTER TYPE mood RENAME VALUE 'blue' TO 'red'; SELECT FROM mcache.seen FOR UPDATE; SELECT mcache.look()",
        "ALTER TYPE pair DROP ATTRIBUTE d; SELECT FROM mcache.seen FOR UPDATE; SELECT mcache.look()",
    ];
    none_is_stale(&world, &queries, &at_a_look);
}

/// A look that began before the command cannot see it, and keeps the command's own look off the table.
#[test]
fn a_command_is_noticed_while_another_looks() {
    let world = World::new(
        "CREATE TABLE product (id text PRIMARY KEY, name text); INSERT INTO product VALUES ('p1', 'a')",
        [Entity::new("Product").field("name")],
    );
    let config: Config = world.postgres.conninfo().parse().unwrap();
    let (looking, connection) = world.runtime.block_on(config.connect(NoTls)).unwrap();
    world.runtime.spawn(connection);
    let look = "BEGIN; SELECT FROM mcache.seen FOR UPDATE";
    world.runtime.block_on(looking.batch_execute(look)).unwrap();
    let rewrite = "ALTER TABLE product ALTER COLUMN name TYPE text USING name || '!'";
    none_is_stale(&world, &[list("Product", &["name"])], &[rewrite]);
}

fn pascal(name: &str) -> String {
    let words = name.split('_');
    let upper = |word: &str| format!("{}{}", word[..1].to_uppercase(), &word[1..]);
    words.map(upper).collect()
}

#[test]
fn unusual_statements_leave_nothing_stale() {
    let world = World::new(
        "CREATE TABLE orders (id text, region text, total int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
         CREATE TABLE orders_eu PARTITION OF orders FOR VALUES IN ('eu');
         CREATE TABLE orders_us PARTITION OF orders FOR VALUES IN ('us');
         INSERT INTO orders VALUES ('o1', 'eu', 1), ('o2', 'us', 2), ('o3', 'eu', 3), ('o4', 'eu', 4);
         CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE TRIGGER no BEFORE INSERT ON orders_us FOR EACH ROW EXECUTE FUNCTION no();
         CREATE TABLE node (id int PRIMARY KEY, name text,
           parent int REFERENCES node ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO node VALUES (1, 'a', NULL), (2, 'b', 1), (3, 'c', 2), (4, 'd', 3);
         CREATE TABLE note (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text,
           node int REFERENCES node ON DELETE SET NULL ON UPDATE SET DEFAULT,
           twice text GENERATED ALWAYS AS (name || name) STORED);
         INSERT INTO note (node, name) VALUES (4, 'x'), (2, 'y');
         CREATE VIEW nodes AS SELECT * FROM node;
         CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN UPDATE note SET name = name || 'L' WHERE id = 1; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON node DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION late()",
        [
            Entity::new("Orders")
                .field("region")
                .field(Field::integer("total")),
            Entity::new("Node")
                .id_type(FieldType::Integer)
                .field("name")
                .field(Field::integer("parent"))
                .relation(Relation::has_many("children", "Node", "parent")),
            Entity::new("Note")
                .id_type(FieldType::Integer)
                .field("twice")
                .field(Field::integer("node"))
                .relation(Relation::belongs_to("of", "Node", "node")),
        ],
    );
    let mut queries = vec![
        list("orders", &["id"]),
        list("orders", &["total"]).filters(json!({ "id": "o1" })),
        list("node", &["name", "children.name", "children.children.name"]),
        list("note", &["twice", "of.name"]),
        list("note", &["id"]).filters(json!({ "node": null })),
        list("note", &["id"]).filters(json!({ "$not": { "of": { "name": "d" } } })),
        list("node", &["id"])
            .filters(json!({ "$or": [{ "children": { "name": "d" } }, { "id": 9 }] })),
    ];
    for id in [1, 2, 3, 9, 11, 14] {
        queries.push(list("node", &["id", "children.id"]).filters(json!({ "id": id })));
    }
    let changes = [
        // Moved to a partition whose trigger keeps them out: gone.
        "UPDATE orders SET region = 'us' WHERE id = 'o1'",
        "UPDATE orders SET region = CASE id WHEN 'o3' THEN 'us' ELSE region END, total = 99",
        "UPDATE node SET id = 14 WHERE id = 4",
        "UPDATE nodes SET name = 'viewed' WHERE id = 3",
        "WITH a AS (UPDATE node SET name = 'first' WHERE id = 1 RETURNING id),
              b AS (UPDATE node SET name = 'second' WHERE id = 2 RETURNING id)
         INSERT INTO node SELECT 9, 'third', a.id FROM a, b",
        "MERGE INTO node USING (VALUES (9), (10), (2)) AS n (id) ON node.id = n.id
           WHEN MATCHED AND n.id = 9 THEN DELETE WHEN MATCHED THEN UPDATE SET name = 'm'
           WHEN NOT MATCHED THEN INSERT VALUES (n.id, 'm', 1)",
        "INSERT INTO node VALUES (10, 'z', 2), (11, 'z', 2)
           ON CONFLICT (id) DO UPDATE SET name = excluded.name, parent = 3",
        "BEGIN; SAVEPOINT a; UPDATE node SET name = 'no' WHERE id = 1; ROLLBACK TO a;
         UPDATE node SET name = 'yes' WHERE id = 2; SAVEPOINT b; UPDATE node SET name = 'so' WHERE id = 3; COMMIT",
        "BEGIN; SET CONSTRAINTS ALL IMMEDIATE; UPDATE node SET name = 'now' WHERE id = 2;
         SET CONSTRAINTS ALL DEFERRED; UPDATE node SET name = 'later' WHERE id = 3; COMMIT",
        "COPY node FROM PROGRAM 'printf \"20\\tcopied\\t1\\n\"'",
        "SET session_replication_role = replica; UPDATE node SET name = 'replica' WHERE id = 2",
        "DO $$ BEGIN FOR i IN 1..9 LOOP BEGIN UPDATE node SET name = i::text WHERE id = 2;
           IF i = 9 THEN RAISE 'no'; END IF; EXCEPTION WHEN OTHERS THEN END; END LOOP; END $$",
        "DELETE FROM node WHERE id = 1",
        "TRUNCATE node CASCADE",
    ];
    none_is_stale(&world, &queries, &changes);
}

#[test]
fn every_name_may_have_every_letter() {
    let (schema, table) = ("My.Sch\"e''ma é", "T.a\"b\\'l$mcache$e Ünï @t\\");
    let quoted = [schema, table].map(|name| format!("\"{}\"", name.replace('"', "\"\"")));
    let (quoted_schema, at) = (&quoted[0], quoted.join("."));
    let world = World::mapped(
        &format!(
            r#"CREATE SCHEMA {quoted_schema};
               CREATE TABLE {at} ("i.D""@j" text PRIMARY KEY, "touch\ed@t" text, "old_row" timestamptz, "t" jsonb);
               INSERT INTO {at} VALUES ('p1', 'a', '2026-01-01', '{{}}')"#
        ),
        [Entity::new("Product")
            .field("name")
            .field(Field::timestamp("at"))
            .field(Field::json("data"))],
        &[(
            "Product",
            Table::named(table)
                .in_schema(schema)
                .column("id", "i.D\"@j")
                .column("name", "touch\\ed@t")
                .column("at", "old_row")
                .column("data", "t"),
        )],
        "Mc.a\"ch\\'e Ünï 012345678901234567890123456789012345678",
    );
    let queries = [
        list("product", &["id", "name"]),
        list("product", &["at", "data"]).filters(json!({ "id": "p1" })),
    ];
    let changes = [
        format!(r#"UPDATE {at} SET "touch\ed@t" = 'b'"#),
        format!(r#"SET standard_conforming_strings = off; UPDATE {at} SET "touch\ed@t" = 'c'"#),
        format!(
            r#"SET standard_conforming_strings = off; SET backslash_quote = off; UPDATE {at} SET "touch\ed@t" = repeat('d', 2000)"#
        ),
        format!(r#"UPDATE {at} SET "i.D""@j" = 'p|:*2', old_row = now(), t = '[]'"#),
        format!("TRUNCATE {at}"),
        format!("INSERT INTO {at} VALUES ('p1', 'z', now(), '{{}}')"),
        format!(r#"ALTER TABLE {at} ALTER "touch\ed@t" TYPE text USING 'y'"#),
    ];
    let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
    none_is_stale(&world, &queries, &changes);
}

#[test]
fn a_clock_that_was_set_back_stops_no_look_and_keeps_no_lease() {
    let world = World::new(
        "CREATE TABLE product (id text PRIMARY KEY, name text); INSERT INTO product VALUES ('p1', 'a')",
        [Entity::new("Product").field("name")],
    );
    let queries = [list("product", &["name"])];
    none_is_stale(&world, &queries, &["UPDATE product SET name = 'b'"]);
    world.postgres.psql("DROP EVENT TRIGGER mcache_on_ddl");
    // As if all of it had been written a day from now, the lease by another whose process is there.
    world.postgres.psql(
        "UPDATE mcache.layout SET looked_at = now() + interval '1 day', swept_at = now() + interval '1 day';
         UPDATE mcache.lease SET until = now() + interval '1 day', holder = 'another',
           pid = (SELECT min(pid) FROM pg_stat_activity WHERE application_name = 'mcache')",
    );
    none_is_stale(&world, &queries, &["UPDATE product SET name = 'c'"]);
    wait::until("the catalogue is looked at", || {
        world
            .postgres
            .psql("SELECT looked_at < now() + interval '1 hour' FROM mcache.layout")
            == "t"
    });
}

#[test]
fn a_dump_that_is_restored_in_another_server_begins_anew() {
    let origin = Shop::open();
    let other = Outbox::new(mapping(), "other");
    origin.install(&other);
    // Positions are ahead of what the other server writes for long.
    origin.postgres.psql(
        "DO $$ BEGIN FOR i IN 1..3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$;",
    );
    let recorders = [Recorder::new(), Recorder::new()];
    let run = |config: Config| {
        [&origin.outbox, &other]
            .iter()
            .zip(&recorders)
            .map(|(outbox, recorder)| {
                let source = outbox.source(config.clone(), NoTls);
                origin.invalidator_with(source, recorder, |builder| builder)
            })
            .collect::<Vec<_>>()
    };
    let all_are_told = |tag| recorders.iter().for_each(|told| told.wait_for(&[tag]));
    let before = run(origin.config());
    origin
        .postgres
        .psql("INSERT INTO product (id) VALUES ('p0')");
    all_are_told("Product:p0");
    wait::until("it is acknowledged", || origin.waiting() == 0);
    drop(before);
    recorders.iter().for_each(|told| told.clear());

    let restored = Postgres::start();
    origin.postgres.dump_into(&restored);
    restored.psql("INSERT INTO product (id) VALUES ('p1')");
    let _after = run(restored.conninfo().parse().unwrap());
    all_are_told("*");
    restored.psql("INSERT INTO product (id) VALUES ('p2')");
    all_are_told("Product:p2");
}

#[test]
fn a_consumer_whose_outbox_was_taken_away_meanwhile_clears_what_it_missed() {
    let shop = Shop::open();
    let told = Recorder::new();
    let invalidator = shop.invalidator(&told);
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p1')");
    told.wait_for(&["Product:p1"]);
    drop(invalidator);
    shop.postgres
        .psql("DROP SCHEMA mcache CASCADE; INSERT INTO product (id) VALUES ('missed')");
    // So the outbox is not new to it, only its consumer is.
    shop.install(&Outbox::new(mapping(), "other"));
    let _invalidator = shop.invalidator(&told);
    told.wait_for(&["*"]);
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p2')");
    told.wait_for(&["Product:p2"]);
}

/// Stored generated columns as key, lookup and relation; the columns that they are computed from are not mapped.
#[test]
fn what_is_read_from_generated_columns_is_never_stale() {
    let world = World::mapped(
        "CREATE TABLE shelf (id text PRIMARY KEY, name text);
         INSERT INTO shelf VALUES ('a', 'first'), ('b', 'second'), ('c', 'third');
         CREATE TABLE item (id int PRIMARY KEY, code text UNIQUE, qty int,
           slug text GENERATED ALWAYS AS (lower(code)) STORED UNIQUE,
           shelf_id text GENERATED ALWAYS AS (lower(split_part(code, '-', 1))) STORED);
         INSERT INTO item VALUES (1, 'A-1', 1), (2, 'A-2', 2), (3, 'B-3', 3);
         CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN IF NEW.qty > 90 THEN NEW.code := 'C-' || NEW.qty; END IF; RETURN NEW; END $$;
         CREATE TRIGGER before BEFORE INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION before()",
        [
            Entity::new("Shelf")
                .field("name")
                .relation(Relation::has_many("items", "Item", "shelf_id")),
            Entity::new("Item")
                .id_type(FieldType::Integer)
                .field(Field::text("slug").lookup())
                .field("shelf_id")
                .relation(Relation::belongs_to("shelf", "Shelf", "shelf_id")),
            Entity::new("Label").key(["slug"]).field("shelf_id"),
        ],
        &[("Label", Table::named("item"))],
        "mcache",
    );
    let mut queries = vec![
        list("item", &["slug", "shelf.name"]),
        list("shelf", &["name", "items.slug"]),
        list("label", &["slug", "shelf_id"]),
        list("shelf", &["id"]).filters(json!({ "items": { "slug": "a-1" } })),
    ];
    for slug in ["a-1", "b-1", "b-3", "c-3", "c-91", "c-92", "a-7", "b-7"] {
        queries.push(list("item", &["id", "shelf.name"]).filters(json!({ "slug": slug })));
        queries.push(list("label", &["shelf_id"]).filters(json!({ "slug": slug })));
    }
    for shelf in ["a", "b", "c"] {
        queries.push(list("shelf", &["items.id"]).filters(json!({ "id": shelf })));
    }
    let changes = [
        "INSERT INTO item VALUES (7, 'A-7', 7)",
        "UPDATE item SET code = 'B-1' WHERE id = 1",
        "INSERT INTO item VALUES (1, 'A-1', 1), (7, 'B-7', 7) ON CONFLICT (id) DO UPDATE SET code = excluded.code",
        "INSERT INTO item VALUES (8, 'B-7', 8) ON CONFLICT (slug) DO UPDATE SET code = 'A-7'",
        "MERGE INTO item USING (VALUES (3, 'C-3'), (2, ''), (9, 'A-9')) AS n (id, code) ON item.id = n.id
           WHEN MATCHED AND n.code = '' THEN DELETE WHEN MATCHED THEN UPDATE SET code = n.code
           WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.code, 9)",
        // What a trigger before the row makes of it.
        "UPDATE item SET qty = 91 WHERE id = 1",
        "INSERT INTO item VALUES (10, 'A-10', 92)",
        "UPDATE item SET code = replace(code, 'C', 'B'), qty = 1",
        "DELETE FROM item WHERE slug = 'b-3'",
        "ALTER TABLE item DROP COLUMN shelf_id;
         ALTER TABLE item ADD COLUMN shelf_id text GENERATED ALWAYS AS (CASE WHEN id > 5 THEN 'a' ELSE 'c' END) STORED",
        "UPDATE item SET id = 4 WHERE id = 7",
        "TRUNCATE item",
    ];
    none_is_stale(&world, &queries, &changes);
}
