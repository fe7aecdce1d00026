//! Users who may not do all that a cache does.

use std::time::Duration;

use harness::Server;
use mcache::{Cache, Error, ErrorKind, Loaded, PlainRedisProvider, Source};

use super::{near_cache, observed, options, url_of_user};

#[test]
fn a_user_who_may_not_release_keeps_leases_to_their_end_and_is_told_so() {
    let server = Server::builder().tcp().start();
    let url = url_of_user(&server, "-mcache.release");
    observed(&url, async |observed| {
        let brief = Cache::builder(&url)
            .redis(options())
            .loader_timeout(Duration::from_millis(50))
            .caching(true);
        let brief = brief.build().await.expect("a cache");
        for number in 0..3 {
            let fail = || async { Err::<u32, _>(Error::from(ErrorKind::Unavailable)) };
            let key = format!("key:{number}");
            let failed = brief.key(&key).get_or_load(fail).await;
            failed.expect_err("the source fails");
            // Another process loads the key when the lease has ended.
            assert_eq!(observed.read(&key, 7).await, (7, Source::Loaded));
            observed
                .until("it is kept", async || {
                    observed.read(&key, 8).await == (7, Source::Hit)
                })
                .await;
        }
        observed
            .until("all are counted", async || observed.errors("release") == 3)
            .await;
        observed.said_once(&["MCACHE.RELEASE", "NOPERM"]);
    });
}

/// A cache of this user, who may do all but this.
fn without(rule: &str, test: impl AsyncFnOnce(&Server, &super::Observed)) {
    let server = Server::builder().tcp().feed(1000).start();
    let url = url_of_user(&server, rule);
    observed(&url, async |observed| test(&server, observed).await);
}

#[test]
fn a_user_who_may_not_read_several_keys_at_once_is_told_so() {
    without("-mcache.mget", async |_, observed| {
        for _ in 0..3 {
            let load = |keys: Vec<&'static str>| async {
                let rows = keys.into_iter().map(|key| (key, Loaded::new(1)));
                Ok::<_, Error>(rows.collect())
            };
            let found = observed.cache.keys(["a", "b"]).get_or_load_many(load).await;
            assert_eq!(found.expect("loaded").len(), 2);
        }
        observed.said_once(&["NOPERM", "mcache.mget"]);
        assert_eq!(observed.errors("get_many"), 3);
    });
}

#[test]
fn a_user_who_may_not_settle_waits_for_near_leases_and_is_told_so() {
    without("-mcache.settle", async |server, observed| {
        let near = near_cache(&server.tcp_url()).await;
        observed
            .until("the other is near", async || {
                near.near_stats()[0].is_serving()
            })
            .await;
        for number in 0..2 {
            let invalidation = observed.cache.invalidate([format!("t{number}")]).await;
            assert!(invalidation.expect("sent").is_settled());
        }
        observed.said_once(&["MCACHE.SETTLE", "NoPerm"]);
    });
}

/// Near caches use no channels: a user who has none may have one.
#[test]
fn a_user_without_channels_may_keep_values_near() {
    without("resetchannels", async |_, observed| {
        observed.until_cached().await;
        assert!(observed.log.lines_with(&[]).is_empty());
    });
}

#[test]
fn a_user_of_a_plain_server_without_its_channel_is_told_so() {
    let server = Server::builder().tcp().without_module().start();
    let url = url_of_user(&server, "resetchannels");
    let process = async || {
        let plain = PlainRedisProvider::builder(&url).redis(options());
        let provider = plain.build().expect("an address");
        let cache = Cache::builder_with(provider).caching(true).build().await;
        cache.expect("a cache")
    };
    super::observed_with(process, async |observed| {
        let other = process().await;
        for key in ["a", "b"] {
            let begun = tokio::sync::Notify::new();
            let slow = async {
                let load = || async {
                    begun.notify_one();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok::<_, Error>(1)
                };
                other.key(key).get_or_load(load).await.expect("loaded")
            };
            let waits = async {
                begun.notified().await;
                observed.read(key, 2).await.0
            };
            let (loaded, waited) = tokio::join!(slow, waits);
            assert_eq!((loaded, waited), (1, 1), "it waits for the other");
        }
        observed.said_once(&["this channel", "said once"]);
    });
}
