//! What the provider makes of servers that are not as new as it is.

use std::time::Duration;

use super::fake::Fake;
use crate::provider::{FetchOptions, Lookup, Provider};

#[tokio::test]
async fn a_module_that_knows_no_brief_answers_is_asked_for_none_from_then_on() {
    let hit = b"*3\r\n$3\r\nhit\r\n$1\r\nv\r\n$-1\r\n";
    let refusal = b"-ERR syntax error: expected LEASE, WAIT, EARLY or NEAR, got '5'\r\n";
    let server = Fake::start(move |words| match words.get(2).map(String::as_str) {
        Some("5") => Some(refusal.to_vec()),
        _ => Some(hit.to_vec()),
    });
    let provider = server.provider();
    let options = FetchOptions::new().lease(Duration::from_millis(5));
    for _ in 0..3 {
        let found = provider.fetch(b"k", options).await;
        assert_eq!(found.expect("an answer"), Lookup::Hit("v".into()));
    }
    let said = server.said("MCACHE.FETCH");
    let older = || vec!["k", "LEASE", "5"];
    assert_eq!(said, [vec!["k", "5"], older(), older(), older()]);
}

#[tokio::test]
async fn a_refusal_of_something_else_stays_one() {
    let refusal = b"-NOPERM this user has no permissions to run the 'mcache.fetch' command\r\n";
    let server = Fake::start(move |_| Some(refusal.to_vec()));
    let refused = server
        .provider()
        .fetch(b"k", FetchOptions::default())
        .await
        .expect_err("refused");
    assert!(refused.is_refused());
    assert_eq!(server.calls("MCACHE.FETCH"), 1);
}

#[tokio::test]
async fn a_server_that_hides_the_commands_is_told_from_one_whose_user_may_not_call_them() {
    for (refusal, is_hidden) in [
        (
            "NOPERM this user has no permissions to run the 'mcache.help' command",
            false,
        ),
        ("ERR unsupported command", true),
        ("ERR unknown command 'MCACHE.HELP'", true),
    ] {
        let server = Fake::start(move |_| Some(format!("-{refusal}\r\n").into_bytes()));
        let pinged = server.provider().ping().await;
        assert_eq!(pinged.is_err(), is_hidden, "{refusal}: {pinged:?}");
    }
}
