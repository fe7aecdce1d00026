//! An entry that was softly invalidated is never live again, also if commands touch it before or after the reclaimer,
//! and a hard invalidation always reaches it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use harness::topology::{Replicated, follow};
use harness::{Seed, Server, ServerBuilder, Session, host, wait};
use redis::{Value, from_redis_value};

use crate::filling::fetching::fetch;

/// Few entries are dealt with at once, many later: the same must be true of both.
const INLINE_MAX: [usize; 2] = [10_000, 0];

fn server(inline_max: usize) -> ServerBuilder {
    println!("mcache.reclaim-inline-max {inline_max}");
    Server::builder().set("mcache.reclaim-inline-max", inline_max)
}

/// Runs the lines without letting the server do anything in between, reclaim included.
#[track_caller]
fn at_once(redis: &mut Session, lines: &[String]) -> Vec<Value> {
    redis.ok("MULTI");
    for line in lines {
        redis.run(line);
    }
    redis.typed("EXEC")
}

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// Neither live nor offered as anything but stale.
#[track_caller]
fn assert_not_live(redis: &mut Session, key: &str, context: &str) {
    assert_eq!(
        redis.text(&format!("MCACHE.GET {key}")),
        None,
        "{key} {context}"
    );
    let (state, ..) = fetch(redis, key);
    assert_ne!(state, "hit", "{key} {context}");
}

#[test]
fn renamed_copied_or_restored_it_is_not_live() {
    if host::loses_the_database() {
        return;
    }
    for inline_max in INLINE_MAX {
        let server = server(inline_max).start();
        let mut redis = server.session();
        for key in ["a", "b", "c"] {
            redis.ok(&format!("MCACHE.SET {key} 1000 v SWR 1000 TAGS t u"));
        }
        let before: Vec<u8> = redis.typed("DUMP c");
        let replies = at_once(
            &mut redis,
            &lines(&[
                "MCACHE.INVALIDATE SOFT TAGS t",
                "RENAME a renamed",
                "COPY b copied",
                "COPY b elsewhere DB 3",
                "MOVE b 4",
                "DUMP c",
            ]),
        );
        let after: Vec<u8> = from_redis_value(replies[5].clone()).expect("a dump");
        for (name, dump) in [("before", before), ("after", after)] {
            redis.call(&[b"RESTORE", name.as_bytes(), b"0", &dump]);
        }
        let context = format!("with reclaim-inline-max {inline_max}");
        for _ in ["before everything is drained", "after"] {
            for key in ["renamed", "copied", "before", "after"] {
                assert_not_live(&mut redis, key, &context);
            }
            for (db, key) in [(3, "elsewhere"), (4, "b")] {
                redis.ok(&format!("SELECT {db}"));
                assert_not_live(&mut redis, key, &context);
            }
            redis.ok("SELECT 0");
            redis.drain();
        }
    }
}

#[test]
fn expire_and_persist_do_not_make_it_live_again() {
    for inline_max in INLINE_MAX {
        for line in ["PERSIST k", "EXPIRE k 100000", "PEXPIREAT k 99999999999999"] {
            let server = server(inline_max).start();
            let mut redis = server.session();
            redis.ok("MCACHE.SET k 1000 v SWR 1000 TAGS t");
            redis.int("MCACHE.INVALIDATE SOFT TAGS t");
            redis.run(line);
            assert_not_live(&mut redis, "k", line);
            redis.drain();
            assert_not_live(&mut redis, "k", line);
        }
    }
}

#[test]
fn a_hard_invalidation_of_another_of_its_tags_kills_it() {
    for inline_max in INLINE_MAX {
        for drained in [false, true] {
            for order in [["SOFT TAGS t", "TAGS u"], ["TAGS u", "SOFT TAGS t"]] {
                let server = server(inline_max).start();
                let mut redis = server.session();
                redis.ok("MCACHE.SET k 1000 v SWR 1000 TAGS t u");
                redis.ok("MCACHE.SET only-t 1000 v SWR 1000 TAGS t");
                let order = order.map(|tags| format!("MCACHE.INVALIDATE {tags}"));
                match drained {
                    true => order.iter().for_each(|line| {
                        redis.int(line);
                        redis.drain();
                    }),
                    false => drop(at_once(&mut redis, &order)),
                }
                let context = format!("{order:?}, drained {drained}");
                assert_eq!(fetch(&mut redis, "k").0, "miss", "{context}");
                assert_eq!(fetch(&mut redis, "only-t").0, "stale", "{context}");
            }
        }
    }
}

