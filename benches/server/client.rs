//! Section 4: what the client adds to the round trip of the redis crate, and to a shop's day.

use std::fs;
use std::time::{Duration, Instant};

use harness::Server;
use harness::page::Page;
use harness::trace::{Call, Trace};
use mcache::Cache;
use redis::aio::MultiplexedConnection;
use tokio::runtime::{Builder, Runtime};

use crate::cpu::median;
use crate::results::{Goal, Part};
use crate::shop;

/// Pairs of runs that a comparison takes.
const PAIRS: usize = 9;
/// Calls in a run, one after the other.
const CALLS: u32 = 5_000;
/// What the provider that Medusa ships takes for the recorded day: the lower of the figures observed.
const PROVIDER_IN_USE_S: f64 = 3.5;

const NAMESPACE: &str = "bench";
const KEY: &str = "hit";

pub fn run() {
    let mut part = Part::new(
        "Client",
        "make bench",
        "A value of 1 KiB read over and over, one call after the other, on a runtime of one thread: through the client, typed, and
through the redis crate's own connection, as bytes; medians of 9 alternating pairs. CPU is that of the thread, which is the client's
whole side. The recorded day is what `make run` replays: 4,190 calls, JSON and compression included.",
    );
    println!("{}", part.name);
    let server = Server::start();
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    hits(&server, &runtime, &mut part);
    day(&runtime, &mut part);
    part.write(&server);
}

fn hits(server: &Server, runtime: &Runtime, part: &mut Part) {
    let (cache, mut raw) = runtime.block_on(async {
        let cache = cache(server).await;
        let stored = cache.key(KEY).set(&shop::value(1_022)).await;
        assert!(stored.expect("the server is there"), "nothing refuses it");
        let client = redis::Client::open(server.url()).expect("an address");
        let raw = client.get_multiplexed_async_connection().await;
        (cache, raw.expect("the server is there"))
    });
    let full_key = format!("{NAMESPACE}:{KEY}");
    for (what, command) in [("get", "MCACHE.GET"), ("get_or_load", "MCACHE.FETCH")] {
        let pairs: Vec<(Spent, Spent)> = (0..PAIRS)
            .map(|_| {
                let ours = match what {
                    "get" => measure(runtime, async || get(&cache).await),
                    _ => measure(runtime, async || get_or_load(&cache).await),
                };
                (
                    ours,
                    measure(runtime, async || ask(&mut raw, command, &full_key).await),
                )
            })
            .collect();
        let ours = Spent::median(pairs.iter().map(|(ours, _)| *ours));
        let theirs = Spent::median(pairs.iter().map(|(_, theirs)| *theirs));
        part.add(
            format!("{what}, hit / {command} by the redis crate: round trip"),
            format!("{:.1} us beside {:.1} us", ours.wall_us, theirs.wall_us),
            ours.wall_us / theirs.wall_us,
            Goal::AtMost(1.05),
        );
        part.add(
            format!("{what}, hit / {command} by the redis crate: CPU of the client"),
            format!("{:.1} us beside {:.1} us", ours.cpu_us, theirs.cpu_us),
            ours.cpu_us / theirs.cpu_us,
            Goal::None,
        );
    }
}

async fn cache(server: &Server) -> Cache {
    let cache = Cache::builder(server.url()).namespace(NAMESPACE);
    cache
        .caching(true)
        .build()
        .await
        .expect("the server is there")
}

async fn get(cache: &Cache) {
    let found = cache.key(KEY).get::<String>().await;
    assert!(found.expect("the server is there").is_some());
}

async fn get_or_load(cache: &Cache) {
    let load = async || Err::<String, _>("a hit needs no load");
    let found = cache.key(KEY).get_or_load(load).await;
    assert_eq!(found.expect("it is there").len(), 1_022);
}

async fn ask(raw: &mut MultiplexedConnection, command: &str, key: &str) {
    let found = redis::cmd(command)
        .arg(key)
        .query_async::<redis::Value>(raw)
        .await;
    assert_ne!(found.expect("the server is there"), redis::Value::Nil);
}

/// What a call took, on average over a run.
#[derive(Clone, Copy)]
struct Spent {
    wall_us: f64,
    cpu_us: f64,
}

impl Spent {
    fn median(runs: impl Iterator<Item = Self> + Clone) -> Self {
        let middle = |figure: fn(Self) -> f64| {
            let mut figures: Vec<f64> = runs.clone().map(figure).collect();
            median(&mut figures)
        };
        Self {
            wall_us: middle(|run| run.wall_us),
            cpu_us: middle(|run| run.cpu_us),
        }
    }
}

fn measure(runtime: &Runtime, mut call: impl AsyncFnMut()) -> Spent {
    let (began, cpu) = (Instant::now(), thread_cpu());
    runtime.block_on(async {
        for _ in 0..CALLS {
            call().await;
        }
    });
    let per_call = |spent: Duration| spent.as_secs_f64() * 1e6 / f64::from(CALLS);
    Spent {
        cpu_us: per_call(thread_cpu() - cpu),
        wall_us: per_call(began.elapsed()),
    }
}

/// The CPU time of the main thread, to the nanosecond.
fn thread_cpu() -> Duration {
    let schedstat = fs::read_to_string("/proc/self/schedstat").expect("Linux");
    let ran_ns = schedstat.split(' ').next().and_then(|ran| ran.parse().ok());
    Duration::from_nanos(ran_ns.expect("nanoseconds"))
}

/// The recorded day, with values made before the clock runs.
fn day(runtime: &Runtime, part: &mut Part) {
    let trace = Trace::read(&Trace::recorded()).expect("the recording");
    let fills = trace.calls().iter().filter_map(|call| match call {
        Call::Set {
            key, json_bytes, ..
        } => Some((*key, *json_bytes)),
        _ => None,
    });
    let pages: Vec<Page> = (0..)
        .zip(fills)
        .map(|(fill, (key, bytes))| Page::new(key, fill, bytes))
        .collect();
    let runs: Vec<Duration> = (0..5)
        .map(|_| {
            let server = Server::start();
            runtime.block_on(async {
                let cache = cache(&server).await;
                let cpu = thread_cpu();
                replay(&cache, &trace, &pages).await;
                thread_cpu() - cpu
            })
        })
        .collect();
    let mut seconds: Vec<f64> = runs.iter().map(Duration::as_secs_f64).collect();
    let ours_s = median(&mut seconds);
    part.add(
        "the recorded day: CPU of the provider in use today / ours",
        format!("{PROVIDER_IN_USE_S} s, observed elsewhere, beside {ours_s:.3} s"),
        PROVIDER_IN_USE_S / ours_s,
        Goal::AtLeast(20.0),
    );
}

async fn replay(cache: &Cache, trace: &Trace, pages: &[Page]) {
    let mut pages = pages.iter();
    for call in trace.calls() {
        match call {
            Call::Get { key, .. } => {
                let found = cache.key(name(*key)).get::<Page>().await;
                found.expect("the server is there");
            }
            Call::Set {
                key, tags, ttl_s, ..
            } => {
                let page = pages.next().expect("one for each fill");
                let entry = cache.key(name(*key)).ttl(Duration::from_secs(*ttl_s));
                let stored = entry.tags(trace.names(tags)).set(page).await;
                assert!(
                    stored.expect("the server is there"),
                    "nothing is invalidated meanwhile"
                );
            }
            Call::Clear { tags } => {
                let done = cache.invalidate_auto(trace.names(tags)).await;
                done.expect("the server is there");
            }
        }
    }
}

fn name(key: u32) -> String {
    format!("query:{key}")
}
