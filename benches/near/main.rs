//! What a hit in the near cache costs beside the in-process caches people use, what settling costs beside PUBLISH and
//! with a process that is stopped, and what the feed costs the server.
//!
//! `make bench-near`. Everything is measured in turns within one run, because a machine is not as fast at one moment as
//! at another; each figure is the median of its turns.

mod feed;
mod hits;
mod keys;
mod settling;
mod stopped;

use std::time::Duration;

use harness::Server;
use mcache::{Cache, NearOptions, server::RedisOptions};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    if stopped::is_subscriber(&runtime) {
        return;
    }
    let server = Server::builder().feed(5_000).tcp().start();
    server.session().await_predecessors();
    hits::run(&runtime, &server);
    settling::run(&runtime, &server);
    stopped::run(&runtime);
    feed::run(&runtime);
}

/// A near cache that may serve.
async fn near(server: &Server) -> Cache {
    near_at(&server.url()).await
}

async fn near_at(url: &str) -> Cache {
    let redis = RedisOptions::default().command_deadline(Duration::from_secs(5));
    let cache = Cache::builder(url)
        .redis(redis)
        .near(NearOptions::new().bytes(512 << 20))
        .caching(true)
        .build()
        .await
        .expect("a cache");
    while !cache.near_stats()[0].is_serving() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    cache
}

/// The value in the middle, and the one that 99 of 100 do not exceed.
fn median_and_p99<T: Copy + Ord>(values: &mut [T]) -> (T, T) {
    values.sort_unstable();
    let last = values.len() - 1;
    (values[last / 2], values[last * 99 / 100])
}
