//! Several keys at once whose values are stale, due or failing: who waits, and what is served meanwhile.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use mcache::{Batch, Cache, Error, Loaded, MemoryProvider, Source};
use tokio::time::{Instant, advance, sleep, timeout};

const HOUR: Duration = Duration::from_secs(3600);
const TEN: Duration = Duration::from_secs(10);
const KEYS: [&str; 3] = ["a", "b", "c"];

async fn cache() -> Cache {
    let builder = Cache::builder_with(MemoryProvider::default());
    builder.caching(true).build().await.expect("a cache")
}

fn batch<'c>(cache: &'c Cache, keys: &[&'static str]) -> Batch<'c, &'static str> {
    cache.keys(keys.to_vec()).ttl(TEN).swr(HOUR)
}

/// A database that answers after a while, with the number of the query, and counts the queries.
#[derive(Clone, Default)]
struct Database {
    queries: Arc<AtomicUsize>,
    keys: Arc<AtomicUsize>,
}

type Rows<E = Error> = Result<HashMap<&'static str, Loaded<usize>>, E>;

impl Database {
    async fn query(&self, keys: Vec<&'static str>, takes: Duration) -> Rows {
        let number = self.queries.fetch_add(1, SeqCst) + 1;
        self.keys.fetch_add(keys.len(), SeqCst);
        sleep(takes).await;
        Ok(keys
            .into_iter()
            .map(|key| (key, Loaded::new(number)))
            .collect())
    }

    fn loader(
        &self,
        takes: Duration,
    ) -> impl Fn(Vec<&'static str>) -> futures_util::future::BoxFuture<'static, Rows>
    + Send
    + Sync
    + 'static {
        let database = self.clone();
        move |keys| {
            let database = database.clone();
            Box::pin(async move { database.query(keys, takes).await })
        }
    }

    fn asked(&self) -> (usize, usize) {
        (self.queries.load(SeqCst), self.keys.load(SeqCst))
    }
}

async fn fail(_missing: Vec<&'static str>) -> Rows<&'static str> {
    Err("the database is down")
}

#[tokio::test(start_paused = true)]
async fn a_batch_past_its_time_is_served_at_once_and_refreshed_by_one_query_in_the_background() {
    let (cache, database) = (cache().await, Database::default());
    let five = Duration::from_secs(5);
    // Nothing is there: the caller gives up, the load does not.
    let load = batch(&cache, &KEYS).load_many_detached(database.loader(five));
    assert!(timeout(Duration::from_millis(50), load).await.is_err());
    assert!(cache.shutdown(HOUR).await.is_nothing(), "it waits for them");
    assert_eq!(database.asked(), (1, 3));

    advance(TEN).await;
    let began = Instant::now();
    let load = batch(&cache, &KEYS).load_many_detached(database.loader(five));
    let served = load.await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO, "no caller waits");
    for key in KEYS {
        assert_eq!((served[key].value, served[key].source), (1, Source::Stale));
    }
    sleep(Duration::from_secs(6)).await;
    assert_eq!(database.asked(), (2, 6), "one query for all of them");
    assert_eq!(cache.get_many(KEYS).await.unwrap(), [Some(2_usize); 3]);
}

#[tokio::test(start_paused = true)]
async fn only_keys_without_a_value_are_waited_for() {
    let (cache, database) = (cache().await, Database::default());
    let load = batch(&cache, &["a", "b"]).load_many_detached(database.loader(Duration::ZERO));
    load.await.unwrap();
    advance(TEN * 2).await;
    cache.key("c").ttl(HOUR).set(&7_usize).await.unwrap();
    let keys = ["a", "b", "c", "d"];
    let load = batch(&cache, &keys).load_many_detached(database.loader(TEN / 2));
    let served = load.await.unwrap();
    let sources = keys.map(|key| served[key].source);
    use Source::{Hit, Loaded, Stale};
    assert_eq!(sources, [Stale, Stale, Hit, Loaded]);
    assert!(cache.shutdown(HOUR).await.is_nothing());
    assert_eq!(
        database.asked(),
        (3, 5),
        "what is there by one query, what is not by another"
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_near_its_end_is_refreshed_in_the_background() {
    let (cache, database) = (cache().await, Database::default());
    for key in KEYS {
        cache.key(key).ttl(TEN).set(&0_usize).await.unwrap();
    }
    // As if a load took a hundred times as long as the entry has to live: nearly always due.
    for _ in 0..100 {
        let batch = batch(&cache, &KEYS).early_refresh(TEN * 100);
        let load = batch.load_many_detached(database.loader(Duration::from_millis(1)));
        let served = load.await.unwrap();
        for key in KEYS {
            assert_eq!(served[key].source, Source::Hit);
        }
        sleep(Duration::from_millis(5)).await;
    }
    let (queries, keys) = database.asked();
    assert!(queries > 50 && keys > 2 * queries, "{queries} for {keys}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_loader_fails_is_served_stale_only_if_asked_for_and_if_all_of_it_is_there() {
    let cache = cache().await;
    for key in KEYS {
        cache.key(key).ttl(TEN).swr(HOUR).set(&1).await.unwrap();
    }
    advance(TEN * 2).await;
    let asked = |keys: &[&'static str], stale| batch(&cache, keys).stale_if_error(stale);
    let failed = asked(&KEYS, false).load_many(fail).await;
    assert_eq!(failed.unwrap_err(), "the database is down");
    sleep(TEN).await;
    let more = asked(&["a", "b", "c", "d"], true).load_many(fail).await;
    assert_eq!(more.unwrap_err(), "the database is down");
    sleep(TEN).await;
    let served = asked(&KEYS, true).load_many(fail).await.unwrap();
    for key in KEYS {
        assert_eq!((served[key].value, served[key].source), (1, Source::Stale));
    }
    // The source is left alone for a moment, by batches as by others.
    let never = |_| async { panic!("it failed a moment ago") };
    let load = asked(&KEYS, true).load_many::<usize, &str, _, _>(never);
    assert_eq!(load.await.unwrap().len(), 3);
    sleep(TEN).await;
    let hang = |_| std::future::pending::<Rows<&'static str>>();
    let served = asked(&KEYS, true).load_many(hang).await.unwrap();
    assert_eq!(served.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_of_a_batch_that_fails_costs_the_caller_nothing() {
    let cache = cache().await;
    for key in KEYS {
        cache.key(key).ttl(TEN).swr(HOUR).set(&1).await.unwrap();
    }
    advance(TEN * 2).await;
    let served = batch(&cache, &KEYS)
        .get_or_load_many_detached(fail)
        .await
        .unwrap();
    assert_eq!(served, HashMap::from(KEYS.map(|key| (key, 1_usize))));
    let failed = batch(&cache, &["d"]).get_or_load_many_detached(fail).await;
    assert_eq!(failed.unwrap_err(), "the database is down");
}
