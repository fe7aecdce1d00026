//! It passes the tests every provider must pass, over each topology and with no more rights than it needs.

use std::sync::Arc;

use harness::{Session, topology::Cluster};
use mcache::PlainRedisProvider;

use super::{bare, provider};
use crate::support::runtime::run;

fn conforms(provider: PlainRedisProvider) {
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
