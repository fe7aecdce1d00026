//! Writers, databases and commands that capture has to live with.

use std::time::Duration;

use harness::wait;
use mcache_postgres::Outbox;
use tokio_postgres::{Client, Config, NoTls};

use super::shop::{Recorder, Shop, connect, mapping};

/// A connection with a transaction that stays open after `sql`.
fn open(shop: &Shop, sql: &str) -> Client {
    shop.runtime.block_on(async {
        let client = connect(&shop.postgres).await;
        client.batch_execute(sql).await.unwrap();
        client
    })
}

#[test]
fn where_transactions_are_serializable_no_writer_fails_because_of_a_source() {
    let shop = Shop::open_with(
        &[
            ("fsync", "off"),
            ("default_transaction_isolation", "serializable"),
        ],
        |outbox| outbox,
    );
    let recorder = Recorder::new();
    let _invalidator = shop.invalidator(&recorder);
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p0')");
    recorder.wait_for(&["Product:p0"]);
    for round in 1..=3 {
        let insert = format!("BEGIN; INSERT INTO product (id) VALUES ('p{round}')");
        let writer = open(&shop, &insert);
        // What the writer asked about is written by the source, which reads what another writes meanwhile.
        let lease = || shop.postgres.psql("SELECT xmin, until FROM mcache.lease");
        let before = lease();
        let other = format!("other{round}");
        shop.postgres
            .psql(&format!("INSERT INTO product (id) VALUES ('{other}')"));
        recorder.wait_for(&[&format!("Product:{other}")]);
        wait::until("the lease is renewed", || lease() != before);
        let committed = shop.runtime.block_on(writer.batch_execute("COMMIT"));
        committed.unwrap();
        recorder.wait_for(&[&format!("Product:p{round}")]);
    }
}

#[test]
fn a_transaction_that_drops_a_table_of_its_own_keeps_no_look_from_clearing() {
    let shop = Shop::open();
    shop.postgres
        .psql("ALTER TABLE product DISABLE TRIGGER USER");
    let _busy = open(
        &shop,
        "BEGIN; CREATE TEMP TABLE mine (id int); DROP TABLE mine",
    );
    let recorder = Recorder::new();
    let source = shop.source().look_interval(Duration::from_millis(100));
    let _invalidator = shop.invalidator_with(source, &recorder, |builder| builder);
    recorder.wait_for(&["Product:*"]);
    // At each look, not only at the first.
    recorder.clear();
    recorder.wait_for(&["Product:*"]);
}

#[test]
fn tables_that_come_and_go_clear_nothing_of_others() {
    let shop = Shop::open();
    let temporary = "BEGIN; CREATE TEMP TABLE mine (id int); ALTER TABLE mine ADD COLUMN name text; DROP TABLE mine";
    let _busy = open(&shop, temporary);
    shop.postgres.psql(&format!("{temporary}; COMMIT"));
    assert_eq!(shop.waiting(), 0);
    // One that concerns another is noticed all the same.
    let _altering = open(
        &shop,
        "BEGIN; ALTER TABLE sales_channel ADD COLUMN more text",
    );
    shop.postgres
        .psql("ALTER TABLE product ALTER COLUMN title TYPE text USING title || '!'");
    assert_eq!(
        shop.postgres
            .psql("SELECT relation, operation FROM mcache.outbox"),
        "\"public\".\"product\"|everything"
    );
}

