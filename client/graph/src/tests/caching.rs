//! Options of caching, with a provider in this process.

use std::time::Duration;

use super::*;
use mcache::{Cache, MemoryProvider, Source};

/// A graph with a cache, and the store behind it.
struct Cached {
    store: Arc<MemoryResolver>,
    cache: Cache,
    graph: Graph,
}

async fn cached() -> Cached {
    let provider = |id: &str| MemoryProvider::builder().id(id).build();
    let cache = Cache::builder_with(provider("first"))
        .provider(provider("second"))
        .caching(true)
        .build()
        .await
        .unwrap();
    let store = store();
    let graph = Graph::builder(schema(), store.clone())
        .cache(cache.clone())
        .build();
    Cached {
        store,
        cache,
        graph,
    }
}

impl Cached {
    async fn source(&self, query: &GraphQuery, cache: CacheOptions) -> Source {
        let options = GraphOptions::default().cache(cache);
        self.graph.serve(query, &options).await.unwrap().source
    }

    /// What the invalidator does with an event.
    async fn tell(&self, event: &ChangeEvent) {
        let tags = self.graph.change_tags().of(event).unwrap();
        self.cache.invalidate_auto(tags.iter()).await.unwrap();
    }
}

fn query() -> GraphQuery {
    products()
        .fields(["title"])
        .filters(json!({ "status": "published" }))
}

#[tokio::test]
async fn a_result_is_kept_until_its_data_changes() {
    let cached = cached().await;
    let enabled = CacheOptions::enabled;
    assert_eq!(cached.source(&query(), enabled()).await, Source::Loaded);
    assert_eq!(cached.source(&query(), enabled()).await, Source::Hit);

    let unrelated = cached
        .store
        .update("Product", "p1", json!({ "subtitle": "x" }))
        .unwrap();
    cached.tell(&unrelated.unwrap()).await;
    assert_eq!(cached.source(&query(), enabled()).await, Source::Hit);

    let renamed = cached
        .store
        .update("Product", "p1", json!({ "title": "x" }))
        .unwrap();
    cached.tell(&renamed.unwrap()).await;
    let options = GraphOptions::cached();
    let served = cached.graph.serve(&query(), &options).await.unwrap();
    assert_eq!(served.source, Source::Loaded);
    assert_eq!(served.value.data[0], json!({ "title": "x" }));
    assert_eq!(cached.graph.stats().loads, 2);
}

#[tokio::test]
async fn nothing_is_kept_unless_asked_for() {
    let cached = cached().await;
    for options in [
        CacheOptions::default(),
        CacheOptions::default().key("k").enable(false),
    ] {
        for _ in 0..2 {
            assert_eq!(
                cached.source(&query(), options.clone()).await,
                Source::Bypass
            );
        }
    }
    assert!(cached.cache.inspect("k").await.unwrap().is_none());
}

#[tokio::test]
async fn a_key_of_ones_own_replaces_the_computed_one() {
    let cached = cached().await;
    let options = CacheOptions::default()
        .key("mine")
        .ttl(Duration::from_secs(60));
    assert_eq!(
        cached.source(&query(), options.clone()).await,
        Source::Loaded
    );
    assert!(cached.cache.inspect("mine").await.unwrap().is_some());
    let other = products().fields(["id"]);
    assert_eq!(cached.source(&other, options).await, Source::Hit);
    let computed = cached
        .graph
        .key(&query(), &GraphOptions::default())
        .await
        .unwrap();
    assert!(cached.cache.inspect(computed).await.unwrap().is_none());
}

async fn stored_tags(cached: &Cached, options: CacheOptions) -> Vec<String> {
    cached.source(&query(), options.key("k")).await;
    let found = cached.cache.inspect("k").await.unwrap().unwrap();
    let mut tags: Vec<String> = found
        .tags
        .iter()
        .map(|tag| String::from_utf8_lossy(tag).into_owned())
        .collect();
    tags.sort_unstable();
    tags
}

