//! `make bench-growth`: what an operation costs as a cache grows, along three axes: entries, different tags, entries
//! under one tag.
//!
//! Each point is server CPU, ours and that of a plain command in alternation on the same server, which holds as many
//! plain keys as entries: what grows because Redis' table and the processor's caches miss grows on both sides. The
//! largest number of entries is an argument; ten million take about 8 GB and ten minutes.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use fastrand::Rng;
use harness::{Server, Session, locate, wait};

use crate::cpu::{Meter, Side};
use crate::limits::fill;
use crate::load::{Command, Load};
use crate::{results, shop};
use report::{Axis, Curve, Point};

/// Operations made in advance for a load, on keys picked at random.
const SAMPLE: usize = 100_000;
/// Entries of the second and the third axis, at most.
const ENTRIES_MAX: usize = 1_000_000;
/// Below so many entries a run is a look whether it works: one short pair for a point.
const A_LOOK: usize = 10_000;
const PIPELINE: usize = 16;
/// Entries that one tag of the first axis is invalidated with, and that are stored anew: reclaimed within the command.
const GROUP: usize = 10;

/// Measures and writes `growth.md`, `.csv` and `.svg` into the directory, or into `docs/results`.
pub fn run(entries: usize, directory: Option<&str>) {
    let directory = match directory {
        Some(directory) => PathBuf::from(directory),
        None => locate::workspace().join("docs/results"),
    };
    let server = Server::builder().without_self_check().start();
    let effort = Effort::of(entries);
    let axes = [
        by_entries(&server, entries, &effort),
        by_tags(&server, entries.min(ENTRIES_MAX), &effort),
        by_entries_of_a_tag(&server, entries.min(ENTRIES_MAX)),
    ];
    let how = format!(
        "`make bench-growth`, {}, {}, {}.",
        results::date(),
        results::machine(),
        results::version(&server)
    );
    report::write(&directory, &axes, &how)
        .unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    println!("written to {}", directory.display());
}

struct Effort {
    pairs: usize,
    run: Duration,
}

impl Effort {
    fn of(entries: usize) -> Self {
        match entries < A_LOOK {
            true => Effort {
                pairs: 1,
                run: Duration::from_millis(1),
            },
            false => Effort {
                pairs: 5,
                run: Duration::from_millis(200),
            },
        }
    }

    fn meter<'a>(&self, server: &'a Server) -> Meter<'a> {
        Meter::new(server).with_runs(self.pairs, self.run)
    }
}

/// Powers of ten, the largest of them at most `most`.
fn powers(least: usize, most: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(least), |n| n.checked_mul(10)).take_while(move |n| *n <= most)
}

fn plain_key(number: usize) -> String {
    shop::key("p", number)
}

fn our_key(number: usize) -> String {
    shop::key("k", number)
}

/// A load of these operations on numbers picked below `below`: the same numbers whenever `below` is the same.
fn picked(below: usize, operation: impl Fn(usize) -> Vec<Command>) -> Load {
    picked_of(SAMPLE, below, operation)
}

fn picked_of(sample: usize, below: usize, operation: impl Fn(usize) -> Vec<Command>) -> Load {
    let mut rng = Rng::with_seed(below as u64);
    let numbers = (0..below.min(sample)).map(|_| rng.usize(..below));
    Load::grouped(numbers.map(operation), PIPELINE)
}

/// Ours and the plain one, and how many parts an operation is, of which a point shows one.
type Sides<'a> = (Load, &'a Load, usize);

