//! Errors that a server answers to everything for a while.

use std::thread::JoinHandle;

use harness::{Server, topology};

use super::{apart, observed, url_of_user};

#[test]
fn a_server_that_runs_a_long_script() {
    let server = Server::builder().tcp().start();
    let mut redis = server.session();
    redis.ok("CONFIG SET busy-reply-threshold 1");
    observed(&server.tcp_url(), async |observed| {
        let begin = async || apart(&server, &["EVAL", "while true do end", "0"]);
        let end = async |script: JoinHandle<()>| {
            redis.ok("SCRIPT KILL");
            script.join().expect("it has ended");
        };
        observed.endures(&["said once", "BUSY"], begin, end).await;
    });
}

#[test]
fn a_server_that_loads() {
    let server = Server::builder().tcp().start();
    let mut redis = server.session();
    redis.run_all((0..3000).map(|number| format!("SET filler:{number} x")));
    redis.ok("CONFIG SET loading-process-events-interval-bytes 1024");
    observed(&server.tcp_url(), async |observed| {
        let mut other = server.session();
        let begin = async || {
            redis.ok("CONFIG SET key-load-delay 2000");
            apart(&server, &["DEBUG", "RELOAD"])
        };
        let end = async |loading: JoinHandle<()>| {
            other.ok("CONFIG SET key-load-delay 0");
            loading.join().expect("it has ended");
        };
        observed
            .endures(&["said once", "LOADING"], begin, end)
            .await;
    });
}

#[test]
fn a_server_that_cannot_save() {
    let server = Server::builder().tcp().start();
    let mut redis = server.session();
    redis.ok("CONFIG SET stop-writes-on-bgsave-error yes");
    redis.ok("CONFIG SET save \"3600 1000000\"");
    let file = redis.list("CONFIG GET dbfilename").remove(1);
    let in_the_way = server.dir().join(file);
    observed(&server.tcp_url(), async |observed| {
        let mut other = server.session();
        let begin = async || {
            let _ = std::fs::remove_file(&in_the_way);
            std::fs::create_dir(&in_the_way).expect("a folder");
            redis.run("BGSAVE");
            harness::wait::until("saving fails", || {
                redis.info_text("persistence", "rdb_last_bgsave_status") == "err"
            });
        };
        let end = async |()| {
            std::fs::remove_dir(&in_the_way).expect("the folder");
            other.run("BGSAVE");
            harness::wait::until("saving works", || {
                other.info_text("persistence", "rdb_last_bgsave_status") == "ok"
            });
        };
        observed
            .endures(&["said once", "MISCONF"], begin, end)
            .await;
    });
}

#[test]
fn a_server_that_has_become_a_replica() {
    let server = Server::builder().tcp().start();
    let primary = Server::builder().tcp().start();
    let mut redis = server.session();
    observed(&server.tcp_url(), async |observed| {
        let mut other = server.session();
        let begin = async || {
            redis.ok(&format!("REPLICAOF 127.0.0.1 {}", primary.port()));
            topology::await_link(&server);
        };
        let end = async |()| {
            other.ok("REPLICAOF NO ONE");
        };
        observed
            .endures(&["said once", "READONLY"], begin, end)
            .await;
    });
}

#[test]
fn a_server_with_another_password() {
    let server = Server::builder().tcp().start();
    let mut redis = server.session();
    let url = url_of_user(&server, "");
    observed(&url, async |observed| {
        let mut other = server.session();
        let begin = async || {
            redis.ok("ACL SETUSER shop resetpass >other");
            redis.run("CLIENT KILL USER shop");
        };
        let end = async |()| other.ok("ACL SETUSER shop >secret");
        observed
            .endures(&["said once", "WRONGPASS"], begin, end)
            .await;
    });
}

/// The address of a replica, by mistake.
#[test]
fn a_server_that_is_a_replica_from_the_start() {
    let primary = Server::builder().tcp().start();
    let server = topology::follow(&primary, Server::builder().tcp());
    let mut redis = server.session();
    observed(&server.tcp_url(), async |observed| {
        let before = redis.info("stats", "total_connections_received");
        let began = std::time::Instant::now();
        for number in 0..300 {
            assert_eq!(observed.read(&number.to_string(), 5).await.0, 5);
        }
        observed.said_once(&["READONLY", "said once"]);
        // How many it may be depends on how long that took.
        let connections = redis.info("stats", "total_connections_received") - before;
        let most = began.elapsed().as_millis() as i64 / 100 + 2;
        assert!(connections <= most, "{connections} connections");
    });
}
