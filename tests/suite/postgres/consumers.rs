//! Every consumer is told of every change: services, releases, namespaces and tenants share one database.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use harness::wait;
use mcache::change::{ChangeEvent, Invalidator};
use mcache_graph::{ChangeTags, Entity, Field, Schema};
use mcache_postgres::{ConsumerStatus, Mapping, Outbox, Pruned, Table};
use tokio_postgres::NoTls;

use crate::postgres::shop::{Recorder, Shop, connect, tags_of};

/// One service in one release: its mapping, and a cache that writes down what it is told.
struct Service {
    outbox: Outbox,
    schema: Arc<Schema>,
    recorder: Arc<Recorder>,
    invalidator: Option<Invalidator>,
}

impl Service {
    /// Installs and begins to work.
    fn start(shop: &Shop, name: &str, mapping: Mapping) -> Self {
        Self::start_with(shop, Outbox::new(mapping.into(), name))
    }

    fn start_with(shop: &Shop, outbox: Outbox) -> Self {
        shop.install(&outbox);
        let mut service = Self {
            schema: Arc::new(Schema::builder().build().unwrap()),
            outbox,
            recorder: Recorder::new(),
            invalidator: None,
        };
        service.work(shop);
        service
    }

    fn work(&mut self, shop: &Shop) {
        let _inside = shop.runtime.enter();
        let source = self.outbox.source(shop.config(), NoTls);
        let told = self.recorder.clone();
        let builder = Invalidator::builder(source, move |event: &ChangeEvent| {
            told.events.lock().unwrap().push(event.clone());
            Ok(tags_of(event))
        });
        self.invalidator = Some(builder.target(self.recorder.clone()).spawn());
    }

    fn stop(&mut self) {
        self.invalidator = None;
    }

    /// Stops, and from now on holds rows for a millisecond. A process that is slow on a busy machine is not absent.
    fn stop_for_good(&mut self, shop: &Shop) {
        self.stop();
        shop.install(&self.outbox.clone().hold(Duration::from_millis(1)));
    }

    fn with_schema(mut self, schema: Arc<Schema>) -> Self {
        self.schema = schema;
        self
    }

    /// The tags that everything heard so far clears in this release.
    fn clears(&self) -> BTreeSet<String> {
        let tags = ChangeTags::new(self.schema.clone());
        let events = self.recorder.events.lock().unwrap();
        let all = events.iter().flat_map(|event| {
            let tags = tags.of(event).unwrap();
            tags.iter().map(str::to_owned).collect::<Vec<_>>()
        });
        all.collect()
    }
}

fn schema(entities: impl IntoIterator<Item = Entity>) -> Arc<Schema> {
    let builder = entities
        .into_iter()
        .fold(Schema::builder(), |builder, entity| builder.entity(entity));
    Arc::new(builder.build().unwrap())
}

fn mapping(schema: &Arc<Schema>) -> Mapping {
    Mapping::builder(schema.clone()).build().unwrap()
}

fn products(fields: &[&str]) -> Arc<Schema> {
    schema([Entity::new("Product").fields(fields.iter().copied())])
}

fn statuses(shop: &Shop, outbox: &Outbox) -> Vec<ConsumerStatus> {
    shop.runtime
        .block_on(async { outbox.status(&connect(&shop.postgres).await).await.unwrap() })
        .consumers
}

fn prune(shop: &Shop, outbox: &Outbox) -> Pruned {
    shop.runtime.block_on(async {
        outbox
            .prune(&mut connect(&shop.postgres).await)
            .await
            .unwrap()
    })
}

/// A database with the shop's tables and no consumer.
fn empty() -> Shop {
    let shop = Shop::open();
    shop.runtime.block_on(async {
        let mut client = connect(&shop.postgres).await;
        shop.outbox.uninstall(&mut client).await.unwrap();
    });
    shop
}

