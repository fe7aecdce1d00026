//! Commands say what they take, take every byte, and change nothing when they refuse.

use harness::{Server, Session};
use redis::Value;

/// Both protocols, each on a server of its own.
fn in_both_protocols(test: impl Fn(&mut Session)) {
    let server = Server::start();
    test(&mut server.session());
    server.session().ok("FLUSHALL");
    test(&mut server.session_resp3());
}

#[test]
fn what_was_set_is_what_is_got() {
    in_both_protocols(|redis| {
        redis.ok("MCACHE.SET a 0 one");
        redis.ok("MCACHE.SET b 60 two TAGS x y");
        assert_eq!(redis.text("MCACHE.GET a").as_deref(), Some("one"));
        assert_eq!(redis.run("MCACHE.GET nothing"), Value::Nil);
        assert_eq!(
            redis.run("MCACHE.MGET a nothing b a"),
            Value::Array(vec![
                Value::BulkString(b"one".to_vec()),
                Value::Nil,
                Value::BulkString(b"two".to_vec()),
                Value::BulkString(b"one".to_vec()),
            ])
        );
    });
}

#[test]
fn an_overwrite_replaces_value_tags_and_ttl_together() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 100 old MANUAL TAGS a b");
    redis.ok("MCACHE.SET k 0 new TAGS b c");
    assert_eq!(redis.text("MCACHE.GET k").as_deref(), Some("new"));
    assert_eq!(redis.int("PTTL k"), -1);
    assert_eq!(redis.entries("a"), Vec::<String>::new());
    assert_eq!(redis.entries("b"), ["k"]);
    assert_eq!(redis.entries("c"), ["k"]);
    assert_eq!(
        redis.int("MCACHE.INVALIDATE AUTO TAGS c"),
        1,
        "no longer MANUAL"
    );
}

#[test]
fn options_come_in_any_order_and_any_case_but_tags_come_last() {
    let server = Server::start();
    let mut redis = server.session();
    let token = redis.token("k");
    redis.ok(&format!("mcache.set k 60 v manual nx token {token} tags a"));
    redis.ok(&format!("Mcache.Set k 60 v Token {token} XX Manual Tags a"));
    redis.ok("MCACHE.SET k 60 v XX TAGS NX MANUAL TOKEN TAGS tags SWR");
    for tag in ["NX", "MANUAL", "TOKEN", "TAGS", "tags", "SWR"] {
        assert_eq!(redis.entries(tag), ["k"], "{tag}");
    }
    assert_eq!(redis.tags().len(), 6);
}

#[test]
fn tags_are_a_set() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS a b a a b");
    assert_eq!(
        redis.tags().into_iter().collect::<Vec<_>>(),
        [("a".into(), 1), ("b".into(), 1)]
    );
    assert_eq!(redis.stat("memberships"), 2);
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS a b a"), 1);
}

#[test]
fn ttl_takes_decimals_and_zero_means_for_ever() {
    let server = Server::start();
    let mut redis = server.session();
    for (ttl, least, most) in [
        ("0", -1, -1),
        ("0.0", -1, -1),
        ("100", 99_000, 100_000),
        ("0.5", 1, 500),
        ("99.25", 98_000, 99_250),
    ] {
        redis.ok(&format!("MCACHE.SET k {ttl} v"));
        let left = redis.int("PTTL k");
        assert!((least..=most).contains(&left), "ttl {ttl}: PTTL {left}");
    }
    // The shortest time there is, not for ever.
    redis.ok("MCACHE.SET k 0.0001 v");
    harness::wait::until("the entry is gone", || redis.int("EXISTS k") == 0);
}

