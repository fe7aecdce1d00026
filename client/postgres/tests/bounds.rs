//! What is promised to threads, by compiling, and that no number of connections or duration panics before a server is
//! asked. What follows with a server is in the suite, `postgres::delivery`.

use std::{fmt::Debug, sync::Arc, time::Duration};

use mcache::change::ChangeSource;
use mcache_graph::{Entity, GraphOptions, GraphQuery, Schema};
use mcache_postgres::{
    ConsumerName, ConsumerStatus, Mapping, MappingBuilder, Outbox, OutboxReceipt, OutboxSource,
    OutboxStatus, PostgresError, PostgresResolver, Pruned, Table, WeakKey,
    tokio_postgres::{Client, Config, NoTls},
};

/// Owned, shared between threads, shown in a log.
fn is_shared<T: Send + Sync + Debug + 'static>() {}

/// Sent to another thread and shown in a log.
fn is_sent<T: Send + Debug + 'static>() {}

fn is_error<T: std::error::Error + Clone + Send + Sync + 'static>() {}

fn sendable<F: Future + Send>(future: F) -> F {
    future
}

#[test]
fn types_can_be_shared_and_shown_and_errors_cloned() {
    is_shared::<(Mapping, MappingBuilder, Table, WeakKey)>();
    is_shared::<(Outbox, OutboxStatus, Pruned)>();
    is_shared::<(ConsumerName, ConsumerStatus, PostgresResolver)>();
    is_sent::<(OutboxSource, OutboxReceipt)>();
    is_error::<PostgresError>();
}

fn mapping() -> Arc<Mapping> {
    let schema = Schema::builder().entity(Entity::new("Product").field("title"));
    let mapping = Mapping::builder(Arc::new(schema.build().unwrap()));
    Arc::new(mapping.build().unwrap())
}

/// Where no server listens: connections are refused at once.
fn closed() -> Config {
    "host=127.0.0.1 port=1 user=nobody dbname=none"
        .parse()
        .unwrap()
}

#[tokio::test]
async fn futures_can_be_polled_by_any_thread() {
    let outbox = Outbox::new(mapping(), "test");
    drop(sendable(outbox.install_with(closed(), NoTls)));
    let mut source = outbox.source(closed(), NoTls);
    drop(sendable(source.check()));
    drop(sendable(source.next()));
    drop(sendable(source.acknowledge(&mut Vec::new())));
    let resolver = PostgresResolver::new(closed(), NoTls, mapping()).unwrap();
    drop(sendable(resolver.check()));
    // With a client that only a server gives: compiled, never called.
    let _ = |outbox: Outbox, mut client: Client| {
        drop(sendable(outbox.install(&mut client)));
        drop(sendable(outbox.prune(&mut client)));
        drop(sendable(outbox.uninstall(&mut client)));
        drop(sendable(outbox.status(&client)));
    };
}

#[tokio::test]
async fn no_number_of_connections_and_no_duration_panics() {
    for connections in [0, 1, usize::MAX] {
        let resolver = PostgresResolver::with_connections(closed(), NoTls, mapping(), connections);
        let resolver = resolver.unwrap();
        let graph = mcache_graph::Graph::builder(mapping().schema().clone(), resolver).build();
        let query = GraphQuery::new("product").fields(["title"]);
        let refused = graph.query(&query, &GraphOptions::default()).await;
        let text = format!("{:?}", refused.unwrap_err());
        // Refused at once: not five seconds of waiting for a connection that a pool of none never has.
        assert!(!text.contains("Timeout"), "{text}");
    }
    for duration in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        for rows in [0, u32::MAX] {
            let outbox = Outbox::new(mapping(), "test");
            let outbox = outbox.hold(duration).rows_max(rows).bytes_max(rows);
            outbox.install_with(closed(), NoTls).await.unwrap_err();
            let mut source = outbox
                .source(closed(), NoTls)
                .poll_interval(duration)
                .look_interval(duration)
                .backlog_max(rows);
            let refused = source.check().await.unwrap_err();
            assert_eq!(refused.clone().to_string(), refused.to_string());
            assert!(std::error::Error::source(&refused).is_none(), "said twice");
        }
    }
}
