//! What is in there can be seen: entries, tags, options, numbers, and how each command is used.

use std::collections::BTreeMap;

use harness::{Server, Session};
use redis::{Value, from_redis_value};

fn field<T: redis::FromRedisValue>(map: &BTreeMap<String, Value>, name: &str) -> T {
    let value = map
        .get(name)
        .unwrap_or_else(|| panic!("no {name} in {map:?}"));
    from_redis_value(value.clone()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn both_protocols(server: &Server) -> [Session; 2] {
    [server.session(), server.session_resp3()]
}

/// What INSPECT says of `k` behind one command of a transaction that is open: reclaim removes what is dead soon after.
fn inspected_in_transaction(redis: &mut Session) -> BTreeMap<String, Value> {
    redis.run("MCACHE.INSPECT k");
    let Value::Array(replies) = redis.run("EXEC") else {
        panic!("EXEC gives an array")
    };
    from_redis_value(replies[1].clone()).expect("a map")
}

#[test]
fn inspect_tells_everything_of_an_entry() {
    let server = Server::start();
    for mut redis in both_protocols(&server) {
        redis.ok("MCACHE.SET k 100 value MANUAL TAGS b a");
        let report = redis.map("MCACHE.INSPECT k").expect("there is such a key");
        assert_eq!(field::<String>(&report, "state"), "live");
        assert!((99_000..=100_000).contains(&field::<i64>(&report, "ttl_ms")));
        assert!((0..5_000).contains(&field::<i64>(&report, "age_ms")));
        assert!(field::<i64>(&report, "bytes") >= 5);
        assert_eq!(field::<i64>(&report, "manual"), 1);
        assert!(field::<u64>(&report, "birth") > 0);
        let mut tags = field::<Vec<String>>(&report, "tags");
        tags.sort();
        assert_eq!(tags, ["a", "b"]);
        assert!(!report.contains_key("reason"));

        redis.ok("MCACHE.SET k 0 v");
        let report = redis.map("MCACHE.INSPECT k").expect("there is such a key");
        assert_eq!(field::<i64>(&report, "ttl_ms"), -1);
        assert_eq!(field::<i64>(&report, "manual"), 0);
        assert_eq!(field::<Vec<String>>(&report, "tags"), Vec::<String>::new());
        assert_eq!(redis.run("MCACHE.INSPECT nothing"), Value::Nil);
    }
    assert!(matches!(
        server.session_resp3().run("MCACHE.INSPECT k"),
        Value::Map(_)
    ));
    assert!(matches!(
        server.session().run("MCACHE.INSPECT k"),
        Value::Array(_)
    ));
}

#[test]
fn inspect_tells_why_an_entry_is_dead() {
    let server = Server::builder()
        .set("mcache.reclaim-inline-max", 0)
        .start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS innocent guilty");
    redis.ok("MULTI");
    redis.run("MCACHE.INVALIDATE TAGS guilty");
    let report = inspected_in_transaction(&mut redis);
    assert_eq!(field::<String>(&report, "state"), "dead");
    let reason = field::<String>(&report, "reason");
    assert!(
        reason.contains("guilty") && !reason.contains("innocent"),
        "{reason}"
    );
}

#[test]
fn inspect_tells_of_an_entry_that_was_dead_when_it_came_how_it_came() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS t");
    let dump = redis.dump("k");
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 1);
    redis.ok("MULTI");
    redis.call(&[b"RESTORE", &b"k"[..], b"0", &dump]);
    let report = inspected_in_transaction(&mut redis);
    assert_eq!(field::<String>(&report, "state"), "dead");
    let reason = field::<String>(&report, "reason");
    assert!(
        reason.contains("RESTORE") && !reason.contains("promotion"),
        "{reason}"
    );
    assert_eq!(field::<i64>(&report, "age_ms"), 0);
}

#[test]
fn inspecting_is_no_use_of_the_entry() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v");
    let (hits, misses) = (redis.stat("hits"), redis.stat("misses"));
    redis.run("MCACHE.INSPECT k");
    redis.run("MCACHE.INSPECT nothing");
    assert_eq!((redis.stat("hits"), redis.stat("misses")), (hits, misses));
}

