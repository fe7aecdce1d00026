//! The same client in front of a Cluster and of Sentinels: keys go where they belong, invalidations to every node, and
//! neither is disturbed for long when roles and slots move.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::topology::{Cluster, Replicated, Sentinels, is_primary};
use harness::{
    Server, locate,
    wait::{self, PATIENCE},
};
use mcache::{Cache, Error, Loaded, RedisProvider, Settled, Source, server::RedisOptions};
use tokio::time::{sleep, timeout};

use crate::support::runtime::run;

async fn cache(url: &str) -> Cache {
    let options = RedisOptions::default().breaker(5, Duration::from_millis(200));
    Cache::builder(url)
        .redis(options)
        .caching(true)
        .build()
        .await
        .expect("a cache")
}

async fn fill(cache: &Cache, count: usize, value: usize) {
    for number in 0..count {
        let stored = cache
            .key(format!("k{number}"))
            .tags(["all"])
            .set(&value)
            .await;
        assert!(stored.expect("stored"));
    }
}

async fn found(cache: &Cache, count: usize) -> Vec<usize> {
    let keys = (0..count).map(|number| format!("k{number}"));
    let values = cache.get_many::<usize>(keys).await.expect("read");
    values.into_iter().flatten().collect()
}

/// Reads through the cache until it takes part again.
async fn until_cached(cache: &Cache, key: &str) {
    let began = Instant::now();
    let load = || async { Ok::<_, Error>(Loaded::new(0)) };
    while cache
        .key(key)
        .load(load)
        .await
        .expect("the source answers")
        .source
        != Source::Hit
    {
        assert!(began.elapsed() < PATIENCE, "the cache does not come back");
        sleep(Duration::from_millis(50)).await;
    }
}

fn redis_cli(arguments: &[&str]) {
    let output = Command::new(locate::redis("redis-cli"))
        .args(arguments)
        .output()
        .expect("redis-cli");
    let text = String::from_utf8_lossy(&output.stdout);
    let end: Vec<&str> = text.lines().rev().take(5).collect();
    assert!(
        output.status.success(),
        "redis-cli {arguments:?} ended with, from the last line up: {end:#?}"
    );
}

fn id_of(node: &Server) -> String {
    node.session()
        .text("CLUSTER MYID")
        .expect("every node has an id")
}

#[test]
fn a_cluster_conforms() {
    let cluster = Cluster::start();
    run(async {
        let provider = RedisProvider::new(&cluster.url(), RedisOptions::default());
        let provider = Arc::new(provider.expect("an address"));
        for (name, test) in mcache::conformance::tests() {
            println!("{name}");
            test(provider.clone()).await;
        }
    });
}

#[test]
fn an_invalidation_reaches_every_primary() {
    let cluster = Cluster::start();
    run(async {
        let cache = cache(&cluster.url()).await;
        fill(&cache, 300, 1).await;
        assert_eq!(found(&cache, 300).await.len(), 300);
        for primary in cluster.primaries() {
            assert!(primary.session().stat("entries") > 50, "keys are spread");
        }
        let invalidation = cache.invalidate(["all"]).await.expect("acknowledged");
        assert_eq!(
            (invalidation.is_acknowledged(), invalidation.entries()),
            (true, 300)
        );
        assert_eq!(found(&cache, 300).await, Vec::<usize>::new());
    });
}

#[test]
fn when_a_primary_dies_its_keys_come_back_and_no_invalidation_is_lost() {
    let mut cluster = Cluster::start();
    run(async {
        let cache = cache(&cluster.url()).await;
        fill(&cache, 300, 1).await;
        let victim = cluster
            .nodes
            .iter()
            .position(is_primary)
            .expect("a primary");
        cluster.nodes[victim].kill9();
        // No node answers for a third of the slots now.
        let invalidation = cache.invalidate(["all"]).await.expect("retried");
        assert!(!invalidation.is_acknowledged());
        let load = || async { Ok::<_, Error>(2) };
        for number in 0..300 {
            let value = cache
                .key(format!("k{number}"))
                .get_or_load(load)
                .await
                .expect("the source answers");
            assert_eq!(value, 2, "nothing old, wherever the key lives");
        }
        let settled = timeout(PATIENCE, invalidation.settled())
            .await
            .expect("the replica takes over");
        assert_eq!(settled, Settled::Acknowledged);
        for number in 0..300 {
            until_cached(&cache, &format!("after{number}")).await;
        }
        assert!(found(&cache, 300).await.iter().all(|value| *value == 2));
        cluster.nodes[victim].start_again();
        cluster.await_health();
    });
}

#[test]
fn those_who_only_read_find_the_successor_of_a_dead_primary() {
    let mut cluster = Cluster::start();
    run(async {
        let cache = cache(&cluster.url()).await;
        fill(&cache, 30, 1).await;
        let victim = cluster
            .nodes
            .iter()
            .position(is_primary)
            .expect("a primary");
        cluster.nodes[victim].kill9();
        for number in 0..30 {
            until_cached(&cache, &format!("k{number}")).await;
        }
        cluster.nodes[victim].start_again();
        cluster.await_health();
    });
}

