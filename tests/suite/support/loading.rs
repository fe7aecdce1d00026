//! Loading: a server in which a promise cannot be kept is refused with a sentence that says why and what to do.

use harness::{Server, host};
use mcache_core::host::Maker;

/// Valkey with the fault of 8.1.
fn has_the_fault_of_8_1() -> bool {
    let faulty = host::program().host.maker == Maker::Valkey && !host::program().is_accepted();
    host::has(faulty, "it has no fault that the module refuses")
}

#[test]
fn valkey_8_1_is_refused_with_the_reason_and_two_ways_out() {
    if !has_the_fault_of_8_1() {
        return;
    }
    let log = Server::builder().as_it_is().refusal();
    for words in [
        "mcache was not loaded",
        "leave the client in the wrong database",
        "databases 1",
        "mcache.accept-valkey-8-1 yes",
    ] {
        assert!(log.contains(words), "{words}:\n{log}");
    }
    for (directive, value) in [("databases", "1"), ("mcache.accept-valkey-8-1", "yes")] {
        let server = Server::builder().as_it_is().set(directive, value).start();
        server.session().ok("MCACHE.SET k 0 v TAGS t");
    }
    // A node of a cluster has one database.
    let node = Server::builder().as_it_is().cluster().start();
    assert_eq!(node.session().stat("entries"), 0);
}

/// What the option is about: without the module the database is the right one. Once this fails the fault is repaired.
#[test]
fn the_fault_of_valkey_8_1_is_what_the_refusal_says() {
    if !has_the_fault_of_8_1() {
        return;
    }
    let written_elsewhere = |server: &Server| {
        let mut redis = server.session();
        redis.ok("SET plain v");
        redis.int("COPY plain plain DB 3");
        redis.ok("SET where here");
        redis.ok("SELECT 3");
        redis.int("EXISTS where")
    };
    let plain = Server::builder().without_module().start();
    assert_eq!(written_elsewhere(&plain), 0);
    assert_eq!(written_elsewhere(&Server::start()), 1);
}

#[test]
fn the_option_is_there_and_cannot_be_changed_while_the_server_runs() {
    let server = Server::start();
    let mut redis = server.session();
    let found = redis.list("CONFIG GET mcache.accept-valkey-8-1");
    let expected = match host::program().is_accepted() {
        true => "no",
        false => "yes",
    };
    assert_eq!(found, ["mcache.accept-valkey-8-1", expected]);
    let refusal = redis.error("CONFIG SET mcache.accept-valkey-8-1 yes");
    assert!(refusal.contains("immutable"), "{refusal}");
}

#[test]
fn a_value_that_an_option_cannot_have_keeps_the_module_from_loading_and_harms_nothing() {
    let log = Server::builder()
        .set("mcache.reclaim-budget-us", 5)
        .refusal();
    for words in [
        "mcache.reclaim-budget-us : argument must be between 20 and 100000",
        "mcache was not loaded: an option cannot have the value that it is given",
    ] {
        assert!(log.contains(words), "{words}:\n{log}");
    }
    assert!(!log.contains("crashed by signal"), "{log}");
}

#[test]
fn of_a_wrong_value_at_run_time_a_server_says_so_and_goes_on_without_the_module() {
    let server = Server::builder()
        .without_module()
        .set("enable-module-command", "yes")
        .start();
    let mut redis = server.session();
    redis.ok("SET plain v");
    let load = |budget: u64| {
        let module = harness::locate::module();
        let module = module.display();
        // Where only an option stands between the module and the server, it is set.
        format!(
            "MODULE LOADEX {module} CONFIG mcache.accept-valkey-8-1 yes CONFIG mcache.reclaim-budget-us {budget}"
        )
    };
    let refusal = redis.error(&load(5));
    assert!(refusal.contains("Error loading the extension"), "{refusal}");
    assert_eq!(redis.text("GET plain").as_deref(), Some("v"));
    let missing = redis.error("MCACHE.GET k");
    assert!(missing.contains("unknown command"), "{missing}");
    redis.ok(&load(50));
    assert_eq!(redis.list("CONFIG GET mcache.reclaim-budget-us")[1], "50");
    redis.ok("MCACHE.SET k 0 v TAGS t");
    assert_eq!(redis.int("MCACHE.INVALIDATE TAGS t"), 1);
}
