//! The checker: hundreds of readers and writers in several processes, an authoritative store, and everything that can
//! go wrong between them. It counts
//!
//! - reads that returned a value older than the last invalidation acknowledged when the read began: none,
//! - entries that are outdated when everything is at rest: none,
//! - loads of a key that a thousand callers miss at once: one,
//! - callers that are stuck: none.
//!
//! And it can see: run against a cache built by hand on plain Redis it finds what that is known for.
//!
//! - `store.rs`: the truth; `caching.rs`: the two caches; `worker.rs`: what a process does
//! - `herd.rs`: a thousand callers of one key; `near.rs`: near caches
//! - this file: the other tests, and what they do to the processes

mod caching;
mod herd;
mod near;
mod store;
mod worker;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::slots::{Move, Pair};
use harness::topology::{Replicated, Sentinels, is_primary};
use harness::{KillOnDrop, Proxy, Seed, Server, ServerBuilder, wait};
use rustix::process::Signal;

use crate::support::runtime::run;

use caching::{Caching, Kind, LOADER_TIMEOUT, Read};
use store::{KEYS, Store};

/// How long a history takes.
fn duration() -> Duration {
    match std::env::var_os("MCACHE_LONG") {
        Some(_) => Duration::from_secs(120),
        None => Duration::from_secs(6),
    }
}

/// How many near hits a history with near caches checks: all of them in `make test` a million, in `make test-long` a
/// hundred.
///
/// Only what was a near hit counts. Each is compared with what was acknowledged before it was asked for.
fn near_reads() -> u64 {
    match std::env::var_os("MCACHE_LONG") {
        Some(_) => 50_000_000,
        None => 500_000,
    }
}

/// No call of a worker may take longer, under any fault: the loader timeout, deadlines and retries of the client,
/// and the longest time for which its own process is stopped, on a machine that is busy.
const STUCK: Duration = Duration::from_secs(60);

/// How many processes read and write.
const PROCESSES: usize = 4;

/// A process of readers and writers.
struct Worker(KillOnDrop);

impl Worker {
    fn start(store: &Store, url: &str, kind: Kind, role: &str, seed: u64) -> Self {
        let path = store.socket();
        let values = [
            path.to_str().expect("a path"),
            url,
            kind.name(),
            &seed.to_string(),
            role,
        ]
        .map(str::to_owned);
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "checker::worker_process",
                "--ignored",
                "--nocapture",
                "--quiet",
            ])
            .envs(worker::ENVIRONMENT.into_iter().zip(values))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts again");
        Self(KillOnDrop(child))
    }

    fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }
}

/// Not a test: the processes that the tests start.
#[test]
#[ignore = "run by the tests of the checker"]
fn worker_process() {
    let _ = worker::run();
}

/// A history: workers around a cache.
struct History {
    seed: Seed,
    store: Store,
    url: String,
    kind: Kind,
    workers: Vec<Worker>,
    done: std::collections::BTreeMap<&'static str, u32>,
}

impl History {
    fn begin(name: &str, url: String, kind: Kind) -> Self {
        let mut history = Self {
            seed: Seed::draw(name),
            store: Store::open(),
            url,
            kind,
            workers: Vec::new(),
            done: Default::default(),
        };
        for _ in 0..PROCESSES {
            history.start_worker();
        }
        history
    }

    fn start_worker(&mut self) {
        let seed = self.seed.u64(..);
        let worker = Worker::start(&self.store, &self.url, self.kind, "traffic", seed);
        self.workers.push(worker);
    }

    /// Whether it has shown enough: its time is over, and near hits have been checked.
    fn is_over(&self, over: Instant) -> bool {
        let near = self.store.counts().get("near").copied().unwrap_or(0);
        let enough = self.kind != Kind::Near || near >= near_reads();
        // What serves nothing from near is not waited for: the report says how many there were.
        let in_vain = Instant::now() > over + 4 * duration();
        Instant::now() > over && (enough || in_vain)
    }

