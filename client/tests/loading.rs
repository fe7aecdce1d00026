//! `get_or_load` and its relatives: one load per key, nothing old, no caller stuck.

mod support;

use std::{
    collections::HashMap,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use mcache::{Cache, Error, Loaded, MemoryProvider, Source};
use support::Line;
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, advance, sleep, timeout},
};

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(120);

async fn cache() -> Cache {
    cache_on(MemoryProvider::default()).await
}

async fn cache_on(provider: impl mcache::Provider) -> Cache {
    Cache::builder_with(provider)
        .caching(true)
        .build()
        .await
        .expect("a cache")
}

/// A database that counts how often it is asked.
#[derive(Clone, Default)]
struct Database {
    loads: Arc<AtomicUsize>,
}

impl Database {
    async fn load(&self) -> Result<usize, Error> {
        Ok(self.loads.fetch_add(1, SeqCst) + 1)
    }

    async fn load_slowly(&self, time: Duration) -> Result<usize, Error> {
        let value = self.load().await;
        sleep(time).await;
        value
    }

    fn loads(&self) -> usize {
        self.loads.load(SeqCst)
    }
}

/// A thousand callers who want the same value at once.
fn a_thousand(cache: &Cache, source: &Database) -> Vec<JoinHandle<Result<usize, Error>>> {
    let call = |_| {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move {
            let load = || source.load_slowly(Duration::from_millis(100));
            cache.key("k").tags(["t"]).get_or_load(load).await
        })
    };
    (0..1000).map(call).collect()
}

/// What a future comes to if it is polled once and then left alone.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        Poll::Ready(match Pin::new(&mut *future).poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// Lets every task run until it waits for something.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

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

