//! Prefixes, bounds, and what costs nothing.

use mcache_core::feed::Prefixes;

use super::{T, V};
use crate::node::{Reply, Request};
use crate::stage::*;
use crate::world::tag_name;

fn only(prefix: &str) -> Prefixes {
    Prefixes::new([prefix.as_bytes()].into_iter()).expect("one")
}

#[test]
fn a_subscriber_hears_of_its_prefixes_and_is_given_nothing_else() {
    let mut node = server(1);
    let mut client = Client::new(1);
    client.prefixes = only("eu:");
    client.feed(&mut node, T);
    // Key 0 carries a tag of each tenant.
    assert!(tag_name(0).starts_with(b"eu:") && tag_name(1).starts_with(b"us:"));
    let set = Request::Set {
        key: 0,
        value: V,
        token: None,
        near: Some(client.asked(T).position.to_vec()),
    };
    assert!(matches!(ask(&mut node, set, T), Reply::Stored(None)));
    invalidate(&mut node, &[1], T + 1_000);
    let sent = client.sent(T + 2_000);
    let answer = client
        .executed(&sent, &mut node, T + 2_000)
        .expect("granted");
    assert!(answer.events.is_empty());
    client.answered(&sent, answer);
    invalidate(&mut node, &[0], T + 3_000);
    let sent = client.sent(T + 4_000);
    let answer = client
        .executed(&sent, &mut node, T + 4_000)
        .expect("granted");
    assert_eq!(answer.events.len(), 1);
}

#[test]
fn other_prefixes_are_another_subscription() {
    let mut node = server(1);
    let mut client = Client::new(1);
    client.prefixes = only("eu:");
    client.feed(&mut node, T);
    client.prefixes = only("us:");
    let sent = client.sent(T + 1_000);
    let answer = client
        .executed(&sent, &mut node, T + 1_000)
        .expect("granted");
    assert!(answer.gap.is_some());
    assert_eq!(node.feed.subscribers(), 2, "the former one's lease runs on");
}

#[test]
fn a_settle_waits_only_for_those_it_can_concern() {
    let mut node = server(1);
    let mut eu = Client::new(1);
    eu.prefixes = only("eu:");
    eu.feed(&mut node, T);
    assert_eq!(invalidate(&mut node, &[1], T + 1_000).leases, 0);
    let us = settle_some(&mut node, 7, only("us:1"), T + 1_000);
    assert_eq!(us, Some(state(0, 0, 0)), "another tenant");
    let all = settle(&mut node, 8, T + 1_000);
    assert_eq!(
        all,
        Some(state(1, 0, 0)),
        "it was told nothing, so nothing is open"
    );
    assert_eq!(invalidate(&mut node, &[0], T + 2_000).leases, 1);
    assert_eq!(settle_some(&mut node, 9, only("eu:0"), T + 2_000), None);
}

#[test]
fn one_subscriber_too_many_is_refused_and_none_is_put_out() {
    let mut node = server(1);
    let mut clients: Vec<Client> = (1..=4)
        .map(|n| Client::subscribed(&mut node, n, T))
        .collect();
    let mut fifth = Client::new(5);
    let sent = fifth.sent(T);
    assert!(fifth.executed(&sent, &mut node, T).is_none());
    for client in &mut clients {
        client.feed(&mut node, T + 1_000);
        assert!(client.cache.view(0).serves((T + 1_000) / 1_000));
    }
}

#[test]
fn nothing_is_written_down_while_nobody_subscribes() {
    let mut node = server(1);
    invalidate(&mut node, &[0, 1], T);
    let set = Request::Set {
        key: 0,
        value: V,
        token: None,
        near: None,
    };
    ask(&mut node, set, T);
    assert!(!node.feed.is_running() && node.feed.is_idle());
    assert_eq!((node.feed.bytes(), node.feed.stats().events), (0, 0));
    assert_eq!(node.feed.next_us(), None);
    assert_eq!(settle(&mut node, 7, T), Some(state(0, 0, 0)));
}

/// Thousands of invalidations a second cost a subscriber one answer each half millisecond.
#[test]
fn a_subscriber_is_woken_at_most_once_a_round() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    let mut sent = client.parked(&mut node, 1, 300_000, T + 1_000);
    let mut answers = 0;
    for n in 1..=10_000u64 {
        let now_us = T + 1_000 + n * 10;
        invalidate(&mut node, &[0], now_us);
        for (_, reply) in node.run(now_us) {
            let Reply::Fed(answer) = reply else { panic!() };
            client.answered(&sent, answer);
            answers += 1;
            sent = client.parked(&mut node, n + 1, 300_000, now_us);
        }
    }
    assert!((150..=201).contains(&answers), "{answers} in 100 ms");
}
