//! A thousand callers in four processes who want one key at once: one load, also when its process stops or dies.

use std::io::{BufRead, BufReader, Write};
use std::process::ChildStdout;
use std::time::{Duration, Instant};

use harness::{Server, wait};
use rustix::process::Signal;

use super::Worker;
use super::caching::{Caching, HERD_LOADER_TIMEOUT, Kind};
use super::store::{HERD_KEY, RECORDS, Store};
use crate::support::runtime::runtime;

/// How many processes it comes from.
const PARTS: usize = 4;

/// A part of the herd, with its two ends of the line.
struct Part {
    worker: Worker,
    replies: BufReader<ChildStdout>,
}

impl Part {
    fn begin(&mut self, load: Duration) {
        let stdin = self.worker.0.stdin.as_mut().expect("piped");
        writeln!(stdin, "{}", load.as_millis()).expect("it listens");
    }

    /// The oldest version a caller got.
    fn served(&mut self) -> u32 {
        loop {
            let mut line = String::new();
            let read = self.replies.read_line(&mut line).expect("it answers");
            assert!(read > 0, "a part of the herd has ended");
            // The test runner has its say as well.
            if let Some(version) = line.trim().strip_prefix("served ") {
                return version.parse().expect("a version");
            }
        }
    }
}

#[test]
fn a_thousand_callers_in_four_processes_make_one_load_also_when_its_process_stops_or_dies() {
    let server = Server::builder().tcp().start();
    one_load(&server.tcp_url(), Kind::Module);
}

#[test]
fn a_thousand_callers_in_four_processes_on_plain_redis_make_one_load() {
    let server = Server::builder().tcp().without_module().start();
    one_load(&server.tcp_url(), Kind::Plain);
}

#[test]
fn a_thousand_callers_in_four_processes_that_may_not_listen_make_one_load() {
    let server = Server::builder().tcp().without_module().start();
    let mut admin = server.session();
    admin.ok("ACL SETUSER deaf on >secret resetchannels +@all -subscribe -psubscribe ~*");
    let url = server.tcp_url();
    one_load(
        &url.replace("redis://", "redis://deaf:secret@"),
        Kind::Plain,
    );
    assert_eq!(admin.list("PUBSUB CHANNELS"), Vec::<String>::new());
}

/// A herd of a thousand at a server.
fn one_load(url: &str, kind: Kind) {
    const CALLERS: usize = 250;
    let store = Store::open();
    let part = |_| {
        let mut worker = Worker::start(&store, url, kind, &CALLERS.to_string(), 0);
        let replies = BufReader::new(worker.0.stdout.take().expect("piped"));
        Part { worker, replies }
    };
    let mut herd: Vec<Part> = (0..PARTS).map(part).collect();
    let runtime = runtime();
    let caching = runtime.block_on(Caching::connect(url, kind, HERD_LOADER_TIMEOUT));
    let invalidate = || {
        let version = store.commit(RECORDS);
        let told = runtime.block_on(caching.invalidate(RECORDS, false));
        assert!(told, "the server is there");
        store.acknowledge(RECORDS, version);
        version
    };
    let all_served = |herd: &mut [Part], version: u32| {
        for part in herd {
            assert!(part.served() >= version, "a caller got an outdated value");
        }
    };

    const ROUNDS: usize = 20;
    let load = Duration::from_millis(50);
    for round in 1..=ROUNDS {
        let version = invalidate();
        herd.iter_mut().for_each(|part| part.begin(load));
        all_served(&mut herd, version);
        assert_eq!(store.loads(HERD_KEY), round, "one load a round");
    }

    // So long that the one who loads is met loading, also where this process is not given a processor for a while; far
    // shorter than a lease.
    let long_load = HERD_LOADER_TIMEOUT / 4;

    // The process that loads stops for longer than its lease: one of the others takes over, the rest wait for
    // that, and the sleeper's own callers are served when it wakes.
    let loads = store.loads(HERD_KEY);
    let version = invalidate();
    herd.iter_mut().for_each(|part| part.begin(long_load));
    let loader = await_loader(&store);
    let is_loader = |part: &Part| part.worker.0.id() == loader;
    let at = herd.iter().position(is_loader).expect("one of ours");
    let mut sleeper = herd.swap_remove(at);
    sleeper.worker.signal(Signal::STOP);
    all_served(&mut herd, version);
    sleeper.worker.signal(Signal::CONT);
    assert!(sleeper.served() >= version);
    assert_few(store.loads(HERD_KEY) - loads);
    herd.push(sleeper);

    // The process that loads dies: its connection breaks, and the next in line loads at once.
    let loads = store.loads(HERD_KEY);
    let version = invalidate();
    herd.iter_mut().for_each(|part| part.begin(long_load));
    let loader = await_loader(&store);
    herd.retain_mut(|part| {
        let dies = part.worker.0.id() == loader;
        if dies {
            part.worker.signal(Signal::KILL);
        }
        !dies
    });
    let died = Instant::now();
    all_served(&mut herd, version);
    // That the next in line does not wait for the lease to end, client::herd shows: there a lease takes minutes.
    println!("served {:?} after the death", died.elapsed());
    assert_few(store.loads(HERD_KEY) - loads);
}

/// The load of the one that slept or died, and of the one that took over. On a machine so busy that callers run out of
/// patience (two loader timeouts) meanwhile, one more in each of their processes.
fn assert_few(loads: usize) {
    assert!((2..=2 + PARTS).contains(&loads), "{loads} loads");
}

fn await_loader(store: &Store) -> u32 {
    wait::until_some("a process loads", || {
        store.loading(HERD_KEY).first().copied().ok_or("none does")
    })
}
