//! Every size, count and duration at both ends: none makes a call, or a task behind it, panic.
//!
//! Options of the cache and of entries on a provider in this process are in `loading/options.rs`; those of a server
//! that answers in the suite, `client::bad_quarter`.

use std::{
    panic,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use mcache::{
    Cache, Error, MemoryProvider, NearOptions, PlainRedisProvider, Provider, RedisProvider, Tags,
    provider::{FetchOptions, Lookup, Mode, Store, Token},
    server::RedisOptions,
};

const DURATIONS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_nanos(1),
    Duration::from_secs(1 << 33),
    Duration::MAX,
];
const COUNTS: [usize; 3] = [0, 1, usize::MAX];

/// Where no server listens: connections are refused at once.
const CLOSED: &str = "redis://127.0.0.1:1";

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Counts the panics from now on, in every task.
fn count_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, SeqCst);
        before(info);
    }));
}

/// What a cache does with a provider, with this duration wherever one is asked for.
async fn use_provider(provider: &dyn Provider, duration: Duration) {
    let tags = Tags::from_iter(["t"]);
    let fetch = FetchOptions::new().wait(Duration::ZERO).lease(duration);
    let fetch = fetch.early(duration);
    let token = match provider.fetch(b"k", fetch).await {
        Ok(Lookup::Miss { token, .. }) => Some(token),
        _ => None,
    };
    for token in [token, None] {
        let mut entry = Store::new(b"k", "v", &tags).ttl(duration).swr(duration);
        if let Some(token) = &token {
            entry = entry.token(token);
        }
        let _ = provider.store(entry).await;
    }
    let _ = provider.fetch(b"k", fetch.wait(duration)).await;
    let _ = provider.inspect(b"k").await;
    let _ = provider.invalidate(&tags, Mode::Soft).await;
    let _ = provider.fetch(b"k", fetch).await;
    let _ = provider.release(b"k", &Token::new(vec![0; 16])).await;
    let _ = provider.clear(b"k").await;
}

#[tokio::test(start_paused = true)]
async fn no_size_count_or_duration_makes_anything_panic() {
    count_panics();
    for duration in DURATIONS {
        for count in COUNTS {
            let memory = MemoryProvider::builder();
            let memory = memory.entries_max(count).bytes_max(count).lease(duration);
            use_provider(&memory.build(), duration).await;

            let options = RedisOptions::default()
                .connect_timeout(duration)
                .command_deadline(duration)
                .breaker(u32::try_from(count).unwrap_or(u32::MAX), duration)
                .parked_max(count)
                .parked_idle_max(duration);
            let redis = RedisProvider::new(CLOSED, options.clone()).unwrap();
            use_provider(&redis, duration).await;

            let plain = PlainRedisProvider::builder(CLOSED)
                .redis(options.clone())
                .spread(count)
                .lease(duration)
                .remembered_tags(count)
                .tags_max(count)
                .build()
                .unwrap();
            use_provider(&plain, duration).await;

            let near = NearOptions::new().bytes(u64::try_from(count).unwrap());
            let cache = Cache::builder(CLOSED).redis(options).near(near);
            let cache = cache.loader_timeout(duration).caching(true);
            let cache = cache.build().await.unwrap();
            let load = || async { Ok::<_, Error>(1) };
            let loaded = cache.key("k").ttl(duration).get_or_load(load).await;
            // A loader that may take no time at all is given up where others wait for it, and asked all the same.
            assert_eq!(loaded.unwrap(), 1);
            cache.shutdown(Duration::ZERO).await;
        }
    }
    assert_eq!(PANICS.load(SeqCst), 0, "a task panicked");
}
