//! Loads of several keys while a cluster changes its primaries.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;

use harness::topology::{self, Cluster};
use harness::{Server, wait};
use mcache::{Cache, Error, Loaded};
use tokio::time::timeout;

use super::PATIENCE;
use crate::support::runtime::run;

const KEYS: usize = 60;

/// Each of three primaries hands over to its replica. No batch fails, none returns an old value, and in the end all
/// keys are cached again.
#[test]
fn batches_go_on_while_a_cluster_changes_its_primaries() {
    let cluster = Cluster::start();
    run(async {
        let cache = Cache::builder(cluster.url()).caching(true).build().await;
        let cache = cache.expect("a cache");
        let version = AtomicU32::new(0);
        let keys = || (0..KEYS).map(|number| format!("k{number}"));
        let read = async || {
            let now = version.load(SeqCst);
            let load = |keys: Vec<String>| async move {
                let loaded = keys.into_iter().map(|key| (key, Loaded::new(now)));
                Ok::<_, Error>(loaded.collect())
            };
            let batch = cache.keys(keys()).tags(["all"]).get_or_load_many(load);
            let found = batch.await.expect("the source answers");
            assert_eq!(found.len(), KEYS);
            let old: Vec<_> = found.iter().filter(|(_, value)| **value != now).collect();
            assert!(old.is_empty(), "{now}: {old:?}");
        };
        let all = || cluster.nodes.iter();
        let replicas = all().filter(|node| !topology::is_primary(node));
        let mut replicas: Vec<_> = replicas.map(Server::session).collect();
        assert_eq!(replicas.len(), 3);
        // A primary hands over to none that it does not know yet.
        for node in all() {
            let mut node = node.session();
            wait::until("all know the replicas", || {
                let nodes = node.text("CLUSTER NODES").expect("a table");
                nodes.matches("slave ").count() == 3
            });
        }
        let hands_over = thread::spawn(move || {
            for replica in &mut replicas {
                replica.ok("CLUSTER FAILOVER");
                wait::until("the replica takes over", || {
                    replica.info_text("replication", "role") == "master"
                });
            }
        });
        while !hands_over.is_finished() {
            version.fetch_add(1, SeqCst);
            let invalidated = cache.invalidate(["all"]).await.expect("kept");
            read().await;
            read().await;
            drop(invalidated);
        }
        hands_over.join().expect("all three are replaced");
        let cached = async {
            loop {
                read().await;
                let found = cache.keys(keys()).get_many::<u32>().await.expect("read");
                if found.len() == KEYS {
                    break;
                }
            }
        };
        timeout(PATIENCE, cached).await.expect("all are kept again");
    });
}
