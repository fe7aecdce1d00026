//! What an invalidation costs until it is settled with 16 near caches, beside PUBLISH until 16 subscribers have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use harness::Server;
use mcache::{Cache, server::RedisOptions};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use crate::median_and_p99;

const LISTENERS: usize = 16;
const ROUNDS: usize = 2_000;
/// Before each, so that none is measured together with what it needed beforehand: the feed tells a near cache at most
/// once in 0.85 ms where there are 17.
const PAUSE: Duration = Duration::from_millis(3);

pub fn run(runtime: &Runtime, server: &Server) {
    let heard = Arc::new((AtomicU64::new(0), Notify::new()));
    let subscribers: Vec<_> = (0..LISTENERS)
        .map(|_| {
            let (heard, url) = (heard.clone(), server.tcp_url());
            std::thread::spawn(move || subscribe(&url, &heard))
        })
        .collect();
    let (mut settled, mut published, mut invisible) = runtime.block_on(async {
        let mut caches = Vec::new();
        for _ in 0..LISTENERS {
            caches.push(crate::near(server).await);
        }
        let redis = RedisOptions::default().command_deadline(Duration::from_secs(5));
        let writer = Cache::builder(server.url()).redis(redis).caching(true);
        let writer = writer.build().await.expect("a cache");
        let client = redis::Client::open(server.url()).expect("an address");
        let publisher = client.get_multiplexed_async_connection().await;
        let mut publisher = publisher.expect("a connection");
        // All subscribers listen once each has heard something.
        while heard.0.load(SeqCst) < LISTENERS as u64 {
            publish(&mut publisher).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (mut settled, mut published, mut invisible) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let reader = &caches[round % LISTENERS];
            make_near(reader, round).await;
            let began = Instant::now();
            let invalidation = writer.invalidate(["t"]).await.expect("sent");
            assert!(invalidation.is_settled());
            settled.push(began.elapsed());

            // In a round of its own: who looks all the time takes the processor from those who are to hear of it.
            make_near(reader, round).await;
            let began = Instant::now();
            let gone = when_it_is_gone(reader.clone(), began);
            writer.invalidate(["t"]).await.expect("sent");
            invisible.push(gone.await.expect("no panic"));

            tokio::time::sleep(PAUSE).await;
            let before = heard.0.load(SeqCst);
            let began = Instant::now();
            publish(&mut publisher).await;
            while heard.0.load(SeqCst) < before + LISTENERS as u64 {
                heard.1.notified().await;
            }
            published.push(began.elapsed());
        }
        (settled, published, invisible)
    });
    println!("\n| 16 listeners, one after the other | median | p99 |");
    println!("|---|---|---|");
    for (what, times) in [
        ("PUBLISH, until all have it", &mut published),
        ("`invalidate`, settled", &mut settled),
        (
            "`invalidate`, until another near cache has forgotten",
            &mut invisible,
        ),
    ] {
        let (median, p99) = median_and_p99(times);
        println!(
            "| {what} | {} us | {} us |",
            median.as_micros(),
            p99.as_micros()
        );
    }
    // Their connections end with the server.
    drop(subscribers);
}

/// One near cache has an entry, and no other has heard of anything for a while.
async fn make_near(reader: &Cache, value: usize) {
    reader.key("k").tags(["t"]).set(&value).await.expect("set");
    while reader.near_stats()[0].entries == 0 {
        reader.key("k").get::<usize>().await.expect("read");
    }
    tokio::time::sleep(PAUSE).await;
}

/// How long after `began` the entry has left.
fn when_it_is_gone(reader: Cache, began: Instant) -> tokio::task::JoinHandle<Duration> {
    tokio::task::spawn_blocking(move || {
        while reader.near_stats()[0].entries > 0 {
            std::thread::sleep(Duration::from_micros(20));
        }
        began.elapsed()
    })
}

async fn publish(publisher: &mut redis::aio::MultiplexedConnection) {
    let mut cmd = redis::cmd("PUBLISH");
    cmd.arg("news").arg("x");
    cmd.query_async::<i64>(publisher).await.expect("sent");
}

fn subscribe(url: &str, heard: &(AtomicU64, Notify)) {
    let client = redis::Client::open(url).expect("an address");
    let mut connection = client.get_connection().expect("a connection");
    let mut messages = connection.as_pubsub();
    messages.subscribe("news").expect("subscribed");
    while messages.get_message().is_ok() {
        heard.0.fetch_add(1, SeqCst);
        heard.1.notify_one();
    }
}
