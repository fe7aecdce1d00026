//! How does a slow source keep no caller waiting, and a failing one hurt no caller?
//!
//! `cargo run -p mcache --example stale`

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use mcache::{Cache, Error, ErrorKind, Loaded, MemoryProvider};
use tokio::time::sleep;

static VERSION: AtomicU32 = AtomicU32::new(1);

async fn slow_report() -> Result<Loaded<u32>, Error> {
    sleep(Duration::from_millis(50)).await;
    Ok(Loaded::new(VERSION.fetch_add(1, Relaxed)))
}

async fn failing_report() -> Result<Loaded<u32>, Error> {
    Err(Error::new(ErrorKind::Unavailable, "the database is down"))
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), Error> {
    let cache = Cache::builder_with(MemoryProvider::default())
        .caching(true)
        .build()
        .await?;
    let report = || {
        let entry = cache.key("report").tags(["Report"]);
        entry
            .ttl(Duration::from_secs(60))
            .swr(Duration::from_secs(3600))
    };
    let served = report().load_detached(slow_report).await?;
    println!("{}: version {}", served.source.as_str(), served.value);

    // Its data changed, but an old report is better than waiting: it becomes stale instead of dead.
    cache.soft_invalidate(["Report"]).await?;
    let served = report().load_detached(slow_report).await?;
    println!(
        "{}: version {}, refreshed meanwhile",
        served.source.as_str(),
        served.value
    );
    cache.shutdown(Duration::from_secs(5)).await;
    let served = report().load_detached(slow_report).await?;
    println!("{}: version {}", served.source.as_str(), served.value);

    cache.soft_invalidate(["Report"]).await?;
    let served = report().stale_if_error(true).load(failing_report).await?;
    println!(
        "{}: version {}, the source failed",
        served.source.as_str(),
        served.value
    );
    Ok(())
}
