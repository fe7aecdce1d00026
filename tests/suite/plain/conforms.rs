//! It passes the tests every provider must pass, over each topology and with no more rights than it needs.

use std::sync::Arc;
use std::time::Duration;

use harness::{Session, topology::Cluster};
use mcache::provider::{Mode, Provider, Store};
use mcache::{PlainRedisProvider, Tags};

use super::{bare, provider};
use crate::support::runtime::run;

/// Panics if it does not.
pub fn conforms(provider: PlainRedisProvider) {
    run(async {
        let provider = Arc::new(provider);
        for (name, test) in mcache::conformance::tests() {
            println!("{name}");
            test(provider.clone()).await;
        }
    });
}

#[test]
fn over_a_unix_socket() {
    let server = bare().start();
    conforms(provider(&server.url()));
}

#[test]
fn over_tcp_with_the_third_protocol_in_another_database() {
    let server = bare().tcp().start();
    conforms(provider(&format!("{}/3?protocol=resp3", server.tcp_url())));
    assert_eq!(server.session().int("DBSIZE"), 0, "of database 0");
}

#[test]
fn in_a_cluster_spread_over_several_hash_tags() {
    let cluster = Cluster::start_with(bare());
    let spread = PlainRedisProvider::builder(cluster.url())
        .namespace("plain")
        .spread(5)
        .build()
        .expect("an address");
    conforms(spread);
    let used = cluster
        .primaries()
        .filter(|node| node.session().int("DBSIZE") > 0);
    assert!(used.count() > 1, "five hash tags are not all on one node");
}

#[test]
fn with_a_hash_tag_of_ones_own_in_a_cluster() {
    let cluster = Cluster::start_with(bare());
    let tagged = PlainRedisProvider::builder(cluster.url())
        .namespace("plain")
        .hash_tag("here")
        .build()
        .expect("an address");
    conforms(tagged);
    let used = cluster
        .primaries()
        .filter(|node| node.session().int("DBSIZE") > 0);
    assert_eq!(used.count(), 1, "one hash tag is on one node");
}

/// What such a user needs is all that is named here. CONFIG, KEYS, SCAN, INFO, EVAL and FLUSHALL are not.
pub const RIGHTS: &str = "resetchannels -@all +evalsha +script|load +getex +get +getrange +set +setrange +unlink +time \
     +hmget +hset +hdel +hlen +hgetall +strlen +append +pttl +publish +subscribe +unsubscribe +ping +hello +select \
     +client|setname ~{plain}:* &{plain}:*";

/// Gives them to the user `plain`. Newer servers are told by the client library which one it is.
pub fn allow(admin: &mut Session, rights: &str) {
    admin.ok(&format!("ACL SETUSER plain on >secret {rights}"));
    let _ = admin.try_run("ACL SETUSER plain +client|setinfo");
}

#[test]
fn for_a_user_who_may_touch_its_keys_only_and_neither_list_nor_configure() {
    let server = bare().tcp().start();
    let mut admin = server.session();
    allow(&mut admin, RIGHTS);
    let url = server
        .tcp_url()
        .replace("redis://", "redis://plain:secret@");
    conforms(provider(&url));
    assert_eq!(
        admin.list("ACL LOG"),
        Vec::<String>::new(),
        "nothing was refused"
    );
}

const HOUR: Duration = Duration::from_secs(3_600);

/// Three promises about moments that random steps seldom meet.
pub fn moments(url: &str, mut redis: Session) {
    let provider = provider(url);
    let tags = Tags::from_iter(["t"]);
    run(async {
        let token = provider.token(b"k").await.expect("token");
        provider.clear(b"k").await.expect("clear");
        let late = Store::new(b"k", "late", &tags).token(&token);
        let stored = provider.store(late).await.expect("store");
        assert!(!stored, "the key was cleared during the fill");

        let entry = Store::new(b"k", "v", &tags).ttl(HOUR).swr(HOUR);
        assert!(provider.store(entry).await.expect("store"));
        let left = redis.int("PTTL {plain}:v:k");
        assert!(left > 3_700_000, "the key ends before its stale window");

        for _ in 0..2 {
            let told = provider.invalidate(&tags, Mode::Soft).await;
            told.expect("invalidate");
        }
        let found = provider.inspect(b"k").await.expect("inspect");
        let found = found.expect("it is there");
        let dead = mcache::provider::EntryState::Dead;
        assert_eq!(found.state, dead, "when its window began is not known");
    });
}

#[test]
fn a_fill_of_a_cleared_key_a_stale_window_and_two_soft_invalidations() {
    let server = bare().start();
    moments(&server.url(), server.session());
}
