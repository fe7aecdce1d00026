//! The near cache of the client on real servers: what it serves, what it must not serve, and who waits for whom.

mod answers;
mod beside;
mod graph;
mod lease;
mod other;
mod own;
mod settling;
mod topology;

use std::time::Duration;

use harness::{Server, ServerBuilder, Session, wait::PATIENCE};
use mcache::{Cache, Error, Loaded, NearOptions, NearStats, Served, Settled, server::RedisOptions};
use tokio::time::{Instant, sleep};

/// Options of a server with the feed on. The lease is as long as it can be, for a busy machine.
fn options() -> ServerBuilder {
    Server::builder().feed(5_000)
}

/// A cache as one process would have it, on connections of its own.
async fn plain(url: &str) -> Cache {
    let redis = RedisOptions::default().command_deadline(Duration::from_secs(5));
    let cache = Cache::builder(url).redis(redis).caching(true);
    cache.build().await.expect("a cache")
}

/// The same with a near cache, which may serve when this returns.
async fn near(url: &str) -> Cache {
    let cache = near_unasked(url).await;
    until_serving(&cache).await;
    cache
}

/// The same, whether or not the server grants a lease.
async fn near_unasked(url: &str) -> Cache {
    let redis = RedisOptions::default().command_deadline(Duration::from_secs(5));
    let cache = Cache::builder(url)
        .redis(redis)
        .near(NearOptions::new())
        .caching(true);
    cache.build().await.expect("a cache")
}

fn stats(cache: &Cache) -> NearStats {
    cache.near_stats().remove(0)
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

pub(super) async fn until_serving(cache: &Cache) {
    until("the near cache may serve", || stats(cache).is_serving()).await;
}

async fn load(cache: &Cache, key: &str, value: u32) -> Served<u32> {
    let load = || async move { Ok::<_, Error>(Loaded::new(value)) };
    let loaded = cache.key(key).tags(["t"]).load(load).await;
    loaded.expect("the source answers")
}

/// Reads until the near cache serves the key, and says what.
async fn until_near(cache: &Cache, key: &str, value: u32) -> u32 {
    let began = Instant::now();
    loop {
        let served = load(cache, key, value).await;
        if served.source == mcache::Source::Near {
            return served.value;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "it is never near: {:?}",
            stats(cache)
        );
        sleep(Duration::from_millis(2)).await;
    }
}

/// Reads until all of them are near.
async fn until_all_near<T, E: std::fmt::Debug, Fut: Future<Output = Result<T, E>>>(
    cache: &Cache,
    count: u64,
    read: impl Fn() -> Fut,
) {
    let began = Instant::now();
    while stats(cache).entries < count {
        assert!(began.elapsed() < PATIENCE, "{:?}", stats(cache));
        read().await.expect("loaded");
    }
}

/// Invalidates, and has it settled.
async fn invalidate(cache: &Cache, tag: &str) {
    let invalidation = cache.invalidate([tag]).await.expect("sent");
    assert!(invalidation.is_settled(), "{invalidation:?}");
    assert_eq!(invalidation.settled().await, Settled::Acknowledged);
}

/// How often the server executed commands that read or store entries.
fn executed(session: &mut Session) -> u64 {
    let commands = [
        "mcache.get",
        "mcache.mget",
        "mcache.fetch",
        "mcache.nearget",
        "mcache.set",
        "mcache.token",
    ];
    session.calls(commands).iter().sum()
}
