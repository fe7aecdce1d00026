//! [`Graph`], the handle that callers hold: it takes a query and returns a result, from the cache where possible.
//!
//! Only wires the parts together: plan, load, tags, assemble, cache.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::assemble::assemble;
use super::cover::Cover;
use super::error::GraphError;
use super::key::compute_key;
use super::load::{LoadedRows, Loader};
use super::options::GraphOptions;
use super::plan::Plan;
use super::query::{GraphQuery, GraphResult};
use super::resolver::Resolver;
use super::schema::{EntityIndex, ID, Schema};
use super::tags::{ChangeTags, Precision, ResultTags, TagLimits, tags_of_result};
use mcache::{Cache, Codec, Json, Served};

/// Answers graph queries through a resolver, and keeps the answers until the data they were made from changes.
///
/// Cheap to clone.
///
/// ```
/// use std::sync::Arc;
/// use mcache::{Cache, MemoryProvider, Source};
/// use mcache_graph::{Entity, Graph, GraphOptions, GraphQuery, MemoryResolver, Schema};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let schema = Arc::new(Schema::builder().entity(Entity::new("Product").field("title")).build()?);
/// let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// let graph = Graph::builder(schema.clone(), MemoryResolver::new(schema)).cache(cache).build();
/// let query = GraphQuery::new("product").fields(["title"]);
/// graph.query(&query, &GraphOptions::cached()).await?;
/// let served = graph.serve(&query, &GraphOptions::cached()).await?;
/// assert_eq!(served.source, Source::Hit);
/// assert_eq!(graph.stats().loads, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Graph<C = Json> {
    schema: Arc<Schema>,
    resolver: Arc<dyn Resolver>,
    cache: Option<Cache<C>>,
    precision: Precision,
    limits: TagLimits,
    counters: Arc<Counters>,
    /// Where the rows come from, once that is known.
    origin: Arc<OnceCell<String>>,
}

#[derive(Debug, Default)]
struct Counters {
    loads: AtomicU64,
    tags: AtomicU64,
    collapsed: AtomicU64,
}

/// What a graph has done since it was built.
///
/// ```
/// use mcache_graph::GraphStats;
///
/// /// Worth a look at [`TagLimits`](mcache_graph::TagLimits) when it is often true.
/// fn is_coarse(stats: &GraphStats) -> bool {
///     stats.collapsed * 10 > stats.loads
/// }
/// assert!(!is_coarse(&GraphStats::default()));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GraphStats {
    /// Results made by the resolver.
    pub loads: u64,
    /// Tags computed for results.
    pub tags: u64,
    /// How often one entity had too many tags in one result and got coarser ones.
    pub collapsed: u64,
}

/// Configures a [`Graph`].
///
/// ```
/// # use std::sync::Arc;
/// # use mcache_graph::{Entity, Graph, MemoryResolver, Precision, Schema, TagLimits};
/// # let schema = Arc::new(Schema::builder().entity(Entity::new("Product")).build()?);
/// # let resolver = MemoryResolver::new(schema.clone());
/// let graph = Graph::builder(schema, resolver)
///     .precision(Precision::Compatible)
///     .limits(TagLimits::default().rows_max(200))
///     .build();
/// # let _ = graph;
/// # Ok::<(), mcache_graph::SchemaError>(())
/// ```
#[derive(Debug)]
pub struct GraphBuilder<C = Json> {
    graph: Graph<C>,
}

impl Graph {
    /// A graph over a schema and a resolver, without a cache until it is given one.
    pub fn builder(
        schema: impl Into<Arc<Schema>>,
        resolver: impl Resolver + 'static,
    ) -> GraphBuilder {
        GraphBuilder {
            graph: Graph {
                schema: schema.into(),
                resolver: Arc::new(resolver),
                cache: None,
                precision: Precision::default(),
                limits: TagLimits::default(),
                counters: Arc::default(),
                origin: Arc::default(),
            },
        }
    }
}

impl<C> GraphBuilder<C> {
    /// Keeps results in this cache when a query's options ask for it.
    #[must_use]
    pub fn cache<D>(self, cache: Cache<D>) -> GraphBuilder<D> {
        let graph = self.graph;
        GraphBuilder {
            graph: Graph {
                cache: Some(cache),
                schema: graph.schema,
                resolver: graph.resolver,
                precision: graph.precision,
                limits: graph.limits,
                counters: graph.counters,
                origin: graph.origin,
            },
        }
    }

