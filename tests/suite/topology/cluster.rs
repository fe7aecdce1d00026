//! A cluster whose slots move and whose primaries die while it is used: what an authoritative store says was
//! invalidated is never served where that is promised, and where it is not, the window is measured.
//!
//! Everything goes through the client crate, as an application would: a write to the store, an invalidation, and, once
//! it has settled, a promise. A read is stale if its value is older than a promise made before the read began.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::topology::{Cluster, DividableCluster, is_primary};
use harness::{Seed, Server, Session, locate, wait};
use mcache::server::RedisOptions;
use mcache::{Cache, Error, Loaded, Settled, Source};
use tokio::task::JoinSet;

use crate::support::runtime::run;

const RECORDS: usize = 60;

/// The data that are cached, and what readers have been promised about them.
struct Store {
    written: Vec<AtomicU64>,
    promised: Vec<AtomicU64>,
    over: AtomicBool,
    began: Instant,
    tally: Mutex<Tally>,
}

/// What readers found.
#[derive(Default, Debug)]
struct Tally {
    reads: u64,
    hits: u64,
    stale: u64,
    /// When, since the beginning, the first and the last stale value were served.
    stale_from: Option<Duration>,
    stale_until: Option<Duration>,
    changes: u64,
    unsettled: u64,
}

impl Store {
    fn new() -> Arc<Self> {
        let zeros = || (0..RECORDS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            written: zeros(),
            promised: zeros(),
            over: AtomicBool::new(false),
            began: Instant::now(),
            tally: Mutex::default(),
        })
    }

    fn tally<T>(&self, note: impl FnOnce(&mut Tally) -> T) -> T {
        note(&mut self.tally.lock().expect("no panic while it is held"))
    }

    /// Changes records and makes promises until it is over.
    async fn change(self: Arc<Self>, cache: Cache, mut seed: Seed) {
        while !self.over.load(SeqCst) {
            let record = seed.usize(..RECORDS);
            let version = self.written[record].fetch_add(1, SeqCst) + 1;
            let invalidation = cache.invalidate([format!("Record:{record}")]).await;
            let settled = invalidation.expect("accepted").settled().await;
            if settled == Settled::Acknowledged {
                self.promised[record].fetch_max(version, SeqCst);
            }
            self.tally(|tally| {
                tally.changes += 1;
                tally.unsettled += u64::from(settled != Settled::Acknowledged);
            });
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Reads until it is over, and judges every value that came out of the cache.
    async fn read(self: Arc<Self>, cache: Cache, mut seed: Seed) {
        while !self.over.load(SeqCst) {
            let record = seed.usize(..RECORDS);
            let promised = self.promised[record].load(SeqCst);
            let written = &self.written[record];
            let load = || async { Ok::<_, Error>(Loaded::new(written.load(SeqCst))) };
            let served = cache
                .key(format!("record/{record}"))
                .tags([format!("Record:{record}"), "Record:list:*".to_owned()])
                .load(load)
                .await
                .expect("the source answers");
            let now = self.began.elapsed();
            // While the circuit is open, nothing else here waits, and all tests share two threads.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let hit = served.source == Source::Hit;
            let stale = served.value < promised;
            self.tally(|tally| {
                tally.reads += 1;
                tally.hits += u64::from(hit);
                tally.stale += u64::from(stale);
                if stale {
                    tally.stale_from.get_or_insert(now);
                    tally.stale_until = Some(now);
                }
            });
        }
    }

    fn hits(&self) -> u64 {
        self.tally(|tally| tally.hits)
    }
}

async fn connect(url: String) -> Cache {
    let options = RedisOptions::default().breaker(5, Duration::from_millis(200));
    let cache = Cache::builder(url)
        .redis(options)
        .caching(true)
        .build()
        .await;
    cache.expect("a cache")
}

/// Two processes' worth of clients change and read while `disturb` has its way with the cluster.
fn under_load(test: &str, url: String, disturb: impl AsyncFnOnce(Arc<Store>)) -> Tally {
    run(async {
        let mut seed = Seed::draw(test);
        let store = Store::new();
        let mut tasks = JoinSet::new();
        for _ in 0..2 {
            let cache = connect(url.clone()).await;
            tasks.spawn(
                store
                    .clone()
                    .change(cache.clone(), Seed::fixed(seed.u64(..))),
            );
            tasks.spawn(store.clone().read(cache.clone(), Seed::fixed(seed.u64(..))));
            tasks.spawn(store.clone().read(cache, Seed::fixed(seed.u64(..))));
        }
        until_more_hits(&store, 200).await;
        disturb(store.clone()).await;
        until_more_hits(&store, 200).await;
        store.over.store(true, SeqCst);
        while let Some(task) = tasks.join_next().await {
            task.unwrap_or_else(|failure| panic!("{seed}: {failure}"));
        }
        let tally = store.tally(std::mem::take);
        println!("{test}: {tally:?}");
        tally
    })
}

async fn until_more_hits(store: &Store, more: u64) {
    let enough = store.hits() + more;
    until("the cache comes back", 2 * wait::PATIENCE, || {
        store.hits() >= enough
    })
    .await;
}

/// As [`wait::until`], while tasks on the same threads go on.
async fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "waited {limit:?} in vain: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn id_of(node: &Server) -> String {
    node.session()
        .text("CLUSTER MYID")
        .expect("every node has an id")
}

