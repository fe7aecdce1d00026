//! A server that is down, hangs, is slow or talks nonsense is never the application's problem: reads reach the source
//! within a deadline, invalidations arrive in the end.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use harness::{
    Proxy, Server, ServerBuilder,
    wait::{self, PATIENCE},
};
use mcache::{
    Cache, Error, ErrorKind, Invalidation, Loaded, PlainRedisProvider, Settled, Source,
    server::RedisOptions,
};
use tokio::time::{sleep, timeout};

use crate::support::runtime::run;

const DEADLINE: Duration = Duration::from_millis(400);

/// What a busy machine may add to a deadline. Without one, nothing here would end before the server is well again.
const SLACK: Duration = Duration::from_secs(20);

/// With the module, or with the provider that needs none.
#[derive(Clone, Copy, Debug, PartialEq)]
enum On {
    Module,
    Plain,
}

impl On {
    fn server(self) -> ServerBuilder {
        match self {
            Self::Module => Server::builder().tcp(),
            Self::Plain => Server::builder().tcp().without_module(),
        }
    }

    async fn cache(self, url: &str) -> Cache {
        let options = RedisOptions::default()
            .connect_timeout(DEADLINE)
            .command_deadline(DEADLINE)
            .breaker(3, Duration::from_millis(300));
        let builder = match self {
            Self::Module => Cache::builder(url).redis(options),
            Self::Plain => {
                let plain = PlainRedisProvider::builder(url).redis(options);
                Cache::builder_with(plain.build().expect("an address"))
            }
        };
        let cache = builder.caching(true).build().await;
        cache.expect("a cache can be built while the server is out")
    }
}

fn on_both(test: impl Fn(On)) {
    for on in [On::Module, On::Plain] {
        println!("{on:?}");
        test(on);
    }
}

async fn cache(url: &str) -> Cache {
    On::Module.cache(url).await
}

/// The invalidation arrives after all.
async fn arrives(invalidation: Invalidation) {
    let settled = timeout(PATIENCE, invalidation.settled())
        .await
        .expect("in time");
    assert_eq!(settled, Settled::Acknowledged);
}

/// One read of a source that answers at once; where it came from and how long it took.
async fn read(cache: &Cache, key: &str, value: u32) -> (u32, Source, Duration) {
    let began = Instant::now();
    let load = || async move { Ok::<_, Error>(Loaded::new(value)) };
    let served = cache
        .key(key)
        .tags(["t"])
        .load(load)
        .await
        .expect("the source answers");
    (served.value, served.source, began.elapsed())
}

/// Reads until the cache takes part again.
async fn until_cached(cache: &Cache) {
    let began = Instant::now();
    loop {
        if read(cache, "probe", 0).await.1 == Source::Hit {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "the cache does not come back");
        sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_server_that_is_not_there_costs_a_moment_and_is_found_when_it_comes() {
    on_both(|on| {
        let mut server = on.server().start();
        server.stop();
        run(async {
            let cache = on.cache(&server.tcp_url()).await;
            for _ in 0..20 {
                let (value, source, took) = read(&cache, "k", 1).await;
                assert_eq!((value, source), (1, Source::Bypass));
                assert!(took < SLACK, "{took:?}");
            }
            server.start_again();
            until_cached(&cache).await;
        });
    });
}

#[test]
fn a_server_that_is_killed_and_restarted_is_used_again() {
    on_both(|on| {
        let mut server = on.server().start();
        run(async {
            let cache = on.cache(&server.tcp_url()).await;
            until_cached(&cache).await;
            server.kill9();
            assert_eq!(read(&cache, "k", 1).await.1, Source::Bypass);
            assert!(cache.key("k").set(&1).await.is_err());
            server.start_again();
            until_cached(&cache).await;
        });
    });
}

#[test]
fn a_server_that_hangs_costs_one_deadline_and_then_nothing() {
    on_both(|on| {
        let server = on.server().start();
        run(async {
            let cache = on.cache(&server.tcp_url()).await;
            until_cached(&cache).await;
            server.pause();
            let mut took = Vec::new();
            for _ in 0..20 {
                let (_, source, this) = read(&cache, "k", 1).await;
                assert_eq!(source, Source::Bypass);
                assert!(this < DEADLINE + SLACK, "{this:?}");
                took.push(this);
            }
            let at_once = took.iter().filter(|took| **took < DEADLINE).count();
            assert!(at_once >= 10, "the server is given a rest: {took:?}");
            server.resume();
            until_cached(&cache).await;
        });
    });
}

#[test]
fn those_who_wait_in_a_server_that_hangs_go_to_the_source() {
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
        let waiting = tokio::spawn(async move { read(&waiter, "k", 1).await });
        wait::until("the other waits", || session.stat("parked_clients") == 1);
        server.pause();
        let paused = Instant::now();
        let (value, source, _) = waiting.await.expect("no task panics");
        assert_eq!((value, source), (1, Source::Bypass));
        let took = paused.elapsed();
        assert!(took < Duration::from_secs(1) + DEADLINE + SLACK, "{took:?}");
        server.resume();
        holding.abort();
    });
}

