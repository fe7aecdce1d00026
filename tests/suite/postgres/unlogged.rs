//! Tables that a crash empties: what was waiting in them is gone, so every consumer clears everything it has.

use std::time::Duration;

use harness::{Postgres, wait};
use mcache_postgres::Outbox;
use tokio_postgres::NoTls;

use crate::postgres::shop::{Down, Recorder, Shop, TABLES, mapping};

/// Statements that wait, an application's own tag among them.
const WAITING: &str =
    "INSERT INTO product (id) VALUES ('lost'); SELECT mcache.invalidate(ARRAY['front page'])";

#[test]
fn after_a_crash_that_emptied_the_outbox_every_consumer_clears_everything_it_has() {
    let mut shop = Shop::open_with(&[("fsync", "off")], Outbox::unlogged);
    // Of a service that was never told: what counts is how the tables are.
    let other = Outbox::new(mapping(), "other");
    shop.install(&other);
    shop.nothing_to_clear();
    let (here, later) = (Recorder::new(), Recorder::new());
    let _first = shop.invalidator(&here);
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p1')");
    here.wait_for(&["Product:p1"]);
    let source = || other.source(shop.config(), NoTls);
    let second = shop.invalidator_with(source(), &later, |builder| builder);
    later.wait_for(&["Product:p1"]);
    drop(second);

    here.set_down(Some(Down::Refuses));
    shop.postgres.psql(WAITING);
    here.clear();
    later.clear();
    shop.postgres.kill();
    here.set_down(None);
    shop.postgres.start_again();
    here.wait_for(&["*"]);
    // It finds an outbox that the first has begun anew, and is unknown in it.
    let source = other.source(shop.config(), NoTls);
    let _second = shop.invalidator_with(source, &later, |builder| builder);
    later.wait_for(&["*"]);

    // From here on as ever.
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p2')");
    here.wait_for(&["Product:p2"]);
    later.wait_for(&["Product:p2"]);
    wait::until("acknowledged by both", || shop.waiting() == 0);
    assert_eq!(
        (here.count("*"), later.count("*")),
        (1, 1),
        "it was done once"
    );
}

#[test]
fn after_a_crash_logged_tables_have_everything_that_waited() {
    let mut shop = Shop::open();
    let here = Recorder::new();
    let _invalidator = shop.invalidator(&here);
    here.set_down(Some(Down::Refuses));
    shop.postgres.psql(WAITING);
    here.clear();
    shop.postgres.kill();
    here.set_down(None);
    shop.postgres.start_again();
    here.wait_for(&["Product:lost", "front page"]);
    wait::until("acknowledged", || shop.waiting() == 0);
    assert_eq!(here.count("*"), 0);
}

#[test]
fn a_table_of_the_application_that_a_crash_has_emptied_is_cleared() {
    let mut shop = Shop::open();
    shop.postgres.psql(
        "ALTER TABLE product_variant DROP CONSTRAINT product_variant_product_id_fkey;
         ALTER TABLE product SET UNLOGGED; INSERT INTO product (id) VALUES ('p1')",
    );
    let here = Recorder::new();
    let source = shop.source().look_interval(Duration::from_millis(100));
    let _invalidator = shop.invalidator_with(source, &here, |builder| builder);
    here.wait_for(&["Product:p1"]);
    wait::until("acknowledged", || shop.waiting() == 0);
    here.clear();
    shop.postgres.kill();
    shop.postgres.start_again();
    assert_eq!(shop.postgres.psql("SELECT count(*) FROM product"), "0");
    here.wait_for(&["Product:*"]);
    assert_eq!(here.count("ProductVariant:*"), 0, "these are still there");
}

/// What docs/postgres.md says a source needs.
const ROLE: &str = "CREATE ROLE app LOGIN; GRANT USAGE ON SCHEMA mcache TO app;
    GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA mcache TO app; GRANT DELETE ON mcache.outbox TO app";

