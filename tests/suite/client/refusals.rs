//! What a server says that works and does not do what it is asked: no room for clients, other passwords, connections
//! that it closes.

use std::time::Duration;

use harness::{Server, Session, wait::PATIENCE};
use mcache::{Cache, Error, Loaded, Settled, Source, server::RedisOptions};
use tokio::time::{sleep, timeout};

use crate::support::runtime::run;

async fn cache(url: &str) -> Cache {
    let options = RedisOptions::default().breaker(3, Duration::from_millis(100));
    let builder = Cache::builder(url).redis(options).caching(true);
    builder.build().await.expect("a cache")
}

async fn read(cache: &Cache, key: &str) -> Source {
    let load = || async { Ok::<_, Error>(Loaded::new(7)) };
    let served = cache.key(key).tags(["t"]).load(load).await;
    served.expect("loaded").source
}

async fn until_cached(cache: &Cache) {
    timeout(PATIENCE, async {
        while read(cache, "probe").await != Source::Hit {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the cache takes part");
}

/// An invalidation that the server does not take is kept, and arrives when it does.
async fn is_kept(cache: &Cache, what: &str, mend: impl FnOnce()) {
    let invalidation = cache.invalidate(["t"]).await;
    let invalidation = invalidation.unwrap_or_else(|error| panic!("{what}: {error}"));
    mend();
    let settled = timeout(PATIENCE, invalidation.settled()).await;
    assert_eq!(settled.expect("in time"), Settled::Acknowledged, "{what}");
    until_cached(cache).await;
}

#[test]
fn an_invalidation_is_kept_while_the_server_takes_no_more_clients() {
    for user in ["", "default:secret@", "shop:secret@"] {
        let server = Server::builder().tcp().start();
        let mut redis = server.session();
        redis.ok("ACL SETUSER shop on >secret ~* +@all");
        if user.starts_with("default") {
            redis.ok("CONFIG SET requirepass secret");
        }
        let url = format!("redis://{user}127.0.0.1:{}", server.port());
        run(async {
            let cache = cache(&url).await;
            until_cached(&cache).await;
            redis.ok("CONFIG SET maxclients 1");
            redis.run("CLIENT KILL TYPE normal SKIPME yes");
            is_kept(&cache, user, || redis.ok("CONFIG SET maxclients 100")).await;
        });
        redis.ok("CONFIG SET requirepass \"\"");
    }
}

#[test]
fn an_invalidation_is_kept_while_the_password_is_another_one() {
    for (user, change, back) in [
        (
            "",
            "CONFIG SET requirepass other",
            "CONFIG SET requirepass \"\"",
        ),
        (
            "shop:secret@",
            "ACL SETUSER shop resetpass >other",
            "ACL SETUSER shop >secret",
        ),
        (
            "shop:secret@",
            "ACL DELUSER shop",
            "ACL SETUSER shop on >secret ~* +@all",
        ),
        (
            "shop:secret@",
            "ACL SETUSER shop off",
            "ACL SETUSER shop on",
        ),
    ] {
        let server = Server::builder().tcp().start();
        let mut redis = server.session();
        redis.ok("ACL SETUSER shop on >secret ~* +@all");
        let url = format!("redis://{user}127.0.0.1:{}", server.port());
        run(async {
            let cache = cache(&url).await;
            until_cached(&cache).await;
            redis.run(change);
            redis.run("CLIENT KILL TYPE normal SKIPME yes");
            is_kept(&cache, change, || drop(redis.run(back))).await;
        });
    }
}

#[test]
fn a_connection_that_the_server_has_closed_costs_no_read_and_no_acknowledgement() {
    let server = Server::builder().tcp().start();
    let mut redis = server.session();
    run(async {
        let cache = cache(&server.tcp_url()).await;
        for round in 0..5 {
            until_cached(&cache).await;
            closed(&mut redis).await;
            assert_eq!(read(&cache, "probe").await, Source::Hit, "{round}");
            closed(&mut redis).await;
            let invalidation = cache.invalidate(["t"]).await.expect("sent");
            assert!(invalidation.is_acknowledged(), "{round}");
        }
    });
}

/// As by the option `timeout`.
async fn closed(redis: &mut Session) {
    redis.run("CLIENT KILL TYPE normal SKIPME yes");
    // The end of the connection may still be on its way.
    sleep(Duration::from_millis(20)).await;
}

#[test]
fn a_value_that_the_server_does_not_take_keeps_no_others_from_being_kept() {
    let server = Server::builder()
        .tcp()
        .set("proto-max-bulk-len", "1mb")
        .start();
    run(async {
        let builder = Cache::builder(server.tcp_url())
            .value_bytes_max(8 << 20)
            .compress_from_bytes(None);
        let cache = builder.caching(true).build().await.expect("a cache");
        for _ in 0..3 {
            let large = cache.key("large").set_bytes(vec![7; 2 << 20]).await;
            large.expect_err("too large");
            until_cached(&cache).await;
            assert!(
                cache
                    .invalidate(["t"])
                    .await
                    .expect("sent")
                    .is_acknowledged()
            );
        }
        for bytes in [0, 1, 64 << 10, 600 << 10] {
            let key = vec![b'k'; bytes];
            assert!(
                cache.key(&key).tags(["t"]).set(&3).await.expect("stored"),
                "{bytes}"
            );
            assert_eq!(cache.key(&key).get::<u32>().await.expect("read"), Some(3));
            assert!(cache.clear(&key).await.expect("cleared").is_acknowledged());
            assert_eq!(read_key(&cache, &key).await, Source::Loaded);
            assert_eq!(read_key(&cache, &key).await, Source::Hit);
        }
    });
}

async fn read_key(cache: &Cache, key: &[u8]) -> Source {
    let load = || async { Ok::<_, Error>(Loaded::new(7)) };
    cache
        .key(key)
        .tags(["t"])
        .load(load)
        .await
        .expect("loaded")
        .source
}