#[test]
fn nx_and_xx_look_at_what_is_served() {
    in_both_protocols(|redis| {
        assert_eq!(redis.run("MCACHE.SET k 0 v XX TAGS t"), Value::Nil);
        assert_eq!(redis.int("EXISTS k"), 0);
        redis.ok("MCACHE.SET k 0 one NX TAGS t");
        assert_eq!(redis.run("MCACHE.SET k 100 two NX TAGS u"), Value::Nil);
        assert_eq!(redis.text("MCACHE.GET k").as_deref(), Some("one"));
        assert_eq!(redis.entries("u"), Vec::<String>::new());
        assert_eq!(redis.int("PTTL k"), -1);
        redis.ok("MCACHE.SET k 0 three XX TAGS t");
        // Dead, though perhaps not yet reclaimed: for all but the reclaimer it is not there.
        redis.ok("CONFIG SET mcache.reclaim-inline-max 0");
        redis.ok("MULTI");
        for line in [
            "MCACHE.INVALIDATE TAGS t",
            "MCACHE.SET k 0 four XX",
            "MCACHE.SET k 0 five NX",
            "MCACHE.GET k",
        ] {
            redis.run(line);
        }
        assert_eq!(
            redis.run("EXEC"),
            Value::Array(vec![
                Value::Int(1),
                Value::Nil,
                Value::Okay,
                Value::BulkString(b"five".to_vec())
            ])
        );
    });
}

#[test]
fn every_byte_may_stand_in_a_key_a_value_and_a_tag() {
    let server = Server::start();
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut redis = server.session();
    redis.call(&[
        &b"MCACHE.SET"[..],
        &every_byte,
        b"0",
        &every_byte,
        b"TAGS",
        &every_byte,
    ]);
    assert_eq!(
        redis.call(&[&b"MCACHE.GET"[..], &every_byte]),
        Value::BulkString(every_byte.clone())
    );
    assert_eq!(
        redis.call(&[&b"MCACHE.ENTRIES"[..], &every_byte, b"0"]),
        Value::Array(vec![
            Value::BulkString(b"0".to_vec()),
            Value::Array(vec![Value::BulkString(every_byte.clone())])
        ])
    );
    assert_eq!(
        redis.call(&[&b"MCACHE.INVALIDATE"[..], b"TAGS", &every_byte]),
        Value::Int(1)
    );
    assert_eq!(redis.call(&[&b"MCACHE.GET"[..], &every_byte]), Value::Nil);
}

#[test]
fn empty_keys_and_values_are_keys_and_values() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET \"\" 0 \"\" TAGS t");
    assert_eq!(redis.text("MCACHE.GET \"\"").as_deref(), Some(""));
    assert_eq!(redis.entries("t"), [""]);
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 1);
}

const INVALID_TTL_SOON: &str =
    "ERR invalid ttl 'soon': expected seconds, a decimal number from 0 (no expiry) to 315360000000";

