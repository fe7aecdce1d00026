//! What is promised to threads, by compiling; and every size, count and duration at both ends.

use std::{fmt::Debug, sync::Arc, time::Duration};

use mcache::{Cache, MemoryProvider, change::EventTags};
use mcache_graph::{
    Answer, CacheOptions, ChangeTags, Comparison, Dependency, Direction, Entity, Fetch, Field,
    FieldNames, FieldType, Filter, Graph, GraphBuilder, GraphError, GraphOptions, GraphQuery,
    GraphResult, GraphStats, List, MemoryError, MemoryResolver, Metadata, Pagination, Precision,
    QueryError, Relation, Resolver, ResolverError, ResultTags, Rows, Schema, SchemaBuilder,
    SchemaError, Select, Tables, TagLimits, TagSet, Through, UnknownEntity,
};
use serde_json::json;

const DURATIONS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_secs(1 << 33),
    Duration::MAX,
];
const COUNTS: [usize; 3] = [0, 1, usize::MAX];

/// Owned, shared between threads, shown in a log.
fn is_shared<T: Send + Sync + Debug + 'static>() {}

fn is_shared_in_place<T: Send + Sync + Debug>() {}

fn is_error<T: std::error::Error + Clone + Send + Sync + 'static>() {}

fn is_object<T: Send + Sync + ?Sized>() {}

fn sendable<F: Future + Send>(future: F) -> F {
    future
}

fn spawnable<F: Future + Send + 'static>(future: F) -> F {
    future
}

#[test]
fn types_can_be_shared_and_shown_and_errors_cloned() {
    is_shared::<(Graph, GraphBuilder, GraphStats, GraphOptions, CacheOptions)>();
    is_shared::<(GraphQuery, GraphResult, Metadata, Pagination, Direction)>();
    is_shared::<(Schema, SchemaBuilder, Entity, Field, FieldType, FieldNames)>();
    is_shared::<(Relation, Through, Dependency, Filter, Comparison)>();
    is_shared::<(ChangeTags, ResultTags, TagSet, TagLimits, Precision)>();
    is_shared::<(MemoryResolver, Tables, Rows, ResolverError)>();
    is_shared_in_place::<(Fetch<'_>, Select<'_>, List<'_>, Answer<'_>)>();
    is_object::<dyn Resolver>();
    is_object::<dyn EventTags>();
    is_error::<GraphError>();
    is_error::<QueryError>();
    is_error::<SchemaError>();
    is_error::<MemoryError>();
    is_error::<UnknownEntity>();
}

fn store() -> (Arc<Schema>, Arc<MemoryResolver>) {
    let schema = Schema::builder()
        .entity(
            Entity::new("Product")
                .fields(["title"])
                .field(Field::integer("rank"))
                .relation(Relation::has_many("variants", "Variant", "product_id")),
        )
        .entity(Entity::new("Variant").fields(["sku", "product_id"]))
        .build();
    let schema = Arc::new(schema.unwrap());
    let store = Arc::new(MemoryResolver::new(schema.clone()));
    for number in 0..3 {
        let id = format!("p{number}");
        let row = json!({ "id": id, "title": "Shirt", "rank": number });
        store.put("Product", row).unwrap();
        let row = json!({ "id": format!("v{number}"), "sku": "S", "product_id": id });
        store.put("Variant", row).unwrap();
    }
    (schema, store)
}

#[tokio::test]
async fn futures_can_be_polled_by_any_thread_and_spawned() {
    let (schema, store) = store();
    let cache = Cache::builder_with(MemoryProvider::default()).caching(true);
    let cache = cache.build().await.unwrap();
    let graph = Graph::builder(schema, store).cache(cache).build();
    let (query, options) = (
        GraphQuery::new("product").fields(["title"]),
        GraphOptions::cached(),
    );
    drop(sendable(graph.query(&query, &options)));
    drop(sendable(graph.serve(&query, &options)));
    drop(sendable(graph.serve_shared(&query, &options)));
    drop(sendable(graph.load(&query, &options)));
    drop(sendable(graph.key(&query, &options)));
    drop(sendable(graph.query_each(&query, "id", ["p1"], &options)));
    drop(sendable(graph.serve_each(&query, "id", ["p1"], &options)));
    drop(sendable(graph.serve_each_shared(
        &query,
        "id",
        ["p1"],
        &options,
    )));
    let answered = tokio::spawn(spawnable(async move {
        graph
            .query(&query, &options)
            .await
            .map(|all| all.data.len())
    }));
    assert_eq!(answered.await.unwrap().unwrap(), 3);
}

/// Limits of tags make results coarser, never wrong or the query fail; pages beyond the end are empty.
#[tokio::test(start_paused = true)]
async fn no_size_count_or_duration_makes_a_query_panic() {
    let (schema, store) = store();
    for duration in DURATIONS {
        for count in COUNTS {
            let limits = TagLimits::default()
                .fields_max(count)
                .rows_max(count)
                .total_max(count)
                .changed_rows_max(count);
            let cache = Cache::builder_with(MemoryProvider::default()).caching(true);
            let graph = Graph::builder(schema.clone(), store.clone())
                .cache(cache.build().await.unwrap())
                .limits(limits)
                .build();
            let how = CacheOptions::enabled()
                .ttl(duration)
                .swr(duration)
                .early_refresh(duration)
                .stale_if_error(true);
            let options = GraphOptions::default().cache(how);
            let query = || GraphQuery::new("product").fields(["title", "variants.sku"]);
            let page = u64::try_from(count).unwrap();
            let pages = Pagination::new().order("rank", Direction::Desc);
            for (skip, take) in [(0, page), (page, 1), (page, page)] {
                let pages = pages.clone().skip(skip).take(take);
                let query = query().pagination(pages);
                for _ in 0..2 {
                    let result = graph.query(&query, &options).await.unwrap();
                    let expected = 3_u64.saturating_sub(skip).min(take);
                    assert_eq!(result.data.len() as u64, expected, "{skip} {take}");
                    assert_eq!(result.metadata.unwrap().count, 3);
                }
            }
            let asked = ["p0", "p1", "none"];
            let each = graph.query_each(&query(), "id", asked, &options).await;
            assert_eq!(each.unwrap().len(), 3);
            let answer = graph.load(&query(), &options).await.unwrap();
            assert!(
                !answer.tags().tags.is_empty(),
                "an entry that nothing clears"
            );
            let title = format!("{duration:?} {count}");
            let change = store.update("Product", "p0", json!({ "title": title }));
            let tags = ChangeTags::new(schema.clone()).limits(limits);
            let tags = tags.of(&change.unwrap().unwrap()).unwrap();
            let carried = answer.tags().tags;
            assert!(carried.iter().any(|tag| tags.contains(tag)), "{limits:?}");
        }
    }
}
