//! What a server forgets or never knew makes entries dead: old files, replicas that lag, foreign keys, missing rights.

use std::time::Duration;

use harness::{Session, topology::Replicated};
use mcache::provider::{FetchOptions, Lookup, Mode, Provider, Store};
use mcache::{Cache, NearOptions, PlainRedisProvider, RedisProvider, Tags, server::RedisOptions};

use super::conforms::{RIGHTS, allow};
use super::{bare, model, provider};
use crate::support::runtime::run;

fn tags() -> Tags {
    Tags::from_iter(["t"])
}

async fn store(provider: &PlainRedisProvider, key: &[u8], value: &'static str) -> bool {
    let tags = tags();
    let entry = Store::new(key, value, &tags).ttl(Duration::from_secs(3_600));
    provider.store(entry).await.expect("store")
}

#[test]
fn a_server_started_from_an_old_file_serves_nothing_from_before() {
    let mut server = bare().tcp().start();
    let provider = provider(&server.tcp_url());
    run(async {
        assert!(store(&provider, b"cleared", "old").await);
        assert!(store(&provider, b"kept", "old").await);
        let token = provider.token(b"late").await.expect("token");
        server.session().ok("SAVE");
        let told = provider.invalidate(&tags(), Mode::Hard).await;
        told.expect("invalidate");
        server.kill9();
        server.start_again();
        assert!(server.session().int("DBSIZE") >= 3, "the file was read");
        // The connection broke; the first call may find that out.
        let _ = provider.get(b"cleared").await;
        assert_eq!(provider.get(b"cleared").await.expect("get"), None);
        // It cannot be known whether this one was invalidated.
        assert_eq!(provider.get(b"kept").await.expect("get"), None);
        let tags = tags();
        let late = Store::new(b"late", "late", &tags).token(&token);
        assert!(
            !provider.store(late).await.expect("store"),
            "of another run"
        );
        assert!(store(&provider, b"cleared", "new").await);
        let found = provider.get(b"cleared").await.expect("get");
        assert_eq!(found.as_deref(), Some(&b"new"[..]));
    });
}

#[test]
fn of_a_replica_that_lags_and_is_promoted_nothing_from_before_is_served() {
    let replicated = Replicated::start_with(1, bare());
    let replica = &replicated.replicas[0];
    let (old, new) = (
        provider(&replicated.primary.url()),
        provider(&replica.url()),
    );
    run(async {
        assert!(store(&old, b"k", "old").await);
        replicated.sync();
        let refused = new.get(b"k").await.expect_err("a replica");
        assert!(refused.is_unavailable(), "{refused}");
        replica.session().ok("REPLICAOF NO ONE");
        old.invalidate(&tags(), Mode::Hard)
            .await
            .expect("invalidate");
        assert_eq!(replica.session().int("EXISTS {plain}:v:k"), 1);
        assert_eq!(new.get(b"k").await.expect("get"), None);
        let looked = new.fetch(b"k", FetchOptions::new()).await.expect("fetch");
        assert!(matches!(looked, Lookup::Miss { .. }), "{looked:?}");
    });
}

#[test]
fn two_processes_that_find_the_room_gone_agree_on_one() {
    let server = bare().start();
    let (one, two) = (provider(&server.url()), provider(&server.url()));
    run(async {
        for _ in 0..20 {
            assert!(store(&one, b"k", "v").await);
            assert!(two.get(b"k").await.expect("get").is_some());
            server.session().ok("SCRIPT FLUSH");
            let (first, second) = tokio::join!(one.get(b"k"), two.get(b"k"));
            assert_eq!((first.expect("get"), second.expect("get")), (None, None));
            assert!(store(&two, b"k", "v").await);
            assert!(one.get(b"k").await.expect("get").is_some());
            let told = two.invalidate(&tags(), Mode::Hard).await;
            told.expect("invalidate");
            assert_eq!(one.get(b"k").await.expect("get"), None);
        }
    });
}

#[test]
fn what_is_remembered_of_tags_is_bounded() {
    let server = bare().start();
    let provider = PlainRedisProvider::builder(server.url())
        .namespace("plain")
        .remembered_tags(8 * 256)
        .build()
        .expect("an address");
    let mut redis = server.session();
    run(async {
        assert!(store(&provider, b"read", "v").await);
        assert!(store(&provider, b"unread", "v").await);
        for round in 0..200 {
            let others = (0..50).map(|number| format!("{round}:{number}"));
            let told = provider.invalidate(&others.collect(), Mode::Hard).await;
            told.expect("invalidate");
            assert!(provider.get(b"read").await.expect("get").is_some());
        }
        // Nothing is left that says it was not invalidated.
        assert_eq!(provider.get(b"unread").await.expect("get"), None);
    });
    let groups = redis.list("KEYS {plain}:g*");
    assert!(groups.len() <= 256);
    for group in groups {
        let fields = redis.int(&format!("HLEN {group}"));
        assert!(fields <= 9, "{group} has {fields}");
    }
    let ring = redis.int("STRLEN {plain}:r");
    assert!(ring <= 1024 * 9);
}

#[test]
fn two_namespaces_share_nothing() {
    let server = bare().start();
    let other = PlainRedisProvider::builder(server.url())
        .namespace("plain}:v:")
        .build()
        .expect("an address");
    let provider = provider(&server.url());
    run(async {
        assert!(store(&provider, b"k", "v").await);
        assert!(store(&other, b"k", "w").await);
        other.invalidate(&tags(), Mode::Hard).await.expect("told");
        assert!(provider.get(b"k").await.expect("get").is_some());
        assert_eq!(other.get(b"k").await.expect("get"), None);
    });
    let mut redis = server.session();
    let all = redis.list("KEYS *");
    let mine = |key: &String| key.starts_with("{plain}:");
    let its = |key: &String| key.starts_with("{plain%7D:v:}:");
    assert!(all.iter().all(|key| mine(key) || its(key)), "{all:?}");
}