#[test]
fn tags_are_listed_in_pages_and_by_pattern() {
    let server = Server::start();
    for mut redis in both_protocols(&server) {
        for n in 0..1_000 {
            redis.ok(&format!(
                "MCACHE.SET k{n} 0 v TAGS Product:{n} Product:list:* Price:{}",
                n / 10
            ));
        }
        let tags = redis.tags();
        assert_eq!(tags.len(), 1_101);
        assert_eq!(tags["Product:list:*"], 1_000);
        assert_eq!(tags["Price:7"], 10);
        assert_eq!(tags["Product:7"], 1);
        // Every tag exactly once, however small the pages.
        let pages = redis.scan("MCACHE.TAGS {} COUNT 7");
        assert_eq!(pages.len(), 2 * 1_101);
        let prices = redis.scan("MCACHE.TAGS {} MATCH Price:* COUNT 100");
        assert_eq!(prices.len(), 2 * 100);
        assert_eq!(
            redis.scan("MCACHE.TAGS {} MATCH Product:42"),
            ["Product:42", "1"]
        );
        assert_eq!(
            redis
                .scan("MCACHE.TAGS {} match Pri[bc]e:9? count 5000")
                .len(),
            2 * 10
        );
        // A page is a page: not everything at once.
        let (cursor, page): (String, Vec<String>) = redis.typed("MCACHE.TAGS 0 COUNT 10");
        assert_ne!(cursor, "0");
        assert!(
            (2..=200).contains(&page.len()),
            "{} elements for COUNT 10",
            page.len()
        );
    }
}

#[test]
fn entries_are_listed_in_pages_even_while_they_come_and_go() {
    let server = Server::start();
    let mut redis = server.session();
    for n in 0..1_000 {
        redis.ok(&format!("MCACHE.SET k{n} 0 v TAGS t"));
    }
    assert_eq!(redis.entries("t").len(), 1_000);
    assert_eq!(redis.scan("MCACHE.ENTRIES t {} COUNT 3").len(), 1_000);
    assert_eq!(
        redis.run("MCACHE.ENTRIES nothing 0"),
        Value::Array(vec![
            Value::BulkString(b"0".to_vec()),
            Value::Array(Vec::new()),
        ])
    );
    // Entries that are there during the whole scan are found, although others come and go meanwhile.
    let mut found = std::collections::BTreeSet::new();
    let mut cursor = "0".to_owned();
    let mut round = 0;
    loop {
        let (next, page): (String, Vec<String>) =
            redis.typed(&format!("MCACHE.ENTRIES t {cursor} COUNT 10"));
        found.extend(page);
        // Odd ones leave, new ones come.
        for n in [4 * round + 1, 4 * round + 3] {
            redis.int(&format!("DEL k{n}"));
        }
        redis.ok(&format!("MCACHE.SET new{round} 0 v TAGS t"));
        round += 1;
        if next == "0" {
            break;
        }
        cursor = next;
    }
    for n in (0..1_000).step_by(2) {
        assert!(
            found.contains(&format!("k{n}")),
            "k{n} was there all the time"
        );
    }
}

#[test]
fn a_listing_of_tags_misses_none_that_changes_between_automatic_manual_and_soft() {
    let server = Server::builder()
        .set("mcache.reclaim-inline-max", 0)
        .start();
    let mut redis = server.session();
    for n in 0..40 {
        redis.ok(&format!("MCACHE.SET k{n} 100 v SWR 100 TAGS t{n}"));
    }
    redis.ok("MCACHE.SET late 100 v MANUAL TAGS twice");
    redis.ok("MCACHE.SET soft 100 v SWR 100 TAGS soft");
    // What comes from now on takes the places of these.
    redis.int("DEL k0 k1 k2");
    let (cursor, _): (String, Vec<String>) = redis.typed("MCACHE.TAGS 0 COUNT 10");
    redis.ok("MCACHE.SET early 100 v TAGS twice");
    redis.int("DEL late");
    assert_eq!(redis.int("MCACHE.INVALIDATE SOFT TAGS soft"), 1);
    harness::wait::until("what is soft is dealt with", || {
        redis.stat("pending_reclaim") == 0
    });
    let found = redis.scan_from("MCACHE.TAGS {} COUNT 10", cursor);
    for tag in ["twice", "soft", "t39"] {
        assert!(found.contains(&tag.to_owned()), "{tag}: {found:?}");
    }
}