#[test]
fn a_connection_that_went_silent_is_replaced() {
    on_both(|on| {
        let server = on.server().start();
        let proxy = Proxy::to_port(server.port());
        let mut session = server.session();
        run(async {
            let cache = on.cache(&proxy.url()).await;
            until_cached(&cache).await;
            let before = session.info("stats", "total_connections_received");
            proxy.stall();
            for _ in 0..5 {
                assert_eq!(read(&cache, "k", 1).await.1, Source::Bypass);
            }
            proxy.heal();
            until_cached(&cache).await;
            let after = session.info("stats", "total_connections_received");
            assert!(
                after > before,
                "the peer may be gone without having said so"
            );
        });
    });
}

#[test]
fn an_invalidation_during_a_pause_arrives_afterwards_and_nothing_old_is_read_meanwhile() {
    on_both(|on| {
        let server = on.server().start();
        run(async {
            let cache = on.cache(&server.tcp_url()).await;
            read(&cache, "k", 1).await;
            assert_eq!(read(&cache, "k", 2).await.1, Source::Hit);
            server.pause();
            let began = Instant::now();
            let invalidation = cache.invalidate(["t"]).await.expect("it is retried");
            assert!(began.elapsed() < DEADLINE + SLACK);
            assert!(!invalidation.is_acknowledged());
            assert_eq!(read(&cache, "k", 2).await.1, Source::Bypass);
            server.resume();
            arrives(invalidation).await;
            assert_eq!(read(&cache, "k", 3).await.0, 3, "the old value is gone");
        });
    });
}

#[test]
fn a_hundred_invalidations_of_a_dead_server_all_arrive() {
    on_both(|on| {
        let server = on.server().start();
        let proxy = Proxy::to_port(server.port());
        run(async {
            let cache = on.cache(&proxy.url()).await;
            for number in 0..100 {
                let stored = cache
                    .key(format!("k{number}"))
                    .tags([format!("t{number}")])
                    .set(&number)
                    .await;
                assert!(stored.expect("stored"));
            }
            proxy.refuse();
            let mut pending = Vec::new();
            for number in 0..100 {
                let invalidation = cache
                    .invalidate([format!("t{number}")])
                    .await
                    .expect("retried");
                assert!(!invalidation.is_acknowledged());
                pending.push(invalidation);
            }
            assert_eq!(cache.pending_invalidations(), 100);
            proxy.heal();
            for invalidation in pending {
                arrives(invalidation).await;
            }
            let keys = (0..100).map(|number| format!("k{number}"));
            assert_eq!(
                cache.get_many::<u32>(keys).await.expect("read"),
                vec![None; 100]
            );
        });
    });
}

#[test]
fn a_slow_server_is_waited_for_until_the_deadline_only() {
    on_both(|on| {
        let server = on.server().start();
        let proxy = Proxy::to_port(server.port());
        run(async {
            let cache = on.cache(&proxy.url()).await;
            until_cached(&cache).await;
            proxy.delay(Duration::from_millis(20));
            assert_eq!(
                read(&cache, "probe", 1).await.1,
                Source::Hit,
                "slow, but in time"
            );
            proxy.delay(DEADLINE);
            let (_, source, took) = read(&cache, "probe", 1).await;
            assert_eq!(source, Source::Bypass);
            assert!(took < DEADLINE + SLACK, "{took:?}");
            proxy.heal();
            until_cached(&cache).await;
        });
    });
}

