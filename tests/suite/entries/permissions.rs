//! A user that may only read costs other users nothing, and tags are covered by the rules that allow the command.

use std::fs;

use harness::{ScratchDir, Server, ServerBuilder, Session, host, wait};
use mcache_core::host::Maker;

use crate::filling::fetching::{Waiting, busy, fetch, hit, missed};

/// A server and a session of a user with these rules.
fn with_user(rules: &str) -> (Server, Session, Session) {
    with_user_on(Server::builder(), rules)
}

/// Servers that tell modules the text of a user's rules, and one like Redis 7.0.5, which does not.
fn telling_and_not() -> [ServerBuilder; 2] {
    let silent = Server::builder().env("MCACHE_TEST_NO_ACL_STRING", "1");
    [Server::builder(), silent]
}

fn with_user_on(builder: ServerBuilder, rules: &str) -> (Server, Session, Session) {
    let server = builder.start();
    let mut admin = server.session();
    admin.ok(&format!("ACL SETUSER user on >secret resetkeys {rules}"));
    let user = server.session_as("user", "secret");
    (server, admin, user)
}

#[test]
fn a_reader_who_misses_gets_no_token_and_no_lease() {
    let (server, mut admin, mut reader) = with_user("%R~env:* +@all");
    let nothing = ("miss".to_owned(), None, None);
    for n in 0..100 {
        assert_eq!(fetch(&mut reader, &format!("env:{n} WAIT 600000")), nothing);
    }
    assert_eq!(admin.stat("leases"), 0);
    assert_eq!(admin.stat("lease_bytes"), 0);
    // While another fills, the reader does not stand in line for the lease either.
    let token = missed(fetch(&mut admin, "env:k"));
    assert_eq!(fetch(&mut reader, "env:k WAIT 600000"), nothing);
    assert_eq!(fetch(&mut reader, "env:k"), busy());
    assert_eq!(admin.stat("leases"), 1);
    assert!(admin.stat("lease_bytes") > 0);
    admin.ok(&format!(
        "MCACHE.SET env:k 100 v SWR 1000 TOKEN {token} TAGS t"
    ));
    assert_eq!(fetch(&mut reader, "env:k"), hit("v"));
    // Neither does it refresh what is stale or about to be.
    for _ in 0..50 {
        assert_eq!(fetch(&mut reader, "env:k EARLY 600000"), hit("v"));
    }
    admin.int("MCACHE.INVALIDATE SOFT TAGS t");
    let stale = ("stale".to_owned(), Some("v".to_owned()), None);
    assert_eq!(fetch(&mut reader, "env:k"), stale);
    assert_eq!(admin.stat("leases"), 0);
    assert!(fetch(&mut server.session(), "env:k").2.is_some());
}

/// Redis asks anew for its own blocked commands, from 7.2 on.
#[test]
fn rights_that_were_taken_away_while_a_caller_waited_count_when_it_is_woken() {
    for (rules, may_read) in [
        ("resetkeys ~other", false),
        ("-mcache.fetch", false),
        ("resetkeys %R~env:*", true),
    ] {
        for fills in [true, false] {
            let (server, mut admin, user) = with_user("~env:* +@all");
            let token = missed(fetch(&mut admin, "env:k LEASE 600000"));
            let waiting = Waiting::park_as(&server, user, "env:k LEASE 600000 WAIT 600000");
            admin.ok(&format!("ACL SETUSER user {rules}"));
            match fills {
                true => admin.ok(&format!("MCACHE.SET env:k 0 v TOKEN {token}")),
                false => assert_eq!(admin.int(&format!("MCACHE.RELEASE env:k {token}")), 1),
            }
            // Its connection stays: the lease of one that is closed passes on.
            let ended = waiting.ended();
            match (may_read, fills) {
                (true, true) => assert_eq!(ended.result, Ok(hit("v"))),
                (true, false) => assert_eq!(ended.result, Ok(("miss".into(), None, None))),
                (false, _) => {
                    let refusal = ended.result.expect_err("it may not any more");
                    assert!(refusal.starts_with("NOPERM"), "{rules}: {refusal}");
                }
            }
            if !fills {
                missed(fetch(&mut admin, "env:k"));
            }
        }
    }
}

