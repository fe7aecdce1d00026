//! A stale value is served while one caller refreshes it, and only as long as its window lasts.

use harness::{Server, Session, wait};

use crate::filling::fetching::fetch;

/// A server with an entry `k` past its ttl and within its window.
fn with_stale_entry(options: &str) -> (Server, Session) {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok(&format!("MCACHE.SET k 0.001 old SWR 1000 {options} TAGS t"));
    wait::until("the entry is stale", || {
        redis.state("k").as_deref() == Some("stale")
    });
    (server, redis)
}

#[test]
fn past_its_ttl_one_caller_refreshes_and_the_others_get_the_stale_value() {
    let (server, mut redis) = with_stale_entry("");
    let (state, value, token) = fetch(&mut redis, "k");
    assert_eq!((state.as_str(), value.as_deref()), ("stale", Some("old")));
    let token = token.expect("the refresher has a token");
    // At once, although they would have waited.
    for _ in 0..3 {
        let other = fetch(&mut server.session(), "k WAIT 600000");
        assert_eq!(other, ("stale".into(), Some("old".into()), None));
    }
    redis.ok(&format!("MCACHE.SET k 100 new TOKEN {token} TAGS t"));
    assert_eq!(
        fetch(&mut redis, "k"),
        ("hit".into(), Some("new".into()), None)
    );
    assert_eq!(redis.stat("stale_hits"), 4);
}

#[test]
fn get_does_not_serve_what_is_stale() {
    let (_server, mut redis) = with_stale_entry("");
    assert_eq!(redis.text("MCACHE.GET k"), None);
    assert_eq!(redis.int("EXISTS k"), 1);
}

#[test]
fn the_window_ends() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0.001 v SWR 0.05 TAGS t");
    wait::until("the window is over", || redis.int("EXISTS k") == 0);
    assert_eq!(fetch(&mut redis, "k").0, "miss");
    assert!(redis.tags().is_empty());
}

#[test]
fn a_soft_invalidation_makes_stale_what_has_a_window_and_dead_what_has_none() {
    for inline_max in [10_000, 0] {
        let server = Server::builder()
            .set("mcache.reclaim-inline-max", inline_max)
            .start();
        let mut redis = server.session();
        redis.ok("MCACHE.SET with 100 v SWR 100 TAGS t");
        redis.ok("MCACHE.SET without 100 v TAGS t");
        redis.ok("MCACHE.SET manual 100 v SWR 100 MANUAL TAGS t");
        assert_eq!(redis.int("MCACHE.INVALIDATE AUTO SOFT TAGS t"), 2);
        assert!(!redis.is_live("with") && !redis.is_live("without"));
        assert!(redis.is_live("manual"));
        assert_eq!(fetch(&mut redis, "with").0, "stale");
        assert_eq!(fetch(&mut redis, "without").0, "miss");
        redis.drain();
        assert_eq!(
            redis.entries("t"),
            ["manual", "with"],
            "inline-max {inline_max}"
        );
        assert_eq!(redis.int("MCACHE.INVALIDATE SOFT TAGS t"), 2);
        assert_eq!(redis.state("manual").as_deref(), Some("stale"));
    }
}

#[test]
fn a_hard_invalidation_beats_a_soft_one_in_any_order() {
    for inline_max in [10_000, 0] {
        for order in [["SOFT TAGS", "TAGS"], ["TAGS", "SOFT TAGS"]] {
            let server = Server::builder()
                .set("mcache.reclaim-inline-max", inline_max)
                .start();
            let mut redis = server.session();
            redis.ok("MCACHE.SET k 100 v SWR 100 TAGS t");
            redis.ok("MULTI");
            for mode in order {
                redis.run(&format!("MCACHE.INVALIDATE {mode} t"));
            }
            redis.run("EXEC");
            assert_eq!(fetch(&mut redis, "k").0, "miss", "{order:?}");
        }
    }
}

#[test]
fn a_fill_that_began_before_a_soft_invalidation_is_refused() {
    let server = Server::start();
    let mut redis = server.session();
    let token = redis.token("k");
    redis.int("MCACHE.INVALIDATE SOFT TAGS t");
    let fill = format!("MCACHE.SET k 100 v TOKEN {token} TAGS t");
    assert_eq!(redis.run(&fill), redis::Value::Nil);
}

#[test]
fn what_was_softly_invalidated_stays_stale_over_a_reload_and_on_replicas() {
    let replicated = harness::topology::Replicated::start(1);
    let mut primary = replicated.primary.session();
    primary.ok("MCACHE.SET k 100 v SWR 100 TAGS t");
    primary.int("MCACHE.INVALIDATE SOFT TAGS t");
    replicated.assert_same();
    let mut replica = replicated.replicas[0].session();
    assert_eq!(replica.state("k").as_deref(), Some("stale"));
    assert!(!replica.is_live("k"));
    primary.ok("DEBUG RELOAD");
    assert_eq!(primary.state("k").as_deref(), Some("stale"));
    assert_eq!(fetch(&mut primary, "k").0, "stale");
}

#[test]
fn the_refresher_releases_and_the_next_one_refreshes() {
    let (server, mut redis) = with_stale_entry("");
    let token = fetch(&mut redis, "k").2.expect("the refresher has a token");
    assert_eq!(redis.int(&format!("MCACHE.RELEASE k {token}")), 1);
    assert!(fetch(&mut server.session(), "k").2.is_some());
}

#[test]
fn near_its_end_one_of_those_who_ask_refreshes_early() {
    let server = Server::start();
    let mut redis = server.session();
    // A tenth of what a fill is said to take: due with a chance of 90 % a time. The SWR window is not part of the life.
    redis.ok("MCACHE.SET k 60 old SWR 600 TAGS t");
    let hit = |value: &str| ("hit".to_owned(), Some(value.to_owned()), None);
    for line in ["k", "k EARLY 0", "k EARLY 1"] {
        for _ in 0..50 {
            assert_eq!(fetch(&mut redis, line), hit("old"), "{line}");
        }
    }
    let token = wait::until_some("a caller is told to refresh", || {
        let (state, value, token) = fetch(&mut redis, "k EARLY 600000");
        assert_eq!((state.as_str(), value.as_deref()), ("hit", Some("old")));
        token.ok_or("not yet")
    });
    for _ in 0..20 {
        let fetched = fetch(&mut redis, "k EARLY 600000");
        assert_eq!(fetched, hit("old"), "one is enough");
    }
    redis.ok(&format!("MCACHE.SET k 0 new TOKEN {token} TAGS t"));
    assert_eq!(redis.stat("early_refreshes"), 1);
    for _ in 0..50 {
        let fetched = fetch(&mut redis, "k EARLY 600000");
        assert_eq!(fetched, hit("new"), "it never expires");
    }
    redis.error("MCACHE.FETCH k EARLY soon");
    redis.error("MCACHE.FETCH k EARLY 600001");
}
