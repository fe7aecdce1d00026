//! Connections that the server ends or does not answer.

use std::time::Duration;

use harness::{Server, Session};
use mcache::{Cache, Error, Loaded, Source};
use tokio::{sync::Notify, time::timeout};

use super::{PATIENCE, observed, options};
use crate::support::runtime::run;

const REST: &str = "calls fail repeatedly";

#[test]
fn a_server_that_pauses_writers() {
    let server = Server::builder().tcp().start();
    let mut redis = server.session();
    observed(&server.tcp_url(), async |observed| {
        let mut other = server.session();
        let begin = async || redis.ok("CLIENT PAUSE 600000 WRITE");
        let end = async |()| other.ok("CLIENT UNPAUSE");
        observed.endures(&[REST], begin, end).await;
    });
}

#[test]
fn a_server_that_takes_no_more_clients() {
    let server = Server::builder().tcp().start();
    let mut redis = server.session();
    observed(&server.tcp_url(), async |observed| {
        let begin = async || {
            redis.ok("CONFIG SET maxclients 1");
            redis.run("CLIENT KILL TYPE normal SKIPME yes");
            redis
        };
        let end = async |mut redis: Session| redis.ok("CONFIG SET maxclients 100");
        observed.endures(&[REST], begin, end).await;
    });
}

/// A caller that waits in the server for another process's fill when `trouble` comes.
fn while_one_waits(trouble: impl FnOnce(&mut Session)) {
    let server = Server::builder().tcp().start();
    let mut redis = server.session();
    run(async {
        let process = async || {
            let builder = Cache::builder(server.tcp_url()).redis(options());
            builder.caching(true).build().await.expect("a cache")
        };
        let (filling, waiting) = (process().await, process().await);
        let (begun, go_on) = (Notify::new(), Notify::new());
        let fill = async {
            let load = || async {
                begun.notify_one();
                go_on.notified().await;
                Ok::<_, Error>(Loaded::new(1))
            };
            filling
                .key("k")
                .tags(["t"])
                .load(load)
                .await
                .expect("loaded")
        };
        let wait = async {
            begun.notified().await;
            let load = || async { Ok::<_, Error>(Loaded::new(2)) };
            let wait = waiting.key("k").tags(["t"]).load(load);
            timeout(PATIENCE, wait)
                .await
                .expect("in time")
                .expect("loaded")
        };
        let disturb = async {
            while redis.stat("parked_clients") == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            trouble(&mut redis);
        };
        // The one that fills goes on when the other has its value.
        let waited = async {
            let waited = wait.await;
            go_on.notify_one();
            waited
        };
        let (filled, waited, ()) = tokio::join!(fill, waited, disturb);
        assert_eq!((filled.value, waited.value), (1, 2), "each has its own");
        let cached = async {
            loop {
                let load = || async { Ok::<_, Error>(Loaded::new(3)) };
                let found = waiting.key("k").tags(["t"]).load(load).await;
                if found.expect("the source answers").source == Source::Hit {
                    break;
                }
            }
        };
        timeout(PATIENCE, cached).await.expect("it is kept again");
    });
}

#[test]
fn a_caller_that_waits_when_its_connection_is_ended_goes_to_the_source() {
    while_one_waits(|redis| drop(redis.run("CLIENT KILL TYPE normal SKIPME yes")));
}

#[test]
fn a_caller_that_waits_when_the_server_pauses_all_clients_goes_to_the_source() {
    while_one_waits(|redis| redis.ok("CLIENT PAUSE 2500 ALL"));
}

#[test]
fn a_loader_that_blocks_its_thread_for_its_own_key_does_not_wait_for_itself() {
    let server = Server::builder().tcp().start();
    run(async {
        let cache = Cache::builder(server.tcp_url()).caching(true).build().await;
        let cache = cache.expect("a cache");
        let load = || async {
            let inner = || {
                let inner = cache.key("k").get_or_load(|| async { Ok::<_, Error>(1) });
                tokio::runtime::Handle::current().block_on(inner)
            };
            Ok::<_, Error>(tokio::task::block_in_place(inner)? + 1)
        };
        let loaded = timeout(PATIENCE, cache.key("k").get_or_load(load)).await;
        assert_eq!(loaded.expect("in time").expect("loaded"), 2);
    });
}
