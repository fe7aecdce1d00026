//! Threads that read and write for the server: the module is called on one thread all the same.

use std::thread;

use harness::topology::{digest, follow};
use harness::{Seed, Server, Session, host, wait};

use crate::topology::fullsync::load;

#[test]
fn clients_served_by_threads_leave_index_keyspace_and_replica_alike() {
    const CLIENTS: usize = 16;
    let mut options = Server::builder()
        .set("io-threads", 4)
        .set("mcache.reclaim-inline-max", 20);
    if host::program().has_directive("io-threads-do-reads") {
        options = options.set("io-threads-do-reads", "yes");
    }
    let primary = options.clone().tcp().start();
    let replica = follow(&primary, options);
    let mut seed = Seed::draw("clients_served_by_threads");
    let seeds: Vec<u64> = (0..CLIENTS).map(|_| seed.u64(..)).collect();
    thread::scope(|scope| {
        for seed in seeds {
            let url = primary.tcp_url();
            scope.spawn(move || {
                let client = redis::Client::open(url).expect("an address");
                let mut session = Session::new(client.get_connection().expect("a connection"));
                let mut seed = Seed::fixed(seed);
                let value = "v".repeat(2_000);
                for _ in 0..100 {
                    // Enough at once for the threads to have work.
                    let mut pipeline = redis::pipe();
                    for _ in 0..20 {
                        let (key, group) = (seed.u32(..200), seed.u32(..10));
                        let (key, group) = (format!("load{key}"), format!("group:{group}"));
                        pipeline.cmd("MCACHE.GET").arg(&key).ignore();
                        let words = ["MCACHE.SET", &key, "1000", &value, "TAGS", "load", &group];
                        pipeline.cmd(words[0]).arg(&words[1..]).ignore();
                    }
                    pipeline.exec(session.connection()).expect("answered");
                    load(&mut session, &mut seed);
                }
            });
        }
    });
    let (mut ours, mut theirs) = (primary.session(), replica.session());
    assert!(ours.int("MCACHE.INVALIDATE TAGS load") > 0);
    ours.drain();
    assert!(!ours.tags().contains_key("load"));
    wait::until("the replica has heard of it", || {
        theirs.stat("entries") == ours.stat("entries") && digest(&mut ours) == digest(&mut theirs)
    });
}
