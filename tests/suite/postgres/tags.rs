//! `SELECT mcache.invalidate(...)`: tags cleared from SQL, after the commit of the transaction that says so.

use harness::wait;
use mcache_postgres::Outbox;

use crate::postgres::shop::{Recorder, Shop, connect, mapping};

#[test]
fn tags_named_in_a_transaction_are_cleared_after_its_commit() {
    let shop = Shop::open();
    let recorder = Recorder::new();
    let _invalidator = shop.invalidator(&recorder);
    shop.runtime.block_on(async {
        let client = connect(&shop.postgres).await;
        client
            .batch_execute("BEGIN; SELECT mcache.invalidate(ARRAY['Product:42', 'front page'])")
            .await
            .unwrap();
        shop.postgres.psql(
            "BEGIN; SELECT mcache.invalidate(ARRAY['never']); ROLLBACK; SELECT mcache.invalidate(ARRAY['other'])",
        );
        recorder.wait_for(&["other"]);
        assert_eq!(recorder.count("Product:42"), 0, "not committed");
        client.batch_execute("COMMIT").await.unwrap();
        recorder.wait_for(&["Product:42", "front page"]);
    });
    wait::until("acknowledged", || shop.waiting() == 0);
    assert_eq!(recorder.count("never"), 0);
    shop.postgres
        .psql("SELECT mcache.invalidate('{}'), mcache.invalidate(NULL)");
    for wrong in [
        "ARRAY['a', NULL]",
        "ARRAY[['a'], ['b']]",
        "array_fill('a'::text, ARRAY[10001])",
    ] {
        let refused = shop
            .postgres
            .try_psql(&format!("SELECT mcache.invalidate({wrong})"));
        assert!(
            refused
                .unwrap_err()
                .contains("expected an array of at most"),
            "{wrong}"
        );
    }
    assert_eq!(shop.waiting(), 0);
}

#[test]
fn a_consumer_can_be_named() {
    let shop = Shop::open();
    let (all, one) = (Recorder::new(), Recorder::new());
    let _first = shop.invalidator(&all);
    let other = Outbox::new(mapping(), "eu@cache");
    shop.install(&other);
    let _second = shop.invalidator_with(
        other.source(shop.config(), tokio_postgres::NoTls),
        &one,
        |builder| builder,
    );
    shop.postgres.psql(
        "SELECT mcache.invalidate(ARRAY['for one'], 'eu@cache'); SELECT mcache.invalidate(ARRAY['for all'])",
    );
    one.wait_for(&["for one", "for all"]);
    all.wait_for(&["for all"]);
    wait::until("acknowledged by both", || shop.waiting() == 0);
    assert_eq!(all.count("for one"), 0);
    // By its whole name as well, which is of one release.
    let name = other.consumer_name();
    shop.postgres.psql(&format!(
        "SELECT mcache.invalidate(ARRAY['for this release'], '{name}')"
    ));
    one.wait_for(&["for this release"]);
}

#[test]
fn whoever_is_granted_it_may_clear_tags_and_do_nothing_else() {
    let shop = Shop::open();
    let recorder = Recorder::new();
    let _invalidator = shop.invalidator(&recorder);
    shop.postgres
        .psql("CREATE ROLE clerk; GRANT USAGE ON SCHEMA mcache TO clerk");
    shop.postgres
        .psql("SET ROLE clerk; SET search_path = ''; SELECT mcache.invalidate(ARRAY['a'])");
    recorder.wait_for(&["a"]);
    for forbidden in ["SELECT * FROM mcache.outbox", "DELETE FROM mcache.consumer"] {
        let refused = shop
            .postgres
            .try_psql(&format!("SET ROLE clerk; {forbidden}"));
        assert!(refused.unwrap_err().contains("permission denied"));
    }
}

#[test]
#[ignore = "compiles sqlx and diesel: make test-sql, make test-long"]
fn transactions_of_sqlx_and_diesel_clear_what_they_name() {
    let shop = Shop::open();
    shop.postgres
        .psql("CREATE TABLE settings (banner text); INSERT INTO settings VALUES ('none')");
    let recorder = Recorder::new();
    let _invalidator = shop.invalidator(&recorder);
    let top = harness::locate::workspace();
    let database = format!(
        "postgresql:///postgres?host={}&user=postgres",
        shop.postgres.socket_dir().display()
    );
    let ended = std::process::Command::new(env!("CARGO"))
        .args(["run", "--locked", "--manifest-path"])
        .arg(top.join("examples/sql/Cargo.toml"))
        .env("CARGO_TARGET_DIR", top.join("target/sql"))
        .env("DATABASE_URL", database)
        .status()
        .unwrap();
    assert!(ended.success(), "{ended}");
    recorder.wait_for(&["banner sqlx", "banner diesel", "front page"]);
    wait::until("acknowledged", || shop.waiting() == 0);
    assert_eq!(
        recorder.count("banner never"),
        0,
        "what was rolled back is not told"
    );
    assert_eq!(shop.postgres.psql("SELECT banner FROM settings"), "diesel");
}
