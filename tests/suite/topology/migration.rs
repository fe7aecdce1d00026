//! An entry that moves to another server takes along what it is worth: tags, birth, validity, deadline, MANUAL, SWR.
//!
//! MIGRATE is how a cluster moves slots; what holds between two servers holds there.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Seed, Server, Session, wait};
use redis::Value;

/// Two servers with nothing in common, up for long enough to trust each other's entries: in its first second a server
/// takes what comes from another for older than itself, because that one's clock may be ahead.
fn pair(inline_max: u64) -> (Server, Server) {
    let options = Server::builder()
        .set("mcache.reclaim-inline-max", inline_max)
        .tcp();
    let (one, two) = (options.clone().start(), options.start());
    for (from, to) in [(&one, &two), (&two, &one)] {
        let (mut here, mut there) = (from.session(), to.session());
        wait::until("entries are taken over", || {
            here.ok("MCACHE.SET probe 0 v TAGS probe");
            here.ok(&migrate(to, "probe", "REPLACE"));
            there.is_live("probe")
        });
        there.int("DEL probe");
    }
    (one, two)
}

fn migrate(to: &Server, keys: &str, options: &str) -> String {
    format!(
        "MIGRATE 127.0.0.1 {} \"\" 0 5000 {options} KEYS {keys}",
        to.port()
    )
}

/// What INSPECT says, without what the other server's allocator or the clock changes.
fn report(redis: &mut Session, key: &str) -> Vec<String> {
    let report = redis
        .map(&format!("MCACHE.INSPECT {key}"))
        .expect("an entry");
    ["state", "manual", "birth", "tags"]
        .iter()
        .map(|field| format!("{field}: {:?}", report[*field]))
        .collect()
}

#[test]
fn an_entry_arrives_as_it_left() {
    let (from, to) = pair(10_000);
    let (mut here, mut there) = (from.session(), to.session());
    for (key, line) in [
        ("plain", "MCACHE.SET plain 0 v"),
        ("tagged", "MCACHE.SET tagged 1000 v TAGS t Product:list:*"),
        ("manual", "MCACHE.SET manual 1000 v SWR 500 MANUAL TAGS t u"),
    ] {
        here.ok(line);
        let (before, end) = (
            report(&mut here, key),
            here.int(&format!("PEXPIRETIME {key}")),
        );
        here.ok(&migrate(&to, key, ""));
        assert_eq!(here.int(&format!("EXISTS {key}")), 0);
        assert_eq!(report(&mut there, key), before, "{key}");
        let late_ms = there.int(&format!("PEXPIRETIME {key}")) - end;
        // As late as the way takes, of its 1,000 seconds.
        assert!(late_ms.abs() < 60_000, "{key} ends {late_ms} ms later");
    }
    assert!(here.tags().is_empty());
    assert_eq!(there.entries("t"), ["manual", "tagged"]);
    assert_eq!(there.int("MCACHE.INVALIDATE AUTO TAGS t"), 1);
    assert_eq!(there.entries("t"), ["manual"]);
    assert_eq!(there.int("MCACHE.INVALIDATE TAGS u"), 1);
    assert!(there.is_live("plain"));
}

#[test]
fn many_at_a_time_and_copies_and_replacements() {
    let (from, to) = pair(10_000);
    let (mut here, mut there) = (from.session(), to.session());
    let keys: Vec<String> = (0..500).map(|n| format!("k{n}")).collect();
    for key in &keys {
        here.ok(&format!("MCACHE.SET {key} 0 v TAGS t own:{key}"));
    }
    there.ok("MCACHE.SET k7 0 other TAGS other");
    let line = migrate(&to, &keys.join(" "), "COPY");
    assert!(here.error(&line).contains("BUSYKEY"));
    here.ok(&migrate(&to, &keys.join(" "), "COPY REPLACE"));
    assert_eq!(
        (here.entries("t").len(), there.entries("t").len()),
        (500, 500)
    );
    assert!(!there.tags().contains_key("other"));
    here.ok(&migrate(&to, &keys.join(" "), "REPLACE"));
    assert_eq!(here.stat("tags"), 0);
    assert_eq!(
        (there.stat("tags"), there.stat("memberships")),
        (501, 1_000)
    );
}

#[test]
fn the_dead_arrive_dead() {
    let (from, to) = pair(0);
    let (mut here, mut there) = (from.session(), to.session());
    here.ok("MCACHE.SET gone 0 v TAGS t u");
    here.ok("MCACHE.SET lives 0 v TAGS u");
    // In one step, so that nothing is reclaimed in between.
    here.ok("MULTI");
    here.run("MCACHE.INVALIDATE TAGS t");
    here.run(&migrate(&to, "gone lives", ""));
    let replies = here.run("EXEC");
    assert_eq!(replies, Value::Array(vec![Value::Int(1), Value::Okay]));
    assert!(!there.is_live("gone"));
    assert!(there.is_live("lives"));
    assert_eq!(there.entries("u"), ["lives"]);
}