#[test]
fn its_window_begins_once_and_never_outlasts_its_own_end() {
    for inline_max in INLINE_MAX {
        let server = server(inline_max).start();
        let mut redis = server.session();
        redis.ok("MCACHE.SET long 1000 v SWR 100 TAGS t");
        redis.ok("MCACHE.SET short 1 v SWR 100 TAGS t");
        let own_end = redis.int("PEXPIRETIME short");
        redis.int("MCACHE.INVALIDATE SOFT TAGS t");
        redis.drain();
        let now_ms = unix_ms();
        let end = redis.int("PEXPIRETIME long");
        assert!(
            (now_ms - 10_000..=now_ms + 100_000).contains(&end),
            "a window from now on: {end} at {now_ms}"
        );
        assert!(redis.int("PEXPIRETIME short") <= own_end);
        wait::until("the clock has moved", || unix_ms() > now_ms);
        redis.int("MCACHE.INVALIDATE SOFT TAGS t");
        redis.drain();
        assert_eq!(redis.int("PEXPIRETIME long"), end, "not a second window");
    }
}

#[test]
fn what_is_stored_after_it_is_live() {
    for inline_max in INLINE_MAX {
        let server = server(inline_max).start();
        let mut redis = server.session();
        redis.ok("MCACHE.SET same-tags 1000 old SWR 1000 TAGS t");
        redis.ok("MCACHE.SET other-tags 1000 old SWR 1000 TAGS t u");
        redis.ok("MCACHE.SET untouched 1000 old SWR 1000 TAGS t");
        at_once(
            &mut redis,
            &lines(&[
                "MCACHE.INVALIDATE SOFT TAGS t",
                "MCACHE.SET same-tags 1000 new SWR 1000 TAGS t",
                "MCACHE.SET other-tags 1000 new SWR 1000 TAGS t v",
                "MCACHE.SET fresh 1000 new TAGS t",
            ]),
        );
        redis.drain();
        for key in ["same-tags", "other-tags", "fresh"] {
            assert_eq!(
                redis.text(&format!("MCACHE.GET {key}")).as_deref(),
                Some("new"),
                "{key}"
            );
        }
        assert_eq!(redis.state("untouched").as_deref(), Some("stale"));
        assert_eq!(redis.entries("t").len(), 4);
        assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 4);
    }
}

#[test]
fn ten_thousand_at_once_are_stale_on_the_replica_too() {
    const ENTRIES: usize = 10_000;
    let replicated = Replicated::start_with(1, server(0));
    let (mut primary, mut replica) = (
        replicated.primary.session(),
        replicated.replicas[0].session(),
    );
    primary.run_all((0..ENTRIES).map(|n| format!("MCACHE.SET k{n} 1000 v SWR 1000 TAGS t")));
    replicated.sync();
    assert!(replica.is_live("k0"));
    assert_eq!(primary.int("MCACHE.INVALIDATE SOFT TAGS t"), ENTRIES as i64);
    wait::until("the replica has heard of it", || !replica.is_live("k0"));
    for n in (0..ENTRIES).step_by(97) {
        for session in [&mut primary, &mut replica] {
            assert!(!session.is_live(&format!("k{n}")), "k{n}");
        }
        let fetched = fetch(&mut replica, &format!("k{n}"));
        assert_eq!(fetched, ("stale".into(), Some("v".into()), None));
    }
    wait::until("all have been dealt with", || {
        primary.stat("pending_reclaim") == 0
    });
    replicated.assert_same();
    assert_eq!(replica.entries("t").len(), ENTRIES, "none was deleted");
    assert_eq!(primary.int("MCACHE.INVALIDATE TAGS t"), ENTRIES as i64);
    wait::until("the replica has heard of it", || {
        replica.state("k0").as_deref() != Some("stale")
    });
    for n in (0..ENTRIES).step_by(97) {
        let fetched = fetch(&mut replica, &format!("k{n}"));
        assert_eq!(fetched, ("miss".into(), None, None));
    }
}

