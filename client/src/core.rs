//! What all clones of a cache share, and what every operation on it needs: which providers to use, how values become
//! bytes.
//!
//! Knows nothing of the builders of operations (`entry`, `batch`) nor of the public handle (`cache`).

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Codec, Error, ErrorKind, Policy, Provider, Result, Target,
    background::Background,
    complaints::{self, Complaints},
    envelope::{Envelope, Payload},
    flight::Flights,
    key::FullKey,
    near::{Held, Near},
    nesting,
    pending::Pending,
    provider::{BoxFuture, FetchOptions, Lookup, Store},
    tags::Namespace,
    telemetry,
    throttle::Throttle,
};

/// What all clones share.
pub(crate) struct Core {
    pub(crate) enabled: bool,
    pub(crate) namespace: Namespace,
    pub(crate) envelope: Envelope,
    pub(crate) ttl: Duration,
    pub(crate) loader_timeout: Duration,
    pub(crate) providers: Vec<Chosen>,
    pub(crate) flights: Arc<Flights>,
    pub(crate) background: Background,
    pub(crate) throttle: Throttle,
    pub(crate) complaints: Complaints,
    /// The largest part of a time to live by which chance shortens it.
    pub(crate) ttl_jitter: f64,
    /// Whether invalidations are waited for until no near cache serves what they concern.
    pub(crate) settles: bool,
}

/// What the server accepts at most.
const TTL_MAX: Duration = Duration::from_secs(315_360_000_000);
const SWR_MAX: Duration = Duration::from_secs(u32::MAX as u64 / 1000);

/// A provider as one operation uses it.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub(crate) provider: Arc<dyn Provider>,
    /// Invalidations and clears that this provider has not confirmed yet.
    pub(crate) pending: Pending,
    /// The time to live asked for this provider in particular.
    pub(crate) ttl: Option<Duration>,
    /// The near cache in front of it.
    pub(crate) near: Option<Arc<Near>>,
    /// The operation neither reads from the near cache nor puts anything into it.
    pub(crate) bypass_near: bool,
}

impl Chosen {
    /// The near cache that this operation reads from and puts values into.
    pub(crate) fn near(&self) -> Option<&Arc<Near>> {
        self.near.as_ref().filter(|_| !self.bypass_near)
    }

    /// What the near cache may serve of a key now.
    pub(crate) fn near_value(&self, key: &[u8]) -> Option<Arc<Held>> {
        let near = self.near()?;
        // A pending invalidation may concern the key; what a loader makes of it would outlive its settling.
        match self.pending.is_open() && !nesting::is_loading() {
            true => near.get(key),
            false => None,
        }
    }

    /// As [`Provider::get`], through the near cache.
    pub(crate) async fn get(&self, key: &FullKey) -> Result<Option<Bytes>> {
        match self.near() {
            Some(near) => boxed(near.read(key.bytes())).await,
            None => self.provider.get(key.as_slice()).await,
        }
    }

    /// As [`Provider::get_many`], through the near cache.
    pub(crate) async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        match self.near() {
            Some(near) => boxed(near.read_many(keys)).await,
            None => self.provider.get_many(keys).await,
        }
    }

    /// As [`Provider::fetch`], through the near cache.
    pub(crate) async fn fetch(&self, key: &[u8], options: FetchOptions) -> Result<Lookup> {
        match self.near() {
            Some(near) => boxed(near.fetch(key, options)).await,
            None => self.provider.fetch(key, options).await,
        }
    }

    /// As [`Provider::store`], of a fill, through the near cache. `fill`: how long one takes, if it is to be refreshed
    /// early.
    pub(crate) async fn store(&self, entry: Store<'_>, fill: Duration) -> Result<bool> {
        match self.near() {
            Some(near) => boxed(near.store_through(entry, fill)).await,
            None => self.provider.store(entry).await,
        }
    }
}

/// Boxed, as the futures of providers are. Otherwise these futures are part of the types of users' futures, and those
/// become so deep that the compiler gives up.
fn boxed<'a, T>(future: impl Future<Output = T> + Send + 'a) -> BoxFuture<'a, T> {
    Box::pin(future)
}

/// The core together with the codec of one handle.
#[derive(Clone)]
pub(crate) struct Handle<C> {
    pub(crate) core: Arc<Core>,
    pub(crate) codec: C,
}

impl Core {
    /// All providers; none if caching is off.
    pub(crate) fn active(&self) -> &[Chosen] {
        match self.enabled {
            true => &self.providers,
            false => &[],
        }
    }

