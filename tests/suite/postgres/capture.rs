//! Every change of a mapped table, made by any program, becomes an event that says exactly what it can know.

use std::collections::BTreeSet;

use harness::wait;
use mcache::change::{ChangeEvent, Operation};
use mcache_postgres::{Mapping, Outbox, PostgresError, Table};
use serde_json::json;

use crate::postgres::shop::{Recorder, Shop, connect, mapping, schema};

/// Runs `sql` and returns the events it led to, in the order they were captured.
#[track_caller]
fn events_of(shop: &Shop, sql: &str) -> Vec<ChangeEvent> {
    let recorder = Recorder::new();
    let invalidator = shop.invalidator(&recorder);
    shop.postgres.psql(sql);
    wait::until("the outbox is empty", || shop.waiting() == 0);
    drop(invalidator);
    let events = recorder.events.lock().unwrap();
    events.clone()
}

/// What happened, in short: entity, operation and ids.
fn short(events: &[ChangeEvent]) -> Vec<String> {
    let describe = |event: &ChangeEvent| {
        let ids: BTreeSet<&str> = event.ids.iter().map(String::as_str).collect();
        let ids: Vec<&str> = ids.into_iter().collect();
        format!(
            "{} {} {}",
            event.entity,
            event.operation.as_str(),
            ids.join(",")
        )
    };
    events.iter().map(describe).collect()
}

#[test]
fn each_kind_of_statement_is_seen() {
    let shop = Shop::open();
    for (sql, expected) in [
        (
            "INSERT INTO product (id, title) VALUES ('p1', 'a'), ('p2', 'b'), ('p3', 'c')",
            vec!["Product created p1,p2,p3"],
        ),
        ("UPDATE product SET title = 'A' WHERE id <> 'p3'", vec!["Product updated p1,p2"]),
        ("UPDATE product SET title = title", vec![]),
        ("UPDATE product SET undeclared = 1", vec![]),
        ("UPDATE product SET title = 'x' WHERE false", vec![]),
        ("UPDATE product SET deleted_at = now() WHERE id = 'p1'", vec!["Product deleted p1"]),
        ("UPDATE product SET title = 'unseen' WHERE id = 'p1'", vec![]),
        ("UPDATE product SET deleted_at = NULL WHERE id = 'p1'", vec!["Product restored p1"]),
        ("INSERT INTO product (id, deleted_at) VALUES ('p9', now())", vec![]),
        ("DELETE FROM product WHERE id = 'p9'", vec![]),
        (
            "INSERT INTO product (id, title) VALUES ('p1', 'up'), ('p4', 'd')
             ON CONFLICT (id) DO UPDATE SET title = excluded.title",
            vec!["Product created p4", "Product updated p1"],
        ),
        (
            "MERGE INTO product USING (VALUES ('p1'), ('p5')) AS v (id) ON v.id = product.id
             WHEN MATCHED THEN UPDATE SET title = 'merged' WHEN NOT MATCHED THEN INSERT (id) VALUES (v.id)",
            vec!["Product created p5", "Product updated p1"],
        ),
        (
            "WITH gone AS (DELETE FROM product WHERE id = 'p5' RETURNING id)
             INSERT INTO product_variant (id, sku) SELECT 'v1', id FROM gone",
            vec!["Product deleted p5", "ProductVariant created v1"],
        ),
        (
            "INSERT INTO product_variant (id, product_id) VALUES ('v2', 'p4')",
            vec!["ProductVariant created v2"],
        ),
        // Both the id and what refers to it: the row of the old id is gone, one of the new id is there.
        (
            "UPDATE product SET id = 'p6' WHERE id = 'p4'",
            vec!["Product deleted p4", "Product restored p6", "ProductVariant updated v2"],
        ),
        (
            "DELETE FROM product WHERE id = 'p6'",
            vec!["Product deleted p6", "ProductVariant deleted v2"],
        ),
        (
            "INSERT INTO link_product_sales_channel VALUES ('p1', 'c1'), ('p2', 'c1')",
            vec!["LinkProductSalesChannel attached p1|c1,p2|c1"],
        ),
        (
            "DELETE FROM link_product_sales_channel WHERE product_id = 'p2'",
            vec!["LinkProductSalesChannel detached p2|c1"],
        ),
        (
            "TRUNCATE product, product_variant",
            vec!["Product updated ", "ProductVariant updated "],
        ),
        ("BEGIN; INSERT INTO product (id) VALUES ('never'); ROLLBACK", vec![]),
        (
            "BEGIN; INSERT INTO product (id) VALUES ('q1'); SAVEPOINT s; INSERT INTO product (id) VALUES ('q2');
             ROLLBACK TO s; INSERT INTO product (id) VALUES ('q3'); COMMIT",
            vec!["Product created q1", "Product created q3"],
        ),
        (
            "COPY product (id) FROM PROGRAM 'printf \"k1\\nk2\\n\"'",
            vec!["Product created k1,k2"],
        ),
        (
            "SET session_replication_role = replica; UPDATE product SET title = 'restored by a tool' WHERE id = 'k1'",
            vec!["Product updated k1"],
        ),
    ] {
        let mut seen = short(&events_of(&shop, sql));
        seen.sort();
        assert_eq!(seen, expected, "{sql}");
    }
}

