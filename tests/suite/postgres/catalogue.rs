//! What no trigger sees clears the entity: at the next look at the catalogue, or at once where an event trigger may be.

use std::time::Duration;

use harness::wait;
use mcache::change::Invalidator;
use mcache_postgres::Outbox;

use crate::postgres::shop::{Recorder, Shop, connect, mapping};

/// Ways to change what a query reads without a statement that fires a trigger of ours.
const UNSEEN: [(&str, &str, &str); 11] = [
    (
        "a table renamed over another",
        "CREATE TABLE other (LIKE product INCLUDING ALL); INSERT INTO other (id, title) VALUES ('p1', 'swapped')",
        "BEGIN; ALTER TABLE product RENAME TO product_old; ALTER TABLE other RENAME TO product; COMMIT",
    ),
    (
        "a partition attached",
        "CREATE TABLE parent (LIKE product) PARTITION BY LIST (id);
         CREATE TABLE part (LIKE product); INSERT INTO part (id) VALUES ('p2');
         ALTER TABLE product RENAME TO product_old; ALTER TABLE parent RENAME TO product",
        "ALTER TABLE product ATTACH PARTITION part FOR VALUES IN ('p2')",
    ),
    (
        "a partition detached",
        "ALTER TABLE product RENAME TO product_old;
         CREATE TABLE product (LIKE product_old) PARTITION BY LIST (id);
         CREATE TABLE part PARTITION OF product FOR VALUES IN ('p2'); INSERT INTO part (id) VALUES ('p2')",
        "ALTER TABLE product DETACH PARTITION part",
    ),
    (
        "a partition dropped",
        "ALTER TABLE product RENAME TO product_old;
         CREATE TABLE product (LIKE product_old) PARTITION BY LIST (id);
         CREATE TABLE part PARTITION OF product FOR VALUES IN ('p2'); INSERT INTO part (id) VALUES ('p2')",
        "DROP TABLE part",
    ),
    (
        "a child that inherits",
        "CREATE TABLE child (LIKE product); INSERT INTO child (id) VALUES ('p2')",
        "ALTER TABLE child INHERIT product",
    ),
    (
        "a column rewritten",
        "",
        "ALTER TABLE product ALTER COLUMN title TYPE text USING upper(title)",
    ),
    (
        "a column dropped and added with a default",
        "",
        "ALTER TABLE product DROP COLUMN title; ALTER TABLE product ADD COLUMN title text DEFAULT 'new'",
    ),
    (
        "a label of an enumeration renamed",
        "CREATE TYPE mood AS ENUM ('sad', 'glad'); ALTER TABLE product ALTER COLUMN title TYPE mood USING 'sad'::mood",
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
    ),
    (
        "triggers disabled and enabled",
        "",
        "ALTER TABLE product DISABLE TRIGGER USER; UPDATE product SET title = 'unseen'; ALTER TABLE product ENABLE TRIGGER USER",
    ),
    (
        "triggers disabled and put back as they were",
        "",
        "ALTER TABLE product DISABLE TRIGGER USER; UPDATE product SET title = 'unseen';
         DO $$ DECLARE t name; BEGIN FOR t IN SELECT tgname FROM pg_trigger WHERE tgname LIKE 'mcache%' AND tgrelid = 'product'::regclass
         LOOP EXECUTE format('ALTER TABLE product ENABLE ALWAYS TRIGGER %I', t); END LOOP; END $$",
    ),
    (
        "a policy created",
        "ALTER TABLE product ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON product USING (title = 'mine')",
    ),
];

fn prepared() -> Shop {
    let shop = Shop::open();
    shop.postgres.psql(
        "ALTER TABLE product_variant DROP CONSTRAINT product_variant_product_id_fkey;
         INSERT INTO product (id, title) VALUES ('p1', 'a')",
    );
    shop
}

fn reset(shop: &Shop) {
    shop.postgres.psql(
        "DROP TABLE IF EXISTS product, product_old, parent, part, child, other CASCADE; DROP TYPE IF EXISTS mood;
         CREATE TABLE product (
           id text PRIMARY KEY, title text, \"the rank\" int, price numeric, metadata jsonb, collection_id text,
           updated_at timestamptz DEFAULT now(), deleted_at timestamptz, undeclared int);
         INSERT INTO product (id, title) VALUES ('p1', 'a')",
    );
    shop.install(&shop.outbox);
}

/// Each change leaves a change of the whole table in the outbox, when `notice` is called.
fn each_is_noticed(shop: &Shop, notice: impl Fn(&Shop)) {
    let pending = || {
        shop.postgres.psql(
            "SELECT count(*) FROM mcache.outbox
             WHERE relation = '\"public\".\"product\"' AND operation = 'everything'",
        )
    };
    for (what, before, change) in UNSEEN {
        reset(shop);
        if !before.is_empty() {
            shop.postgres.psql(before);
            shop.install(&shop.outbox);
        }
        shop.postgres.psql("TRUNCATE mcache.outbox");
        shop.postgres.psql("SELECT mcache.look()");
        assert_eq!(pending(), "0", "{what}: nothing has changed yet");
        shop.postgres.psql(change);
        notice(shop);
        assert_ne!(pending(), "0", "{what}");
    }
}

