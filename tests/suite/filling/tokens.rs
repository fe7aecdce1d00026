//! A fill that began before an invalidation of any of its tags is refused, no matter which client asks and what
//! happened since.

use harness::{Server, wait};
use redis::Value;

#[test]
fn a_token_is_32_lower_case_hexadecimal_digits() {
    let server = Server::start();
    let mut redis = server.session();
    let token = redis.token("k");
    assert_eq!(token.len(), 32);
    assert!(
        token
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
        "{token}"
    );
    assert_eq!(redis.int("EXISTS k"), 0, "asking stores nothing");
}

#[test]
fn a_fill_that_began_before_the_invalidation_is_refused() {
    let server = Server::start();
    let mut redis = server.session();
    // With entries that carry the tag and without any: the memory of invalidations does not hang on entries.
    for with_entry in [false, true] {
        if with_entry {
            redis.ok("MCACHE.SET other 0 v TAGS t");
        }
        let early = redis.token("k");
        assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), i64::from(with_entry));
        let refused = redis.stat("refused_fills");
        assert_eq!(
            redis.run(&format!("MCACHE.SET k 0 old TOKEN {early} TAGS a t b")),
            Value::Nil
        );
        assert_eq!(redis.int("EXISTS k"), 0);
        assert_eq!(redis.stat("refused_fills"), refused + 1);
        assert!(redis.tags().is_empty());

        let late = redis.token("k");
        redis.ok(&format!("MCACHE.SET k 0 new TOKEN {late} TAGS a t b"));
        assert_eq!(redis.text("MCACHE.GET k").as_deref(), Some("new"));
        redis.int("DEL k");
    }
}

#[test]
fn a_refused_fill_leaves_what_is_there() {
    let server = Server::start();
    let mut redis = server.session();
    let early = redis.token("k");
    redis.int("MCACHE.INVALIDATE TAGS t");
    redis.ok("MCACHE.SET k 100 newer TAGS t u");
    assert_eq!(
        redis.run(&format!("MCACHE.SET k 0 old TOKEN {early} TAGS t v")),
        Value::Nil
    );
    assert_eq!(redis.text("MCACHE.GET k").as_deref(), Some("newer"));
    assert_eq!(redis.entries("u"), ["k"]);
    assert_eq!(redis.entries("v"), Vec::<String>::new());
    assert!(redis.int("PTTL k") > 0);
}

#[test]
fn an_invalidation_of_other_tags_or_in_another_database_refuses_nothing() {
    let server = Server::start();
    let mut redis = server.session();
    let token = redis.token("k");
    redis.int("MCACHE.INVALIDATE TAGS other");
    redis.ok(&format!("MCACHE.SET k 0 v TOKEN {token} TAGS t"));
    redis.ok(&format!("MCACHE.SET untagged 0 v TOKEN {token}"));
}

#[test]
fn a_refused_fill_of_one_tag_may_be_stored_under_others() {
    let server = Server::start();
    let mut redis = server.session();
    let token = redis.token("k");
    redis.int("MCACHE.INVALIDATE TAGS t");
    assert_eq!(
        redis.run(&format!("MCACHE.SET k 0 v TOKEN {token} TAGS t u")),
        Value::Nil
    );
    redis.ok(&format!("MCACHE.SET k 0 v TOKEN {token} TAGS u"));
}

#[test]
fn auto_does_not_refuse_manual_fills_and_plain_invalidate_does() {
    let server = Server::start();
    let mut redis = server.session();
    let token = redis.token("k");
    redis.int("MCACHE.INVALIDATE AUTO TAGS t");
    assert_eq!(
        redis.run(&format!("MCACHE.SET k 0 v TOKEN {token} TAGS t")),
        Value::Nil
    );
    redis.ok(&format!("MCACHE.SET k 0 v TOKEN {token} MANUAL TAGS t"));
    redis.int("MCACHE.INVALIDATE TAGS t");
    assert_eq!(
        redis.run(&format!("MCACHE.SET k 0 v TOKEN {token} MANUAL TAGS t")),
        Value::Nil
    );
    // A later AUTO must not make the memory of the plain one weaker.
    redis.int("MCACHE.INVALIDATE AUTO TAGS t");
    assert_eq!(
        redis.run(&format!("MCACHE.SET k 0 v TOKEN {token} MANUAL TAGS t")),
        Value::Nil
    );
}

#[test]
fn a_fill_under_way_while_everything_is_flushed_is_refused() {
    let server = Server::start();
    let mut redis = server.session();
    for flush in ["FLUSHALL", "FLUSHDB", "FLUSHALL ASYNC", "FLUSHDB ASYNC"] {
        let token = redis.token("k");
        redis.ok(flush);
        assert_eq!(
            redis.run(&format!("MCACHE.SET k 0 v TOKEN {token} TAGS t")),
            Value::Nil,
            "{flush}"
        );
    }
}