    /// Sets how precise tags are. Default: [`Precision::Precise`].
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.graph.precision = precision;
        self
    }

    /// Sets how many tags of one entity an entry may carry. Default: [`TagLimits::default`].
    #[must_use]
    pub fn limits(mut self, limits: TagLimits) -> Self {
        self.graph.limits = limits;
        self
    }

    /// Makes the graph.
    pub fn build(self) -> Graph<C> {
        self.graph
    }
}

impl<C: Codec> Graph<C> {
    /// Answers a query.
    ///
    /// If the options ask for caching and the graph has a cache, the result comes from the cache, or it is loaded and
    /// stored there; concurrent callers share one load. While the cache does not answer, the resolver does.
    ///
    /// # Errors
    ///
    /// [`GraphError`]: the query does not fit the schema, or the resolver failed. Errors are never
    /// cached. A query answered from the cache was checked against the schema when its result was stored.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future abandons the caller's interest; as [`Entry::load`](mcache::Entry::load).
    pub async fn query(
        &self,
        query: &GraphQuery,
        options: &GraphOptions,
    ) -> Result<GraphResult, GraphError> {
        Ok(self.serve(query, options).await?.value)
    }

    /// As [`query`](Self::query), and says where the result came from.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub async fn serve(
        &self,
        query: &GraphQuery,
        options: &GraphOptions,
    ) -> Result<Served<GraphResult>, GraphError> {
        let Some(cache) = self.cache_for(options) else {
            let answer = self.load(query, options).await?;
            return Ok(Served::bypass(answer.into_result()));
        };
        let key = self.key_of_entry(query, options).await?;
        self.serve_keyed(cache, &key, query, options).await
    }

    /// As [`serve`](Self::serve), shared: a result in the [near cache](mcache::Builder::near) of this process is
    /// decoded once and handed to all callers. A result that is not there is loaded as by `serve` and put into an
    /// [`Arc`].
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mcache_graph::{Entity, Graph, GraphOptions, GraphQuery, MemoryResolver, Schema};
    /// # use serde::Deserialize;
    /// # use serde_json::json;
    /// #[derive(Deserialize)]
    /// struct Product {
    ///     title: String,
    /// }
    /// # let schema = Arc::new(Schema::builder().entity(Entity::new("Product").field("title")).build()?);
    /// # let store = MemoryResolver::new(schema.clone());
    /// # store.put("Product", json!({ "id": "1", "title": "A red shirt" }))?;
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # let graph = Graph::builder(schema, store).build();
    /// let query = GraphQuery::new("product").fields(["title"]);
    /// let found = graph.serve_shared(&query, &GraphOptions::cached()).await?.value;
    /// // Typed without a copy of the rows.
    /// let product = Product::deserialize(&found.data[0]).expect("it has a title");
    /// assert_eq!(product.title, "A red shirt");
    /// # Ok::<(), mcache_graph::GraphError>(()) }).unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub async fn serve_shared(
        &self,
        query: &GraphQuery,
        options: &GraphOptions,
    ) -> Result<Served<Arc<GraphResult>>, GraphError> {
        let Some(cache) = self.cache_for(options) else {
            return Ok(Box::pin(self.serve(query, options)).await?.map(Arc::new));
        };
        let key = self.key_of_entry(query, options).await?;
        let near = cache.key(&*key).policy(options.cache.policy()).near();
        match near {
            Some(near) => Ok(near),
            None => {
                let served = Box::pin(self.serve_keyed(cache, &key, query, options));
                Ok(served.await?.map(Arc::new))
            }
        }
    }

    /// The key of the entry that these options ask for.
    async fn key_of_entry<'a>(
        &self,
        query: &GraphQuery,
        options: &'a GraphOptions,
    ) -> Result<Cow<'a, str>, GraphError> {
        Ok(match options.cache.given_key() {
            Some(key) => Cow::Borrowed(key),
            None => Cow::Owned(self.key(query, options).await?),
        })
    }

    /// As [`serve`](Self::serve), once the entry's key is known.
    async fn serve_keyed(
        &self,
        cache: &Cache<C>,
        key: &str,
        query: &GraphQuery,
        options: &GraphOptions,
    ) -> Result<Served<GraphResult>, GraphError> {
        let caching = &options.cache;
        let entry = cache.key(key).policy(caching.policy());
        if caching.refreshes_in_background() {
            let (graph, query, options) = (self.clone(), query.clone(), options.clone());
            let load = || async move {
                let answer = graph.load(&query, &options).await?;
                let tagged = options.cache.computes_tags();
                Ok(graph.finish(&answer.plan, answer.loaded, tagged))
            };
            return entry.load_detached(load).await;
        }
        entry
            .load(|| async {
                let answer = self.load(query, options).await?;
                Ok(self.finish(&answer.plan, answer.loaded, caching.computes_tags()))
            })
            .await
    }

    /// The cache, if these options ask for it and the graph has one that is enabled.
    pub(super) fn cache_for(&self, options: &GraphOptions) -> Option<&Cache<C>> {
        let cache = self.cache.as_ref();
        cache.filter(|cache| cache.is_enabled() && options.cache.is_enabled())
    }

    /// Answers a query without any cache: the caller gets the result and the tags that its entry would carry.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mcache_graph::{Entity, Graph, GraphOptions, GraphQuery, MemoryResolver, Schema};
    /// # let schema = Arc::new(Schema::builder().entity(Entity::new("Product").field("title")).build()?);
    /// # let store = MemoryResolver::new(schema.clone());
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let graph = Graph::builder(schema, store).build();
    /// let query = GraphQuery::new("product").fields(["title"]);
    /// let answer = graph.load(&query, &GraphOptions::default()).await?;
    /// assert!(answer.tags().tags.contains("Product:list:+"), "any new product would change it");
    /// assert!(answer.into_result().data.is_empty());
    /// # Ok::<(), mcache_graph::GraphError>(()) }).unwrap();
    /// # Ok::<(), mcache_graph::SchemaError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub async fn load(
        &self,
        query: &GraphQuery,
        options: &GraphOptions,
    ) -> Result<Answer<'_, C>, GraphError> {
        let plan = Plan::new(&self.schema, query)?;
        let loaded = self.load_plan(&plan, query, options).await?;
        Ok(Answer {
            graph: self,
            plan,
            loaded,
        })
    }

    pub(super) async fn load_plan(
        &self,
        plan: &Plan,
        query: &GraphQuery,
        options: &GraphOptions,
    ) -> Result<LoadedRows, GraphError> {
        let loader = Loader {
            schema: &self.schema,
            resolver: &*self.resolver,
            plan,
            query,
            locale: options.locale.as_deref(),
        };
        // Asked before the rows are loaded: if the boundary passes during the load, the entry has ended when it is
        // stored.
        let asked = Instant::now();
        let boundary = self.boundary(plan).await?;
        let mut loaded = loader.load().await?;
        loaded.until = boundary.and_then(|ahead| asked.checked_add(ahead));
        self.counters.loads.fetch_add(1, Ordering::Relaxed);
        if options.throw_if_key_not_found {
            self.require_ids(plan, &loaded)?;
        }
        Ok(loaded)
    }

    /// The key a query has if its options do not name another.
    ///
    /// # Errors
    ///
    /// [`GraphError::Origin`] if the resolver does not know where its rows come from and cannot find out.
    pub async fn key(
        &self,
        query: &GraphQuery,
        options: &GraphOptions,
    ) -> Result<String, GraphError> {
        let origin = self.origin().await?;
        Ok(compute_key(&self.schema, origin, query, options))
    }

    /// Where the rows come from. The resolver is asked until it has answered once.
    pub(super) async fn origin(&self) -> Result<&str, GraphError> {
        let origin = self.origin.get_or_try_init(|| self.resolver.origin()).await;
        match origin {
            Ok(origin) => Ok(origin),
            Err(source) => Err(GraphError::Origin {
                source: source.into(),
            }),
        }
    }

    /// How long the rows that this plan reads stay the same if nothing is written; `None`: without an end.
    async fn boundary(&self, plan: &Plan) -> Result<Option<Duration>, GraphError> {
        let levels = plan.levels.iter();
        let read: BTreeSet<EntityIndex> = levels
            .flat_map(|level| level.depends.iter().map(|d| d.entity).chain([level.entity]))
            .collect();
        let mut nearest: Option<Duration> = None;
        for index in read {
            let entity = self.schema.at(index);
            if entity.boundaries().is_empty() {
                continue;
            }
            let next = self.resolver.next_boundary(entity, entity.boundaries());
            let next = next
                .await
                .map_err(|source| GraphError::resolver(entity, source))?;
            nearest = match (nearest, next) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        Ok(nearest)
    }

    /// Turns changes into the tags that they clear, for an [`Invalidator`](mcache::change::Invalidator).
    pub fn change_tags(&self) -> ChangeTags {
        ChangeTags::new(self.schema.clone()).limits(self.limits)
    }

    /// The schema.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// What the graph and its clones have done.
    pub fn stats(&self) -> GraphStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GraphStats {
            loads: read(&self.counters.loads),
            tags: read(&self.counters.tags),
            collapsed: read(&self.counters.collapsed),
        }
    }

    /// A result as the cache takes it, with its tags if it is to be tagged with them.
    pub(super) fn finish(
        &self,
        plan: &Plan,
        loaded: LoadedRows,
        tagged: bool,
    ) -> mcache::Loaded<GraphResult> {
        let tags = tagged.then(|| self.tags_of(plan, &loaded));
        let until = loaded.until;
        let mut value = mcache::Loaded::new(assemble(plan, loaded));
        if let Some(until) = until {
            value = value.valid_until(until);
        }
        match tags {
            Some(tags) => value.tags(tags.tags.iter()),
            None => value,
        }
    }

    fn tags_of(&self, plan: &Plan, loaded: &LoadedRows) -> ResultTags {
        let tags = tags_of_result(&self.schema, plan, loaded, self.precision, &self.limits);
        let count =
            |counter: &AtomicU64, more: usize| counter.fetch_add(more as u64, Ordering::Relaxed);
        count(&self.counters.tags, tags.tags.len());
        count(&self.counters.collapsed, tags.collapsed);
        tags
    }

    /// Every row that the filters name by key must have been found.
    fn require_ids(&self, plan: &Plan, loaded: &LoadedRows) -> Result<(), GraphError> {
        let entity = self.schema.at(plan.levels[0].entity);
        let cover = Cover::of(&self.schema, entity, &plan.filter);
        let rows = &loaded.levels[0].rows;
        let found = |id: &str| {
            let mut ids = rows.iter().filter_map(|row| entity.text_in(ID, row));
            ids.any(|text| text == id)
        };
        match cover.ids().into_iter().flatten().find(|id| !found(id)) {
            Some(id) => Err(GraphError::NotFound {
                entity: entity.name().into(),
                id: id.clone(),
            }),
            None => Ok(()),
        }
    }
}

