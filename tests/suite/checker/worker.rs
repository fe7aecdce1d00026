//! One of the processes: readers and writers, or a part of the herd, until the store says stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::support::runtime::runtime;

use super::PROCESSES;
use super::caching::{Caching, HERD_LOADER_TIMEOUT, Kind, LOADER_TIMEOUT};
use super::store::{Floors, HERD_KEY, KEYS, RECORDS, Versions};

/// What a worker is started with, in its environment.
pub const ENVIRONMENT: [&str; 5] = [
    "MCACHE_CHECKER_STORE",
    "MCACHE_CHECKER_CACHE",
    "MCACHE_CHECKER_KIND",
    "MCACHE_CHECKER_SEED",
    "MCACHE_CHECKER_ROLE",
];

/// Readers in a process.
const READERS: usize = 60;
/// Reads of a near cache after one question for what must not be undercut: it holds for all that come later.
const BURST: usize = 2_000;
/// Writers in a process.
const WRITERS: usize = 3;

/// Runs until the store says stop; `None` if this is not a worker's process.
pub fn run() -> Option<()> {
    let [store, cache, kind, seed, role] =
        ENVIRONMENT.map(|name| std::env::var(name).unwrap_or_default());
    if store.is_empty() {
        return None;
    }
    runtime().block_on(async {
        let loader_timeout = match &*role {
            "traffic" => LOADER_TIMEOUT,
            _ => HERD_LOADER_TIMEOUT,
        };
        let caching = Caching::connect(&cache, Kind::named(&kind), loader_timeout).await;
        let mut rng = fastrand::Rng::with_seed(seed.parse().expect("a seed"));
        let members: usize = match &*role {
            "traffic" => {
                let readers = (0..READERS)
                    .map(|_| tokio::spawn(read(store.clone(), caching.clone(), rng.fork())));
                let readers: Vec<_> = readers.collect();
                let writers = (0..WRITERS)
                    .map(|_| tokio::spawn(write(store.clone(), caching.clone(), rng.fork())));
                let writers: Vec<_> = writers.collect();
                for task in readers.into_iter().chain(writers) {
                    task.await.expect("a task that does not panic");
                }
                if Kind::named(&kind) == Kind::Near {
                    at_rest(&store, &caching).await;
                }
                return;
            }
            members => members.parse().expect("a number of callers"),
        };
        herd(&store, caching, members).await;
    });
    Some(())
}

/// A connection to the store; anything that goes wrong with it means that the test is over.
///
/// A question may be dropped before its answer came: by a caller that gives up, or by the cache, which drops a loader
/// whose time is over. The next question then takes a new connection, because the old one still holds the other answer.
struct Truth {
    path: String,
    stream: BufReader<UnixStream>,
    awaits_an_answer: bool,
}

impl Truth {
    async fn connect(path: &str) -> Self {
        let stream = UnixStream::connect(path).await.expect("the store is there");
        Self {
            path: path.to_owned(),
            stream: BufReader::new(stream),
            awaits_an_answer: false,
        }
    }

    async fn ask(&mut self, line: &str) -> String {
        if self.awaits_an_answer {
            *self = Self::connect(&self.path).await;
        }
        self.awaits_an_answer = true;
        self.stream
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())
            .await
            .expect("the store listens");
        let mut answer = String::new();
        self.stream
            .read_line(&mut answer)
            .await
            .expect("the store answers");
        self.awaits_an_answer = false;
        answer.trim_end().to_owned()
    }

    /// `None`: stop.
    async fn floors(&mut self, key: usize) -> Option<Floors> {
        let [a, b, c, d] = numbers(&self.ask(&format!("floors {key}")).await)?;
        Some(Floors {
            live: [a, b],
            stale: [c, d],
        })
    }

    /// Reads the records of a key, as a database that takes its time.
    async fn load(&mut self, key: usize, takes: Duration) -> Versions {
        let process = std::process::id();
        let versions =
            numbers(&self.ask(&format!("load {key} {process}")).await).expect("two versions");
        sleep(takes).await;
        self.ask(&format!("loaded {key} {process}")).await;
        versions
    }

    async fn report(&mut self, counts: &BTreeMap<&str, u32>, slowest: Duration) {
        for (what, count) in counts {
            self.ask(&format!("count {count} {what}")).await;
        }
        self.ask(&format!("slowest {}", slowest.as_millis())).await;
    }
}

fn numbers<const N: usize>(answer: &str) -> Option<[u32; N]> {
    let numbers: Vec<u32> = answer
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    numbers.try_into().ok()
}