#[test]
fn a_source_that_may_not_register_its_consumer_again_clears_at_each_look_until_somebody_does() {
    let shop = Shop::open();
    shop.postgres.psql(ROLE);
    let recorder = Recorder::new();
    let mut config = shop.config();
    config.user("app");
    let source = shop
        .outbox
        .source(config, NoTls)
        .look_interval(Duration::from_millis(100));
    let invalidator = shop.invalidator_with(source, &recorder, |builder| builder);
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p1')");
    recorder.wait_for(&["Product:p1"]);
    // Given up while it was cut off, say.
    shop.postgres.psql(
        "UPDATE mcache.consumer SET expired_at = now();
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'",
    );
    wait::until("everything is cleared again and again", || {
        recorder.count("*") >= 3
    });
    wait::until("and the lag shows it", || {
        invalidator.stats().lag > Duration::from_secs(2)
    });
    shop.install(&shop.outbox);
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p2')");
    recorder.wait_for(&["Product:p2"]);
    wait::until("the lag is over", || {
        invalidator.stats().lag == Duration::ZERO
    });
}

/// A database that subscribes to everything `shop` publishes.
fn subscriber() -> Postgres {
    let subscriber = Postgres::start_with(&[("fsync", "off"), ("wal_level", "logical")]);
    subscriber.psql(TABLES);
    subscriber
}

#[test]
fn a_publication_for_all_tables_carries_logged_tables_and_no_unlogged_ones() {
    let settings = [("fsync", "off"), ("wal_level", "logical")];
    for logged in [true, false] {
        let options = |outbox: Outbox| match logged {
            true => outbox,
            false => outbox.unlogged(),
        };
        let shop = Shop::open_with(&settings, options);
        shop.postgres
            .psql("CREATE PUBLICATION everything FOR ALL TABLES");
        let ours = shop
            .postgres
            .psql("SELECT count(*) FROM pg_publication_tables WHERE schemaname = 'mcache'");
        let subscriber = subscriber();
        let subscribe = format!(
            "CREATE SUBSCRIPTION mine CONNECTION '{}' PUBLICATION everything",
            shop.postgres.conninfo()
        );
        let recorder = Recorder::new();
        let _invalidator = shop.invalidator(&recorder);
        if logged {
            assert_ne!(ours, "0");
            let refused = subscriber.try_psql(&subscribe).unwrap_err();
            assert!(refused.contains("mcache"), "{refused}");
            // With tables of ours the subscriber takes it; with one schema published it need not have them.
            shop.postgres.psql(
                "DROP PUBLICATION everything; CREATE PUBLICATION everything FOR TABLES IN SCHEMA public",
            );
        } else {
            assert_eq!(ours, "0");
        }
        subscriber.psql(&subscribe);
        shop.postgres.psql("INSERT INTO product (id) VALUES ('p1')");
        recorder.wait_for(&["Product:p1"]);
        wait::until("the subscriber has it", || {
            subscriber.psql("SELECT count(*) FROM product") == "1"
        });
    }
}

#[test]
fn what_logical_replication_applies_is_cleared_at_each_look_of_the_subscriber() {
    let settings = [("fsync", "off"), ("wal_level", "logical")];
    let origin = Postgres::start_with(&settings);
    origin.psql(TABLES);
    origin.psql("CREATE PUBLICATION shop FOR TABLE product");
    let shop = Shop::open_with(&settings, |outbox| outbox);
    shop.postgres.psql(&format!(
        "CREATE SUBSCRIPTION mine CONNECTION '{}' PUBLICATION shop",
        origin.conninfo()
    ));
    wait::until("the tables are in step", || {
        shop.postgres
            .psql("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'")
            == "0"
    });
    let before = shop.waiting();
    origin.psql("INSERT INTO product (id) VALUES ('p1')");
    wait::until("it is applied", || {
        shop.postgres.psql("SELECT count(*) FROM product") == "1"
    });
    // If this fails one day, PostgreSQL has changed for the better.
    assert_eq!(shop.waiting(), before);
    let recorder = Recorder::new();
    let source = shop.source().look_interval(Duration::from_millis(50));
    let _invalidator = shop.invalidator_with(source, &recorder, |builder| builder);
    for _ in 0..3 {
        recorder.clear();
        recorder.wait_for(&["Product:*"]);
    }
    assert_eq!(
        recorder.count("SalesChannel:*"),
        0,
        "no subscription fills it"
    );
    shop.postgres.psql("DROP SUBSCRIPTION mine");
    wait::until("its changes are captured as ever", || {
        shop.postgres
            .psql("SELECT count(*) FROM mcache.seen WHERE NOT captured")
            == "0"
    });
}
