//! What one can do with several keys at once: the builder behind [`Cache::keys`].

use std::{borrow::Cow, collections::HashMap, fmt, hash::Hash, time::Duration};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    Codec, Json, Loaded, Result, Served, Source,
    core::{Chosen, Handle},
    gather::Gathering,
    policy::{Policy, policy_setters},
    telemetry,
};

/// Several keys, with how their entries are to be kept; ends in one of the operations.
///
/// ```
/// # use mcache::{Cache, MemoryProvider};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// cache.key("a").set(&1).await?;
/// let found: Vec<Option<u32>> = cache.keys(["a", "b"]).get_many().await?;
/// assert_eq!(found, [Some(1), None]);
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "nothing happens until one of the operations is called"]
pub struct Batch<'c, K, C = Json> {
    handle: &'c Handle<C>,
    keys: Vec<K>,
    policy: Policy,
}

impl<'c, K: AsRef<[u8]>, C: Codec> Batch<'c, K, C> {
    pub(crate) fn new(handle: &'c Handle<C>, keys: Vec<K>) -> Self {
        Self {
            handle,
            keys,
            policy: Policy::default(),
        }
    }

    policy_setters!(policy);

    /// Takes over how entries are kept, instead of what was set before.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The live values, in the order of the keys: each of the first provider that has it.
    ///
    /// # Errors
    ///
    /// As [`Entry::get`](crate::Entry::get).
    pub async fn get_many<T: DeserializeOwned>(self) -> Result<Vec<Option<T>>> {
        let began = Instant::now();
        let namespace = &self.handle.core.namespace;
        let keys: Vec<Bytes> = self
            .keys
            .iter()
            .map(|key| namespace.qualify(key.as_ref()))
            .collect();
        let chosen = self.handle.core.choose(&self.policy)?;
        let values = self.gathering(&chosen).live_values::<T>(&keys).await;
        let values = values.map_err(|(_, error)| error)?;
        let family = self.policy.family_label();
        for wanted in [Source::Near, Source::Hit] {
            let sources = values.iter().flatten().map(|(_, source)| *source);
            let count = sources.filter(|source| *source == wanted).count();
            telemetry::reads(wanted, count, family);
        }
        let missing = values.iter().filter(|found| found.is_none()).count();
        telemetry::reads(Source::Loaded, missing, family);
        telemetry::batch(began, family);
        let values = values.into_iter();
        Ok(values.map(|found| found.map(|(value, _)| value)).collect())
    }

    /// The cached values, and those the loader has for the rest, which are then kept.
    ///
    /// The loader is called once with all keys that are neither cached nor being loaded, and returns what it found;
    /// keys it leaves out have no value, which is remembered only with [`negative_ttl`](Self::negative_ttl). Values
    /// that another caller is loading are waited for; only if nothing comes of that, the loader is called again, for
    /// what is then left.
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # use mcache::{Cache, Error, Loaded, MemoryProvider};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
    /// let load = |missing: Vec<&'static str>| async move {
    ///     // One query for all of them.
    ///     let rows = missing.into_iter().map(|id| (id, Loaded::new(id.len()).tags([id])));
    ///     Ok::<_, Error>(rows.collect::<HashMap<_, _>>())
    /// };
    /// let lengths = cache.keys(["one", "three"]).get_or_load_many(load).await?;
    /// assert_eq!(lengths["three"], 5);
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Only the loader's own. It is not the answer where all keys that the loader was called for have a value at hand
    /// that may be served instead: [due](Self::early_refresh), or stale with [`stale_if_error`](Self::stale_if_error).
    pub async fn get_or_load_many<T, E, F, Fut>(self, loader: F) -> Result<HashMap<K, T>, E>
    where
        K: Eq + Hash + Clone,
        T: Serialize + DeserializeOwned,
        F: Fn(Vec<K>) -> Fut,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>>,
    {
        let served = self.load_many(loader).await?;
        Ok(served
            .into_iter()
            .map(|(key, served)| (key, served.value))
            .collect())
    }

