//! Processes that are stopped or cut off: they serve nothing past their lease, and go on where they were.

use harness::{Proxy, Server};
use mcache::Source;
use rustix::process::Signal;

use super::other::Other;
use super::*;
use crate::support::runtime::run;

/// Short, so that it is over soon. The server keeps the log for ten of them.
fn with_lease(ms: u64) -> Server {
    let server = Server::builder().feed(ms).tcp().start();
    server.session().await_predecessors();
    server
}

#[test]
fn a_process_that_is_stopped_serves_nothing_past_its_lease() {
    let server = with_lease(400);
    let mut other = Other::start(&server.url());
    run(async {
        let writer = plain(&server.url()).await;
        for value in 1..=5u32 {
            other.until_near("k", value);
            other.signal(Signal::STOP);
            // It waits for the lease of the one that is stopped, and no longer.
            invalidate(&writer, "t").await;
            // Asked while it is stopped: this is the first that it does when it goes on.
            other.ask("get k");
            other.signal(Signal::CONT);
            let answer = other.answer();
            assert_ne!(answer, format!("near {value}"));
            assert_eq!(answer, "none");
        }
    });
}

#[test]
fn a_process_that_is_cut_off_serves_nothing_past_its_lease_and_goes_on_where_it_was() {
    let server = with_lease(2_000);
    let proxy = Proxy::to_port(server.port());
    run(async {
        let (reader, writer) = (near(&proxy.url()).await, plain(&server.url()).await);
        until_near(&reader, "k", 1).await;
        let other = || reader.key("other").tags(["u"]).get::<u32>();
        reader.key("other").tags(["u"]).set(&7).await.expect("set");
        while stats(&reader).entries < 2 {
            assert_eq!(other().await.expect("read"), Some(7));
        }
        for round in 0..3 {
            proxy.stall();
            until("its lease is over", || !stats(&reader).is_serving()).await;
            let loaded = load(&reader, "k", 100 + round).await;
            assert_ne!(loaded.source, Source::Near);
            assert!(stats(&reader).entries >= 1, "nothing is forgotten");
            invalidate(&writer, "t").await;
            proxy.heal();
            until_serving(&reader).await;
            until("it has heard", || stats(&reader).entries <= 2).await;
            assert_eq!(stats(&reader).drops.gaps, 0, "it goes on where it was");
            let kept = reader.key("other").get_arc::<u32>().await.expect("read");
            assert_eq!(kept.as_deref(), Some(&7));
            assert_ne!(load(&reader, "k", 200 + round).await.value, 1);
        }
    });
}

#[test]
fn connections_that_are_cut_cost_nothing() {
    let server = options().tcp().start();
    let proxy = Proxy::to_port(server.port());
    run(async {
        let reader = near(&proxy.url()).await;
        until_near(&reader, "k", 1).await;
        let mut session = server.session();
        for _ in 0..5 {
            proxy.cut();
            assert_eq!(load(&reader, "k", 2).await.source, Source::Near);
            let calls = session.stat("near_subscribers");
            assert_eq!(calls, 1, "it is the same subscription");
            until_serving(&reader).await;
        }
        assert_eq!(stats(&reader).drops.gaps, 0);
    });
}

#[test]
fn another_run_of_the_server_is_a_gap() {
    let mut server = options().set("appendonly", "yes").start();
    run(async {
        let reader = near(&server.url()).await;
        until_near(&reader, "k", 1).await;
        server.restart();
        until("everything is forgotten", || stats(&reader).entries == 0).await;
        assert!(stats(&reader).drops.gaps > 0);
        until_serving(&reader).await;
        until_near(&reader, "k", 2).await;
    });
}

#[test]
fn a_log_that_overflows_is_a_gap() {
    let server = options().set("mcache.feed-bytes", 65_536).tcp().start();
    let proxy = Proxy::to_port(server.port());
    let mut session = server.session();
    run(async {
        let reader = near(&proxy.url()).await;
        until_near(&reader, "k", 1).await;
        proxy.stall();
        for number in 0..5_000 {
            session.run(&format!("MCACHE.INVALIDATE TAGS mc:other:{number}"));
        }
        proxy.heal();
        until("everything is forgotten", || stats(&reader).drops.gaps > 0).await;
        until_near(&reader, "k", 2).await;
    });
}
