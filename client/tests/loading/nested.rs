//! Loaders that read other keys of the cache, or their own: none of them waits for itself.

use std::{collections::HashMap, time::Duration};

use mcache::{Cache, Error, Loaded, MemoryProvider};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

/// A load takes a moment, not as long as it may: by tokio's clock, which is paused and moves only when all wait.
const MOMENT: Duration = Duration::from_secs(1);

async fn cache() -> Cache {
    let builder = Cache::builder_with(MemoryProvider::default());
    builder.caching(true).build().await.expect("a cache")
}

type Rows = Result<HashMap<&'static str, Loaded<u32>>, Error>;

/// The rows of `x` and `y` in one query, for which `z` must be known; and `z` is made of `x`. No key depends on itself.
async fn rows(cache: &Cache, keys: Vec<&'static str>, is_detached: bool) -> Rows {
    let mut rows = HashMap::new();
    for key in keys {
        let value = match key {
            "y" => z(cache, is_detached).await? + 1,
            _ => 1,
        };
        rows.insert(key, Loaded::new(value));
    }
    Ok(rows)
}

async fn z(cache: &Cache, is_detached: bool) -> Result<u32, Error> {
    let (own, key) = (cache.clone(), cache.key("z"));
    let load = move || async move {
        let x = own.key("x").get_or_load(|| async { Ok::<_, Error>(1) });
        Ok(x.await? + 1)
    };
    match is_detached {
        true => key.get_or_load_detached(load).await,
        false => key.get_or_load(load).await,
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_loader_reads_what_is_made_of_one_of_its_keys_does_not_wait_for_itself() {
    for is_detached in [false, true] {
        let cache = cache().await;
        let began = Instant::now();
        let batch = cache.keys(["x", "y"]);
        let own = cache.clone();
        let found = match is_detached {
            true => {
                let load = move |keys| {
                    let own = own.clone();
                    async move { rows(&own, keys, true).await }
                };
                batch.get_or_load_many_detached(load).await
            }
            false => batch.get_or_load_many(|keys| rows(&own, keys, false)).await,
        };
        assert_eq!(found.expect("loaded"), HashMap::from([("x", 1), ("y", 3)]));
        assert!(began.elapsed() < MOMENT, "{:?}", began.elapsed());
        assert_eq!(cache.key("z").get::<u32>().await.expect("asked"), Some(2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_reads_its_own_key_does_not_wait_for_itself() {
    let cache = cache().await;
    let began = Instant::now();
    let inner = || async {
        let inner = cache.key("k").get_or_load(|| async { Ok::<u32, Error>(1) });
        Ok::<_, Error>(inner.await? + 1)
    };
    assert_eq!(cache.key("k").get_or_load(inner).await.expect("loaded"), 2);
    assert!(began.elapsed() < MOMENT, "{:?}", began.elapsed());
}

/// Two batches that are filled at the same time, each of which reads a key of the other.
#[tokio::test(start_paused = true)]
async fn two_loaders_that_read_each_others_keys_do_not_wait_for_each_other() {
    let cache = cache().await;
    let began = Instant::now();
    let both = Notify::new();
    let load = |keys: Vec<&'static str>, other: &'static str, waits: bool| {
        let (cache, both) = (&cache, &both);
        async move {
            match waits {
                true => both.notified().await,
                false => both.notify_one(),
            }
            sleep(Duration::from_millis(10)).await;
            let other = cache
                .key(other)
                .get_or_load(|| async { Ok::<u32, Error>(1) });
            let value = other.await? + 1;
            Ok::<_, Error>(
                keys.into_iter()
                    .map(|key| (key, Loaded::new(value)))
                    .collect(),
            )
        }
    };
    let one = cache
        .keys(["a", "b"])
        .get_or_load_many(|keys| load(keys, "c", true));
    let two = cache
        .keys(["c", "d"])
        .get_or_load_many(|keys| load(keys, "b", false));
    let (one, two): (Result<HashMap<_, u32>, _>, Result<HashMap<_, u32>, _>) =
        tokio::join!(one, two);
    assert_eq!(one.expect("loaded").len() + two.expect("loaded").len(), 4);
    assert!(began.elapsed() < MOMENT, "{:?}", began.elapsed());
}

/// What is not a circle is waited for as before: two keys whose loaders read a third load it once.
#[tokio::test(start_paused = true)]
async fn loaders_that_read_the_same_key_load_it_once() {
    let cache = cache().await;
    let loads = std::sync::atomic::AtomicUsize::new(0);
    let outer = |key: &'static str| {
        let (cache, loads) = (&cache, &loads);
        async move {
            let load = || async {
                let shared = cache.key("shared").get_or_load(|| async {
                    loads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    sleep(Duration::from_millis(10)).await;
                    Ok::<u32, Error>(1)
                });
                shared.await
            };
            cache.key(key).get_or_load(load).await
        }
    };
    let (one, two) = tokio::join!(outer("one"), outer("two"));
    assert_eq!((one.expect("loaded"), two.expect("loaded")), (1, 1));
    assert_eq!(loads.into_inner(), 1);
}

/// Two processes, each of which loads what the other's loader reads: neither can know that it waits for itself.
#[tokio::test(start_paused = true)]
async fn a_circle_over_two_processes_ends_long_before_the_loader_timeout() {
    let timeout = Duration::from_secs(40);
    let shared = MemoryProvider::default();
    let process = async || {
        let builder = Cache::builder_with(shared.clone()).loader_timeout(timeout);
        builder.caching(true).build().await.expect("a cache")
    };
    for is_batch in [false, true] {
        let (here, there) = (process().await, process().await);
        let began = Instant::now();
        let both = tokio::sync::Barrier::new(2);
        let load = async |cache: &Cache, own: &str, other: &str| {
            let own = format!("{own} {is_batch}");
            let other = format!("{other} {is_batch}");
            let outer = || async {
                both.wait().await;
                if is_batch {
                    let inner = |keys: Vec<String>| async {
                        Ok::<_, Error>(keys.into_iter().map(|key| (key, Loaded::new(1))).collect())
                    };
                    let batch = cache.keys([other.clone()]).get_or_load_many(inner);
                    return Ok::<u32, Error>(batch.await?[&other] + 1);
                }
                let inner = cache
                    .key(&other)
                    .get_or_load(|| async { Ok::<_, Error>(1) });
                Ok::<u32, Error>(inner.await? + 1)
            };
            cache.key(&own).get_or_load(outer).await.expect("loaded")
        };
        let (one, two) = tokio::join!(load(&here, "1", "2"), load(&there, "2", "1"));
        assert!(one >= 2 && two >= 2, "{one} {two}");
        // Of the test's own clock, which goes on when every task sleeps.
        let took = began.elapsed();
        assert!(took < timeout / 3, "{took:?}");
    }
}
