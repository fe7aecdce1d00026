//! The two servers a store needs, in temporary directories: nothing of the machine's own is touched.

use std::sync::{Mutex, MutexGuard, PoisonError};

use harness::Postgres;

use crate::BoxError;
use crate::config::Config;
use crate::seed::seed;

/// A PostgreSQL and a Redis of our own, ended with this value.
pub struct Servers {
    /// The database.
    pub postgres: Postgres,
    redis: Mutex<harness::Server>,
}

impl Servers {
    /// Starts both. Blocks for a second or two.
    ///
    /// # Panics
    ///
    /// If one of them is not installed or does not start, with its log.
    pub fn start() -> Self {
        Self::start_on(harness::Server::builder())
    }

    /// As [`start`](Self::start), with a Redis that has a feed for near caches.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub fn with_feed() -> Self {
        Self::start_on(harness::Server::builder().set("mcache.feed", "yes"))
    }

    fn start_on(redis: harness::ServerBuilder) -> Self {
        let settings = [
            ("fsync", "off"),
            ("shared_buffers", "256MB"),
            ("max_connections", "200"),
        ];
        Self {
            postgres: Postgres::start_with(&settings),
            redis: Mutex::new(redis.tcp().apart_from_terminal().start()),
        }
    }

    /// Redis with the module: to be asked, killed and started again.
    pub fn redis(&self) -> MutexGuard<'_, harness::Server> {
        self.redis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration with these servers in it.
    pub fn config(&self, base: Config) -> Config {
        Config {
            database: self.postgres.conninfo(),
            redis: self.redis().url(),
            ..base
        }
    }

    /// Fills the database; says on standard error how far it is.
    ///
    /// # Errors
    ///
    /// As [`seed`].
    pub async fn seed(&self, config: &Config) -> Result<(), BoxError> {
        let began = std::time::Instant::now();
        seed(config, |step| {
            eprintln!("  {:5.1} s  {step}", began.elapsed().as_secs_f64())
        })
        .await?;
        eprintln!("  {:5.1} s  done", began.elapsed().as_secs_f64());
        Ok(())
    }
}
