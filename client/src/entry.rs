//! What one can do with one key: the builder behind [`Cache::key`].

use std::{borrow::Cow, fmt, time::Duration};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;
use tracing::Instrument;

use mcache_core::near::Own;

use crate::{
    Codec, Json, Loaded, Result, Served, Source,
    core::{Chosen, Handle, Opened},
    fill::{Errors, Sealed},
    filling::Filling,
    key::FullKey,
    load::Loading,
    policy::{Policy, policy_setters},
    provider::Store,
    telemetry,
};

/// One key, with how its entry is to be kept; ends in one of the operations.
///
/// ```
/// # use std::time::Duration;
/// # use mcache::{Cache, MemoryProvider};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// let entry = || cache.key("greeting").ttl(Duration::from_secs(60)).tags(["texts"]);
/// entry().set("hello").await?;
/// assert_eq!(entry().get::<String>().await?.as_deref(), Some("hello"));
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "nothing happens until one of the operations is called"]
pub struct Entry<'c, C = Json> {
    pub(crate) handle: &'c Handle<C>,
    pub(crate) key: FullKey,
    pub(crate) policy: Policy,
}

impl<'c, C: Codec> Entry<'c, C> {
    pub(crate) fn new(handle: &'c Handle<C>, key: &[u8]) -> Self {
        Self {
            handle,
            key: FullKey::new(&handle.core.namespace, key),
            policy: Policy::default(),
        }
    }

    policy_setters!(policy);