    /// As [`get_or_load_many`](Self::get_or_load_many), with answers that say where each value came from.
    ///
    /// # Errors
    ///
    /// As [`get_or_load_many`](Self::get_or_load_many).
    pub async fn load_many<T, E, F, Fut>(self, loader: F) -> Result<HashMap<K, Served<T>>, E>
    where
        K: Eq + Hash + Clone,
        T: Serialize + DeserializeOwned,
        F: Fn(Vec<K>) -> Fut,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>>,
    {
        let began = Instant::now();
        let chosen = self.chosen_or_none();
        if chosen.is_empty() {
            return self.bypass(loader).await;
        }
        let span = tracing::debug_span!("mcache.load_many", keys = self.keys.len());
        let values = self
            .gathering(&chosen)
            .run(&self.keys, loader)
            .instrument(span)
            .await?;
        telemetry::batch(began, self.policy.family_label());
        Ok(values)
    }

    /// As [`get_or_load_many`](Self::get_or_load_many), with the loader in tasks of its own, which are finished whether
    /// or not their caller still waits. Keys of which a [stale](Self::swr) value or one that is
    /// [due](Self::early_refresh) is at hand are refreshed in the background, by one call of the loader for all of
    /// them; the caller gets what is at hand, and waits only for keys that have nothing.
    ///
    /// ```
    /// # use std::{collections::HashMap, time::Duration};
    /// # use mcache::{Cache, Error, Loaded, MemoryProvider};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
    /// let load = |missing: Vec<&'static str>| async move {
    ///     let rows = missing.into_iter().map(|id| (id, Loaded::new(id.len())));
    ///     Ok::<_, Error>(rows.collect::<HashMap<_, _>>())
    /// };
    /// let prices = cache.keys(["one", "three"]).ttl(Duration::from_secs(1)).swr(Duration::from_secs(60));
    /// let prices = prices.get_or_load_many_detached(load).await?;
    /// assert_eq!(prices["three"], 5);
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
    pub async fn get_or_load_many_detached<T, E, F, Fut>(
        self,
        loader: F,
    ) -> Result<HashMap<K, T>, E>
    where
        K: Eq + Hash + Clone + Send + Sync + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
        E: fmt::Display + Send + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>> + Send + 'static,
    {
        let served = self.load_many_detached(loader).await?.into_iter();
        Ok(served.map(|(key, served)| (key, served.value)).collect())
    }

    /// [`load_many`](Self::load_many) in tasks of its own, as in
    /// [`get_or_load_many_detached`](Self::get_or_load_many_detached).
    ///
    /// # Errors
    ///
    /// As [`get_or_load_many_detached`](Self::get_or_load_many_detached).
    ///
    /// # Panics
    ///
    /// As [`get_or_load_many_detached`](Self::get_or_load_many_detached).
    pub async fn load_many_detached<T, E, F, Fut>(
        self,
        loader: F,
    ) -> Result<HashMap<K, Served<T>>, E>
    where
        K: Eq + Hash + Clone + Send + Sync + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
        E: fmt::Display + Send + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>> + Send + 'static,
    {
        let began = Instant::now();
        let chosen = self.chosen_or_none();
        if chosen.is_empty() {
            return self.bypass(loader).await;
        }
        let span = tracing::debug_span!("mcache.load_many", keys = self.keys.len());
        let values = self
            .gathering(&chosen)
            .run_detached(&self.keys, loader)
            .instrument(span)
            .await?;
        telemetry::batch(began, self.policy.family_label());
        Ok(values)
    }

    async fn bypass<T, E, Fut>(
        self,
        loader: impl Fn(Vec<K>) -> Fut,
    ) -> Result<HashMap<K, Served<T>>, E>
    where
        K: Eq + Hash,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>>,
    {
        telemetry::reads(Source::Bypass, self.keys.len(), self.policy.family_label());
        let loaded = loader(self.keys).await?.into_iter();
        Ok(loaded
            .map(|(key, loaded)| (key, Served::bypass(loaded.value)))
            .collect())
    }

    fn chosen_or_none(&self) -> Cow<'c, [Chosen]> {
        let chosen = self.handle.core.choose(&self.policy);
        chosen.unwrap_or_else(|error| {
            tracing::warn!(%error, "loading without a cache");
            Cow::default()
        })
    }

    fn gathering<'a>(&'a self, chosen: &'a [Chosen]) -> Gathering<'a, C> {
        Gathering {
            handle: self.handle,
            policy: &self.policy,
            chosen,
        }
    }
}

impl<K: fmt::Debug, C> fmt::Debug for Batch<'_, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("keys", &self.keys)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
