//! What caching a graph query costs the client: its key, the tags of its result against
//! serializing it, and dividing one load into several results.
//!
//! Question: is the key of a real query computed within 2 us, and are the tags of the workload trace's
//! largest result (386 KB of JSON, 675 ids) computed within a tenth of the time its serialization takes?
//!
//! ```text
//! cargo bench -p mcache-benches --bench graph
//! ```

#![allow(missing_docs)] // criterion's macros make a public function without any.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use criterion::{Criterion, criterion_group, criterion_main};
use mcache::change::{ChangeEvent, Operation};
use mcache_graph::{
    ChangeTags, Direction, Entity, Field, Graph, GraphOptions, GraphQuery, MemoryResolver,
    Pagination, Precision, Relation, Schema,
};
use serde_json::{Value, json};

/// 12 products with 11 variants each, 4 prices each: 672 rows, in 3 collections.
const PRODUCTS: usize = 12;
const VARIANTS: usize = 11;
const CURRENCIES: [&str; 4] = ["eur", "usd", "gbp", "dkk"];
const COLLECTIONS: usize = 3;

fn schema() -> Schema {
    Schema::builder()
        .entity(Entity::new("ProductCollection").fields(["title", "handle"]))
        .entity(
            Entity::new("Product")
                .fields(["title", "subtitle", "description", "handle", "thumbnail"])
                .fields([
                    "collection_id",
                    "material",
                    "origin_country",
                    "hs_code",
                    "mid_code",
                ])
                .field(Field::text("status").lookup())
                .field(Field::json("metadata"))
                .relation(Relation::belongs_to(
                    "collection",
                    "ProductCollection",
                    "collection_id",
                ))
                .relation(Relation::has_many(
                    "variants",
                    "ProductVariant",
                    "product_id",
                )),
        )
        .entity(
            Entity::new("ProductVariant")
                .fields([
                    "title",
                    "sku",
                    "barcode",
                    "ean",
                    "upc",
                    "product_id",
                    "material",
                ])
                .fields([Field::integer("variant_rank"), Field::json("metadata")])
                .relation(Relation::has_many("prices", "Price", "variant_id")),
        )
        .entity(
            Entity::new("Price")
                .fields(["title", "currency_code", "variant_id", "price_list_id"])
                .fields([Field::number("amount"), Field::json("raw_amount")]),
        )
        .build()
        .expect("a well-formed schema")
}

fn id(prefix: &str, number: usize) -> String {
    format!("{prefix}_01JCYQ8X4ZB9V6T2M{number:09}")
}

/// The trace's largest result, in shape and size.
fn store(schema: Arc<Schema>) -> MemoryResolver {
    let store = MemoryResolver::new(schema);
    let put = |entity: &str, row: Value| {
        store.put(entity, row).expect("a row of the schema");
    };
    for collection in 0..COLLECTIONS {
        put(
            "ProductCollection",
            json!({ "id": id("pcol", collection), "title": "Collection", "handle": "collection" }),
        );
    }
    for product in 0..PRODUCTS {
        put(
            "Product",
            json!({
                "id": id("prod", product), "title": format!("Product {product}"), "subtitle": null,
                "description": "A shirt that is worn. ".repeat(40), "handle": format!("product-{product}"),
                "thumbnail": "https://example.com/a/long/path/to/an/image.png", "status": "published",
                "collection_id": id("pcol", product % COLLECTIONS), "material": "cotton",
                "origin_country": "pt", "hs_code": null, "mid_code": null,
                "metadata": { "note": "x".repeat(200) },
            }),
        );
        for variant in 0..VARIANTS {
            let number = product * VARIANTS + variant;
            put(
                "ProductVariant",
                json!({
                    "id": id("variant", number), "title": format!("Size {variant}"),
                    "sku": format!("SKU-{number}"), "barcode": "4006381333931", "ean": "4006381333931",
                    "upc": null, "product_id": id("prod", product), "material": "cotton",
                    "variant_rank": variant, "metadata": { "note": "y".repeat(500) },
                }),
            );
            for (position, currency) in CURRENCIES.into_iter().enumerate() {
                put(
                    "Price",
                    json!({
                        "id": id("price", number * CURRENCIES.len() + position), "title": null,
                        "currency_code": currency, "variant_id": id("variant", number),
                        "price_list_id": null, "amount": 10 + position,
                        "raw_amount": { "value": "10", "precision": 20, "note": "z".repeat(295) },
                    }),
                );
            }
        }
    }
    store
}

