//! What the tests of PostgreSQL share: a small shop in a database, and a cache that writes down what it is told.
//!
//! Knows nothing of Redis: where a test needs the real cache it brings one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{Postgres, wait};
use mcache::change::{
    BoxError, BoxFuture, ChangeEvent, InvalidationTarget, Invalidator, InvalidatorBuilder,
};
use mcache_graph::{Entity, Field, Relation, Schema};
use mcache_postgres::{Mapping, Outbox, OutboxSource, Table};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config, NoTls};

use crate::support::runtime::runtime;

/// The tables of the shop, with names that need quoting where a mapping can say them.
pub const TABLES: &str = r#"
    CREATE TABLE product_collection (id text PRIMARY KEY, title text);
    CREATE TABLE product (
        id text PRIMARY KEY, title text, "the rank" int, price numeric, metadata jsonb, collection_id text,
        updated_at timestamptz DEFAULT now(), deleted_at timestamptz, undeclared int);
    CREATE TABLE product_variant (
        id text PRIMARY KEY, sku text, product_id text REFERENCES product ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE sales_channel (id text PRIMARY KEY, name text);
    CREATE TABLE link_product_sales_channel (
        product_id text, sales_channel_id text, PRIMARY KEY (product_id, sales_channel_id));
"#;

/// The schema over them.
pub fn schema() -> Arc<Schema> {
    let schema = Schema::builder()
        .entity(Entity::new("ProductCollection").field("title"))
        .entity(
            Entity::new("Product")
                .fields(["title", "collection_id"])
                .field(Field::integer("rank"))
                .field(Field::number("price"))
                .field(Field::json("metadata"))
                .field(Field::timestamp("deleted_at"))
                .soft_delete("deleted_at")
                .relation(Relation::belongs_to(
                    "collection",
                    "ProductCollection",
                    "collection_id",
                ))
                .relation(Relation::has_many(
                    "variants",
                    "ProductVariant",
                    "product_id",
                ))
                .relation(Relation::linked_many(
                    "sales_channels",
                    "SalesChannel",
                    "LinkProductSalesChannel",
                )),
        )
        .entity(
            Entity::new("ProductVariant")
                .fields(["sku", "product_id"])
                .relation(Relation::belongs_to("product", "Product", "product_id")),
        )
        .entity(Entity::new("SalesChannel").field("name"))
        .entity(Entity::link(
            "LinkProductSalesChannel",
            ("product_id", "Product"),
            ("sales_channel_id", "SalesChannel"),
        ))
        .build();
    Arc::new(schema.unwrap())
}

/// The mapping of that schema.
pub fn mapping() -> Arc<Mapping> {
    let mapping = Mapping::builder(schema())
        .table(
            "Product",
            Table::named("product").column("rank", "the rank"),
        )
        .build();
    Arc::new(mapping.unwrap())
}

/// A database with the shop in it and its outbox installed.
pub struct Shop {
    pub runtime: Runtime,
    pub postgres: Postgres,
    pub outbox: Outbox,
}

impl Shop {
    pub fn open() -> Self {
        Self::open_with(&[("fsync", "off")], |outbox| outbox)
    }

    pub fn open_with(settings: &[(&str, &str)], options: impl FnOnce(Outbox) -> Outbox) -> Self {
        let shop = Self {
            runtime: runtime(),
            postgres: Postgres::start_with(settings),
            outbox: options(Outbox::new(mapping(), "test")),
        };
        shop.postgres.psql(TABLES);
        shop.install(&shop.outbox);
        shop.nothing_to_clear();
        shop
    }

    /// A consumer of a new outbox clears what may be left of an older one. These tests know that there is nothing.
    pub fn nothing_to_clear(&self) {
        self.postgres
            .psql("UPDATE mcache.position SET clear = false");
    }

    pub fn install(&self, outbox: &Outbox) {
        self.runtime.block_on(async {
            outbox
                .install(&mut connect(&self.postgres).await)
                .await
                .unwrap();
        });
    }

    pub fn config(&self) -> Config {
        self.postgres.conninfo().parse().unwrap()
    }

    pub fn source(&self) -> OutboxSource {
        self.outbox.source(self.config(), NoTls)
    }

    /// An invalidator that tells `recorder` about every change.
    pub fn invalidator(&self, recorder: &Arc<Recorder>) -> Invalidator {
        self.invalidator_with(self.source(), recorder, |builder| builder)
    }

    pub fn invalidator_with(
        &self,
        source: OutboxSource,
        recorder: &Arc<Recorder>,
        options: impl FnOnce(InvalidatorBuilder<OutboxSource>) -> InvalidatorBuilder<OutboxSource>,
    ) -> Invalidator {
        let told = recorder.clone();
        let builder = Invalidator::builder(source, move |event: &ChangeEvent| {
            told.events.lock().unwrap().push(event.clone());
            Ok(tags_of(event))
        });
        let _inside = self.runtime.enter();
        options(builder.target(recorder.clone())).spawn()
    }

    /// How many rows wait in the outbox.
    pub fn waiting(&self) -> i64 {
        self.postgres
            .psql("SELECT count(*) FROM mcache.outbox")
            .parse()
            .unwrap()
    }
}

/// A connection whose driver runs in the background.
pub async fn connect(postgres: &Postgres) -> Client {
    let (client, connection) = tokio_postgres::connect(&postgres.conninfo(), NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

/// One tag a row, one for the entity if the rows are unknown: enough to see what arrived.
pub fn tags_of(event: &ChangeEvent) -> Vec<String> {
    if event.ids.is_empty() {
        return vec![format!("{}:*", event.entity)];
    }
    let tag = |id| format!("{}:{id}", event.entity);
    event.ids.iter().map(tag).collect()
}

/// A cache that writes down what it is told to invalidate, and is down when asked to be.
#[derive(Default)]
pub struct Recorder {
    pub events: Mutex<Vec<ChangeEvent>>,
    tags: Mutex<Vec<String>>,
    down: Mutex<Option<Down>>,
    calls: AtomicU64,
}

/// How a cache that is down behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// Answers with an error.
    Refuses,
    /// Never answers.
    Hangs,
}

impl Recorder {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub fn set_down(&self, down: Option<Down>) {
        *self.down.lock().unwrap() = down;
    }

    /// How often it was called, failures included.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Everything it was told, each tag once.
    pub fn tags(&self) -> BTreeSet<String> {
        self.tags.lock().unwrap().iter().cloned().collect()
    }

    /// How often it was told this tag.
    pub fn count(&self, tag: &str) -> usize {
        self.tags
            .lock()
            .unwrap()
            .iter()
            .filter(|told| *told == tag)
            .count()
    }

    /// Waits until it was told all these tags.
    #[track_caller]
    pub fn wait_for(&self, tags: &[&str]) {
        wait::until(&format!("{tags:?} invalidated"), || {
            let told = self.tags();
            tags.iter().all(|tag| told.contains(*tag))
        });
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.tags.lock().unwrap().clear();
        self.events.lock().unwrap().clear();
    }

    async fn told(&self, tags: &[&[u8]]) -> Result<(), BoxError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let down = *self.down.lock().unwrap();
        match down {
            Some(Down::Refuses) => return Err("down".into()),
            Some(Down::Hangs) => {
                // Comes back as a connection would: with an error, once it is up again.
                while *self.down.lock().unwrap() == Some(Down::Hangs) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                return Err("the connection was lost".into());
            }
            None => {
                let text = |tag: &&[u8]| String::from_utf8_lossy(tag).into_owned();
                self.tags.lock().unwrap().extend(tags.iter().map(text));
            }
        }
        Ok(())
    }
}

impl InvalidationTarget for Recorder {
    fn name(&self) -> &str {
        "recorder"
    }

    fn invalidate_auto<'a>(&'a self, tags: &'a [&'a [u8]]) -> BoxFuture<'a, Result<(), BoxError>> {
        Box::pin(self.told(tags))
    }

    fn invalidate_auto_all(&self) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async { self.told(&[b"*"]).await })
    }
}

/// Takes 200 samples and prints what they took. What a machine that is busy otherwise makes of that is not for a test.
pub fn percentiles(what: &str, sample: impl FnMut() -> Duration) {
    const SAMPLES: usize = 200;
    let mut latencies: Vec<Duration> = std::iter::repeat_with(sample).take(SAMPLES).collect();
    latencies.sort();
    let at = |percent: usize| latencies[SAMPLES * percent / 100 - 1];
    println!(
        "{what}: p50 {:?}, p99 {:?}, max {:?}",
        at(50),
        at(99),
        at(100)
    );
}
