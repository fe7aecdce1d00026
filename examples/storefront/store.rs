//! The store: two graphs, a pool to write over, a cache, and what keeps the cache right.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, Pool, QueueMode, Runtime};
use mcache::change::{Invalidator, InvalidatorStats};
use mcache::{Cache, NearOptions};
use mcache_graph::Graph;
use mcache_postgres::{Mapping, Outbox, PostgresResolver};
use tokio_postgres::NoTls;

use crate::config::Config;
use crate::{BoxError, schema};

/// How long a request waits for a connection to write over.
const POOL_PATIENCE: Duration = Duration::from_secs(5);

/// Everything requests share.
pub struct Store {
    /// Reads what is sold; cached.
    pub catalogue: Graph,
    /// Reads carts and orders; never cached.
    pub sales: Graph,
    /// Writes.
    pub database: Pool,
    /// The cache, for what a write clears at once.
    pub cache: Cache,
    /// How it is run.
    pub config: Config,
    invalidator: Option<Invalidator>,
}

impl Store {
    /// Connects everything. With caching on, changes made by any program are captured in the database and invalidated
    /// from here on; what was cached before changes were captured is thrown away.
    ///
    /// # Errors
    ///
    /// If the database cannot be reached or is not the storefront's, or an address makes no sense. A Redis that is away
    /// is no error: the store starts without it.
    pub async fn open(config: Config) -> Result<Arc<Self>, BoxError> {
        let database: tokio_postgres::Config = config.database.parse()?;
        let mut builder = Cache::builder(&config.redis).namespace(&config.namespace);
        if let Some(caching) = config.caching {
            builder = builder.caching(caching);
        }
        if config.near {
            builder = builder.near(NearOptions::new());
        }
        let cache = builder.build().await?;

        let catalogue = Arc::new(Mapping::builder(schema::catalogue()?.into()).build()?);
        let sales = Arc::new(Mapping::builder(schema::sales()?.into()).build()?);
        let resolver = |mapping| {
            PostgresResolver::with_connections(database.clone(), NoTls, mapping, config.connections)
        };
        let catalogue_rows = schema::with_computed_fields(resolver(catalogue.clone())?)?;
        let sales_rows = resolver(sales.clone())?;
        catalogue_rows.check().await?;
        sales_rows.check().await?;

        let graph = Graph::builder(catalogue.schema().clone(), catalogue_rows)
            .cache(cache.clone())
            .build();
        let invalidator = match cache.is_enabled() {
            true => {
                let outbox = Outbox::new(catalogue, &cache);
                outbox.install_with(database.clone(), NoTls).await?;
                let source = outbox.source(database.clone(), NoTls);
                let invalidator = Invalidator::builder(source, graph.change_tags())
                    .targets(cache.invalidation_targets())
                    .spawn();
                cache.clear_all().await?;
                Some(invalidator)
            }
            false => None,
        };
        Ok(Arc::new(Self {
            catalogue: graph,
            sales: Graph::builder(sales.schema().clone(), sales_rows).build(),
            database: Pool::builder(Manager::new(database, NoTls))
                .max_size(config.connections)
                // The last one used has prepared what is asked most.
                .queue_mode(QueueMode::Lifo)
                .runtime(Runtime::Tokio1)
                .wait_timeout(Some(POOL_PATIENCE))
                .create_timeout(Some(POOL_PATIENCE))
                .build()?,
            cache,
            config,
            invalidator,
        }))
    }

    /// What was invalidated because the database changed; nothing with caching off.
    pub fn invalidated(&self) -> InvalidatorStats {
        self.invalidator
            .as_ref()
            .map(Invalidator::stats)
            .unwrap_or_default()
    }
}
