//! What newer servers can do to keys beside ours, and to ours.

use harness::{Server, host, wait};

#[test]
fn hashes_whose_fields_expire_live_and_die_beside_entries() {
    if !host::program().has_command("hpexpire") {
        return host::skip("fields of hashes do not expire");
    }
    let server = Server::start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET entry 0 v TAGS t");
    for hash in ["hash", "entry2"] {
        redis.int(&format!("HSET {hash} gone 1"));
        redis.run(&format!("HPEXPIRE {hash} 1 FIELDS 1 gone"));
    }
    wait::until("the hashes have lost their last field", || {
        redis.int("EXISTS hash entry2") == 0
    });
    redis.ok("MCACHE.SET entry2 0 v TAGS t");
    let refusal = redis.error("HPEXPIRE entry 1 FIELDS 1 v");
    assert!(refusal.starts_with("WRONGTYPE"), "{refusal}");
    redis.ok("MCACHE.DEBUG SELFCHECK");
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 2);
}

#[test]
fn strings_set_together_with_an_expiry_take_the_place_of_entries() {
    if !host::program().has_command("msetex") {
        return host::skip("it has no MSETEX");
    }
    let server = Server::start();
    let mut redis = server.session();
    for key in ["a", "b", "c"] {
        redis.ok(&format!("MCACHE.SET {key} 0 v TAGS t own:{key}"));
    }
    redis.run("MSETEX 2 a 1 b 2 PX 1");
    redis.ok("MCACHE.DEBUG SELFCHECK");
    assert_eq!(redis.entries("t"), ["c"]);
    assert!(!redis.tags().contains_key("own:a"));
    wait::until("they expire", || redis.int("EXISTS a b") == 0);
    redis.ok("MCACHE.SET a 0 v TAGS t");
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 2);
}

#[test]
fn clients_that_track_keys_hear_of_entries_that_change_and_die() {
    let server = Server::start();
    let (mut redis, mut tracker, mut ears) = (server.session(), server.session(), server.session());
    let id = ears.int("CLIENT ID");
    let mut subscription = ears.connection().as_pubsub();
    subscription
        .subscribe("__redis__:invalidate")
        .expect("subscribed");
    tracker.ok(&format!("CLIENT TRACKING ON REDIRECT {id}"));
    for line in [
        "MCACHE.SET k 0 new TAGS t",
        "MCACHE.INVALIDATE TAGS t",
        "DEL k",
        "RENAME k other",
        "PEXPIRE k 1",
    ] {
        redis.ok("MCACHE.SET k 0 v TAGS t");
        assert!(tracker.is_live("k"));
        redis.run(line);
        let message = subscription.get_message().expect("a message");
        let keys: Vec<String> = message.get_payload().expect("a list of keys");
        assert_eq!(keys, ["k"], "{line}");
        redis.run("DEL k other");
    }
}
