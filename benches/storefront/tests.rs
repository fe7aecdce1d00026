//! The benchmark's checker finds nothing stale in the storefront, and a round survives the end of Redis.

use std::sync::Arc;

use storefront::config::Config;
use storefront::serve::Server;
use storefront::servers::Servers;
use storefront_bench::{Checker, outage};
use storefront_load::Client;

/// Servers of their own, seeded with every kind of page there is, and how a store is opened on them.
async fn seeded(stock: u32) -> (Arc<Servers>, Config) {
    let servers = Arc::new(tokio::task::spawn_blocking(Servers::start).await.unwrap());
    let config = servers.config(Config {
        listen: "127.0.0.1:0".to_owned(),
        caching: Some(true),
        products: 60,
        stock,
        ..Config::default()
    });
    servers.seed(&config).await.unwrap();
    (servers, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stale_is_served_after_an_acknowledged_change() {
    let (servers, config) = seeded(100).await;
    let store = Server::start(config).await.unwrap();
    // Without a hit there would be nothing that could be stale. What is read is stored after it was answered.
    let mut client = Client::new(store.address);
    while client.get("/store/regions").await.unwrap().cache != "hit" {}
    let mut checker = Checker::new(store.address, servers, true, 7);
    for _ in 0..30 {
        checker.step().await.unwrap();
    }
    let found = checker.findings();
    assert_eq!(found.stale, Vec::<String>::new());
    assert!(found.compared >= 40, "{found:?}");
    store.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_in_mid_round_costs_no_request_and_leaves_nothing_stale() {
    let (servers, config) = seeded(1_000).await;
    let outage = outage(&servers, &config, 3).await.unwrap();
    assert_eq!(outage.failures, 0, "{outage:?}");
    assert_eq!(outage.findings.stale, Vec::<String>::new());
    assert!(
        outage.requests > 0 && outage.findings.compared > 0,
        "{outage:?}"
    );
}