/// A point of each curve, at `x`.
fn points<const N: usize>(
    mut meter: Meter<'_>,
    curves: &mut [Curve; N],
    x: usize,
    sides: [Sides<'_>; N],
) {
    for (curve, (ours, plain, parts)) in curves.iter_mut().zip(sides) {
        let found = meter.compare(&Side::steady(&ours), &Side::steady(plain));
        curve.add(Point {
            x,
            ours_ns: found.ours_ns / parts as f64,
            plain_ns: found.theirs_ns / parts as f64,
        });
    }
}

/// One tag of its own, one that ten entries share, one that a thousand share.
fn tags_of(number: usize) -> [String; 3] {
    [
        format!("Product:{number}"),
        group_tag(number),
        format!("Collection:{}", number / 1_000),
    ]
}

fn group_tag(number: usize) -> String {
    format!("Order:{}", number / GROUP)
}

fn by_entries(server: &Server, most: usize, effort: &Effort) -> Axis {
    let mut curves = [
        Curve::new("GET hit", "GET"),
        Curve::new("FETCH hit", "GET"),
        Curve::new("SET, 3 tags, overwriting", "SET EX"),
        Curve::new("INVALIDATE of a tag without entries", "GET"),
        Curve::new(
            "INVALIDATE of 10 entries by one tag, and 10 SETs: a tenth",
            "UNLINK of 10 keys, and 10 SET EX: a tenth",
        ),
    ];
    let mut redis = server.session();
    let value = shop::value(100);
    let store = |n: usize| shop::set(&our_key(n), &value, &tags_of(n));
    let store_plain = |n: usize| shop::plain_set(&plain_key(n), &value);
    let group = |n: usize| n / GROUP * GROUP..(n / GROUP + 1) * GROUP;
    // Ten thousand times less than the most, but not so few that a load is nothing.
    for entries in powers((most / 10_000).max(GROUP), most) {
        redis.ok("FLUSHALL");
        fill(server, entries, |n, _| store(n));
        fill(server, entries, |n, _| store_plain(n));
        let plain_get = picked(entries, |n| vec![shop::plain_get(&plain_key(n))]);
        let plain_set = picked(entries, |n| vec![store_plain(n)]);
        let plain_group = picked_of(SAMPLE / GROUP, entries, |n| {
            let keys = group(n).map(plain_key);
            let unlink = Command::new(std::iter::once("UNLINK".to_owned()).chain(keys));
            std::iter::once(unlink)
                .chain(group(n).map(store_plain))
                .collect()
        });
        let get = picked(entries, |n| vec![shop::get(&our_key(n))]);
        let fetch = picked(entries, |n| vec![shop::fetch(&our_key(n))]);
        let set = picked(entries, |n| vec![store(n)]);
        let none = picked(entries, |n| vec![shop::invalidate(&format!("none:{n}"))]);
        let grouped = picked_of(SAMPLE / GROUP, entries, |n| {
            let invalidate = shop::invalidate(&group_tag(n));
            std::iter::once(invalidate)
                .chain(group(n).map(store))
                .collect()
        });
        let sides = [
            (get, &plain_get, 1),
            (fetch, &plain_get, 1),
            (set, &plain_set, 1),
            (none, &plain_get, 1),
            (grouped, &plain_group, GROUP),
        ];
        points(effort.meter(server), &mut curves, entries, sides);
    }
    Axis::new("entries", "Entries with 3 tags each", curves)
}

fn by_tags(server: &Server, entries: usize, effort: &Effort) -> Axis {
    let mut curves = [
        Curve::new("GET hit", "GET"),
        Curve::new("SET under its tag, overwriting", "SET EX"),
        Curve::new("two SETs, under the next tag and back", "two SET EX"),
        Curve::new("INVALIDATE of a tag without entries", "GET"),
    ];
    let value = shop::value(100);
    let plain_set = |n: usize| shop::plain_set(&plain_key(n), &value);
    server.session().ok("FLUSHALL");
    fill(server, entries, |n, _| plain_set(n));
    for tags in powers(1, entries) {
        let tag = |n: usize| format!("Product:{}", n % tags);
        let store = |n: usize| shop::set(&our_key(n), &value, &[tag(n)]);
        fill(server, entries, |n, _| store(n));
        let plain_get = picked(entries, |n| vec![shop::plain_get(&plain_key(n))]);
        let once = picked(entries, |n| vec![plain_set(n)]);
        let twice = picked(entries, |n| vec![plain_set(n), plain_set(n)]);
        let get = picked(entries, |n| vec![shop::get(&our_key(n))]);
        let set = picked(entries, |n| vec![store(n)]);
        let there_and_back = picked(entries, |n| {
            vec![shop::set(&our_key(n), &value, &[tag(n + 1)]), store(n)]
        });
        let none = picked(entries, |n| vec![shop::invalidate(&format!("none:{n}"))]);
        let sides = [
            (get, &plain_get, 1),
            (set, &once, 1),
            (there_and_back, &twice, 1),
            (none, &plain_get, 1),
        ];
        points(effort.meter(server), &mut curves, tags, sides);
    }
    Axis::new(
        "tags",
        &format!("Different tags, one an entry, {entries} entries"),
        curves,
    )
}

fn by_entries_of_a_tag(server: &Server, entries: usize) -> Axis {
    let mut curve = Curve::new("INVALIDATE and reclaim, for each entry", "UNLINK of a key");
    let mut redis = server.session();
    let value = shop::value(100);
    let unlink = |n| Command::new(["UNLINK".to_owned(), plain_key(n)]);
    let plain = Load::new((0..entries).map(unlink), PIPELINE);
    for each in powers(1, entries) {
        let tag = |n: usize| format!("Product:{}", n / each);
        let tags = (0..entries).step_by(each);
        let ours = Load::new(tags.map(|n| shop::invalidate(&tag(n))), PIPELINE);
        redis.ok("FLUSHALL");
        fill(server, entries, |n, _| {
            shop::set(&our_key(n), &value, &[tag(n)])
        });
        fill(server, entries, |n, _| {
            shop::plain_set(&plain_key(n), &value)
        });
        // Once: a million operations.
        let [ours_ns, plain_ns] = [&ours, &plain]
            .map(|load| cpu_s_until_reclaimed(server, &mut redis, load) * 1e9 / entries as f64);
        curve.add(Point {
            x: each,
            ours_ns,
            plain_ns,
        });
    }
    Axis::new(
        "entries of a tag",
        &format!("Entries under each tag, of {entries}"),
        [curve],
    )
}

fn cpu_s_until_reclaimed(server: &Server, redis: &mut Session, load: &Load) -> f64 {
    let before = redis.cpu_s(Session::CPU);
    load.run(&server.socket(), load.len())
        .expect("the server takes the load");
    wait::until("everything is reclaimed", || {
        redis.stat("pending_reclaim") == 0
    });
    redis.cpu_s(Session::CPU) - before
}
