//! What is told.

use super::{T, V, W};
use crate::node::Request;
use crate::stage::*;

#[test]
fn an_invalidation_of_a_tag_that_no_entry_carries_is_told() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    // Evicted: the server has nothing under the tag any more, the near cache has.
    node.lose(0);
    invalidate(&mut node, &[0], T + 1_000);
    client.feed(&mut node, T + 2_000);
    assert_eq!(client.get(0, T + 2_000), None);
}

#[test]
fn the_mark_of_a_key_outlives_its_entry() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    client.feed(&mut node, T + 1_000);
    node.lose(0);
    // Stored anew by another client that has no near cache.
    let set = Request::Set {
        key: 0,
        value: W,
        token: None,
        near: None,
    };
    ask(&mut node, set.clone(), T + 2_000);
    client.feed(&mut node, T + 3_000);
    assert_eq!(client.get(0, T + 3_000), None);
    // No process was given it since: nothing is told.
    let events = node.feed.stats().events;
    ask(&mut node, set, T + 4_000);
    assert_eq!(node.feed.stats().events, events);
}

#[test]
fn clear_tells_also_of_a_key_that_is_not_there() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    let events = node.feed.stats().events;
    ask(&mut node, Request::Clear { key: 6 }, T + 1_000);
    assert_eq!(node.feed.stats().events, events + 1);
    assert_eq!(settle(&mut node, 7, T + 1_000), None);
    client.feed(&mut node, T + 2_000);
    client.feed(&mut node, T + 3_000);
    assert_eq!(settled(&mut node, 7, T + 3_000), Some(state(1, 0, 0)));
}

#[test]
fn an_invalidation_of_too_many_tags_is_told_as_a_flush() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let names: Vec<Vec<u8>> = (0..1_025).map(|n| format!("other:{n}").into()).collect();
    let names = names.iter().map(Vec::as_slice);
    node.feed
        .invalidated(0, names, mcache_core::index::Scope::All, false);
    client.feed(&mut node, T + 1_000);
    assert_eq!(client.get(0, T + 1_000), None);
    let long = [vec![b'x'; 20_000]];
    let before = node.feed.bytes();
    node.feed.invalidated(
        0,
        long.iter().map(Vec::as_slice),
        mcache_core::index::Scope::All,
        false,
    );
    assert!(node.feed.bytes() < before + 200, "an eighth of the log");
}

/// An entry that is deleted, moved or overwritten by another type is told; one that expires or is evicted is not, and
/// its key stays marked.
#[test]
fn an_entry_that_leaves_is_told_unless_it_left_by_itself() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let name = crate::world::key_name(0);
    node.feed.key_left(&name, 5_000);
    node.feed.key_left_by_itself(b"another");
    node.feed.key_left_by_itself(&name);
    client.feed(&mut node, T + 1_000);
    assert_eq!(client.get(0, T + 1_000), Some(V), "evicted");
    node.feed.key_left(&name, 5_000);
    node.feed.key_expired(&name, 5_000);
    client.feed(&mut node, T + 1_500);
    assert_eq!(client.get(0, T + 1_500), Some(V), "expired");
    node.feed.key_left(&name, 5_000);
    client.feed(&mut node, T + 2_000);
    assert_eq!(client.get(0, T + 2_000), None, "deleted");
    client.fill(&mut node, 0, V, T + 2_100);
    node.feed.key_left(&name, 5_000);
    node.feed.key_expired(&name, 4_999);
    client.feed(&mut node, T + 2_200);
    assert_eq!(client.get(0, T + 2_200), None, "expired before its end");
    let events = node.feed.stats().events;
    node.feed.key_left(&name, 5_000);
    node.feed.key_changed(&name, false);
    client.feed(&mut node, T + 3_000);
    assert_eq!(node.feed.stats().events, events, "told once");
}