#[test]
fn softly_invalidated_entries_are_counted_under_their_tags_at_once() {
    let server = Server::builder()
        .set("mcache.reclaim-inline-max", 0)
        .start();
    let mut redis = server.session();
    for n in 0..100 {
        redis.ok(&format!("MCACHE.SET k{n} 100 v SWR 100 TAGS t"));
    }
    redis.ok("MULTI");
    redis.run("MCACHE.INVALIDATE SOFT TAGS t");
    redis.run("MCACHE.TAGS 0");
    let (count, listed): (i64, (String, (String, i64))) = redis.typed("EXEC");
    assert_eq!((count, listed), (100, ("0".into(), ("t".into(), 100))));
}

#[test]
fn a_listing_of_entries_misses_none_that_is_overwritten() {
    let server = Server::start();
    let mut redis = server.session();
    for n in 0..60 {
        redis.ok(&format!("MCACHE.SET k{n} 0 v TAGS t"));
    }
    let (cursor, mut found): (String, Vec<String>) = redis.typed("MCACHE.ENTRIES t 0 COUNT 10");
    for n in (0..60).step_by(3) {
        redis.ok(&format!("MCACHE.SET k{n} 0 w TAGS another t"));
    }
    found.extend(redis.scan_from("MCACHE.ENTRIES t {} COUNT 10", cursor));
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 60);
}

#[test]
fn scans_refuse_what_they_do_not_understand() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS t");
    for line in [
        "MCACHE.TAGS nonsense",
        "MCACHE.TAGS -1",
        "MCACHE.TAGS 0 COUNT 0",
        "MCACHE.TAGS 0 COUNT -1",
        "MCACHE.TAGS 0 COUNT many",
        "MCACHE.TAGS 0 COUNT",
        "MCACHE.TAGS 0 MATCH",
        "MCACHE.TAGS 0 NONSENSE 1",
        "MCACHE.ENTRIES t nonsense",
        "MCACHE.ENTRIES t 0 COUNT 0",
        "MCACHE.ENTRIES t 0 MATCH x",
    ] {
        let refusal = redis.error(line);
        assert!(refusal.starts_with("ERR"), "{line}: {refusal}");
    }
    // A cursor that was never given out is no crash.
    redis.run("MCACHE.TAGS 18446744073709551615");
    redis.run("MCACHE.ENTRIES t 18446744073709551615");
}

#[test]
fn taginfo_tells_entries_bytes_and_the_last_invalidation() {
    let server = Server::start();
    for mut redis in both_protocols(&server) {
        redis.ok("FLUSHALL");
        let never = redis.map("MCACHE.TAGINFO never").expect("a map");
        assert_eq!(field::<i64>(&never, "entries"), 0);
        assert_eq!(field::<i64>(&never, "bytes"), 0);
        assert_eq!(field::<i64>(&never, "last_invalidation_ms"), -1);

        redis.ok(&format!("MCACHE.SET a 0 {} TAGS t", "x".repeat(1_000)));
        redis.ok("MCACHE.SET b 0 v MANUAL TAGS t");
        let info = redis.map("MCACHE.TAGINFO t").expect("a map");
        assert_eq!(field::<i64>(&info, "entries"), 2);
        assert!(
            (1_001..3_000).contains(&field::<i64>(&info, "bytes")),
            "{info:?}"
        );

        let (seconds, micros): (i64, i64) = redis.typed("TIME");
        let now_ms = seconds * 1_000 + micros / 1_000;
        redis.int("MCACHE.INVALIDATE TAGS t");
        redis.drain();
        let info = redis.map("MCACHE.TAGINFO t").expect("a map");
        assert_eq!(field::<i64>(&info, "entries"), 0);
        let last = field::<i64>(&info, "last_invalidation_ms");
        assert!(
            (now_ms - 1_000..now_ms + 10_000).contains(&last),
            "{last} beside {now_ms}"
        );
    }
}

#[test]
fn help_names_every_command() {
    let server = Server::start();
    let mut redis = server.session();
    let help = redis.list("MCACHE.HELP").join("\n");
    for command in [
        "SET",
        "GET",
        "MGET",
        "TOKEN",
        "INVALIDATE",
        "INSPECT",
        "TAGS",
        "ENTRIES",
        "TAGINFO",
        "FETCH",
        "RELEASE",
        "CLEAR",
        "FEED",
        "NEARGET",
        "SETTLE",
        "HELP",
    ] {
        assert!(help.contains(command), "{command} is missing in\n{help}");
    }
}