#[test]
fn a_second_service_takes_no_trigger_from_the_first() {
    let shop = empty();
    let first = Service::start(&shop, "shop", mapping(&products(&["title"])));
    let channels = schema([Entity::new("SalesChannel").field("name")]);
    let second = Service::start(&shop, "search", mapping(&channels));
    shop.postgres.psql(
        "INSERT INTO product (id) VALUES ('p1'); INSERT INTO sales_channel (id) VALUES ('c1')",
    );
    first.recorder.wait_for(&["Product:p1"]);
    second.recorder.wait_for(&["SalesChannel:c1"]);
    wait::until("both have acknowledged", || shop.waiting() == 0);
    assert_eq!(
        first.recorder.count("SalesChannel:c1"),
        0,
        "what it does not know is not read"
    );
}

#[test]
fn two_namespaces_are_told_of_each_change_each() {
    let shop = empty();
    let schema = products(&["title"]);
    let services: Vec<Service> = ["eu@redis", "us@redis"]
        .into_iter()
        .map(|name| Service::start(&shop, name, mapping(&schema)))
        .collect();
    for i in 1..=30 {
        shop.postgres
            .psql(&format!("INSERT INTO product (id) VALUES ('p{i}')"));
    }
    for service in &services {
        service.recorder.wait_for(&["Product:p1", "Product:p30"]);
    }
    wait::until("both have acknowledged", || shop.waiting() == 0);
}

#[test]
fn tenants_in_schemas_of_their_own_keep_their_triggers() {
    let shop = empty();
    let schema = products(&["title"]);
    let tenants: Vec<(String, Service)> = ["a", "b", "c"]
        .into_iter()
        .map(|tenant| {
            let create = format!("CREATE SCHEMA {tenant}; CREATE TABLE {tenant}.product (id text PRIMARY KEY, title text)");
            shop.postgres.psql(&create);
            let mapping = Mapping::builder(schema.clone()).default_schema(tenant).build().unwrap();
            (tenant.to_owned(), Service::start(&shop, "shop", mapping))
        })
        .collect();
    for (tenant, service) in &tenants {
        shop.postgres.psql(&format!(
            "INSERT INTO {tenant}.product VALUES ('of_{tenant}')"
        ));
        service
            .recorder
            .wait_for(&[&format!("Product:of_{tenant}")]);
    }
    wait::until("all have acknowledged", || shop.waiting() == 0);
    for (tenant, service) in &tenants {
        let told = service
            .recorder
            .tags()
            .into_iter()
            .filter(|tag| tag.starts_with("Product:of_"));
        assert_eq!(told.collect::<Vec<_>>(), [format!("Product:of_{tenant}")]);
    }
}

#[test]
fn a_rolling_release_sees_its_new_field_and_its_new_entity_while_the_old_one_runs_and_afterwards() {
    let shop = empty();
    let old_schema = products(&["title"]);
    let new_schema = schema([
        Entity::new("Product")
            .field("title")
            .field(Field::integer("undeclared")),
        Entity::new("SalesChannel").field("name"),
    ]);
    let mut old =
        Service::start(&shop, "shop", mapping(&old_schema)).with_schema(old_schema.clone());
    shop.postgres
        .psql("INSERT INTO product (id, title) VALUES ('p1', 'a')");
    old.recorder.wait_for(&["Product:p1"]);
    let new = Service::start(&shop, "shop", mapping(&new_schema)).with_schema(new_schema.clone());
    // The old one installs once more: a process of it is restarted during the release.
    shop.install(&old.outbox);
    for round in 0..2 {
        for service in [&old, &new] {
            service.recorder.clear();
        }
        shop.postgres.psql(&format!(
            "UPDATE product SET undeclared = {round} WHERE id = 'p1'; INSERT INTO sales_channel (id) VALUES ('c{round}')"
        ));
        new.recorder
            .wait_for(&["Product:p1", &format!("SalesChannel:c{round}")]);
        assert!(
            new.clears().contains("Product:p1#undeclared"),
            "{:?}",
            new.clears()
        );
        old.stop();
    }
    // The old release sees what concerns it, and only that.
    old.recorder.clear();
    old.work(&shop);
    shop.postgres
        .psql("UPDATE product SET undeclared = 7, title = 'b' WHERE id = 'p1'");
    old.recorder.wait_for(&["Product:p1"]);
    assert_eq!(old.recorder.count("SalesChannel:c1"), 0);
    wait::until("both have acknowledged", || shop.waiting() == 0);
}

