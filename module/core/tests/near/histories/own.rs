//! A process's own invalidations.

use mcache_core::near::Kept;

use super::{T, V, W};
use crate::stage::*;

#[test]
fn an_own_invalidation_takes_effect_before_it_is_sent_and_until_it_is_acknowledged() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let before = client.asked(T + 1_000);
    let (value, near) = client.fetched(&before, &mut node, 0, T + 1_000);
    let near = near.expect("live");
    let own = client.invalidating(0);
    assert_eq!(client.get(0, T + 1_000), None, "before it is sent");
    assert_eq!(client.put(&before, 0, value, near), Err(Kept::Own));
    // Under way: the server still has the old value.
    let during = client.asked(T + 2_000);
    let (value, near) = client.fetched(&during, &mut node, 0, T + 2_000);
    let near = near.expect("live");
    assert_eq!(client.put(&during, 0, value, near.clone()), Err(Kept::Own));
    invalidate(&mut node, &[0], T + 3_000);
    client.acknowledged(own);
    // Asked for before it was acknowledged: not even now.
    assert_eq!(client.put(&during, 0, value, near), Err(Kept::Own));
    client.fill(&mut node, 0, W, T + 4_000);
    assert_eq!(client.get(0, T + 4_000), Some(W));
}

#[test]
fn an_own_change_of_a_key_works_the_same_and_survives_a_gap() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let own = client.changing(0);
    let tag = client.invalidating(1);
    assert_eq!(client.get(0, T + 1_000), None);
    // Everything is forgotten, and digests have another key now; what is under way still is.
    client.cache.view(0).forget();
    let mut node = {
        let mut fresh = server(2);
        fresh.cache = std::mem::take(&mut node.cache);
        fresh
    };
    client.feed(&mut node, T + 2_000);
    let asked = client.asked(T + 3_000);
    let (value, near) = client.fetched(&asked, &mut node, 0, T + 3_000);
    let near = near.expect("live");
    assert_eq!(client.put(&asked, 0, value, near.clone()), Err(Kept::Own));
    client.acknowledged(own);
    assert_eq!(client.put(&asked, 0, value, near), Err(Kept::Own));
    client.acknowledged(tag);
    client.fill(&mut node, 0, W, T + 4_000);
    assert_eq!(client.get(0, T + 4_000), Some(W));
}