/// Refused lines and the refusal, literally.
const REFUSALS: &[(&str, &str)] = &[
    ("MCACHE.SET k soon v", INVALID_TTL_SOON),
    (
        "MCACHE.SET k \"\" v",
        "ERR invalid ttl '': expected seconds, a decimal number from 0 (no expiry) to 315360000000",
    ),
    (
        "MCACHE.SET k -1 v",
        "ERR invalid ttl '-1': expected seconds, a decimal number from 0 (no expiry) to 315360000000",
    ),
    (
        "MCACHE.SET k +1 v",
        "ERR invalid ttl '+1': expected seconds, a decimal number from 0 (no expiry) to 315360000000",
    ),
    (
        "MCACHE.SET k 1e3 v",
        "ERR invalid ttl '1e3': expected seconds, a decimal number from 0 (no expiry) to 315360000000",
    ),
    (
        "MCACHE.SET k nan v",
        "ERR invalid ttl 'nan': expected seconds, a decimal number from 0 (no expiry) to 315360000000",
    ),
    (
        "MCACHE.SET k inf v",
        "ERR invalid ttl 'inf': expected seconds, a decimal number from 0 (no expiry) to 315360000000",
    ),
    (
        "MCACHE.SET k 1.2.3 v",
        "ERR invalid ttl '1.2.3': expected seconds, a decimal number from 0 (no expiry) to 315360000000",
    ),
    (
        "MCACHE.SET k . v",
        "ERR invalid ttl '.': expected seconds, a decimal number from 0 (no expiry) to 315360000000",
    ),
    (
        "MCACHE.SET k \"1\\x00\" v",
        "ERR invalid ttl '1\\x00': expected seconds, a decimal number from 0 (no expiry) to 315360000000",
    ),
    (
        "MCACHE.SET k 315360000001 v",
        "ERR invalid ttl '315360000001': expected seconds, a decimal number from 0 (no expiry) to 315360000000",
    ),
    (
        "MCACHE.SET k 99999999999999999999 v",
        "ERR invalid ttl '99999999999999999999': expected seconds, a decimal number from 0 (no expiry) to 315360000000",
    ),
    (
        "MCACHE.SET k 0 v EX",
        "ERR syntax error: expected SWR, TOKEN, NX, XX, MANUAL, NEAR or TAGS, got 'EX'",
    ),
    (
        "MCACHE.SET k 0 v NX t",
        "ERR syntax error: expected SWR, TOKEN, NX, XX, MANUAL, NEAR or TAGS, got 't'",
    ),
    (
        "MCACHE.SET k 0 v \"\\r\\n+OK\"",
        "ERR syntax error: expected SWR, TOKEN, NX, XX, MANUAL, NEAR or TAGS, got '\\r\\n+OK'",
    ),
    (
        "MCACHE.SET k 0 v NX XX",
        "ERR syntax error: NX and XX exclude each other",
    ),
    (
        "MCACHE.SET k 0 v TAGS",
        "ERR syntax error: TAGS must be followed by at least one tag",
    ),
    ("MCACHE.SET k 0 v TAGS a \"\"", "ERR empty tag"),
    (
        "MCACHE.SET k 0 v TOKEN",
        "ERR syntax error: TOKEN must be followed by a token",
    ),
    (
        "MCACHE.SET k 0 v TOKEN x",
        "ERR invalid token: expected the 32 hex digits that FETCH or TOKEN returned",
    ),
    (
        "MCACHE.SET k 0 v SWR",
        "ERR syntax error: SWR must be followed by seconds",
    ),
    (
        "MCACHE.SET k 1 v SWR x",
        "ERR invalid SWR 'x': expected seconds, a decimal number from 0 to 4294967",
    ),
    (
        "MCACHE.SET k 1 v SWR -1",
        "ERR invalid SWR '-1': expected seconds, a decimal number from 0 to 4294967",
    ),
    (
        "MCACHE.SET k 1 v SWR 4294968",
        "ERR invalid SWR '4294968': expected seconds, a decimal number from 0 to 4294967",
    ),
    (
        "MCACHE.SET k 1 v SWR 1 SWR 1",
        "ERR syntax error: SWR given twice",
    ),
    (
        "MCACHE.SET k 0 v SWR 1",
        "ERR SWR needs a ttl: an entry without expiry never becomes stale",
    ),
    (
        "MCACHE.INVALIDATE TAGS",
        "ERR syntax error: TAGS must be followed by at least one tag",
    ),
    (
        "MCACHE.INVALIDATE AUTO",
        "ERR syntax error: AUTO, SOFT or NEAR must be followed by TAGS",
    ),
    (
        "MCACHE.INVALIDATE AUTO t",
        "ERR syntax error: expected AUTO, SOFT, NEAR or TAGS, got 't'",
    ),
    ("MCACHE.INVALIDATE \"\"", "ERR empty tag"),
    ("MCACHE.INVALIDATE TAGS t \"\"", "ERR empty tag"),
    (
        "MCACHE.TAGS x",
        "ERR invalid cursor 'x': expected an integer from 0 to 18446744073709551615",
    ),
    (
        "MCACHE.TAGS 0 COUNT 0",
        "ERR invalid COUNT '0': expected an integer from 1 to 10000",
    ),
    (
        "MCACHE.TAGS 0 LIMIT 3",
        "ERR syntax error: expected MATCH or COUNT, got 'LIMIT'",
    ),
    (
        "MCACHE.TAGS 0 MATCH",
        "ERR syntax error: MATCH must be followed by a pattern",
    ),
    (
        "MCACHE.ENTRIES t -1",
        "ERR invalid cursor '-1': expected an integer from 0 to 18446744073709551615",
    ),
    (
        "MCACHE.REPLSET k -1 1 0 v",
        "ERR MCACHE.REPLSET is for replication and the append-only file only",
    ),
    (
        "MCACHE.REPLINVALIDATE 1 0 t",
        "ERR MCACHE.REPLINVALIDATE is for replication and the append-only file only",
    ),
];

