//! `get_or_load` and its relatives: one load per key, nothing old, no caller stuck.

mod batches;
mod failing;
mod flight;
mod nested;
mod options;
mod stale;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use mcache::{Cache, Error, Loaded, MemoryProvider, Source};
use support::Line;
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, advance, sleep, timeout},
};

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(120);

async fn cache() -> Cache {
    cache_on(MemoryProvider::default()).await
}

async fn cache_on(provider: impl mcache::Provider) -> Cache {
    Cache::builder_with(provider)
        .caching(true)
        .build()
        .await
        .expect("a cache")
}

/// A database that counts how often it is asked.
#[derive(Clone, Default)]
struct Database {
    loads: Arc<AtomicUsize>,
}

impl Database {
    async fn load(&self) -> Result<usize, Error> {
        Ok(self.loads.fetch_add(1, SeqCst) + 1)
    }

    async fn load_slowly(&self, time: Duration) -> Result<usize, Error> {
        let value = self.load().await;
        sleep(time).await;
        value
    }

    fn loads(&self) -> usize {
        self.loads.load(SeqCst)
    }
}

/// A thousand callers who want the same value at once.
fn a_thousand(cache: &Cache, source: &Database) -> Vec<JoinHandle<Result<usize, Error>>> {
    let call = |_| {
        let (cache, source) = (cache.clone(), source.clone());
        tokio::spawn(async move {
            let load = || source.load_slowly(Duration::from_millis(100));
            cache.key("k").tags(["t"]).get_or_load(load).await
        })
    };
    (0..1000).map(call).collect()
}

/// What a future comes to if it is polled once and then left alone.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        Poll::Ready(match Pin::new(&mut *future).poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// Lets every task run until it waits for something.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
