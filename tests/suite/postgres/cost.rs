//! What capturing costs writers: independent of how many consumers there are, counted, and timed for a reader.

use std::time::Instant;

use harness::wait;
use mcache::change::{ChangeEvent, Invalidator};
use mcache_postgres::Outbox;
use tokio_postgres::NoTls;

use crate::postgres::shop::{Recorder, Shop, connect, mapping, tags_of};

#[test]
fn ten_consumers_cost_a_writer_what_one_does() {
    let shop = Shop::open();
    let mut invalidators = Vec::new();
    let commits = 500;
    let mut written = Vec::new();
    for consumers in [1, 10] {
        while invalidators.len() < consumers {
            let outbox = Outbox::new(mapping(), format!("consumer {}", invalidators.len()));
            shop.install(&outbox);
            let recorder = Recorder::new();
            let source = outbox.source(shop.config(), NoTls);
            let _inside = shop.runtime.enter();
            let builder = Invalidator::builder(source, |event: &ChangeEvent| Ok(tags_of(event)));
            invalidators.push((builder.target(recorder.clone()).spawn(), recorder));
        }
        shop.postgres
            .psql("UPDATE mcache.consumer SET expired_at = now() WHERE base = 'test'");
        // Ids are counted, so sessions are not to take them a hundred at a time.
        shop.postgres
            .psql("ALTER TABLE mcache.outbox ALTER COLUMN id SET CACHE 1");
        let inserted = || -> i64 {
            let count = shop.postgres.psql(
                "SELECT pg_sequence_last_value(pg_get_serial_sequence('mcache.outbox', 'id'))",
            );
            count.parse().unwrap_or(0)
        };
        let before = inserted();
        let began = Instant::now();
        shop.runtime.block_on(async {
            let client = connect(&shop.postgres).await;
            for i in 0..commits {
                let insert = format!("INSERT INTO product (id) VALUES ('c{consumers}n{i}')");
                client.batch_execute(&insert).await.unwrap();
            }
        });
        let rate = f64::from(commits) / began.elapsed().as_secs_f64();
        written.push(inserted() - before);
        println!("{consumers} consumers: {rate:.0} commits a second by one writer");
        for (_, recorder) in &invalidators {
            recorder.wait_for(&[&format!("Product:c{consumers}n{}", commits - 1)]);
        }
        wait::until("every consumer has acknowledged", || shop.waiting() == 0);
    }
    assert_eq!(
        written,
        [i64::from(commits); 2],
        "one row of the outbox a statement"
    );
}

#[test]
fn an_open_writing_transaction_makes_no_look_more_expensive() {
    let shop = Shop::open();
    let recorder = Recorder::new();
    let _invalidator = shop.invalidator(&recorder);
    shop.runtime.block_on(async {
        let old = connect(&shop.postgres).await;
        old.batch_execute("BEGIN; INSERT INTO product (id) VALUES ('old')").await.unwrap();
        let client = connect(&shop.postgres).await;
        for i in 0..2_000 {
            let insert = format!("INSERT INTO product (id) VALUES ('n{i}')");
            client.batch_execute(&insert).await.unwrap();
        }
        recorder.wait_for(&["Product:n1999"]);
        wait::until("acknowledged", || shop.waiting() == 0);
        // The dead rows are still there: the old transaction could see them.
        let explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT TEXT) SELECT * FROM mcache.outbox AS o, mcache.position AS p
            WHERE o.xid >= pg_snapshot_xmax(p.acknowledged)";
        let plan = shop.postgres.psql(&format!("SET enable_seqscan = off; {explain}"));
        let touched: u32 = plan
            .lines()
            // Planning reads the catalogue, whose size is no matter of ours.
            .take_while(|line| line.trim() != "Planning:")
            .filter_map(|line| line.trim().strip_prefix("Buffers: shared hit="))
            .filter_map(|rest| rest.split_whitespace().next()?.parse().ok())
            .max()
            .unwrap();
        assert!(touched < 60, "2,000 dead rows were walked over:\n{plan}");
        // Nor are they by the statements of a source.
        let counted = || -> (u64, u64) {
            let counts = shop.postgres.psql(
                "SELECT idx_scan, idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'outbox_pkey'",
            );
            let (scans, entries) = counts.split_once('|').unwrap();
            (scans.parse().unwrap(), entries.parse().unwrap())
        };
        let before = counted();
        for i in 2_000..2_050 {
            let insert = format!("INSERT INTO product (id) VALUES ('n{i}')");
            client.batch_execute(&insert).await.unwrap();
            recorder.wait_for(&[&format!("Product:n{i}")]);
        }
        wait::until("the looks are counted", || counted().0 >= before.0 + 100);
        let entries = counted().1 - before.1;
        assert!(entries < 50 * 2_000 / 4, "{entries} entries of the index were read for 50 rows");
        old.batch_execute("COMMIT").await.unwrap();
    });
    recorder.wait_for(&["Product:old"]);
}
