//! A small store, and what graph queries on it must do.

mod caching;
mod each;
mod input;
mod keys;
mod keys_declared;
mod precision;
mod results;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use serde_json::{Value, json};

use super::*;
use mcache::change::ChangeEvent;

/// Products with variants and prices, in a collection, in sales channels.
fn schema() -> Schema {
    Schema::builder()
        .entity(
            Entity::new("Product")
                .alias("products")
                .id_prefix("prod_")
                .fields(["title", "subtitle", "collection_id"])
                .field(Field::text("status").lookup())
                .field(Field::integer("rank"))
                .field(Field::timestamp("deleted_at"))
                .soft_delete("deleted_at")
                .relation(Relation::belongs_to(
                    "collection",
                    "Collection",
                    "collection_id",
                ))
                .relation(
                    Relation::has_many("variants", "Variant", "product_id").ordered_by("rank"),
                )
                .relation(Relation::linked_many(
                    "channels",
                    "Channel",
                    "LinkProductChannel",
                )),
        )
        .entity(
            Entity::new("Collection")
                .field("name")
                .relation(Relation::has_many("products", "Product", "collection_id")),
        )
        .entity(
            Entity::new("Variant")
                .fields(["sku", "product_id"])
                .field(Field::integer("rank"))
                .field(
                    Field::computed("stock").depends_on(
                        Dependency::on("Level")
                            .keyed("variant_id", "id")
                            .fields(["quantity"]),
                    ),
                )
                .relation(Relation::belongs_to("product", "Product", "product_id")),
        )
        .entity(
            Entity::new("Level")
                .field("variant_id")
                .field(Field::integer("quantity")),
        )
        .entity(
            Entity::new("Channel")
                .field("name")
                .relation(Relation::linked_many(
                    "products",
                    "Product",
                    "LinkProductChannel",
                )),
        )
        .entity(Entity::link(
            "LinkProductChannel",
            ("product_id", "Product"),
            ("channel_id", "Channel"),
        ))
        .build()
        .unwrap()
}

/// Two products with variants, one without; `p3` is in no collection.
fn store() -> Arc<MemoryResolver> {
    let store =
        MemoryResolver::new(Arc::new(schema())).compute("Variant", "stock", |tables, row, _| {
            let levels = tables
                .rows("Level")
                .filter(|level| level["variant_id"] == row["id"]);
            json!(
                levels
                    .filter_map(|level| level["quantity"].as_i64())
                    .sum::<i64>()
            )
        });
    for (entity, row) in [
        ("Collection", json!({ "id": "c1", "name": "Summer" })),
        (
            "Product",
            json!({ "id": "p1", "title": "Shirt", "status": "published", "rank": 1, "collection_id": "c1" }),
        ),
        (
            "Product",
            json!({ "id": "p2", "title": "Hat", "status": "published", "rank": 2, "collection_id": "c1" }),
        ),
        (
            "Product",
            json!({ "id": "p3", "title": "Sock", "status": "draft", "rank": 3, "collection_id": null }),
        ),
        (
            "Variant",
            json!({ "id": "v1", "sku": "S", "product_id": "p1", "rank": 2 }),
        ),
        (
            "Variant",
            json!({ "id": "v2", "sku": "M", "product_id": "p1", "rank": 1 }),
        ),
        (
            "Variant",
            json!({ "id": "v3", "sku": "H", "product_id": "p2", "rank": 1 }),
        ),
        (
            "Level",
            json!({ "id": "l1", "variant_id": "v1", "quantity": 5 }),
        ),
        ("Channel", json!({ "id": "web", "name": "Web" })),
        ("Channel", json!({ "id": "app", "name": "App" })),
        (
            "LinkProductChannel",
            json!({ "product_id": "p1", "channel_id": "web" }),
        ),
        (
            "LinkProductChannel",
            json!({ "product_id": "p2", "channel_id": "web" }),
        ),
        (
            "LinkProductChannel",
            json!({ "product_id": "p1", "channel_id": "app" }),
        ),
    ] {
        store.put(entity, row).unwrap();
    }
    Arc::new(store)
}

fn graph(store: &Arc<MemoryResolver>) -> Graph {
    Graph::builder(schema(), store.clone()).build()
}

fn products() -> GraphQuery {
    GraphQuery::new("product")
}

/// The result of a query, made by the resolver.
fn run(store: &Arc<MemoryResolver>, query: GraphQuery) -> Result<GraphResult, GraphError> {
    ready(graph(store).query(&query, &GraphOptions::default()))
}

fn data(query: GraphQuery) -> Value {
    Value::Array(run(&store(), query).unwrap().data)
}

/// The tags both the result and the event have, which is what makes the event clear the result.
fn common(result: &ResultTags, event: &ChangeEvent) -> BTreeSet<String> {
    let cleared = ChangeTags::new(Arc::new(schema())).of(event).unwrap();
    let common = cleared.iter().filter(|tag| result.tags.contains(tag));
    common.map(str::to_owned).collect()
}

/// The output of a future that never waits.
fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a resolver in memory never waits"),
    }
}

#[test]
fn futures_can_be_spawned() {
    fn spawnable<T: Send>(_: &T) {}
    let graph = graph(&store());
    spawnable(&graph.query(&products(), &GraphOptions::cached()));
}
