//! What is allocated where nothing may be: in a program of its own, because its allocator counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::Server;
use mcache::{Cache, Error, NearOptions};
use tokio::runtime::Builder;

#[test]
fn a_shared_hit_in_the_near_cache_allocates_nothing() {
    let server = Server::builder().feed(5_000).start();
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let cache = Cache::builder(server.url())
            .near(NearOptions::new())
            .caching(true)
            .build()
            .await
            .expect("a cache");
        let name = "product:0123456789abcd";
        let read = || cache.key(name).get_arc::<String>();
        let load = || async { Ok::<_, Error>("a red shirt".to_owned()) };
        let began = Instant::now();
        // What other threads allocate is not counted, and a hit never leaves this one.
        loop {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "it is never near"
            );
            cache.key(name).get_or_load(load).await.expect("loaded");
            let Some(shared) = read().await.expect("read") else {
                continue;
            };
            let hits = cache.near_stats()[0].hits;
            let mut decoded = 0;
            let counted = allocation_counter::measure(|| {
                for _ in 0..1_000 {
                    match futures_util::FutureExt::now_or_never(read()) {
                        Some(found) => {
                            let found = found.expect("read").expect("it is cached");
                            assert_eq!(*found, "a red shirt");
                            decoded += u32::from(!Arc::ptr_eq(&found, &shared));
                        }
                        // It has to ask the server: not near yet, or the lease was over for a moment.
                        None => return,
                    }
                }
            });
            // The first hit of a value that came from the server decodes it for all that follow. It is another object.
            if decoded == 0 && cache.near_stats()[0].hits == hits + 1_000 {
                assert_eq!(counted.count_total, 0, "{counted:?}");
                return;
            }
        }
    });
}
