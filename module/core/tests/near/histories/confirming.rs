//! What tells the server that a near cache has forgotten, and what does not.

use mcache_core::feed::Settings;

use super::{T, V};
use crate::node::{Reply, Request};
use crate::stage::*;

/// The server sent the answer; whether it arrived it cannot know.
#[test]
fn an_answer_confirms_nothing() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    client.feed(&mut node, T + 100);
    client.parked(&mut node, 5, 300_000, T + 1_000);
    invalidate(&mut node, &[0], T + 2_000);
    let woken = node.run(T + 3_000);
    assert!(matches!(&woken[..], [(5, Reply::Fed(_))]), "{woken:?}");
    assert_eq!(settle(&mut node, 7, T + 4_000), None, "the answer is lost");
    // The next call confirms, from the position before: it is told again.
    client.feed(&mut node, T + 5_000);
    assert_eq!(settled(&mut node, 7, T + 5_000), None);
    client.feed(&mut node, T + 6_000);
    assert_eq!(settled(&mut node, 7, T + 6_000), Some(state(1, 0, 0)));
    assert_eq!(client.get(0, T + 6_000), None);
}

#[test]
fn a_disconnect_confirms_nothing_and_ends_no_lease() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    client.parked(&mut node, 5, 300_000, T + 1_000);
    assert!(node.feed.unpark(5).is_some());
    invalidate(&mut node, &[0], T + 2_000);
    assert_eq!(settle(&mut node, 7, T + 2_000), None);
    assert_eq!(client.get(0, T + 999_000), Some(V), "it serves on");
    assert!(settled(&mut node, 7, T + LEASE).is_some());
}

#[test]
fn a_refusal_confirms_nothing() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    invalidate(&mut node, &[0], T + 1_000);
    assert_eq!(settle(&mut node, 7, T + 1_000), None);
    client.feed(&mut node, T + 2_000);
    node.standing.writes_allowed = false;
    let sent = client.sent(T + 3_000);
    assert!(client.executed(&sent, &mut node, T + 3_000).is_none());
    assert_eq!(settled(&mut node, 7, T + 4_000), None);
}

/// The caller has yet to read that it is to forget.
#[test]
fn a_gap_confirms_nothing() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    node.feed.configure(
        Settings {
            bytes: 0,
            ..SETTINGS
        },
        T,
    );
    invalidate(&mut node, &[0], T + 1_000);
    assert_eq!(settle(&mut node, 7, T + 1_000), None);
    let sent = client.sent(T + 2_000);
    let answer = client
        .executed(&sent, &mut node, T + 2_000)
        .expect("granted");
    assert!(answer.gap.is_some(), "the event left the log");
    assert_eq!(settled(&mut node, 7, T + 3_000), None);
    assert_eq!(client.get(0, T + 3_000), Some(V), "not read yet");
    client.answered(&sent, answer);
    assert_eq!(client.get(0, T + 3_000), None);
    client.feed(&mut node, T + 4_000);
    assert_eq!(settled(&mut node, 7, T + 4_000), Some(state(1, 0, 0)));
}

#[test]
fn giving_up_confirms_everything() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    invalidate(&mut node, &[0], T + 1_000);
    assert_eq!(settle(&mut node, 7, T + 1_000), None);
    let position = client
        .cache
        .view(0)
        .position()
        .expect("it has one")
        .to_vec();
    ask(&mut node, Request::End { position }, T + 2_000);
    assert_eq!(settled(&mut node, 7, T + 2_000), Some(state(1, 0, 0)));
    assert_eq!(node.feed.subscribers(), 0);
}

/// A subscriber that goes on renewing its lease without ever confirming would hold a SETTLE up for ever.
#[test]
fn renewals_do_not_prolong_a_settle() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    invalidate(&mut node, &[0], T + 1_000);
    assert_eq!(settle(&mut node, 7, T + 1_000), None);
    for n in 1..=4 {
        // Each call is executed, each answer is lost.
        let sent = client.sent(T + n * 250_000);
        client
            .executed(&sent, &mut node, T + n * 250_000)
            .expect("granted");
    }
    assert_eq!(settled(&mut node, 7, T + LEASE - 1), None);
    assert_eq!(settled(&mut node, 7, T + LEASE), Some(state(0, 1, 0)));
}

#[test]
fn a_healthy_subscriber_settles_with_its_next_call() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let sent = client.parked(&mut node, 5, 300_000, T + 10_000);
    invalidate(&mut node, &[0], T + 20_000);
    assert_eq!(settle(&mut node, 7, T + 20_000), None);
    let (_, reply) = node.run(T + 20_000).pop().expect("woken at once");
    let Reply::Fed(answer) = reply else { panic!() };
    client.answered(&sent, answer);
    assert_eq!(client.get(0, T + 20_100), None);
    client.parked(&mut node, 6, 300_000, T + 20_200);
    assert_eq!(settled(&mut node, 7, T + 20_200), Some(state(1, 0, 0)));
}