#[test]
fn the_event_trigger_notices_at_once_and_in_the_same_transaction() {
    let shop = prepared();
    each_is_noticed(&shop, |_| {});
    // Rolled back, it has not happened.
    reset(&shop);
    shop.postgres.psql("TRUNCATE mcache.outbox");
    shop.postgres
        .psql("BEGIN; ALTER TABLE product ALTER COLUMN title TYPE text USING 'x'; ROLLBACK");
    assert_eq!(
        shop.postgres.psql("SELECT count(*) FROM mcache.outbox"),
        "0"
    );
}

#[test]
fn a_look_at_the_catalogue_notices_without_an_event_trigger() {
    let shop = prepared();
    shop.postgres.psql("DROP EVENT TRIGGER mcache_on_ddl");
    each_is_noticed(&shop, |shop| {
        shop.postgres.psql("SELECT mcache.look()");
    });
}

#[test]
fn installing_again_clears_what_it_repairs() {
    let shop = prepared();
    shop.postgres.psql("DROP EVENT TRIGGER mcache_on_ddl");
    each_is_noticed(&shop, |shop| {
        shop.install(&shop.outbox);
        assert_eq!(
            shop.postgres
                .psql("SELECT count(*) FROM mcache.seen WHERE NOT captured"),
            "0"
        );
    });
}

#[test]
fn what_does_not_concern_a_mapped_table_clears_nothing() {
    let shop = prepared();
    shop.postgres.psql("TRUNCATE mcache.outbox");
    shop.postgres.psql(
        "CREATE TEMP TABLE t (id int); CREATE TABLE unmapped (id int); ALTER TABLE unmapped ADD COLUMN a int;
         ALTER TABLE product ADD COLUMN another int DEFAULT 7; ALTER TABLE product ALTER COLUMN undeclared TYPE bigint;
         CREATE INDEX ON product (title); ANALYZE product; REINDEX TABLE product; DROP TABLE unmapped",
    );
    shop.postgres.psql("VACUUM FULL product");
    shop.postgres.psql("SELECT mcache.look()");
    assert_eq!(
        shop.postgres.psql("SELECT count(*) FROM mcache.outbox"),
        "0"
    );
}

#[test]
fn the_source_looks_and_clears_a_table_that_is_not_captured_until_it_is() {
    let shop = prepared();
    shop.postgres.psql("DROP EVENT TRIGGER mcache_on_ddl");
    let recorder = Recorder::new();
    let source = shop.source().look_interval(Duration::from_millis(50));
    let _invalidator: Invalidator = shop.invalidator_with(source, &recorder, |builder| builder);
    recorder.wait_for(&["Product:p1"]);
    shop.postgres
        .psql("ALTER TABLE product DISABLE TRIGGER USER");
    recorder.wait_for(&["Product:*"]);
    let status = |outbox: &Outbox| {
        shop.runtime
            .block_on(async { outbox.status(&connect(&shop.postgres).await).await.unwrap() })
    };
    assert_eq!(status(&shop.outbox).uncaptured, ["\"public\".\"product\""]);
    // Again and again: any statement may have changed it meanwhile.
    for _ in 0..3 {
        recorder.clear();
        recorder.wait_for(&["Product:*"]);
    }
    shop.install(&shop.outbox);
    // A look that was under way when `install` came leaves the table to the next look.
    wait::until("the table is captured again", || {
        status(&shop.outbox).uncaptured.is_empty()
    });
    wait::until("all is told", || shop.waiting() == 0);
    let _ = mapping();
}

#[test]
fn a_role_that_may_not_make_event_triggers_installs_all_the_same() {
    let shop = Shop::open();
    shop.runtime.block_on(async {
        let mut client = connect(&shop.postgres).await;
        shop.outbox.uninstall(&mut client).await.unwrap();
        client
            .batch_execute(
                "CREATE ROLE owner; GRANT CREATE ON DATABASE postgres TO owner; GRANT CREATE, USAGE ON SCHEMA public TO owner;
                 ALTER TABLE product OWNER TO owner; ALTER TABLE product_variant OWNER TO owner;
                 ALTER TABLE product_collection OWNER TO owner; ALTER TABLE sales_channel OWNER TO owner;
                 ALTER TABLE link_product_sales_channel OWNER TO owner; SET ROLE owner",
            )
            .await
            .unwrap();
        shop.outbox.install(&mut client).await.unwrap();
        shop.outbox.install(&mut client).await.unwrap();
    });
    assert_eq!(
        shop.postgres.psql("SELECT count(*) FROM pg_event_trigger"),
        "0"
    );
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p1')");
    assert_eq!(
        shop.postgres.psql("SELECT count(*) FROM mcache.outbox"),
        "1"
    );
}