fn query() -> GraphQuery {
    GraphQuery::new("product")
        .fields(["*", "collection.*", "variants.*", "variants.prices.*"])
        .filters(json!({ "status": "published" }))
        .pagination(
            Pagination::new()
                .take(PRODUCTS as u64)
                .order("title", Direction::Asc),
        )
        .context(json!({ "currency_code": "eur", "region_id": "reg_01JCYQ8X4ZB9V6T2M000000001" }))
}

/// The query of a product list as Medusa's store sends it: 40 paths.
fn long_query() -> GraphQuery {
    let fields = [
        "id",
        "title",
        "subtitle",
        "description",
        "handle",
        "thumbnail",
        "status",
        "material",
    ];
    let paths = [
        "",
        "variants.",
        "variants.prices.",
        "collection.",
        "options.",
    ];
    query().fields(
        paths
            .iter()
            .flat_map(|path| fields.map(|field| format!("{path}{field}"))),
    )
}

fn key(c: &mut Criterion) {
    let graph = Graph::builder(schema(), store(Arc::new(schema()))).build();
    let options = GraphOptions::cached();
    for (name, query) in [("short", query()), ("44_fields", long_query())] {
        c.bench_function(&format!("key/{name}"), |b| {
            b.iter(|| graph.key(black_box(&query), &options));
        });
    }
}

fn tags(c: &mut Criterion) {
    let store = Arc::new(store(Arc::new(schema())));
    for precision in [Precision::Compatible, Precision::Precise] {
        let graph = Graph::builder(schema(), store.clone())
            .precision(precision)
            .build();
        let answer = ready(graph.load(&query(), &GraphOptions::default())).expect("a good query");
        println!("{precision:?}: {} tags", answer.tags().tags.len());
        c.bench_function(&format!("tags/{precision:?}"), |b| b.iter(|| answer.tags()));
    }
    let graph = Graph::builder(schema(), store).build();
    let answer = ready(graph.load(&query(), &GraphOptions::default())).expect("a good query");
    let result = answer.into_result();
    let bytes = serde_json::to_vec(&result).expect("JSON").len();
    println!("the result: {bytes} bytes of JSON");
    c.bench_function("result/serialize", |b| {
        b.iter(|| serde_json::to_vec(black_box(&result)).expect("JSON"));
    });
}

fn change(c: &mut Criterion) {
    let tags = ChangeTags::new(Arc::new(schema()));
    let row = |rank: i64| {
        let row = json!({ "id": "v1", "product_id": "p1", "sku": "S", "variant_rank": rank });
        row.as_object().expect("an object").clone()
    };
    let event = ChangeEvent::new("ProductVariant", Operation::Updated, ["v1"])
        .with_before("v1", row(1))
        .with_after("v1", row(2))
        .with_changed(["variant_rank"]);
    c.bench_function("change/one_field_of_one_row", |b| {
        b.iter(|| tags.of(black_box(&event)))
    });
}

/// The same rows, as one result and as one for each product: what dividing and tagging them apart costs a load.
fn each(c: &mut Criterion) {
    let graph = Graph::builder(schema(), store(Arc::new(schema()))).build();
    let options = GraphOptions::cached();
    let fields = ["*", "collection.*", "variants.*", "variants.prices.*"];
    let query = GraphQuery::new("product").fields(fields);
    let ids: Vec<String> = (0..PRODUCTS).map(|number| id("prod", number)).collect();
    let together = query.clone().filters(json!({ "id": ids }));
    c.bench_function("each/loaded_as_one", |b| {
        b.iter(|| {
            let answer = ready(graph.load(&together, &options)).expect("a good query");
            (answer.tags(), answer.into_result())
        });
    });
    c.bench_function("each/loaded_as_twelve", |b| {
        b.iter(|| {
            ready(graph.query_each(&query, "id", ids.clone(), &options)).expect("a good query")
        });
    });
}

/// The output of a future that never waits.
fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a resolver in memory never waits"),
    }
}

criterion_group!(benches, key, tags, change, each);
criterion_main!(benches);
