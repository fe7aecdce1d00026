//! One query for each of several values. That it is the same as several queries is a property
//! (`tests/suite/graph_oracle/each.rs`); here is what it is good for, and what it refuses.

use std::time::Duration;

use super::*;
use mcache::{Cache, MemoryProvider, Source};

async fn cached(store: &Arc<MemoryResolver>) -> (Graph, Cache) {
    let cache = Cache::builder_with(MemoryProvider::default()).caching(true);
    let cache = cache.build().await.unwrap();
    let graph = Graph::builder(schema(), store.clone());
    (graph.cache(cache.clone()).build(), cache)
}

fn variants() -> GraphQuery {
    GraphQuery::new("variant").fields(["sku", "stock"])
}

async fn sources(graph: &Graph, ids: &[&str]) -> Vec<Source> {
    let (query, options) = (variants(), GraphOptions::cached());
    let served = graph.serve_each(&query, "id", ids.iter().copied(), &options);
    served
        .await
        .unwrap()
        .into_iter()
        .map(|served| served.source)
        .collect()
}

#[tokio::test]
async fn what_others_asked_for_is_there_and_the_rest_is_one_load() {
    use Source::{Hit, Loaded};
    let (graph, _) = cached(&store()).await;
    assert_eq!(sources(&graph, &["v1", "v2"]).await, [Loaded, Loaded]);
    assert_eq!(graph.stats().loads, 1);
    assert_eq!(
        sources(&graph, &["v3", "v1", "v9", "v2"]).await,
        [Loaded, Hit, Loaded, Hit]
    );
    assert_eq!(graph.stats().loads, 2);
    let alone = variants().filters(json!({ "id": "v3" }));
    let served = graph.serve(&alone, &GraphOptions::cached()).await.unwrap();
    assert_eq!(
        (served.source, served.value.data),
        (Hit, vec![json!({ "sku": "H", "stock": 0 })])
    );
}

#[tokio::test]
async fn a_change_clears_those_it_concerns() {
    use Source::{Hit, Loaded};
    let store = store();
    let (graph, cache) = cached(&store).await;
    sources(&graph, &["v1", "v2"]).await;
    let sold = store
        .update("Level", "l1", json!({ "quantity": 4 }))
        .unwrap();
    let tags = graph.change_tags().of(&sold.unwrap()).unwrap();
    cache.invalidate_auto(tags.iter()).await.unwrap();
    assert_eq!(sources(&graph, &["v1", "v2"]).await, [Loaded, Hit]);
}

#[tokio::test]
async fn rows_that_several_have_in_common_are_in_each() {
    let (graph, _) = cached(&store()).await;
    let query = products().fields(["title", "collection.name", "channels.name"]);
    let results = graph
        .query_each(
            &query,
            "id",
            ["p2", "p1", "p2", "p9"],
            &GraphOptions::cached(),
        )
        .await
        .unwrap();
    let hat = json!({ "title": "Hat", "collection": { "name": "Summer" }, "channels": [{ "name": "Web" }] });
    assert_eq!(results[0].data, std::slice::from_ref(&hat));
    assert_eq!(
        results[1].data[0]["channels"],
        json!([{ "name": "App" }, { "name": "Web" }])
    );
    assert_eq!(results[2].data, [hat]);
    assert!(results[3].data.is_empty());
}

#[tokio::test]
async fn without_a_cache_it_is_one_load() {
    let graph = graph(&store());
    assert_eq!(sources(&graph, &["v1", "v1"]).await, [Source::Bypass; 2]);
    assert_eq!(sources(&graph, &[]).await, []);
    assert_eq!(graph.stats().loads, 1);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_nothing_is_kept() {
    let (graph, _) = cached(&store()).await;
    let plain = GraphOptions::cached;
    let page = variants().pagination(Pagination::new().take(1));
    let filtered = variants().filters(json!({ "id": "v1" }));
    let keyed = GraphOptions::default().cache(CacheOptions::default().key("k"));
    for (query, field, value, options, message) in [
        (
            variants(),
            "name",
            json!("v1"),
            plain(),
            "query: Variant has no field \"name\"",
        ),
        (
            variants(),
            "stock",
            json!(1),
            plain(),
            "query: Variant for each \"stock\": it is neither the key nor a lookup",
        ),
        (
            page,
            "id",
            json!("v1"),
            plain(),
            "query: Variant for each \"id\": a page is of one list, not of several",
        ),
        (
            filtered,
            "id",
            json!("v1"),
            plain(),
            "query: Variant for each \"id\": the filters name it already",
        ),
        (
            variants(),
            "id",
            json!("v1"),
            keyed,
            "query: Variant for each \"id\": several results cannot have one key",
        ),
        (
            variants(),
            "id",
            json!(["v1"]),
            plain(),
            "query: Variant for each \"id\": expected single values",
        ),
        (
            variants(),
            "id",
            json!(null),
            plain(),
            "query: Variant for each \"id\": expected single values",
        ),
        (
            variants().filters(json!([])),
            "id",
            json!("v1"),
            plain(),
            "query: filter on Variant, at \"filters\": expected an object",
        ),
        (
            variants(),
            "rank",
            json!(1),
            plain(),
            "query: Variant for each \"rank\": it is neither the key nor a lookup",
        ),
        (
            variants(),
            "id",
            json!(true),
            plain(),
            "query: filter on Variant, at \"id\": a value in the list does not fit the field's type",
        ),
    ] {
        let error = graph
            .query_each(&query, field, [value.clone()], &options)
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), message, "{query:?} {field} {value}");
    }
    let strict = GraphOptions::cached().throw_if_key_not_found(true);
    let error = graph
        .query_each(&variants(), "id", ["v1", "v9"], &strict)
        .await
        .unwrap_err();
    assert!(matches!(error, GraphError::NotFound { id, .. } if id == "v9"));
    assert_eq!(sources(&graph, &["v1"]).await, [Source::Loaded]);
}

#[tokio::test(start_paused = true)]
async fn stale_results_are_served_at_once_while_one_load_makes_them_anew_in_the_background() {
    let store = store();
    let (graph, cache) = cached(&store).await;
    let ten = Duration::from_secs(10);
    let swr = CacheOptions::default()
        .ttl(ten)
        .swr(Duration::from_secs(3600));
    let options = GraphOptions::default().cache(swr);
    let query = variants();
    let serve = || graph.serve_each(&query, "id", ["v1", "v2"], &options);
    serve().await.unwrap();
    store
        .update("Variant", "v1", json!({ "stock": 77 }))
        .unwrap();
    tokio::time::advance(ten * 2).await;
    for served in serve().await.unwrap() {
        assert_eq!(served.source, Source::Stale);
    }
    assert!(cache.shutdown(ten).await.is_nothing(), "the refresh");
    let served = serve().await.unwrap();
    assert!(served.iter().all(|served| served.source == Source::Hit));
    assert_eq!(graph.stats().loads, 2, "one for both, twice");
}
