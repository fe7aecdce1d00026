//! A caller that waits for another process's fill waits in its own process: a message tells it, or it looks again where
//! messages cannot be had.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use harness::{Server, wait};
use mcache::provider::{FetchOptions, Lookup, Provider, Store, Token};
use mcache::{PlainRedisProvider, Tags};

use super::conforms::{RIGHTS, allow};
use super::{bare, provider};
use crate::support::runtime::run;

const WAIT: Duration = Duration::from_secs(60);

async fn miss(provider: &PlainRedisProvider) -> Token {
    let options = FetchOptions::new().lease(WAIT);
    match provider.fetch(b"k", options).await.expect("fetch") {
        Lookup::Miss { token } => token,
        other => panic!("expected a miss, got {other:?}"),
    }
}

/// Ten of another process wait, and are told of the value.
async fn ten_wait(one: &PlainRedisProvider, other: PlainRedisProvider, are_waiting: impl Fn()) {
    let token = miss(one).await;
    let other = Arc::new(other);
    let waiting = (0..10).map(|_| {
        let other = other.clone();
        tokio::spawn(async move { other.fetch(b"k", FetchOptions::new().wait(WAIT)).await })
    });
    let waiting: Vec<_> = waiting.collect();
    tokio::task::block_in_place(are_waiting);
    let tags = Tags::from_iter(["t"]);
    let entry = Store::new(b"k", "v", &tags).token(&token);
    assert!(one.store(entry).await.expect("store"));
    for found in join_all(waiting).await {
        let found = found.expect("waited").expect("fetch");
        assert_eq!(found, Lookup::Hit("v".into()));
    }
}

fn subscribed(server: &Server) -> bool {
    server.session().list("PUBSUB CHANNELS {plain}:w") == ["{plain}:w"]
}

#[test]
fn those_who_wait_share_one_connection_and_block_none() {
    let server = bare().start();
    run(async {
        let (one, other) = (provider(&server.url()), provider(&server.url()));
        ten_wait(&one, other, || {
            wait::until("a process listens", || subscribed(&server));
            let lease = "STRLEN {plain}:l:k";
            wait::until("the lease knows", || server.session().int(lease) == 9);
            assert_eq!(server.session().info("clients", "blocked_clients"), 0);
            let listening = server.session().list("PUBSUB NUMSUB {plain}:w");
            assert_eq!(listening, ["{plain}:w", "1"]);
        })
        .await;
        assert_eq!(server.session().int("EXISTS {plain}:l:k"), 0);
    });
}

#[test]
fn who_may_not_listen_looks_again() {
    let server = bare().tcp().start();
    let rights = RIGHTS.replace("&{plain}:*", "").replace("+subscribe ", "");
    allow(&mut server.session(), &rights);
    let url = server
        .tcp_url()
        .replace("redis://", "redis://plain:secret@");
    run(async {
        let lease = "STRLEN {plain}:l:k";
        ten_wait(&provider(&url), provider(&url), || {
            wait::until("the lease knows", || server.session().int(lease) == 9);
        })
        .await;
    });
    assert!(!subscribed(&server));
}

#[test]
fn a_listener_whose_connection_breaks_listens_again() {
    let server = bare().start();
    run(async {
        let (one, other) = (provider(&server.url()), provider(&server.url()));
        ten_wait(&one, other, || {
            wait::until("a process listens", || subscribed(&server));
            server.session().int("CLIENT KILL TYPE pubsub");
            wait::until("a process listens again", || subscribed(&server));
        })
        .await;
    });
}
