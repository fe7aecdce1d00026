//! A cache outlives the runtime on which it was made, or is used from several.

use std::time::Duration;

use harness::{
    Proxy, Server,
    wait::{self, PATIENCE},
};
use mcache::{Cache, Error, Loaded, NearOptions, Settled, Source, server::RedisOptions};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use crate::support::runtime::{run, runtime};

const DEADLINE: Duration = Duration::from_millis(300);
async fn cache(url: &str) -> Cache {
    let options = RedisOptions::default()
        .connect_timeout(PATIENCE)
        .command_deadline(DEADLINE)
        .breaker(3, Duration::from_millis(100));
    let builder = Cache::builder(url).redis(options).caching(true);
    builder.build().await.expect("a cache")
}

async fn read(cache: &Cache, key: &str) -> (u32, Source) {
    let load = || async { Ok::<_, Error>(Loaded::new(7)) };
    let served = cache.key(key).tags(["t"]).load(load).await.expect("loaded");
    (served.value, served.source)
}

/// Reads until the cache takes part.
async fn until_cached(cache: &Cache) {
    timeout(PATIENCE, async {
        while read(cache, "probe").await.1 != Source::Hit {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the cache takes part again");
}

/// A cache in use on a runtime of its own, whose way to the server can be cut.
fn behind_a_proxy() -> (Server, Proxy, Runtime, Cache) {
    let server = Server::builder().tcp().start();
    let proxy = Proxy::to_port(server.port());
    let first = runtime();
    let cache = first.block_on(async {
        let cache = cache(&proxy.url()).await;
        until_cached(&cache).await;
        cache
    });
    (server, proxy, first, cache)
}

#[test]
fn a_cache_is_used_on_when_its_runtime_has_ended() {
    let server = Server::builder().tcp().start();
    let cache = run(async {
        let cache = cache(&server.tcp_url()).await;
        until_cached(&cache).await;
        cache
    });
    for _ in 0..3 {
        run(async {
            until_cached(&cache).await;
            let invalidation = cache.invalidate(["t"]).await.expect("sent");
            let settled = timeout(PATIENCE, invalidation.settled()).await;
            assert_eq!(settled.expect("in time"), Settled::Acknowledged);
            until_cached(&cache).await;
        });
    }
}

#[test]
fn a_runtime_that_ends_while_it_dials_keeps_no_other_from_dialling() {
    let server = Server::builder().tcp().start();
    let proxy = Proxy::to_port(server.port());
    proxy.stall();
    let first = runtime();
    let cache = first.block_on(async {
        let cache = cache(&proxy.url()).await;
        let reading = cache.clone();
        tokio::spawn(async move { read(&reading, "k").await });
        sleep(DEADLINE / 10).await;
        cache
    });
    first.shutdown_background();
    proxy.heal();
    run(until_cached(&cache));
}

#[test]
fn invalidations_go_on_when_the_runtime_ends_that_tried_them_again() {
    let (server, proxy, first, cache) = behind_a_proxy();
    first.block_on(async {
        proxy.refuse();
        let invalidation = cache.invalidate(["t"]).await.expect("it is kept");
        assert!(!invalidation.is_acknowledged());
    });
    drop(first);
    assert!(cache.pending_invalidations() > 0);
    proxy.heal();
    run(async {
        // A reader is enough to have it sent.
        until_cached(&cache).await;
        assert_eq!(cache.pending_invalidations(), 0);
    });
    let mut redis = server.session();
    assert!(redis.stat("invalidations") >= 1);
}

#[test]
fn an_invalidation_is_not_lost_with_the_runtime_that_sent_it() {
    let (_server, proxy, first, cache) = behind_a_proxy();
    first.block_on(async {
        proxy.stall();
        let writing = cache.clone();
        tokio::spawn(async move { writing.invalidate(["t"]).await });
        sleep(DEADLINE / 10).await;
    });
    first.shutdown_background();
    wait::until("the invalidation is pending", || {
        cache.pending_invalidations() == 1
    });
    proxy.heal();
    run(async {
        assert_eq!(
            timeout(PATIENCE, read(&cache, "probe"))
                .await
                .expect("loaded")
                .0,
            7
        );
        until_cached(&cache).await;
    });
}

#[test]
fn a_near_cache_is_used_on_when_its_runtime_has_ended() {
    let server = Server::builder().feed(500).start();
    let cache = run(async {
        let builder = Cache::builder(server.url()).near(NearOptions::default());
        builder.caching(true).build().await.expect("a cache")
    });
    for _ in 0..2 {
        run(async {
            let near = async { while read(&cache, "k").await.1 != Source::Near {} };
            timeout(PATIENCE, near).await.expect("it is near");
            cache.invalidate(["t"]).await.expect("settled");
            assert_ne!(read(&cache, "k").await.1, Source::Near);
        });
    }
}

#[test]
fn two_runtimes_use_one_cache_at_the_same_time() {
    let server = Server::builder().tcp().start();
    let single = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let cache = single.block_on(async {
        let cache = cache(&server.tcp_url()).await;
        until_cached(&cache).await;
        cache
    });
    // The first does not run now, and with it the connection does not.
    run(until_cached(&cache));
    single.block_on(until_cached(&cache));
    drop(single);
    run(until_cached(&cache));
}