#[test]
fn an_event_carries_the_declared_values_before_and_after() {
    let shop = Shop::open();
    shop.postgres.psql(
        "INSERT INTO product (id, title, \"the rank\", price, metadata, collection_id)
         VALUES ('p1', 'it''s \"é\"', 7, 10.50, '{\"a\": 1}', 'c1')",
    );
    let long = "x".repeat(2_000);
    let events = events_of(
        &shop,
        &format!(
            "SET timezone = 'Asia/Kathmandu'; SET extra_float_digits = 0; SET datestyle = 'German';
             UPDATE product SET \"the rank\" = 8, metadata = '{{\"a\": 2}}', undeclared = 5 WHERE id = 'p1';
             UPDATE product SET title = '{long}' WHERE id = 'p1';
             UPDATE product SET deleted_at = '2026-01-31 12:00:00+00' WHERE id = 'p1'"
        ),
    );
    let updated = events
        .iter()
        .find(|event| event.changed.as_ref().is_some_and(|c| c.contains("rank")))
        .expect("the first update");
    assert_eq!(updated.operation, Operation::Updated);
    let changed: Vec<&str> = updated
        .changed
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    assert_eq!(changed, ["metadata", "rank"]);
    let before = &updated.before.as_ref().unwrap()["p1"];
    let after = &updated.after.as_ref().unwrap()["p1"];
    assert_eq!((&before["rank"], &after["rank"]), (&json!(7), &json!(8)));
    assert_eq!(after["price"], json!(10.5));
    assert_eq!(after["title"], json!("it's \"é\""));
    assert_eq!(after["collection_id"], json!("c1"));
    assert_eq!(after["deleted_at"], json!(null));
    // Not sent, so unknown; that it changed is known all the same.
    assert!(!after.contains_key("metadata") && !after.contains_key("undeclared"));

    let titled = events
        .iter()
        .find(|event| event.changed.as_ref().is_some_and(|c| c.contains("title")))
        .expect("the second update");
    assert!(!titled.after.as_ref().unwrap()["p1"].contains_key("title"));
    assert_eq!(
        titled.before.as_ref().unwrap()["p1"]["title"],
        json!("it's \"é\"")
    );

    let deleted = events
        .iter()
        .find(|event| event.operation == Operation::Deleted)
        .expect("the soft deletion");
    assert_eq!(deleted.before.as_ref().unwrap()["p1"]["rank"], json!(8));
    assert_eq!(deleted.after, None);
}

