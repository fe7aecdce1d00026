//! The harness does what the other files rely on. Plain Redis, no module: when these fail, look nowhere else first.

use std::time::{Duration, Instant};

use harness::topology::{Cluster, Replicated, Sentinels, is_primary};
use harness::{Postgres, Proxy, ReplicationStream, Server, ServerBuilder, Session, wait};

fn plain() -> ServerBuilder {
    Server::builder().without_module()
}

#[test]
fn a_server_keeps_its_data_over_a_restart_only_if_it_has_save_points() {
    for (save, expected) in [("\"\"", None), ("3600 1", Some("1".to_owned()))] {
        let mut server = plain().set("save", save).start();
        server.session().ok("SET a 1");
        server.restart();
        assert_eq!(server.session().text("GET a"), expected, "save {save}");
    }
}

#[test]
fn kill9_loses_what_was_not_on_disk() {
    let mut server = plain().set("save", "3600 1").start();
    server.session().ok("SET a 1");
    server.kill9();
    server.start_again();
    assert_eq!(server.session().text("GET a"), None);
}

#[test]
fn a_session_shows_errors_as_they_stand_on_the_wire() {
    let server = plain().start();
    for mut session in [server.session(), server.session_resp3()] {
        session.ok("SET text \"two words\"");
        assert_eq!(
            session.error("LPUSH text x"),
            "WRONGTYPE Operation against a key holding the wrong kind of value"
        );
        assert_eq!(
            session.error("GET"),
            "ERR wrong number of arguments for 'get' command"
        );
        assert_eq!(session.text("GET text").as_deref(), Some("two words"));
    }
}

#[test]
fn redis_cli_talks_to_the_server() {
    let server = plain().start();
    let output = server.cli(&[], "SET a 1\nGET a\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "OK\n1\n");
}

#[test]
fn a_paused_server_answers_after_it_was_resumed() {
    let server = plain().start();
    let mut session = server.session();
    server.pause();
    session
        .connection()
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout");
    assert!(session.try_run("PING").is_err());
    server.resume();
    assert_eq!(server.session().text("PING").as_deref(), Some("PONG"));
}

#[test]
fn replicas_follow_and_chained_replicas_follow_them() {
    for replicated in [
        Replicated::start_with(2, plain()),
        Replicated::chained(2, plain()),
    ] {
        replicated.primary.session().ok("SET a 1");
        replicated.assert_same();
        for replica in &replicated.replicas {
            assert_eq!(replica.session().text("GET a").as_deref(), Some("1"));
        }
    }
}

#[test]
fn the_replication_stream_is_told_word_by_word() {
    let server = plain().start();
    let mut session = server.session();
    let mut stream = ReplicationStream::open(&server);
    assert_eq!(stream.take(), Vec::<String>::new());
    session.ok("SET a \"x y\" PXAT 99999999999999");
    session.ok("SET n 1");
    session.int("DEL a nothing");
    assert_eq!(
        stream.take(),
        [
            "SET a \"x y\" PXAT 99999999999999",
            "SET n 1",
            "DEL a nothing"
        ]
    );
    session.ok("SELECT 3");
    session.ok("SET b 1");
    assert_eq!(stream.take(), ["SELECT 3", "SET b 1"]);
    session.ok("SET b 2");
    assert_eq!(stream.take(), ["SELECT 3", "SET b 2"]);
}

#[test]
fn sentinels_fail_over_to_the_replica() {
    let mut replicated = Replicated::start_with(1, plain());
    let _sentinels = Sentinels::watch(&replicated);
    replicated.primary.session().ok("SET a 1");
    replicated.sync();
    replicated.primary.kill9();
    let replica = &replicated.replicas[0];
    wait::until("the replica is promoted", || is_primary(replica));
    assert_eq!(replica.session().text("GET a").as_deref(), Some("1"));
}

#[test]
fn a_cluster_has_three_primaries_with_a_replica_each() {
    let cluster = Cluster::start_with(plain());
    assert_eq!(cluster.primaries().count(), 3);
    let slots: i64 = cluster
        .primaries()
        .map(|node| {
            let info: String = node.session().typed("CLUSTER INFO");
            i64::from(info.contains("cluster_slots_ok:16384"))
        })
        .sum();
    assert_eq!(slots, 3);
}

#[test]
fn a_proxy_cuts_refuses_stalls_and_delays() {
    let server = plain().start();
    let proxy = Proxy::to_socket(server.socket());
    let connect = || -> Option<Session> {
        let client = redis::Client::open(proxy.url()).expect("a url");
        client.get_connection().ok().map(Session::new)
    };
    let mut session = connect().expect("the proxy forwards");
    assert_eq!(session.text("PING").as_deref(), Some("PONG"));

    proxy.cut();
    assert!(session.try_run("PING").is_err());
    proxy.refuse();
    assert!(connect().is_none());
    proxy.heal();
    let mut session = connect().expect("the proxy forwards again");

    let delay = Duration::from_millis(30);
    proxy.delay(delay);
    let start = Instant::now();
    session.run("PING");
    assert!(start.elapsed() >= 2 * delay, "each way is delayed");
    proxy.heal();

    proxy.stall();
    session
        .connection()
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout");
    assert!(session.try_run("SET stalled 1").is_err());
    assert_eq!(server.session().text("GET stalled"), None);
    proxy.heal();
    wait::until("what was stalled is delivered", || {
        server.session().text("GET stalled").is_some()
    });
}

#[test]
fn postgres_keeps_committed_rows_over_a_crash() {
    let mut postgres = Postgres::start();
    postgres.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)");
    postgres.crash();
    postgres.start_again();
    assert_eq!(postgres.psql("SELECT a FROM t ORDER BY a"), "1\n2");
    postgres.restart();
    assert!(postgres.try_psql("SELECT nonsense").is_err());
}
