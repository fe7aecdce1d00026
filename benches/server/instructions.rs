//! Instructions per operation, counted by callgrind.
//!
//! A server runs under valgrind, which counts nothing while the server is filled and while the load runs for the first
//! time, so that what is allocated at first use is not among it. Then `callgrind_control` has it count. Repeatable to
//! two per cent (keys fall into other buckets in each run), and blind to cache misses, which is what the CPU rows are
//! for.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::thread;
use std::time::Duration;

use harness::{ScratchDir, Server, locate, wait};

use crate::load::{Command, Load};
use crate::results::{Goal, Part};
use crate::shop;

const KEYS: usize = 1_000;
/// Operations that are counted; a command of 600 tags is worth a hundred others.
const OPERATIONS: usize = 6_000;
const OPERATIONS_OF_600: usize = 400;
/// Keys under which entries of 600 tags are stored.
const KEYS_OF_600: usize = 50;

pub fn run() {
    let mut part = Part::new(
        "Instructions",
        "make bench-ir",
        "Instructions of the server per operation (callgrind), 100 B, pipelined by 16 over one connection, 1,000 keys; ours over plain
GET and SET EX. Without replicas and append-only file, as most caches are, and with the file (appendfsync no): what is
replicated is the same in both cases. \"An entry of a file\" is loaded by DEBUG RELOAD, and the one before is freed; plain is SET EX's.",
    )
    .with_noise(0.04);
    println!("{}", part.name);
    let value = shop::value(100);
    let keys = || (0..KEYS).map(|n| shop::key("k", n));
    let plain_fill: Vec<_> = keys().map(|key| shop::plain_set(&key, &value)).collect();
    let fill = |tags: usize| -> Vec<_> {
        keys()
            .enumerate()
            .map(|(n, key)| shop::set(&key, &value, &tags_of(n, tags)))
            .collect()
    };

    let get = cost(
        &[],
        plain_fill.clone(),
        keys().map(|key| shop::plain_get(&key)),
    );
    let set = cost(&[], plain_fill.clone(), plain_fill.clone());
    let set_with_file = cost(FILE, plain_fill.clone(), plain_fill.clone());
    let mut row = |what: &str, ours: f64, plain: f64, goal: Goal| {
        part.add(
            what,
            format!("{ours:.0} beside {plain:.0}"),
            ours / plain,
            goal,
        );
    };
    row(
        "GET hit, no tags",
        cost(&[], fill(0), keys().map(|key| shop::get(&key))),
        get,
        Goal::AtMost(1.05),
    );
    row(
        "GET hit, 600 tags",
        cost(&[], fill(600), keys().map(|key| shop::get(&key))),
        get,
        Goal::AtMost(1.05),
    );
    row(
        "FETCH hit",
        cost(&[], fill(3), keys().map(|key| shop::fetch(&key))),
        get,
        Goal::AtMost(1.10),
    );
    row(
        "FETCH hit, as the Rust client asks: brief-ms",
        cost(&[], fill(3), keys().map(|key| shop::fetch_brief(&key))),
        get,
        Goal::None,
    );
    row(
        "SET, 0 tags",
        cost(&[], fill(0), fill(0)),
        set,
        Goal::AtMost(1.0),
    );
    row(
        "SET, 3 tags, overwriting",
        cost(&[], fill(3), fill(3)),
        set,
        Goal::AtMost(1.15),
    );
    row(
        "SET, 0 tags, append-only file",
        cost(FILE, fill(0), fill(0)),
        set_with_file,
        Goal::AtMost(1.0),
    );
    row(
        "SET, 3 tags, overwriting, append-only file",
        cost(FILE, fill(3), fill(3)),
        set_with_file,
        Goal::AtMost(1.15),
    );
    let nobody = (0..KEYS).map(|n| shop::invalidate(&shop::key("nobody", n)));
    row(
        "INVALIDATE of a tag without entries / GET",
        cost(&[], fill(3), nobody),
        get,
        Goal::AtMost(1.05),
    );
    let other_tags = keys()
        .enumerate()
        .map(|(n, key)| shop::set(&key, &value, &tags_of(n + KEYS, 3)));
    row(
        "SET, 3 tags, overwriting others",
        cost(&[], fill(3), other_tags.chain(fill(3))),
        set,
        Goal::AtMost(1.35),
    );
    let loaded = loading(plain_fill.clone());
    for (what, tags) in [("no tags", 0), ("3 tags", 3), ("12 tags", 12)] {
        let ours = loading(fill(tags));
        part.add(
            format!("an entry of a file, {what}"),
            format!("{ours:.0} beside {loaded:.0}"),
            ours / loaded,
            Goal::Low,
        );
    }
    let mut row_of_600 = |what: &str, fill, load| {
        let ours = per_operation(&[], fill, load, OPERATIONS_OF_600);
        part.add(
            format!("{what}: a tag"),
            format!("{ours:.0} a command"),
            ours / 600.0,
            Goal::Low,
        );
    };
    let own = |from: usize| -> Vec<Command> {
        let numbered = (0..KEYS_OF_600).map(|n| (shop::key("k", n), tags_of(from + n, 600)));
        numbered
            .map(|(key, tags)| shop::set(&key, &value, &tags))
            .collect()
    };
    let all: Vec<String> = (0..600).map(|t| format!("Product:prod_{t:026}")).collect();
    let alike = |kind: &str| -> Vec<Command> {
        (0..KEYS_OF_600)
            .map(|n| shop::set(&shop::key(kind, n), &value, &all))
            .collect()
    };
    let unlinked = (0..KEYS_OF_600).map(|n| Command::new(["UNLINK".to_owned(), shop::key("n", n)]));
    let made_and_unlinked = alike("n").into_iter().chain(unlinked).collect();
    row_of_600("SET, 600 tags, overwriting", own(0), own(0));
    let others = own(KEYS_OF_600).into_iter().chain(own(0)).collect();
    row_of_600("SET, 600 tags, overwriting 600 others", own(0), others);
    row_of_600("SET, 600 tags of all, overwriting", alike("k"), alike("k"));
    row_of_600(
        "SET of a new key, 600 tags of all, and its UNLINK: half",
        alike("k"),
        made_and_unlinked,
    );
    part.write(&Server::start());
}