#[test]
fn a_statement_too_large_to_describe_becomes_coarser_and_stays_seen() {
    let shop = Shop::open_with(&[("fsync", "off")], |outbox| {
        outbox.rows_max(100).bytes_max(8_000)
    });
    let insert = |from: u32, to: u32| {
        let sql = format!(
            "INSERT INTO product (id, title) SELECT 'p' || i, repeat('x', 50) FROM generate_series({from}, {to}) AS i"
        );
        events_of(&shop, &sql)
    };
    let few = insert(1, 10);
    assert_eq!(few[0].ids.len(), 10);
    assert_eq!(few[0].after.as_ref().unwrap().len(), 10);
    let ids_only = insert(11, 110);
    assert_eq!(ids_only[0].ids.len(), 100);
    let after = ids_only[0].after.as_ref().unwrap();
    assert!(
        after.values().all(|row| row.len() == 1),
        "nothing but the id"
    );
    let everything = insert(111, 211);
    assert_eq!(everything, [ChangeEvent::everything("Product")]);
    let updated = events_of(&shop, "UPDATE product SET title = 'y'");
    assert_eq!(updated, [ChangeEvent::everything("Product")]);
}

#[test]
fn a_column_that_was_dropped_costs_precision_and_no_write() {
    let shop = Shop::open();
    shop.postgres
        .psql("INSERT INTO product (id, title) VALUES ('p1', 'a')");
    shop.postgres.psql("ALTER TABLE product DROP COLUMN price");
    let events = events_of(&shop, "UPDATE product SET title = 'b'");
    assert_eq!(events.last(), Some(&ChangeEvent::everything("Product")));
    let mapping = Mapping::builder(schema()).table(
        "Product",
        Table::named("product").column("rank", "the rank"),
    );
    let outdated = Outbox::new(mapping.build().unwrap().into(), "test");
    let error = shop
        .runtime
        .block_on(async { outdated.install(&mut connect(&shop.postgres).await).await })
        .unwrap_err();
    assert!(matches!(error, PostgresError::Mismatch { .. }), "{error}");
    assert!(error.to_string().contains("price"), "{error}");
}

#[test]
fn whoever_may_write_a_table_need_not_know_of_the_outbox() {
    let shop = Shop::open();
    shop.postgres
        .psql("CREATE ROLE clerk LOGIN; GRANT INSERT, SELECT ON product TO clerk");
    let events = events_of(
        &shop,
        "SET ROLE clerk; INSERT INTO product (id) VALUES ('p1')",
    );
    assert_eq!(short(&events), ["Product created p1"]);
    // Nor may they write to it.
    let forged = shop.postgres.try_psql(
        "SET ROLE clerk; INSERT INTO mcache.outbox (relation, operation) VALUES ('product', 'everything')",
    );
    assert!(forged.unwrap_err().contains("permission denied"));
}

#[test]
fn partitions_written_to_directly_are_seen() {
    let shop = Shop::open();
    shop.postgres.psql(
        "DROP TABLE sales_channel;
         CREATE TABLE sales_channel (id text, name text, PRIMARY KEY (id)) PARTITION BY LIST (id);
         CREATE TABLE channel_a PARTITION OF sales_channel FOR VALUES IN ('a');
         CREATE TABLE channel_rest PARTITION OF sales_channel DEFAULT",
    );
    shop.install(&shop.outbox);
    let swapped = short(&events_of(&shop, ""));
    assert!(
        swapped.contains(&"SalesChannel updated ".to_owned()),
        "{swapped:?}"
    );
    for (sql, expected) in [
        (
            "INSERT INTO sales_channel VALUES ('a', 'A'), ('b', 'B')",
            vec!["SalesChannel created a,b"],
        ),
        (
            "UPDATE channel_a SET name = 'AA'",
            vec!["SalesChannel updated a"],
        ),
        // Moves the row to another partition.
        (
            "UPDATE sales_channel SET id = 'c' WHERE id = 'a'",
            vec!["SalesChannel created c", "SalesChannel deleted a"],
        ),
        (
            "DELETE FROM channel_rest WHERE id = 'b'",
            vec!["SalesChannel deleted b"],
        ),
    ] {
        let mut seen = short(&events_of(&shop, sql));
        seen.sort();
        assert_eq!(seen, expected, "{sql}");
    }
}

