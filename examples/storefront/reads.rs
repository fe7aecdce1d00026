//! What a handler reads with: the graphs, and a count of where the answers came from.
//!
//! The count becomes two headers: `X-Cache: near|hit|stale|miss|bypass`, the least cached of what went into the
//! response, and `X-Cache-Reads`, how many of each.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use mcache::{Served, Source};
use mcache_graph::{GraphOptions, GraphQuery, GraphResult};
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::store::Store;

/// Where the response came from.
pub const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
/// How many cacheable reads were answered how: `hit=3, miss=1`.
pub const X_CACHE_READS: HeaderName = HeaderName::from_static("x-cache-reads");

/// The reads of one request.
#[derive(Clone)]
pub struct Reads {
    store: Arc<Store>,
    options: GraphOptions,
    tally: Arc<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    near: AtomicU32,
    hits: AtomicU32,
    stale: AtomicU32,
    misses: AtomicU32,
    bypasses: AtomicU32,
    waiting: Mutex<Waiting>,
}

/// How long a request waited for the catalogue; reads that run at the same time count once.
#[derive(Debug, Default)]
struct Waiting {
    reads: u32,
    since: Option<Instant>,
    total: Duration,
}

impl Tally {
    fn begin(&self) -> WaitGuard<'_> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.reads += 1;
        waiting.since.get_or_insert_with(Instant::now);
        WaitGuard(self)
    }

    fn waited(&self) -> Duration {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.total
    }

    fn count(&self, source: Source) {
        let counter = match source {
            Source::Near => &self.near,
            Source::Hit => &self.hits,
            Source::Stale => &self.stale,
            Source::Bypass => &self.bypasses,
            // A request that waited for another request's load was not served by the cache either.
            _ => &self.misses,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Word and count, the least cached first.
    fn counts(&self) -> [(&'static str, u32); 5] {
        let read = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
        [
            ("bypass", read(&self.bypasses)),
            ("miss", read(&self.misses)),
            ("stale", read(&self.stale)),
            ("hit", read(&self.hits)),
            ("near", read(&self.near)),
        ]
    }
}

/// One read under way.
struct WaitGuard<'a>(&'a Tally);

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        let mut waiting = self
            .0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        waiting.reads -= 1;
        if waiting.reads == 0
            && let Some(since) = waiting.since.take()
        {
            waiting.total += since.elapsed();
        }
    }
}

impl Reads {
    /// Rows of the catalogue, as they are; from the cache if they are there.
    ///
    /// # Errors
    ///
    /// If the query makes no sense or the database fails. A cache that fails is passed by.
    pub async fn catalogue(&self, query: &GraphQuery) -> Result<Arc<GraphResult>, ApiError> {
        let _waiting = self.tally.begin();
        let catalogue = &self.store.catalogue;
        let served = catalogue.serve_shared(query, &self.options).await?;
        self.tally.count(served.source);
        Ok(served.value)
    }

    /// The rows with each of these values, in their order. Each value's rows are kept by themselves: what one page
    /// showed of a product or a variant is there for all others that show it.
    ///
    /// # Errors
    ///
    /// As [`catalogue`](Self::catalogue).
    pub async fn each(
        &self,
        query: &GraphQuery,
        field: &str,
        values: &[&str],
    ) -> Result<Vec<Arc<GraphResult>>, ApiError> {
        let _waiting = self.tally.begin();
        let values = values.iter().copied();
        let catalogue = &self.store.catalogue;
        let served = catalogue
            .serve_each_shared(query, field, values, &self.options)
            .await?;
        let count = |served: Served<Arc<GraphResult>>| {
            self.tally.count(served.source);
            served.value
        };
        Ok(served.into_iter().map(count).collect())
    }

    /// As [`each`](Self::each), typed, without saying which row is whose.
    ///
    /// # Errors
    ///
    /// As [`all`](Self::all).
    pub async fn all_of_each<T: DeserializeOwned>(
        &self,
        query: &GraphQuery,
        field: &str,
        values: &[&str],
    ) -> Result<Vec<T>, ApiError> {
        let results = self.each(query, field, values).await?;
        let rows: Result<Vec<_>, _> = results.iter().map(|result| typed(result)).collect();
        Ok(rows?.into_iter().flatten().collect())
    }