/// Moves `slots` slots from one primary to another, keys and all.
async fn reshard(cluster: &Cluster, from: &Server, to: &Server, slots: usize) {
    let node = format!("127.0.0.1:{}", cluster.nodes[0].port());
    let (from, to, slots) = (id_of(from), id_of(to), slots.to_string());
    let moved = tokio::task::spawn_blocking(move || {
        // Refused until every node has heard of the last move.
        wait::until_some("the slots are moved", || {
            let output = Command::new(locate::redis("redis-cli"))
                .args(["--cluster", "reshard", &node, "--cluster-yes"])
                .args(["--cluster-from", &from, "--cluster-to", &to])
                .args(["--cluster-slots", &slots])
                .output()
                .expect("redis-cli");
            match output.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stdout).into_owned()),
            }
        });
    });
    moved.await.expect("the slots are moved");
}

#[test]
fn no_stale_value_is_served_while_slots_move() {
    let cluster = Cluster::start();
    let tally = under_load("while_slots_move", cluster.url(), async |_| {
        let primaries: Vec<&Server> = cluster.primaries().collect();
        reshard(&cluster, primaries[0], primaries[1], 800).await;
        reshard(&cluster, primaries[1], primaries[2], 800).await;
    });
    assert_eq!(tally.stale, 0, "{tally:?}");
    assert_eq!(tally.unsettled, 0, "{tally:?}");
    let mut entries = 0;
    for primary in cluster.primaries() {
        primary.check().expect("index and keyspace agree");
        entries += primary.session().stat("entries");
    }
    assert!(
        entries <= RECORDS as i64,
        "{entries} entries of {RECORDS} records"
    );
}

/// Kills a primary under load and waits for its replica to be promoted. Returns what readers saw.
fn fail_over(test: &str, on_promote: &str) -> Tally {
    let options = Server::builder().set("mcache.on-promote", on_promote);
    let mut cluster = Cluster::start_with(options);
    let victim = cluster
        .nodes
        .iter()
        .position(is_primary)
        .expect("a primary");
    let primaries = cluster.primaries().count();
    let mut doomed = cluster.nodes.remove(victim);
    let tally = under_load(test, cluster.url(), async |_| {
        doomed.kill9();
        until("a replica is promoted", wait::PATIENCE, || {
            cluster.primaries().count() >= primaries
        })
        .await;
    });
    doomed.start_again();
    cluster.nodes.push(doomed);
    cluster.await_health();
    tally
}

#[test]
fn when_a_primary_dies_no_stale_value_is_served_with_drop_and_the_window_is_short_with_keep() {
    let dropped = fail_over("failover_drop", "drop");
    assert_eq!(dropped.stale, 0, "{dropped:?}");
    let kept = fail_over("failover_keep", "keep");
    // An invalidation that the dead primary had answered and not yet passed on: a few at most, under one of them each.
    assert!(kept.stale * 100 < kept.reads, "{kept:?}");
}

/// A primary that is frozen, replaced, and wakes up in the belief that it is still one: the shape of a partition.
#[test]
fn a_primary_that_comes_back_from_a_partition_serves_old_values_only_until_it_learns_of_its_successor()
 {
    let cluster = Cluster::start_with(Server::builder().set("mcache.on-promote", "drop"));
    let frozen = cluster.primaries().next().expect("a primary");
    let mut direct = frozen.session();
    let key = (0..)
        .map(|n| format!("k{n}"))
        .find(|key| {
            direct
                .try_run(&format!("MCACHE.SET {key} 0 old TAGS t"))
                .is_ok()
        })
        .expect("a key of this primary");
    frozen.pause();
    let others: Vec<&Server> = cluster
        .nodes
        .iter()
        .filter(|node| node.port() != frozen.port())
        .collect();
    wait::until("its replica has taken over", || {
        others.iter().filter(|node| is_primary(node)).count() == 3
    });
    for node in others.iter().filter(|node| is_primary(node)) {
        node.session().int("MCACHE.INVALIDATE TAGS t");
    }
    frozen.resume();
    let woken = Instant::now();
    let mut last_stale = None;
    let mut reads = 0;
    wait::until("it knows that it is a replica", || {
        reads += 1;
        // A redirection, or the connection closed with the change of role, is no answer.
        match direct.try_run(&format!("MCACHE.GET {key}")) {
            Ok(redis::Value::BulkString(_)) => {
                last_stale = Some(woken.elapsed());
                false
            }
            _ => !is_primary(frozen),
        }
    });
    // It has no way to know before the first message from the others.
    println!("{reads} reads; stale values were served for {last_stale:?} after it woke up");
    cluster.await_health();
    let successor = cluster
        .primaries()
        .find(|node| node.session().try_run(&format!("MCACHE.GET {key}")).is_ok());
    assert!(
        !successor
            .expect("a node owns the key")
            .session()
            .is_live(&key)
    );
}

