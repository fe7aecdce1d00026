//! Positions, and the log that they are in.

use mcache_core::feed::Settings;

use super::{T, V, W};
use crate::stage::*;

/// Its near cache would go on where it was and never hear of what happened while nothing was written down.
#[test]
fn a_position_from_before_the_log_stopped_is_a_gap() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    pass(&mut node, T, T + 13 * SECOND);
    assert!(!node.feed.is_running() && node.feed.subscribers() == 0);
    invalidate(&mut node, &[0], T + 13 * SECOND);
    pass(&mut node, T + 13 * SECOND, T + 14 * SECOND);
    // Another one subscribes, and the log has as many events as before.
    let mut other = Client::subscribed(&mut node, 99, T + 14 * SECOND);
    other.fill(&mut node, 3, V, T + 14 * SECOND);
    pass(&mut node, T + 14 * SECOND, T + 15 * SECOND);
    let sent = client.sent(T + 15 * SECOND);
    let answer = client
        .executed(&sent, &mut node, T + 15 * SECOND)
        .expect("granted");
    assert!(answer.gap.is_some());
    client.answered(&sent, answer);
    assert_eq!(client.get(0, T + 15 * SECOND), None);
}

/// As long as its position is in the log, a lease that ran out only stops serving.
#[test]
fn a_lease_that_ran_out_goes_on_where_it_was() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    client.fill(&mut node, 2, W, T);
    pass(&mut node, T, T + 8 * SECOND);
    invalidate(&mut node, &[0], T + 8 * SECOND);
    assert_eq!(client.get(2, T + 8 * SECOND), None);
    client.feed(&mut node, T + 8 * SECOND);
    assert_eq!(client.get(0, T + 8 * SECOND), None, "it was told");
    assert_eq!(client.get(2, T + 8 * SECOND), Some(W), "and keeps the rest");
}

#[test]
fn an_answer_to_a_call_that_was_given_up_is_thrown_away() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let first = client.sent(T + 1_000);
    let late = client
        .executed(&first, &mut node, T + 1_000)
        .expect("granted");
    invalidate(&mut node, &[0], T + 2_000);
    client.feed(&mut node, T + 3_000);
    client.feed(&mut node, T + 4_000);
    let position = client.cache.view(0).position();
    client.answered(&first, late);
    assert_eq!(
        client.cache.view(0).position(),
        position,
        "no position goes back"
    );
}

/// A process that was set back to an earlier state, or a duplicate that comes late: what it confirmed it does not know.
#[test]
fn a_position_before_what_was_confirmed_is_a_gap() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let early = client.sent(T + 1_000);
    invalidate(&mut node, &[0], T + 2_000);
    client.feed(&mut node, T + 3_000);
    client.feed(&mut node, T + 4_000);
    let answer = client
        .executed(&early, &mut node, T + 5_000)
        .expect("granted");
    assert!(answer.gap.is_some());
    client.feed(&mut node, T + 6_000);
    assert_eq!(node.feed.subscribers(), 1, "the subscription is the same");
}

#[test]
fn a_position_that_left_the_log_is_a_gap() {
    let mut node = server(1);
    let small = Settings {
        bytes: 1_000,
        ..SETTINGS
    };
    node.feed.configure(small, T);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    invalidate(&mut node, &[0], T + 1_000);
    for _ in 0..50 {
        invalidate(&mut node, &[5], T + 1_000);
    }
    let sent = client.sent(T + 2_000);
    let answer = client
        .executed(&sent, &mut node, T + 2_000)
        .expect("granted");
    assert!(answer.gap.is_some() && answer.events.is_empty());
    client.answered(&sent, answer);
    assert_eq!(client.get(0, T + 2_000), None);
    assert_eq!(node.feed.stats().gaps, 1);
}
