//! A user sees, fills and invalidates what the key patterns allow, keys and tags alike.

use harness::{Server, Session};

/// What servers say of a key: 7.0 "this user has no permissions to access one of the keys used as arguments", later
/// ones "No permissions to access a key".
fn is_about_a_key(refusal: &str) -> bool {
    refusal.contains(" key") && !refusal.contains("the tag")
}

/// A server with data of two environments and a user confined to the first.
fn two_environments(rules: &str) -> (Server, Session, Session) {
    let server = Server::start();
    let mut admin = server.session();
    admin.ok("MCACHE.SET env1:k 0 v1 TAGS env1:t env1:*");
    admin.ok("MCACHE.SET env2:k 0 v2 TAGS env2:t env2:*");
    admin.ok(&format!("ACL SETUSER tenant on >secret resetkeys {rules}"));
    let tenant = server.session_as("tenant", "secret");
    (server, admin, tenant)
}

#[track_caller]
fn assert_refused(session: &mut Session, line: &str, tag: Option<&str>) {
    let refusal = session.error(line);
    assert!(refusal.starts_with("NOPERM"), "{line}: {refusal}");
    match tag {
        Some(tag) => assert!(refusal.contains(tag), "{line}: {refusal} names {tag}"),
        None => assert!(is_about_a_key(&refusal), "{line}: {refusal}"),
    }
}

#[test]
fn a_confined_user_works_within_its_environment() {
    let (_server, _, mut tenant) = two_environments("~env1:* +@all");
    assert_eq!(tenant.text("MCACHE.GET env1:k").as_deref(), Some("v1"));
    assert_eq!(tenant.entries("env1:t"), ["env1:k"]);
    let token = tenant.token("env1:new");
    tenant.ok(&format!(
        "MCACHE.SET env1:new 0 v TOKEN {token} TAGS env1:t env1:*"
    ));
    assert!(tenant.map("MCACHE.INSPECT env1:k").is_some());
    assert!(tenant.map("MCACHE.TAGINFO env1:t").is_some());
    assert_eq!(tenant.int("MCACHE.INVALIDATE TAGS env1:t"), 2);
    assert_eq!(tenant.int("MCACHE.INVALIDATE AUTO TAGS env1:*"), 0);
}

#[test]
fn a_confined_user_does_not_reach_another_environments_keys_or_tags() {
    let (_server, mut admin, mut tenant) = two_environments("~env1:* +@all");
    for line in [
        "MCACHE.GET env2:k",
        "MCACHE.MGET env1:k env2:k",
        "MCACHE.TOKEN env2:k",
        "MCACHE.INSPECT env2:k",
        "MCACHE.SET env2:k 0 v",
        "MCACHE.SET env2:k 0 v TAGS env1:t",
    ] {
        assert_refused(&mut tenant, line, None);
    }
    for line in [
        "MCACHE.SET env1:k 0 mine TAGS env1:t env2:t",
        "MCACHE.INVALIDATE TAGS env2:t",
        "MCACHE.INVALIDATE env2:t",
        "MCACHE.INVALIDATE TAGS env1:t env2:t",
        "MCACHE.INVALIDATE AUTO TAGS env2:t",
        "MCACHE.ENTRIES env2:t 0",
        "MCACHE.TAGINFO env2:t",
        // A tag of another environment without entries tells nothing either.
    ] {
        assert_refused(&mut tenant, line, Some("env2:t"));
    }
    assert_refused(
        &mut tenant,
        "MCACHE.INVALIDATE TAGS env2:nothing",
        Some("env2:nothing"),
    );
    // All or nothing: the allowed tag of a refused command is not touched.
    assert_eq!(tenant.text("MCACHE.GET env1:k").as_deref(), Some("v1"));
    assert_eq!(admin.text("MCACHE.GET env2:k").as_deref(), Some("v2"));
    assert_eq!(admin.entries("env2:t"), ["env2:k"]);
    assert_eq!(admin.stat("invalidations"), 0);
}

