//! Servers that end at the worst moment: killed at random, with a file cut short, in the middle of a rewrite.
//!
//! With `drop` nothing from before is ever served. With `keep` the data set is one that was true at some moment, whole
//! and with its index; with `appendfsync always` that moment is the last answer or later.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use harness::{Seed, Server, ServerBuilder, Session, wait};

const TAGS: u32 = 12;
const KEYS: u32 = 60;

fn append_only(fsync: &str, preamble: &str) -> ServerBuilder {
    Server::builder()
        .set("appendonly", "yes")
        .set("appendfsync", fsync)
        .set("aof-use-rdb-preamble", preamble)
        .set("mcache.reclaim-inline-max", 3)
}

/// One command of the load.
enum Step {
    Set { key: u32, version: u64, tag: u32 },
    Invalidate { tag: u32 },
    Unlink { key: u32 },
}

impl Step {
    fn draw(seed: &mut Seed, version: u64) -> Self {
        let (key, tag) = (seed.u32(..KEYS), seed.u32(..TAGS));
        match seed.u32(..10) {
            0..6 => Self::Set { key, version, tag },
            6..9 => Self::Invalidate { tag },
            _ => Self::Unlink { key },
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Set { key, version, tag } => {
                format!("MCACHE.SET k{key} 1000 {version} TAGS t{tag} all")
            }
            Self::Invalidate { tag } => format!("MCACHE.INVALIDATE TAGS t{tag}"),
            Self::Unlink { key } => format!("UNLINK k{key}"),
        }
    }
}

/// What should be served: key to version and tag.
type Served = BTreeMap<u32, (u64, u32)>;

fn apply(served: &mut Served, step: &Step) {
    match *step {
        Step::Set { key, version, tag } => drop(served.insert(key, (version, tag))),
        Step::Invalidate { tag } => served.retain(|_, (_, held)| *held != tag),
        Step::Unlink { key } => drop(served.remove(&key)),
    }
}

/// What is served, as the server says; index and keyspace must agree about it.
fn served(redis: &mut Session) -> Served {
    redis.ok("MCACHE.DEBUG SELFCHECK");
    let mut served = Served::new();
    for tag in 0..TAGS {
        for key in redis.entries(&format!("t{tag}")) {
            let value = redis
                .text(&format!("MCACHE.GET {key}"))
                .expect("what is listed is served");
            let key = key[1..].parse().expect("k and a number");
            served.insert(key, (value.parse().expect("a version"), tag));
        }
    }
    assert_eq!(redis.entries("all").len(), served.len());
    served
}

/// After how many of the steps `found` was the truth; the latest such moment.
fn moment(history: &[Step], found: &Served) -> Option<usize> {
    let mut served = Served::new();
    let mut last = (served == *found).then_some(0);
    for (number, step) in history.iter().enumerate() {
        apply(&mut served, step);
        if served == *found {
            last = Some(number + 1);
        }
    }
    last
}

/// Load until the server is killed at a moment drawn from the seed: every step, and how many were answered.
fn until_killed(server: &mut Server, seed: &mut Seed, rewrite: bool) -> (Vec<Step>, usize) {
    let answered = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let limit = seed.u64(50..2_000);
    let mut load_seed = Seed::fixed(seed.u64(..));
    let mut redis = server.session();
    thread::scope(|scope| {
        let (answered, over) = (&answered, &over);
        let worker = scope.spawn(move || {
            let mut history = Vec::new();
            for version in 1.. {
                let step = Step::draw(&mut load_seed, version);
                let line = step.line();
                history.push(step);
                if let Err(failure) = redis.try_run(&line) {
                    assert!(over.load(SeqCst), "{line}: {failure}");
                    return history;
                }
                answered.store(version, SeqCst);
            }
            history
        });
        let mut control = server.session();
        let mut asked = !rewrite;
        wait::until("enough has been done", || {
            let done = answered.load(SeqCst);
            if !asked && done > limit / 2 {
                control.run("BGREWRITEAOF");
                asked = true;
            }
            done >= limit
        });
        over.store(true, SeqCst);
        server.kill9();
        let history = worker.join().expect("the load");
        (history, answered.load(SeqCst) as usize)
    })
}

