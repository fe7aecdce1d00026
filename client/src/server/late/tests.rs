//! Whose lease is given back, against a server that answers when it is told to.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::{
    RedisProvider,
    fake::{Fake, Reply, reply, until},
};
use super::*;
use crate::provider::{FetchOptions, Lookup, Provider};

/// Answers FETCH in this way, once it may.
fn server(state: &'static str, value: Vec<u8>) -> (Fake, Arc<AtomicBool>) {
    let may = Arc::new(AtomicBool::new(false));
    let fake = Fake::start({
        let may = may.clone();
        move |words| -> Reply {
            while !may.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            Some(match &*words[0] {
                "MCACHE.FETCH" => {
                    reply::list([reply::text(state), value.clone(), reply::text("token")])
                }
                _ => reply::int(1),
            })
        }
    });
    (fake, may)
}

fn miss() -> (Fake, Arc<AtomicBool>) {
    server("miss", reply::nil())
}

async fn fetch(provider: &RedisProvider) -> crate::Result<Lookup> {
    let options = FetchOptions {
        lease: Some(Duration::from_secs(600)),
        ..FetchOptions::default()
    };
    provider.fetch(b"k", options).await
}

async fn until_given_back(fake: &Fake) {
    until("the lease is given back", || {
        fake.said("MCACHE.RELEASE") == [["k", "token"]]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_an_answer_past_the_deadline_is_given_back() {
    for (state, value) in [("miss", reply::nil()), ("stale", reply::text("old"))] {
        let (fake, may) = server(state, value);
        let error = fetch(&fake.provider()).await.expect_err("the deadline");
        assert!(error.is_timeout(), "{error}");
        may.store(true, Ordering::SeqCst);
        until_given_back(&fake).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_a_caller_that_was_cancelled_is_given_back() {
    let (fake, may) = miss();
    let provider = fake.provider();
    let caller = tokio::spawn(async move { fetch(&provider).await });
    until("it is asked", || fake.calls("MCACHE.FETCH") == 1).await;
    caller.abort();
    assert!(caller.await.expect_err("it ended").is_cancelled());
    may.store(true, Ordering::SeqCst);
    until_given_back(&fake).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_an_answer_in_time_is_the_callers() {
    let (fake, may) = miss();
    may.store(true, Ordering::SeqCst);
    let provider = fake.provider();
    let found = fetch(&provider).await.expect("an answer");
    assert!(matches!(found, Lookup::Miss { .. }), "{found:?}");
    // Answers come in the order of the commands: a RELEASE sent by now would be there.
    provider.token(b"k").await.expect_err("no token");
    assert_eq!(fake.calls("MCACHE.RELEASE"), 0);
}