#[test]
fn a_token_of_another_server_or_another_life_is_refused() {
    let mut server = Server::start();
    let elsewhere = Server::start();
    let foreign = elsewhere.session().token("k");
    let mut redis = server.session();
    let before = redis.token("k");
    assert_ne!(foreign[..16], before[..16], "incarnations are random");
    assert_eq!(
        redis.run(&format!("MCACHE.SET k 0 v TOKEN {foreign}")),
        Value::Nil
    );
    server.restart();
    let mut redis = server.session();
    assert_eq!(
        redis.run(&format!("MCACHE.SET k 0 v TOKEN {before}")),
        Value::Nil
    );
    assert_eq!(redis.int("EXISTS k"), 0);
    assert_eq!(redis.stat("refused_fills"), 1);
}

#[test]
fn a_token_from_the_future_is_refused() {
    let server = Server::start();
    let mut redis = server.session();
    let token = redis.token("k");
    let future = format!("{}ffffffffffffffff", &token[..16]);
    assert_eq!(
        redis.run(&format!("MCACHE.SET k 0 v TOKEN {future} TAGS t")),
        Value::Nil
    );
    assert_eq!(redis.int("EXISTS k"), 0);
}

#[test]
fn what_is_no_token_is_an_error() {
    let server = Server::start();
    let mut redis = server.session();
    let token = redis.token("k");
    for nonsense in [
        String::new(),
        "0".to_owned(),
        token[1..].to_owned(),
        format!("{token}0"),
        format!("A{}", &token[1..]),
        format!("g{}", &token[1..]),
        format!("+{}", &token[1..]),
        format!("\\x00{}", &token[1..]),
    ] {
        let line = format!("MCACHE.SET k 0 v TOKEN \"{nonsense}\" TAGS t");
        let refusal = redis.error(&line);
        assert!(
            refusal.starts_with("ERR") && refusal.to_lowercase().contains("token"),
            "{line}: {refusal}"
        );
    }
    assert_eq!(redis.int("EXISTS k"), 0);
}

#[test]
fn thousands_of_invalidated_tags_are_remembered_in_bounded_memory_and_never_too_few() {
    let server = Server::start();
    let mut redis = server.session();
    let before = redis.info("memory", "used_memory");
    let token = redis.token("k");
    const TAGS: usize = 100_000;
    redis.run_all((0..TAGS).map(|n| format!("MCACHE.INVALIDATE TAGS tag:{n}")));
    for n in (0..TAGS).step_by(97) {
        let reply = redis.run(&format!("MCACHE.SET k 0 v TOKEN {token} TAGS tag:{n}"));
        assert_eq!(reply, Value::Nil, "tag:{n}");
    }
    let grown = redis.info("memory", "used_memory") - before;
    assert!(
        grown < 4 << 20,
        "{TAGS} tags without entries cost {grown} bytes"
    );
    assert!(redis.tags().is_empty());
}

#[test]
fn a_bigger_memory_of_invalidations_refuses_less_and_never_forgets() {
    let server = Server::builder()
        .set("mcache.invalidation-memory-tags", 64)
        .start();
    let mut redis = server.session();
    let invalidate_others = |redis: &mut harness::Session| {
        for n in 0..2_000 {
            redis.int(&format!("MCACHE.INVALIDATE TAGS other:{n}"));
        }
    };
    let stored = |redis: &mut harness::Session, token: &str, tag: &str| {
        redis.run(&format!("MCACHE.SET k 0 v TOKEN {token} TAGS {tag}")) == Value::Okay
    };
    let early = redis.token("k");
    redis.int("MCACHE.INVALIDATE TAGS t");
    invalidate_others(&mut redis);
    assert!(!stored(&mut redis, &early, "t"), "t was invalidated since");
    let in_doubt = redis.stat("refused_fills_in_doubt");
    assert!(
        !stored(&mut redis, &early, "never"),
        "64 do not tell 2,000 apart"
    );
    assert_eq!(redis.stat("refused_fills_in_doubt"), in_doubt + 1);

    // What is known survives every change of size.
    for size in [65_536, 64, 1_000, 4_194_304, 65_536] {
        redis.ok(&format!(
            "CONFIG SET mcache.invalidation-memory-tags {size}"
        ));
        assert!(!stored(&mut redis, &early, "t"), "{size}");
        // Allocated as it is used; while it changes its size, the former one is there as well.
        wait::until("the table has its size", || {
            redis.stat("invalidation_memory_bytes") <= size * 28 + 8_192
        });
    }
    // The last change is made in steps, too: until it is over, some are still refused in doubt.
    wait::until("65,536 tell 2,000 apart", || {
        let early = redis.token("k");
        redis.int("MCACHE.INVALIDATE TAGS t");
        invalidate_others(&mut redis);
        assert!(!stored(&mut redis, &early, "t"));
        stored(&mut redis, &early, "never")
    });
    for wrong in ["0", "63", "4194305", "many"] {
        redis.error(&format!(
            "CONFIG SET mcache.invalidation-memory-tags {wrong}"
        ));
    }
}
