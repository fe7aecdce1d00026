//! Who grants leases.

use mcache_core::feed::Settings;

use super::{T, V};
use crate::node::Reply;
use crate::stage::*;

#[test]
fn a_primary_that_is_cut_off_grants_nothing() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    node.cluster_up = false;
    let sent = client.sent(T + 500_000);
    assert!(client.executed(&sent, &mut node, T + 500_000).is_none());
    assert_eq!(client.get(0, T + SECOND), None, "its lease ends");
    // Nor does a call that was parked before.
    node.cluster_up = true;
    client.feed(&mut node, T + SECOND);
    client.parked(&mut node, 5, 300_000, T + SECOND + 1_000);
    node.cluster_up = false;
    let woken = node.run(T + SECOND + 301_000);
    assert!(matches!(&woken[..], [(5, Reply::Refused)]), "{woken:?}");
}

/// A successor may have been elected while it stood still, and it has not heard of that yet.
#[test]
fn a_frozen_server_that_wakes_grants_nothing_for_one_lease() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let wakes = T + 20 * SECOND;
    let sent = client.sent(wakes);
    assert!(client.executed(&sent, &mut node, wakes).is_none());
    for n in 1..10 {
        node.run(wakes + n * 100_000);
    }
    let sent = client.sent(wakes + 999_999);
    assert!(client.executed(&sent, &mut node, wakes + 999_999).is_none());
    client.feed(&mut node, wakes + SECOND);
}

/// Its successor waits for the longest lease from when it took over, not from when this one wakes.
#[test]
fn a_server_with_long_leases_that_stood_still_for_less_than_one_grants_nothing_either() {
    let long = Settings {
        lease_ms: 5_000,
        ..SETTINGS
    };
    let mut old = server(1);
    old.feed.configure(long, T);
    let mut client = Client::subscribed(&mut old, 1, T);
    client.fill(&mut old, 0, V, T);
    // It stands still from here on, and is replaced half a second later, by one that is to grant the shortest leases.
    let took_over = T + 500_000;
    let mut new = server(2);
    let short = Settings {
        lease_ms: 100,
        ..SETTINGS
    };
    new.feed.configure(short, T);
    pass(&mut new, BEGINNING, took_over);
    new.demote();
    new.promote(old.cache.clone(), old.slots.clone(), took_over);
    invalidate(&mut new, &[0], took_over + 1_000);
    assert_eq!(settle(&mut new, 7, took_over + 1_000), None);
    let wakes = T + 4_900_000;
    let sent = client.sent(wakes);
    assert!(client.executed(&sent, &mut old, wakes).is_none());
    pass(&mut new, took_over + 1_000, took_over + 5_200_000);
    let settled_at = took_over + 5_200_001;
    assert!(settled(&mut new, 7, settled_at).is_some());
    assert_eq!(client.get(0, settled_at), None);
}

#[test]
fn a_replica_grants_nothing_and_gives_no_near_data() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    client.parked(&mut node, 5, 300_000, T + 1_000);
    node.demote();
    let told = node.replies(T + 2_000);
    assert!(matches!(&told[..], [(5, Reply::Refused)]), "{told:?}");
    let asked = client.asked(T + 3_000);
    let (_, near) = client.fetched(&asked, &mut node, 0, T + 3_000);
    assert!(near.is_none());
    // What it granted still runs, and is waited for.
    invalidate(&mut node, &[0], T + 4_000);
    assert_eq!(settle(&mut node, 7, T + 4_000), None);
    assert_eq!(settled(&mut node, 7, T + LEASE), Some(state(0, 1, 0)));
}