#[test]
fn what_is_refused_is_refused_in_these_words_and_changes_nothing() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("SET text 1");
    redis.ok("MCACHE.SET k 100 v MANUAL TAGS t u");
    let before = (
        redis.typed::<String>("DEBUG DIGEST"),
        redis.tags(),
        redis.int("DBSIZE"),
    );
    for (line, refusal) in REFUSALS {
        assert_eq!(redis.error(line), *refusal, "{line}");
        let after = (
            redis.typed::<String>("DEBUG DIGEST"),
            redis.tags(),
            redis.int("DBSIZE"),
        );
        assert_eq!(after, before, "changed by {line}");
    }
    assert!(redis.int("PTTL k") > 90_000);
    assert_eq!(redis.stat("entries"), 1);
}

#[test]
fn wrong_arity_names_the_command() {
    let server = Server::start();
    let mut redis = server.session();
    for line in [
        "MCACHE.SET",
        "MCACHE.SET k",
        "MCACHE.SET k 0",
        "MCACHE.GET",
        "MCACHE.GET a b",
        "MCACHE.MGET",
        "MCACHE.TOKEN",
        "MCACHE.TOKEN a b",
        "MCACHE.INVALIDATE",
        "MCACHE.INSPECT",
        "MCACHE.INSPECT a b",
        "MCACHE.TAGS",
        "MCACHE.ENTRIES",
        "MCACHE.ENTRIES t",
        "MCACHE.TAGINFO",
        "MCACHE.TAGINFO a b",
    ] {
        let command = line.split(' ').next().expect("a command");
        let refusal = redis.error(line).to_ascii_lowercase();
        let expected = format!("ERR wrong number of arguments for '{command}' command");
        assert_eq!(refusal, expected.to_ascii_lowercase(), "{line}");
    }
}

#[test]
fn foreign_keys_are_not_touched() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("SET text 1");
    redis.int("SADD set a");
    const WRONGTYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
    for key in ["text", "set"] {
        for line in [
            format!("MCACHE.SET {key} 0 v TAGS t"),
            format!("MCACHE.SET {key} 0 v NX"),
            format!("MCACHE.GET {key}"),
            format!("MCACHE.INSPECT {key}"),
        ] {
            assert_eq!(redis.error(&line), WRONGTYPE, "{line}");
        }
    }
    assert_eq!(redis.text("GET text").as_deref(), Some("1"));
    assert_eq!(redis.int("SCARD set"), 1);
    assert!(redis.tags().is_empty());
    // And the other way round.
    redis.ok("MCACHE.SET k 0 v TAGS t");
    for line in ["GET k", "APPEND k x", "LPUSH k x", "INCR k"] {
        assert_eq!(redis.error(line), WRONGTYPE, "{line}");
    }
    assert_eq!(redis.entries("t"), ["k"]);
}

#[test]
fn an_entry_has_a_type_of_its_own() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v");
    let name = redis.text("TYPE k").expect("a type");
    assert_eq!(name.len(), 9, "module types have nine letters: {name}");
    assert!(redis.int("MEMORY USAGE k") > 0);
    assert_eq!(redis.scan(&format!("SCAN {{}} TYPE {name}")), ["k"]);
    assert_eq!(redis.int("OBJECT REFCOUNT k"), 1);
}

