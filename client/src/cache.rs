//! The handle everybody holds: what concerns the cache as a whole. What concerns one key is in `entry`.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::{
    Builder, Codec, Entry, Error, ErrorKind, Json, Provider, Result, Tags,
    envelope::{Envelope, Payload},
    provider::{Inspection, Mode},
    tags::Namespace,
};

/// A cache: cheap to clone, shared by everything in the process that uses the same providers.
#[derive(Clone)]
pub struct Cache<C = Json> {
    core: Arc<Core>,
    codec: C,
}

/// What all clones share.
pub(crate) struct Core {
    pub(crate) enabled: bool,
    pub(crate) namespace: Namespace,
    pub(crate) envelope: Envelope,
    pub(crate) defaults: Defaults,
    pub(crate) providers: Vec<Arc<dyn Provider>>,
}

pub(crate) struct Defaults {
    pub(crate) ttl: Duration,
    pub(crate) loader_timeout: Duration,
}

impl Cache {
    /// Begins to configure a cache on the server at this address.
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
        Self {
            core: Arc::new(core),
            codec,
        }
    }

    /// Whether caching is on. Off, every call goes straight through.
    pub fn is_enabled(&self) -> bool {
        self.core.enabled
    }

    /// Begins an operation on one key.
    pub fn key(&self, key: impl AsRef<[u8]>) -> Entry<'_, C> {
        Entry::new(self, self.core.namespace.qualify(key.as_ref()))
    }

    /// The live values of several keys, in their order.
    ///
    /// # Errors
    ///
    /// As [`Entry::get`].
    pub async fn get_many<T: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> Result<Vec<Option<T>>> {
        let keys: Vec<Bytes> = keys
            .into_iter()
            .map(|key| self.core.namespace.qualify(key.as_ref()))
            .collect();
        let Some(provider) = self.core.providers.first().filter(|_| self.core.enabled) else {
            return Ok(keys.iter().map(|_| None).collect());
        };
        let found = provider.get_many(&keys).await?;
        Ok(found
            .into_iter()
            .map(|value| value.and_then(|value| self.decode(&value)))
            .collect())
    }

    /// Removes one entry, whatever its options.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate).
    pub async fn clear(&self, key: impl AsRef<[u8]>) -> Result<Invalidation> {
        let key = self.core.namespace.qualify(key.as_ref());
        let mut entries = 0;
        for provider in self.active() {
            entries += u64::from(provider.clear(&key).await?);
        }
        Ok(Invalidation { entries })
    }

    /// Makes every entry dead that carries any of these tags.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] if the cache understood and said no.
    pub async fn invalidate<I>(&self, tags: I) -> Result<Invalidation>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        self.invalidate_mode(tags, Mode::Hard).await
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
        self.invalidate_mode(tags, Mode::Auto).await
    }

    /// As [`invalidate`](Self::invalidate), but entries become stale instead of dead.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate).
    pub async fn soft_invalidate<I>(&self, tags: I) -> Result<Invalidation>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        self.invalidate_mode(tags, Mode::Soft).await
    }

    /// Makes every entry of this namespace dead.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate).
    pub async fn clear_all(&self) -> Result<Invalidation> {
        let mut tags = Tags::new();
        tags.push(self.core.namespace.everything());
        self.send(tags, Mode::Hard).await
    }

    /// What is known of a key, if it exists.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] if the cache is away: unlike a read, an inspection
    /// has no source to fall back to.
    pub async fn inspect(&self, key: impl AsRef<[u8]>) -> Result<Option<Inspection>> {
        let key = self.core.namespace.qualify(key.as_ref());
        match self.active().next() {
            Some(provider) => {
                let mut found = provider.inspect(&key).await?;
                for tag in found.iter_mut().flat_map(|entry| &mut entry.tags) {
                    *tag = tag.slice_ref(self.core.namespace.strip(tag));
                }
                Ok(found)
            }
            None => Ok(None),
        }
    }

    async fn invalidate_mode<I>(&self, tags: I, mode: Mode) -> Result<Invalidation>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let tags = self.core.namespace.qualify_tags(&Tags::from_iter(tags));
        self.send(tags, mode).await
    }

    async fn send(&self, tags: Tags, mode: Mode) -> Result<Invalidation> {
        let mut entries = 0;
        if !tags.is_empty() {
            for provider in self.active() {
                entries += provider.invalidate(&tags, mode).await?;
            }
        }
        Ok(Invalidation { entries })
    }

    fn active(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.core.providers.iter().filter(|_| self.core.enabled)
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn codec(&self) -> &C {
        &self.codec
    }

    pub(crate) fn provider(&self, id: &str) -> Result<&Arc<dyn Provider>> {
        self.core
            .providers
            .iter()
            .find(|provider| provider.id() == id)
            .ok_or_else(|| Error::new(ErrorKind::UnknownProvider(id.to_owned())))
    }

    pub(crate) fn decode<T: DeserializeOwned>(&self, sealed: &Bytes) -> Option<T> {
        match self.core.envelope.open(sealed) {
            Ok(Payload::Value(bytes)) => self.codec.decode(&bytes).ok(),
            _ => None,
        }
    }
}

/// How an invalidation went.
///
/// [`is_acknowledged`](Self::is_acknowledged) is the answer most callers want; a pending one goes on in the
/// background and can be awaited with [`settled`](Self::settled).
#[derive(Debug)]
pub struct Invalidation {
    entries: u64,
}

/// How a pending invalidation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settled {
    /// Every shard of every provider has acknowledged it.
    Acknowledged,
    /// It was not acknowledged, but no entry it concerns can still be alive.
    Outlived,
}

impl Invalidation {
    /// Every shard of every provider has acknowledged: nothing older is served from now on.
    pub fn is_acknowledged(&self) -> bool {
        true
    }

    /// How many entries the acknowledged part made dead (or stale).
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Waits until the invalidation is acknowledged everywhere, or needed nowhere.
    ///
    /// Cancel-safe: the retries go on whether or not anybody waits.
    pub fn settled(self) -> impl Future<Output = Settled> + Send {
        std::future::ready(Settled::Acknowledged)
    }
}
