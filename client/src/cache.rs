//! The handle that callers hold: what concerns the cache as a whole. What concerns one key is in `entry`, several keys
//! in `batch`; what they share is in `core`.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tracing::Instrument;

use crate::{
    Batch, Builder, Codec, Entry, Invalidation, Json, NearStats, Provider, Result, Tags,
    core::{Chosen, Core, Handle},
    pending::Order,
    provider::{Inspection, Mode},
};

/// A cache: cheap to clone, shared by everything in the process that uses the same providers.
///
/// ```
/// use std::time::Duration;
/// use mcache::{Cache, MemoryProvider};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let provider = MemoryProvider::default();
/// // With a server: Cache::builder("redis://127.0.0.1:6379")
/// let cache = Cache::builder_with(provider).namespace("store-eu").caching(true).build().await?;
///
/// let load = || async { Ok::<_, mcache::Error>("a red shirt".to_owned()) };
/// let product: String = cache
///     .key("product:42")
///     .ttl(Duration::from_secs(600))
///     .tags(["Product:42"])
///     .get_or_load(load)
///     .await?;
/// assert_eq!(product, "a red shirt");
///
/// cache.invalidate(["Product:42"]).await?;
/// assert_eq!(cache.key("product:42").get::<String>().await?, None);
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Cache<C = Json> {
    handle: Handle<C>,
}

impl Cache {
    /// Begins to configure a cache on the server at this address: see
    /// [`RedisProvider::new`](crate::RedisProvider::new) for what an address can be.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder::new(Some(url.into()))
    }

    /// Begins to configure a cache on a provider of one's own.
    pub fn builder_with(provider: impl Provider) -> Builder {
        Builder::new(None).provider(provider)
    }
}

impl<C: Codec> Cache<C> {
    pub(crate) fn from_core(core: Core, codec: C) -> Self {
        let core = Arc::new(core);
        Self {
            handle: Handle { core, codec },
        }
    }

    /// Whether caching is on. Off, every call goes straight through.
    pub fn is_enabled(&self) -> bool {
        self.handle.core.enabled
    }

