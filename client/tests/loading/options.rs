//! What the options of a cache, of an entry and of a loaded value mean.

use super::*;

#[tokio::test]
async fn caching_is_off_unless_turned_on_and_off_contacts_nothing() {
    let line = Line::new("line");
    let cache = Cache::builder_with(line.clone())
        .caching(false)
        .build()
        .await
        .unwrap();
    assert!(!cache.is_enabled());
    for _ in 0..2 {
        let served = cache
            .key("k")
            .load(|| async { Ok::<_, Error>(Loaded::new(1)) })
            .await
            .unwrap();
        assert_eq!((served.value, served.source), (1, Source::Bypass));
    }
    assert!(!cache.key("k").set(&1).await.unwrap());
    assert_eq!(cache.key("k").get::<u32>().await.unwrap(), None);
    assert_eq!(
        cache.get_many::<u32>(["a", "b"]).await.unwrap(),
        [None, None]
    );
    assert!(cache.invalidate(["t"]).await.unwrap().is_acknowledged());
    assert!(cache.clear_all().await.unwrap().is_acknowledged());
    assert_eq!(cache.inspect("k").await.unwrap(), None);
    assert_eq!(line.calls(), Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_remembered_only_if_asked_for() {
    let (cache, source) = (cache().await, Database::default());
    let nothing = || {
        let source = source.clone();
        async move { source.load().await.map(|_| None::<String>) }
    };
    for _ in 0..2 {
        assert_eq!(
            cache.key("k").get_or_load_optional(nothing).await.unwrap(),
            None
        );
    }
    assert_eq!(source.loads(), 2);
    let entry = || {
        cache
            .key("k")
            .tags(["t"])
            .negative_ttl(Duration::from_secs(5))
    };
    for _ in 0..3 {
        assert_eq!(entry().get_or_load_optional(nothing).await.unwrap(), None);
    }
    assert_eq!(source.loads(), 3);
    assert_eq!(cache.key("k").get::<String>().await.unwrap(), None);
    cache.invalidate(["t"]).await.unwrap();
    let something = || async { Ok::<_, Error>(Some("found".to_owned())) };
    let found = entry().get_or_load_optional(something).await.unwrap();
    assert_eq!(found.as_deref(), Some("found"));
    cache.invalidate(["t"]).await.unwrap();
    assert_eq!(entry().get_or_load_optional(nothing).await.unwrap(), None);
    advance(Duration::from_secs(6)).await;
    assert_eq!(entry().get_or_load_optional(nothing).await.unwrap(), None);
    assert_eq!(source.loads(), 5);
}

#[tokio::test]
async fn the_loader_adds_tags_sets_the_ttl_and_may_decline_to_be_kept() {
    let cache = cache().await;
    let load = || async { Ok::<_, Error>(Loaded::new(1).tags(["b"]).ttl(Duration::from_secs(5))) };
    cache
        .key("k")
        .tags(["a"])
        .ttl(HOUR)
        .get_or_load_tagged(load)
        .await
        .unwrap();
    let found = cache.inspect("k").await.unwrap().unwrap();
    assert_eq!(found.tags, ["a", "b"]);
    assert!(found.ttl.unwrap() <= Duration::from_secs(5));

    let decline = || async { Ok::<_, Error>(Loaded::new(1).uncached()) };
    assert_eq!(
        cache
            .key("other")
            .get_or_load_tagged(decline)
            .await
            .unwrap(),
        1
    );
    assert_eq!(cache.inspect("other").await.unwrap(), None);
}

#[tokio::test]
async fn the_nearest_ttl_wins_and_zero_is_no_expiry() {
    let cache = cache().await;
    let ttl = |key: &'static str| {
        let cache = cache.clone();
        async move { cache.inspect(key).await.unwrap().unwrap().ttl }
    };
    let minute = Duration::from_secs(60);
    cache.key("default").set(&1).await.unwrap();
    cache.key("entry").ttl(minute).set(&1).await.unwrap();
    cache.key("none").ttl(Duration::ZERO).set(&1).await.unwrap();
    let target = [("memory", minute)];
    cache
        .key("target")
        .ttl(HOUR)
        .providers(target)
        .set(&1)
        .await
        .unwrap();
    let near = |ttl: Option<Duration>, expected: Duration| {
        let ttl = ttl.expect("it expires");
        ttl <= expected && ttl > expected - Duration::from_secs(5)
    };
    assert!(near(ttl("default").await, HOUR));
    assert!(near(ttl("entry").await, minute));
    assert!(near(ttl("target").await, minute));
    assert_eq!(ttl("none").await, None);
}

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let provider = MemoryProvider::default();
    let in_namespace = |name: &'static str| {
        let builder = Cache::builder_with(provider.clone())
            .namespace(name)
            .caching(true);
        async move { builder.build().await.unwrap() }
    };
    let (eu, us) = (in_namespace("eu").await, in_namespace("us").await);
    eu.key("k").tags(["t"]).set(&"eu").await.unwrap();
    us.key("k").tags(["t"]).set(&"us").await.unwrap();
    assert_eq!(us.invalidate(["t"]).await.unwrap().entries(), 1);
    assert_eq!(
        eu.key("k").get::<String>().await.unwrap().as_deref(),
        Some("eu")
    );
    us.key("k").set(&"us").await.unwrap();
    assert_eq!(eu.clear_all().await.unwrap().entries(), 1);
    assert_eq!(
        us.key("k").get::<String>().await.unwrap().as_deref(),
        Some("us")
    );
}

