//! How long a near cache serves.

use mcache_core::feed::Settings;

use super::{T, V, W};
use crate::stage::*;

/// Counted from the answer, a lease would end after the server's own count of it.
#[test]
fn a_lease_counts_from_before_the_call_was_sent() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let sent = client.sent(T + 100_000);
    let answer = client
        .executed(&sent, &mut node, T + 400_000)
        .expect("granted");
    // The answer takes its time.
    assert_eq!(client.get(0, T + 999_000), Some(V));
    assert_eq!(client.get(0, T + SECOND), None, "the first lease is over");
    client.answered(&sent, answer);
    assert_eq!(client.get(0, T + 1_099_000), Some(V));
    assert_eq!(client.get(0, T + 1_100_000), None);
    invalidate(&mut node, &[0], T + 1_050_000);
    assert_eq!(settle(&mut node, 7, T + 1_050_000), None);
    assert_eq!(settled(&mut node, 7, T + 400_000 + LEASE - 1), None);
    let done = settled(&mut node, 7, T + 400_000 + LEASE);
    assert_eq!(done, Some(state(0, 1, 0)));
}

/// With a lease from the first half of an answer, what the second half tells would be served.
#[test]
fn a_truncated_answer_renews_no_lease() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    for tag in [3, 4, 0] {
        invalidate(&mut node, &[tag], T + 900_000);
    }
    let sent = client.sent(T + 900_000);
    let answer = client
        .executed_up_to(&sent, &mut node, 2, T + 900_000)
        .expect("granted");
    assert!(answer.more && answer.events.len() == 2);
    client.answered(&sent, answer);
    assert_eq!(client.get(0, T + SECOND), None, "no lease came with it");
    client.feed(&mut node, T + SECOND);
    assert_eq!(client.get(0, T + SECOND), None, "now it is told");
    client.fill(&mut node, 0, W, T + SECOND);
    assert_eq!(client.get(0, T + SECOND), Some(W), "and holds a lease");
}

/// A task that clears a flag does not run while the process is stopped; a clock that is read within the call does.
#[test]
fn a_process_that_was_stopped_serves_nothing_past_its_lease() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    invalidate(&mut node, &[0], T + 1_000);
    assert_eq!(settle(&mut node, 7, T + 1_000), None);
    let done = settled(&mut node, 7, T + LEASE);
    assert_eq!(done, Some(state(0, 1, 0)), "one lease after the stop");
    // Nothing but the clock has gone on in the process.
    assert_eq!(client.get(0, T + LEASE), None);
    pass(&mut node, T + LEASE, T + 3 * SECOND);
    client.feed(&mut node, T + 3 * SECOND);
    assert_eq!(client.get(0, T + 3 * SECOND), None, "told before it serves");
}

#[test]
fn a_shorter_lease_concerns_leases_granted_from_then_on() {
    let mut node = server(1);
    let five = Settings {
        lease_ms: 5_000,
        ..SETTINGS
    };
    node.feed.configure(five, T);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    node.feed.configure(SETTINGS, T + 1_000);
    let waits = invalidate(&mut node, &[0], T + 2_000);
    assert_eq!((waits.leases, waits.longest_us), (1, 5_100_001 - 2_000));
    assert_eq!(settle(&mut node, 7, T + 2_000), None);
    assert_eq!(client.get(0, T + 4_999_000), Some(V), "it cannot know yet");
    assert_eq!(settled(&mut node, 7, T + 5_000_000), None);
    assert!(settled(&mut node, 7, T + 5_100_001).is_some());
}

#[test]
fn a_wall_clock_that_jumps_changes_nothing() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    node.clock.set_wall(3_600_000_000);
    invalidate(&mut node, &[0], T + 1_000);
    assert_eq!(settle(&mut node, 7, T + 1_000), None);
    node.clock.set_wall(-7_200_000_000);
    assert_eq!(settled(&mut node, 7, T + 900_000), None);
    assert!(settled(&mut node, 7, T + LEASE).is_some());
}
