//! What is counted and measured, as a collector sees it.

#[path = "support/book.rs"]
mod book;

use std::time::Duration;

use book::Book;
use mcache::{Cache, Error, Loaded, MemoryProvider};

/// Runs it in virtual time, with a book of its own.
fn written(run: impl AsyncFnOnce(Cache)) -> Book {
    let book = Book::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    metrics::with_local_recorder(&book, || {
        runtime.block_on(async {
            let builder = Cache::builder_with(MemoryProvider::default());
            run(builder.caching(true).build().await.expect("a cache")).await;
        });
    });
    book
}

#[test]
fn how_long_reads_take_is_measured_by_outcome_and_family() {
    let second = Duration::from_secs(1);
    let book = written(async |cache| {
        let load = async || {
            tokio::time::sleep(second).await;
            Ok::<_, Error>(1)
        };
        for _ in 0..2 {
            let entry = || cache.key("product:1").family("product");
            entry().get_or_load(load).await.unwrap();
            let other = cache.key("other").get_or_load(load).await;
            other.unwrap();
        }
        cache.key("other").get::<i32>().await.unwrap();
    });
    let seconds = |labels: &str| book.of(&format!("mcache_client_read_seconds{{{labels}}}"));
    let near = |seconds: Vec<f64>, expected: &[f64]| {
        assert_eq!(seconds.len(), expected.len(), "{:?}", book.names());
        for (seconds, expected) in seconds.iter().zip(expected) {
            assert!((seconds - expected).abs() < 0.1, "{seconds}");
        }
    };
    near(seconds("outcome=miss,family=product"), &[1.0]);
    near(seconds("outcome=hit,family=product"), &[0.0]);
    near(seconds("outcome=miss"), &[1.0]);
    near(seconds("outcome=hit"), &[0.0, 0.0]);
    assert_eq!(
        book.of("mcache_client_reads_total{outcome=hit}"),
        [1.0, 1.0]
    );
}

const TWO: [&str; 2] = ["a", "b"];

#[test]
fn a_batch_is_measured_as_a_whole_and_counted_by_key() {
    let book = written(async |cache| {
        let load = |missing: Vec<&'static str>| async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let rows = missing.into_iter().map(|key| (key, Loaded::new(1)));
            Ok::<_, Error>(rows.collect())
        };
        let keys = || cache.keys(TWO).family("of two");
        keys().get_or_load_many(load).await.unwrap();
        keys().get_or_load_many(load).await.unwrap();
        keys().get_many::<i32>().await.unwrap();
    });
    let seconds = book.of("mcache_client_batch_seconds{family=of two}");
    let seconds: Vec<i64> = seconds.iter().map(|s| s.round() as i64).collect();
    assert_eq!(seconds, [2, 0, 0]);
    let reads = |outcome| {
        let name = format!("mcache_client_reads_total{{outcome={outcome},family=of two}}");
        book.of(&name).iter().sum::<f64>()
    };
    assert_eq!((reads("miss"), reads("hit")), (2.0, 4.0));
    let loads = book.of("mcache_client_loader_seconds{outcome=loaded,family=of two}");
    assert_eq!(loads.len(), 1);
}