async fn read(store: String, caching: Caching, mut rng: fastrand::Rng) {
    let mut truth = Truth::connect(&store).await;
    let loader = Arc::new(Mutex::new(Truth::connect(&store).await));
    let (mut counts, mut slowest) = (BTreeMap::new(), Duration::ZERO);
    loop {
        let key = rng.usize(..KEYS);
        let Some(floors) = truth.floors(key).await else {
            break;
        };
        let takes = Duration::from_millis(rng.u64(0..25));
        let load = |key| {
            let loader = loader.clone();
            async move { loader.lock().await.load(key, takes).await }
        };
        let began = Instant::now();
        let mut choices = rng.fork();
        let read = caching.read(key, &mut choices, load);
        // Some callers lose patience, at any point of the call.
        let patience = match rng.u8(..20) {
            0 => Duration::from_millis(rng.u64(0..30)),
            _ => Duration::from_secs(3_600),
        };
        let read = timeout(patience, read).await;
        slowest = slowest.max(began.elapsed());
        let Ok(read) = read else {
            *counts.entry("abandoned").or_default() += 1;
            continue;
        };
        *counts.entry("reads").or_default() += 1;
        *counts.entry("cached").or_default() += u32::from(read.cached);
        if !read.is_allowed(floors) {
            let what = if read.may_be_stale { "stale" } else { "live" };
            let report = format!(
                "stale read of key {key}: {:?} as {what}, acknowledged {floors:?}",
                read.value
            );
            truth.ask(&report).await;
        }
        if caching.near(key).is_some() {
            let Some(floors) = truth.floors(key).await else {
                break;
            };
            // Told at once: the history goes on until there are enough.
            let near = read_near(&mut truth, &caching, key, floors).await;
            truth.ask(&format!("count {near} near")).await;
        }
        if rng.u8(..4) == 0 {
            sleep(Duration::from_millis(rng.u64(0..10))).await;
        }
    }
    truth.report(&counts, slowest).await;
}

/// Reads a key from near as long as it is there; how often. Only what was a near hit counts.
async fn read_near(truth: &mut Truth, caching: &Caching, key: usize, floors: Floors) -> u32 {
    let mut reads = 0;
    for value in (0..BURST).map_while(|_| caching.near(key)) {
        reads += 1;
        if value.iter().zip(floors.live).any(|(v, floor)| *v < floor) {
            let report =
                format!("stale near read of key {key}: {value:?}, acknowledged {floors:?}");
            truth.ask(&report).await;
            break;
        }
    }
    reads
}

/// When no writer runs any more, nothing that a near cache serves is outdated.
async fn at_rest(store: &str, caching: &Caching) {
    let mut truth = Truth::connect(store).await;
    truth.ask("resting 1").await;
    let mut resting = [0];
    while resting[0] < PROCESSES as u32 {
        sleep(Duration::from_millis(5)).await;
        resting = numbers(&truth.ask("resting 0").await).expect("a number");
    }
    for key in 0..KEYS {
        let floors: [u32; 4] = numbers(&truth.ask(&format!("rest {key}")).await).expect("four");
        if let Some(value) = caching.near(key)
            && value.iter().zip(floors).any(|(v, floor)| *v < floor)
        {
            let report = format!("stale near read at rest of key {key}: {value:?}, {floors:?}");
            truth.ask(&report).await;
        }
    }
}

async fn write(store: String, caching: Caching, mut rng: fastrand::Rng) {
    let mut truth = Truth::connect(&store).await;
    let mut counts = BTreeMap::new();
    loop {
        sleep(Duration::from_millis(rng.u64(0..60))).await;
        let record = rng.usize(..RECORDS);
        let Ok(version) = truth.ask(&format!("commit {record}")).await.parse::<u32>() else {
            break;
        };
        let soft = rng.u8(..4) == 0 && matches!(caching, Caching::Mcache(_));
        let began = Instant::now();
        if caching.invalidate(record, soft).await {
            *counts.entry("invalidations").or_default() += 1;
            let hard = u8::from(!soft);
            truth
                .ask(&format!("acknowledged {record} {version} {hard}"))
                .await;
        } else {
            *counts.entry("not_acknowledged").or_default() += 1;
        }
        *counts.entry("retried").or_default() +=
            u32::from(began.elapsed() > Duration::from_millis(600));
    }
    truth.report(&counts, Duration::ZERO).await;
}

/// A round for each line on standard input: all callers at once, and a line on standard output when the last is served.
async fn herd(store: &str, caching: Caching, members: usize) {
    let loader = Arc::new(Mutex::new(Truth::connect(store).await));
    let mut rounds = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = rounds.next_line().await {
        let takes = Duration::from_millis(line.parse().expect("milliseconds"));
        let callers = (0..members).map(|_| {
            let (caching, loader) = (caching.clone(), loader.clone());
            tokio::spawn(async move {
                let Caching::Mcache(cache) = &caching else {
                    panic!("the herd is mcache's");
                };
                let load = || async {
                    Ok::<_, mcache::Error>(loader.lock().await.load(HERD_KEY, takes).await)
                };
                let entry = cache.key("herd").tags([super::caching::tag(RECORDS)]);
                entry.get_or_load(load).await.expect("it never fails")
            })
        });
        let values: Vec<Versions> = join_all(callers)
            .await
            .into_iter()
            .map(|v| v.expect("no panic"))
            .collect();
        let oldest = values.iter().map(|value| value[0]).min().unwrap_or(0);
        println!("served {oldest}");
    }
}