#[test]
fn memory_that_ran_out_while_a_caller_waited_leaves_no_lease_with_it() {
    let server = Server::builder()
        .set("maxmemory-policy", "noeviction")
        .start();
    let mut redis = server.session();
    let token = missed(fetch(&mut redis, "k LEASE 600000"));
    let waiting = Waiting::park(&server, "k LEASE 600000 WAIT 600000");
    redis.ok("CONFIG SET maxmemory 1");
    assert_eq!(redis.int(&format!("MCACHE.RELEASE k {token}")), 1);
    let (answer, _its_connection) = waiting.connected();
    assert_eq!(answer, ("miss".into(), None, None));
    redis.ok("CONFIG SET maxmemory 0");
    missed(fetch(&mut redis, "k"));
}

#[test]
fn while_memory_has_run_out_there_are_hits_and_misses_and_no_leases() {
    let server = Server::builder()
        .set("maxmemory-policy", "noeviction")
        .start();
    let mut redis = server.session();
    redis.ok("MCACHE.SET k 0 v TAGS t");
    redis.ok("CONFIG SET maxmemory 1");
    assert_eq!(fetch(&mut redis, "k"), hit("v"));
    assert_eq!(fetch(&mut redis, "other"), ("miss".into(), None, None));
    assert_eq!(redis.stat("leases"), 0);
    assert!(redis.error("MCACHE.SET other 0 v").starts_with("OOM"));
    redis.ok("CONFIG SET maxmemory 0");
    missed(fetch(&mut redis, "other"));
}

/// Redis cannot remember a key for a client that a module has parked.
#[test]
fn a_caller_that_tracks_is_not_parked_and_hears_of_the_fill() {
    let server = Server::start();
    let mut redis = server.session();
    let mut tracking = server.session_resp3();
    let id = redis.int("CLIENT ID");
    let token = missed(fetch(&mut redis, "k LEASE 600000"));
    for (options, parks) in [("", false), ("BCAST", true)] {
        tracking.ok(&format!("CLIENT TRACKING ON REDIRECT {id} {options}"));
        if parks {
            let waiting = Waiting::park_as(&server, tracking, "k WAIT 600000");
            redis.ok(&format!("MCACHE.SET k 0 v TOKEN {token}"));
            assert_eq!(waiting.fetched(), hit("v"));
            break;
        }
        assert_eq!(fetch(&mut tracking, "k WAIT 600000"), busy());
        tracking.ok("CLIENT TRACKING OFF");
    }
}

/// A value past its ttl lives on in those who keep it, until they are told.
#[test]
fn whoever_tracks_a_key_is_told_when_its_entry_is_first_found_stale() {
    let server = Server::start();
    let mut redis = server.session();
    let mut listener = server.session();
    let id = listener.int("CLIENT ID");
    listener.run("SUBSCRIBE __redis__:invalidate");
    let mut tracking = server.session();
    tracking.ok(&format!("CLIENT TRACKING ON REDIRECT {id}"));
    for (n, read) in ["MCACHE.GET", "MCACHE.FETCH"].into_iter().enumerate() {
        let key = format!("k{n}");
        redis.ok(&format!("MCACHE.SET {key} 0.2 v SWR 1000"));
        if !tracking.is_live(&key) {
            // A busy machine: it is stale already.
            continue;
        }
        wait::until("it is stale", || {
            redis.state(&key).as_deref() == Some("stale")
        });
        for _ in 0..2 {
            redis.run(&format!("{read} {key}"));
        }
        assert_eq!(listener.message(), key, "{read}");
    }
}

