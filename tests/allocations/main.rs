//! What is allocated where little or nothing may be: in a program of its own, because its allocator counts.

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

/// How often each is called while it is counted. Less than one in a call is the growth of buffers that are kept.
const HITS: u64 = 1_000;
/// Of a `get` that the server answers. Eight of them are what a GET through the redis crate alone takes.
const GET_MAX: u64 = 9;
/// Of a `get_or_load` that the server answers with a hit.
const GET_OR_LOAD_MAX: u64 = 14;

#[test]
fn a_hit_from_the_server_allocates_no_more_than_it_is_known_to() {
    let server = Server::builder().start();
    // One thread: the connection's own task is counted as well.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let name = "product:0123456789abcd";
    let value = "x".repeat(1_000);
    let (cache, mut plain) = runtime.block_on(async {
        let cache = Cache::builder(server.url()).caching(true);
        let cache = cache.build().await.expect("a cache");
        let stored = cache.key(name).set(&value).await;
        assert!(stored.expect("the server is there"), "nothing refuses it");
        let client = redis::Client::open(server.url()).expect("an address");
        let plain = client.get_multiplexed_async_connection().await;
        let mut plain = plain.expect("the server is there");
        let set = redis::cmd("SET")
            .arg(name)
            .arg(&value)
            .exec_async(&mut plain)
            .await;
        set.expect("stored");
        (cache, plain)
    });
    let get = || async {
        let found = cache.key(name).get::<String>().await;
        assert_eq!(found.expect("read").as_deref(), Some(value.as_str()));
    };
    let get_or_load = || async {
        let load = async || Err::<String, _>("a hit needs no load");
        let found = cache.key(name).get_or_load(load).await;
        assert_eq!(found.expect("it is there"), value);
    };
    let get = counted(&runtime, get);
    let get_or_load = counted(&runtime, get_or_load);
    let plain = counted(&runtime, async || {
        let get = redis::cmd("GET").arg(name).query_async(&mut plain).await;
        let found: String = get.expect("the server is there");
        assert_eq!(found, value);
    });
    let all = format!("get {get}, get_or_load {get_or_load}, the redis crate's GET {plain}");
    println!("allocations a call: {all}");
    assert!(get <= GET_MAX, "{all}");
    assert!(get_or_load <= GET_OR_LOAD_MAX, "{all}");
}

/// Allocations a call, of calls after the first few.
fn counted(runtime: &tokio::runtime::Runtime, mut call: impl AsyncFnMut()) -> u64 {
    let mut calls = |count| {
        runtime.block_on(async {
            for _ in 0..count {
                call().await;
            }
        })
    };
    calls(10);
    allocation_counter::measure(|| calls(HITS)).count_total / HITS
}