#[test]
fn something_that_does_not_speak_redis_is_no_cache() {
    on_both(|on| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut asked = [0; 512];
                while matches!(stream.read(&mut asked), Ok(count) if count > 0) {
                    if stream
                        .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                        .is_err()
                    {
                        break;
                    }
                }
            }
        });
        run(async {
            let cache = on.cache(&format!("redis://127.0.0.1:{port}")).await;
            let (value, source, took) = read(&cache, "k", 1).await;
            assert_eq!((value, source), (1, Source::Bypass));
            assert!(took < DEADLINE + SLACK, "{took:?}");
            assert!(
                !cache
                    .invalidate(["t"])
                    .await
                    .expect("retried")
                    .is_acknowledged()
            );
        });
    });
}

#[test]
fn a_server_that_is_no_node_of_a_cluster_is_named_so() {
    let server = Server::builder().tcp().start();
    run(async {
        let cache = cache(&format!("redis+cluster://127.0.0.1:{}", server.port())).await;
        let error = cache.key("k").set(&1).await.expect_err("no cluster");
        assert!(
            error.to_string().contains("no node of a cluster"),
            "{error}"
        );
    });
}

#[test]
fn a_redis_without_the_module_is_no_cache() {
    let server = Server::builder().tcp().without_module().start();
    run(async {
        let cache = cache(&server.tcp_url()).await;
        assert_eq!(read(&cache, "k", 1).await.1, Source::Bypass);
        let error = cache.key("k").set(&1).await.expect_err("it cannot be kept");
        assert_eq!(error.kind(), ErrorKind::ModuleMissing, "{error}");
        assert!(
            !cache
                .invalidate(["t"])
                .await
                .expect("retried")
                .is_acknowledged()
        );
    });
}

#[test]
fn a_full_server_serves_what_it_has_and_takes_invalidations() {
    let server = Server::builder()
        .set("maxmemory-policy", "noeviction")
        .start();
    run(async {
        let cache = cache(&server.url()).await;
        until_cached(&cache).await;
        server.session().ok("CONFIG SET maxmemory 1kb");
        assert_eq!(read(&cache, "probe", 2).await.1, Source::Hit);
        let error = cache
            .key("other")
            .set("value")
            .await
            .expect_err("there is no room");
        assert!(error.is_unavailable(), "{error}");
        assert_eq!(read(&cache, "other", 3).await.0, 3);
        let invalidation = cache.invalidate(["t"]).await.expect("taken");
        assert!(invalidation.is_acknowledged());
        assert_eq!(read(&cache, "probe", 4).await.0, 4);
    });
}

#[test]
fn what_a_user_may_not_do_is_an_error_where_it_can_be_told_and_a_miss_where_not() {
    let server = Server::builder().tcp().start();
    server
        .session()
        .ok("ACL SETUSER shop on >secret ~shop:* +@all");
    let url = |namespace: &'static str| {
        let url = format!("redis://shop:secret@127.0.0.1:{}", server.port());
        async move {
            let builder = Cache::builder(url).namespace(namespace).caching(true);
            builder.build().await.expect("a cache")
        }
    };
    run(async {
        let own = url("shop").await;
        assert_eq!(read(&own, "k", 1).await.1, Source::Loaded);
        assert_eq!(read(&own, "k", 2).await.1, Source::Hit);
        assert_eq!(own.clear_all().await.expect("allowed").entries(), 1);

        let foreign = url("other").await;
        assert!(
            foreign
                .key("k")
                .get::<u32>()
                .await
                .expect_err("forbidden")
                .is_refused()
        );
        assert!(
            foreign
                .key("k")
                .set(&1)
                .await
                .expect_err("forbidden")
                .is_refused()
        );
        assert!(
            foreign
                .invalidate(["t"])
                .await
                .expect_err("forbidden")
                .is_refused()
        );
        assert_eq!(
            read(&foreign, "k", 3).await.0,
            3,
            "the source is there for all"
        );
        assert_eq!(
            foreign.pending_invalidations(),
            0,
            "trying again would not help"
        );
    });
}