/// One tag of all and others of its own.
fn tags_of(number: usize, count: usize) -> Vec<String> {
    (0..count)
        .map(|t| {
            if t == 0 {
                "all".to_owned()
            } else {
                format!("t{t}:{number}")
            }
        })
        .collect()
}

/// Options of a server with an append-only file.
const FILE: &[&str] = &["--appendonly", "yes", "--appendfsync", "no"];

/// Instructions that one of these commands takes after a fill, on a server with these options.
fn cost(
    options: &[&str],
    fill: impl IntoIterator<Item = Command>,
    commands: impl IntoIterator<Item = Command>,
) -> f64 {
    per_operation(options, fill, commands, OPERATIONS)
}

/// Instructions that an entry takes when a file with a fill is loaded in place of it, which is freed.
fn loading(fill: impl IntoIterator<Item = Command>) -> f64 {
    let fill = Load::new(fill, 16).on_one_connection();
    let once = |words: &[&str]| Load::new([Command::new(words)], 1).on_one_connection();
    let dir = ScratchDir::new("callgrind");
    let server = Counted::start(dir.path(), &["--enable-debug-command", "yes"]);
    let socket = dir.path().join("redis.sock");
    wait::until("the server listens", || {
        UnixStream::connect(&socket).is_ok()
    });
    let run = |load: &Load| {
        load.run(&socket, load.len())
            .expect("the server takes the load");
    };
    run(&fill);
    run(&once(&["SAVE"]));
    let reload = once(&["DEBUG", "RELOAD", "NOSAVE"]);
    run(&reload);
    server.await_rest();
    server.control("--instr=on");
    run(&reload);
    // What was there before is freed after the reply, a piece in each round.
    server.await_rest();
    server.control("--dump");
    read_total(&dir.path().join("callgrind.out.1")) as f64 / fill.len() as f64
}

/// The same of so many operations.
fn per_operation(
    options: &[&str],
    fill: impl IntoIterator<Item = Command>,
    commands: impl IntoIterator<Item = Command>,
    operations: usize,
) -> f64 {
    let fill = Load::new(fill, 16).on_one_connection();
    let load = Load::new(commands, 16).on_one_connection();
    let dir = ScratchDir::new("callgrind");
    let server = Counted::start(dir.path(), options);
    let socket = dir.path().join("redis.sock");
    wait::until("the server listens", || {
        UnixStream::connect(&socket).is_ok()
    });
    let run = |load: &Load, operations| {
        load.run(&socket, operations)
            .expect("the server takes the load")
    };
    run(&fill, fill.len());
    run(&load, load.len());
    server.control("--instr=on");
    run(&load, load.len());
    server.control("--zero");
    let sent = run(&load, operations);
    server.control("--dump");
    // The first dump that was asked for.
    read_total(&dir.path().join("callgrind.out.1")) as f64 / sent as f64
}

/// A server under callgrind; killed if it is still there at the end.
struct Counted(Child);

impl Counted {
    fn start(dir: &Path, options: &[&str]) -> Self {
        let child = Process::new("valgrind")
            .args([
                "--tool=callgrind",
                "--instr-atstart=no",
                "--callgrind-out-file=callgrind.out",
                "--",
            ])
            .arg(locate::redis("redis-server"))
            .args(["--port", "0", "--save", "", "--unixsocket", "redis.sock"])
            // Housekeeping goes by the clock and would be counted, too.
            .args(["--logfile", "redis.log", "--hz", "1", "--dynamic-hz", "no"])
            .arg("--loadmodule")
            .arg(locate::module())
            .args(options)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("valgrind: {e}; `make bench-ir` installs it"));
        Self(child)
    }

    /// Waits until the server has nothing left to do: it sleeps, and has used no processor time between two looks.
    fn await_rest(&self) {
        let look = || {
            let path = format!("/proc/{}/stat", self.0.id());
            let stat = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
            let fields = stat.rsplit(')').next().unwrap_or_default();
            let fields: Vec<String> = fields.split_whitespace().map(str::to_owned).collect();
            // State, and the ticks of user and system.
            (fields[0].clone(), fields[11].clone(), fields[12].clone())
        };
        wait::until("the server rests", || {
            let before = look();
            thread::sleep(Duration::from_millis(100));
            before.0 == "S" && look() == before
        });
    }

    /// Tells callgrind something.
    fn control(&self, what: &str) {
        let status = Process::new("callgrind_control")
            .args([what, &self.0.id().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap_or_else(|e| panic!("callgrind_control: {e}; it comes with valgrind"));
        assert!(status.success(), "callgrind_control {what}: {status}");
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_total(path: &Path) -> u64 {
    let report = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    report
        .lines()
        .find_map(|line| {
            line.strip_prefix("totals: ")
                .or_else(|| line.strip_prefix("summary: "))
        })
        .and_then(|number| number.trim().parse().ok())
        .expect("callgrind tells a total")
}
