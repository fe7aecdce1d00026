//! What the process itself changes, and what it loads.

use mcache::{Error, Loaded, Source};
use tokio::sync::oneshot;

use super::*;
use crate::support::runtime::run;

#[test]
fn a_process_reads_what_it_wrote() {
    let server = options().start();
    server.session().await_predecessors();
    run(async {
        let cache = near(&server.url()).await;
        let read = || cache.key("k").get::<u32>();
        for value in 1..50u32 {
            assert!(cache.key("k").tags(["t"]).set(&value).await.expect("set"));
            assert_eq!(read().await.expect("read"), Some(value));
            assert_eq!(read().await.expect("read"), Some(value));
            match value % 3 {
                0 => drop(cache.invalidate(["t"]).await.expect("sent")),
                1 => drop(cache.clear("k").await.expect("sent")),
                _ => drop(cache.clear_all().await.expect("sent")),
            }
            assert_eq!(read().await.expect("read"), None);
        }
    });
}

#[test]
fn a_loaders_own_value_is_near_when_the_server_has_taken_it() {
    let server = options().start();
    let mut session = server.session();
    run(async {
        let cache = near(&server.url()).await;
        assert_eq!(load(&cache, "k", 1).await.source, Source::Loaded);
        until("it is put away", || stats(&cache).entries == 1).await;
        let before = executed(&mut session);
        assert_eq!(load(&cache, "k", 2).await.source, Source::Near);
        assert_eq!(executed(&mut session), before);
    });
}

#[test]
fn a_loaders_own_value_is_not_near_when_the_server_refused_it() {
    let server = options().start();
    server.session().await_predecessors();
    run(async {
        let (cache, other) = (near(&server.url()).await, plain(&server.url()).await);
        let (begin, begun) = oneshot::channel();
        let (go_on, goes_on) = oneshot::channel::<()>();
        let filling = {
            let cache = cache.clone();
            tokio::spawn(async move {
                let load = || async move {
                    begin.send(()).expect("a receiver waits");
                    goes_on.await.expect("it goes on");
                    Ok::<_, Error>(Loaded::new(1u32))
                };
                cache.key("k").tags(["t"]).load(load).await.expect("loaded")
            })
        };
        begun.await.expect("it begins");
        invalidate(&other, "t").await;
        go_on.send(()).expect("it waits");
        assert_eq!(filling.await.expect("no panic").value, 1);
        let served = load(&cache, "k", 2).await;
        assert_eq!((served.value, served.source), (2, Source::Loaded));
    });
}

/// A near value may lag behind an invalidation that is not settled yet. What a loader, begun after it, makes of the
/// value would be accepted, and stay.
#[test]
fn a_loader_reads_nothing_that_is_near() {
    let server = options().start();
    run(async {
        let cache = near(&server.url()).await;
        until_near(&cache, "part", 1).await;
        let read = async |cache: &Cache| {
            let before = stats(cache).hits;
            let part: Option<u32> = cache.key("part").get().await.expect("read");
            let parts = cache.keys(["part"]).get_many::<u32>().await.expect("read");
            let arc = cache.key("part").get_arc::<u32>().await.expect("read");
            assert_eq!(part, Some(1));
            assert_eq!(parts, [Some(1)]);
            assert_eq!(arc.as_deref(), Some(&1));
            stats(cache).hits - before
        };
        assert_eq!(read(&cache).await, 3, "elsewhere all are near");
        let load = async || {
            assert_eq!(read(&cache).await, 0);
            Ok::<_, Error>(Loaded::new(2))
        };
        let whole = cache
            .key("whole")
            .tags(["t"])
            .load(load)
            .await
            .expect("loaded");
        assert_eq!(whole.source, Source::Loaded);
        let detached = {
            let cache = cache.clone();
            async move || {
                assert_eq!(read(&cache).await, 0);
                Ok::<_, Error>(Loaded::new(3))
            }
        };
        let whole = cache
            .key("detached")
            .tags(["t"])
            .load_detached(detached)
            .await;
        assert_eq!(whole.expect("loaded").source, Source::Loaded);
        let many = async |keys: Vec<&'static str>| {
            assert_eq!(read(&cache).await, 0);
            Ok::<_, Error>(keys.into_iter().map(|key| (key, Loaded::new(4))).collect())
        };
        let both = cache.keys(["one", "two"]).tags(["t"]).load_many(many).await;
        assert_eq!(both.expect("loaded").len(), 2);
        assert_eq!(read(&cache).await, 3, "and so they are afterwards");
    });
}
