//! What a collector of metrics sees of a near cache, against a server whose answers are written here.

#[allow(dead_code, reason = "another test uses the rest")]
#[path = "../../tests/support/book.rs"]
mod book;

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use book::Book;

use super::NearOptions;
use crate::server::fake::{Fake, reply, until};
use crate::{Cache, Error};

const LEASE_MS: i64 = 60_000;
/// The digest of the only tag.
const DIGEST: u64 = 1;

/// An event about one digest, as FEED tells it, of all databases.
fn event(number: u64, kind: u8) -> Vec<u8> {
    let mut event = number.to_le_bytes().to_vec();
    event.extend([255; 4]);
    event.push(kind);
    event.extend(1u32.to_le_bytes());
    event.extend(DIGEST.to_le_bytes());
    event
}

/// A server that takes all that is stored, has nothing, and tells these events.
fn server(events: Arc<Mutex<Vec<u8>>>) -> Fake {
    let stored = AtomicI64::new(0);
    Fake::start(move |words| {
        Some(match &*words[0] {
            "MCACHE.FEED" => {
                std::thread::sleep(Duration::from_millis(5));
                let told = std::mem::take(&mut *events.lock().expect("no panic"));
                let lease = [reply::text("p"), reply::int(LEASE_MS), reply::int(0)];
                let gap = reply::list([reply::text([7; 16]), reply::int(20)]);
                let gap = (words[1] == "NEW").then_some(gap);
                let parts = lease.into_iter().chain([reply::text(told)]);
                reply::list(parts.chain(gap))
            }
            "MCACHE.FETCH" => reply::list([
                reply::text("miss"),
                reply::nil(),
                reply::text("token"),
                reply::nil(),
            ]),
            "MCACHE.SET" if !words.iter().any(|word| word == "NEAR") => b"+OK\r\n".to_vec(),
            "MCACHE.SET" => {
                let digests = reply::text(DIGEST.to_le_bytes());
                // Each is younger than what was told before.
                let number = 1 + 4 * stored.fetch_add(1, Relaxed);
                reply::list([reply::int(number), reply::int(-1), reply::int(0), digests])
            }
            _ => reply::int(0),
        })
    })
}

/// Runs it with a collector of its own.
fn written(run: impl AsyncFnOnce(&Book)) -> Book {
    let book = Book::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    metrics::with_local_recorder(&book, || runtime.block_on(run(&book)));
    book
}

async fn cache(server: &Fake) -> Cache {
    let builder = Cache::builder_with(server.provider()).near(NearOptions::new());
    builder.caching(true).build().await.expect("a cache")
}

const LEASE: &str = "mcache_client_near_lease_seconds{}";
const BYTES: &str = "mcache_client_near_bytes{}";

fn dropped(book: &Book, reason: &str) -> f64 {
    let name = format!("mcache_client_near_drops_total{{reason={reason}}}");
    book.of(&name).iter().sum()
}

#[test]
fn a_collector_sees_hits_drops_by_reason_the_age_of_the_feed_and_the_lease() {
    let events = Arc::<Mutex<Vec<u8>>>::default();
    let server = server(events.clone());
    let book = written(async |book| {
        let cache = cache(&server).await;
        until("a lease", || cache.near_stats()[0].is_serving()).await;
        let load = async || Ok::<_, Error>(7);
        let read = async || cache.key("k").tags(["t"]).get_or_load(load).await;
        read().await.expect("loaded");
        until("it is near", || cache.near_stats()[0].entries == 1).await;
        for _ in 0..3 {
            read().await.expect("near");
        }
        let is_told = || book.of(BYTES).iter().any(|bytes| *bytes > 256.0);
        until("its bytes are told with the next answer", is_told).await;
        events.lock().expect("no panic").extend(event(2, b'h'));
        until("it is dropped", || dropped(book, "tag") > 0.0).await;
        read().await.expect("loaded");
        until("it is near", || cache.near_stats()[0].entries == 1).await;
        cache.key("k").tags(["t"]).set(&8).await.expect("stored");
    });
    let sum = |name: &str| book.of(name).iter().sum::<f64>();
    assert_eq!(sum("mcache_client_reads_total{outcome=near}"), 3.0);
    assert_eq!(sum("mcache_client_reads_total{outcome=miss}"), 2.0);
    assert_eq!(sum("mcache_client_near_puts_total{outcome=kept}"), 2.0);
    assert_eq!((dropped(&book, "tag"), dropped(&book, "own")), (1.0, 1.0));
    assert_eq!(dropped(&book, "evicted"), 0.0);
    let ages = book.of("mcache_client_near_feed_age_seconds{}");
    assert!(ages.len() > 1, "{:?}", book.names());
    // The server takes five milliseconds for each answer.
    assert!(ages.iter().all(|age| *age >= 0.004), "{ages:?}");
    let leases = book.of(LEASE);
    let lease = LEASE_MS as f64 / 1e3;
    assert!(leases.len() > 1 && leases.iter().all(|left| (0.0..=lease).contains(left)));
    assert!(leases.iter().any(|left| *left > 0.0), "{leases:?}");
    assert!(book.of(BYTES).contains(&0.0));
}

/// The alarm of docs/guide.md: the server is away or grants no lease, so no answer says that the lease is over.
#[test]
fn a_collector_sees_that_nothing_is_near_when_no_lease_is_granted_any_more() {
    let fake = Fake::start(|words| {
        let granted = [reply::text("p"), reply::int(200), reply::int(0)];
        let gap = reply::list([reply::text([7; 16]), reply::int(20)]);
        Some(match words.get(1).is_some_and(|word| word == "NEW") {
            true => reply::list(granted.into_iter().chain([reply::text(""), gap])),
            false => b"-NONEAR not now\r\n".to_vec(),
        })
    });
    let book = written(async |book| {
        let _cache = cache(&fake).await;
        until("it is told", || book.of(LEASE).last() == Some(&0.0)).await;
    });
    assert!(book.of(LEASE).len() > 1, "it fell");
}