#[tokio::test]
async fn another_schema_or_type_is_a_miss_and_is_replaced() {
    let provider = MemoryProvider::default();
    let version = |version| {
        let builder = Cache::builder_with(provider.clone())
            .schema_version(version)
            .caching(true);
        async move { builder.build().await.unwrap() }
    };
    let (old, new) = (version(1).await, version(2).await);
    old.key("k").set(&"old").await.unwrap();
    assert_eq!(new.key("k").get::<String>().await.unwrap(), None);
    let load = || async { Ok::<_, Error>("new".to_owned()) };
    assert_eq!(new.key("k").get_or_load(load).await.unwrap(), "new");
    assert_eq!(
        new.key("k").get::<String>().await.unwrap().as_deref(),
        Some("new")
    );
    assert_eq!(
        new.key("k").get::<u32>().await.unwrap(),
        None,
        "text is no number"
    );
    assert_eq!(
        new.key("k")
            .get_or_load(|| async { Ok::<_, Error>(7) })
            .await
            .unwrap(),
        7
    );
}

#[tokio::test]
async fn providers_are_read_in_order_and_all_are_written() {
    let (near, far) = (Line::new("near"), Line::new("far"));
    let cache = Cache::builder_with(near.clone())
        .provider(far.clone())
        .caching(true)
        .build()
        .await
        .unwrap();
    cache.key("k").tags(["t"]).set(&1).await.unwrap();
    assert_eq!((near.entries(), far.entries()), (1, 1));
    near.calls();
    far.calls();
    assert_eq!(cache.key("k").get::<u32>().await.unwrap(), Some(1));
    assert_eq!((near.calls(), far.calls()), (vec!["get"], vec![]));

    near.cut();
    let served = cache
        .key("k")
        .load(|| async { Ok::<_, Error>(Loaded::new(2)) })
        .await
        .unwrap();
    assert_eq!(
        (served.value, served.source),
        (1, Source::Hit),
        "the far one has it"
    );
    near.mend();

    cache
        .key("only far")
        .providers(["far"])
        .set(&1)
        .await
        .unwrap();
    assert_eq!((near.entries(), far.entries()), (1, 2));
    assert_eq!(cache.key("only far").get::<u32>().await.unwrap(), Some(1));
    assert_eq!(cache.invalidate(["t"]).await.unwrap().entries(), 2);
    let unknown = cache
        .key("k")
        .providers(["nowhere"])
        .get::<u32>()
        .await
        .unwrap_err();
    assert_eq!(unknown.to_string(), "unknown provider: `nowhere`");
    let load = || async { Ok::<_, Error>(3) };
    assert_eq!(
        cache
            .key("k")
            .providers(["nowhere"])
            .get_or_load(load)
            .await
            .unwrap(),
        3
    );
}

#[tokio::test]
async fn a_cache_needs_providers_with_names_of_their_own() {
    let twice = Cache::builder_with(MemoryProvider::default()).provider(MemoryProvider::default());
    let error = twice.build().await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        "configuration: two providers are named `memory`"
    );
    let error = Cache::builder("nonsense")
        .build()
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("no scheme"), "{error}");
}

#[tokio::test]
async fn bytes_are_kept_as_they_are() {
    let cache = cache().await;
    let bytes: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    assert!(cache.key("k").tags(["t"]).set_bytes(&bytes).await.unwrap());
    let kept = cache
        .inspect("k")
        .await
        .unwrap()
        .expect("it is there")
        .bytes;
    assert!(kept < 100_100, "{kept}");
    assert_eq!(
        cache.key("k").get_bytes().await.unwrap().as_deref(),
        Some(&bytes[..])
    );
    assert_eq!(cache.key("k").get::<String>().await.unwrap(), None);
    let load = || async { Ok::<_, Error>(mcache::Bytes::from_static(b"new")) };
    assert_eq!(cache.key("k").get_or_load_bytes(load).await.unwrap(), bytes);
    cache.invalidate(["t"]).await.unwrap();
    assert_eq!(cache.key("k").get_or_load_bytes(load).await.unwrap(), "new");
    assert_eq!(cache.key("k").get_bytes().await.unwrap().unwrap(), "new");
}

