//! What a near cache serves, and what of it is gone when.

use std::sync::Arc;
use std::time::Duration;

use harness::Server;
use mcache::{Error, Loaded, Policy, Source};

use super::*;
use crate::support::runtime::run;

#[test]
fn a_hit_asks_no_server() {
    let server = options().start();
    let mut session = server.session();
    run(async {
        let cache = near(&server.url()).await;
        assert_eq!(until_near(&cache, "k", 1).await, 1);
        let key = || cache.key("k").tags(["t"]);
        let before = executed(&mut session);
        for _ in 0..1_000 {
            assert_eq!(key().get::<u32>().await.expect("read"), Some(1));
            assert_eq!(
                key().get_arc::<u32>().await.expect("read"),
                Some(Arc::new(1))
            );
            assert_eq!(cache.get_many::<u32>(["k"]).await.expect("read"), [Some(1)]);
            let load = || async { Err::<u32, &str>("it is not called") };
            assert_eq!(key().get_or_load(load).await, Ok(1));
            assert_eq!(*key().get_or_load_arc(load).await.expect("near"), 1);
        }
        assert_eq!(executed(&mut session), before);
        let stats = stats(&cache);
        assert!(stats.hits >= 5_000, "{stats:?}");
        assert_eq!(stats.entries, 1);
        let shared = [
            key().get_arc::<u32>().await.expect("read").expect("near"),
            key().get_arc::<u32>().await.expect("read").expect("near"),
        ];
        assert!(Arc::ptr_eq(&shared[0], &shared[1]), "one value for all");
        let text = key().get_arc::<String>().await.expect("read");
        assert_eq!(text, None, "a number is no text, near or far");
    });
}

#[test]
fn whoever_may_not_be_near_asks_the_server() {
    let server = options().start();
    let mut session = server.session();
    run(async {
        let cache = near(&server.url()).await;
        until_near(&cache, "k", 1).await;
        let before = executed(&mut session);
        let (kept, hits) = (stats(&cache).kept, stats(&cache).hits);
        let found = cache.key("k").bypass_near().get::<u32>().await;
        assert_eq!(found.expect("read"), Some(1));
        let policy = Policy::new().bypass_near();
        let found = cache
            .keys(["k", "l"])
            .policy(policy)
            .get_many::<u32>()
            .await;
        assert_eq!(found.expect("read"), [Some(1), None]);
        assert_eq!(executed(&mut session), before + 2);
        assert_eq!((stats(&cache).kept, stats(&cache).hits), (kept, hits));
    });
}

#[test]
fn what_another_process_invalidates_is_not_served_once_that_is_settled() {
    let server = options().start();
    server.session().await_predecessors();
    run(async {
        let (reader, writer) = (near(&server.url()).await, plain(&server.url()).await);
        for round in 0..50u32 {
            assert_eq!(until_near(&reader, "k", round).await, round);
            invalidate(&writer, "t").await;
            let found = reader.key("k").get::<u32>().await.expect("read");
            assert_eq!(found, None, "round {round}");
        }
        // Not each of them, where a machine is so busy that the feed is lost on the way.
        assert!(stats(&reader).drops.tags > 0, "{:?}", stats(&reader));
    });
}

#[test]
fn what_another_process_clears_is_not_served_once_that_is_settled() {
    let server = options().start();
    server.session().await_predecessors();
    run(async {
        let (reader, writer) = (near(&server.url()).await, plain(&server.url()).await);
        for round in 0..5u32 {
            assert_eq!(until_near(&reader, "k", round).await, round);
            let cleared = match round % 2 {
                0 => writer.clear("k").await,
                _ => writer.clear_all().await,
            };
            assert!(cleared.expect("sent").is_settled());
            assert_eq!(reader.key("k").get::<u32>().await.expect("read"), None);
        }
    });
}

#[test]
fn what_any_command_changes_goes_with_the_feed() {
    let server = options().start();
    let mut session = server.session();
    run(async {
        let cache = near(&server.url()).await;
        let changes = [
            "DEL mc:k",
            "UNLINK mc:k",
            "SET mc:k else",
            "MCACHE.SET mc:k 60 other",
            "RENAME mc:k mc:elsewhere",
            "EXPIRE mc:k 100",
            "MCACHE.INVALIDATE TAGS mc:t",
            "FLUSHDB",
            "FLUSHALL",
            "SWAPDB 0 1",
        ];
        for (value, change) in (1u32..).zip(changes) {
            assert_eq!(until_near(&cache, "k", value).await, value, "{change}");
            session.run(change);
            until(change, || stats(&cache).entries == 0).await;
            session.run("FLUSHALL");
        }
    });
}