#[test]
fn a_file_or_a_full_sync_taken_before_its_turn_came_does_not_make_it_live() {
    let mut server = server(0)
        .set("mcache.on-restart", "keep")
        // Slowly, so that most of them have still to be dealt with.
        .set("mcache.reclaim-budget-us", 50)
        .tcp()
        .start();
    let mut redis = server.session();
    fill_and_soften(&mut redis);
    redis.run("BGSAVE");
    wait::until("the file is written", || {
        redis.info("persistence", "rdb_bgsave_in_progress") == 0
    });
    server.kill9();
    server.start_again();
    assert_none_live(&mut server.session(), "after a restart");

    let mut redis = server.session();
    fill_and_soften(&mut redis);
    redis.ok("DEBUG RELOAD");
    assert_none_live(&mut redis, "after a reload");

    fill_and_soften(&mut redis);
    let replica = follow(&server, Server::builder());
    assert_none_live(&mut replica.session(), "on a new replica");

    let aof = [("appendonly", "yes"), ("aof-use-rdb-preamble", "no")];
    for (option, value) in aof {
        redis.ok(&format!("CONFIG SET {option} {value}"));
    }
    // To turn it on begins a rewrite, and another one is refused meanwhile.
    redis.await_rewrite();
    fill_and_soften(&mut redis);
    redis.run("BGREWRITEAOF");
    redis.await_rewrite();
    redis.ok("DEBUG LOADAOF");
    assert_none_live(&mut redis, "after reading the append-only file");
}

const MANY: usize = 20_000;

fn fill_and_soften(redis: &mut Session) {
    redis.ok("MCACHE.SET spared 1000 v SWR 1000 MANUAL TAGS t");
    redis.run_all((0..MANY).map(|n| format!("MCACHE.SET k{n} 1000 v SWR 1000 TAGS t")));
    redis.run("MCACHE.INVALIDATE AUTO SOFT TAGS t");
}

#[track_caller]
fn assert_none_live(redis: &mut Session, when: &str) {
    assert!(redis.is_live("spared"), "{when}");
    for n in (0..MANY).step_by(97) {
        assert!(!redis.is_live(&format!("k{n}")), "k{n} {when}");
    }
}

#[test]
fn it_is_stale_at_once_even_after_a_file_with_epochs_ahead_of_the_wall_clock() {
    // The file is not believed: its entry is dead, and the clock stays.
    for inline_max in INLINE_MAX {
        let mut server = server(inline_max)
            .set("appendonly", "yes")
            .set("mcache.on-restart", "keep")
            .start();
        server.session().ok("MCACHE.SET k 0 v");
        server.stop();
        let birth = ((unix_ms() as u64 + 3_600_000) << 16).to_string();
        let log = server.dir().join("appendonlydir/appendonly.aof.1.incr.aof");
        let mut log = OpenOptions::new()
            .append(true)
            .open(&log)
            .expect("the append-only file");
        log.write_all(b"*6\r\n").expect("a writable file");
        for argument in ["MCACHE.REPLSET", "ahead", "-1", &birth, "0", "v"] {
            write!(log, "${}\r\n{argument}\r\n", argument.len()).expect("a writable file");
        }
        server.start_again();

        let mut redis = server.session();
        assert!(!redis.is_live("ahead"));
        assert!(redis.stat("epoch") >> 16 <= unix_ms() + 1_000);
        redis.ok("MCACHE.SET soft 1000 v SWR 100 TAGS t");
        assert_eq!(redis.int("MCACHE.INVALIDATE SOFT TAGS t"), 1);
        assert_not_live(&mut redis, "soft", "with epochs an hour ahead");
        redis.drain();
        assert_not_live(&mut redis, "soft", "with epochs an hour ahead, drained");
        let end = redis.int("PEXPIRETIME soft");
        assert!(
            end <= unix_ms() + 100_000,
            "a window of 100 seconds, not of an hour"
        );
    }
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_millis() as i64
}

// ---- everything at random -------------------------------------------------------------------------------------------

const KEYS: usize = 8;
const TAGS: usize = 5;

/// What must be true of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Live,
    Stale,
    /// Stale or dead: RENAME and its like drop what is stale but not dealt with yet.
    NotLive,
    Dead,
}

#[derive(Clone, Debug)]
struct Entry {
    tags: Vec<usize>,
    window: bool,
    manual: bool,
    expected: Expected,
}

type Model = BTreeMap<usize, Entry>;