/// Redis tells those who ask for a subcommand that is not there where they find the others.
#[test]
fn the_help_that_an_error_names_is_there() {
    let server = Server::start();
    let mut redis = server.session();
    let error = redis.error("MCACHE.DEBUG SELFCHEK");
    assert!(error.contains("MCACHE.DEBUG HELP"), "{error}");
    let help = redis.list("MCACHE.DEBUG HELP").join("\n");
    assert!(
        help.contains("SELFCHECK") && help.contains("DRAIN"),
        "{help}"
    );
}

#[test]
fn command_tells_where_the_keys_are_and_what_a_command_does() {
    let server = Server::start();
    let mut redis = server.session();
    for (line, keys) in [
        ("MCACHE.SET k 0 v TAGS t u", &["k"][..]),
        ("MCACHE.GET k", &["k"]),
        ("MCACHE.MGET a b c", &["a", "b", "c"]),
        ("MCACHE.TOKEN k", &["k"]),
        ("MCACHE.FETCH k WAIT 10", &["k"]),
        ("MCACHE.NEARGET subscription a b", &["a", "b"]),
        ("MCACHE.RELEASE k token", &["k"]),
        ("MCACHE.INSPECT k", &["k"]),
    ] {
        assert_eq!(
            redis.list(&format!("COMMAND GETKEYS {line}")),
            keys,
            "{line}"
        );
    }
    for line in [
        "MCACHE.INVALIDATE TAGS t",
        "MCACHE.TAGS 0",
        "MCACHE.ENTRIES t 0",
        "MCACHE.TAGINFO t",
    ] {
        assert_eq!(
            redis.error(&format!("COMMAND GETKEYS {line}")),
            "ERR The command has no key arguments"
        );
    }
    for (command, has, has_not) in [
        (
            "MCACHE.SET",
            &["write", "denyoom", "module"][..],
            &["readonly"][..],
        ),
        ("MCACHE.GET", &["readonly", "fast"], &["write"]),
        ("MCACHE.MGET", &["readonly"], &["write"]),
        ("MCACHE.TOKEN", &["fast"], &["write", "denyoom"]),
        ("MCACHE.INVALIDATE", &["write"], &["denyoom", "readonly"]),
        ("MCACHE.INSPECT", &["readonly"], &["write"]),
        ("MCACHE.TAGS", &["readonly"], &["write"]),
        ("MCACHE.ENTRIES", &["readonly"], &["write"]),
        ("MCACHE.TAGINFO", &["readonly"], &["write"]),
        ("MCACHE.DEBUG", &["admin"], &[]),
    ] {
        let Value::Array(infos) = redis.run(&format!("COMMAND INFO {command}")) else {
            panic!("an array")
        };
        let Value::Array(info) = &infos[0] else {
            panic!("{command} is not known")
        };
        let flags: Vec<String> = from_redis_value(info[2].clone()).expect("flags");
        for flag in has {
            assert!(
                flags.iter().any(|f| f == flag),
                "{command} is {flag}: {flags:?}"
            );
        }
        for flag in has_not {
            assert!(
                !flags.iter().any(|f| f == flag),
                "{command} is not {flag}: {flags:?}"
            );
        }
    }
}

#[test]
fn command_docs_describe_every_command() {
    let server = Server::start();
    let mut redis = server.session();
    let commands = redis.list("COMMAND LIST FILTERBY MODULE mcache");
    assert!(commands.len() >= 10, "{commands:?}");
    for command in commands {
        let docs: BTreeMap<String, BTreeMap<String, Value>> =
            redis.typed(&format!("COMMAND DOCS {command}"));
        let docs = docs
            .values()
            .next()
            .unwrap_or_else(|| panic!("no docs of {command}"));
        for part in ["summary", "complexity", "since"] {
            assert!(docs.contains_key(part), "{command} has no {part}: {docs:?}");
        }
    }
}

