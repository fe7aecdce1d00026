//! The in-process provider: the server's semantics in a map, for tests and small applications.
//!
//! Entries, tags, tokens, leases, stale windows and manual entries mean what they mean on the server; only the
//! process boundary is missing. All of it is behind one lock that is never held across an await.

mod contents;
mod index;

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use self::contents::{Contents, Fetched, Limits};
use crate::{
    Result, Tags,
    provider::{BoxFuture, FetchOptions, Inspection, Lookup, Mode, Provider, Store, Token},
};

/// As the server: no caller is kept waiting longer.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Keeps entries in this process. Clones share them.
///
/// Bounded: when either limit is reached, entries go first in, first out, except that what was read since gets a
/// second chance.
///
/// ```
/// use mcache::{Cache, MemoryProvider};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// cache.key("greeting").tags(["Greeting:1"]).set("hello").await?;
/// assert_eq!(cache.key("greeting").get::<String>().await?.as_deref(), Some("hello"));
/// cache.invalidate(["Greeting:1"]).await?;
/// assert_eq!(cache.key("greeting").get::<String>().await?, None);
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct MemoryProvider {
    id: Arc<str>,
    contents: Arc<Mutex<Contents>>,
}

/// Configures a [`MemoryProvider`].
///
/// ```
/// use mcache::{MemoryProvider, provider::Provider};
///
/// let small = MemoryProvider::builder().id("small").entries_max(1_000).build();
/// assert_eq!(small.id(), "small");
/// ```
#[derive(Debug, Clone)]
pub struct MemoryBuilder {
    id: String,
    entries_max: usize,
    bytes_max: usize,
    lease: Duration,
}

impl Default for MemoryBuilder {
    fn default() -> Self {
        Self {
            id: "memory".to_owned(),
            entries_max: 25_000,
            bytes_max: 300 * 1024 * 1024,
            lease: Duration::from_secs(10),
        }
    }
}

impl MemoryBuilder {
    /// The name by which callers choose it. Default: `memory`.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// How many entries it keeps at most. Default: 25,000.
    #[must_use]
    pub fn entries_max(mut self, entries: usize) -> Self {
        self.entries_max = entries;
        self
    }

    /// How many bytes its entries take at most: keys, values and tags, and an estimate of what holds them.
    /// Default: 300 MiB.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// How long the right to fill lasts where the caller does not say. Default: 10 seconds.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Builds the provider.
    pub fn build(self) -> MemoryProvider {
        let limits = Limits {
            entries_max: self.entries_max,
            bytes_max: self.bytes_max,
            lease: self.lease,
        };
        // Different for each instance, which is all an incarnation has to be.
        let incarnation = RandomState::new().hash_one(&self.id);
        MemoryProvider {
            id: self.id.into(),
            contents: Arc::new(Mutex::new(Contents::new(
                limits,
                incarnation,
                Instant::now(),
            ))),
        }
    }
}

impl Default for MemoryProvider {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl MemoryProvider {
    /// Begins to configure one.
    pub fn builder() -> MemoryBuilder {
        MemoryBuilder::default()
    }

    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes its entries take.
    pub fn bytes(&self) -> usize {
        self.lock().bytes()
    }

    /// A panic while the lock was held would be a bug in `contents`; the maps are still maps, and a cache that forgets
    /// how to answer is worse than one that misses.
    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch_or_wait(&self, key: &[u8], options: FetchOptions) -> Lookup {
        let gives_up_at = Instant::now() + options.wait.min(WAIT_MAX);
        loop {
            let now = Instant::now();
            // Listens from within the lock on, so that a fill between here and the wait is not missed.
            let random = fastrand::u64(..);
            let fetched = self.lock().fetch(key, &options, random, now);
            match fetched {
                Fetched::Answer(lookup) => return lookup,
                Fetched::Wait { .. } if now >= gives_up_at => return Lookup::Busy,
                Fetched::Wait { changed, ends_at } => {
                    // Whether or not it was told of a change: the next round looks.
                    let _ = timeout_at(ends_at.min(gives_up_at), changed).await;
                }
            }
        }
    }
}

impl Provider for MemoryProvider {
    fn id(&self) -> &str {
        &self.id
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(async move { Ok(self.lock().get(key, Instant::now())) })
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>>> {
        Box::pin(async move {
            let now = Instant::now();
            let mut contents = self.lock();
            Ok(keys.iter().map(|key| contents.get(key, now)).collect())
        })
    }

    fn fetch<'a>(&'a self, key: &'a [u8], options: FetchOptions) -> BoxFuture<'a, Result<Lookup>> {
        Box::pin(async move { Ok(self.fetch_or_wait(key, options).await) })
    }

    fn token<'a>(&'a self, _key: &'a [u8]) -> BoxFuture<'a, Result<Token>> {
        Box::pin(async move { Ok(self.lock().token(Instant::now())) })
    }

    fn store<'a>(&'a self, entry: Store<'a>) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move { Ok(self.lock().store(&entry, Instant::now())) })
    }

    fn release<'a>(&'a self, key: &'a [u8], token: &'a Token) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move { Ok(self.lock().release(key, token)) })
    }

    fn clear<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move { Ok(self.lock().clear(key, Instant::now())) })
    }

    fn invalidate<'a>(&'a self, tags: &'a Tags, mode: Mode) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move { Ok(self.lock().invalidate(tags, mode, Instant::now())) })
    }

    fn inspect<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Inspection>>> {
        Box::pin(async move { Ok(self.lock().inspect(key, Instant::now())) })
    }
}

impl fmt::Debug for MemoryProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryProvider")
            .field("id", &self.id)
            .field("entries", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_conforms() {
        let provider = Arc::new(MemoryProvider::default());
        for (name, test) in crate::conformance::tests() {
            println!("{name}");
            test(provider.clone()).await;
        }
    }

    #[tokio::test]
    async fn a_token_of_another_instance_is_refused() {
        let token = MemoryProvider::default().token(b"k").await.expect("token");
        let entry = Store {
            key: b"k",
            value: Bytes::from_static(b"v"),
            ttl: None,
            swr: Duration::ZERO,
            tags: &Tags::new(),
            manual: false,
            token: Some(&token),
        };
        let stored = MemoryProvider::default().store(entry).await;
        assert!(!stored.expect("store"));
    }
}
