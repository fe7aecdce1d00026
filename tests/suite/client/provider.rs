//! The server is a provider like any other: what the in-process one promises, it promises, over every protocol and
//! transport.

use std::sync::Arc;

use harness::Server;
use mcache::{RedisProvider, server::RedisOptions};

use crate::support::runtime::run;

/// Runs every conformance test against a server at this address.
fn conforms(url: &str) {
    run(async {
        let provider = RedisProvider::new(url, RedisOptions::default()).expect("an address");
        let provider = Arc::new(provider);
        for (name, test) in mcache::conformance::tests() {
            println!("{name}");
            test(provider.clone()).await;
        }
    });
}

#[test]
fn over_a_unix_socket() {
    let server = Server::start();
    conforms(&server.url());
}

#[test]
fn over_tcp_with_the_third_protocol() {
    let server = Server::builder().tcp().start();
    conforms(&format!("{}/?protocol=resp3", server.tcp_url()));
}

#[test]
fn in_another_database() {
    let server = Server::start();
    conforms(&format!("{}?db=5", server.url()));
    assert_eq!(server.session().int("DBSIZE"), 0, "of database 0");
}
