//! What a process that is stopped costs those who invalidate: its lease once, not at each invalidation.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{KillOnDrop, Server};
use mcache::Cache;
use rustix::process::Signal;
use tokio::runtime::Runtime;

use crate::median_and_p99;

/// Names the server to the process that is stopped; only that one has it.
const SUBSCRIBER: &str = "MCACHE_NEAR_BENCH_SUBSCRIBER";

const LEASE_MS: u64 = 1_000;
const ROUNDS: usize = 1_000;

/// Is this the process that is to be stopped? Then it subscribes and does nothing else until it is killed.
pub fn is_subscriber(runtime: &Runtime) -> bool {
    let Ok(url) = std::env::var(SUBSCRIBER) else {
        return false;
    };
    runtime.block_on(async {
        let _cache = crate::near_at(&url).await;
        println!("subscribed");
        std::future::pending::<()>().await;
    });
    true
}

pub fn run(runtime: &Runtime) {
    let server = Server::builder().feed(LEASE_MS).tcp().start();
    server.session().await_predecessors();
    let child = Command::new(std::env::current_exe().expect("this program"))
        .env(SUBSCRIBER, server.url())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = KillOnDrop(child.expect("this program starts again"));
    let said = BufReader::new(child.0.stdout.take().expect("piped"));
    let subscribed = said.lines().next().is_some_and(|line| line.is_ok());
    assert!(subscribed, "the subscriber has ended");
    let (mut healthy, first, mut rest) = runtime.block_on(async {
        let writer = Cache::builder(server.url()).caching(true).build().await;
        let writer = writer.expect("a cache");
        let mut healthy = Vec::new();
        for _ in 0..ROUNDS {
            healthy.push(settled(&writer).await);
        }
        child.signal(Signal::STOP);
        let first = settled(&writer).await;
        let mut rest = Vec::new();
        for _ in 0..ROUNDS {
            rest.push(settled(&writer).await);
        }
        (healthy, first, rest)
    });
    let (median, p99) = median_and_p99(&mut healthy);
    println!("\nOne process with a near cache, lease {LEASE_MS} ms; `invalidate`, settled:");
    println!("| the process | median | p99 | longest |");
    println!("|---|---|---|---|");
    let row = |what: &str, median: Duration, p99: Duration, longest: Duration| {
        let us = |it: Duration| it.as_micros();
        println!(
            "| {what} | {} us | {} us | {} us |",
            us(median),
            us(p99),
            us(longest)
        );
    };
    row("runs", median, p99, healthy[ROUNDS - 1]);
    row("is stopped: the first after that", first, first, first);
    let (median, p99) = median_and_p99(&mut rest);
    row("is stopped: the next 1,000", median, p99, rest[ROUNDS - 1]);
}

async fn settled(writer: &Cache) -> Duration {
    let began = Instant::now();
    let invalidation = writer.invalidate(["t"]).await.expect("sent");
    assert!(invalidation.is_settled());
    began.elapsed()
}
