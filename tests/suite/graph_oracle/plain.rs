//! A server without the module that keeps the entries of a world.

use std::cell::Cell;
use std::time::Duration;

use harness::Server;
use mcache::provider::{Mode, Provider, Store, Token};
use mcache::{Bytes, PlainRedisProvider, server::RedisOptions};
use mcache_graph::TagSet;
use tokio::runtime::Runtime;

use crate::support::runtime::runtime;

/// Keeps of each result which fill made it, under its tags.
pub struct Shelf {
    runtime: Runtime,
    provider: PlainRedisProvider,
    world: Cell<u64>,
    _server: Server,
}

impl Shelf {
    pub fn open() -> Self {
        let server = Server::builder().without_module().start();
        // A busy machine is no server that hangs.
        let patient = RedisOptions::default().command_deadline(Duration::from_secs(20));
        let provider = PlainRedisProvider::builder(server.url()).redis(patient);
        Self {
            runtime: runtime(),
            provider: provider.build().expect("an address"),
            world: Cell::new(0),
            _server: server,
        }
    }

    /// What was kept until now is not asked for again.
    pub fn next_world(&self) {
        self.world.set(self.world.get() + 1);
    }

    fn key(&self, position: usize) -> Bytes {
        format!("{}:{position}", self.world.get()).into()
    }

    pub fn token(&self, position: usize) -> Token {
        let key = self.key(position);
        let token = self.runtime.block_on(self.provider.token(&key));
        token.expect("token")
    }

    /// Whether it was accepted.
    pub fn store(&self, position: usize, fill: u64, tags: &TagSet, token: &Token) -> bool {
        let (key, tags) = (self.key(position), tags.iter().collect());
        let entry = Store::new(&key, fill.to_string(), &tags).token(token);
        let stored = self.runtime.block_on(self.provider.store(entry));
        stored.expect("store")
    }

    pub fn invalidate(&self, tags: &[String]) {
        let tags = tags.iter().collect();
        let told = self.provider.invalidate(&tags, Mode::Auto);
        self.runtime.block_on(told).expect("invalidate");
    }

    /// Which fill made what is served at each position.
    pub fn fills(&self, positions: usize) -> Vec<Option<u64>> {
        let keys: Vec<Bytes> = (0..positions).map(|position| self.key(position)).collect();
        let found = self.runtime.block_on(self.provider.get_many(&keys));
        let number = |value: Bytes| String::from_utf8_lossy(&value).parse().expect("a fill");
        let found = found.expect("get").into_iter();
        found.map(|value| value.map(number)).collect()
    }
}