    /// How long an entry is live: as its provider, its caller or the cache says, in this order; `None`: without end.
    pub(crate) fn lifetime(&self, chosen: &Chosen, ttl: Option<Duration>) -> Option<Duration> {
        let ttl = chosen.ttl.or(ttl).unwrap_or(self.ttl).min(TTL_MAX);
        if ttl.is_zero() {
            return None;
        }
        let part = 1.0 - self.ttl_jitter * fastrand::f64();
        let jittered = Duration::try_from_secs_f64(ttl.as_secs_f64() * part).unwrap_or(ttl);
        match self.ttl_jitter > 0.0 {
            // Zero would mean for ever.
            true => Some(jittered.max(Duration::from_millis(1)).min(ttl)),
            false => Some(ttl),
        }
    }

    /// How long an entry may be served stale.
    pub(crate) fn stale_window(&self, swr: Duration) -> Duration {
        swr.min(SWR_MAX)
    }

    /// The name of this key's family in the log.
    pub(crate) fn family_of(&self, full_key: &[u8], policy: &Policy) -> String {
        match policy.family_label() {
            Some(family) => family.to_string(),
            None => complaints::family_of(self.namespace.key_of(full_key)),
        }
    }

    /// The providers to use: those the policy names, or all; none if caching is off.
    pub(crate) fn choose(&self, policy: &Policy) -> Result<Cow<'_, [Chosen]>> {
        let mut chosen = self.choose_among(&policy.targets)?;
        if policy.bypass_near && chosen.iter().any(|chosen| chosen.near.is_some()) {
            for chosen in chosen.to_mut() {
                chosen.bypass_near = true;
            }
        }
        Ok(chosen)
    }

    fn choose_among(&self, targets: &[Target]) -> Result<Cow<'_, [Chosen]>> {
        if targets.is_empty() {
            return Ok(Cow::Borrowed(self.active()));
        }
        let chosen = targets.iter().map(|target| {
            let known = |chosen: &&Chosen| chosen.provider.id() == target.id;
            match self.providers.iter().find(known) {
                Some(chosen) => Ok(Chosen {
                    ttl: target.ttl,
                    ..chosen.clone()
                }),
                None => Err(Error::new(
                    ErrorKind::UnknownProvider,
                    format!("`{}`", target.id),
                )),
            }
        });
        let chosen = chosen.collect::<Result<Vec<_>>>()?;
        Ok(if self.enabled {
            chosen.into()
        } else {
            Cow::default()
        })
    }
}

impl<C: Codec> Handle<C> {
    /// The value's bytes; `None`, counted and logged once for each family, if it cannot be kept.
    pub(crate) fn seal<T: Serialize + ?Sized>(
        &self,
        value: &T,
        family: impl FnOnce() -> String,
    ) -> Option<Bytes> {
        match self.encode(value) {
            Ok(Some(sealed)) => Some(sealed),
            Ok(None) => {
                self.too_large(&family());
                None
            }
            Err(error) => {
                let complaints = &self.core.complaints;
                complaints.unkept(&family(), "codec", &error.to_string());
                None
            }
        }
    }

    /// As [`seal`](Self::seal), but the caller gets the error of the codec; `None`: the value is too large.
    pub(crate) fn try_seal<T: Serialize + ?Sized>(
        &self,
        value: &T,
        family: impl FnOnce() -> String,
    ) -> Result<Option<Bytes>> {
        let sealed = self.encode(value)?;
        if sealed.is_none() {
            self.too_large(&family());
        }
        Ok(sealed)
    }

    fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Option<Bytes>> {
        let mut buffer = self.core.envelope.begin();
        self.codec.encode(value, &mut buffer)?;
        Ok(self.core.envelope.seal(buffer))
    }

    /// The envelope of bytes that no codec has written; `None` if they are too many.
    pub(crate) fn seal_raw(&self, bytes: &[u8], family: impl FnOnce() -> String) -> Option<Bytes> {
        let mut buffer = self.core.envelope.begin_raw();
        buffer.extend_from_slice(bytes);
        let sealed = self.core.envelope.seal(buffer);
        if sealed.is_none() {
            self.too_large(&family());
        }
        sealed
    }

    fn too_large(&self, family: &str) {
        let max = self.core.envelope.value_bytes_max;
        let why = format!("they are larger than {max} bytes, see Builder::value_bytes_max");
        self.core.complaints.unkept(family, "too_large", &why);
    }

    /// The bytes that were [sealed](Self::seal_raw).
    pub(crate) fn open_raw(&self, sealed: &Bytes) -> Option<Bytes> {
        match self.core.envelope.open_raw(sealed) {
            Ok(Payload::Value(bytes)) => Some(bytes),
            Ok(Payload::Absent) => None,
            Err(reason) => {
                telemetry::unreadable(reason.label());
                None
            }
        }
    }

    /// The value in these bytes; `None`, and counted, if they cannot be read.
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
    /// For callers that do not tell a stored absence from a miss.
    pub(crate) fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent => None,
        }
    }
}