    /// Takes over how entries are kept, instead of what was set before.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The live value, if there is one: of the first provider that has it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownProvider`](crate::ErrorKind::UnknownProvider), or
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused) if a provider may not be read. A cache that is away is
    /// `Ok(None)`.
    pub async fn get<T: DeserializeOwned>(self) -> Result<Option<T>> {
        let open = |bytes: &Bytes| self.handle.open(bytes).and_then(Opened::value);
        self.get_with(open).await
    }

    /// As [`get`](Self::get), of bytes kept with [`set_bytes`](Self::set_bytes).
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn get_bytes(self) -> Result<Option<Bytes>> {
        self.get_with(|bytes| self.handle.open_raw(bytes)).await
    }

    async fn get_with<V>(&self, open: impl Fn(&Bytes) -> Option<V>) -> Result<Option<V>> {
        let began = Instant::now();
        for chosen in self.chosen()?.iter() {
            let near = chosen.near_value(self.key.as_slice());
            if let Some(value) = near.and_then(|held| open(held.bytes())) {
                telemetry::near_read(self.policy.family_label());
                return Ok(Some(value));
            }
            if chosen.pending.holds_back(self.key.as_slice()) {
                continue;
            }
            match chosen.get(&self.key).await {
                Ok(Some(found)) => {
                    if let Some(value) = open(&found) {
                        telemetry::read(Source::Hit, began, self.policy.family_label());
                        return Ok(Some(value));
                    }
                }
                Ok(None) => {}
                Err(error) if error.is_refused() => return Err(error),
                Err(error) => {
                    let provider = chosen.provider.id();
                    let complaints = &self.handle.core.complaints;
                    complaints.failed_open(provider, "get", &self.family_name(), &error);
                }
            }
        }
        telemetry::read(Source::Loaded, began, self.policy.family_label());
        Ok(None)
    }

    /// Keeps a value in every provider. `false`: it was not kept, because it is too large.
    ///
    /// The value counts as having been made when this call arrives. If data it was made from may change between
    /// loading and storing, use [`begin`](Self::begin) or [`get_or_load`](Self::get_or_load).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Codec`](crate::ErrorKind::Codec) if the value cannot be encoded, and the first provider's error
    /// after all were tried: unlike a read, a write that did not arrive is told. What was stored before is then still
    /// there.
    pub async fn set<T: Serialize + ?Sized>(self, value: &T) -> Result<bool> {
        match self.handle.core.enabled {
            true => {
                let sealed = self.handle.try_seal(value, || self.family_name())?;
                self.store(sealed).await
            }
            false => self.store(None).await,
        }
    }

    /// As [`set`](Self::set), of bytes as they are: no codec writes them, so they take no more room than they have.
    /// They are compressed like other values, and read with [`get_bytes`](Self::get_bytes) only.
    ///
    /// ```
    /// # use mcache::{Cache, MemoryProvider};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
    /// cache.key("logo").set_bytes(b"\x89PNG").await?;
    /// assert_eq!(cache.key("logo").get_bytes().await?.as_deref(), Some(&b"\x89PNG"[..]));
    /// # Ok::<(), mcache::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    pub async fn set_bytes(self, value: impl AsRef<[u8]>) -> Result<bool> {
        let value = value.as_ref();
        match self.handle.core.enabled {
            true => {
                let sealed = self.handle.seal_raw(value, || self.family_name());
                self.store(sealed).await
            }
            false => self.store(None).await,
        }
    }

    /// `None`: nothing that can be kept.
    async fn store(self, sealed: Option<Bytes>) -> Result<bool> {
        let core = &self.handle.core;
        let chosen = self.chosen()?;
        let Some(value) = sealed.filter(|_| !chosen.is_empty()) else {
            return Ok(false);
        };
        let tags = core.namespace.stored_tags(&self.policy.tags);
        let mut outcome = Ok(true);
        for chosen in chosen.iter() {
            let ttl = core.lifetime(chosen, self.policy.ttl);
            let swr = core.stale_window(self.policy.swr);
            chosen.pending.note_life(ttl, swr);
            let provider = &chosen.provider;
            // What this process has of the key is gone before another value can be there.
            let own = chosen.near.as_ref().map(|near| {
                let key = self.key.as_slice().into();
                near.begin(Own::Keys(vec![key]))
            });
            let stored = provider
                .store(Store {
                    key: self.key.bytes(),
                    value: value.clone(),
                    ttl,
                    swr,
                    tags: &tags,
                    manual: self.policy.manual,
                    token: None,
                })
                .await;
            drop(own);
            telemetry::store(
                provider.id(),
                if stored.is_ok() { "stored" } else { "failed" },
            );
            outcome = match (outcome, stored) {
                (Ok(all), Ok(this)) => Ok(all && this),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
        }
        outcome
    }

    /// Begins a fill by hand: what is [stored](Filling::store) later is refused if one of its tags was invalidated
    /// after this call. Must be called before the source is read.
    ///
    /// ```
    /// # use mcache::{Cache, MemoryProvider};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
    /// let filling = cache.key("product:42").tags(["Product:42"]).begin().await?;
    /// let product = "as it was read from the database".to_owned();
    /// // Meanwhile another process changes the product.
    /// cache.invalidate(["Product:42"]).await?;
    /// assert!(!filling.store(&product).await?, "too old to be kept");
    /// # Ok::<(), mcache::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownProvider`](crate::ErrorKind::UnknownProvider). Providers that cannot be reached are left
    /// out.
    pub async fn begin(self) -> Result<Filling<'c, C>> {
        let chosen = self.chosen()?;
        let grants = self.loading(&chosen).tokens().await;
        Ok(Filling {
            handle: self.handle,
            grants,
            policy: self.policy,
        })
    }

    /// The cached value, or the loader's, which is then kept.
    ///
    /// Of all callers in all processes that miss the same key, one loads; the others get its result. The loader's value
    /// is returned without waiting for the cache to confirm it.
    ///
    /// # Errors
    ///
    /// Only the loader's own, in its own type; it is not cached. Callers who waited for a loader that failed call their
    /// own, one after the other, each as soon as the one before has failed: a source in trouble is not asked by all at
    /// once. Where errors can be cloned, [`get_or_load_shared`](Self::get_or_load_shared) gives all who waited the one
    /// error instead. A cache that is away, slow or talks nonsense is as if nothing were cached; an unknown provider is
    /// logged and left out.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the loader and hands the right to load to the next caller in line.
    pub async fn get_or_load<T, E, F, Fut>(self, loader: F) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let loader = || async move { loader().await.map(Loaded::new) };
        let served = self.load_with(loader, Errors::own()).await?;
        Ok(served.value)
    }

    /// As [`get_or_load`](Self::get_or_load), with a loader that also says which tags its result carries.
    ///
    /// ```
    /// # use mcache::{Cache, Error, Loaded, MemoryProvider};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
    /// let load = || async {
    ///     let ids = vec![1, 2];
    ///     let tags: Vec<String> = ids.iter().map(|id| format!("Product:{id}")).collect();
    ///     Ok::<_, Error>(Loaded::new(ids).tags(tags))
    /// };
    /// let ids: Vec<u32> = cache.key("newest").get_or_load_tagged(load).await?;
    /// assert_eq!(cache.invalidate(["Product:2"]).await?.entries(), 1);
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_tagged<T, E, F, Fut>(self, loader: F) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded<T>, E>>,
    {
        let served = self.load_with(loader, Errors::own()).await?;
        Ok(served.value)
    }

    /// As [`get_or_load`](Self::get_or_load) for a source that may have nothing. That is remembered only with
    /// [`negative_ttl`](Self::negative_ttl), and forgotten like any entry when one of its tags is invalidated.
    ///
    /// # Errors
    ///
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_optional<T, E, F, Fut>(self, loader: F) -> Result<Option<T>, E>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Option<T>, E>>,
    {
        let loader = || async move { loader().await.map(Loaded::new) };
        let open = |bytes: &Bytes| match self.handle.open(bytes)? {
            Opened::Value(value) => Some(Some(value)),
            Opened::Absent => Some(None),
        };
        let seal = |loaded: &Loaded<Option<T>>| match &loaded.value {
            Some(value) => Sealed {
                value: self.handle.seal(value, || self.family_name()),
                terms: self.policy.terms(loaded),
            },
            None => Sealed {
                value: Some(self.handle.core.envelope.absent()),
                terms: self.policy.negative_terms(loaded),
            },
        };
        self.run(open, seal, loader, Errors::own())
            .await
            .map(|served| served.value)
    }

    /// As [`get_or_load`](Self::get_or_load), for bytes as they are: see [`set_bytes`](Self::set_bytes).
    ///
    /// # Errors
    ///
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_bytes<E, F, Fut>(self, loader: F) -> Result<Bytes, E>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Bytes, E>>,
    {
        let loader = || async move { loader().await.map(Loaded::new) };
        let open = |bytes: &Bytes| self.handle.open_raw(bytes);
        let seal = |loaded: &Loaded<Bytes>| Sealed {
            value: self.handle.seal_raw(&loaded.value, || self.family_name()),
            terms: self.policy.terms(loaded),
        };
        let served = self.run(open, seal, loader, Errors::own()).await?;
        Ok(served.value)
    }

    /// As [`get_or_load`](Self::get_or_load), where the error of a loader goes to all callers of this process who
    /// waited for it: the source is asked once, whether it succeeds or fails. An error that cannot be cloned can be put
    /// into an [`Arc`](std::sync::Arc): `.map_err(Arc::new)`.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use mcache::{Cache, MemoryProvider};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
    /// let load = || async { std::fs::read_to_string("/does/not/exist").map_err(Arc::new) };
    /// let error = cache.key("k").get_or_load_shared(load).await.unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    /// # Ok::<(), mcache::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn get_or_load_shared<T, E, F, Fut>(self, loader: F) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: Clone + Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let loader = || async move { loader().await.map(Loaded::new) };
        let served = self.load_with(loader, Errors::shared()).await?;
        Ok(served.value)
    }

    /// [`load`](Self::load) with the error shared as in [`get_or_load_shared`](Self::get_or_load_shared).
    ///
    /// # Errors
    ///
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn load_shared<T, E, F, Fut>(self, loader: F) -> Result<Served<T>, E>
    where
        T: Serialize + DeserializeOwned,
        E: Clone + Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded<T>, E>>,
    {
        self.load_with(loader, Errors::shared()).await
    }

    /// As [`get_or_load`](Self::get_or_load), with the loader in a task of its own, which is finished whether or not
    /// its caller still waits. If a [stale](Self::swr) value or one that is [due](Self::early_refresh) is at hand, the
    /// caller gets that at once, and the refresh goes on in the background.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mcache::{Cache, Error, MemoryProvider};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
    /// # async fn slow_query() -> Result<u32, Error> { Ok(42) }
    /// let answer = cache
    ///     .key("report")
    ///     .ttl(Duration::from_secs(60))
    ///     .swr(Duration::from_secs(3600))
    ///     .get_or_load_detached(slow_query);
    /// // Even if this gives up, the query is finished and its result kept.
    /// let answer = tokio::time::timeout(Duration::from_millis(50), answer).await;
    /// # assert_eq!(answer.unwrap()?, 42);
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// The loader's own, if the caller waits for it; otherwise it is logged and counted.
    ///
    /// # Panics
    ///
    /// If the loader does and the caller waits for it.
    pub async fn get_or_load_detached<T, E, F, Fut>(self, loader: F) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: std::fmt::Display + Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let loader = || async move { loader().await.map(Loaded::new) };
        self.load_detached(loader).await.map(|served| served.value)
    }

    /// [`load`](Self::load) in a task of its own, as in [`get_or_load_detached`](Self::get_or_load_detached).
    ///
    /// # Errors
    ///
    /// As [`get_or_load_detached`](Self::get_or_load_detached).
    ///
    /// # Panics
    ///
    /// As [`get_or_load_detached`](Self::get_or_load_detached).
    pub async fn load_detached<T, E, F, Fut>(self, loader: F) -> Result<Served<T>, E>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        E: std::fmt::Display + Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<T>, E>> + Send + 'static,
    {
        let began = Instant::now();
        let chosen = self.chosen_or_none();
        if chosen.is_empty() {
            let value = loader().await?.value;
            telemetry::read(Source::Bypass, began, self.policy.family_label());
            return Ok(Served::bypass(value));
        }
        let span = tracing::debug_span!("mcache.load", key = %self.key.as_slice().escape_ascii());
        let (handle, policy) = (self.handle.clone(), self.policy.clone());
        let family = self.family_name();
        let seal = move |loaded: &Loaded<T>| Sealed {
            value: handle.seal(&loaded.value, || family),
            terms: policy.terms(loaded),
        };
        let open = |bytes: &Bytes| self.handle.open(bytes).and_then(Opened::value);
        let served = self
            .loading(&chosen)
            .to_owned()
            .run_detached(began, open, seal, loader)
            .instrument(span)
            .await?;
        telemetry::read(served.source, began, self.policy.family_label());
        Ok(served)
    }

    /// The general form: a loader that says what it knows, and an answer that says where it came from.
    ///
    /// # Errors
    ///
    /// As [`get_or_load`](Self::get_or_load).
    pub async fn load<T, E, F, Fut>(self, loader: F) -> Result<Served<T>, E>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded<T>, E>>,
    {
        self.load_with(loader, Errors::own()).await
    }

    /// Of a borrowed entry: an async function that passes its own on holds it twice more.
    async fn load_with<T, E, Fut>(
        &self,
        loader: impl FnOnce() -> Fut,
        errors: Errors<E>,
    ) -> Result<Served<T>, E>
    where
        T: Serialize + DeserializeOwned,
        Fut: Future<Output = Result<Loaded<T>, E>>,
    {
        let open = |bytes: &Bytes| self.handle.open(bytes).and_then(Opened::value);
        let seal = |loaded: &Loaded<T>| Sealed {
            value: self.handle.seal(&loaded.value, || self.family_name()),
            terms: self.policy.terms(loaded),
        };
        self.run(open, seal, loader, errors).await
    }

    async fn run<V, E, Fut>(
        &self,
        open: impl Fn(&Bytes) -> Option<V>,
        seal: impl FnOnce(&Loaded<V>) -> Sealed,
        loader: impl FnOnce() -> Fut,
        errors: Errors<E>,
    ) -> Result<Served<V>, E>
    where
        Fut: Future<Output = Result<Loaded<V>, E>>,
    {
        let began = Instant::now();
        let chosen = self.chosen_or_none();
        if chosen.is_empty() {
            let value = loader().await?.value;
            telemetry::read(Source::Bypass, began, self.policy.family_label());
            return Ok(Served::bypass(value));
        }
        let span = tracing::debug_span!("mcache.load", key = %self.key.as_slice().escape_ascii());
        let served = self
            .loading(&chosen)
            .run(began, open, seal, loader, errors)
            .instrument(span)
            .await?;
        telemetry::read(served.source, began, self.policy.family_label());
        Ok(served)
    }

    fn loading<'a>(&'a self, chosen: &'a [Chosen]) -> Loading<'a> {
        Loading {
            core: &self.handle.core,
            key: &self.key,
            chosen,
            policy: &self.policy,
        }
    }

    fn chosen(&self) -> Result<Cow<'c, [Chosen]>> {
        self.handle.core.choose(&self.policy)
    }

    fn chosen_or_none(&self) -> Cow<'c, [Chosen]> {
        self.chosen().unwrap_or_else(|error| {
            tracing::warn!(%error, "loading without a cache");
            Cow::default()
        })
    }

    fn family_name(&self) -> String {
        self.handle
            .core
            .family_of(self.key.as_slice(), &self.policy)
    }
}

impl<C> fmt::Debug for Entry<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("key", self.key.bytes())
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
