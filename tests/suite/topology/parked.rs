//! Clients that wait in FETCH while the slot of their key goes to another server.

use harness::Server;
use harness::topology::Cluster;

use crate::filling::fetching::{Waiting, fetch, missed};

const KEY: &str = "k";

#[test]
fn a_client_that_waits_for_a_key_is_sent_where_its_slot_went() {
    let cluster = Cluster::start();
    let nodes: Vec<&Server> = cluster.primaries().collect();
    let slot = nodes[0].session().int(&format!("CLUSTER KEYSLOT {KEY}"));
    let is_owner = |node: &&&Server| {
        let looked_up = node.session().try_run(&format!("MCACHE.GET {KEY}"));
        looked_up.is_ok()
    };
    let owner = *nodes.iter().find(is_owner).expect("one has the slot");
    let other = *nodes
        .iter()
        .find(|node| node.port() != owner.port())
        .expect("there are several");
    let (mut here, mut there) = (owner.session(), other.session());
    let holder = missed(fetch(&mut here, &format!("{KEY} LEASE 600000")));
    let waiting: Vec<Waiting> = (0..3)
        .map(|_| Waiting::park(owner, &format!("{KEY} WAIT 600000")))
        .collect();
    // One that waits for a key of a slot that stays.
    let stays = (0..).map(|n| format!("stays:{n}")).find(|key| {
        here.int(&format!("CLUSTER KEYSLOT {key}")) != slot
            && here.try_run(&format!("MCACHE.GET {key}")).is_ok()
    });
    let stays = stays.expect("it has many slots");
    let token = missed(fetch(&mut here, &format!("{stays} LEASE 600000")));
    let patient = Waiting::park(owner, &format!("{stays} WAIT 600000"));

    let id = there.text("CLUSTER MYID").expect("an id");
    for session in [&mut there, &mut here] {
        session.ok(&format!("CLUSTER SETSLOT {slot} NODE {id}"));
    }
    let expected = format!("{slot} 127.0.0.1:{}", other.port());
    for waiting in waiting {
        let refusal = waiting.result().expect_err("the slot is gone");
        assert!(refusal.contains(&expected), "{refusal}, not {expected}");
    }
    assert_eq!(here.stat("parked_clients"), 1);
    here.ok(&format!("MCACHE.SET {stays} 0 v TOKEN {token}"));
    assert_eq!(patient.fetched().0, "hit");
    // The lease is gone with the slot: a client that asks there fills.
    let refusal = here.error(&format!("MCACHE.RELEASE {KEY} {holder}"));
    assert!(refusal.contains(&expected), "{refusal}");
    missed(fetch(&mut there, KEY));
}
