//! What one can do with one key: the builder behind [`Cache::key`].

use std::{future::Future, time::Duration};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Cache, Codec, Json, Loaded, Result, Served, Source, Tags, provider::Store};

/// One key, with how it is to be kept; ends in one of the operations.
#[must_use = "nothing happens until one of the operations is called"]
pub struct Entry<'c, C = Json> {
    cache: &'c Cache<C>,
    key: Bytes,
    tags: Tags,
    ttl: Option<Duration>,
    swr: Duration,
    manual: bool,
    stale_if_error: bool,
    negative_ttl: Option<Duration>,
    targets: Vec<Target>,
}

/// A provider chosen for one operation, optionally with its own time to live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    id: String,
    ttl: Option<Duration>,
}

impl From<&str> for Target {
    fn from(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            ttl: None,
        }
    }
}

impl From<String> for Target {
    fn from(id: String) -> Self {
        Self { id, ttl: None }
    }
}

impl<S: Into<String>> From<(S, Duration)> for Target {
    fn from((id, ttl): (S, Duration)) -> Self {
        Self {
            id: id.into(),
            ttl: Some(ttl),
        }
    }
}

impl<'c, C: Codec> Entry<'c, C> {
    pub(crate) fn new(cache: &'c Cache<C>, key: Bytes) -> Self {
        Self {
            cache,
            key,
            tags: Tags::new(),
            ttl: None,
            swr: Duration::ZERO,
            manual: false,
            stale_if_error: false,
            negative_ttl: None,
            targets: Vec::new(),
        }
    }

    /// How long the entry is live. Default: the cache's. Zero: no expiry.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Stale-while-revalidate: how long after its time to live the entry may still be served while one caller
    /// refreshes it. Default: zero.
    pub fn swr(mut self, window: Duration) -> Self {
        self.swr = window;
        self
    }

    /// Adds tags.
    pub fn tags<I>(mut self, tags: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        self.tags.extend(tags);
        self
    }

    /// Automatic invalidation ([`Cache::invalidate_auto`]) spares the entry. Default: it does not.
    pub fn manual(mut self, manual: bool) -> Self {
        self.manual = manual;
        self
    }

    /// If the source fails while a stale value is at hand, serve that. Default: no.
    pub fn stale_if_error(mut self, stale_if_error: bool) -> Self {
        self.stale_if_error = stale_if_error;
        self
    }

    /// Keep "there is nothing" for this long; see
    /// [`get_or_load_optional`](Self::get_or_load_optional). Default: it is not kept.
    pub fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = Some(ttl);
        self
    }

    /// The providers to use, in order, instead of all of them.
    pub fn providers<I>(mut self, providers: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Target>,
    {
        self.targets = providers.into_iter().map(Into::into).collect();
        self
    }

    /// The live value, if there is one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnknownProvider`](crate::ErrorKind::UnknownProvider) or
    /// [`ErrorKind::Refused`](crate::ErrorKind::Refused). A cache that is away is `Ok(None)`.
    pub async fn get<T: DeserializeOwned>(self) -> Result<Option<T>> {
        for provider in self.chosen()? {
            if let Some(value) = provider.get(&self.key).await? {
                return Ok(self.cache.decode(&value));
            }
        }
        Ok(None)
    }

    /// Keeps a value. `false`: refused, because a tag was invalidated since the fill began.
    ///
    /// # Errors
    ///
    /// As the provider's: unlike a read, a write that did not arrive is told.
    pub async fn set<T: Serialize + ?Sized>(self, value: &T) -> Result<bool> {
        let mut stored = true;
        for provider in self.chosen()? {
            let token = provider.token(&self.key).await?;
            stored &= self
                .store(provider.as_ref(), value, &self.tags, Some(&token))
                .await?;
        }
        Ok(stored)
    }

    /// The cached value, or the loader's, which is then kept.
    ///
    /// # Errors
    ///
    /// Only the loader's own; it is not cached.
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
    /// # Errors
    ///
    /// Only the loader's own.
    pub async fn get_or_load_tagged<T, E, F, Fut>(self, loader: F) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded<T>, E>>,
    {
        self.load(loader).await.map(|served| served.value)
    }

    /// The general form: a loader that says what it knows, and an answer that says where it came from.
    ///
    /// # Errors
    ///
    /// Only the loader's own.
    pub async fn load<T, E, F, Fut>(self, loader: F) -> Result<Served<T>, E>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Loaded<T>, E>>,
    {
        let Some(provider) = self.chosen().ok().and_then(|all| all.first().copied()) else {
            let value = loader().await?.value;
            return Ok(Served {
                value,
                source: Source::Bypass,
            });
        };
        if let Ok(Some(found)) = provider.get(&self.key).await {
            if let Some(value) = self.cache.decode(&found) {
                return Ok(Served {
                    value,
                    source: Source::Hit,
                });
            }
        }
        let token = provider.token(&self.key).await.ok();
        let loaded = loader().await?;
        let mut tags = self.tags.clone();
        tags.extend(&loaded.tags);
        if loaded.keep && token.is_some() {
            let _ = self
                .store(provider.as_ref(), &loaded.value, &tags, token.as_ref())
                .await;
        }
        Ok(Served {
            value: loaded.value,
            source: Source::Loaded,
        })
    }

    async fn store<T: Serialize + ?Sized>(
        &self,
        provider: &dyn crate::Provider,
        value: &T,
        tags: &Tags,
        token: Option<&crate::provider::Token>,
    ) -> Result<bool> {
        let core = self.cache.core();
        let mut buffer = core.envelope.begin();
        self.cache.codec().encode(value, &mut buffer)?;
        let Some(value) = core.envelope.seal(buffer) else {
            return Ok(false);
        };
        let ttl = self.ttl.unwrap_or(core.defaults.ttl);
        provider
            .store(Store {
                key: &self.key,
                value,
                ttl: (!ttl.is_zero()).then_some(ttl),
                swr: self.swr,
                tags: &core.namespace.stored_tags(tags),
                manual: self.manual,
                token,
            })
            .await
    }

    fn chosen(&self) -> Result<Vec<&std::sync::Arc<dyn crate::Provider>>> {
        let core = self.cache.core();
        if !core.enabled {
            return Ok(Vec::new());
        }
        if self.targets.is_empty() {
            return Ok(core.providers.iter().collect());
        }
        self.targets
            .iter()
            .map(|target| self.cache.provider(&target.id))
            .collect()
    }
}