#[test]
fn installing_again_changes_nothing_and_repairs_what_is_missing() {
    let shop = Shop::open();
    let triggers = || {
        shop.postgres.psql(
            "SELECT tgrelid::regclass, tgname, oid FROM pg_trigger WHERE tgname LIKE 'mcache%' ORDER BY 1, 2",
        )
    };
    let first = triggers();
    assert_eq!(first.lines().count(), 5 * 4);
    shop.install(&shop.outbox);
    assert_eq!(triggers(), first);

    // Installed while a writer is at work: a table that has its triggers is not locked.
    let writer = shop.runtime.block_on(connect(&shop.postgres));
    shop.runtime
        .block_on(writer.batch_execute("BEGIN; INSERT INTO product (id) VALUES ('p1')"))
        .unwrap();
    shop.install(&shop.outbox);
    shop.runtime
        .block_on(writer.batch_execute("COMMIT"))
        .unwrap();

    shop.postgres.psql(
        "DO $$ DECLARE t name; BEGIN
           SELECT tgname INTO t FROM pg_trigger WHERE tgrelid = 'product'::regclass AND tgname LIKE 'mcache%update';
           EXECUTE format('DROP TRIGGER %I ON product', t);
           SELECT tgname INTO t FROM pg_trigger WHERE tgrelid = 'product'::regclass AND tgname LIKE 'mcache%insert';
           EXECUTE format('ALTER TABLE product DISABLE TRIGGER %I', t);
         END $$",
    );
    shop.install(&shop.outbox);
    assert_eq!(triggers().lines().count(), 5 * 4);
    let seen = short(&events_of(
        &shop,
        "UPDATE product SET title = 'x'; INSERT INTO product (id) VALUES ('p2')",
    ));
    assert!(seen.contains(&"Product updated p1".to_owned()), "{seen:?}");
    assert!(seen.contains(&"Product created p2".to_owned()), "{seen:?}");
}

#[test]
fn a_smaller_mapping_leaves_the_triggers_of_others_and_uninstalling_drops_everything() {
    let shop = Shop::open();
    let small = mcache_graph::Schema::builder()
        .entity(mcache_graph::Entity::new("SalesChannel").field("name"))
        .build()
        .unwrap();
    let small = Outbox::new(
        Mapping::builder(small.into()).build().unwrap().into(),
        "test",
    );
    shop.install(&small);
    let count = || {
        shop.postgres
            .psql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'mcache%'")
    };
    assert_eq!(count(), "20", "they belong to the other consumer");
    // An outbox of another name is another outbox.
    shop.install(&small.clone().schema("it's another"));
    assert_eq!(
        shop.postgres.psql(
            "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgname LIKE 'it''s%'"
        ),
        "4"
    );
    shop.runtime.block_on(async {
        small
            .uninstall(&mut connect(&shop.postgres).await)
            .await
            .unwrap();
        // Uninstalling what is not there is no error.
        small
            .uninstall(&mut connect(&shop.postgres).await)
            .await
            .unwrap();
    });
    assert_eq!(count(), "0");
    shop.postgres
        .psql("INSERT INTO sales_channel VALUES ('c', 'C')");
    let waiting = shop
        .postgres
        .psql("SELECT relation, operation FROM \"it's another\".outbox");
    assert_eq!(waiting, "\"public\".\"sales_channel\"|insert");
}

#[test]
fn an_outbox_of_a_newer_version_is_left_alone() {
    let shop = Shop::open();
    shop.postgres
        .psql("UPDATE mcache.layout SET version = 1000");
    let error = shop
        .runtime
        .block_on(async {
            shop.outbox
                .install(&mut connect(&shop.postgres).await)
                .await
        })
        .unwrap_err();
    assert!(
        matches!(error, PostgresError::Newer { found: 1000, .. }),
        "{error}"
    );
}

#[test]
fn a_schema_that_holds_tables_of_others_is_neither_used_nor_dropped() {
    let shop = Shop::open();
    let there = || {
        shop.postgres
            .psql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    };
    let before = there();
    let public = Outbox::new(mapping(), "test").schema("public");
    let run = |outbox: &Outbox, installs: bool| {
        shop.runtime.block_on(async {
            let mut client = connect(&shop.postgres).await;
            match installs {
                true => outbox.install(&mut client).await,
                false => outbox.uninstall(&mut client).await,
            }
        })
    };
    let is_refused = |result: Result<(), PostgresError>, name: &str| {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, PostgresError::Shared { found, .. } if found == name),
            "{error}"
        );
    };
    is_refused(run(&public, true), "public.link_product_sales_channel");
    is_refused(run(&public, false), "public.link_product_sales_channel");
    assert_eq!(there(), before);
    // A view that is added later stops no release.
    shop.postgres
        .psql("CREATE VIEW mcache.waiting AS SELECT count(*) FROM mcache.outbox");
    run(&shop.outbox, true).unwrap();
    is_refused(run(&shop.outbox, false), "mcache.waiting");
    shop.postgres.psql("DROP VIEW mcache.waiting");
    run(&shop.outbox, false).unwrap();
}

