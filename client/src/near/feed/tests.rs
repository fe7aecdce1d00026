//! How a primary is followed, against a server whose answers are written here.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use mcache_core::feed::HashKey;

use super::*;
use crate::near::{NearData, NearOptions};
use crate::server::fake::{Fake, Reply, reply, until};

const CELL_BITS: i64 = 20;

/// An answer without events.
fn answer(position: &str, lease_ms: i64, is_gap: bool) -> Reply {
    let mut parts = vec![
        reply::text(position),
        reply::int(lease_ms),
        reply::int(0),
        reply::text(""),
    ];
    if is_gap {
        parts.push(reply::list([reply::text([7; 16]), reply::int(CELL_BITS)]));
    }
    Some(reply::list(parts))
}

fn near(fake: &Fake) -> Arc<Near> {
    let near = Near::new(
        fake.provider(),
        Bytes::from_static(b"t:"),
        &NearOptions::new(),
    );
    near.follow();
    near
}

/// Puts `v` away under `k`, with the tag `t`.
fn put(near: &Near) {
    let node = near.origins_now().remove(0).node.clone();
    let asking = near.ask(&node).expect("it has answered");
    let near_data = NearData {
        data: mcache_core::near::Data {
            number: 1,
            manual: false,
            digests: vec![HashKey::new([7; 16]).digest(b"t")],
        },
        life_ms: None,
    };
    near.put(
        &asking,
        b"k",
        &Bytes::from_static(b"v"),
        near_data,
        Duration::ZERO,
    );
}

/// The positions that were asked from.
fn asked(fake: &Fake) -> Vec<String> {
    let calls = fake.said("MCACHE.FEED").into_iter();
    calls.map(|mut words| words.remove(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_renewed_again_and_again_from_where_it_is() {
    let turn = AtomicUsize::new(0);
    let fake = Fake::start(move |_| {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
        answer(&format!("p{turn}"), 5_000, turn == 0)
    });
    let near = near(&fake);
    until("it asks again and again", || fake.calls("MCACHE.FEED") > 4).await;
    assert!(near.stats("").is_serving());
    assert_eq!(asked(&fake)[..4], ["NEW", "p0", "p1", "p2"]);
    for words in fake.said("MCACHE.FEED") {
        assert_eq!(words[1..], ["WAIT", "2000", "PREFIX", "t:"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_too_long_is_given_up_and_its_answer_is_not_taken() {
    let turn = AtomicUsize::new(0);
    let released = Arc::new(AtomicBool::new(false));
    let fake = Fake::start({
        let released = released.clone();
        move |_| match turn.fetch_add(1, Ordering::Relaxed) {
            0 => answer("p0", 60, true),
            1 => {
                while !released.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                answer("late", 60_000, false)
            }
            turn => {
                std::thread::sleep(Duration::from_millis(5));
                answer(&format!("p{turn}"), 60, false)
            }
        }
    });
    let near = near(&fake);
    until("it asks on another connection", || {
        fake.calls("MCACHE.FEED") > 2
    })
    .await;
    released.store(true, Ordering::Relaxed);
    let known = fake.calls("MCACHE.FEED");
    until("it goes on", || fake.calls("MCACHE.FEED") > known + 3).await;
    let asked = asked(&fake);
    assert_eq!(asked[..4], ["NEW", "p0", "p0", "p2"]);
    assert!(!asked.contains(&"late".to_owned()), "{asked:?}");
    drop(near);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_grants_nothing_and_is_asked_again() {
    let refuses = Arc::new(AtomicBool::new(true));
    let fake = Fake::start({
        let refuses = refuses.clone();
        move |_| match refuses.load(Ordering::Relaxed) {
            true => Some(b"-NONEAR the feed is switched off here\r\n".to_vec()),
            false => {
                std::thread::sleep(Duration::from_millis(2));
                answer("p", 5_000, true)
            }
        }
    });
    let near = near(&fake);
    let refusal = || {
        near.stats("")
            .primaries
            .first()
            .and_then(|it| it.refusal.clone())
    };
    until("it is told", || refusal().is_some()).await;
    assert!(refusal().is_some_and(|why| why.contains("switched off")));
    assert!(!near.stats("").is_serving());
    until("it is asked again", || fake.calls("MCACHE.FEED") > 2).await;
    refuses.store(false, Ordering::Relaxed);
    until("it grants", || near.stats("").is_serving()).await;
    assert_eq!(refusal(), None);
}

/// The server waits for no process that has ended: so this one must serve nothing by the time at which it says so.
#[tokio::test(flavor = "multi_thread")]
async fn it_serves_nothing_when_it_gives_its_subscription_up() {
    let served_at_the_end = Arc::new(OnceLock::new());
    let the_near: Arc<OnceLock<Weak<Near>>> = Arc::default();
    let fake = Fake::start({
        let (served_at_the_end, the_near) = (served_at_the_end.clone(), the_near.clone());
        move |words| {
            if words.last().is_some_and(|word| word == "END") {
                let near = the_near.get().and_then(Weak::upgrade).expect("it is there");
                let _ = served_at_the_end.set(near.get(b"k").is_some());
                return Some(reply::int(1));
            }
            std::thread::sleep(Duration::from_millis(10));
            answer("p", 60_000, words[1] == "NEW")
        }
    });
    let near = near(&fake);
    the_near.set(Arc::downgrade(&near)).expect("once");
    until("it serves", || near.stats("").is_serving()).await;
    put(&near);
    assert!(near.get(b"k").is_some());
    near.end().await;
    assert!(near.get(b"k").is_none());
    assert_eq!(served_at_the_end.get(), Some(&false));
    assert_eq!(asked(&fake).last().map(String::as_str), Some("p"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_dropped_gives_its_subscription_up_too() {
    let fake = Fake::start(|words| match words.last().map(String::as_str) {
        Some("END") => Some(reply::int(1)),
        _ => {
            std::thread::sleep(Duration::from_millis(10));
            answer("p", 60_000, words[1] == "NEW")
        }
    });
    let near = near(&fake);
    until("it serves", || near.stats("").is_serving()).await;
    drop(near);
    let ended = || {
        let calls = fake.said("MCACHE.FEED");
        calls
            .iter()
            .any(|words| words.last().is_some_and(|it| it == "END"))
    };
    until("it says so", ended).await;
}
