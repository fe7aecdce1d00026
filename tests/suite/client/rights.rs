//! The rights that the documentation says a user needs are enough for all that the client does.

use std::time::Duration;

use harness::{Server, Session, host, locate, wait::PATIENCE};
use mcache::{
    Cache, Error, Invalidation, Loaded, NearOptions, PlainRedisProvider, Settled, Source,
    server::RedisOptions,
};
use mcache_core::host::Maker;
use tokio::time::sleep;

use super::near::until_serving;
use crate::support::runtime::run;

/// The rules of the first `ACL SETUSER user` of a page of the documentation. The password in them is `secret`.
fn rules(page: &str, user: &str) -> String {
    let text = std::fs::read_to_string(locate::workspace().join("docs").join(page));
    let text = text.expect("a page");
    let (_, after) = text
        .split_once(&format!("ACL SETUSER {user} "))
        .expect("it names the rules");
    let (rules, _) = after.split_once("```").expect("the block ends");
    let rules: Vec<_> = rules.split_whitespace().collect();
    assert!(rules.contains(&">secret"), "{rules:?}");
    rules.join(" ")
}

/// What the server has refused so far: the commands, keys and tags that it noted.
fn refused(admin: &mut Session) -> Vec<String> {
    let log: Vec<Vec<redis::Value>> = admin.typed("ACL LOG");
    log.iter().map(|entry| format!("{entry:?}")).collect()
}

/// A load that fails.
async fn give_a_lease_back(cache: &Cache) {
    let fails = || async { Err::<u32, _>(Error::from(mcache::ErrorKind::Unavailable)) };
    let failed = cache.key("fails").get_or_load(fails).await;
    assert!(failed.is_err(), "its lease is given back");
}

/// The entry `s`, the tag `t` and everything.
async fn clear_in_every_way(cache: &Cache) -> [Invalidation; 5] {
    [
        cache.clear("s").await.expect("allowed"),
        cache.soft_invalidate(["t"]).await.expect("allowed"),
        cache.invalidate_auto(["t"]).await.expect("allowed"),
        cache.invalidate(["t"]).await.expect("allowed"),
        cache.clear_all().await.expect("allowed"),
    ]
}

#[test]
fn the_user_of_the_operations_page_may_do_all_that_the_client_does() {
    let server = Server::builder().tcp().feed(5_000).start();
    let mut admin = server.session();
    admin.ok(&format!(
        "ACL SETUSER shop-eu {}",
        rules("operations.md", "shop-eu")
    ));
    let url = format!("redis://shop-eu:secret@127.0.0.1:{}", server.port());
    run(async {
        let cache = async || {
            let redis = RedisOptions::default().command_deadline(Duration::from_secs(5));
            let cache = Cache::builder(&url)
                .namespace("store-eu")
                .redis(redis)
                .near(NearOptions::new())
                .caching(true)
                .build()
                .await
                .expect("a cache");
            until_serving(&cache).await;
            cache
        };
        let (one, other) = (cache().await, cache().await);
        let load = async |cache: &Cache, value: u32| {
            let load = || async move { Ok::<_, Error>(Loaded::new(value)) };
            let entry = cache.key("k").tags(["t"]).swr(Duration::from_secs(60));
            entry.load(load).await.expect("a value")
        };
        assert_eq!(load(&one, 1).await.source, Source::Loaded);
        assert_eq!(load(&other, 2).await.value, 1);
        give_a_lease_back(&one).await;
        let batch = one.keys(["a", "b"]).load_many(|missing| async move {
            Ok::<_, Error>(
                missing
                    .into_iter()
                    .map(|key| (key, Loaded::new(1)))
                    .collect(),
            )
        });
        assert_eq!(batch.await.expect("values").len(), 2);
        assert_eq!(
            one.get_many::<u32>(["a", "b"]).await.expect("allowed"),
            [Some(1); 2]
        );
        assert!(one.key("s").tags(["t"]).set(&1).await.expect("allowed"));
        assert!(one.inspect("s").await.expect("allowed").is_some());
        let filling = one.key("f").begin().await.expect("a token");
        filling.store(&1).await.expect("stored");
        for invalidation in clear_in_every_way(&one).await {
            assert!(invalidation.is_acknowledged(), "{invalidation:?}");
            assert_eq!(invalidation.settled().await, Settled::Acknowledged);
        }
        assert_eq!(load(&other, 3).await.value, 3);
        one.shutdown(PATIENCE).await;
        other.shutdown(PATIENCE).await;
    });
    assert_eq!(refused(&mut admin), [""; 0]);
}

#[test]
fn the_user_of_the_plain_page_may_do_all_that_the_client_does_without_the_module() {
    let server = Server::builder().tcp().without_module().start();
    let mut admin = server.session();
    let knows_setinfo = [(Maker::Redis, 7, 2), (Maker::Valkey, 7, 2)]
        .map(|(maker, major, minor)| host::program().is(maker, major, minor));
    let setinfo = match knows_setinfo.contains(&true) {
        true => " +client|setinfo",
        false => "",
    };
    admin.ok(&format!(
        "ACL SETUSER shop {}",
        rules("plain.md", "shop") + setinfo
    ));
    let url = format!("redis://shop:secret@127.0.0.1:{}", server.port());
    run(async {
        let cache = async || {
            let provider = PlainRedisProvider::builder(&url)
                .namespace("store-eu")
                .build()
                .expect("a provider");
            let cache = Cache::builder_with(provider)
                .namespace("store-eu")
                .caching(true);
            cache.build().await.expect("a cache")
        };
        let (one, other) = (cache().await, cache().await);
        let load = async |cache: &Cache| {
            let slow = || async {
                sleep(Duration::from_millis(100)).await;
                Ok::<_, Error>(Loaded::new(1))
            };
            let entry = cache.key("k").tags(["t"]).swr(Duration::from_secs(60));
            entry.load(slow).await.expect("a value")
        };
        tokio::join!(load(&one), load(&other));
        assert_eq!(load(&one).await.source, Source::Hit);
        give_a_lease_back(&one).await;
        assert!(one.key("s").tags(["t"]).set(&1).await.expect("allowed"));
        one.inspect("s").await.expect("allowed");
        for invalidation in clear_in_every_way(&one).await {
            assert!(invalidation.is_acknowledged(), "{invalidation:?}");
        }
        one.shutdown(PATIENCE).await;
        other.shutdown(PATIENCE).await;
    });
    assert_eq!(refused(&mut admin), [""; 0]);
}