    fn did(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// A process stops for a while, sometimes for longer than any lease lasts.
    fn pause_a_worker(&mut self) {
        let worker = self.seed.usize(..self.workers.len());
        self.workers[worker].signal(Signal::STOP);
        let pause_ms = self.seed.u64(1..2 * LOADER_TIMEOUT.as_millis() as u64);
        std::thread::sleep(Duration::from_millis(pause_ms));
        self.workers[worker].signal(Signal::CONT);
        self.did("processes stopped");
    }

    /// A process dies in the middle of everything; another one takes its place.
    fn kill_a_worker(&mut self) {
        let worker = self.seed.usize(..self.workers.len());
        drop(self.workers.swap_remove(worker));
        self.start_worker();
        self.did("processes killed");
    }

    /// Ends the history: no worker is stuck, none was served what was outdated. Returns the report.
    fn end(&mut self) -> String {
        self.store.stop();
        let began = Instant::now();
        for worker in &mut self.workers {
            let ended = wait::within(STUCK + Duration::from_secs(20), || {
                worker.0.try_wait().is_ok_and(|status| status.is_some())
            });
            assert!(
                ended,
                "a worker is stuck, {:?} after the end",
                began.elapsed()
            );
            let status = worker.0.wait().expect("it has ended");
            assert!(status.success(), "a worker ended with {status}");
        }
        let counts = self.store.counts();
        format!(
            "{}: {counts:?}; {:?}; stale reads: {}",
            self.seed,
            self.done,
            self.store.stale_reads().len()
        )
    }

    /// Keys whose value in the cache is older than what is acknowledged, now that nothing is under way.
    fn outdated_at_rest(&self) -> Vec<usize> {
        run(async {
            let caching = Caching::connect(&self.url, self.kind, LOADER_TIMEOUT).await;
            let mut outdated = Vec::new();
            for key in 0..KEYS {
                let floors = self.store.floors(key);
                if found(&caching, key)
                    .await
                    .is_some_and(|read| !read.is_allowed(floors))
                {
                    outdated.push(key);
                }
            }
            outdated
        })
    }

    fn assert_sound(&mut self) {
        let report = self.end();
        println!("{report}");
        let stale = self.store.stale_reads();
        assert!(stale.is_empty(), "{report}\n{}", stale.join("\n"));
        assert_eq!(
            self.outdated_at_rest(),
            Vec::<usize>::new(),
            "outdated at rest; {report}"
        );
        let counts = self.store.counts();
        assert!(
            counts["slowest_ms"] < STUCK.as_millis() as u64,
            "a worker was stuck; {report}"
        );
        // A history in which nothing happens shows nothing.
        if self.kind == Kind::Near {
            let near = counts.get("near").copied().unwrap_or(0);
            assert!(near >= near_reads(), "few near hits; {report}");
        }
        for what in ["reads", "cached", "invalidations", "abandoned"] {
            assert!(
                counts.get(what).is_some_and(|count| *count > 0),
                "no {what}; {report}"
            );
        }
    }
}

/// What is in the cache, stale or not; loads nothing.
async fn found(caching: &Caching, key: usize) -> Option<Read> {
    let mut read = None;
    // `load` is called where nothing is found, which is told by a value that no record has.
    let nothing = [u32::MAX; 2];
    if let Caching::Mcache(cache) = caching {
        let load = || async { Err::<mcache::Loaded<store::Versions>, ()>(()) };
        let entry = cache.key(format!("value:{key}")).stale_if_error(true);
        if let Ok(served) = entry.load(load).await {
            read = Some(Read {
                value: served.value,
                cached: true,
                may_be_stale: served.source == mcache::Source::Stale,
            });
        }
        return read;
    }
    let mut rng = fastrand::Rng::new();
    let found = caching
        .read(key, &mut rng, |_| async move { nothing })
        .await;
    (found.value != nothing).then_some(found)
}

#[test]
fn one_server_that_is_killed_cut_off_and_stopped_serves_nothing_outdated() {
    // Few entries carry a tag here: with this, each invalidation leaves them to reclaim all the same.
    let server = Server::builder().set("mcache.reclaim-inline-max", 0).tcp();
    one_server(server.start(), Kind::Module);
}

#[test]
fn plain_redis_that_is_killed_cut_off_flushed_and_put_back_serves_nothing_outdated() {
    let server = Server::builder().without_module().tcp();
    // So that a killed server comes back with something, and with something old.
    let server = server.set("save", "1 1").set("maxmemory", "4mb");
    one_server(
        server.set("maxmemory-policy", "allkeys-random").start(),
        Kind::Plain,
    );
}

fn one_server(mut server: Server, kind: Kind) {
    let proxy = Proxy::to_port(server.port());
    let mut history = History::begin("one_server", proxy.url(), kind);
    let over = Instant::now() + duration();
    while !history.is_over(over) {
        let choices = match kind {
            Kind::Plain => 11,
            // After a start nothing is settled for five seconds: a server that is killed every second would settle
            // nothing.
            Kind::Near if !history.seed.chance(10) => 6,
            _ => 7,
        };
        match history.seed.u8(..choices) {
            0 => history.pause_a_worker(),
            1 => history.kill_a_worker(),
            7 => {
                server.session().ok("FLUSHALL");
                history.did("flushes");
            }
            8 => {
                server.session().ok("SCRIPT FLUSH");
                history.did("script flushes");
            }
            9 => {
                // A file that is old by the time at which the server is killed.
                let _ = server.session().try_run("BGSAVE");
                history.did("saves");
            }
            10 => evict(&server, &mut history),
            2 => {
                proxy.cut();
                history.did("connections cut");
            }
            3 => {
                proxy.stall();
                std::thread::sleep(Duration::from_millis(history.seed.u64(1..900)));
                proxy.heal();
                history.did("network stalls");
            }
            4 => {
                let _ = server
                    .session()
                    .try_run("CLIENT KILL TYPE normal SKIPME yes");
                history.did("clients killed");
            }
            5 => {
                server.pause();
                std::thread::sleep(Duration::from_millis(history.seed.u64(1..900)));
                server.resume();
                history.did("server stops");
            }
            _ => {
                server.kill9();
                server.start_again();
                history.did("server kills");
            }
        }
        std::thread::sleep(Duration::from_millis(history.seed.u64(20..250)));
    }
    history.assert_sound();
}

/// As if memory had run short: some of what there is, drawn from the seed.
fn evict(server: &Server, history: &mut History) {
    let mut redis = server.session();
    for key in redis.list("KEYS *") {
        if history.seed.chance(30) {
            redis.call(&["UNLINK", &key]);
        }
    }
    history.did("evictions");
}

#[test]
fn a_failover_under_load_serves_nothing_outdated() {
    let options = Server::builder().set("mcache.on-promote", "drop");
    failovers(options, Kind::Module);
}

#[test]
fn a_failover_of_plain_redis_under_load_serves_nothing_outdated() {
    failovers(Server::builder().without_module(), Kind::Plain);
}

fn failovers(options: ServerBuilder, kind: Kind) {
    let mut replicated = Replicated::start_with(1, options);
    let sentinels = Sentinels::watch(&replicated);
    let addresses: Vec<_> = sentinels
        .ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    let url = format!(
        "redis+sentinel://{}/{}",
        addresses.join(","),
        sentinels.name
    );
    let mut history = History::begin("a_failover", url, kind);
    let mut failed_over = 0;
    let over = Instant::now() + duration();
    while !history.is_over(over) || failed_over == 0 {
        std::thread::sleep(Duration::from_millis(history.seed.u64(300..1_500)));
        history.pause_a_worker();
        let first_leads = is_primary(&replicated.primary);
        let (leader, follower) = match first_leads {
            true => (&mut replicated.primary, &replicated.replicas[0]),
            false => (&mut replicated.replicas[0], &replicated.primary),
        };
        leader.kill9();
        wait::until("the replica is promoted", || is_primary(follower));
        // Not before: one Sentinel that has not heard yet leads clients back to the old primary, which takes itself for
        // one until it is told otherwise. docs/consistency.md, "Sentinel", says so.
        sentinels.await_primary(follower);
        std::thread::sleep(Duration::from_millis(history.seed.u64(300..1_500)));
        leader.start_again();
        // A Sentinel that was not given the processor for two seconds does nothing for thirty (its TILT mode). On such
        // a machine they may take the new primary for dead and lead back.
        let pair = (&replicated.primary, &replicated.replicas[0]);
        let one_leads = || is_primary(pair.0) != is_primary(pair.1);
        let follows = wait::within(3 * wait::PATIENCE, one_leads);
        assert!(follows, "neither follows the other");
        let (leads, follows) = match is_primary(pair.0) {
            true => (pair.0, pair.1),
            false => (pair.1, pair.0),
        };
        harness::topology::await_link(follows);
        sentinels.await_primary(leads);
        history.did("failovers");
        failed_over += 1;
    }
    history.assert_sound();
}

#[test]
fn slots_that_move_whole_all_the_time_lose_nothing_and_serve_nothing_outdated() {
    // What is invalidated waits for reclaim, so that slots leave with some of it.
    let options = Server::builder().set("mcache.reclaim-inline-max", 0);
    slots_that_move(options.set("mcache.on-promote", "drop"), Kind::Module);
}

fn slots_that_move(options: ServerBuilder, kind: Kind) {
    let Some(pair) = Pair::start_with(options, false) else {
        return;
    };
    let [one, two] = &pair.primaries;
    let mut history = History::begin("slots_that_move", pair.url(), kind);
    let over = Instant::now() + duration();
    let mut moves = 0;
    while !history.is_over(over) || moves < 6 {
        let first = history.seed.u16(..8_000);
        let slots = first..=history.seed.u16(first..8_191);
        for (from, to) in [(one, two), (two, one)] {
            let moved = Move::start(from, to, slots.clone()).finish();
            assert!(moved, "slots {slots:?} did not move; {}", history.seed);
            history.did("slots moved");
            moves += 1;
        }
        if history.seed.bool() {
            history.pause_a_worker();
        }
    }
    history.assert_sound();
    for server in &pair.primaries {
        server.session().drain();
        server.check().expect("index and keyspace agree");
    }
}

#[test]
fn the_checker_sees_what_a_cache_built_by_hand_serves() {
    let server = Server::builder().tcp().without_module().start();
    let mut history = History::begin("by_hand", server.tcp_url(), Kind::ByHand);
    wait::until("the checker sees a stale read", || {
        !history.store.stale_reads().is_empty()
    });
    println!("{}", history.end());
    // An entry may be outdated when everything is at rest, and stays so until its ttl: the race of a load that began
    // before a write and ends after its invalidation. With 240 readers it is there nearly each time; the checker must
    // find it within a few histories.
    let mut histories = 1;
    while history.outdated_at_rest().is_empty() {
        histories += 1;
        assert!(
            histories <= 20,
            "twenty histories without an outdated entry"
        );
        history = History::begin("by_hand", server.tcp_url(), Kind::ByHand);
        std::thread::sleep(Duration::from_secs(1));
        history.end();
    }
    println!(
        "outdated at rest after {histories} histories: {:?}",
        history.outdated_at_rest()
    );
}