#[test]
fn a_table_that_does_not_exist_is_named_and_nothing_is_installed() {
    let shop = Shop::open();
    let mapping = Mapping::builder(schema())
        .table("Product", Table::named("product\"; DROP TABLE product; --"))
        .build()
        .unwrap();
    let outbox = Outbox::new(mapping.into(), "test").schema("other");
    let error = shop
        .runtime
        .block_on(async { outbox.install(&mut connect(&shop.postgres).await).await })
        .unwrap_err();
    assert!(
        matches!(&error, PostgresError::Mismatch { entity, .. } if &**entity == "Product"),
        "{error}"
    );
    assert_eq!(
        shop.postgres
            .psql("SELECT count(*) FROM pg_namespace WHERE nspname = 'other'"),
        "0"
    );
    assert_eq!(shop.postgres.psql("SELECT count(*) FROM product"), "0");
}

/// Functions, operators and types by which a writer could have the trigger function do something else: each refuses.
const SHADOWS: &str = r#"
    CREATE SCHEMA shadow;
    CREATE DOMAIN shadow.text AS pg_catalog.text CHECK (false);
    CREATE DOMAIN shadow.jsonb AS pg_catalog.jsonb CHECK (false);
    CREATE DOMAIN shadow.timestamptz AS pg_catalog.timestamptz CHECK (false);
    DO $$
    DECLARE
      operator record;
      wanted pg_catalog.text[] := ARRAY['count', 'sum', 'lower', 'octet_length', 'encode', 'sha256', 'convert_to', 'to_jsonb',
        'jsonb_build_object', 'jsonb_build_array', 'jsonb_agg', 'pg_column_size', 'clock_timestamp', 'isfinite', 'to_char',
        'timezone', 'range_contains_elem', 'textout', 'int4out', 'int8out', 'array_eq', 'pg_notify', 'wake'];
      kinds pg_catalog.regtype[] := ARRAY['text', 'text[]', 'jsonb', 'int4', 'int8', 'numeric', 'timestamptz', 'bytea', 'bool'];
      kind pg_catalog.regtype;
      name pg_catalog.text;
      body pg_catalog.text := 'LANGUAGE plpgsql AS ''BEGIN RAISE EXCEPTION ''''shadowed''''; END''';
    BEGIN
      FOREACH name IN ARRAY wanted LOOP
        EXECUTE format('CREATE FUNCTION shadow.%I() RETURNS int8 %s', name, body);
        FOREACH kind IN ARRAY kinds LOOP
          EXECUTE format('CREATE FUNCTION shadow.%I(%s) RETURNS %s %s', name, kind, kind, body);
          EXECUTE format('CREATE FUNCTION shadow.%I(%s, pg_catalog.text) RETURNS %s %s', name, kind, kind, body);
        END LOOP;
      END LOOP;
      FOR operator IN SELECT oprname, oprleft::regtype AS l, oprright::regtype AS r, oprresult::regtype AS result,
                             row_number() OVER () AS number
                      FROM pg_operator WHERE oprname IN ('=', '<>', '<', '<=', '>', '>=', '+', '||') AND oprleft <> 0
                        AND oprleft = ANY (kinds || '{anyarray,anycompatiblearray}'::regtype[]) LOOP
        CONTINUE WHEN 'anycompatiblearray'::regtype IN (operator.l, operator.r);
        EXECUTE format('CREATE FUNCTION shadow.o%s(%s, %s) RETURNS %s %s', operator.number, operator.l, operator.r,
                       operator.result, body);
        EXECUTE format('CREATE OPERATOR shadow.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = shadow.o%s)', operator.oprname,
                       operator.l, operator.r, operator.number);
      END LOOP;
    END $$;
    CREATE ROLE clerk LOGIN;
    GRANT USAGE ON SCHEMA shadow TO clerk;
    GRANT ALL ON product TO clerk;