#[test]
fn without_the_right_to_load_a_script_it_says_so() {
    let server = bare().tcp().start();
    let rights = RIGHTS.replace("+script|load ", "");
    allow(&mut server.session(), &rights);
    let url = server
        .tcp_url()
        .replace("redis://", "redis://plain:secret@");
    let refused = run(async { provider(&url).ping().await.expect_err("no right") });
    assert!(refused.is_refused(), "{refused}");
    assert!(refused.to_string().contains("script"), "{refused}");
}

#[test]
fn the_error_of_a_server_without_the_module_names_the_provider_that_needs_none() {
    let server = bare().start();
    let redis = RedisProvider::new(&server.url(), RedisOptions::default()).expect("an address");
    let missing = run(async { redis.ping().await.expect_err("no module") });
    assert_eq!(missing.kind(), mcache::ErrorKind::ModuleMissing);
    assert!(
        missing.to_string().contains("PlainRedisProvider"),
        "{missing}"
    );
}

#[test]
fn a_key_of_another_type_in_its_place_is_an_error_and_not_an_answer() {
    let server = bare().start();
    let provider = provider(&server.url());
    run(async {
        assert!(store(&provider, b"k", "v").await);
        server.session().int("DEL {plain}:c");
        server.session().int("LPUSH {plain}:c x");
        let refused = provider.get(b"k").await.expect_err("a list");
        assert!(refused.to_string().contains("WRONGTYPE"), "{refused}");
        server.session().ok("SET {plain}:c x");
        let refused = provider.get(b"k").await.expect_err("nonsense");
        assert!(refused.is_refused(), "{refused}");
    });
}

fn restore(redis: &mut Session, key: &str, bytes: &[u8]) {
    redis.call(&[&b"RESTORE"[..], key.as_bytes(), b"0", bytes, b"REPLACE"]);
}

/// What was written under an earlier room, or before an invalidation, comes back in every way that leaves the room's
/// key alone.
pub fn put_back(url: &str, mut redis: Session) {
    let provider = provider(url);
    let get = async |key: &[u8]| provider.get(key).await.expect("get");
    let invalidate = async |tag: &str| {
        let tags = Tags::from_iter([tag]);
        let told = provider.invalidate(&tags, Mode::Hard).await;
        told.expect("invalidate");
    };
    let group = format!("{{plain}}:g{}", model::group_of(model::digest(b"t")));
    run(async {
        // Both rooms are at their first epoch.
        assert!(store(&provider, b"k", "old").await);
        redis.int("DEL {plain}:c");
        assert!(store(&provider, b"other", "new").await);
        assert_eq!(get(b"k").await, None, "of a room that was evicted");

        // A group that an earlier room wrote, in the place of one that knows more.
        invalidate("t").await;
        let earlier = redis.dump(&group);
        redis.int("DEL {plain}:c");
        assert!(store(&provider, b"other", "new").await);
        invalidate("u").await;
        assert!(store(&provider, b"k", "old").await);
        invalidate("t").await;
        restore(&mut redis, &group, &earlier);
        assert_eq!(get(b"k").await, None, "by a group of an earlier room");

        // An entry.
        assert!(store(&provider, b"k", "old").await);
        let before = redis.dump("{plain}:v:k");
        assert_eq!(redis.int("COPY {plain}:v:k {plain}:v:copied"), 1);
        invalidate("t").await;
        assert_eq!(redis.int("COPY {plain}:v:k {plain}:v:later"), 1);
        redis.ok("RENAME {plain}:v:k {plain}:v:renamed");
        restore(&mut redis, "{plain}:v:k", &before);
        for key in [&b"k"[..], b"copied", b"later", b"renamed"] {
            assert_eq!(get(key).await, None, "{}", key.escape_ascii());
        }
        assert!(store(&provider, b"k", "new").await);
        assert!(get(b"k").await.is_some());
    });
}

#[test]
fn entries_and_groups_that_are_put_back_copied_or_renamed_bring_nothing_back() {
    let server = bare().start();
    put_back(&server.url(), server.session());
}

#[test]
fn a_flush_while_a_value_is_loaded_refuses_it() {
    let server = bare().start();
    let provider = provider(&server.url());
    run(async {
        for flush in ["FLUSHALL", "FLUSHDB ASYNC", "SCRIPT FLUSH"] {
            assert!(store(&provider, b"k", "old").await);
            let token = provider.token(b"late").await.expect("token");
            server.session().ok(flush);
            assert_eq!(provider.get(b"k").await.expect("get"), None, "{flush}");
            let tags = tags();
            let late = Store::new(b"late", "late", &tags).token(&token);
            let stored = provider.store(late).await.expect("store");
            assert!(!stored, "{flush}");
        }
    });
}

#[test]
fn a_near_cache_over_it_is_refused_when_the_cache_is_built() {
    // Nothing is contacted: there is no server.
    let builder = Cache::builder_with(provider("redis://127.0.0.1:1")).near(NearOptions::new());
    let refused = run(builder.caching(true).build());
    let Err(refused) = refused else {
        panic!("its bound cannot be kept");
    };
    assert_eq!(refused.kind(), mcache::ErrorKind::Config);
    assert!(refused.to_string().contains("near cache"), "{refused}");
}
