//! Who waits for which SETTLE, against a server whose answers are written here.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::fake::{Fake, Reply, reply, until};
use super::super::{RedisProvider, Topology};
use super::*;

/// So many still wait.
fn waiting(count: i64) -> Reply {
    Some(reply::list([
        reply::int(3),
        reply::int(0),
        reply::int(count),
    ]))
}

/// What was acknowledged just now, with so many leases, the longest for so long.
fn settling(provider: &RedisProvider, leases: u64, longest_ms: u64) -> Settling {
    let Topology::Single(link) = &provider.topology else {
        panic!("one server");
    };
    let mut settling = Settling::default();
    let acknowledged = Acknowledged::now(1, leases, longest_ms);
    settling.add(link.settlers(), acknowledged, &Bytes::from_static(b"t:"));
    settling
}

/// A minute: longer than these tests wait.
const LONG_MS: u64 = 60_000;

async fn soon(settled: impl Future<Output = ()>) {
    let in_time = timeout(Duration::from_secs(30), settled).await;
    in_time.expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_lease_concerns_is_settled_without_a_question() {
    let fake = Fake::start(|_| waiting(0));
    assert!(settling(&fake.provider(), 0, LONG_MS).is_settled());
    assert_eq!(fake.calls("MCACHE.SETTLE"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_settled_when_the_server_says_that_all_have_confirmed() {
    let fake = Fake::start(|_| waiting(0));
    let provider = fake.provider();
    let one = settling(&provider, 1, LONG_MS);
    assert!(!one.is_settled());
    soon(one.settled()).await;
    assert_eq!(fake.said("MCACHE.SETTLE"), [["6000", "PREFIX", "t:"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_a_process_still_has_to_hear_of_is_asked_for_again() {
    let turn = AtomicUsize::new(0);
    let fake = Fake::start(move |_| match turn.fetch_add(1, Ordering::Relaxed) {
        0 => waiting(2),
        // The connection ends.
        1 => None,
        2 => Some(b"-ERR not now\r\n".to_vec()),
        _ => waiting(0),
    });
    soon(settling(&fake.provider(), 2, LONG_MS).settled()).await;
    assert_eq!(fake.calls("MCACHE.SETTLE"), 4);
}

/// A SETTLE says nothing of what was acknowledged after it was sent.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_one_is_under_way_waits_for_the_next() {
    let released = Arc::new(AtomicUsize::new(0));
    let turn = AtomicUsize::new(0);
    let fake = Fake::start({
        let released = released.clone();
        move |_| {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            while released.load(Ordering::Relaxed) <= turn {
                std::thread::sleep(Duration::from_millis(1));
            }
            waiting(0)
        }
    });
    let provider = fake.provider();
    let first = tokio::spawn(settling(&provider, 1, LONG_MS).settled());
    until("the first is under way", || {
        fake.calls("MCACHE.SETTLE") == 1
    })
    .await;
    let later: Vec<_> = (0..10)
        .map(|_| tokio::spawn(settling(&provider, 1, LONG_MS).settled()))
        .collect();
    // They have come: each of them listens.
    let Topology::Single(link) = &provider.topology else {
        panic!("one server");
    };
    let settler = link.settlers().get(&Bytes::from_static(b"t:"));
    until("they wait", || settler.confirmed.receiver_count() == 11).await;
    released.store(1, Ordering::Relaxed);
    soon(async { first.await.expect("no panic") }).await;
    until("the second is under way", || {
        fake.calls("MCACHE.SETTLE") == 2
    })
    .await;
    // Those who were let off too early have had the time to see it.
    sleep(Duration::from_millis(20)).await;
    assert!(later.iter().all(|one| !one.is_finished()));
    released.store(2, Ordering::Relaxed);
    for one in later {
        soon(async { one.await.expect("no panic") }).await;
    }
    assert_eq!(fake.calls("MCACHE.SETTLE"), 2, "all ten share one");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_it_is_settled_when_the_lease_is_over_and_not_before() {
    let fake = Fake::start(|_| None);
    let began_ms = now_ms();
    soon(settling(&fake.provider(), 1, 100).settled()).await;
    assert!(now_ms() - began_ms >= 100);
    let mut alone = Settling::default();
    alone.by_time_alone();
    assert!(!alone.is_settled());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_know_the_word_grants_no_leases() {
    let fake = Fake::start(|_| Some(b"-ERR unknown command 'MCACHE.SETTLE'\r\n".to_vec()));
    soon(settling(&fake.provider(), 1, LONG_MS).settled()).await;
}