#[tokio::test]
async fn what_is_stored_together_does_not_expire_together() {
    let cache = Cache::builder_with(MemoryProvider::default())
        .ttl_jitter(0.1)
        .caching(true)
        .build()
        .await
        .unwrap();
    let mut ttls = Vec::new();
    for number in 0..200 {
        let key = format!("k{number}");
        cache.key(&key).ttl(HOUR).set(&1).await.unwrap();
        let found = cache.inspect(&key).await.unwrap().expect("it is there");
        ttls.push(found.ttl.expect("it expires").as_secs());
    }
    assert!(
        ttls.iter().all(|ttl| (3230..=3600).contains(ttl)),
        "{ttls:?}"
    );
    ttls.sort_unstable();
    assert!(ttls[150] - ttls[50] > 60, "{ttls:?}");
}

#[tokio::test(start_paused = true)]
async fn no_duration_size_or_count_panics() {
    for end in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        for count in [0, 1, usize::MAX] {
            let cache = Cache::builder_with(
                MemoryProvider::builder()
                    .entries_max(count.max(10))
                    .lease(end)
                    .build(),
            )
            .ttl(end)
            .loader_timeout(end)
            .retry_invalidations_min(end)
            .failure_pause(end)
            .ttl_jitter(if count == 0 { f64::NAN } else { f64::INFINITY })
            .value_bytes_max(count)
            .compress_from_bytes(Some(count))
            .pending_invalidations_max(count)
            .pending_invalidations_bytes_max(count)
            .caching(true)
            .build()
            .await
            .unwrap();
            let entry = |key: &'static str| {
                let entry = cache.key(key).ttl(end).swr(end).early_refresh(end);
                entry.negative_ttl(end).stale_if_error(true).tags(["t"])
            };
            for _ in 0..2 {
                let _ = entry("set").set(&1).await;
                let load = || async { Ok::<_, Error>(1) };
                assert_eq!(entry("load").get_or_load(load).await.unwrap(), 1);
                let load = || async { Ok::<Option<u32>, Error>(None) };
                let _ = entry("none").get_or_load_optional(load).await.unwrap();
                let load = move || async move { Ok::<_, Error>(Loaded::new(1).ttl(end)) };
                let _ = entry("tagged").load_detached(load).await.unwrap();
                let fail = || async { Err::<u32, _>("no") };
                let _ = entry("fail").get_or_load_shared(fail).await;
                cache.soft_invalidate(["t"]).await.unwrap();
                let _ = entry("set").get_or_load(fail).await;
                cache.invalidate(["t"]).await.unwrap();
                cache.clear("set").await.unwrap();
            }
            let _ = cache.shutdown(end).await;
        }
    }
}

#[tokio::test]
async fn two_releases_side_by_side_keep_their_own_entries_and_share_invalidations() {
    let provider = MemoryProvider::default();
    let version = |version| {
        let builder = Cache::builder_with(provider.clone()).schema_version(version);
        async move { builder.caching(true).build().await.unwrap() }
    };
    let releases = [version(1).await, version(2).await];
    let source = Database::default();
    for number in 0..200 {
        let entry = releases[number % 2].key("k").tags(["t"]);
        entry.get_or_load(|| source.load()).await.unwrap();
        settle().await;
    }
    assert_eq!(source.loads(), 2, "one for each version");
    assert_eq!(releases[1].invalidate(["t"]).await.unwrap().entries(), 2);
}

#[tokio::test]
async fn no_spelling_reaches_another_namespace_or_everything() {
    let provider = MemoryProvider::default();
    let in_namespace = |name: &'static str| {
        let builder = Cache::builder_with(provider.clone()).namespace(name);
        async move { builder.caching(true).build().await.unwrap() }
    };
    let (a, ab, none) = (
        in_namespace("a").await,
        in_namespace("a:b").await,
        in_namespace("").await,
    );
    ab.key("k").tags(["t"]).set("ab").await.unwrap();
    assert_eq!(a.key("b:k").get::<String>().await.unwrap(), None);
    assert_eq!(none.key("a:b:k").get::<String>().await.unwrap(), None);
    a.key("one").tags(["*"]).set("starred").await.unwrap();
    a.key("two").tags(["t"]).set("other").await.unwrap();
    for (cache, tags) in [(&a, ["*", "b:t"]), (&none, ["a:*", "a:b:t"])] {
        cache.invalidate(tags).await.unwrap();
    }
    assert_eq!(a.key("one").get::<String>().await.unwrap(), None);
    assert!(a.key("two").get::<String>().await.unwrap().is_some());
    assert!(ab.key("k").get::<String>().await.unwrap().is_some());
    assert_eq!(none.clear_all().await.unwrap().entries(), 0);
}