#[test]
fn killed_at_random_with_keep_the_data_set_is_one_that_was_true() {
    let mut seed = Seed::draw("killed_at_random_with_keep");
    for (fsync, preamble) in [
        ("always", "yes"),
        ("always", "no"),
        ("everysec", "yes"),
        ("everysec", "no"),
        ("no", "yes"),
    ] {
        let mut server = append_only(fsync, preamble)
            .set("mcache.on-restart", "keep")
            .start();
        let (history, answered) = until_killed(&mut server, &mut seed, true);
        server.start_again();
        let found = served(&mut server.session());
        let moment = moment(&history, &found).unwrap_or_else(|| {
            panic!("{seed}, {fsync}, preamble {preamble}: never true: {found:?}")
        });
        println!(
            "{fsync}, preamble {preamble}: {answered} steps answered, {moment} survived, {} entries",
            found.len()
        );
        // A killed process has written what it answered, with one exception: with everysec Redis puts a write off, for
        // up to two seconds, while the disk is busy with the last fsync.
        let exact = fsync != "everysec";
        assert!(
            !exact || moment >= answered,
            "{seed}, {fsync}: {moment} of {answered} steps"
        );
    }
}

#[test]
fn killed_at_random_with_drop_nothing_from_before_is_served() {
    let mut seed = Seed::draw("killed_at_random_with_drop");
    for (fsync, preamble) in [("always", "yes"), ("everysec", "no")] {
        let mut server = append_only(fsync, preamble).set("save", "3600 1").start();
        let (history, answered) = until_killed(&mut server, &mut seed, true);
        server.start_again();
        let mut redis = server.session();
        assert!(served(&mut redis).is_empty(), "{seed}");
        for key in 0..KEYS {
            assert!(!redis.is_live(&format!("k{key}")), "{seed}: k{key}");
        }
        wait::until("what may not be served is reclaimed", || {
            redis.int("DBSIZE") == 0
        });
        redis.ok("MCACHE.SET k0 1000 1 TAGS t0 all");
        assert_eq!(served(&mut redis), Served::from([(0, (1, 0))]), "{seed}");
        assert!(answered <= history.len());
    }
}

/// The newest part of the append-only file.
fn newest_part(server: &Server) -> PathBuf {
    let parts = fs::read_dir(server.dir().join("appendonlydir")).expect("a directory");
    parts
        .map(|part| part.expect("readable").path())
        .filter(|path| path.to_string_lossy().ends_with(".incr.aof"))
        .max_by_key(|path| {
            let name = path.to_string_lossy();
            let number = name
                .rsplit('.')
                .nth(2)
                .and_then(|number| number.parse::<u32>().ok());
            number.expect("appendonly.aof.<number>.incr.aof")
        })
        .expect("an append-only file")
}

#[test]
fn a_file_cut_short_anywhere_loads_as_it_was_at_some_moment() {
    let mut seed = Seed::draw("a_file_cut_short");
    let mut server = append_only("always", "no")
        .set("mcache.on-restart", "keep")
        .start();
    let mut redis = server.session();
    let mut history = Vec::new();
    for version in 1..=300 {
        let step = Step::draw(&mut seed, version);
        redis.run(&step.line());
        history.push(step);
    }
    redis.drain();
    server.stop();
    let path = newest_part(&server);
    let mut size = fs::metadata(&path).expect("a file").len();
    let mut last = history.len();
    // Shorter and shorter, at any byte: in the middle of a command, of a transaction, of a number.
    while size > 300 {
        size -= seed.u64(1..size.min(2_000));
        let file = OpenOptions::new().write(true).open(&path).expect("a file");
        file.set_len(size).expect("a file can be cut");
        server.start_again();
        let found = served(&mut server.session());
        let moment = moment(&history[..last], &found);
        last = moment.unwrap_or_else(|| panic!("{seed}, cut at {size}: never true: {found:?}"));
        server.stop();
        size = fs::metadata(&path).expect("a file").len();
    }
    server.start_again();
}

#[test]
fn a_rewrite_under_load_loses_and_resurrects_nothing() {
    for preamble in ["yes", "no"] {
        let mut seed = Seed::draw("a_rewrite_under_load");
        let mut server = append_only("everysec", preamble)
            .set("mcache.on-restart", "keep")
            .start();
        let mut redis = server.session();
        let mut control = server.session();
        let mut expected = Served::new();
        let mut rewrites = 0;
        for version in 1..=4_000 {
            let step = Step::draw(&mut seed, version);
            redis.run(&step.line());
            apply(&mut expected, &step);
            if version % 800 == 0 && control.info("persistence", "aof_rewrite_in_progress") == 0 {
                control.run("BGREWRITEAOF");
                rewrites += 1;
            }
        }
        control.await_rewrite();
        assert_eq!(
            control.info_text("persistence", "aof_last_bgrewrite_status"),
            "ok"
        );
        assert!(rewrites > 0, "no rewrite");
        assert_eq!(served(&mut redis), expected, "{seed}");
        server.restart();
        assert_eq!(
            served(&mut server.session()),
            expected,
            "{seed}, preamble {preamble}"
        );
    }
}
