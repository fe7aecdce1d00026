//! What 64 tasks that share one client get out of it, beside the redis crate's own connection and fred.

use std::time::{Duration, Instant};

use fred::interfaces::{ClientLike, KeysInterface};
use harness::Server;
use mcache::Cache;
use redis::{AsyncCommands, aio::MultiplexedConnection};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::cpu::median;
use crate::results::{Goal, Part};
use crate::shop;

const TASKS: usize = 64;
/// Of each task in a run, one after the other.
const CALLS: usize = 3_000;
/// Runs of each; they take turns.
const ROUNDS: usize = 9;
const NAMESPACE: &str = "bench";
/// What is read: the size that the goals are set for, and a larger one, of which decoding takes more.
const VALUE_BYTES: [usize; 2] = [200, 1_022];

pub fn run() {
    let mut part = Part::new(
        "Many tasks",
        "make bench",
        "64 tasks share one client on a runtime of as many threads as the machine has; each reads a key of its own with a value of this size over
and over, all hits. In thousands of reads a second, medians of 9 rounds in which all take turns. The redis crate and fred GET a plain key of the
same length; ours decode JSON as well, and what the redis crate leaves of its rate with that alone is the row decoded by hand.",
    );
    println!("{}", part.name);
    // fred has no unix sockets without a feature of its own.
    let server = Server::builder().tcp().start();
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    for bytes in VALUE_BYTES {
        measure(&server, &runtime, bytes, &mut part);
    }
    part.write(&server);
}

fn measure(server: &Server, runtime: &Runtime, bytes: usize, part: &mut Part) {
    let readers = runtime.block_on(readers(server, bytes));
    let mut rates = vec![Vec::new(); readers.len()];
    for _ in 0..ROUNDS {
        for (reader, rates) in readers.iter().zip(&mut rates) {
            rates.push(reader.run(runtime, bytes));
        }
    }
    let rates: Vec<f64> = rates.iter_mut().map(|rates| median(rates)).collect();
    let theirs = rates[0].max(rates[1]);
    for (reader, rate) in readers.iter().zip(&rates) {
        let (name, goal) = match reader {
            Reader::RedisCrate(_) => ("the redis crate's multiplexed connection, GET", Goal::None),
            Reader::Fred(_) => ("fred, GET", Goal::None),
            Reader::ByHand(_) => ("the redis crate's GET, decoded by hand", Goal::None),
            Reader::Get(_) => ("get", Goal::AtLeast(0.9)),
            Reader::GetOrLoad(_) => ("get_or_load", Goal::AtLeast(0.8)),
        };
        part.add(
            format!("{bytes} B: {name} / the faster of the redis crate and fred"),
            format!("{rate:.0} thousand a second beside {theirs:.0}"),
            rate / theirs,
            goal,
        );
    }
}

/// One way to read.
enum Reader {
    RedisCrate(MultiplexedConnection),
    Fred(fred::clients::Client),
    ByHand(MultiplexedConnection),
    Get(Cache),
    GetOrLoad(Cache),
}

async fn readers(server: &Server, bytes: usize) -> [Reader; 5] {
    let cache = Cache::builder(server.tcp_url()).namespace(NAMESPACE);
    let cache = cache
        .caching(true)
        .build()
        .await
        .expect("the server is there");
    let value = shop::value(bytes);
    let json = serde_json::to_vec(&value).expect("a string");
    let client = redis::Client::open(server.tcp_url()).expect("an address");
    let raw = client.get_multiplexed_async_connection().await;
    let mut raw = raw.expect("the server is there");
    for task in 0..TASKS {
        let stored = cache.key(key(task)).set(&value).await;
        assert!(stored.expect("the server is there"), "nothing refuses it");
        let () = raw
            .set(plain_key(task), &value)
            .await
            .expect("the server is there");
        let () = raw
            .set(json_key(task), &json)
            .await
            .expect("the server is there");
    }
    let config = fred::types::config::Config::from_url(&server.tcp_url()).expect("an address");
    let fred = fred::types::Builder::from_config(config)
        .build()
        .expect("a client");
    fred.init().await.expect("the server is there");
    [
        Reader::RedisCrate(raw.clone()),
        Reader::Fred(fred),
        Reader::ByHand(raw),
        Reader::Get(cache.clone()),
        Reader::GetOrLoad(cache),
    ]
}

fn key(task: usize) -> String {
    format!("key {task:02}")
}

/// As long as the key that a cache puts its namespace before.
fn plain_key(task: usize) -> String {
    format!("plain:key {task:02}")
}

/// Of the same length as well.
fn json_key(task: usize) -> String {
    format!("jsons:key {task:02}")
}

impl Reader {
    /// Thousands a second.
    fn run(&self, runtime: &Runtime, bytes: usize) -> f64 {
        let began = Instant::now();
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for task in 0..TASKS {
                match self {
                    Self::RedisCrate(raw) => tasks.spawn(redis_crate(raw.clone(), task, bytes)),
                    Self::Fred(client) => tasks.spawn(fred_client(client.clone(), task, bytes)),
                    Self::ByHand(raw) => tasks.spawn(by_hand(raw.clone(), task, bytes)),
                    Self::Get(cache) => tasks.spawn(get(cache.clone(), task, bytes)),
                    Self::GetOrLoad(cache) => tasks.spawn(get_or_load(cache.clone(), task, bytes)),
                };
            }
            while let Some(ended) = tasks.join_next().await {
                ended.expect("no reader fails");
            }
        });
        let per_second = |spent: Duration| (TASKS * CALLS) as f64 / spent.as_secs_f64();
        per_second(began.elapsed()) / 1_000.0
    }
}

async fn redis_crate(mut connection: MultiplexedConnection, task: usize, bytes: usize) {
    let key = plain_key(task);
    for _ in 0..CALLS {
        let found: Vec<u8> = connection.get(&key).await.expect("the server is there");
        assert_eq!(found.len(), bytes);
    }
}

async fn fred_client(client: fred::clients::Client, task: usize, bytes: usize) {
    let key = plain_key(task);
    for _ in 0..CALLS {
        let found: Vec<u8> = client.get(&key).await.expect("the server is there");
        assert_eq!(found.len(), bytes);
    }
}

async fn by_hand(mut connection: MultiplexedConnection, task: usize, bytes: usize) {
    let key = json_key(task);
    for _ in 0..CALLS {
        let found: Vec<u8> = connection.get(&key).await.expect("the server is there");
        let decoded: String = serde_json::from_slice(&found).expect("what was encoded");
        assert_eq!(decoded.len(), bytes);
    }
}

async fn get(cache: Cache, task: usize, bytes: usize) {
    let key = key(task);
    for _ in 0..CALLS {
        let found = cache.key(&key).get::<String>().await;
        assert_eq!(
            found.expect("the server is there").map(|text| text.len()),
            Some(bytes)
        );
    }
}

async fn get_or_load(cache: Cache, task: usize, bytes: usize) {
    let key = key(task);
    for _ in 0..CALLS {
        let load = async || Err::<String, _>("a hit needs no load");
        let found = cache.key(&key).get_or_load(load).await;
        assert_eq!(found.expect("it is there").len(), bytes);
    }
}
