//! Of all callers in all processes that miss one key, one loads. Each cache here has its own connections, as a process
//! would.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use harness::{Server, wait};
use mcache::{Cache, Error, Loaded, Source, server::RedisOptions};
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use crate::support::runtime::run;

async fn caches(server: &Server, count: usize, loader_timeout: Duration) -> Vec<Cache> {
    let build = || {
        Cache::builder(server.url())
            .redis(RedisOptions::default().command_deadline(Duration::from_secs(5)))
            .loader_timeout(loader_timeout)
            .caching(true)
            .build()
    };
    let built = join_all((0..count).map(|_| build())).await;
    built
        .into_iter()
        .map(|cache| cache.expect("a cache"))
        .collect()
}

/// A database that knows how many of its queries run at a time.
#[derive(Clone, Default)]
struct Database {
    loads: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
    under_way_max: Arc<AtomicUsize>,
}

impl Database {
    async fn load(&self, time: Duration) -> Result<Loaded<usize>, Error> {
        let under_way = self.under_way.fetch_add(1, SeqCst) + 1;
        self.under_way_max.fetch_max(under_way, SeqCst);
        let value = self.loads.fetch_add(1, SeqCst) + 1;
        sleep(time).await;
        self.under_way.fetch_sub(1, SeqCst);
        Ok(Loaded::new(value))
    }
}

#[test]
fn a_thousand_callers_in_four_processes_make_one_load_after_each_invalidation() {
    let server = Server::start();
    let database = Database::default();
    run(async {
        let caches = caches(&server, 4, Duration::from_secs(30)).await;
        for round in 1..=5 {
            let callers = (0..1000).map(|number| {
                let (cache, database) = (caches[number % 4].clone(), database.clone());
                tokio::spawn(async move {
                    let load = || database.load(Duration::from_millis(50));
                    cache
                        .key("k")
                        .tags(["t"])
                        .load(load)
                        .await
                        .expect("loaded")
                        .value
                })
            });
            for value in join_all(callers).await {
                assert_eq!(value.expect("no task panics"), round);
            }
            assert_eq!(database.loads.load(SeqCst), round);
            caches[0].invalidate(["t"]).await.expect("acknowledged");
        }
        assert_eq!(database.under_way_max.load(SeqCst), 1);
    });
}

#[test]
fn when_the_process_that_loads_goes_away_another_one_loads() {
    let server = Server::start();
    let database = Database::default();
    run(async {
        // The lease: as long as what follows can take.
        let mut caches = caches(&server, 2, 10 * wait::PATIENCE).await;
        let (second, first) = (caches.pop().expect("two"), caches.pop().expect("two"));
        let hanging = {
            let database = database.clone();
            tokio::spawn(async move {
                let load = || database.load(Duration::from_secs(3600));
                first.key("k").load(load).await.expect("loaded").value
            })
        };
        while database.loads.load(SeqCst) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        let waiting = {
            let (cache, database) = (second.clone(), database.clone());
            tokio::spawn(async move { cache.key("k").load(|| database.load(Duration::ZERO)).await })
        };
        let mut session = server.session();
        wait::until("the second waits in the server", || {
            session.stat("parked_clients") == 1
        });
        hanging.abort();
        let served = timeout(wait::PATIENCE, waiting).await;
        let served = served.expect("long before the lease ends");
        let served = served.expect("no task panics").expect("loaded");
        assert_eq!((served.value, served.source), (2, Source::Loaded));
    });
}

#[test]
fn more_keys_are_waited_for_than_there_are_connections_to_wait_on() {
    let server = Server::start();
    let database = Database::default();
    run(async {
        let options = RedisOptions::default().parked_max(2);
        let build = || {
            Cache::builder(server.url())
                .redis(options.clone())
                .caching(true)
                .build()
        };
        let (filler, waiter) = (
            build().await.expect("a cache"),
            build().await.expect("a cache"),
        );
        let read = |cache: &Cache, number: usize| {
            let (cache, database) = (cache.clone(), database.clone());
            tokio::spawn(async move {
                let load = || database.load(Duration::from_millis(200));
                cache
                    .key(format!("k{number}"))
                    .load(load)
                    .await
                    .expect("loaded")
                    .value
            })
        };
        let fills: Vec<_> = (0..20).map(|number| read(&filler, number)).collect();
        while database.loads.load(SeqCst) < 20 {
            sleep(Duration::from_millis(5)).await;
        }
        let waits: Vec<_> = (0..20).map(|number| read(&waiter, number)).collect();
        join_all(fills).await;
        for waited in join_all(waits).await {
            assert!(
                waited.expect("no task panics") <= 20,
                "a caller loaded again"
            );
        }
        assert_eq!(database.loads.load(SeqCst), 20);
    });
}

