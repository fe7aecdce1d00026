//! The provider for servers without the module: what the others promise, as far as it promises it (docs/plain.md).

mod conforms;
mod faulty;
mod machine;
mod model;
mod mutants;
mod pressure;
mod survival;
mod waiting;
mod work;

use harness::{Server, ServerBuilder};
use mcache::{PlainRedisProvider, server::RedisOptions};
use std::time::Duration;

/// A server that loads nothing.
fn bare() -> ServerBuilder {
    Server::builder().without_module()
}

/// A provider at this address; a busy machine is no server that hangs.
fn provider(url: &str) -> PlainRedisProvider {
    let redis = RedisOptions::default()
        .command_deadline(Duration::from_secs(5))
        .breaker(5, Duration::from_millis(50));
    PlainRedisProvider::builder(url)
        .redis(redis)
        .namespace("plain")
        .build()
        .expect("an address")
}