#[test]
fn half_a_gigabyte_is_a_value_and_a_byte_more_is_refused() {
    const MAX: usize = 512 * 1024 * 1024;
    let server = Server::start();
    let mut redis = server.session();
    let value = vec![b'x'; MAX];
    redis.call(&[&b"MCACHE.SET"[..], b"k", b"0", &value, b"TAGS", b"t"]);
    match redis.run("MCACHE.GET k") {
        Value::BulkString(bytes) => assert!(bytes == value, "what was set is what is got"),
        other => panic!("{other:?}"),
    }
    assert!(redis.stat("payload_bytes") >= MAX as i64);
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 1);
    redis.drain();
    assert!(redis.stat("payload_bytes") < 1024);

    // One byte more is Redis' own to refuse, before the module sees it; it closes the connection with that.
    let too_long = vec![b'x'; MAX + 1];
    redis
        .try_call(&[&b"MCACHE.SET"[..], b"k", b"0", &too_long])
        .expect_err("a value above proto-max-bulk-len");
    assert_eq!(server.session().int("EXISTS k"), 0);
}

#[test]
fn a_full_server_refuses_fills_and_still_serves_and_invalidates() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS t");
    let token = redis.token("k");
    redis.ok("CONFIG SET maxmemory 1");
    const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";
    for line in [
        "MCACHE.SET new 0 v TAGS t u".to_owned(),
        "MCACHE.SET k 100 other TAGS u".to_owned(),
        format!("MCACHE.SET k 0 v TOKEN {token} TAGS t"),
    ] {
        assert_eq!(redis.error(&line), OOM);
    }
    assert_eq!(redis.text("MCACHE.GET k").as_deref(), Some("v"));
    assert_eq!(redis.entries("u"), Vec::<String>::new());
    assert_eq!(redis.int("PTTL k"), -1);
    redis.token("k");
    redis.run("MCACHE.INSPECT k");
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 1);
    assert!(!redis.is_live("k"));
}

#[test]
fn databases_do_not_see_each_other() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 zero TAGS t");
    redis.ok("SELECT 1");
    assert_eq!(redis.text("MCACHE.GET k"), None);
    redis.ok("MCACHE.SET k 0 one TAGS t u");
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 1);
    assert!(!redis.is_live("k"));
    assert!(redis.tags().is_empty());
    redis.ok("SELECT 0");
    assert_eq!(redis.text("MCACHE.GET k").as_deref(), Some("zero"));
    assert_eq!(redis.entries("t"), ["k"]);
}

#[test]
fn transactions_scripts_and_functions_may_use_every_command() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MULTI");
    for line in [
        "MCACHE.SET k 0 v TAGS t",
        "MCACHE.GET k",
        "MCACHE.INVALIDATE TAGS t",
        "MCACHE.GET k",
    ] {
        redis.run(line);
    }
    assert_eq!(
        redis.run("EXEC"),
        Value::Array(vec![
            Value::Okay,
            Value::BulkString(b"v".to_vec()),
            Value::Int(1),
            Value::Nil
        ])
    );
    let script = "redis.call('MCACHE.SET', KEYS[1], '0', 'v', 'TAGS', 't'); \
                  local before = redis.call('MCACHE.GET', KEYS[1]); \
                  local killed = redis.call('MCACHE.INVALIDATE', 'TAGS', 't'); \
                  return {before, killed, redis.call('MCACHE.GET', KEYS[1])}";
    assert_eq!(
        redis.call(&["EVAL", script, "1", "k"]),
        Value::Array(vec![
            Value::BulkString(b"v".to_vec()),
            Value::Int(1),
            Value::Nil
        ])
    );
    let library = "#!lua name=lib\nredis.register_function('fill', function(keys, args) \
                   return redis.call('MCACHE.SET', keys[1], args[1], args[2], 'TAGS', 't') end)";
    redis.call(&["FUNCTION", "LOAD", library]);
    redis.ok("FCALL fill 1 k 0 v");
    assert_eq!(redis.entries("t"), ["k"]);
}
