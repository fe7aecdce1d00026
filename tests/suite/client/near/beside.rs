//! The near cache beside what else the client does: stale windows, an entry that the server has evicted, what is told
//! of it.

use std::time::Duration;

use mcache::{Error, Loaded, Source};

use super::*;
use crate::support::runtime::run;

#[test]
fn what_is_softly_invalidated_is_not_served_from_near_and_the_server_says_who_gets_it_stale() {
    let server = options().start();
    server.session().await_predecessors();
    run(async {
        let (reader, writer) = (near(&server.url()).await, plain(&server.url()).await);
        until_near(&reader, "other", 1).await;
        let load = |value: u32| move || async move { Ok::<_, Error>(Loaded::new(value)) };
        let entry = || {
            let entry = reader.key("k").tags(["soft"]);
            entry.swr(Duration::from_secs(600))
        };
        let began = Instant::now();
        while entry().load(load(1)).await.expect("loaded").source != Source::Near {
            assert!(began.elapsed() < PATIENCE, "{:?}", stats(&reader));
        }
        let told = writer.soft_invalidate(["soft"]).await.expect("sent");
        assert!(told.is_settled());
        assert_eq!(reader.key("k").get::<u32>().await.expect("read"), None);
        // The caller that refreshes holds the lease at the server; the others get the stale value from there, and do
        // not keep it.
        let (begin, begun) = tokio::sync::oneshot::channel();
        let (go_on, goes_on) = tokio::sync::oneshot::channel::<()>();
        let refresh = {
            let writer = writer.clone();
            tokio::spawn(async move {
                let load = || async move {
                    begin.send(()).expect("a receiver waits");
                    goes_on.await.expect("it goes on");
                    Ok::<_, Error>(Loaded::new(2u32))
                };
                let entry = writer.key("k").tags(["soft"]);
                let entry = entry.swr(Duration::from_secs(600));
                entry.load(load).await.expect("loaded")
            })
        };
        begun.await.expect("it begins");
        for _ in 0..10 {
            let served = entry().load(load(3)).await.expect("served");
            assert_eq!((served.value, served.source), (1, Source::Stale));
        }
        go_on.send(()).expect("it waits");
        assert_eq!(refresh.await.expect("no panic").value, 2);
        let began = Instant::now();
        loop {
            let served = entry().load(load(4)).await.expect("served");
            match served.source {
                Source::Near => {
                    assert_eq!(served.value, 2);
                    break;
                }
                // It is stored after it was given to the caller that refreshed.
                Source::Stale => assert_eq!(served.value, 1),
                _ => assert_eq!(served.value, 2),
            }
            assert!(began.elapsed() < PATIENCE, "{:?}", stats(&reader));
        }
    });
}

#[test]
fn what_is_hot_here_and_gone_there_is_served_until_it_is_invalidated() {
    let server = options().set("maxmemory-policy", "allkeys-lru").start();
    let mut session = server.session();
    session.await_predecessors();
    run(async {
        let (reader, writer) = (near(&server.url()).await, plain(&server.url()).await);
        until_near(&reader, "k", 1).await;
        session.ok("CONFIG SET maxmemory 1");
        until("it is evicted", || session.int("DBSIZE") == 0).await;
        session.ok("CONFIG SET maxmemory 0");
        // No other process has it any more; here it goes on.
        assert_eq!(writer.key("k").get::<u32>().await.expect("read"), None);
        let before = executed(&mut session);
        for _ in 0..100 {
            let served = load(&reader, "k", 2).await;
            assert_eq!((served.value, served.source), (1, Source::Near));
        }
        assert_eq!(executed(&mut session), before);
        // No entry at the server carries the tag, and it is told all the same.
        invalidate(&writer, "t").await;
        assert_eq!(reader.key("k").get::<u32>().await.expect("read"), None);
    });
}

#[test]
fn why_entries_left_is_counted_and_how_old_the_feed_is() {
    let server = options().start();
    let mut session = server.session();
    session.await_predecessors();
    run(async {
        let (cache, other) = (near(&server.url()).await, plain(&server.url()).await);
        let primary = stats(&cache).primaries.remove(0);
        assert!(primary.lease_left <= Duration::from_millis(5_000));
        assert!(primary.heard.is_some() && primary.refusal.is_none());
        assert_eq!(stats(&cache).drops, mcache::NearDrops::default());

        until_near(&cache, "k", 1).await;
        invalidate(&other, "t").await;
        until("by tag", || stats(&cache).drops.tags == 1).await;

        until_near(&cache, "k", 2).await;
        session.run("DEL mc:k");
        until("by key", || stats(&cache).drops.keys > 0).await;

        until_near(&cache, "k", 3).await;
        invalidate(&cache, "t").await;
        assert!(stats(&cache).drops.own > 0);

        until_near(&cache, "k", 4).await;
        session.run("FLUSHALL");
        until("by a flush", || stats(&cache).drops.flushes > 0).await;
        let drops = stats(&cache).drops;
        assert_eq!((drops.slots, drops.gaps, drops.evicted), (0, 0, 0));
        assert_eq!(stats(&cache).entries, 0);
        assert_eq!(stats(&cache).bytes, 0);
    });
}
