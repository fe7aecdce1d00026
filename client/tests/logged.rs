//! What the client says in the log, and how often.

#[path = "support/log.rs"]
mod log;
mod support;

use log::Log;
use mcache::{Cache, Error, MemoryProvider};
use support::Line;

/// Else a test that expects a line fails where another test came to the same place first.
#[test]
fn what_a_thread_met_that_does_not_listen_is_heard_in_one_that_does() {
    let write = || tracing::warn!("from one place");
    let elsewhere = || {
        std::thread::scope(|scope| {
            scope.spawn(write);
        })
    };
    elsewhere();
    let log = Log::listen(tracing::Level::WARN);
    elsewhere();
    assert_eq!(log.lines_with(&["one place"]).len(), 0);
    write();
    tracing::info!("from one place, of a level that is not listened for");
    assert_eq!(log.lines_with(&["one place"]).len(), 1);
}

#[tokio::test]
async fn what_is_never_kept_is_said_once_for_each_kind_and_family() {
    let log = Log::listen(tracing::Level::WARN);
    let line = Line::new("line");
    let cache = Cache::builder_with(line.clone())
        .value_bytes_max(10)
        .caching(true)
        .build()
        .await
        .unwrap();
    let large = || async { Ok::<_, Error>("longer than ten bytes".to_owned()) };
    for number in 0..10 {
        cache
            .key(format!("page:{number}"))
            .get_or_load(large)
            .await
            .unwrap();
        let named = cache.key(format!("{number}")).family("report");
        named.get_or_load(large).await.unwrap();
        // JSON has no maps whose keys are lists.
        let odd = || async { Ok::<_, Error>(std::collections::HashMap::from([(vec![1], 1)])) };
        cache
            .key(format!("page:{number}"))
            .get_or_load(odd)
            .await
            .unwrap();
    }
    assert_eq!(log.lines_with(&["page", "too_large", "10 bytes"]).len(), 1);
    assert_eq!(log.lines_with(&["report", "too_large"]).len(), 1);
    assert_eq!(log.lines_with(&["page", "codec"]).len(), 1);

    for text in ["too many tags: 2001 > 2000", "SWR is too long"] {
        line.refuse_stores(text);
        for number in 0..10 {
            let small = || async { Ok::<_, Error>(1) };
            cache
                .key(format!("list:{number}"))
                .get_or_load(small)
                .await
                .unwrap();
        }
        tokio::task::yield_now().await;
        assert_eq!(log.lines_with(&["list", text]).len(), 1, "{text}");
    }
}

#[tokio::test]
async fn a_cache_that_is_switched_off_says_so_once_when_it_is_built() {
    let log = Log::listen(tracing::Level::INFO);
    let cache = Cache::builder_with(MemoryProvider::default()).caching(false);
    let cache = cache.build().await.unwrap();
    assert!(!cache.key("k").set(&1).await.unwrap());
    assert_eq!(
        log.lines_with(&["switched off", "MEDUSA_FF_CACHING"]).len(),
        1
    );
}
