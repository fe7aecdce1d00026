//! What is set up wrongly and would never work: one line of the log names what to change.

use harness::{
    Server,
    topology::{Cluster, Replicated, Sentinels},
};

use super::{near_cache, observed, observed_with, url_of_user};

#[test]
fn a_node_of_a_cluster_that_is_named_as_one_server() {
    let cluster = Cluster::start();
    let url = format!("redis://127.0.0.1:{}", cluster.nodes[0].port());
    observed(&url, async |observed| {
        observed.said_once(&["redis+cluster://"]);
        for number in 0..20 {
            observed.read(&number.to_string(), 1).await;
        }
        observed.said_once(&["MOVED", "said once"]);
    });
}

#[test]
fn a_sentinel_that_is_named_as_a_server_and_a_primary_that_it_does_not_know() {
    let replicated = Replicated::start(1);
    let sentinels = Sentinels::watch(&replicated);
    let address = format!("127.0.0.1:{}", sentinels.ports[0]);
    observed(&format!("redis://{address}"), async |observed| {
        observed.said_once(&["redis+sentinel://"]);
    });
    observed(
        &format!("redis+sentinel://{address}/another"),
        async |observed| {
            observed.said_once(&["starting without", "Master with given name not found"]);
        },
    );
}

#[test]
fn a_database_that_is_not_there() {
    let server = Server::builder().tcp().start();
    observed(&format!("{}/99", server.tcp_url()), async |observed| {
        observed.said_once(&["starting without", "DB index is out of range"]);
    });
}

#[test]
fn a_server_without_the_module() {
    let server = Server::builder().tcp().without_module().start();
    observed(&server.tcp_url(), async |observed| {
        observed.said_once(&["load the module mcache"]);
    });
}

#[test]
fn a_wrong_password() {
    let server = Server::builder().tcp().start();
    let url = format!("redis://shop:secret@127.0.0.1:{}", server.port());
    observed(&url, async |observed| {
        observed.said_once(&["starting without", "authentication failed"]);
    });
}

/// A cache that is to keep values near, and cannot, says so in this word, and takes part all the same.
fn keeps_nothing_near(url: &str, word: &str) {
    let build = async || near_cache(url).await;
    observed_with(build, async |observed| {
        let said = async || !observed.log.lines_with(&[word]).is_empty();
        observed.until("it is said", said).await;
        observed.until_cached().await;
        observed.said_once(&[word]);
    });
}

#[test]
fn a_near_cache_on_a_server_that_has_no_feed() {
    let server = Server::builder().tcp().start();
    keeps_nothing_near(&server.tcp_url(), "mcache.feed yes");
}

#[test]
fn a_near_cache_of_a_user_who_may_not_follow_the_feed() {
    let server = Server::builder().tcp().feed(1000).start();
    keeps_nothing_near(&url_of_user(&server, "-mcache.feed"), "mcache.feed");
}