#[test]
fn an_invalidation_that_was_there_first_wins() {
    for inline_max in [0, 10_000] {
        let (from, to) = pair(inline_max);
        let (mut here, mut there) = (from.session(), to.session());
        here.ok("MCACHE.SET before 0 v TAGS t");
        here.ok("MCACHE.SET manual 0 v MANUAL TAGS t");
        here.ok("MCACHE.SET other 0 v TAGS u");
        assert_eq!(there.int("MCACHE.INVALIDATE AUTO TAGS t"), 0);
        here.ok(&migrate(&to, "before manual other", ""));
        for (key, live) in [("before", false), ("manual", true), ("other", true)] {
            assert_eq!(there.is_live(key), live, "{key}");
        }
        there.drain();
        assert_eq!(there.entries("t"), ["manual"]);
        // Clocks of two machines differ a little, so what is stored right after it may be taken for older and dropped.
        // Not for long.
        wait::until("what is stored afterwards is served after it moved", || {
            here.ok("MCACHE.SET after 0 v TAGS t");
            here.ok(&migrate(&to, "after", "REPLACE"));
            there.is_live("after")
        });
        assert_eq!(there.entries("t"), ["after", "manual"]);
    }
}

/// Entries wander between two servers while what they were made from changes. As a client of a cluster does, each
/// change is sent to both servers; when both have answered, no older value may be served by either.
#[test]
fn invalidations_that_race_with_migrations_win() {
    const TAGS: usize = 8;
    const KEYS: usize = 64;
    let (one, two) = pair(3);
    let servers = [&one, &two];
    let written: [AtomicU64; TAGS] = Default::default();
    let answered: [AtomicU64; TAGS] = Default::default();
    let over = AtomicBool::new(false);
    let [migrations, changes, hits] = [const { AtomicU64::new(0) }; 3];
    let mut seed = Seed::draw("invalidations_that_race_with_migrations");
    let seeds: Vec<u64> = (0..4).map(|_| seed.u64(..)).collect();
    let key = |n: usize| format!("k{n}");

    let fill = |mut seed: Seed| {
        let mut sessions = servers.map(Server::session);
        while !over.load(SeqCst) {
            let n = seed.usize(..KEYS);
            let at = seed.usize(..2);
            let token = sessions[at].token(&key(n));
            let version = written[n % TAGS].load(SeqCst);
            sessions[at].run(&format!(
                "MCACHE.SET {} 100 {version} TOKEN {token} TAGS t{} u{n}",
                key(n),
                n % TAGS
            ));
        }
    };
    let wander = |mut seed: Seed| {
        let mut sessions = servers.map(Server::session);
        while !over.load(SeqCst) {
            let at = seed.usize(..2);
            let keys: Vec<String> = (0..6).map(|_| key(seed.usize(..KEYS))).collect();
            let line = migrate(servers[1 - at], &keys.join(" "), "REPLACE");
            let reply = sessions[at].try_run(&line);
            // Named twice, the second time it is not there any more.
            migrations.fetch_add(u64::from(reply == Ok(Value::Okay)), SeqCst);
        }
    };
    let change = |mut seed: Seed| {
        let mut sessions = servers.map(Server::session);
        while !over.load(SeqCst) {
            let tag = seed.usize(..TAGS);
            let version = written[tag].fetch_add(1, SeqCst) + 1;
            let first = seed.usize(..2);
            for at in [first, 1 - first] {
                sessions[at].int(&format!("MCACHE.INVALIDATE TAGS t{tag}"));
            }
            answered[tag].fetch_max(version, SeqCst);
            changes.fetch_add(1, SeqCst);
        }
    };
    let read = |mut seed: Seed| {
        let mut sessions = servers.map(Server::session);
        let mut stale = 0_u64;
        while !over.load(SeqCst) {
            let n = seed.usize(..KEYS);
            let promised = answered[n % TAGS].load(SeqCst);
            let found = sessions[seed.usize(..2)].text(&format!("MCACHE.GET {}", key(n)));
            let Some(found) = found else { continue };
            hits.fetch_add(1, SeqCst);
            stale += u64::from(found.parse::<u64>().expect("a version") < promised);
        }
        assert_eq!(stale, 0, "{seed}: of {hits:?} hits");
    };
    let duration = match std::env::var_os("MCACHE_LONG") {
        Some(_) => Duration::from_secs(60),
        None => Duration::from_secs(2),
    };
    let enough =
        || [&migrations, &changes, &hits].map(|count| count.load(SeqCst) > 100) == [true; 3];
    thread::scope(|scope| {
        let threads = [
            scope.spawn(|| fill(Seed::fixed(seeds[0]))),
            scope.spawn(|| wander(Seed::fixed(seeds[1]))),
            scope.spawn(|| change(Seed::fixed(seeds[2]))),
            scope.spawn(|| read(Seed::fixed(seeds[3]))),
        ];
        let end = Instant::now() + duration;
        let done = wait::within(duration + 2 * wait::PATIENCE, || {
            let is_over = Instant::now() >= end && enough();
            is_over || threads.iter().any(|thread| thread.is_finished())
        });
        over.store(true, SeqCst);
        for thread in threads {
            thread.join().unwrap_or_else(|_| panic!("{seed}"));
        }
        assert!(
            done,
            "{migrations:?} migrations, {changes:?} changes, {hits:?} hits"
        );
    });
    println!("{migrations:?} migrations, {changes:?} changes, {hits:?} hits, none of them stale");
}