impl<C> fmt::Debug for Graph<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("entities", &self.schema.entities().len())
            .field("is_cached", &self.cache.is_some())
            .field("precision", &self.precision)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The rows a query was answered with, not yet made into a result: see [`Graph::load`].
///
/// ```
/// # use std::sync::Arc;
/// # use mcache_graph::{Entity, Graph, GraphOptions, GraphQuery, MemoryResolver, Schema};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let schema = Arc::new(Schema::builder().entity(Entity::new("Product").field("title")).build()?);
/// # let graph = Graph::builder(schema.clone(), MemoryResolver::new(schema)).build();
/// let query = GraphQuery::new("product").fields(["title"]);
/// let answer = graph.load(&query, &GraphOptions::default()).await?;
/// // A list without rows depends on every product that may come.
/// assert!(!answer.tags().tags.is_empty());
/// assert!(answer.into_result().data.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Answer<'g, C = Json> {
    graph: &'g Graph<C>,
    plan: Plan,
    loaded: LoadedRows,
}

impl<C: Codec> Answer<'_, C> {
    /// The tags of the result.
    pub fn tags(&self) -> ResultTags {
        self.graph.tags_of(&self.plan, &self.loaded)
    }

    /// The result.
    pub fn into_result(self) -> GraphResult {
        assemble(&self.plan, self.loaded)
    }
}
