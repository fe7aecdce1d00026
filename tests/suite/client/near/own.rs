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
