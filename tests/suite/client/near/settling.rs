//! Who waits until an invalidation is settled, for whom, and for how long.

use harness::Proxy;

use super::*;
use crate::support::runtime::run;

#[test]
fn many_invalidations_share_few_settles() {
    let server = options().start();
    let mut session = server.session();
    session.await_predecessors();
    run(async {
        let (reader, writer) = (near(&server.url()).await, plain(&server.url()).await);
        until_near(&reader, "k", 1).await;
        let before = session.stat("settles");
        let all = (0..1_000).map(|number| {
            let writer = writer.clone();
            tokio::spawn(async move {
                let tag = format!("t{number}");
                writer.invalidate([tag]).await.expect("sent").is_settled()
            })
        });
        for settled in futures_util::future::join_all(all).await {
            assert!(settled.expect("no panic"));
        }
        let settles = session.stat("settles") - before;
        assert!((1..=500).contains(&settles), "{settles} for 1,000");
    });
}

#[test]
fn one_that_need_not_be_settled_is_not_waited_for() {
    let server = options().tcp().start();
    let mut session = server.session();
    session.await_predecessors();
    let proxy = Proxy::to_port(server.port());
    run(async {
        let reader = near(&proxy.url()).await;
        until_near(&reader, "k", 1).await;
        let writer = mcache::Cache::builder(server.url())
            .settle(false)
            .caching(true)
            .build()
            .await
            .expect("a cache");
        // The reader cannot confirm, and its lease runs.
        proxy.stall();
        let invalidation = writer.invalidate(["t"]).await.expect("sent");
        assert!(invalidation.is_acknowledged());
        assert!(!invalidation.is_settled(), "the reader has not heard of it");
        assert_eq!(invalidation.settled().await, Settled::Acknowledged);
        // Its lease is over: it serves nothing, and what it has is not what it may serve.
        assert!(!stats(&reader).is_serving());
        assert!(reader.near_stats()[0].entries > 0, "it has not heard");
        proxy.heal();
        until("it has heard", || stats(&reader).entries == 0).await;
    });
}

#[test]
fn a_process_that_ends_is_not_waited_for() {
    let server = options().start();
    let mut session = server.session();
    session.await_predecessors();
    run(async {
        let (reader, writer) = (near(&server.url()).await, plain(&server.url()).await);
        until_near(&reader, "k", 1).await;
        assert_eq!(session.stat("near_subscribers"), 1);
        assert!(reader.shutdown(PATIENCE).await.is_nothing());
        assert_eq!(session.stat("near_subscribers"), 0);
        let ran_out = session.stat("settles_parked");
        invalidate(&writer, "t").await;
        assert_eq!(session.stat("settles_parked"), ran_out);
        let found = reader.key("k").get::<u32>().await.expect("read");
        assert_eq!(
            found, None,
            "what is shut down still reads, from the server"
        );
    });
}

#[test]
fn a_near_cache_that_is_dropped_is_not_waited_for() {
    let server = options().start();
    let mut session = server.session();
    run(async {
        let reader = near(&server.url()).await;
        until_near(&reader, "k", 1).await;
        drop(reader);
        until("it has gone", || session.stat("near_subscribers") == 0).await;
    });
}