#[test]
fn a_selector_that_allows_another_command_does_not_help_with_tags() {
    for builder in telling_and_not() {
        let rules = "~env1:* +@all (%R~env2:* +mcache.get +mcache.taginfo)";
        let (_server, mut admin, mut user) = with_user_on(builder, rules);
        admin.ok("MCACHE.SET env2:k 0 v TAGS env2:t");
        admin.ok("MCACHE.SET env1:k 0 v TAGS env1:t");
        // What the selector is for.
        assert!(user.is_live("env2:k"));
        assert!(user.map("MCACHE.TAGINFO env2:t").is_some());
        for line in [
            "MCACHE.SET env1:new 0 v TAGS env1:t env2:t",
            "MCACHE.INVALIDATE TAGS env2:t",
            "MCACHE.INVALIDATE TAGS env1:t env2:t",
            "MCACHE.ENTRIES env2:t 0",
        ] {
            let refusal = user.error(line);
            assert!(
                refusal.starts_with("NOPERM") && refusal.contains("env2:t"),
                "{line}: {refusal}"
            );
        }
        let tags: Vec<String> = user.tags().into_keys().collect();
        assert_eq!(tags, ["env1:t"]);
        user.ok("MCACHE.SET env1:new 0 v TAGS env1:t");
        assert_eq!(user.int("MCACHE.INVALIDATE TAGS env1:t"), 2);
        assert!(admin.is_live("env2:k"));
    }
}

#[test]
fn two_selectors_do_not_add_up_to_one() {
    for builder in telling_and_not() {
        let rules = "+ping (~env1:* +@all) (~env2:* +@all)";
        let (_server, mut admin, mut user) = with_user_on(builder, rules);
        user.ok("MCACHE.SET env1:k 0 v TAGS env1:t");
        user.ok("MCACHE.SET env2:k 0 v TAGS env2:t");
        for line in [
            "MCACHE.SET env1:k 0 v TAGS env2:t",
            "MCACHE.SET env2:k 0 v TAGS env2:t env1:t",
            "MCACHE.INVALIDATE TAGS env1:t env2:t",
        ] {
            assert!(user.error(line).starts_with("NOPERM"), "{line}");
        }
        let script = "return redis.call('MCACHE.SET', KEYS[1], 0, 'v', 'TAGS', ARGV[1])";
        let call = |user: &mut Session, tag| user.try_call(&["EVAL", script, "1", "env1:k", tag]);
        call(&mut user, "env2:t").expect_err("another selector's");
        call(&mut user, "env1:t").expect("its own");
        // Rules that change count at once.
        admin.ok("ACL SETUSER user clearselectors ~env1:* +@all");
        user.ok("MCACHE.SET env1:k 0 v TAGS env1:t");
        assert!(
            user.error("MCACHE.INVALIDATE TAGS env2:t")
                .starts_with("NOPERM")
        );
        admin.ok("ACL SETUSER user (~env2:* +mcache.get)");
        assert!(
            user.error("MCACHE.INVALIDATE TAGS env2:t")
                .starts_with("NOPERM")
        );
        admin.ok("ACL SETUSER user (~env2:* +mcache.invalidate)");
        assert_eq!(user.int("MCACHE.INVALIDATE TAGS env2:t"), 1);
    }
}

/// A parenthesis at the end of a pattern is part of the pattern.
#[test]
fn a_pattern_of_a_selector_may_end_with_a_parenthesis() {
    for builder in telling_and_not() {
        let server = builder.start();
        let mut admin = server.session();
        let selectors = ["(~env1:*) +@all)", "(~env2:* +@all)"];
        let rules = ["ACL", "SETUSER", "user", "on", ">secret", "resetkeys"];
        admin.call(&[&rules[..], &selectors].concat());
        let mut user = server.session_as("user", "secret");
        user.ok("MCACHE.SET env1:k) 0 v TAGS env1:t)");
        user.ok("MCACHE.SET env2:k 0 v TAGS env2:t");
        for line in [
            "MCACHE.SET env1:k) 0 v TAGS env1:t",
            "MCACHE.SET env2:k 0 v TAGS env2:t env1:t)",
            "MCACHE.INVALIDATE TAGS env1:t",
        ] {
            assert!(user.error(line).starts_with("NOPERM"), "{line}");
        }
        assert_eq!(user.int("MCACHE.INVALIDATE TAGS env1:t)"), 1);
    }
}