#[test]
fn a_load_that_outlasts_its_lease_holds_nobody_up_in_another_process() {
    let server = Server::start();
    let database = Database::default();
    run(async {
        let caches = caches(&server, 2, Duration::from_millis(300)).await;
        let gate = Arc::new(Notify::new());
        let slow = {
            let (cache, database, gate) = (caches[0].clone(), database.clone(), gate.clone());
            tokio::spawn(async move {
                let load = async || {
                    let loaded = database.load(Duration::ZERO).await;
                    gate.notified().await;
                    loaded
                };
                cache.key("k").load(load).await
            })
        };
        while database.loads.load(SeqCst) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
        let fast = caches[1]
            .key("k")
            .load(|| database.load(Duration::ZERO))
            .await
            .expect("loaded");
        assert_eq!(fast.value, 2);
        gate.notify_one();
        assert_eq!(
            slow.await.expect("no task panics").expect("loaded").value,
            1
        );
    });
}

#[test]
fn batches_of_two_processes_that_overlap_load_each_key_once() {
    let server = Server::start();
    let loaded = Arc::new(std::sync::Mutex::new(Vec::new()));
    run(async {
        let caches = caches(&server, 2, Duration::from_secs(30)).await;
        let batch = |cache: &Cache, keys: Vec<u32>| {
            let (cache, loaded) = (cache.clone(), loaded.clone());
            tokio::spawn(async move {
                let names: Vec<String> = keys.iter().map(u32::to_string).collect();
                let load = |missing: Vec<String>| {
                    loaded
                        .lock()
                        .expect("no panic")
                        .extend(missing.iter().cloned());
                    async move {
                        sleep(Duration::from_millis(100)).await;
                        let rows = missing.into_iter().map(|key| (key, Loaded::new(1)));
                        Ok::<_, Error>(rows.collect())
                    }
                };
                cache
                    .keys(names)
                    .get_or_load_many(load)
                    .await
                    .expect("loaded")
                    .len()
            })
        };
        let batches = [
            batch(&caches[0], (0..60).collect()),
            batch(&caches[1], (40..100).rev().collect()),
            batch(&caches[0], (20..80).collect()),
        ];
        for count in join_all(batches).await {
            assert_eq!(count.expect("no task panics"), 60);
        }
    });
    let mut loaded = std::mem::take(&mut *loaded.lock().expect("no panic"));
    let all = loaded.len();
    loaded.sort();
    loaded.dedup();
    assert_eq!((loaded.len(), all), (100, 100));
}

/// Two processes want the same many keys; the first is let go when the second waits. What the second then loads, call
/// by call.
async fn second_of_two_batches(server: &Server, first_fails: bool) -> Vec<usize> {
    const KEYS: usize = 40;
    let caches = caches(server, 2, Duration::from_secs(30)).await;
    let (first, second) = (caches[0].clone(), caches[1].clone());
    let keys = || (0..KEYS).map(|number| format!("k{number}"));
    let loaded = |missing: Vec<String>, value: usize| -> HashMap<_, _> {
        missing
            .into_iter()
            .map(|key| (key, Loaded::new(value)))
            .collect()
    };

    let (go, gone) = oneshot::channel::<()>();
    let gone = Mutex::new(Some(gone));
    let leader = tokio::spawn(async move {
        let load = |missing: Vec<String>| {
            let gone = gone.lock().expect("no task panics").take();
            async move {
                gone.expect("it loads once")
                    .await
                    .expect("it is told to go on");
                match first_fails {
                    true => Err("the database is down"),
                    false => Ok(loaded(missing, 1)),
                }
            }
        };
        first.keys(keys()).get_or_load_many(load).await
    });
    let mut redis = server.session();
    wait::until("the first has all leases", || {
        redis.stat("leases") == KEYS as i64
    });

    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = calls.clone();
    let follower = tokio::spawn(async move {
        let load = |missing: Vec<String>| {
            noted.lock().expect("no task panics").push(missing.len());
            async move { Ok::<_, Error>(loaded(missing, 2)) }
        };
        second.keys(keys()).get_or_load_many(load).await
    });
    wait::until("the second waits", || redis.stat("parked_clients") > 0);
    assert_eq!(redis.stat("parked_clients"), 1, "over one connection");
    go.send(()).expect("the first is there");
    assert_eq!(leader.await.expect("no task panics").is_err(), first_fails);
    let values = follower.await.expect("no task panics").expect("loaded");
    assert_eq!(values.len(), KEYS);
    let expected = if first_fails { 2 } else { 1 };
    assert!(
        values.values().all(|value| *value == expected),
        "{values:?}"
    );
    let calls = calls.lock().expect("no task panics");
    calls.clone()
}

#[test]
fn a_batch_that_waits_for_another_takes_what_it_loads_over_one_connection() {
    let server = Server::start();
    assert_eq!(
        run(second_of_two_batches(&server, false)),
        Vec::<usize>::new()
    );
}

#[test]
fn a_batch_that_waited_in_vain_loads_the_rest_together() {
    let server = Server::start();
    let calls = run(second_of_two_batches(&server, true));
    // The one it waited for, then the others: all of them, unless some leases are still on their way back.
    assert_eq!(calls.iter().sum::<usize>(), 40, "{calls:?}");
    assert!(calls.len() <= 10, "{calls:?}");
}