#[test]
fn tags_lists_what_the_user_may_see() {
    let (_server, mut admin, mut tenant) = two_environments("~env1:* +@all");
    assert_eq!(
        tenant.tags().into_keys().collect::<Vec<_>>(),
        ["env1:*", "env1:t"]
    );
    assert_eq!(admin.tags().len(), 4);
    // A foreign entry that carries our tag is not ours to see.
    admin.ok("MCACHE.SET env2:spy 0 v TAGS env1:t");
    assert_eq!(tenant.entries("env1:t"), ["env1:k"]);
}

#[test]
fn a_reader_reads_and_does_not_fill_or_invalidate() {
    let (_server, mut admin, mut reader) = two_environments("%R~env1:* +@all");
    assert_eq!(reader.text("MCACHE.GET env1:k").as_deref(), Some("v1"));
    assert_eq!(
        reader.run("MCACHE.MGET env1:k").clone(),
        admin.run("MCACHE.MGET env1:k")
    );
    assert_eq!(reader.entries("env1:t"), ["env1:k"]);
    assert!(reader.map("MCACHE.INSPECT env1:k").is_some());
    assert!(reader.map("MCACHE.TAGINFO env1:t").is_some());
    assert_refused(&mut reader, "MCACHE.SET env1:k 0 v", None);
    assert_refused(&mut reader, "MCACHE.INVALIDATE TAGS env1:t", Some("env1:t"));
    assert!(admin.is_live("env1:k"));
}

/// Redis 7.0 knows no categories for commands of modules (7.2 does), so roles name the commands.
#[test]
fn roles_are_made_of_commands() {
    let (_server, mut admin, mut user) = two_environments("~* +mcache.get +mcache.mget");
    assert!(user.is_live("env1:k"));
    for line in [
        "MCACHE.SET k 0 v",
        "MCACHE.INVALIDATE TAGS t",
        "MCACHE.TAGS 0",
        "MCACHE.DEBUG SELFCHECK",
    ] {
        let refusal = user.error(line);
        assert!(refusal.starts_with("NOPERM"), "{line}: {refusal}");
    }
    admin.ok("ACL SETUSER tenant +mcache.set +mcache.invalidate");
    user.ok("MCACHE.SET k 0 v TAGS t");
    assert_eq!(user.int("MCACHE.INVALIDATE TAGS t"), 1);
}

#[test]
fn scripts_functions_and_transactions_of_a_confined_user_are_confined() {
    let (_server, mut admin, mut tenant) = two_environments("~env1:* +@all");
    admin.call(&[
        "FUNCTION",
        "LOAD",
        "#!lua name=acl\n\
         redis.register_function('clear', function(keys, args)\n\
           return redis.call('MCACHE.INVALIDATE', 'TAGS', args[1])\n\
         end)",
    ]);
    let script = "return redis.call('MCACHE.INVALIDATE', 'TAGS', ARGV[1])";
    for call in [["EVAL", script, "0"], ["FCALL", "clear", "0"]] {
        let mut with = |tag: &str| tenant.try_call(&[&call[..], &[tag]].concat());
        let refusal = with("env2:t").expect_err("a tag of another environment");
        assert!(refusal.contains("env2:t"), "{refusal}");
        assert_eq!(with("env1:nobody"), Ok(redis::Value::Int(0)));
    }
    tenant.ok("MULTI");
    tenant.run("MCACHE.SET env1:new 0 v TAGS env1:t");
    tenant.run("MCACHE.INVALIDATE TAGS env2:t");
    let replies = tenant.run("EXEC");
    let redis::Value::Array(replies) = replies else {
        panic!("{replies:?}");
    };
    assert_eq!(replies[0], redis::Value::Okay);
    assert!(
        matches!(&replies[1], redis::Value::ServerError(e) if e.code() == "NOPERM"),
        "{replies:?}"
    );
    assert!(admin.is_live("env2:k"));
}