#[test]
fn restore_and_copy_bring_no_tags_that_the_sender_may_not_write() {
    let (server, mut admin, mut user) = with_user("~env1:* %R~env2:* +@all");
    admin.ok("MCACHE.SET env2:k 0 v TAGS env2:t");
    admin.ok("MCACHE.SET env1:k 0 v TAGS env1:t");
    let (foreign, own) = (admin.dump("env2:k"), admin.dump("env1:k"));
    let restore = |key: &'static str, dump: &[u8]| {
        let words: [&[u8]; 5] = [b"RESTORE", key.as_bytes(), b"0", dump, b"REPLACE"];
        words.map(<[u8]>::to_vec)
    };
    user.call(&restore("env1:own", &own));
    assert!(user.is_live("env1:own"));
    user.call(&restore("env1:foreign", &foreign));
    let script = "return redis.call('RESTORE', KEYS[1], 0, ARGV[1])";
    let words: [&[u8]; 5] = [b"EVAL", script.as_bytes(), b"1", b"env1:script", &foreign];
    user.call(&words);
    assert_eq!(user.int("COPY env2:k env1:copy"), 1);
    assert_eq!(user.int("COPY env1:k env1:copied"), 1);
    user.run("MULTI");
    user.run("COPY env2:k env1:queued");
    user.run("EXEC");
    for key in ["env1:foreign", "env1:script", "env1:copy", "env1:queued"] {
        assert!(!admin.is_live(key), "{key}");
    }
    assert!(admin.is_live("env1:copied"));
    assert_eq!(admin.entries("env2:t"), ["env2:k"]);
    assert_eq!(
        admin.entries("env1:t"),
        ["env1:copied", "env1:k", "env1:own"]
    );
    wait::until("what was refused is gone", || admin.int("DBSIZE") == 4);

    // Where Redis does not say who sent it, the keys of this user get no foreign tags from any sender; others do.
    admin.call(&restore("env1:by-admin", &foreign));
    assert!(!admin.is_live("env1:by-admin"));
    admin.call(&restore("elsewhere", &foreign));
    assert!(admin.is_live("elsewhere"));
    // A user who may do neither holds no one up; a selector helps only with what it allows by itself.
    admin.ok("ACL SETUSER user -restore -copy -restore-asking (~env2:* +@all)");
    admin.call(&restore("env1:by-admin", &foreign));
    assert!(admin.is_live("env1:by-admin"));
    admin.ok("ACL SETUSER user +restore");
    admin.call(&restore("env1:foreign", &foreign));
    assert!(!admin.is_live("env1:foreign"));
    drop(server);
}

/// Whether users can be confined to some databases, which Valkey 9.1 brought.
fn has_rules_for_databases() -> bool {
    let there = host::program().is(Maker::Valkey, 9, 1);
    host::has(there, "its rules name no databases")
}

