//! One thread reads what is there: the near cache, quick_cache and moka, in turns.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use harness::Server;
use mcache::{Cache, Error, Loaded};
use tokio::runtime::Runtime;

use crate::keys::{self, KEYS, READS};
use crate::median_and_p99;

/// How often each is measured.
const TURNS: usize = 9;

/// Product JSON is longer; what is shared is not touched by a hit.
const VALUE: usize = 100;

pub fn run(runtime: &Runtime, server: &Server) {
    let names = keys::all();
    let value = "x".repeat(VALUE);
    let quick = quick_cache::sync::Cache::<Arc<[u8]>, Arc<String>>::new(2 * KEYS);
    let moka = moka::sync::Cache::<Arc<str>, Arc<String>>::new(2 * KEYS as u64);
    for name in &names {
        quick.insert(name.as_bytes().into(), Arc::new(value.clone()));
        moka.insert(name.as_str().into(), Arc::new(value.clone()));
    }
    let cache = runtime.block_on(async {
        let cache = crate::near(server).await;
        fill(&cache, &names, &value).await;
        cache
    });

    let mut rng = fastrand::Rng::with_seed(16);
    println!(
        "| 100,000 keys of 22 bytes, one thread | near hit | quick_cache | near / quick_cache | moka |"
    );
    println!("|---|---|---|---|---|");
    for (pattern, order, chained) in [
        ("uniform", keys::uniform(&mut rng), false),
        ("Zipf 0.99", keys::zipf(&mut rng), false),
        (
            "uniform, each read after the one before has its value",
            keys::uniform(&mut rng),
            true,
        ),
    ] {
        let (mut ours, mut theirs, mut mokas) = (Vec::new(), Vec::new(), Vec::new());
        let mut ratios = Vec::new();
        for _ in 0..TURNS {
            let near = runtime.block_on(read_near(&cache, &names, &order, chained));
            let quick = read(&order, chained, |at| quick.get(names[at].as_bytes()));
            ratios.push((near.as_nanos() * 1_000 / quick.as_nanos()) as u64);
            ours.push(near);
            theirs.push(quick);
            mokas.push(read(&order, chained, |at| moka.get(names[at].as_str())));
        }
        let each = |times: &mut Vec<Duration>| median_and_p99(times).0.as_nanos() / READS as u128;
        println!(
            "| {pattern} | {} ns | {} ns | {:.2} | {} ns |",
            each(&mut ours),
            each(&mut theirs),
            median_and_p99(&mut ratios).0 as f64 / 1e3,
            each(&mut mokas),
        );
    }
    clock();
    under_invalidations(runtime, server, &cache, &names);
}

/// Has all of them near, each decoded once.
async fn fill(cache: &Cache, names: &[String], value: &str) {
    for part in names.chunks(1_000) {
        loop {
            let load = |missing: Vec<String>| async move {
                let row = |name| (name, Loaded::new(value.to_owned()).tags(["products"]));
                Ok::<_, Error>(missing.into_iter().map(row).collect())
            };
            let entries = cache.keys(part.to_vec()).ttl(Duration::from_secs(86_400));
            entries
                .get_or_load_many(load)
                .await
                .expect("it never fails");
            let mut all = true;
            for name in part {
                let hits = cache.near_stats()[0].hits;
                let found = cache.key(name).get_arc::<String>().await.expect("read");
                all &= found.is_some() && cache.near_stats()[0].hits > hits;
            }
            if all {
                break;
            }
        }
    }
}

/// The place of the next read. Chained, it depends on the value of this one, as in a program that uses what it read:
/// the processor cannot begin the next look-up before this one has ended.
fn next(at: usize, value: &str, chained: bool) -> usize {
    at + if chained { value.len() - VALUE + 1 } else { 1 }
}

fn read(order: &[usize], chained: bool, get: impl Fn(usize) -> Option<Arc<String>>) -> Duration {
    let began = Instant::now();
    let mut at = 0;
    while at < order.len() {
        let value = black_box(get(order[at]).expect("it is there"));
        at = next(at, &value, chained);
    }
    began.elapsed()
}

async fn read_near(cache: &Cache, names: &[String], order: &[usize], chained: bool) -> Duration {
    let began = Instant::now();
    let mut at = 0;
    while at < order.len() {
        let found = cache.key(&names[order[at]]).get_arc::<String>().await;
        let value = black_box(found.expect("read").expect("it is there"));
        at = next(at, &value, chained);
    }
    began.elapsed()
}

/// What of a hit is the lease's clock.
fn clock() {
    let mut times: Vec<Duration> = (0..TURNS)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..READS {
                black_box(rustix::time::clock_gettime(rustix::time::ClockId::Boottime));
            }
            began.elapsed()
        })
        .collect();
    let each = median_and_p99(&mut times).0.as_nanos() / READS as u128;
    println!("\nthe clock of the lease: {each} ns a hit");
}

/// Hits a second on one core, alone and while another process invalidates other entries that are near as well.
fn under_invalidations(runtime: &Runtime, server: &Server, cache: &Cache, names: &[String]) {
    const PER_SECOND: u64 = 1_000;
    let hot: Vec<usize> = (0..READS).map(|at| at % 1_000).collect();
    let rate = || {
        let mut times: Vec<Duration> = (0..TURNS)
            .map(|_| runtime.block_on(read_near(cache, names, &hot, false)))
            .collect();
        READS as f64 / median_and_p99(&mut times).0.as_secs_f64() / 1e6
    };
    let alone = rate();
    let stop = AtomicBool::new(false);
    let (under, sent) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut session = server.session();
            let began = Instant::now();
            let mut sent = 0u64;
            while !stop.load(Relaxed) {
                session.run(&format!("MCACHE.INVALIDATE TAGS mc:other:{}", sent % 5_000));
                sent += 1;
                let due = Duration::from_nanos(sent * 1_000_000_000 / PER_SECOND);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
            sent as f64 / began.elapsed().as_secs_f64()
        });
        let under = rate();
        stop.store(true, Relaxed);
        (under, writer.join().expect("no panic"))
    });
    println!(
        "hits a second of 1,000 hot keys on one core: {alone:.1} million, {under:.1} million while {sent:.0} invalidations a second arrive"
    );
}