#[test]
fn slots_that_move_to_a_node_nobody_knew_take_their_invalidations_along() {
    let cluster = Cluster::start();
    let newcomer = Server::builder()
        .set("cluster-node-timeout", 2000)
        .cluster()
        .start();
    run(async {
        let knowing = cache(&cluster.url()).await;
        let other = cache(&cluster.url()).await;
        fill(&knowing, 300, 1).await;
        assert_eq!(found(&other, 300).await.len(), 300);

        let anybody = format!("127.0.0.1:{}", cluster.nodes[0].port());
        redis_cli(&[
            "--cluster",
            "add-node",
            &format!("127.0.0.1:{}", newcomer.port()),
            &anybody,
        ]);
        let id = id_of(&newcomer);
        let knows_all = |node: &Server| {
            let mut session = node.session();
            let nodes: String = session.typed("CLUSTER NODES");
            let state: String = session.typed("CLUSTER INFO");
            nodes.contains(&id)
                && nodes.lines().count() == 7
                && !nodes.contains("handshake")
                && state.contains("cluster_state:ok")
        };
        wait::until("every node knows the newcomer", || {
            knows_all(&newcomer) && cluster.nodes.iter().all(knows_all)
        });
        let source = cluster.primaries().next().expect("a primary");
        redis_cli(&[
            "--cluster",
            "reshard",
            &anybody,
            "--cluster-from",
            &id_of(source),
            "--cluster-to",
            &id,
            "--cluster-slots",
            "2000",
            "--cluster-yes",
        ]);
        assert!(
            newcomer.session().stat("entries") > 10,
            "entries moved with their slots"
        );

        // `knowing` has read nothing since, and still believes in three primaries.
        let invalidation = knowing.invalidate(["all"]).await.expect("acknowledged");
        assert!(invalidation.is_acknowledged());
        assert_eq!(
            invalidation.entries(),
            300,
            "those of the newcomer included"
        );
        assert_eq!(newcomer.session().stat("entries"), 0);
        assert_eq!(found(&other, 300).await, Vec::<usize>::new());
        fill(&other, 300, 2).await;
        assert_eq!(found(&knowing, 300).await.len(), 300);
    });
}

#[test]
fn reads_and_fills_go_on_while_slots_move() {
    let cluster = Cluster::start();
    run(async {
        let cache = cache(&cluster.url()).await;
        fill(&cache, 300, 1).await;
        let primaries: Vec<&Server> = cluster.primaries().collect();
        let (from, to) = (id_of(primaries[0]), id_of(primaries[1]));
        let anybody = format!("127.0.0.1:{}", cluster.nodes[0].port());
        let resharding = tokio::task::spawn_blocking(move || {
            redis_cli(&[
                "--cluster",
                "reshard",
                &anybody,
                "--cluster-from",
                &from,
                "--cluster-to",
                &to,
                "--cluster-slots",
                "1000",
                "--cluster-yes",
            ])
        });
        let mut round = 1;
        while !resharding.is_finished() {
            round += 1;
            let settled = cache.invalidate(["all"]).await.expect("sent").settled();
            assert_eq!(
                timeout(PATIENCE, settled).await.expect("in time"),
                Settled::Acknowledged
            );
            for number in 0..300 {
                let load = || async { Ok::<_, Error>(round) };
                let key = format!("k{number}");
                let value = cache
                    .key(key)
                    .tags(["all"])
                    .get_or_load(load)
                    .await
                    .expect("the source answers");
                assert_eq!(value, round, "nothing from before the invalidation");
            }
        }
        resharding.await.expect("redis-cli");
        println!("{round} rounds");
        let values: HashSet<usize> = found(&cache, 300).await.into_iter().collect();
        assert!(values.is_subset(&HashSet::from([round])), "{values:?}");
    });
}

#[test]
fn sentinels_lead_to_the_primary_and_to_its_successor() {
    let mut replicated = Replicated::start_with(1, Server::builder().tcp());
    let sentinels = Sentinels::watch(&replicated);
    let ports = sentinels
        .ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"));
    let url = format!(
        "redis+sentinel://{}/{}",
        ports.collect::<Vec<_>>().join(","),
        sentinels.name
    );
    run(async {
        let cache = cache(&url).await;
        fill(&cache, 10, 1).await;
        assert_eq!(found(&cache, 10).await.len(), 10);
        replicated.sync();
        replicated.primary.kill9();
        let invalidation = cache.invalidate(["all"]).await.expect("retried");
        assert!(!invalidation.is_acknowledged());
        let settled = timeout(PATIENCE, invalidation.settled())
            .await
            .expect("a successor is found");
        assert_eq!(settled, Settled::Acknowledged);
        assert_eq!(found(&cache, 10).await, Vec::<usize>::new());
        until_cached(&cache, "after").await;
        assert!(replicated.replicas[0].session().stat("entries") > 0);
    });
}