#[test]
fn a_user_of_one_database_brings_no_foreign_tag_in() {
    if !has_rules_for_databases() {
        return;
    }
    for builder in telling_and_not() {
        for rules in ["~env1:* +@all db=1", "resetdbs (~env1:* +@all db=1,3)"] {
            let (_server, mut admin, mut user) = with_user_on(builder.clone(), rules);
            admin.ok("SELECT 1");
            user.ok("SELECT 1");
            admin.ok("MCACHE.SET env1:k 0 v TAGS env2:t");
            let dump = admin.dump("env1:k");
            user.call(&[b"RESTORE", &b"env1:restored"[..], b"0", &dump]);
            assert_eq!(user.int("COPY env1:k env1:copied"), 1);
            admin.call(&[b"RESTORE", &b"env1:by-admin"[..], b"0", &dump]);
            for key in ["env1:restored", "env1:copied", "env1:by-admin"] {
                assert!(!admin.is_live(key), "{rules}: {key}");
            }
            assert_eq!(admin.entries("env2:t"), ["env1:k"], "{rules}");
            user.ok("MCACHE.SET env1:own 0 v TAGS env1:t");
            let dump = user.dump("env1:own");
            user.call(&[b"RESTORE", &b"env1:again"[..], b"0", &dump]);
            assert!(user.is_live("env1:again"), "{rules}");
        }
    }
}

#[test]
fn a_selector_of_another_database_covers_no_tag() {
    if !has_rules_for_databases() {
        return;
    }
    for builder in telling_and_not() {
        let rules = "~env1:* +@all db=0,1 (~env1:* ~env2:* +@all db=1)";
        let (_server, _, mut user) = with_user_on(builder, rules);
        let line = "MCACHE.SET env1:k 0 v TAGS env2:t";
        let refusal = user.error(line);
        assert!(refusal.contains("the tag 'env2:t'"), "{refusal}");
        user.ok("MCACHE.SET env1:k 0 v TAGS env1:t");
        user.ok("SELECT 1");
        user.ok(line);
        assert_eq!(user.int("MCACHE.INVALIDATE TAGS env2:t"), 1);
    }
}

/// For a user that may touch every key the tags are not checked one by one; for rules that only look like that they
/// are.
#[test]
fn only_rules_that_cover_every_key_cover_every_tag() {
    for (keys, covers) in [
        ("~*", true),
        ("allkeys", true),
        ("%RW~*", true),
        ("~k* ~t", true),
        ("~k (+@all ~*)", true),
        ("~*k", false),
        ("%R~* %W~k", false),
        ("%W~k %R~*", false),
        ("~k", false),
    ] {
        for builder in telling_and_not() {
            let (_server, _, mut user) = with_user_on(builder, &format!("+@all {keys}"));
            let line = "MCACHE.INVALIDATE TAGS t";
            match covers {
                true => assert_eq!(user.int(line), 0, "{keys}"),
                false => assert!(user.error(line).contains("the tag 't'"), "{keys}"),
            }
        }
    }
}

/// The handle of the user `default` is kept, and so is what its rules allow until they change: every way in which they
/// do must be seen by the next command, and so must another user on the same connection.
#[test]
fn rules_of_the_default_user_count_at_once_however_they_change() {
    const LINES: [&str; 2] = ["MCACHE.SET a 0 v TAGS b", "MCACHE.INVALIDATE TAGS b"];
    let may = |session: &mut Session, allowed: bool, why: &str| {
        for line in LINES {
            let refusal = session.try_run(line).err().unwrap_or_default();
            let expected = if allowed { "" } else { "NOPERM" };
            assert_eq!(refusal.is_empty(), allowed, "{why}, {line}: {refusal}");
            assert!(refusal.contains(expected), "{why}, {line}: {refusal}");
        }
    };
    for builder in telling_and_not() {
        let dir = ScratchDir::new("acl");
        let file = dir.path().join("users.acl");
        let write = |rules: &str| {
            let other = "user other on >secret ~a* &* +@all";
            let text = format!("user default on nopass &* +@all {rules}\n{other}\n");
            fs::write(&file, text).expect("the rules are written");
        };
        write("~*");
        let server = builder.set("aclfile", file.display()).start();
        let mut redis = server.session();
        for round in 0..3 {
            may(&mut redis, true, &format!("round {round}"));
            redis.ok("ACL SETUSER default resetkeys ~a*");
            may(&mut redis, false, "set to ~a*");
            redis.ok("ACL SETUSER default ~*");
            may(&mut redis, true, "set to ~*");
            write("~a*");
            redis.ok("ACL LOAD");
            may(&mut redis, false, "loaded ~a*");
            write("~*");
            redis.ok("ACL LOAD");
            may(&mut redis, true, "loaded ~*");
            write("~a* +no-such-command");
            redis.error("ACL LOAD");
            redis.error("ACL DELUSER default");
            may(&mut redis, true, "a file that is refused");
            redis.ok("AUTH other secret");
            may(&mut redis, false, "as another user");
            redis.run("RESET");
            may(&mut redis, true, "as before");
            redis.ok("ACL SETUSER default (+mcache.get ~b*)");
            may(&mut redis, true, "with a selector beside ~*");
            redis.ok("ACL SETUSER default resetkeys ~a*");
            may(&mut redis, false, "~a* and a selector");
            write("~*");
            redis.ok("ACL LOAD");
        }
    }
}

