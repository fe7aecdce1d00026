//! An outbox that another version of this package made.

use crate::postgres::shop::{Recorder, Shop, connect};

#[test]
fn an_outbox_of_an_earlier_definition_is_brought_up_to_date_under_writers() {
    let shop = Shop::open();
    let recorder = Recorder::new();
    let _invalidator = shop.invalidator(&recorder);
    for round in 0..5 {
        shop.postgres.psql(
            "UPDATE mcache.layout SET definition = 'earlier'; UPDATE mcache.capture SET definition = 'earlier';
             DROP FUNCTION mcache.wake(text); CREATE FUNCTION mcache.wake() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER wake AFTER INSERT ON mcache.outbox DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION mcache.wake();
             CREATE FUNCTION mcache.wake(of_relation text) RETURNS void LANGUAGE sql AS ''",
        );
        shop.runtime.block_on(async {
            let writer = connect(&shop.postgres).await;
            let mut installer = connect(&shop.postgres).await;
            let write = async {
                for i in 0..100 {
                    let insert = format!("INSERT INTO product (id) VALUES ('r{round}n{i}')");
                    writer.batch_execute(&insert).await.unwrap();
                }
            };
            let (installed, ()) = tokio::join!(shop.outbox.install(&mut installer), write);
            installed.unwrap();
        });
        recorder.wait_for(&[&format!("Product:r{round}n99")]);
        let left = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'mcache.outbox'::regclass AND NOT tgisinternal";
        assert_eq!(shop.postgres.psql(left), "0");
    }
}
