//! Near caches in front of a cluster and of Sentinels: each value depends on the primary that it came from.

use harness::topology::{Cluster, Replicated, Sentinels, is_primary};
use harness::{Server, wait};

use super::*;
use crate::support::runtime::run;

/// Two keys may share a cell of the server's table: then storing one makes near caches forget the other, once.
async fn all_near(reader: &Cache, names: &[String], value: u32) {
    let read = || async {
        for name in names {
            until_near(reader, name, value).await;
        }
        Ok::<_, Error>(())
    };
    until_all_near(reader, names.len() as u64, read).await;
}

#[test]
fn a_cluster_has_a_subscription_for_each_primary() {
    let options = options().cluster();
    let cluster = Cluster::start_with(options);
    for node in cluster.primaries() {
        node.session().await_predecessors();
    }
    run(async {
        let (reader, writer) = (near(&cluster.url()).await, plain(&cluster.url()).await);
        let names: Vec<String> = (0..100).map(|n| format!("k{n}")).collect();
        until("all primaries are followed", || {
            stats(&reader).primaries.len() == cluster.primaries().count()
                && stats(&reader).is_serving()
        })
        .await;
        for round in 0..5u32 {
            all_near(&reader, &names, round).await;
            invalidate(&writer, "t").await;
            let found = reader.get_many::<u32>(&names).await.expect("read");
            let why = || format!("round {round}: {:?}", stats(&reader));
            assert_eq!(found, vec![None; 100], "{}", why());
        }
        all_near(&reader, &names, 9).await;
        for name in &names {
            let cleared = writer.clear(name).await.expect("sent");
            assert!(cleared.is_settled());
            let found = reader.key(name).get::<u32>().await.expect("read");
            assert_eq!(found, None, "{name}");
        }
    });
}

/// The one of these that is the primary.
fn primary_of(replicated: &Replicated) -> Option<&Server> {
    let mut all = std::iter::once(&replicated.primary).chain(&replicated.replicas);
    all.find(|server| is_primary(server))
}

#[test]
fn behind_sentinels_another_primary_is_a_gap() {
    let replicated = Replicated::start_with(2, options());
    let sentinels = Sentinels::watch(&replicated);
    let ports = sentinels
        .ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"));
    let ports: Vec<String> = ports.collect();
    let url = format!("redis+sentinel://{}/{}", ports.join(","), sentinels.name);
    run(async {
        let (reader, writer) = (near(&url).await, plain(&url).await);
        until_near(&reader, "k", 1).await;
        replicated.primary.pause();
        wait::until("another one is the primary", || {
            replicated.replicas.iter().any(is_primary)
        });
        until("everything is forgotten", || stats(&reader).drops.gaps > 0).await;
        replicated.primary.resume();
        until_serving(&reader).await;
        until_near(&reader, "k", 2).await;
        wait::until("the former one follows", || {
            !is_primary(&replicated.primary)
        });
        let primary = primary_of(&replicated).expect("there is one");
        primary.session().await_predecessors();
        until_near(&reader, "k", 2).await;
        let began = Instant::now();
        loop {
            let invalidation = writer.invalidate(["t"]).await.expect("sent");
            if invalidation.settled().await == Settled::Acknowledged {
                break;
            }
            assert!(began.elapsed() < PATIENCE);
        }
        assert_eq!(reader.key("k").get::<u32>().await.expect("read"), None);
    });
}