/// Triggers, functions and columns go with what they belong to or depend on.
#[test]
fn what_goes_with_something_else_is_noticed_at_once() {
    let shop = prepared();
    let capture = "(SELECT function FROM mcache.capture WHERE relation LIKE '%\"product\"')";
    let of_capture =
        |sql: &str| format!("DO $do$ BEGIN EXECUTE format('{sql}', {capture}); END $do$");
    shop.postgres.psql("CREATE ROLE leaves");
    let title = "ALTER TABLE product ADD COLUMN title text";
    let cases = [
        (
            of_capture("ALTER FUNCTION mcache.%I() OWNER TO leaves"),
            "DROP OWNED BY leaves CASCADE".to_owned(),
            "SELECT",
        ),
        (
            "SELECT".to_owned(),
            of_capture("DROP FUNCTION mcache.%I() CASCADE"),
            "SELECT",
        ),
        (
            "CREATE EXTENSION citext; ALTER TABLE product ALTER COLUMN title TYPE citext"
                .to_owned(),
            "DROP EXTENSION citext CASCADE".to_owned(),
            title,
        ),
        (
            "CREATE DOMAIN word AS text; ALTER TABLE product ALTER COLUMN title TYPE word"
                .to_owned(),
            "DROP DOMAIN word CASCADE".to_owned(),
            title,
        ),
        (
            "CREATE FUNCTION same(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';
             ALTER TABLE product DROP COLUMN title;
             ALTER TABLE product ADD COLUMN title text GENERATED ALWAYS AS (same(id)) STORED"
                .to_owned(),
            "DROP ROUTINE same(text) CASCADE".to_owned(),
            title,
        ),
    ];
    for (before, change, after) in cases {
        reset(&shop);
        shop.postgres.psql(&before);
        shop.install(&shop.outbox);
        shop.postgres.psql("TRUNCATE mcache.outbox");
        shop.postgres.psql("SELECT mcache.look()");
        let pending = || {
            shop.postgres
                .psql("SELECT count(*) FROM mcache.outbox WHERE operation = 'everything'")
        };
        assert_eq!(pending(), "0", "{change}: nothing has changed yet");
        shop.postgres.psql(&change);
        assert_ne!(pending(), "0", "{change}");
        shop.postgres.psql(after);
        shop.install(&shop.outbox);
        let uncaptured = "SELECT count(*) FROM mcache.seen WHERE NOT captured";
        assert_eq!(shop.postgres.psql(uncaptured), "0", "{change}");
    }
}

/// Functions of the outbox can go while its tables stay. A source that may install makes them anew and clears what was
/// not captured; nothing is stale for longer than the interval between two looks.
#[test]
fn a_source_whose_functions_are_gone_makes_them_anew_and_clears() {
    let shop = prepared();
    let recorder = Recorder::new();
    let source = shop.source().look_interval(Duration::from_millis(50));
    let _invalidator: Invalidator = shop.invalidator_with(source, &recorder, |builder| builder);
    recorder.wait_for(&["Product:p1"]);
    for round in 0..2 {
        recorder.clear();
        shop.postgres.psql(&format!(
            "BEGIN; DROP EXTENSION plpgsql CASCADE; CREATE EXTENSION plpgsql;
             UPDATE product SET title = 'unseen {round}'; COMMIT"
        ));
        recorder.wait_for(&["Product:*"]);
        wait::until("it is captured again", || {
            shop.postgres
                .psql("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'product'::regclass AND NOT tgisinternal")
                == "4"
        });
        shop.postgres
            .psql(&format!("INSERT INTO product (id) VALUES ('new {round}')"));
        recorder.wait_for(&[&format!("Product:new {round}")]);
    }
}

/// PostgreSQL 18 has virtual generated columns. Before it the catalogue can say so all the same, and then triggers see
/// what they see there: null.
#[test]
fn a_virtual_column_is_refused_and_one_that_became_virtual_is_cleared_at_each_look() {
    let shop = prepared();
    let look = || shop.postgres.psql("SELECT * FROM mcache.look()");
    shop.postgres.psql("SELECT mcache.look()");
    assert_eq!(look(), "");
    shop.postgres.psql(
        "SET allow_system_table_mods = on;
         UPDATE pg_attribute SET attgenerated = 'v' WHERE attrelid = 'product'::regclass AND attname = 'title'",
    );
    for _ in 0..3 {
        assert_eq!(look(), "\"public\".\"product\"|f");
    }
    let installed = shop.runtime.block_on(async {
        shop.outbox
            .install(&mut connect(&shop.postgres).await)
            .await
    });
    let words = installed.unwrap_err().to_string();
    assert!(
        words.contains("column title is a virtual generated column"),
        "{words}"
    );
}
