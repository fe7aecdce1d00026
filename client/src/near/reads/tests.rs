//! What of a read or a store is put away, against a server whose answers are written here.

use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::Tags;
use crate::near::NearOptions;
use crate::provider::Lookup;
use crate::server::fake::{Fake, Reply, reply, until};

/// What is said beside a value: read after the first event, without end, with these digests.
fn beside(digests: &[u64]) -> Vec<u8> {
    let digests: Vec<u8> = digests.iter().flat_map(|it| it.to_le_bytes()).collect();
    let parts = [reply::int(1), reply::int(-1), reply::int(0)];
    reply::list(parts.into_iter().chain([reply::text(digests)]))
}

/// A server that answers what is not FEED with this, and a near cache that it has granted a lease.
async fn near(answer: impl Fn(&[String]) -> Reply + Send + Sync + 'static) -> (Fake, Arc<Near>) {
    let fake = Fake::start(move |words| match &*words[0] {
        "MCACHE.FEED" => {
            std::thread::sleep(Duration::from_millis(20));
            let parts = [
                reply::text("p"),
                reply::int(60_000),
                reply::int(0),
                reply::text(""),
            ];
            let gap = reply::list([reply::text([7; 16]), reply::int(20)]);
            let gap = (words[1] == "NEW").then_some(gap);
            Some(reply::list(parts.into_iter().chain(gap)))
        }
        _ => answer(words),
    });
    let near = Near::new(
        fake.provider(),
        Bytes::from_static(b"t:"),
        &NearOptions::new(),
    );
    near.follow();
    until("it serves", || near.stats("").is_serving()).await;
    (fake, near)
}

fn value(near: &Near, key: &[u8]) -> Option<Bytes> {
    near.get(key).map(|held| held.bytes().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loaders_value_is_put_away_only_with_what_the_server_replied() {
    let answers: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let (fake, near) = near({
        let answers = answers.clone();
        move |_| answers.lock().expect("no panic").pop()
    })
    .await;
    let tags = Tags::from_iter(["t"]);
    let store = async |text: &'static str, answer: Vec<u8>| {
        answers.lock().expect("no panic").push(answer);
        let entry = Store::new(b"k", text, &tags);
        near.store_through(entry, Duration::ZERO)
            .await
            .expect("an answer")
    };
    assert!(store("first", beside(&[1])).await);
    assert_eq!(value(&near, b"k").as_deref(), Some(&b"first"[..]));
    assert!(!store("refused", reply::nil()).await);
    assert_eq!(
        value(&near, b"k").as_deref(),
        Some(&b"first"[..]),
        "what the server has is what was there"
    );
    assert!(store("not to be kept", b"+OK\r\n".to_vec()).await);
    assert_eq!(value(&near, b"k"), None, "it took the place of the first");
    let lost = near.store_through(Store::new(b"k", "lost", &tags), Duration::ZERO);
    assert!(lost.await.is_err());
    assert_eq!(value(&near, b"k"), None);
    let calls = fake.said("MCACHE.SET");
    assert!(
        calls
            .iter()
            .all(|words| words.windows(2).any(|it| it == ["NEAR", "p"]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_of_a_batch_is_put_away_for_itself() {
    let (_, near) = near(|words| match &*words[0] {
        "MCACHE.NEARGET" => {
            assert_eq!(words[1..], ["p", "a", "b", "c"]);
            Some(reply::list([
                reply::list([reply::text("va"), beside(&[1, 2])]),
                reply::list([reply::text("vb"), b"*-1\r\n".to_vec()]),
                reply::nil(),
            ]))
        }
        other => panic!("{other}"),
    })
    .await;
    let keys = ["a", "b", "c"].map(|key| Bytes::from_static(key.as_bytes()));
    let values = near.read_many(&keys).await.expect("an answer");
    assert_eq!(values, [Some("va".into()), Some("vb".into()), None]);
    assert_eq!(value(&near, b"a").as_deref(), Some(&b"va"[..]));
    assert_eq!(value(&near, b"b"), None);
    let stats = near.stats("");
    assert_eq!((stats.kept, stats.not_kept), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetched_value_is_put_away_if_it_is_live() {
    let (_, near) = near(|words| {
        let state = if words[1] == "live" { "hit" } else { "stale" };
        let beside = if words[1] == "live" {
            beside(&[1])
        } else {
            reply::nil()
        };
        Some(reply::list([
            reply::text(state),
            reply::text("v"),
            reply::nil(),
            beside,
        ]))
    })
    .await;
    let lookup = near.fetch(b"live", FetchOptions::default()).await;
    assert!(matches!(lookup, Ok(Lookup::Hit(_))), "{lookup:?}");
    assert_eq!(value(&near, b"live").as_deref(), Some(&b"v"[..]));
    let _ = near.fetch(b"stale", FetchOptions::default()).await;
    assert_eq!(value(&near, b"stale"), None);
}