#[test]
fn a_release_that_is_rolled_back_clears_what_it_missed() {
    let shop = empty();
    let old_schema = products(&["title"]);
    let new_schema = products(&["title", "collection_id"]);
    let outbox = |schema: &Arc<Schema>| Outbox::new(mapping(schema).into(), "shop");
    let mut old = Service::start_with(&shop, outbox(&old_schema));
    old.recorder.wait_for(&["*"]);
    old.stop_for_good(&shop);
    let mut new = Service::start_with(&shop, outbox(&new_schema));
    // The old release has ended for good, as far as its operators know.
    wait::until("the old release is expired and released", || {
        prune(&shop, &new.outbox);
        let old_name = old.outbox.consumer_name();
        statuses(&shop, &new.outbox)
            .iter()
            .any(|status| status.name == old_name && status.expired)
    });
    shop.postgres
        .psql("INSERT INTO product (id) VALUES ('missed')");
    new.recorder.wait_for(&["Product:missed"]);
    wait::until("the old release holds nothing", || shop.waiting() == 0);
    // Back to the old one. Its entries are from before the change it was not told of.
    new.stop();
    old.recorder.clear();
    shop.install(&old.outbox);
    old.work(&shop);
    old.recorder.wait_for(&["*"]);
    shop.postgres
        .psql("INSERT INTO product (id) VALUES ('seen')");
    old.recorder.wait_for(&["Product:seen"]);
}

#[test]
fn a_consumer_that_is_gone_holds_rows_for_as_long_as_it_may_and_clears_everything_when_it_comes_back()
 {
    let shop = empty();
    let schema = products(&["title"]);
    let lost = Outbox::new(mapping(&schema).into(), "lost");
    let mut there = Service::start(&shop, "there", mapping(&schema));
    let mut lost = Service::start_with(&shop, lost);
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p0')");
    lost.recorder.wait_for(&["Product:p0"]);
    lost.stop_for_good(&shop);
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p1')");
    there.recorder.wait_for(&["Product:p1"]);
    wait::until("its absence ends what it holds", || {
        prune(&shop, &there.outbox);
        shop.waiting() == 0
    });
    let name = lost.outbox.consumer_name();
    let status = statuses(&shop, &there.outbox);
    let gone = status.iter().find(|status| status.name == name).unwrap();
    assert!(
        gone.expired && gone.absent_ms > 0 && gone.events == 0,
        "{gone:?}"
    );

    // Its source comes back without an installation: a network that was cut, say.
    lost.recorder.clear();
    lost.work(&shop);
    lost.recorder.wait_for(&["*"]);
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p2')");
    lost.recorder.wait_for(&["Product:p2"]);
    assert_eq!(lost.recorder.count("Product:p1"), 0, "that one is gone");
    there.stop();
}

#[test]
fn a_consumer_that_is_away_holds_up_no_other_and_misses_nothing() {
    let shop = empty();
    let schema = products(&["title"]);
    let there = Service::start(&shop, "there", mapping(&schema));
    let mut away = Service::start(&shop, "away", mapping(&schema));
    away.stop();
    there.recorder.wait_for(&["*"]);
    for i in 1..=20 {
        shop.postgres
            .psql(&format!("INSERT INTO product (id) VALUES ('p{i}')"));
        there.recorder.wait_for(&[&format!("Product:p{i}")]);
    }
    wait::until("the one is done and the other waits", || {
        let status = statuses(&shop, &there.outbox);
        let events: Vec<i64> = status.iter().map(|status| status.events).collect();
        events == [20, 0] && status[0].oldest_ms > 0
    });
    assert_eq!(shop.waiting(), 20);
    away.work(&shop);
    away.recorder.wait_for(&["Product:p1", "Product:p20"]);
    wait::until("nothing waits", || shop.waiting() == 0);
}

