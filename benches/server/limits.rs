//! `make bench-limits`: what a very large cache costs, and what holds it up.
//!
//! Fills one server with entries as a shop has them, then invalidates, reclaims, saves, flushes and reloads them. The
//! number of entries is an argument: ten million take about 6 GB and a quarter of an hour, 200,000 a minute.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use harness::{Server, Session, wait};

use crate::load::{Command, Load};
use crate::results::{Goal, Part};
use crate::shop;

/// Commands encoded at a time.
const BATCH: usize = 100_000;
/// Clients parked at once.
const PARKED: usize = 2_000;

pub fn run(entries: usize) {
    let mut part = Part::new(
        "Limits",
        "make bench-limits",
        "One server full of entries of 100 B with keys of 16 B and three tags: one of all, one of a hundredth, one of its own;
the first row says how many. The tag of all is invalidated.",
    );
    println!("{}", part.name);
    let server = Server::builder()
        .set("maxclients", PARKED + 100)
        .without_self_check()
        .start();
    let mut redis = server.session();
    let before = settled(&mut redis);
    fill(&server, entries, |n, value| {
        let tags = shop::three_tags(n);
        shop::set(&shop::key("k", n), value, &tags)
    });
    let each = (settled(&mut redis) - before) as f64 / entries as f64;
    let told = redis.stat("payload_bytes") + redis.stat("index_bytes");
    part.add(
        format!("{entries} entries: bytes each of used_memory"),
        format!("{told} B of values and index by INFO mcache"),
        each,
        Goal::None,
    );
    saving(&mut redis, &mut part, "BGSAVE, nothing else going on");
    reload(&mut redis, &mut part, entries, "DEBUG RELOAD");

    // Copy-on-write at its worst: everything dies just after the fork.
    redis.run("BGSAVE");
    let began = Instant::now();
    redis.call(&["MCACHE.INVALIDATE", "TAGS", "Product:list:*"]);
    part.add(
        "INVALIDATE of all of them: microseconds",
        "as the client saw it",
        began.elapsed().as_secs_f64() * 1e6,
        Goal::None,
    );
    patiently("everything is reclaimed", || {
        redis.stat("pending_reclaim") == 0
    });
    part.add(
        "reclaim beside BGSAVE: entries a second",
        "from INVALIDATE to the last one",
        entries as f64 / began.elapsed().as_secs_f64(),
        Goal::None,
    );
    await_save(&mut redis);
    part.add(
        "copied for BGSAVE while all were reclaimed: bytes an entry",
        "rdb_last_cow_size",
        redis.info("persistence", "rdb_last_cow_size") as f64 / entries as f64,
        Goal::None,
    );
    for how in ["FLUSHALL SYNC", "FLUSHALL ASYNC"] {
        fill(&server, entries, |n, value| {
            let tags = shop::three_tags(n);
            shop::set(&shop::key("k", n), value, &tags)
        });
        let began = Instant::now();
        redis.ok(how);
        part.add(
            format!("{how}: milliseconds"),
            "as the client saw it",
            began.elapsed().as_secs_f64() * 1e3,
            Goal::None,
        );
        patiently("the index is freed", || {
            redis.stat("index_bytes") < 1024 * 1024
        });
    }
    parked(&server, &mut redis, &mut part);
    drop(redis);
    drop(server);

    let plain = Server::builder().without_module().start();
    let mut redis = plain.session();
    let before = settled(&mut redis);
    fill(&plain, entries, |n, value| {
        shop::plain_set(&shop::key("k", n), value)
    });
    part.add(
        "plain strings, no tags: bytes each",
        "",
        (settled(&mut redis) - before) as f64 / entries as f64,
        Goal::None,
    );
    reload(
        &mut redis,
        &mut part,
        entries,
        "DEBUG RELOAD of plain strings",
    );
    part.write(&plain);
}

/// Sends commands for all of these entries, made a batch at a time.
pub fn fill(server: &Server, entries: usize, command: impl Fn(usize, &str) -> Command) {
    let value = shop::value(100);
    for from in (0..entries).step_by(BATCH) {
        let to = (from + BATCH).min(entries);
        Load::new((from..to).map(|n| command(n, &value)), 64)
            .run(&server.socket(), to - from)
            .expect("the server takes the fills");
    }
}

fn saving(redis: &mut Session, part: &mut Part, what: &str) {
    redis.run("BGSAVE");
    await_save(redis);
    part.add(
        format!("{what}: seconds"),
        format!(
            "{} B copied",
            redis.info("persistence", "rdb_last_cow_size")
        ),
        redis.info("persistence", "rdb_last_bgsave_time_sec") as f64,
        Goal::None,
    );
}

fn await_save(redis: &mut Session) {
    patiently("the snapshot is written", || {
        redis.info("persistence", "rdb_bgsave_in_progress") == 0
    });
}

fn reload(redis: &mut Session, part: &mut Part, entries: usize, what: &str) {
    let began = Instant::now();
    redis.ok("DEBUG RELOAD");
    part.add(
        format!("{what}: microseconds an entry"),
        "saved and loaded",
        began.elapsed().as_secs_f64() * 1e6 / entries as f64,
        Goal::None,
    );
}

/// What a client takes while it is connected, and more while it waits for a fill.
fn parked(server: &Server, redis: &mut Session, part: &mut Part) {
    redis.run("MCACHE.FETCH held LEASE 600000");
    let empty = settled(redis);
    let mut clients: Vec<UnixStream> = (0..PARKED)
        .map(|_| UnixStream::connect(server.socket()).expect("the server takes clients"))
        .collect();
    patiently("all are connected", || {
        redis.info("clients", "connected_clients") > PARKED as i64
    });
    let connected = settled(redis);
    for client in &mut clients {
        client
            .write_all(b"MCACHE.FETCH held WAIT 600000\r\n")
            .expect("a command is sent");
    }
    patiently("all are parked", || {
        redis.stat("parked_clients") == PARKED as i64
    });
    let parked = settled(redis);
    let each = |bytes: i64| bytes as f64 / PARKED as f64;
    part.add(
        "a client that waits for a fill: bytes",
        format!(
            "connected {:.0}, parked {:.0} more",
            each(connected - empty),
            each(parked - connected)
        ),
        each(parked - empty),
        Goal::None,
    );
}

/// Ten million entries take longer than anything that a test waits for.
fn patiently(what: &str, condition: impl FnMut() -> bool) {
    assert!(
        wait::within(Duration::from_secs(3_600), condition),
        "waited an hour in vain: {what}"
    );
}

/// `used_memory` once two looks agree: buffers of clients that left are freed a moment later.
fn settled(redis: &mut Session) -> i64 {
    let mut last = 0;
    patiently("used_memory stands still", || {
        std::mem::replace(&mut last, redis.info("memory", "used_memory")) == last
    });
    last
}