"#;

#[test]
fn no_name_of_a_writers_own_means_something_to_a_trigger() {
    let shop = Shop::open();
    shop.postgres.psql(SHADOWS);
    let shadowed = shop.postgres.try_psql(
        "SET search_path = shadow, pg_catalog; SELECT 1 = 1, lower('A'::pg_catalog.text)",
    );
    assert!(shadowed.unwrap_err().contains("shadowed"));
    let rows = "('p2', repeat('x', 2000), 1, NULL), ('p3', 'c', 2, now())";
    let events = events_of(
        &shop,
        &format!(
            r#"SET ROLE clerk;
            CREATE TEMP TABLE old_rows (id int); CREATE TEMP TABLE new_rows (id int);
            CREATE TEMP TABLE outbox (id int); CREATE TEMP TABLE lease (id int);

            SET search_path = shadow, pg_catalog, public;
            INSERT INTO product (id, title) VALUES ('p1', 'a');
            UPDATE product SET title = 'b';
            RESET search_path;
            INSERT INTO product (id, title, "the rank", deleted_at) VALUES {rows};
            SET search_path = shadow, pg_catalog, public;
            UPDATE product SET title = 'd', deleted_at = NULL;
            DELETE FROM product"#
        ),
    );
    assert_eq!(
        short(&events),
        [
            "Product created p1",
            "Product updated p1",
            "Product created p2",
            "Product updated p1,p2",
            "Product restored p3",
            "Product deleted p1,p2,p3",
        ]
    );
    let trouble = shop
        .postgres
        .psql("SELECT proname FROM pg_proc WHERE pronamespace = 'mcache'::regnamespace AND proname LIKE 'capture%' AND proconfig IS NOT NULL");
    assert_eq!(trouble, "", "every column of this shop is of a plain type");
}

#[test]
fn a_column_whose_type_was_changed_is_not_read_under_the_settings_of_a_session() {
    let shop = Shop::open();
    shop.postgres
        .psql("INSERT INTO product (id, title) VALUES ('p1', 'a')");
    let settings = || {
        shop.postgres.psql(
            "SELECT proname LIKE 'capture_product%', proconfig IS NOT NULL FROM pg_proc
             WHERE pronamespace = 'mcache'::regnamespace AND proname ~ '^capture_(product|sales_channel)_[0-9a-f]{16}$' ORDER BY 1",
        )
    };
    assert_eq!(settings().replace('\n', " "), "f|f t|f");
    for kind in [
        "timestamptz",
        "bytea",
        "double precision",
        "interval",
        "text",
    ] {
        shop.postgres.psql(&format!(
            r#"ALTER TABLE product DROP COLUMN "the rank"; ALTER TABLE product ADD COLUMN "the rank" {kind}"#
        ));
        for update in [
            "UPDATE product SET title = title || 'b'",
            "INSERT INTO product (id) VALUES ('x'), ('y')",
            "DELETE FROM product WHERE title IS NULL",
        ] {
            shop.postgres.psql(update);
            assert_eq!(
                shop.postgres.psql("SELECT operation, trouble IS NOT NULL FROM mcache.outbox ORDER BY xid DESC, id DESC LIMIT 1"),
                "everything|t",
                "{kind}: {update}"
            );
        }
    }
    shop.postgres
        .psql(r#"ALTER TABLE product DROP COLUMN "the rank"; ALTER TABLE product ADD COLUMN "the rank" double precision"#);
    shop.install(&shop.outbox);
    assert_eq!(settings().replace('\n', " "), "f|f t|t");
    shop.postgres
        .psql(r#"SET extra_float_digits = -15; UPDATE product SET "the rank" = 0.123456789"#);
    let captured = "SELECT is_now::text LIKE '%0.123456789%' FROM mcache.outbox ORDER BY xid DESC, id DESC LIMIT 1";
    assert_eq!(shop.postgres.psql(captured), "t");
}