#[tokio::test]
async fn the_second_call_is_served_what_the_first_loaded() {
    let (cache, source) = (cache().await, Database::default());
    let load = || {
        let source = source.clone();
        async move { source.load().await.map(Loaded::new) }
    };
    let first = cache.key("k").tags(["t"]).load(load).await.unwrap();
    let second = cache.key("k").tags(["t"]).load(load).await.unwrap();
    assert_eq!((first.value, first.source), (1, Source::Loaded));
    assert_eq!((second.value, second.source), (1, Source::Hit));
    assert_eq!(cache.invalidate(["t"]).await.unwrap().entries(), 1);
    let third = cache.key("k").tags(["t"]).load(load).await.unwrap();
    assert_eq!((third.value, third.source), (2, Source::Loaded));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_make_one_load() {
    let (cache, source) = (cache().await, Database::default());
    for caller in a_thousand(&cache, &source) {
        assert_eq!(caller.await.unwrap().unwrap(), 1);
    }
    assert_eq!(source.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_of_a_cache_that_is_away_make_two_loads_at_most() {
    let line = Line::new("line");
    let (cache, source) = (cache_on(line.clone()).await, Database::default());
    line.cut();
    for caller in a_thousand(&cache, &source) {
        caller.await.unwrap().unwrap();
    }
    // The first was under way when the others came; without the cache it is not known whether it is recent enough for
    // them, so they share a second one.
    assert!(source.loads() <= 2, "{} loads", source.loads());
}

#[tokio::test(start_paused = true)]
async fn when_the_one_who_loads_is_dropped_the_next_one_loads() {
    let (cache, source) = (cache().await, Database::default());
    let caller = |time| {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move {
            cache
                .key("k")
                .get_or_load(|| source.load_slowly(time))
                .await
        })
    };
    let first = caller(HOUR);
    settle().await;
    let others: Vec<_> = (0..10).map(|_| caller(Duration::from_millis(10))).collect();
    settle().await;
    assert_eq!(source.loads(), 1);
    first.abort();
    for other in others {
        assert_eq!(other.await.unwrap().unwrap(), 2);
    }
    assert_eq!(source.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_process_is_not_in_line_behind_itself() {
    let line = Line::new("line");
    let cache = cache_on(line.clone()).await;
    let never = || std::future::pending::<Result<usize, Error>>();
    let answer = line.hold_next_answer();
    let mut holder = pin!(cache.key("k").get_or_load(never));
    let mut second = pin!(cache.key("k").get_or_load(never));
    // The lease is theirs, but before they know it the second one has been told that another has it, and waits.
    assert!(poll_once(&mut holder).await.is_none());
    assert!(poll_once(&mut second).await.is_none());
    assert_eq!(line.waiting(), 1);
    answer.notify_one();
    assert!(poll_once(&mut holder).await.is_none());
    assert!(poll_once(&mut second).await.is_none());
    assert_eq!(line.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn when_waiting_has_led_to_nothing_one_of_the_process_loads() {
    let (line, source) = (Line::new("line"), Database::default());
    let stopped = Cache::builder_with(line.clone())
        .caching(true)
        .loader_timeout(Duration::from_secs(600))
        .build();
    let (stopped, cache) = (stopped.await.unwrap(), cache_on(line).await);
    let never = || std::future::pending::<Result<usize, Error>>();
    let mut holder = pin!(stopped.key("k").get_or_load(never));
    assert!(poll_once(&mut holder).await.is_none());
    for caller in a_thousand(&cache, &source) {
        timeout(PATIENCE, caller).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(source.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_the_one_who_loads_panics_the_next_one_loads() {
    let (cache, source) = (cache().await, Database::default());
    let started = Arc::new(Notify::new());
    let (first_cache, first_started) = (cache.clone(), started.clone());
    let first = tokio::spawn(async move {
        let load = || async {
            first_started.notify_one();
            sleep(Duration::from_millis(10)).await;
            panic!("the source has a bug")
        };
        first_cache
            .key("k")
            .get_or_load::<usize, Error, _, _>(load)
            .await
    });
    started.notified().await;
    let value = timeout(PATIENCE, cache.key("k").get_or_load(|| source.load())).await;
    assert_eq!(value.expect("not stuck").unwrap(), 1);
    assert!(first.await.unwrap_err().is_panic());
}

#[tokio::test(start_paused = true)]
async fn a_loaders_error_is_the_callers_own_and_is_not_cached() {
    #[derive(Debug, PartialEq)]
    struct Own(&'static str);

    let line = Line::new("line");
    let cache = cache_on(line.clone()).await;
    let failing = |cache: Cache| async move {
        let load = || async {
            sleep(Duration::from_millis(10)).await;
            Err::<usize, _>(Own("no such product"))
        };
        cache.key("k").get_or_load(load).await
    };
    let both = tokio::join!(failing(cache.clone()), failing(cache.clone()));
    assert_eq!(
        both,
        (Err(Own("no such product")), Err(Own("no such product")))
    );
    settle().await;
    assert_eq!(line.entries(), 0);
    assert_eq!(
        line.count("release"),
        2,
        "the next one in another process need not wait"
    );
    let value = cache
        .key("k")
        .get_or_load(|| async { Ok::<_, Own>(1) })
        .await;
    assert_eq!(value, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn what_was_invalidated_while_it_was_loaded_is_not_kept_and_not_shared() {
    let (cache, source) = (cache().await, Database::default());
    let caller = || {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move {
            let load = || source.load_slowly(Duration::from_millis(100));
            cache.key("k").tags(["t"]).get_or_load(load).await.unwrap()
        })
    };
    let before = caller();
    settle().await;
    cache.invalidate(["t"]).await.unwrap();
    let after = caller();
    assert_eq!(before.await.unwrap(), 1, "it asked before the change");
    assert_eq!(after.await.unwrap(), 2, "it asked after the change");
    assert_eq!(cache.key("k").get::<usize>().await.unwrap(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_overruns_gets_its_own_result_and_holds_nobody_up() {
    let line = Line::new("line");
    let cache = Cache::builder_with(line.clone())
        .caching(true)
        .loader_timeout(Duration::from_secs(1))
        .build()
        .await
        .unwrap();
    let (slow_source, source) = (Database::default(), Database::default());
    let began = Instant::now();
    let slow = tokio::spawn({
        let (cache, source) = (cache.clone(), slow_source.clone());
        async move {
            let load = || source.load_slowly(Duration::from_secs(60));
            cache.key("k").get_or_load(load).await
        }
    });
    sleep(Duration::from_millis(800)).await;
    // Has more patience than the other has time left: it looks again, and is the one who may fill.
    let load = || source.load_slowly(Duration::from_millis(10));
    let value = cache.key("k").get_or_load(load).await.unwrap();
    assert_eq!((value, source.loads()), (1, 1));
    let elapsed = began.elapsed();
    assert!(elapsed < Duration::from_millis(1100), "{elapsed:?}");
    settle().await;
    assert_eq!(
        line.count("release"),
        1,
        "whatever the provider thinks of the lease"
    );
    assert_eq!(slow.await.unwrap().unwrap(), 1);
    assert_eq!(slow_source.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn past_its_time_one_caller_refreshes_while_the_others_are_served_stale() {
    let (cache, source) = (cache().await, Database::default());
    let load = |time| {
        let (cache, source) = (cache.clone(), source.clone());
        async move {
            let load = || async move { source.load_slowly(time).await.map(Loaded::new) };
            let entry = cache.key("k").ttl(Duration::from_secs(10)).swr(HOUR);
            let served = entry.load(load).await.unwrap();
            (served.value, served.source)
        }
    };
    assert_eq!(load(Duration::ZERO).await, (1, Source::Loaded));
    advance(Duration::from_secs(11)).await;
    let refresher = tokio::spawn(load(Duration::from_millis(100)));
    settle().await;
    assert_eq!(load(Duration::ZERO).await, (1, Source::Stale));
    assert_eq!(refresher.await.unwrap(), (2, Source::Loaded));
    assert_eq!(load(Duration::ZERO).await, (2, Source::Hit));
}

#[tokio::test(start_paused = true)]
async fn a_stale_value_is_served_instead_of_an_error_only_if_asked_for() {
    let cache = cache().await;
    let entry = || cache.key("k").ttl(Duration::from_secs(10)).swr(HOUR);
    entry().set(&1).await.unwrap();
    advance(Duration::from_secs(11)).await;
    let fail = || async { Err::<Loaded<u32>, _>("the database is down") };
    assert_eq!(entry().load(fail).await, Err("the database is down"));
    settle().await;
    let served = entry().stale_if_error(true).load(fail).await.unwrap();
    assert_eq!((served.value, served.source), (1, Source::Stale));
    settle().await;
    let hang = || std::future::pending::<Result<Loaded<u32>, &str>>();
    let served = entry().stale_if_error(true).load(hang).await.unwrap();
    assert_eq!((served.value, served.source), (1, Source::Stale));
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

#[tokio::test(start_paused = true)]
async fn a_batch_loads_what_is_missing_in_one_call() {
    let cache = cache().await;
    cache.key("a").set(&1).await.unwrap();
    let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
    let load = |mut missing: Vec<&'static str>| {
        missing.sort_unstable();
        calls.lock().unwrap().push(missing.clone());
        async move {
            let known = missing.into_iter().filter(|key| *key != "d");
            Ok::<_, Error>(
                known
                    .map(|key| (key, Loaded::new(2).tags([key])))
                    .collect::<HashMap<_, _>>(),
            )
        }
    };
    let keys = ["a", "b", "c", "b", "d"];
    let values = cache.keys(keys).get_or_load_many(load).await.unwrap();
    assert_eq!(values, HashMap::from([("a", 1), ("b", 2), ("c", 2)]));
    assert_eq!(*calls.lock().unwrap(), [["b", "c", "d"]]);
    let again = cache.keys(keys).get_or_load_many(load).await.unwrap();
    assert_eq!(again, values);
    assert_eq!(
        calls.lock().unwrap()[1..],
        [["d"]],
        "what is not there is asked for again"
    );
    let remembering = || cache.keys(keys).negative_ttl(HOUR);
    remembering().get_or_load_many(load).await.unwrap();
    remembering().get_or_load_many(load).await.unwrap();
    assert_eq!(calls.lock().unwrap().len(), 3, "unless it is remembered");
    assert_eq!(
        cache.get_many::<u32>(keys).await.unwrap(),
        [Some(1), Some(2), Some(2), Some(2), None]
    );
    assert_eq!(cache.invalidate(["b", "c"]).await.unwrap().entries(), 2);
}

#[tokio::test(start_paused = true)]
async fn batches_that_overlap_wait_for_each_other_and_load_each_key_once() {
    let cache = cache().await;
    let loaded = Arc::new(std::sync::Mutex::new(Vec::new()));
    let batch = |keys: [&'static str; 3]| {
        let (cache, loaded) = (cache.clone(), loaded.clone());
        tokio::spawn(async move {
            let load = |missing: Vec<&'static str>| {
                loaded.lock().unwrap().extend(missing.iter().copied());
                async move {
                    sleep(Duration::from_millis(50)).await;
                    Ok::<_, Error>(
                        missing
                            .into_iter()
                            .map(|key| (key, Loaded::new(key.len())))
                            .collect(),
                    )
                }
            };
            cache.keys(keys).get_or_load_many(load).await.unwrap().len()
        })
    };
    let batches = [
        batch(["a", "b", "c"]),
        batch(["c", "b", "d"]),
        batch(["d", "a", "e"]),
    ];
    for batch in batches {
        assert_eq!(
            timeout(PATIENCE, batch).await.expect("not stuck").unwrap(),
            3
        );
    }
    let mut loaded = loaded.lock().unwrap().clone();
    loaded.sort_unstable();
    assert_eq!(loaded, ["a", "b", "c", "d", "e"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_loader_fails_keeps_nobody_waiting() {
    let cache = cache().await;
    let fail =
        |_: Vec<&'static str>| async { Err::<HashMap<&'static str, Loaded<u32>>, _>("down") };
    assert_eq!(
        cache.keys(["a", "b"]).get_or_load_many(fail).await,
        Err("down")
    );
    let began = Instant::now();
    assert_eq!(
        cache
            .key("a")
            .get_or_load(|| async { Ok::<_, Error>(1) })
            .await
            .unwrap(),
        1
    );
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn near_its_end_one_refreshes_early_and_whoever_fails_has_the_live_value() {
    let cache = Cache::builder_with(MemoryProvider::default())
        .failure_pause(Duration::ZERO)
        .caching(true)
        .build()
        .await
        .unwrap();
    // As if a load took ten times as long as the entry has to live: it is due with a chance of 90 %.
    let entry = || {
        cache
            .key("k")
            .ttl(Duration::from_secs(60))
            .early_refresh(Duration::from_secs(600))
    };
    entry().set(&1).await.unwrap();
    let fail = || async { Err::<Loaded<u32>, _>("the database is down") };
    for _ in 0..50 {
        let served = entry().load(fail).await.unwrap();
        assert_eq!((served.value, served.source), (1, Source::Hit));
        settle().await;
    }
    let mut hits = 0;
    let served = loop {
        let load = || async { Ok::<_, &str>(Loaded::new(2)) };
        let served = entry().load(load).await.unwrap();
        if served.source == Source::Loaded {
            break served;
        }
        hits += 1;
        assert!(hits < 100, "no caller refreshes");
    };
    assert_eq!(served.value, 2);
    settle().await;
    assert_eq!(cache.key("k").get::<u32>().await.unwrap(), Some(2));
}

/// A source that fails, and how many are in it at once at most.
#[derive(Clone, Default)]
struct Failing {
    calls: Arc<AtomicUsize>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Failing {
    async fn load(&self) -> Result<usize, &'static str> {
        self.calls.fetch_add(1, SeqCst);
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        sleep(Duration::from_millis(10)).await;
        self.now.fetch_sub(1, SeqCst);
        Err("the database is down")
    }

    fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_asked_by_one_caller_at_a_time() {
    let away = Line::new("away");
    away.cut();
    for provider in [Line::new("there"), away] {
        let (cache, source) = (cache_on(provider).await, Failing::default());
        let call = |_| {
            let (cache, source) = (cache.clone(), source.clone());
            tokio::spawn(async move { cache.key("k").get_or_load(|| source.load()).await })
        };
        let callers: Vec<_> = (0..1000).map(call).collect();
        for caller in callers {
            let answer = timeout(PATIENCE, caller).await.unwrap().unwrap();
            assert_eq!(answer, Err("the database is down"));
        }
        assert_eq!(source.most.load(SeqCst), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn callers_who_waited_get_the_error_of_the_one_who_loaded() {
    let (cache, source) = (cache().await, Failing::default());
    let call = |_| {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move { cache.key("k").get_or_load_shared(|| source.load()).await })
    };
    let callers: Vec<_> = (0..1000).map(call).collect();
    for caller in callers {
        let answer = timeout(PATIENCE, caller).await.unwrap().unwrap();
        assert_eq!(answer, Err("the database is down"));
    }
    assert_eq!(source.calls(), 1);
    let next = cache
        .key("k")
        .get_or_load_shared(|| async { Ok::<_, &str>(1) });
    assert_eq!(next.await, Ok(1), "an error is not kept");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_another_type_is_not_shared() {
    let cache = cache().await;
    let text = async {
        let load = || async {
            sleep(Duration::from_millis(10)).await;
            Err::<u32, _>("text")
        };
        cache.key("k").get_or_load_shared(load).await
    };
    let number = async {
        cache
            .key("k")
            .get_or_load_shared(|| async { Err::<u32, _>(7) })
            .await
    };
    assert_eq!(tokio::join!(text, number), (Err("text"), Err(7)));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_failed_is_left_alone_for_a_while_where_a_stale_value_is_at_hand() {
    let line = Line::new("line");
    let cache = cache_on(line.clone()).await;
    let other_process = cache_on(line.clone()).await;
    let source = Failing::default();
    let ten = Duration::from_secs(10);
    cache
        .key("k")
        .ttl(ten)
        .swr(HOUR)
        .set(&1_usize)
        .await
        .unwrap();
    advance(Duration::from_secs(11)).await;
    for round in 1..=3 {
        for number in 0..100 {
            let cache = [&cache, &other_process][number % 2];
            let entry = cache.key("k").ttl(ten).swr(HOUR).stale_if_error(true);
            let served = entry.load(|| async { source.load().await.map(Loaded::new) });
            let served = served.await.unwrap();
            assert_eq!((served.value, served.source), (1, Source::Stale));
        }
        assert_eq!(
            source.calls(),
            round,
            "one try in each pause, in all processes"
        );
        sleep(Duration::from_millis(1100)).await;
    }
    // One that hangs is left alone as well.
    let hang = || std::future::pending::<Result<Loaded<usize>, &str>>();
    let entry = || cache.key("k").ttl(ten).swr(HOUR).stale_if_error(true);
    assert_eq!(entry().load(hang).await.unwrap().value, 1);
    let began = Instant::now();
    assert_eq!(entry().load(hang).await.unwrap().value, 1);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_patience_gets_the_stale_value_and_the_refresh_is_finished() {
    let (cache, source) = (cache().await, Database::default());
    let ten = Duration::from_secs(10);
    let entry = || cache.key("k").ttl(ten).swr(HOUR);
    let slowly = || {
        let source = source.clone();
        move || async move {
            source
                .load_slowly(Duration::from_secs(5))
                .await
                .map(Loaded::new)
        }
    };
    // A miss: the caller gives up, the load does not.
    let given_up = timeout(Duration::from_millis(50), entry().load_detached(slowly())).await;
    assert!(given_up.is_err());
    assert!(
        cache.shutdown(HOUR).await.is_nothing(),
        "which waits for it"
    );
    assert_eq!(entry().get::<usize>().await.unwrap(), Some(1));
    // Stale: no caller waits.
    advance(Duration::from_secs(11)).await;
    let began = Instant::now();
    let served = entry().load_detached(slowly()).await.unwrap();
    assert_eq!((served.value, served.source), (1, Source::Stale));
    assert_eq!(began.elapsed(), Duration::ZERO);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(entry().get::<usize>().await.unwrap(), Some(2));
    assert_eq!(source.loads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_detached_load_tells_its_caller_errors_and_panics() {
    let cache = cache().await;
    let failed = cache
        .key("k")
        .get_or_load_detached(|| async { Err::<u32, _>("no") });
    assert_eq!(failed.await, Err("no"));
    let panics = tokio::spawn(async move {
        let load = || async { panic!("the source has a bug") };
        cache
            .key("k")
            .get_or_load_detached::<u32, Error, _, _>(load)
            .await
    });
    assert!(panics.await.unwrap_err().is_panic());
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
async fn a_batch_of_warm_keys_is_one_command() {
    let line = Line::new("line");
    let cache = cache_on(line.clone()).await;
    for number in 0..100 {
        cache.key(format!("k{number}")).set(&number).await.unwrap();
    }
    line.calls();
    let keys = || (0..100).map(|number| format!("k{number}"));
    let load = |_: Vec<String>| async { unreachable!("all of them are there") };
    let values = cache
        .keys(keys())
        .get_or_load_many::<u32, Error, _, _>(load)
        .await
        .unwrap();
    assert_eq!((values.len(), values["k42"]), (100, 42));
    assert_eq!(line.calls(), ["get_many"]);
    cache.clear("k7").await.unwrap();
    line.calls();
    let load = |missing: Vec<String>| async move {
        Ok::<_, Error>(
            missing
                .into_iter()
                .map(|key| (key, Loaded::new(7_u32)))
                .collect(),
        )
    };
    let values = cache.keys(keys()).get_or_load_many(load).await.unwrap();
    assert_eq!((values.len(), values["k7"]), (100, 7));
    settle().await;
    assert_eq!(line.calls(), ["get_many", "fetch", "store"]);
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

#[tokio::test(start_paused = true)]
async fn a_fill_under_way_does_not_undo_a_clear() {
    let (cache, source) = (cache().await, Database::default());
    let filling = {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move {
            let load = || source.load_slowly(Duration::from_millis(100));
            cache.key("k").get_or_load(load).await
        })
    };
    settle().await;
    cache.clear("k").await.unwrap();
    assert_eq!(filling.await.unwrap().unwrap(), 1);
    settle().await;
    assert_eq!(cache.key("k").get::<usize>().await.unwrap(), None);
    let again = cache.key("k").get_or_load(|| source.load()).await.unwrap();
    assert_eq!(again, 2);
    assert_eq!(cache.key("k").get::<usize>().await.unwrap(), Some(2));
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