#[tokio::test]
async fn tags_of_ones_own_replace_computed_ones_unless_both_are_asked_for() {
    let own = || CacheOptions::default().tags(["Custom:1"]);
    let alone = stored_tags(&cached().await, own()).await;
    assert!(
        alone.contains(&"Custom:1".into()) && !alone.iter().any(|tag| tag.starts_with("Product:"))
    );
    let both = stored_tags(&cached().await, own().compute_automatic_tags(true)).await;
    assert!(
        both.contains(&"Custom:1".into()) && both.contains(&"Product:status=published#+".into())
    );
    let computed = stored_tags(&cached().await, CacheOptions::enabled()).await;
    assert!(computed.contains(&"Product:status=published#+".into()));
}

#[tokio::test]
async fn tags_by_medusas_convention_are_cleared_by_changes_too() {
    let cached = cached().await;
    for tag in ["Product:p1", "Product:list:*"] {
        let options = || CacheOptions::default().key(tag).tags([tag]);
        assert_eq!(cached.source(&query(), options()).await, Source::Loaded);
        let change = cached
            .store
            .update("Product", "p1", json!({ "subtitle": tag }))
            .unwrap();
        cached.tell(&change.unwrap()).await;
        assert_eq!(cached.source(&query(), options()).await, Source::Loaded);
    }
}

#[tokio::test]
async fn without_automatic_invalidation_changes_spare_the_entry() {
    let cached = cached().await;
    let manual = || CacheOptions::enabled().auto_invalidate(false);
    cached.source(&query(), manual()).await;
    let change = cached.store.remove("Product", "p1").unwrap();
    cached.tell(&change.unwrap()).await;
    assert_eq!(cached.source(&query(), manual()).await, Source::Hit);
}

#[tokio::test]
async fn several_providers_are_read_in_order_and_all_written() {
    let cached = cached().await;
    let on = |providers: &[&str]| {
        CacheOptions::default()
            .key("k")
            .providers(providers.iter().copied())
    };
    assert_eq!(
        cached.source(&query(), on(&["second"])).await,
        Source::Loaded
    );
    assert_eq!(
        cached.source(&query(), on(&["first"])).await,
        Source::Loaded
    );
    assert_eq!(
        cached.source(&query(), on(&["second", "first"])).await,
        Source::Hit
    );
    cached.cache.clear("k").await.unwrap();
    assert_eq!(
        cached.source(&query(), on(&["first", "second"])).await,
        Source::Loaded
    );
    for provider in ["first", "second"] {
        assert_eq!(
            cached.source(&query(), on(&[provider])).await,
            Source::Hit,
            "{provider}"
        );
    }
}

#[tokio::test]
async fn errors_are_never_kept() {
    let cached = cached().await;
    let bad = products().fields(["price"]);
    let options = GraphOptions::cached();
    for _ in 0..2 {
        let error = cached.graph.query(&bad, &options).await.unwrap_err();
        assert!(matches!(
            error,
            GraphError::Query(QueryError::UnknownField { .. })
        ));
    }
    let key = cached.graph.key(&bad, &options).await.unwrap();
    assert!(cached.cache.inspect(key).await.unwrap().is_none());
}

#[tokio::test]
async fn empty_results_are_kept() {
    let cached = cached().await;
    let empty = products()
        .fields(["title"])
        .filters(json!({ "status": "archived" }));
    assert_eq!(
        cached.source(&empty, CacheOptions::enabled()).await,
        Source::Loaded
    );
    assert_eq!(
        cached.source(&empty, CacheOptions::enabled()).await,
        Source::Hit
    );
}

#[tokio::test(start_paused = true)]
async fn a_stale_result_is_served_at_once_while_it_is_loaded_anew_in_the_background() {
    let cached = cached().await;
    let ten = Duration::from_secs(10);
    let options = || {
        CacheOptions::default()
            .ttl(ten)
            .swr(Duration::from_secs(3600))
    };
    assert_eq!(cached.source(&query(), options()).await, Source::Loaded);
    assert_eq!(cached.source(&query(), options()).await, Source::Hit);
    let title = json!({ "title": "changed" });
    cached.store.update("Product", "p1", title.clone()).unwrap();
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(cached.source(&query(), options()).await, Source::Stale);
    assert!(cached.cache.shutdown(ten).await.is_nothing(), "the refresh");
    let graph_options = GraphOptions::default().cache(options());
    let served = cached.graph.serve(&query(), &graph_options).await.unwrap();
    assert_eq!(
        (served.source, &served.value.data[0]),
        (Source::Hit, &title)
    );
    assert_eq!(cached.graph.stats().loads, 2);
}