/// Draws a command and does to the model what it should do to the server.
fn step(seed: &mut Seed, model: &mut Model) -> String {
    let key = seed.usize(..KEYS);
    let known = model.get(&key).cloned();
    match (seed.u32(..100), known) {
        (0..=14, Some(entry)) if matches!(entry.expected, Expected::Live | Expected::Stale) => {
            let to = seed.usize(..KEYS);
            let rename = seed.chance(50);
            if to != key {
                let mut there = entry.clone();
                if there.expected == Expected::Stale {
                    there.expected = Expected::NotLive;
                }
                model.insert(to, there);
                if rename {
                    model.remove(&key);
                }
            }
            match rename {
                true => format!("RENAME k{key} k{to}"),
                false if to != key => format!("COPY k{key} k{to} REPLACE"),
                false => format!("EXISTS k{key}"),
            }
        }
        (15..=54, _) => {
            let tags: Vec<usize> = (0..TAGS).filter(|_| seed.chance(40)).collect();
            let (window, manual) = (seed.chance(60), seed.chance(30));
            let mut line = format!("MCACHE.SET k{key} 1000 v");
            line.push_str(if window { " SWR 1000" } else { "" });
            line.push_str(if manual { " MANUAL" } else { "" });
            if !tags.is_empty() {
                line.push_str(" TAGS");
                tags.iter()
                    .for_each(|tag| line.push_str(&format!(" t{tag}")));
            }
            let expected = Expected::Live;
            model.insert(
                key,
                Entry {
                    tags,
                    window,
                    manual,
                    expected,
                },
            );
            line
        }
        (55..=59, _) => {
            model.remove(&key);
            format!("DEL k{key}")
        }
        _ => {
            let (auto, soft) = (seed.chance(40), seed.chance(70));
            let named: Vec<usize> = (0..=seed.usize(..2)).map(|_| seed.usize(..TAGS)).collect();
            for entry in model.values_mut() {
                if auto && entry.manual || !named.iter().any(|tag| entry.tags.contains(tag)) {
                    continue;
                }
                entry.expected = match entry.expected {
                    Expected::Live | Expected::Stale if soft && entry.window => Expected::Stale,
                    Expected::NotLive if soft => Expected::NotLive,
                    _ => Expected::Dead,
                };
            }
            let (auto, soft) = (
                if auto { "AUTO " } else { "" },
                if soft { "SOFT " } else { "" },
            );
            let named: Vec<String> = named.iter().map(|tag| format!("t{tag}")).collect();
            format!("MCACHE.INVALIDATE {auto}{soft}TAGS {}", named.join(" "))
        }
    }
}

#[test]
fn soft_and_hard_invalidations_at_random_against_a_model() {
    const ROUNDS: usize = 400;
    let server = Server::start();
    let mut redis = server.session();
    let mut seed = Seed::draw("soft");
    let mut model = Model::new();
    let mget = (0..KEYS).fold("MCACHE.MGET".to_owned(), |line, k| format!("{line} k{k}"));
    let mut history: Vec<String> = Vec::new();
    for _ in 0..ROUNDS {
        let inline_max = *seed.pick(&INLINE_MAX);
        redis.ok(&format!(
            "CONFIG SET mcache.reclaim-inline-max {inline_max}"
        ));
        // One transaction, so that reclaim comes between some commands and not between others.
        let mut batch: Vec<String> = (0..=seed.usize(..4))
            .map(|_| step(&mut seed, &mut model))
            .collect();
        history.push(format!("inline {inline_max}: {}", batch.join("; ")));
        batch.push(mget.clone());
        let replies = at_once(&mut redis, &batch);
        let served: Vec<Option<String>> =
            from_redis_value(replies.last().expect("replies").clone()).expect("values");
        if seed.chance(30) {
            redis.drain();
        }
        for (key, served) in served.into_iter().enumerate() {
            let expected = model
                .get(&key)
                .map_or(Expected::Dead, |entry| entry.expected);
            let state = redis.state(&format!("k{key}"));
            let right = match (expected, state.as_deref()) {
                (Expected::Live, Some("live")) => served.is_some(),
                (Expected::Stale, Some("stale")) => served.is_none(),
                (Expected::NotLive, Some("stale" | "dead") | None) => served.is_none(),
                (Expected::Dead, Some("dead") | None) => served.is_none(),
                _ => false,
            };
            assert!(
                right,
                "{seed}: k{key} should be {expected:?}, is {state:?} and was served as {served:?}\n{}",
                history.join("\n")
            );
        }
    }
}