#[test]
fn info_has_every_field() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 value TAGS t u");
    for gauge in [
        "entries",
        "tags",
        "memberships",
        "payload_bytes",
        "index_bytes",
        "epoch",
    ] {
        assert!(redis.stat(gauge) > 0, "{gauge}");
    }
    for counter in [
        "hits",
        "misses",
        "stale_hits",
        "dead_hits",
        "refused_fills",
        "invalidations",
        "entries_invalidated",
        "reclaimed",
        "pending_reclaim",
        "longest_slice_us",
        "leases",
        "parked_clients",
    ] {
        assert_eq!(redis.stat(counter), 0, "{counter}");
    }
    assert_eq!(redis.stat("fills"), 1);
    assert!(!redis.info_text("mcache", "mcache_incarnation").is_empty());
    assert!(
        redis
            .typed::<String>("INFO everything")
            .contains("mcache_entries:1")
    );
}

#[test]
fn options_have_the_documented_defaults_and_can_be_set_at_load_and_at_run_time() {
    let server = Server::builder().set("mcache.max-tags", 77).start();
    let mut redis = server.session();
    let options: BTreeMap<String, String> = redis.typed("CONFIG GET mcache.*");
    assert_eq!(options["mcache.max-tags"], "77");
    for (name, default) in [("on-restart", "drop"), ("on-promote", "keep")] {
        assert_eq!(options[&format!("mcache.{name}")], default, "{name}");
    }
    for name in [
        "reclaim-budget-us",
        "reclaim-inline-max",
        "max-tags",
        "max-tag-bytes",
        "lease-ms",
        "max-waiters",
        "invalidation-memory-tags",
    ] {
        redis.ok(&format!("CONFIG SET mcache.{name} 123"));
        assert_eq!(redis.list(&format!("CONFIG GET mcache.{name}"))[1], "123");
    }
    for (name, value) in [("on-restart", "keep"), ("on-promote", "drop")] {
        redis.ok(&format!("CONFIG SET mcache.{name} {value}"));
        assert_eq!(redis.list(&format!("CONFIG GET mcache.{name}"))[1], value);
    }
}

#[test]
fn options_are_given_behind_loadmodule_by_either_name() {
    let loaded = |options: &str| {
        let module = format!("{} {options}", harness::locate::module().display());
        // One database: Valkey 8.1 is accepted then.
        Server::builder()
            .without_module()
            .set("databases", 1)
            .set("loadmodule", module)
    };
    for options in [
        "max-tags 77 on-restart keep",
        "mcache.max-tags 77 mcache.on-restart keep",
        "MAX-TAGS 77 mcache.On-Restart KEEP",
        "max-tags 78 max-tags 77 on-restart drop on-restart keep",
    ] {
        let server = loaded(options).start();
        let mut redis = server.session();
        assert_eq!(
            redis.list("CONFIG GET mcache.max-tags")[1],
            "77",
            "{options}"
        );
        assert_eq!(
            redis.list("CONFIG GET mcache.on-restart")[1],
            "keep",
            "{options}"
        );
    }
    for (options, reason) in [
        ("mcache.max-tag 77", "unknown option 'max-tag'"),
        ("mcache.max-tags", "max-tags needs a value"),
        (
            "mcache.max-tags 0",
            "max-tags must be an integer between 1 and 65535, got '0'",
        ),
        (
            "feed-bytes 1mb",
            "feed-bytes must be an integer between 16384 and 1073741824, got '1mb'",
        ),
        ("feed maybe", "feed must be no or yes, got 'maybe'"),
        (
            "accept-valkey-8-1 maybe",
            "accept-valkey-8-1 must be no or yes, got 'maybe'",
        ),
    ] {
        let log = loaded(options).refusal();
        assert!(log.contains(reason), "{options}:\n{log}");
    }
}

#[test]
fn memory_usage_counts_value_and_tags() {
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET small 0 v");
    redis.ok(&format!("MCACHE.SET large 0 {}", "x".repeat(10_000)));
    redis.ok(&format!(
        "MCACHE.SET tagged 0 v TAGS {}",
        (0..600).map(|n| format!("tag:{n} ")).collect::<String>()
    ));
    let small = redis.int("MEMORY USAGE small");
    assert!(small < 300, "{small}");
    assert!((10_000..11_500).contains(&redis.int("MEMORY USAGE large")));
    let tagged = redis.int("MEMORY USAGE tagged");
    assert!(tagged > small + 600 * 4, "{tagged}");
}