    /// As [`catalogue`](Self::catalogue), typed.
    ///
    /// # Errors
    ///
    /// As [`catalogue`](Self::catalogue), and if a row is not a `T`.
    pub async fn all<T: DeserializeOwned>(&self, query: &GraphQuery) -> Result<Vec<T>, ApiError> {
        typed(&*self.catalogue(query).await?)
    }

    /// The first row, typed; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`all`](Self::all).
    pub async fn first<T: DeserializeOwned>(
        &self,
        query: &GraphQuery,
    ) -> Result<Option<T>, ApiError> {
        Ok(self.all(query).await?.into_iter().next())
    }

    /// The first row about a cart or an order, as it is in the database now.
    ///
    /// # Errors
    ///
    /// As [`all`](Self::all).
    pub async fn sale<T: DeserializeOwned>(
        &self,
        query: &GraphQuery,
    ) -> Result<Option<T>, ApiError> {
        let result = self
            .store
            .sales
            .query(query, &GraphOptions::default())
            .await?;
        Ok(typed(&result)?.into_iter().next())
    }
}

fn typed<T: DeserializeOwned>(result: &GraphResult) -> Result<Vec<T>, ApiError> {
    let rows = result.data.iter().map(T::deserialize);
    rows.collect::<Result<_, _>>().map_err(ApiError::internal)
}

impl FromRequestParts<Arc<Store>> for Reads {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, store: &Arc<Store>) -> Result<Self, Infallible> {
        let asks_for_fresh = parts
            .headers
            .get(CACHE_CONTROL)
            .is_some_and(|value| value.as_bytes() == b"no-cache");
        let bypass = asks_for_fresh && store.config.honour_no_cache;
        Ok(Self {
            store: store.clone(),
            options: match bypass {
                true => GraphOptions::default(),
                false => GraphOptions::cached(),
            },
            tally: parts.extensions.get().cloned().unwrap_or_default(),
        })
    }
}

/// Middleware: gives each request a tally, and makes headers of it.
pub async fn tell_source(
    State(totals): State<Totals>,
    mut request: Request,
    next: Next,
) -> Response {
    let route = route_of(&request);
    let tally = Arc::new(Tally::default());
    request.extensions_mut().insert(tally.clone());
    let began = Instant::now();
    let mut response = next.run(request).await;
    let counts = tally.counts();
    totals.add(route, counts, tally.waited(), began.elapsed());
    let read: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(word, count)| format!("{word}={count}"))
        .collect();
    let least_cached = counts.iter().find(|(_, count)| *count > 0);
    let word = least_cached.map_or("bypass", |(word, _)| word);
    let headers = response.headers_mut();
    headers.insert(X_CACHE, HeaderValue::from_static(word));
    if let Ok(read) = HeaderValue::from_str(&read.join(", "))
        && !read.is_empty()
    {
        headers.insert(X_CACHE_READS, read);
    }
    response
}

fn route_of(request: &Request) -> String {
    let path = request.extensions().get::<axum::extract::MatchedPath>();
    let path = path.map_or("unknown", axum::extract::MatchedPath::as_str);
    format!("{} {path}", request.method())
}

/// What the cacheable reads of each endpoint came to, since the start.
#[derive(Clone, Debug, Default)]
pub struct Totals(Arc<RwLock<BTreeMap<String, Total>>>);

/// What the cacheable reads of one endpoint came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Total {
    /// Reads that could have been answered from the cache.
    pub reads: u64,
    /// Those that were.
    pub hits: u64,
    /// Those that were answered within the process.
    pub near: u64,
    /// How long requests waited for such reads.
    pub waited: Duration,
    /// How long they took altogether.
    pub took: Duration,
}

impl Totals {
    fn add(
        &self,
        route: String,
        counts: [(&'static str, u32); 5],
        waited: Duration,
        took: Duration,
    ) {
        let mut totals = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let total = totals.entry(route).or_default();
        for (word, count) in counts {
            total.reads += u64::from(count);
            if let "hit" | "stale" | "near" = word {
                total.hits += u64::from(count);
            }
            if word == "near" {
                total.near += u64::from(count);
            }
        }
        total.waited += waited;
        total.took += took;
    }

    /// Of one endpoint, by its method and route.
    pub fn of(&self, route: &str) -> Total {
        let totals = self.0.read().unwrap_or_else(PoisonError::into_inner);
        totals.get(route).copied().unwrap_or_default()
    }

    /// Counts from zero again.
    pub fn reset(&self) {
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