/// A client next to a primary that is cut off: it reads one key there, past the network and without the help of the
/// client crate, and fills it when it is missing.
struct Inside {
    key: String,
    session: Session,
    current: u64,
    stale: Vec<Duration>,
}

impl Inside {
    /// The record whose tag the key carries.
    const RECORD: usize = 0;

    fn beside(primary: &Server) -> Self {
        let mut session = primary.session();
        let key = (0..)
            .map(|n| format!("inside{n}"))
            .find(|key| session.try_run(&format!("MCACHE.GET {key}")).is_ok())
            .expect("a key of this primary");
        Self {
            key,
            session,
            current: 0,
            stale: Vec::new(),
        }
    }

    /// Reads once; false if it is refused.
    fn read(&mut self, store: &Store, since: Instant) -> bool {
        let promised = store.promised[Self::RECORD].load(SeqCst);
        let written = store.written[Self::RECORD].load(SeqCst);
        let Ok(found) = self.session.try_run(&format!("MCACHE.GET {}", self.key)) else {
            return false;
        };
        match redis::from_redis_value::<Option<u64>>(found).expect("a number") {
            Some(version) if version < promised => self.stale.push(since.elapsed()),
            Some(_) => self.current += 1,
            None => {
                let tag = format!("mc:Record:{}", Self::RECORD);
                let fill = format!("MCACHE.SET {} 0 {written} TAGS {tag}", self.key);
                // Whether it was refused meanwhile is what the next read tells.
                let _ = self.session.try_run(&fill);
            }
        }
        true
    }
}

/// Cuts a primary off under load until another one has taken its place and the world has gone on.
fn divide(test: &str, cut: impl Fn(&DividableCluster, &Server)) {
    let options = Server::builder().set("mcache.on-promote", "drop");
    let divided = DividableCluster::start_with(options);
    let cluster = &divided.cluster;
    let victim = cluster.primaries().next().expect("a primary");
    let mut inside = Inside::beside(victim);
    let successor_leads = || {
        let others = cluster.nodes.iter().filter(|n| n.pid() != victim.pid());
        others.filter(|node| is_primary(node)).count() == 3
    };
    let (mut refused, mut replaced) = (None, None);
    let tally = under_load(test, divided.url(), async |store| {
        cut(&divided, victim);
        let since = Instant::now();
        for turn in 0.. {
            if refused.is_some() && replaced.is_some() {
                break;
            }
            assert!(since.elapsed() < wait::PATIENCE, "no node takes over");
            if !inside.read(&store, since) {
                refused.get_or_insert(since.elapsed());
            }
            // To ask takes longer than to read.
            if turn % 50 == 0 && successor_leads() {
                replaced.get_or_insert(since.elapsed());
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        until_more_hits(&store, 200).await;
        let promised = || store.promised[Inside::RECORD].load(SeqCst);
        let before = promised();
        until("an invalidation is acknowledged", wait::PATIENCE, || {
            promised() > before
        })
        .await;
        divided.heal();
    });
    let (refused, replaced) = (refused.expect("seen"), replaced.expect("seen"));
    // A primary notices after `cluster-node-timeout` (2 s) to half as much again that it has lost the majority.
    println!(
        "{test}: the old primary refused after {refused:?}, the new one led after {replaced:?}; beside the old one {} reads were current and {} stale, {:?}",
        inside.current,
        inside.stale.len(),
        inside.stale.first().zip(inside.stale.last())
    );
    assert_eq!(tally.stale, 0, "{tally:?}");
    assert!(inside.current > 0, "nothing was cached there");
    cluster.await_health();
    wait::until("the one that was cut off follows", || !is_primary(victim));
}

/// Its cable is cut. Those outside go on with its successor and never get anything outdated; a client on its side is
/// served by it until it notices.
#[test]
fn a_primary_that_is_cut_off_serves_nobody_but_its_own_side_and_that_not_for_long() {
    divide("cut_off", DividableCluster::cut_off);
}

/// Clients reach both, the one that was cut off and its successor.
#[test]
fn a_primary_that_only_clients_still_reach_is_left_in_time() {
    divide("cut_off_from_nodes", DividableCluster::cut_off_from_nodes);
}
