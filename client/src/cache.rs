//! The handle everybody holds: what concerns the cache as a whole. What concerns one key is in `entry`, several keys in
//! `batch`.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Serialize, de::DeserializeOwned};
use tracing::Instrument;

use crate::{
    Batch, Builder, Codec, Entry, Error, ErrorKind, Invalidation, Json, Provider, Result, Tags,
    Target,
    envelope::{Envelope, Payload},
    flight::Flights,
    outbox::{Order, Outbox},
    provider::{Inspection, Mode},
    tags::Namespace,
    telemetry,
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
    core: Arc<Core>,
    codec: C,
}

/// What all clones share.
pub(crate) struct Core {
    pub(crate) enabled: bool,
    pub(crate) namespace: Namespace,
    pub(crate) envelope: Envelope,
    pub(crate) ttl: Duration,
    pub(crate) loader_timeout: Duration,
    pub(crate) providers: Vec<Chosen>,
    pub(crate) flights: Arc<Flights>,
}

/// A provider as one operation uses it.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub(crate) provider: Arc<dyn Provider>,
    /// What it has still to be told.
    pub(crate) outbox: Outbox,
    /// The time to live asked for this provider in particular.
    pub(crate) ttl: Option<Duration>,
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

    /// Begins an operation on several keys at once.
    pub fn keys<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Batch<'_, K, C> {
        Batch::new(self, keys.into_iter().collect())
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

    /// Removes one entry, whatever its options, from every provider.
    ///
    /// Meant for housekeeping: a fill of the same key that is under way may store its value afterwards. What must not
    /// be served any more is invalidated by a tag.
    ///
    /// # Errors
    ///
    /// As [`invalidate`](Self::invalidate).
    pub async fn clear(&self, key: impl AsRef<[u8]>) -> Result<Invalidation> {
        self.order(Order::Clear(self.core.namespace.qualify(key.as_ref())))
            .await
    }

    /// Makes every entry dead that carries any of these tags, in every provider.
    ///
    /// When this returns an [acknowledged](Invalidation::is_acknowledged) invalidation, nobody is served any more what
    /// was loaded before the call. If a provider cannot be reached within its deadline, the invalidation is *pending*:
    /// it is sent again in the background until it is acknowledged or no entry it concerns can still be alive. Until
    /// then this process does not read from that provider; other processes may still be served the old entries.
    /// Pending invalidations live in memory: a process that must not lose them across its own end needs a durable
    /// [source of changes](crate::change).
    ///
    /// Once polled, the invalidation is carried out even if the future is dropped. No tags: nothing happens.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] if a provider understood and said no, for example because the user may not touch the
    /// tag; trying again would not help. The other providers have been told nevertheless.
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
        let tags = self.core.namespace.qualify_tags(&Tags::from_iter(tags));
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
        let tags = Tags::from_iter([self.core.namespace.everything()]);
        self.order(Order::Invalidate(tags, Mode::Hard)).await
    }

    /// What the first provider that has the key knows of it.
    ///
    /// # Errors
    ///
    /// As the provider's, [unavailable](Error::is_unavailable) included: unlike a read, an inspection has no source to
    /// fall back to.
    pub async fn inspect(&self, key: impl AsRef<[u8]>) -> Result<Option<Inspection>> {
        let namespace = &self.core.namespace;
        let key = namespace.qualify(key.as_ref());
        for chosen in self.active() {
            if let Some(mut found) = chosen.provider.inspect(&key).await? {
                found.tags.retain(|tag| tag != namespace.everything());
                for tag in &mut found.tags {
                    *tag = tag.slice_ref(namespace.strip(tag));
                }
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// How many tags and keys providers have not acknowledged yet: zero in good times. See
    /// [`invalidate`](Self::invalidate).
    pub fn pending_invalidations(&self) -> usize {
        self.active().iter().map(|chosen| chosen.outbox.len()).sum()
    }

    async fn order(&self, order: Order) -> Result<Invalidation> {
        let attempts = self
            .active()
            .iter()
            .map(|chosen| chosen.outbox.submit(order.clone()));
        let span = tracing::debug_span!("mcache.invalidate");
        Invalidation::of(join_all(attempts).instrument(span).await)
    }

    /// All providers; none if caching is off.
    fn active(&self) -> &[Chosen] {
        match self.core.enabled {
            true => &self.core.providers,
            false => &[],
        }
    }

    /// What tells this cache from others: its namespace and where its providers keep entries. Two processes with one name
    /// read and write the same entries.
    pub fn name(&self) -> String {
        let namespace = self.core.namespace.everything();
        let mut name =
            String::from_utf8_lossy(namespace.strip_suffix(b"*").unwrap_or(namespace)).into_owned();
        for (position, chosen) in self.core.providers.iter().enumerate() {
            name.push(if position == 0 { '@' } else { '+' });
            name.push_str(chosen.provider.place());
        }
        name
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The providers to use: those named, or all; none if caching is off.
    pub(crate) fn choose(&self, targets: &[Target]) -> Result<Cow<'_, [Chosen]>> {
        if targets.is_empty() {
            return Ok(Cow::Borrowed(self.active()));
        }
        let chosen = targets.iter().map(|target| {
            let known = |chosen: &&Chosen| chosen.provider.id() == target.id;
            match self.core.providers.iter().find(known) {
                Some(chosen) => Ok(Chosen {
                    ttl: target.ttl,
                    ..chosen.clone()
                }),
                None => Err(Error::new(ErrorKind::UnknownProvider(target.id.clone()))),
            }
        });
        let chosen = chosen.collect::<Result<Vec<_>>>()?;
        Ok(if self.core.enabled {
            chosen.into()
        } else {
            Cow::default()
        })
    }

    /// The value's bytes; `None`, counted, if it cannot be kept.
    pub(crate) fn seal<T: Serialize + ?Sized>(&self, value: &T) -> Option<Bytes> {
        self.try_seal(value).unwrap_or_else(|error| {
            tracing::debug!(%error, "a value could not be encoded and is not kept");
            telemetry::unkept("codec");
            None
        })
    }

    /// As [`seal`](Self::seal), for callers who are told; `None` is a value that is too large.
    pub(crate) fn try_seal<T: Serialize + ?Sized>(&self, value: &T) -> Result<Option<Bytes>> {
        let mut buffer = self.core.envelope.begin();
        self.codec.encode(value, &mut buffer)?;
        let sealed = self.core.envelope.seal(buffer);
        if sealed.is_none() {
            telemetry::unkept("too_large");
        }
        Ok(sealed)
    }

    /// What the bytes held; `None`, counted, if they cannot be read.
    pub(crate) fn open<T: DeserializeOwned>(&self, sealed: &Bytes) -> Option<Opened<T>> {
        match self.core.envelope.open(sealed) {
            Ok(Payload::Absent) => Some(Opened::Absent),
            Ok(Payload::Value(bytes)) => match self.codec.decode(&bytes) {
                Ok(value) => Some(Opened::Value(value)),
                Err(error) => {
                    tracing::debug!(%error, "an entry is not what its reader expects");
                    telemetry::unreadable("type");
                    None
                }
            },
            Err(reason) => {
                telemetry::unreadable(reason.label());
                None
            }
        }
    }
}

/// What was stored: a value, or that there is none.
pub(crate) enum Opened<T> {
    Value(T),
    Absent,
}

impl<T> Opened<T> {
    /// For readers who did not ask whether there is something: absence is a miss to them.
    pub(crate) fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent => None,
        }
    }
}
