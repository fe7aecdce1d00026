//! What is put away.

use mcache_core::feed::Settings;
use mcache_core::near::Kept;

use super::{T, V, W};
use crate::node::{Reply, Request};
use crate::stage::*;
use crate::world::Kind;

/// The check and the putting away are one step against applying events.
#[test]
fn a_value_that_was_under_way_when_an_event_was_applied_is_not_put_away() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    for (kind, refused) in [(Kind::Hard, true), (Kind::Soft, true), (Kind::Auto, true)] {
        client.fill(&mut node, 0, V, T);
        let asked = client.asked(T + 1_000);
        let (value, near) = client.fetched(&asked, &mut node, 0, T + 1_000);
        let near = near.expect("live");
        ask(
            &mut node,
            Request::Invalidate {
                tags: vec![1],
                kind,
            },
            T + 2_000,
        );
        client.feed(&mut node, T + 3_000);
        let put = client.put(&asked, 0, value, near);
        assert_eq!(put.is_err(), refused, "{kind:?}");
        assert_eq!(client.get(0, T + 3_000), None);
    }
    // Key 3 is MANUAL.
    client.fill(&mut node, 3, V, T);
    let asked = client.asked(T + 4_000);
    let (value, near) = client.fetched(&asked, &mut node, 3, T + 4_000);
    let auto = Request::Invalidate {
        tags: vec![3],
        kind: Kind::Auto,
    };
    ask(&mut node, auto, T + 5_000);
    client.feed(&mut node, T + 6_000);
    assert_eq!(client.put(&asked, 3, value, near.expect("live")), Ok(()));
}

/// So a refresher keeps its own value, and a slow answer of the feed takes nothing away that is newer.
#[test]
fn an_event_up_to_the_number_of_a_value_does_not_concern_it() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let sent = client.sent(T + 1_000);
    invalidate(&mut node, &[0], T + 1_000);
    let answer = client
        .executed(&sent, &mut node, T + 1_000)
        .expect("granted");
    // Loaded anew and put away before the event is applied.
    client.fill(&mut node, 0, W, T + 2_000);
    client.answered(&sent, answer);
    assert_eq!(client.get(0, T + 3_000), Some(W));
    client.feed(&mut node, T + 4_000);
    assert_eq!(client.get(0, T + 4_000), Some(W), "nor does its own SET");
}

#[test]
fn a_value_from_further_back_than_is_remembered_is_not_put_away() {
    let mut node = server(1);
    let large = Settings {
        bytes: 1 << 30,
        ..SETTINGS
    };
    node.feed.configure(large, T);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let asked = client.asked(T + 1_000);
    let (value, near) = client.fetched(&asked, &mut node, 0, T + 1_000);
    let names: Vec<Vec<u8>> = (0..50_000).map(|n| format!("other:{n}").into()).collect();
    for names in names.chunks(500) {
        let names = names.iter().map(Vec::as_slice);
        node.feed
            .invalidated(0, names, mcache_core::index::Scope::All, false);
    }
    loop {
        let sent = client.sent(T + 2_000);
        let answer = client
            .executed(&sent, &mut node, T + 2_000)
            .expect("granted");
        let more = answer.more;
        assert!(answer.gap.is_none());
        client.answered(&sent, answer);
        if !more {
            break;
        }
    }
    let put = client.put(&asked, 0, value, near.expect("live"));
    assert_eq!(put, Err(Kept::Event));
}

#[test]
fn a_value_that_was_asked_for_before_a_gap_is_not_put_away() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let asked = client.asked(T + 1_000);
    let (value, near) = client.fetched(&asked, &mut node, 0, T + 1_000);
    client.cache.view(0).forget();
    let near = near.expect("live");
    assert_eq!(client.put(&asked, 0, value, near.clone()), Err(Kept::Gap));
    client.feed(&mut node, T + 2_000);
    assert_eq!(client.put(&asked, 0, value, near), Err(Kept::Gap));
}

#[test]
fn no_lease_no_near_data() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let asked = client.asked(T + LEASE);
    let (_, near) = client.fetched(&asked, &mut node, 0, T + LEASE);
    assert!(near.is_none());
}

/// The same is checked when a flight's value is given to callers that joined it.
#[test]
fn who_joined_a_flight_gets_its_value_only_if_nothing_concerns_it_since() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    client.fill(&mut node, 0, V, T);
    let asked = client.asked(T + 1_000);
    let (_, near) = client.fetched(&asked, &mut node, 0, T + 1_000);
    let data = near.expect("live").data;
    let name = crate::world::key_name(0);
    assert_eq!(client.cache.view(0).admit(&asked, &name, &data), Ok(()));
    invalidate(&mut node, &[0], T + 2_000);
    client.feed(&mut node, T + 3_000);
    let shared = client.cache.view(0).admit(&asked, &name, &data);
    assert_eq!(shared, Err(Kept::Event));
}

/// Refused: not. Lost: the reply never comes, so there is nothing to put away with.
#[test]
fn a_loaders_value_is_put_away_only_with_what_the_server_replied() {
    let mut node = server(1);
    let mut client = Client::subscribed(&mut node, 1, T);
    let asked = client.asked(T + 1_000);
    let near = Some(asked.position.to_vec());
    let Reply::Miss(token) = ask(
        &mut node,
        Request::Fetch {
            key: 0,
            near: near.clone(),
        },
        T + 1_000,
    ) else {
        panic!()
    };
    invalidate(&mut node, &[0], T + 2_000);
    let set = Request::Set {
        key: 0,
        value: V,
        token: Some(token),
        near,
    };
    assert!(matches!(ask(&mut node, set, T + 3_000), Reply::NotStored));
}
