//! What one can do with one key: the builder behind [`Cache::key`].

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tracing::Instrument;

use crate::{
    Cache, Codec, Json, Loaded, Result, Served, Source,
    cache::{Chosen, Opened},
    grant::Grants,
    load::{Loading, Sealed},
    policy::{Policy, policy_setters},
    provider::Store,
    telemetry,
};

/// One key, with how its entry is to be kept; ends in one of the operations.
#[must_use = "nothing happens until one of the operations is called"]
pub struct Entry<'c, C = Json> {
    cache: &'c Cache<C>,
    key: Bytes,
    policy: Policy,
}

impl<'c, C: Codec> Entry<'c, C> {
    pub(crate) fn new(cache: &'c Cache<C>, key: Bytes) -> Self {
        Self {
            cache,
            key,
            policy: Policy::default(),
        }
    }

    policy_setters!(policy);

    /// Takes over how entries are kept, instead of what was set before.
    #[must_use]
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
        for chosen in self.chosen()?.iter() {
            if chosen.outbox.is_waiting() {
                continue;
            }
            match chosen.provider.get(&self.key).await {
                Ok(Some(found)) => {
                    if let Some(value) = self.cache.open(&found).and_then(Opened::value) {
                        telemetry::read(Source::Hit);
                        return Ok(Some(value));
                    }
                }
                Ok(None) => {}
                Err(error) if error.is_refused() => return Err(error),
                Err(error) => telemetry::failed_open(chosen.provider.id(), "get", &error),
            }
        }
        telemetry::read(Source::Loaded);
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
        let core = self.cache.core();
        let chosen = self.chosen()?;
        if chosen.is_empty() {
            return Ok(false);
        }
        let Some(value) = self.cache.try_seal(value)? else {
            return Ok(false);
        };
        let tags = core.namespace.stored_tags(&self.policy.tags);
        let mut outcome = Ok(true);
        for chosen in chosen.iter() {
            let ttl = chosen.ttl.or(self.policy.ttl).unwrap_or(core.ttl);
            let ttl = (!ttl.is_zero()).then_some(ttl);
            let swr = self.policy.swr;
            chosen.outbox.note_life(ttl, swr);
            let provider = &chosen.provider;
            let stored = provider
                .store(Store {
                    key: &self.key,
                    value: value.clone(),
                    ttl,
                    swr,
                    tags: &tags,
                    manual: self.policy.manual,
                    token: None,
                })
                .await;
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

    /// Begins a fill by hand: what is [stored](Filling::store) later is refused if one of its tags was invalidated after
    /// this call. Must be called before the source is read.
    ///
    /// ```
    /// # use mcache::{Cache, MemoryProvider};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
    /// let filling = cache.key("product:42").tags(["Product:42"]).begin().await?;
    /// let product = "as it was read from the database".to_owned();
    /// // Meanwhile somebody changes the product.
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
            cache: self.cache,
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
    /// Only the loader's own, in its own type; it is not cached. Callers in this process who waited for a loader that
    /// failed call their own. A cache that is away, slow or talks nonsense is as if nothing were cached; an unknown
    /// provider is logged and left out.
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
        self.load(loader).await.map(|served| served.value)
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
        self.load(loader).await.map(|served| served.value)
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
        let open = |bytes: &Bytes| match self.cache.open(bytes)? {
            Opened::Value(value) => Some(Some(value)),
            Opened::Absent => Some(None),
        };
        let seal = |loaded: &Loaded<Option<T>>| match &loaded.value {
            Some(value) => Sealed {
                value: self.cache.seal(value),
                terms: self.policy.terms(loaded),
            },
            None => Sealed {
                value: Some(self.cache.core().envelope.absent()),
                terms: self.policy.negative_terms(loaded),
            },
        };
        self.run(open, seal, loader)
            .await
            .map(|served| served.value)
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
        let open = |bytes: &Bytes| self.cache.open(bytes).and_then(Opened::value);
        let seal = |loaded: &Loaded<T>| Sealed {
            value: self.cache.seal(&loaded.value),
            terms: self.policy.terms(loaded),
        };
        self.run(open, seal, loader).await
    }

    async fn run<V, E, Fut>(
        &self,
        open: impl Fn(&Bytes) -> Option<V>,
        seal: impl FnOnce(&Loaded<V>) -> Sealed,
        loader: impl FnOnce() -> Fut,
    ) -> Result<Served<V>, E>
    where
        Fut: Future<Output = Result<Loaded<V>, E>>,
    {
        let chosen = self.chosen().unwrap_or_else(|error| {
            tracing::warn!(%error, "loading without a cache");
            Cow::default()
        });
        if chosen.is_empty() {
            telemetry::read(Source::Bypass);
            return Ok(Served::bypass(loader().await?.value));
        }
        let span = tracing::debug_span!("mcache.load", key = %self.key.escape_ascii());
        self.loading(&chosen)
            .run(open, seal, loader)
            .instrument(span)
            .await
    }

    fn loading<'a>(&'a self, chosen: &'a [Chosen]) -> Loading<'a> {
        Loading {
            core: self.cache.core(),
            key: &self.key,
            chosen,
            stale_if_error: self.policy.stale_if_error,
            early: self.policy.early,
        }
    }

    fn chosen(&self) -> Result<Cow<'c, [Chosen]>> {
        self.cache.choose(&self.policy.targets)
    }
}

/// A fill begun with [`Entry::begin`].
#[must_use = "a fill that stores nothing was begun for nothing"]
pub struct Filling<'c, C = Json> {
    cache: &'c Cache<C>,
    grants: Grants,
    policy: Policy,
}

impl<C: Codec> Filling<'_, C> {
    /// Adds tags, which are often known only now.
    pub fn tags<I>(mut self, tags: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        self.policy.tags.extend(tags);
        self
    }

    /// Keeps the value. `false`: a provider refused it because a tag was invalidated since the fill began, or none could
    /// be reached when it began, or it is too large.
    ///
    /// # Errors
    ///
    /// As [`Entry::set`].
    pub async fn store<T: Serialize + ?Sized>(self, value: &T) -> Result<bool> {
        let Some(value) = self.cache.try_seal(value)? else {
            return Ok(false);
        };
        let terms = self.policy.bare_terms();
        let stored = self.grants.store(self.cache.core(), value, &terms).await?;
        Ok(stored.accepted > 0 && stored.refused == 0)
    }
}