#[test]
fn draining_is_a_write() {
    let server = Server::builder()
        .set("mcache.reclaim-inline-max", 0)
        .start();
    let mut redis = server.session();
    let script = "return redis.call('MCACHE.DEBUG', 'DRAIN')";
    let refusal = redis
        .try_call(&["EVAL_RO", script, "0"])
        .expect_err("a write");
    assert!(refusal.contains("rite"), "{refusal}");
    redis
        .try_call(&["EVAL", script, "0"])
        .expect("a script that writes");
    let replicated = harness::topology::Replicated::start(1);
    let mut replica = replicated.replicas[0].session();
    assert!(replica.error("MCACHE.DEBUG DRAIN").starts_with("READONLY"));
    replica.ok("MCACHE.DEBUG SELFCHECK");
}

/// What has expired is hidden while writes are paused, and cannot be deleted: waiting for its end took for ever.
#[test]
fn draining_ends_although_writes_are_paused_and_a_dead_entry_expires() {
    let server = Server::builder()
        .set("mcache.reclaim-inline-max", 0)
        .start();
    let mut redis = server.session();
    redis.ok("DEBUG SET-ACTIVE-EXPIRE 0");
    redis.ok("MCACHE.SET k 0.05 v TAGS t");
    redis.ok("MULTI");
    redis.run("MCACHE.INVALIDATE TAGS t");
    redis.run("CLIENT PAUSE 600000 WRITE");
    redis.run("MCACHE.DEBUG DRAIN");
    let redis::Value::Array(replies) = redis.run("EXEC") else {
        panic!("three replies");
    };
    assert!(
        format!("{:?}", replies[2]).contains("writes are paused"),
        "{replies:?}"
    );
    wait::until("it has expired", || redis.int("PTTL k") == -2);
    let mut other = server.session();
    other.ok("CLIENT UNPAUSE");
    redis.drain();
    assert_eq!(redis.int("DBSIZE"), 0);
}

#[test]
fn entries_announce_what_becomes_of_them() {
    for inline_max in [10_000, 0] {
        let server = Server::builder()
            .set("notify-keyspace-events", "Kd")
            .set("mcache.reclaim-inline-max", inline_max)
            .start();
        let mut redis = server.session();
        let mut listener = server.session();
        listener.run("PSUBSCRIBE __keyspace@0__:*");
        redis.ok("MCACHE.SET k 100 v SWR 10 TAGS t");
        redis.int("MCACHE.INVALIDATE SOFT TAGS t");
        redis.drain();
        redis.int("MCACHE.INVALIDATE TAGS t");
        redis.drain();
        let events: Vec<String> = (0..3).map(|_| listener.message()).collect();
        assert_eq!(
            events,
            ["mcache.set", "mcache.stale", "mcache.invalidated"],
            "inline-max {inline_max}"
        );
    }
}
