//! Leases that another server granted, or this one before.

use mcache_core::feed::{Settings, SlotSet};

use super::{T, V, W};
use crate::node::Request;
use crate::stage::*;
use crate::world::slot_of;

const LONGEST: u64 = 5_200_001;

#[test]
fn predecessors_of_a_server_that_starts_are_waited_for() {
    let mut node = server_since(1, T);
    let waits = invalidate(&mut node, &[0], T + 1_000);
    assert_eq!((waits.leases, waits.longest_us), (1, LONGEST - 1_000));
    assert_eq!(settle(&mut node, 7, T + 1_000), None);
    assert_eq!(settled(&mut node, 7, T + LONGEST - 1), None);
    assert_eq!(settled(&mut node, 7, T + LONGEST), Some(state(0, 1, 0)));
    assert_eq!(invalidate(&mut node, &[0], T + LONGEST).leases, 0);
}

#[test]
fn predecessors_of_a_server_that_is_promoted_are_waited_for() {
    let mut old = server(1);
    let mut client = Client::subscribed(&mut old, 1, T);
    client.fill(&mut old, 0, V, T);
    let mut new = server(2);
    pass(&mut new, BEGINNING, T + 1_000);
    new.demote();
    new.promote(old.cache.clone(), old.slots.clone(), T + 1_000);
    invalidate(&mut new, &[0], T + 2_000);
    assert_eq!(settle(&mut new, 7, T + 2_000), None);
    assert_eq!(
        client.get(0, T + 999_000),
        Some(V),
        "it has not heard of that"
    );
    pass(&mut new, T + 2_000, T + 5 * SECOND);
    assert!(settled(&mut new, 7, T + 1_000 + LONGEST).is_some());
    // Its position is of another server.
    pass(&mut new, T + 1_000 + LONGEST, T + 6 * SECOND);
    let sent = client.sent(T + 6 * SECOND);
    let answer = client
        .executed(&sent, &mut new, T + 6 * SECOND)
        .expect("granted");
    assert!(answer.gap.is_some());
}

#[test]
fn predecessors_with_longer_leases_are_waited_for() {
    let lease = |lease_ms| Settings {
        lease_ms,
        ..crate::stage::SETTINGS
    };
    let mut old = server(1);
    old.feed.configure(lease(5_000), T);
    let mut client = Client::subscribed(&mut old, 1, T);
    client.fill(&mut old, 0, V, T);
    let mut new = server(2);
    new.feed.configure(lease(100), T);
    pass(&mut new, BEGINNING, T + 1_000);
    new.demote();
    new.promote(old.cache.clone(), old.slots.clone(), T + 1_000);
    invalidate(&mut new, &[0], T + 2_000);
    assert_eq!(settle(&mut new, 7, T + 2_000), None);
    pass(&mut new, T + 2_000, T + 5_100_000);
    assert_eq!(client.get(0, T + 4_999_000), Some(V), "it has not heard");
    assert_eq!(settled(&mut new, 7, T + 5_100_001), None);
    assert!(settled(&mut new, 7, T + 1_000 + LONGEST).is_some());
    assert_eq!(client.get(0, T + 1_000 + LONGEST), None);
}

#[test]
fn slots_that_leave_a_server_that_lives_are_told_and_waited_for() {
    let mut from = server(1);
    let mut client = Client::subscribed(&mut from, 1, T);
    client.fill(&mut from, 0, V, T);
    client.fill(&mut from, 1, W, T);
    let mut to = server(2);
    to.slots = SlotSet::default();
    settle(&mut to, 1, T);
    // Key 0 lives on the other server now, and is cleared there.
    let (mut rest, mut moved) = (SlotSet::default(), SlotSet::default());
    moved.add(0, 100);
    rest.add(101, 16_383);
    (from.slots, to.slots) = (rest, moved);
    assert!(slot_of(0) <= 100 && slot_of(1) > 100);
    ask(&mut to, Request::Clear { key: 0 }, T + 1_000);
    assert_eq!(
        settle(&mut to, 7, T + 1_000),
        None,
        "leases of the former owner"
    );
    assert_eq!(client.get(0, T + 1_000), Some(V), "it cannot know yet");
    client.feed(&mut from, T + 2_000);
    assert_eq!(
        client.get(0, T + 2_000),
        None,
        "it is told with the next answer"
    );
    assert_eq!(client.get(1, T + 2_000), Some(W), "what stays is kept");
    assert!(settled(&mut to, 7, T + 1_000 + LONGEST).is_some());
}

#[test]
fn a_feed_that_is_switched_off_and_on_has_predecessors_and_gaps() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let off = Settings {
        on: false,
        ..SETTINGS
    };
    node.feed.configure(off, T + 1_000);
    let waits = invalidate(&mut node, &[0], T + 2_000);
    assert_eq!(waits.leases, 1, "leases that were granted run on");
    assert_eq!(settle(&mut node, 7, T + 2_000), None);
    let sent = client.sent(T + 3_000);
    assert!(client.executed(&sent, &mut node, T + 3_000).is_none());
    pass(&mut node, T + 3_000, T + SECOND);
    assert_eq!(settled(&mut node, 7, T + LEASE), Some(state(0, 1, 0)));
    assert_eq!(settle(&mut node, 8, T + LEASE), Some(state(0, 1, 0)));
    pass(&mut node, T + LEASE, T + 2 * SECOND);
    node.feed.configure(SETTINGS, T + 2 * SECOND);
    assert_eq!(settle(&mut node, 9, T + 2 * SECOND), None);
    let sent = client.sent(T + 2 * SECOND);
    let answer = client
        .executed(&sent, &mut node, T + 2 * SECOND)
        .expect("granted");
    assert!(answer.gap.is_some());
}
