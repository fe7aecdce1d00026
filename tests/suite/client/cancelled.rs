//! Callers that go away: each operation is dropped after each of its polls. Nothing is left behind that another caller
//! would have to wait for.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use harness::{
    Proxy, Server, Session,
    topology::Cluster,
    wait::{self, PATIENCE},
};
use mcache::{Cache, Error, Loaded, NearOptions, PlainRedisProvider, server::RedisOptions};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use crate::support::runtime::{run, runtime};

/// A lease that is left behind lasts longer than any caller here is waited for.
const LOADER_TIMEOUT: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3600);

/// More than any operation needs.
const POLLS_MAX: usize = 60;

type Operation = Pin<Box<dyn Future<Output = ()> + Send>>;

/// When an operation is dropped that is not done.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// At once.
    Asleep,
    /// When it would be polled again.
    Woken,
    /// Where no runtime is.
    Outside,
}

/// Polls so often at most, and tells whether it is done.
async fn poll_at_most(operation: &mut Operation, polls: usize, when: When) -> bool {
    let mut count = 0;
    poll_fn(|context| {
        if count == polls {
            return Poll::Ready(false);
        }
        count += 1;
        match operation.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if count == polls && when != When::Woken => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A loader that has to wait twice.
async fn load(value: u32) -> Result<Loaded<u32>, Error> {
    tokio::task::yield_now().await;
    sleep(Duration::from_millis(1)).await;
    Ok(Loaded::new(value))
}

async fn load_many(keys: Vec<String>) -> Result<HashMap<String, Loaded<u32>>, Error> {
    sleep(Duration::from_millis(1)).await;
    Ok(keys.into_iter().map(|key| (key, Loaded::new(7))).collect())
}

/// The keys of an operation on many.
fn three(key: &str) -> [String; 3] {
    [key.to_owned(), format!("{key}2"), format!("{key}3")]
}

/// What is there when an operation begins.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Nothing,
    Live,
    Stale,
    /// Another process fills and gives up after a while.
    Busy,
}

const ALL: &[Before] = &[Before::Nothing, Before::Live, Before::Stale, Before::Busy];

/// Those after which a lease is handed out.
const LEASING: &[Before] = &[Before::Nothing, Before::Stale];

/// Of this key.
type Begin = fn(Cache, String) -> Operation;

fn operations() -> Vec<(&'static str, Begin)> {
    vec![
        ("get", |cache, key| {
            Box::pin(async move {
                let _ = cache.key(&key).get::<u32>().await;
            })
        }),
        ("set", |cache, key| {
            Box::pin(async move {
                let _ = cache.key(&key).tags(["t"]).set(&3).await;
            })
        }),
        ("load", |cache, key| {
            Box::pin(async move {
                let _ = cache.key(&key).tags(["t"]).swr(HOUR).load(|| load(1)).await;
            })
        }),
        ("load early", |cache, key| {
            Box::pin(async move {
                let entry = cache.key(&key).tags(["t"]).swr(HOUR).early_refresh(HOUR);
                let _ = entry.load(|| load(1)).await;
            })
        }),
        ("load detached", |cache, key| {
            Box::pin(async move {
                let _ = cache
                    .key(&key)
                    .tags(["t"])
                    .swr(HOUR)
                    .load_detached(|| load(1))
                    .await;
            })
        }),
        ("load many", |cache, key| {
            Box::pin(async move {
                let _ = cache
                    .keys(three(&key))
                    .tags(["t"])
                    .swr(HOUR)
                    .load_many(load_many)
                    .await;
            })
        }),
        ("load many detached", |cache, key| {
            Box::pin(async move {
                let _ = cache
                    .keys(three(&key))
                    .tags(["t"])
                    .swr(HOUR)
                    .load_many_detached(load_many)
                    .await;
            })
        }),
        ("begin and store", |cache, key| {
            Box::pin(async move {
                if let Ok(filling) = cache.key(&key).tags(["t"]).begin().await {
                    sleep(Duration::from_millis(1)).await;
                    let _ = filling.store(&5).await;
                }
            })
        }),
        ("invalidate", |cache, key| {
            Box::pin(async move {
                let _ = cache.invalidate([format!("of {key}")]).await;
            })
        }),
        ("clear", |cache, key| {
            Box::pin(async move {
                let _ = cache.clear(&key).await;
            })
        }),
        ("shutdown", |cache, _| {
            Box::pin(async move {
                let _ = cache.shutdown(Duration::from_millis(5)).await;
            })
        }),
    ]
}

/// A process beside the one whose callers go away.
struct Other(Cache);

impl Other {
    async fn prepare(&self, key: &str, before: Before) {
        let entry = || self.0.key(key).tags(["t", &format!("of {key}")]).swr(HOUR);
        if matches!(before, Before::Live | Before::Stale) {
            assert!(entry().set(&2).await.expect("stored"));
        }
        if before == Before::Stale {
            self.0
                .soft_invalidate([format!("of {key}")])
                .await
                .expect("acknowledged");
        }
    }

    /// Begins to load the key, with a loader that fails after 4 ms.
    async fn occupy(&self, key: &str) -> tokio::task::JoinHandle<()> {
        let (began, begun) = tokio::sync::oneshot::channel();
        let (cache, key) = (self.0.clone(), key.to_owned());
        let task = tokio::spawn(async move {
            let fail = || async {
                let _ = began.send(());
                sleep(Duration::from_millis(4)).await;
                Err::<Loaded<u32>, _>(Error::from(mcache::ErrorKind::Unavailable))
            };
            let _ = cache.key(&key).load(fail).await;
        });
        let _ = begun.await;
        task
    }

    /// It fills or finds the key, without waiting for one who is gone.
    async fn can_fill(&self, key: &str, what: &str) {
        let load = self.0.key(key).tags(["t"]).load(|| load(9));
        let served = timeout(PATIENCE, load).await;
        served
            .unwrap_or_else(|_| panic!("{what}: {key} stays leased"))
            .expect("the loader answers");
    }
}

/// `polls` of the operation, then it is dropped; `true`: it was done before.
fn drop_one(
    runtime: &Runtime,
    (cache, other): (&Cache, &Other),
    operation: Begin,
    key: &str,
    before: Before,
    polls: usize,
    when: When,
) -> bool {
    let mut operation = operation(cache.clone(), key.to_owned());
    let (done, occupied) = runtime.block_on(async {
        other.prepare(key, before).await;
        let occupied = match before {
            Before::Busy => Some(other.occupy(key).await),
            _ => None,
        };
        let done = poll_at_most(&mut operation, polls, when).await;
        (done, occupied)
    });
    match when {
        When::Outside => drop(operation),
        _ => runtime.block_on(async { drop(operation) }),
    }
    runtime.block_on(async {
        if let Some(occupied) = occupied {
            occupied.await.expect("no panic");
        }
    });
    done
}

/// Every operation, after each of its polls. All keys begin with `prefix`; `leases` are those the servers know of.
fn check(
    prefix: &str,
    befores: &[Before],
    build: impl Fn() -> mcache::Builder,
    mut leases: impl FnMut() -> i64,
) {
    let runtime = runtime();
    let build = || build().caching(true).loader_timeout(LOADER_TIMEOUT);
    let (cache, other) = runtime.block_on(async {
        let cache = build().build().await.expect("a cache");
        let other = build().settle(false).build().await.expect("a cache");
        (cache, Other(other))
    });
    for (name, operation) in operations() {
        for before in befores.iter().copied() {
            for when in [When::Asleep, When::Woken, When::Outside] {
                let mut keys = Vec::new();
                for polls in 1..=POLLS_MAX {
                    let key = format!("{prefix}{name} {before:?} {when:?} {polls}");
                    keys.push(key.clone());
                    if drop_one(
                        &runtime,
                        (&cache, &other),
                        operation,
                        &key,
                        before,
                        polls,
                        when,
                    ) {
                        break;
                    }
                    assert!(polls < POLLS_MAX, "{name} does not end");
                }
                println!("{name} {before:?} {when:?}: {} polls", keys.len());
                wait::until("no lease is left", || leases() == 0);
                runtime.block_on(async {
                    for key in &keys {
                        for key in three(key) {
                            other.can_fill(&key, name).await;
                        }
                    }
                });
            }
        }
    }
    runtime.block_on(async {
        for cache in [&cache, &other.0] {
            let left = cache.shutdown(PATIENCE).await;
            assert!(left.is_nothing(), "{left}");
        }
    });
}

#[test]
fn a_caller_that_is_dropped_at_any_point_leaves_nothing_to_wait_for() {
    let server = Server::start();
    let mut redis = server.session();
    let build = || Cache::builder(server.url());
    check("", ALL, build, || {
        redis.stat("leases") + redis.stat("parked_clients")
    });
}

#[test]
fn a_caller_that_is_dropped_at_any_point_leaves_nothing_to_wait_for_beside_a_near_cache() {
    let server = Server::builder().feed(100).start();
    let build = || Cache::builder(server.url()).near(NearOptions::default());
    let mut redis = server.session();
    check("", LEASING, build, || redis.stat("leases"));
}

#[test]
fn a_caller_that_is_dropped_at_any_point_leaves_nothing_to_wait_for_on_a_plain_server() {
    let server = Server::builder().without_module().start();
    let build = || {
        let plain = PlainRedisProvider::builder(server.url()).lease(Duration::from_secs(600));
        Cache::builder_with(plain.build().expect("an address"))
    };
    // It keeps them in the entries: whether one is left shows when another caller comes.
    check("", LEASING, build, || 0);
}

#[test]
fn a_caller_that_is_dropped_at_any_point_leaves_nothing_to_wait_for_while_its_slot_moves() {
    let cluster = Cluster::start();
    let mut nodes: Vec<_> = cluster.primaries().map(Server::session).collect();
    let slot = nodes[0].int("CLUSTER KEYSLOT {a}");
    let ids: Vec<_> = nodes
        .iter_mut()
        .map(|node| node.text("CLUSTER MYID").expect("an id"))
        .collect();
    let owns = |node: &mut Session| node.try_run("EXISTS {a}").is_ok();
    let from = nodes.iter_mut().position(owns).expect("an owner");
    let to = (from + 1) % nodes.len();
    nodes[to].ok(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", ids[from]));
    nodes[from].ok(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", ids[to]));
    // Every key is asked for where it is not, and then where the slot is going.
    let build = || Cache::builder(cluster.url());
    check("{a}", LEASING, build, || {
        nodes.iter_mut().map(|node| node.stat("leases")).sum()
    });
    assert!(nodes[to].stat("fills") > 0);
}

#[test]
fn callers_without_patience_do_not_hide_that_a_server_hangs() {
    let server = Server::builder().tcp().start();
    let proxy = Proxy::to_port(server.port());
    run(async {
        let options = RedisOptions::default().command_deadline(Duration::from_millis(300));
        let builder = Cache::builder(proxy.url()).redis(options).caching(true);
        let cache = builder.build().await.expect("a cache");
        cache.key("k").set(&1).await.expect("stored");
        proxy.stall();
        let load = || async { Ok::<_, Error>(Loaded::new(2)) };
        let found = timeout(PATIENCE, async {
            loop {
                let read = cache.key("k").load(load);
                if let Ok(served) = timeout(Duration::from_millis(50), read).await {
                    break served.expect("the source answers").value;
                }
            }
        });
        assert_eq!(found.await.expect("the source is reached"), 2);
    });
}
