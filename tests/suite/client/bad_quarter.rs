//! A bad quarter of an hour: what a service notices when the network hiccups, values are large, the module is missing,
//! and what an operator sees of it.

use std::time::{Duration, Instant};

use harness::{
    Proxy, Server,
    wait::{self, PATIENCE},
};
use mcache::{
    Cache, Error, ErrorKind, Loaded, NearOptions, PlainRedisProvider, Provider, RedisProvider,
    Source,
    provider::{FetchOptions, Lookup},
    server::RedisOptions,
};
use tokio::time::{sleep, timeout};

use crate::support::runtime::run;

const DEADLINE: Duration = Duration::from_millis(400);
async fn cache(url: &str) -> Cache {
    let options = RedisOptions::default()
        .command_deadline(DEADLINE)
        .parked_idle_max(Duration::from_millis(100));
    Cache::builder(url)
        .redis(options)
        .namespace("store-eu")
        .value_bytes_max(64 << 20)
        .caching(true)
        .build()
        .await
        .expect("a cache")
}

async fn source_of(cache: &Cache, key: &str) -> Source {
    let load = || async { Ok::<_, Error>(Loaded::new(1)) };
    let served = cache.key(key).tags(["t"]).load(load).await;
    served.expect("the source answers").source
}

async fn until_hit(cache: &Cache, key: &str) {
    let began = Instant::now();
    while source_of(cache, key).await != Source::Hit {
        assert!(began.elapsed() < PATIENCE, "the cache is not used");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The names of the connections that have one, sorted.
fn names(server: &Server) -> Vec<String> {
    let list = server.session().text("CLIENT LIST").expect("there is one");
    let mut names: Vec<String> = list
        .split_whitespace()
        .filter_map(|field| field.strip_prefix("name="))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// Counted in calls and not in time: once the server answers, two thousand further invalidations are more than enough
/// for the cache to be used again, although they never pause.
#[test]
fn after_a_hiccup_the_cache_is_used_again_while_invalidations_go_on() {
    let server = Server::builder().tcp().start();
    let proxy = Proxy::to_port(server.port());
    run(async {
        let cache = cache(&proxy.url()).await;
        until_hit(&cache, "k").await;
        proxy.stall();
        assert!(
            !cache
                .invalidate(["u"])
                .await
                .expect("retried")
                .is_acknowledged()
        );
        assert_eq!(source_of(&cache, "k").await, Source::Bypass);
        proxy.heal();
        let began = Instant::now();
        for number in 0.. {
            let _ = cache
                .invalidate([format!("t{number}")])
                .await
                .expect("sent or retried");
            if source_of(&cache, "k").await == Source::Hit {
                break;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "still bypassed after {number} invalidations"
            );
        }
        assert_eq!(cache.pending_invalidations(), 0);
    });
}

/// The server reads what was asked during a hiccup when it is over, and gives out leases that no caller holds any more:
/// they would keep everyone else waiting for as long as a lease lasts.
#[test]
fn after_a_hiccup_no_lease_is_left_of_callers_that_have_gone() {
    const LEASE: Duration = Duration::from_secs(600);
    let server = Server::builder().feed(1_000).tcp().start();
    let proxy = Proxy::to_port(server.port());
    let options = RedisOptions::default().command_deadline(DEADLINE);
    let module = |url: &str| RedisProvider::new(url, options.clone()).expect("a provider");
    let plain = |url: &str| {
        let plain = PlainRedisProvider::builder(url).redis(options.clone());
        plain.build().expect("a provider")
    };
    let near = |provider| {
        let cache = Cache::builder_with(provider).loader_timeout(LEASE);
        cache.near(NearOptions::new()).caching(true).build()
    };
    run(async {
        let providers: [(Box<dyn Provider>, Box<dyn Provider>); 2] = [
            (
                Box::new(module(&proxy.url())),
                Box::new(module(&server.tcp_url())),
            ),
            (
                Box::new(plain(&proxy.url())),
                Box::new(plain(&server.tcp_url())),
            ),
        ];
        let mut fetch = FetchOptions::default();
        fetch.lease = Some(LEASE);
        let cache = near(module(&proxy.url())).await.expect("a cache");
        while !cache.near_stats()[0].is_serving() {
            sleep(Duration::from_millis(5)).await;
        }
        for (hindered, _) in &providers {
            hindered.token(b"warm").await.expect("it is connected");
        }
        proxy.stall();
        for (hindered, _) in &providers {
            let cancelled = timeout(DEADLINE / 8, hindered.fetch(b"cancelled", fetch)).await;
            assert!(cancelled.is_err(), "no answer comes");
            let late = hindered.fetch(b"late", fetch).await;
            assert!(late.expect_err("no answer comes").is_timeout());
        }
        assert_eq!(source_of(&cache, "near").await, Source::Bypass);
        proxy.heal();
        for (_, other) in &providers {
            for key in [&b"cancelled"[..], b"late"] {
                let began = Instant::now();
                while matches!(
                    other.fetch(key, fetch).await.expect("an answer"),
                    Lookup::Busy
                ) {
                    assert!(
                        began.elapsed() < PATIENCE,
                        "the lease of a caller that has gone still keeps {}",
                        key.escape_ascii()
                    );
                    sleep(Duration::from_millis(5)).await;
                }
            }
        }
        // What was just taken here.
        let mut session = server.session();
        wait::until("no other lease is left", || session.stat("leases") == 2);
    });
}

#[test]
fn a_large_value_on_its_way_keeps_no_small_read_waiting() {
    let server = Server::builder().tcp().start();
    let proxy = Proxy::to_port(server.port());
    run(async {
        let cache = cache(&proxy.url()).await;
        until_hit(&cache, "small").await;
        // 64 KiB take 5 ms: behind the large value on one connection, the first small read would come back after it.
        proxy.delay(Duration::from_millis(5));
        let bytes: Vec<u8> = (0..8_u32 << 20)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let large = {
            let (cache, bytes) = (cache.clone(), bytes.clone());
            tokio::spawn(async move { cache.key("large").set_bytes(&bytes).await })
        };
        let mut hits = 0;
        while !large.is_finished() {
            hits += usize::from(source_of(&cache, "small").await == Source::Hit);
        }
        assert!(hits > 3, "{hits} reads went on beside it");
        assert!(large.await.expect("no panic").expect("it arrived"));
        let connections = names(&server);
        assert!(
            connections.contains(&"mcache:store-eu:bulk".to_owned()),
            "{connections:?}"
        );
        proxy.heal();
        let found = cache.key("large").get_bytes().await.expect("read");
        assert!(found.is_some_and(|found| found == bytes));
    });
}

#[test]
fn connections_have_names_and_those_that_waited_go_away() {
    let server = Server::builder().tcp().start();
    run(async {
        let (holder, waiter) = (
            cache(&server.tcp_url()).await,
            cache(&server.tcp_url()).await,
        );
        let holding = tokio::spawn(async move {
            let never = std::future::pending::<Result<u32, Error>>;
            holder.key("k").get_or_load(never).await
        });
        let mut session = server.session();
        wait::until("the lease is held", || session.stat("leases") == 1);
        let waiting = tokio::spawn(async move {
            let source = source_of(&waiter, "k").await;
            (waiter, source)
        });
        wait::until("the other waits", || session.stat("parked_clients") == 1);
        let shared = "mcache:store-eu:shared".to_owned();
        let parked = "mcache:store-eu:wait".to_owned();
        assert_eq!(names(&server), [shared.clone(), shared.clone(), parked]);
        holding.abort();
        let (waiter, source) = waiting.await.expect("no panic");
        assert_eq!(source, Source::Loaded);
        wait::until("the idle connection is closed", || {
            !names(&server).iter().any(|name| name.ends_with(":wait"))
        });
        assert_eq!(
            source_of(&waiter, "k").await,
            Source::Hit,
            "nothing else is"
        );
    });
}

#[test]
fn a_server_without_the_module_is_named_when_it_is_asked_for() {
    let server = Server::builder().tcp().without_module().start();
    run(async {
        let provider = RedisProvider::new(&server.tcp_url(), RedisOptions::default());
        let error = provider
            .expect("an address")
            .ping()
            .await
            .expect_err("it cannot do anything");
        assert_eq!(error.kind(), ErrorKind::ModuleMissing);
        assert!(
            error
                .to_string()
                .contains("does not have the module mcache"),
            "{error}"
        );
        assert!(error.is_unavailable(), "it may be restarted with it");
    });
}

#[test]
fn what_the_server_cannot_take_at_all_is_as_much_as_it_can_take() {
    let server = Server::start();
    run(async {
        let cache = cache(&server.url()).await;
        for ttl in [Duration::from_nanos(1), Duration::MAX] {
            let entry = cache
                .key("k")
                .ttl(ttl)
                .swr(ttl)
                .early_refresh(ttl)
                .tags(["t"]);
            assert!(entry.set(&1).await.expect("accepted"));
            let entry = cache.key("l").ttl(ttl).swr(ttl).early_refresh(ttl);
            let load = || async { Ok::<_, Error>(1) };
            assert_eq!(entry.get_or_load(load).await.expect("loaded"), 1);
        }
        assert_eq!(cache.key("k").get::<u32>().await.expect("read"), Some(1));
    });
}

/// Too little time for anything, and all the time there is; no connection that waits, and as many as there can be; a
/// near cache without room, and with all the room there is.
#[test]
fn options_of_the_connection_at_both_ends_serve_every_caller() {
    let server = Server::builder().feed(1_000).start();
    run(async {
        for (duration, count) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::MAX, usize::MAX),
        ] {
            let options = RedisOptions::default()
                .connect_timeout(duration)
                .command_deadline(duration)
                .breaker(u32::try_from(count).unwrap_or(u32::MAX), duration)
                .parked_max(count)
                .parked_idle_max(duration);
            let near = NearOptions::new().bytes(u64::try_from(count).expect("64 bits"));
            let plain = PlainRedisProvider::builder(server.url())
                .redis(options.clone().id("plain"))
                .spread(count)
                .remembered_tags(count)
                .tags_max(count)
                .lease(duration);
            let cache = Cache::builder(server.url())
                .redis(options)
                .near(near)
                .provider(plain.build().expect("a provider"))
                .caching(true)
                .build()
                .await
                .expect("a cache");
            for provider in ["redis", "plain"] {
                let entry = || cache.key("k").providers([provider]).tags(["t"]);
                let load = || async { Ok::<_, Error>(1) };
                for _ in 0..2 {
                    assert_eq!(entry().get_or_load(load).await.expect("loaded"), 1);
                }
                if duration == Duration::MAX {
                    assert_eq!(entry().get::<u32>().await.expect("read"), Some(1));
                }
            }
            cache.shutdown(Duration::from_millis(1)).await;
        }
    });
}