#[test]
fn a_text_that_has_no_unicode_stops_no_source() {
    let shop = Shop::open();
    shop.postgres.psql(
        "CREATE DATABASE bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'",
    );
    let mut config: Config = shop.config();
    config.dbname("bytes");
    let run = |sql: &str| {
        shop.runtime.block_on(async {
            let (client, connection) = config.connect(NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute(sql).await.unwrap();
        });
    };
    run(super::shop::TABLES);
    let outbox = Outbox::new(mapping(), "test");
    shop.runtime
        .block_on(outbox.install_with(config.clone(), NoTls))
        .unwrap();
    run("UPDATE mcache.position SET clear = false");
    let recorder = Recorder::new();
    let source = outbox.source(config.clone(), NoTls);
    let _invalidator = shop.invalidator_with(source, &recorder, |builder| builder);
    run("INSERT INTO product (id) VALUES ('p1')");
    recorder.wait_for(&["Product:p1"]);
    run(r"INSERT INTO product (id, title) VALUES ('p2', E'caf\351')");
    run("INSERT INTO sales_channel (id) VALUES ('c1')");
    recorder.wait_for(&["SalesChannel:c1"]);
    run(r"INSERT INTO product (id, title) VALUES (E'p\351', 'x'), ('p4', E'\377')");
    run("INSERT INTO sales_channel (id) VALUES ('c2')");
    recorder.wait_for(&["SalesChannel:c2", "Product:*"]);
}

#[test]
fn writers_go_on_while_the_outbox_is_taken_away() {
    let shop = Shop::open();
    for round in 0..4 {
        shop.install(&shop.outbox);
        shop.runtime.block_on(async {
            let mut remover = connect(&shop.postgres).await;
            let mut writers = Vec::new();
            for number in 0..2 {
                let writer = connect(&shop.postgres).await;
                writers.push(tokio::spawn(async move {
                    for i in 0..100 {
                        let id = format!("w{number}r{round}n{i}");
                        let write = format!(
                            "BEGIN; INSERT INTO product (id) VALUES ('{id}');
                             UPDATE product SET title = 'a' WHERE id = '{id}'; COMMIT"
                        );
                        writer.batch_execute(&write).await.unwrap();
                    }
                }));
            }
            shop.outbox.uninstall(&mut remover).await.unwrap();
            for writer in writers {
                writer.await.unwrap();
            }
        });
    }
}

/// An installation that needs two tables, one of which a transaction of others holds for long: those who write the
/// other one are let through each time that it waits in vain.
#[test]
fn who_waits_for_one_table_keeps_no_writer_out_of_another_for_long() {
    let shop = Shop::open();
    let triggers = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal
                    AND tgrelid IN ('product'::regclass, 'product_variant'::regclass)";
    assert_eq!(shop.postgres.psql(triggers), "8");
    for task in ["install", "prune", "uninstall"] {
        if task == "install" {
            shop.postgres.psql(
                "DO $$ DECLARE t record; BEGIN
                   FOR t IN SELECT tgname, tgrelid::regclass AS of FROM pg_trigger WHERE NOT tgisinternal
                            AND tgrelid IN ('product'::regclass, 'product_variant'::regclass)
                   LOOP EXECUTE format('DROP TRIGGER %I ON %s', t.tgname, t.of); END LOOP; END $$",
            );
        } else if task == "prune" {
            // All that it captured is captured for none.
            shop.postgres.psql("DELETE FROM mcache.consumer");
        } else {
            shop.install(&shop.outbox);
        }
        shop.postgres
            .psql("INSERT INTO product (id) VALUES ('held') ON CONFLICT DO NOTHING");
        let holder = open(
            &shop,
            "BEGIN; INSERT INTO product_variant (id) VALUES (gen_random_uuid())",
        );
        shop.runtime.block_on(async {
            let mut client = connect(&shop.postgres).await;
            let pid = "SELECT pg_backend_pid()";
            let of = client.query_one(pid, &[]).await.unwrap().get::<_, i32>(0);
            let watch = connect(&shop.postgres).await;
            let outbox = shop.outbox.clone();
            let work = tokio::spawn(async move {
                match task {
                    "install" => outbox.install(&mut client).await,
                    "prune" => outbox.prune(&mut client).await.map(drop),
                    _ => outbox.uninstall(&mut client).await,
                }
            });
            for n in 0..3 {
                // It waits for the held table while it has locked the other.
                let waits = "SELECT xact_start::text FROM pg_stat_activity AS a JOIN pg_locks AS w USING (pid)
                             JOIN pg_locks AS h USING (pid)
                             WHERE pid = $1 AND NOT w.granted AND w.relation = 'product_variant'::regclass
                               AND h.granted AND h.relation = 'product'::regclass
                               AND h.mode IN ('ShareRowExclusiveLock', 'AccessExclusiveLock')";
                while watch.query_opt(waits, &[&of]).await.unwrap().is_none() {
                    assert!(!work.is_finished(), "{task} does not wait");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let writer = connect(&shop.postgres).await;
                let writing = writer.query_one(pid, &[]).await.unwrap().get::<_, i32>(0);
                let write = tokio::spawn(async move {
                    let insert = "INSERT INTO product (id) VALUES (gen_random_uuid())";
                    writer.batch_execute(insert).await
                });
                // Those transactions of the installation that it waits for.
                let mut blocked_by = std::collections::BTreeSet::new();
                let blocks = "SELECT xact_start::text FROM pg_stat_activity
                              WHERE pid = $1 AND $1 = ANY (pg_blocking_pids($2))";
                while !write.is_finished() {
                    let found = watch.query_opt(blocks, &[&of, &writing]).await.unwrap();
                    blocked_by.extend(found.and_then(|row| row.get::<_, Option<String>>(0)));
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                write.await.unwrap().unwrap();
                assert!(blocked_by.len() <= 1, "{task}, write {n}: {blocked_by:?}");
                assert!(!work.is_finished(), "{task}: the table is still held");
            }
            holder.batch_execute("COMMIT").await.unwrap();
            work.await.unwrap().unwrap();
        });
        let left = if task == "install" { "8" } else { "0" };
        assert_eq!(shop.postgres.psql(triggers), left, "{task}");
    }
}