    /// Begins an operation on one key.
    pub fn key(&self, key: impl AsRef<[u8]>) -> Entry<'_, C> {
        Entry::new(&self.handle, key.as_ref())
    }

    /// Begins an operation on several keys at once.
    pub fn keys<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Batch<'_, K, C> {
        Batch::new(&self.handle, keys.into_iter().collect())
    }

    /// The live values of several keys, in their order: short for [`keys`](Self::keys) and
    /// [`Batch::get_many`].
    ///
    /// # Errors
    ///
    /// As [`Batch::get_many`].
    pub async fn get_many<T: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<Vec<Option<T>>> {
        self.keys(keys).get_many().await
    }

    /// Removes one entry, with any options, from every provider.
    ///
    /// A fill of the same key that is under way does not store its value afterwards. What was made of the entry under
    /// other keys stays: that is invalidated by a tag.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate).
    pub async fn clear(&self, key: impl AsRef<[u8]>) -> Result<Invalidation> {
        self.order(Order::Clear(
            self.handle.core.namespace.qualify(key.as_ref()),
        ))
        .await
    }

    /// Makes every entry dead that carries any of these tags, in every provider.
    ///
    /// When this returns an [acknowledged](Invalidation::is_acknowledged) invalidation, no server serves any more what
    /// was loaded before the call; when it is [settled](Invalidation::is_settled), nor does any [near
    /// cache](Builder::near) of any process. It waits for that, usually a millisecond, and where a process with a near
    /// cache is stopped or cut off for as long as that one's lease lasts: a second, unless the server says otherwise.
    /// [`Builder::settle`] turns the waiting off.
    ///
    /// If a provider cannot be reached within its deadline, the invalidation is *pending*:
    /// it is sent again in the background until it is acknowledged or no entry it concerns can still be alive. Until
    /// then this process does not read from that provider; other processes may still be served the old entries.
    /// Pending invalidations live in memory: a process that must not lose them across its own end needs a durable
    /// [source of changes](crate::change).
    ///
    /// Once polled, the invalidation is carried out even if the future is dropped. No tags: nothing happens.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) if a provider understood and said no, for example because
    /// the user may not touch the tag; trying again would not help. The other providers have been told nevertheless.
    pub async fn invalidate<I>(&self, tags: I) -> Result<Invalidation>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        self.invalidate_with(tags, Mode::Hard).await
    }

    /// As [`invalidate`](Self::invalidate), sparing entries stored with [`Entry::manual`].
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate).
    pub async fn invalidate_auto<I>(&self, tags: I) -> Result<Invalidation>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        self.invalidate_with(tags, Mode::Auto).await
    }

    /// As [`invalidate`](Self::invalidate), but entries become stale instead of dead: within their
    /// [stale window](Entry::swr) they are served while one caller refreshes them.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate).
    pub async fn soft_invalidate<I>(&self, tags: I) -> Result<Invalidation>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        self.invalidate_with(tags, Mode::Soft).await
    }

    /// Invalidates in any [`Mode`].
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate).
    pub async fn invalidate_with<I>(&self, tags: I, mode: Mode) -> Result<Invalidation>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let tags = self.handle.core.namespace.qualify_tags(tags);
        if tags.is_empty() {
            return Ok(Invalidation::default());
        }
        self.order(Order::Invalidate(tags, mode)).await
    }

    /// Makes every entry of this namespace dead, manual ones included. Other namespaces are not touched.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate).
    pub async fn clear_all(&self) -> Result<Invalidation> {
        let tags = Tags::from_iter([self.handle.core.namespace.everything()]);
        self.order(Order::Invalidate(tags, Mode::Hard)).await
    }

    /// What the first provider that has the key knows of it.
    ///
    /// # Errors
    ///
    /// As the provider's, [unavailable](crate::Error::is_unavailable) included: unlike a read, an inspection has no
    /// source to fall back to.
    pub async fn inspect(&self, key: impl AsRef<[u8]>) -> Result<Option<Inspection>> {
        let namespace = &self.handle.core.namespace;
        let key = namespace.qualify(key.as_ref());
        for chosen in self.handle.core.active() {
            if let Some(mut found) = chosen.provider.inspect(&key).await? {
                found.tags.retain(|tag| tag != namespace.everything());
                for tag in &mut found.tags {
                    *tag = tag.slice_ref(namespace.strip_tag(tag));
                }
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// How many tags and keys providers have not acknowledged yet: zero in good times. See
    /// [`invalidate`](Self::invalidate).
    pub fn pending_invalidations(&self) -> usize {
        self.handle
            .core
            .active()
            .iter()
            .map(|chosen| chosen.pending.len())
            .sum()
    }

    /// Waits until what goes on in the background is done: stores, refreshes, invalidations that were not acknowledged.
    /// To be called before the process ends, once nothing uses the cache any more; it does not keep others from using
    /// it.
    ///
    /// Returns when all is done, or after `patience` with what is not: the end of the process loses that.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mcache::{Cache, MemoryProvider};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
    /// let left = cache.shutdown(Duration::from_secs(5)).await;
    /// if !left.is_nothing() {
    ///     eprintln!("ending although {left}");
    /// }
    /// # assert!(left.is_nothing());
    /// # Ok::<(), mcache::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn shutdown(&self, patience: Duration) -> ShutdownReport {
        let core = &self.handle.core;
        let all = async {
            core.background.ended().await;
            for chosen in core.active() {
                chosen.pending.drained().await;
            }
        };
        // What is left is counted, whether or not the time was enough.
        let _ = timeout(patience, all).await;
        let near = core.active().iter().filter_map(|it| it.near.as_ref());
        join_all(near.map(|near| near.end())).await;
        ShutdownReport {
            invalidations: self.pending_invalidations(),
            tasks: core.background.len(),
        }
    }

    async fn order(&self, order: Order) -> Result<Invalidation> {
        let attempts = self
            .handle
            .core
            .active()
            .iter()
            .map(|chosen| chosen.pending.submit(order.clone()));
        let span = tracing::debug_span!("mcache.invalidate");
        let attempts = join_all(attempts).instrument(span).await;
        let mut invalidation = Invalidation::of(attempts)?;
        if self.handle.core.settles {
            invalidation.settle().await;
        }
        Ok(invalidation)
    }

    /// How the near caches of this cache are: one row for each provider that has one. See
    /// [`Builder::near`](crate::Builder::near).
    pub fn near_stats(&self) -> Vec<NearStats> {
        let providers = self.handle.core.active().iter();
        let stats = |chosen: &Chosen| Some(chosen.near.as_ref()?.stats(chosen.provider.id()));
        providers.filter_map(stats).collect()
    }

    /// What tells this cache from others: its namespace and where its providers keep entries. Two processes with one
    /// name read and write the same entries.
    pub fn name(&self) -> String {
        let core = &self.handle.core;
        let namespace = core.namespace.everything();
        let namespace = namespace.strip_suffix(b"*").unwrap_or(namespace);
        let mut name = String::from_utf8_lossy(namespace).into_owned();
        for (position, chosen) in core.providers.iter().enumerate() {
            name.push(if position == 0 { '@' } else { '+' });
            name.push_str(chosen.provider.place());
        }
        name
    }

    pub(crate) fn core(&self) -> &Core {
        &self.handle.core
    }
}

/// What [`Cache::shutdown`] did not see the end of.
///
/// ```
/// # use std::time::Duration;
/// # use mcache::{Cache, MemoryProvider};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// let left = cache.shutdown(Duration::ZERO).await;
/// assert!(left.is_nothing());
/// assert_eq!((left.invalidations, left.tasks), (0, 0));
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Tags and keys that a provider has not acknowledged. Entries they concern may be served to other processes until
    /// they expire.
    pub invalidations: usize,
    /// Stores and refreshes under way. They cost nothing but the entries.
    pub tasks: usize,
}

impl ShutdownReport {
    /// Everything is done.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            invalidations,
            tasks,
        } = self;
        write!(
            f,
            "{invalidations} invalidations are not acknowledged and {tasks} stores or refreshes are under way"
        )
    }
}

impl<C> fmt::Debug for Cache<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = &self.handle.core;
        let providers: Vec<&str> = core.providers.iter().map(|it| it.provider.id()).collect();
        f.debug_struct("Cache")
            .field("enabled", &core.enabled)
            .field("providers", &providers)
            .finish_non_exhaustive()
    }
}