#[test]
fn pruning_takes_away_what_no_consumer_needs_and_nothing_else() {
    let shop = empty();
    let wide = schema([
        Entity::new("Product").fields(["title", "collection_id"]),
        Entity::new("SalesChannel").field("name"),
    ]);
    let narrow = products(&["title"]);
    let mut leaving = Service::start(&shop, "leaving", mapping(&wide));
    let staying = Service::start(&shop, "staying", mapping(&narrow));
    let captured = || {
        shop.postgres
            .psql("SELECT relation, columns FROM mcache.capture ORDER BY 1")
    };
    assert_eq!(
        captured(),
        "\"public\".\"product\"|{collection_id,id,title}\n\"public\".\"sales_channel\"|{id,name}"
    );
    // While it is there, nothing is taken from it.
    assert_eq!(prune(&shop, &staying.outbox).narrowed, Vec::<String>::new());
    leaving.stop_for_good(&shop);
    wait::until("it is expired", || {
        let pruned = prune(&shop, &staying.outbox);
        pruned.released == ["\"public\".\"sales_channel\""]
            && pruned.narrowed == ["\"public\".\"product\""]
    });
    assert_eq!(captured(), "\"public\".\"product\"|{id,title}");
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'sales_channel'::regclass AND NOT tgisinternal";
    assert_eq!(shop.postgres.psql(triggers), "0");
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p1')");
    staying.recorder.wait_for(&["Product:p1"]);
}

#[test]
fn an_outbox_of_an_older_layout_is_replaced() {
    let shop = empty();
    // What the layout before consumers had: a table, a function, a trigger.
    shop.postgres.psql(
        "CREATE SCHEMA mcache;
         CREATE TABLE mcache.layout (version integer NOT NULL, one boolean PRIMARY KEY DEFAULT true);
         INSERT INTO mcache.layout VALUES (1);
         CREATE TABLE mcache.outbox (id int);
         CREATE FUNCTION mcache.\"capture_Product\"() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER \"mcache_Product_insert\" AFTER INSERT ON product EXECUTE FUNCTION mcache.\"capture_Product\"()",
    );
    let service = Service::start(&shop, "shop", mapping(&products(&["title"])));
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p1')");
    service.recorder.wait_for(&["Product:p1"]);
    let left = "SELECT count(*) FROM pg_trigger WHERE tgname = 'mcache_Product_insert'";
    assert_eq!(shop.postgres.psql(left), "0");
}

#[test]
fn two_entities_stored_in_one_table_are_both_told() {
    let shop = empty();
    let both = schema([
        Entity::new("Product").field("title"),
        Entity::new("Offer")
            .field("title")
            .field(Field::integer("rank")),
    ]);
    let mapping = Mapping::builder(both)
        .table("Offer", Table::named("product").column("rank", "the rank"))
        .build()
        .unwrap();
    let service = Service::start(&shop, "shop", mapping);
    shop.postgres.psql("INSERT INTO product (id) VALUES ('p1')");
    service.recorder.wait_for(&["Product:p1", "Offer:p1"]);
    service.recorder.clear();
    shop.postgres.psql("UPDATE product SET \"the rank\" = 2");
    service.recorder.wait_for(&["Offer:p1"]);
    assert_eq!(service.recorder.count("Product:p1"), 0);
}

#[test]
fn a_column_that_an_older_release_needs_can_be_dropped() {
    let shop = empty();
    let old = Service::start(
        &shop,
        "shop",
        mapping(&products(&["title", "collection_id"])),
    );
    shop.postgres
        .psql("ALTER TABLE product DROP COLUMN collection_id");
    // The new release comes after the migration.
    let new = Service::start(&shop, "shop", mapping(&products(&["title"])));
    shop.postgres
        .psql("INSERT INTO product (id, title) VALUES ('p1', 'a')");
    for service in [&old, &new] {
        service.recorder.wait_for(&["Product:p1"]);
        service.recorder.clear();
    }
    shop.postgres.psql("UPDATE product SET title = 'b'");
    for service in [&old, &new] {
        service.recorder.wait_for(&["Product:p1"]);
    }
    let events = old.recorder.events.lock().unwrap();
    let changed = events.last().unwrap().changed.as_ref().unwrap();
    assert!(
        changed.contains("collection_id"),
        "what is unknown counts as changed: {changed:?}"
    );
}
