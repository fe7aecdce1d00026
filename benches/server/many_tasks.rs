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
const VALUE_BYTES: usize = 1_022;

pub fn run() {
    let mut part = Part::new(
        "Many tasks",
        "make bench",
        "64 tasks share one client on a runtime of as many threads as the machine has; each reads a key of its own with a value of 1 KiB over
and over, all hits. In thousands of reads a second, medians of 9 rounds in which all take turns. The redis crate and fred GET a plain key of the
same length; ours decode JSON as well.",
    );
    println!("{}", part.name);
    // fred has no unix sockets without a feature of its own.
    let server = Server::builder().tcp().start();
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let readers = runtime.block_on(readers(&server));
    let mut rates = vec![Vec::new(); readers.len()];
    for _ in 0..ROUNDS {
        for (reader, rates) in readers.iter().zip(&mut rates) {
            rates.push(reader.run(&runtime));
        }
    }
    let rates: Vec<f64> = rates.iter_mut().map(|rates| median(rates)).collect();
    let theirs = rates[0].max(rates[1]);
    for (reader, rate) in readers.iter().zip(&rates) {
        let (name, goal) = match reader {
            Reader::RedisCrate(_) => ("the redis crate's multiplexed connection, GET", Goal::None),
            Reader::Fred(_) => ("fred, GET", Goal::None),
            Reader::Get(_) => ("get", Goal::AtLeast(0.9)),
            Reader::GetOrLoad(_) => ("get_or_load", Goal::AtLeast(0.8)),
        };
        part.add(
            format!("{name} / the faster of the redis crate and fred"),
            format!("{rate:.0} thousand a second beside {theirs:.0}"),
            rate / theirs,
            goal,
        );
    }
    part.write(&server);
}

/// One way to read.
enum Reader {
    RedisCrate(MultiplexedConnection),
    Fred(fred::clients::Client),
    Get(Cache),
    GetOrLoad(Cache),
}

async fn readers(server: &Server) -> [Reader; 4] {
    let cache = Cache::builder(server.tcp_url()).namespace(NAMESPACE);
    let cache = cache
        .caching(true)
        .build()
        .await
        .expect("the server is there");
    let value = shop::value(VALUE_BYTES);
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
    }
    let config = fred::types::config::Config::from_url(&server.tcp_url()).expect("an address");
    let fred = fred::types::Builder::from_config(config)
        .build()
        .expect("a client");
    fred.init().await.expect("the server is there");
    [
        Reader::RedisCrate(raw),
        Reader::Fred(fred),
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

impl Reader {
    /// Thousands a second.
    fn run(&self, runtime: &Runtime) -> f64 {
        let began = Instant::now();
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for task in 0..TASKS {
                match self {
                    Self::RedisCrate(raw) => tasks.spawn(redis_crate(raw.clone(), task)),
                    Self::Fred(client) => tasks.spawn(fred_client(client.clone(), task)),
                    Self::Get(cache) => tasks.spawn(get(cache.clone(), task)),
                    Self::GetOrLoad(cache) => tasks.spawn(get_or_load(cache.clone(), task)),
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

async fn redis_crate(mut connection: MultiplexedConnection, task: usize) {
    let key = plain_key(task);
    for _ in 0..CALLS {
        let found: Vec<u8> = connection.get(&key).await.expect("the server is there");
        assert_eq!(found.len(), VALUE_BYTES);
    }
}

async fn fred_client(client: fred::clients::Client, task: usize) {
    let key = plain_key(task);
    for _ in 0..CALLS {
        let found: Vec<u8> = client.get(&key).await.expect("the server is there");
        assert_eq!(found.len(), VALUE_BYTES);
    }
}

async fn get(cache: Cache, task: usize) {
    let key = key(task);
    for _ in 0..CALLS {
        let found = cache.key(&key).get::<String>().await;
        assert_eq!(
            found.expect("the server is there").map(|text| text.len()),
            Some(VALUE_BYTES)
        );
    }
}

async fn get_or_load(cache: Cache, task: usize) {
    let key = key(task);
    for _ in 0..CALLS {
        let load = async || Err::<String, _>("a hit needs no load");
        let found = cache.key(&key).get_or_load(load).await;
        assert_eq!(found.expect("it is there").len(), VALUE_BYTES);
    }
}