#[test]
fn that_there_is_nothing_is_near_too() {
    let server = options().start();
    let mut session = server.session();
    run(async {
        let cache = near(&server.url()).await;
        let load = || async { Ok::<_, Error>(None::<u32>) };
        let read = || {
            let entry = cache.key("k").tags(["t"]);
            let entry = entry.negative_ttl(Duration::from_secs(60));
            entry.get_or_load_optional(load)
        };
        until_all_near(&cache, 1, read).await;
        let before = executed(&mut session);
        assert_eq!(read().await.expect("loaded"), None);
        assert_eq!(executed(&mut session), before);
        invalidate(&cache, "t").await;
        assert_eq!(read().await.expect("loaded"), None);
        assert!(executed(&mut session) > before);
    });
}

#[test]
fn each_key_of_a_batch_is_near_for_itself() {
    let server = options().start();
    let mut session = server.session();
    session.await_predecessors();
    run(async {
        let cache = near(&server.url()).await;
        let names: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
        let load = |missing: Vec<String>| async move {
            let row = |name: String| {
                let tag = name.clone();
                (name, Loaded::new(1u32).tags([tag]))
            };
            Ok::<_, Error>(missing.into_iter().map(row).collect())
        };
        let read = || cache.keys(names.clone()).load_many(load);
        until_all_near(&cache, 20, read).await;
        let before = executed(&mut session);
        let served = read().await.expect("loaded");
        assert!(served.values().all(|one| one.source == Source::Near));
        assert_eq!(executed(&mut session), before);
        invalidate(&cache, "k7").await;
        let served = read().await.expect("loaded");
        for (name, one) in served {
            let is_near = one.source == Source::Near;
            assert_eq!(is_near, name != "k7", "{name}: {:?}", one.source);
        }
    });
}

#[test]
fn a_value_lives_near_no_longer_than_at_the_server() {
    let server = options().start();
    run(async {
        let cache = near(&server.url()).await;
        let life = Duration::from_millis(300);
        let load = |value| move || async move { Ok::<_, Error>(Loaded::new(value)) };
        let began = Instant::now();
        let entry = || cache.key("k").tags(["t"]).ttl(life);
        let mut value = 0u32;
        loop {
            let asked = Instant::now();
            let served = entry().load(load(value + 1)).await.expect("loaded");
            match served.source {
                Source::Loaded => value += 1,
                // What was stored when `value` was loaded lives from then on.
                _ => assert_eq!(served.value, value),
            }
            if value >= 4 {
                break;
            }
            assert!(asked.duration_since(began) < PATIENCE, "it lives for ever");
        }
        assert!(stats(&cache).hits > 0);
    });
}

#[test]
fn a_near_cache_of_one_mebibyte_stays_within_it() {
    let server = options().start();
    run(async {
        let cache = mcache::Cache::builder(server.url())
            .near(mcache::NearOptions::new().bytes(1 << 20))
            .caching(true)
            .build()
            .await
            .expect("a cache");
        until_serving(&cache).await;
        let value = "x".repeat(2_000);
        for number in 0..2_000 {
            let load = || async { Ok::<_, Error>(value.clone()) };
            let entry = cache.key(format!("k{number}")).tags(["t", "u"]);
            entry.get_or_load(load).await.expect("loaded");
            assert!(stats(&cache).bytes <= 1 << 20);
        }
        until("some made way", || stats(&cache).drops.evicted > 0).await;
        let stats = stats(&cache);
        assert!(stats.entries > 50, "{stats:?}");
        // What made way is not in the index: nothing is forgotten twice.
        invalidate(&cache, "t").await;
        let gone = super::stats(&cache);
        assert_eq!(gone.entries, 0, "{gone:?}");
        assert_eq!(gone.bytes, 0, "{gone:?}");
    });
}

#[test]
fn without_the_feed_nothing_is_near_and_the_reason_names_the_option() {
    let server = Server::builder().start();
    let mut session = server.session();
    run(async {
        let cache = near_unasked(&server.url()).await;
        until("the server has refused", || {
            let primaries = stats(&cache).primaries;
            primaries.first().is_some_and(|primary| {
                let refusal = primary.refusal.as_deref().unwrap_or_default();
                refusal.contains("mcache.feed")
            })
        })
        .await;
        assert_eq!(load(&cache, "k", 1).await.source, Source::Loaded);
        assert_eq!(load(&cache, "k", 2).await.source, Source::Hit);
        invalidate(&cache, "t").await;
        assert_eq!(stats(&cache).entries, 0);
        session.ok("CONFIG SET mcache.feed yes");
        until_serving(&cache).await;
        until_near(&cache, "k", 3).await;
        assert_eq!(stats(&cache).primaries[0].refusal, None);
    });
}

#[test]
fn what_has_no_feed_has_no_near_cache() {
    run(async {
        let built = mcache::Cache::builder_with(mcache::MemoryProvider::default())
            .near(mcache::NearOptions::new())
            .caching(true)
            .build()
            .await;
        let error = built.expect_err("there is no server").to_string();
        assert!(error.contains("feed"), "{error}");
    });
}
