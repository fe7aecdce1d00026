//! The builder: every option, its default, and the order in which they are read.

use std::{collections::HashSet, fmt, sync::Arc, time::Duration};

use futures_util::future::join_all;

use crate::{
    Cache, Codec, Error, ErrorKind, Json, Provider, RedisProvider, Result,
    background::Background,
    complaints::Complaints,
    core::{Chosen, Core},
    envelope::Envelope,
    flight::Flights,
    near::{Near, NearOptions},
    pending::{Pending, PendingLimits},
    server::RedisOptions,
    tags::Namespace,
    throttle::Throttle,
};

/// Turns caching on where the builder does not say: the same variable Medusa uses.
const FLAG_VARIABLE: &str = "MEDUSA_FF_CACHING";

/// Configures a [`Cache`]. Every option has a default; only where the cache lives must be said.
///
/// ```
/// # use std::time::Duration;
/// # use mcache::{Cache, MemoryProvider};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let cache = Cache::builder_with(MemoryProvider::default())
///     .namespace("store-eu")
///     .caching(true)
///     .ttl(Duration::from_secs(600))
///     .ttl_jitter(0.1)
///     .build()
///     .await?;
/// assert!(cache.is_enabled());
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Builder<C = Json> {
    url: Option<String>,
    redis: RedisOptions,
    providers: Vec<Arc<dyn Provider>>,
    codec: C,
    namespace: String,
    caching: Option<bool>,
    ttl: Duration,
    loader_timeout: Duration,
    compress_from_bytes: Option<usize>,
    schema_version: u16,
    value_bytes_max: usize,
    pending_max: usize,
    pending_bytes_max: usize,
    failure_pause: Duration,
    ttl_jitter: f64,
    retry_min: Duration,
    near: Option<NearOptions>,
    settles: bool,
}

impl Builder<Json> {
    pub(crate) fn new(url: Option<String>) -> Self {
        Self {
            url,
            redis: RedisOptions::default(),
            providers: Vec::new(),
            codec: Json,
            namespace: "mc".to_owned(),
            caching: None,
            ttl: Duration::from_secs(60 * 60),
            loader_timeout: Duration::from_secs(30),
            compress_from_bytes: Some(2048),
            schema_version: 0,
            value_bytes_max: 1024 * 1024,
            pending_max: 10_000,
            pending_bytes_max: 4 * 1024 * 1024,
            failure_pause: Duration::from_secs(1),
            ttl_jitter: 0.0,
            retry_min: Duration::from_secs(24 * 60 * 60),
            near: None,
            settles: true,
        }
    }
}

impl<C: Codec> Builder<C> {
    /// Adds a provider after those already there. Reads ask providers in order, writes go to all of them;
    /// the first is the default. With an address given to [`Cache::builder`], that server is the first.
    #[must_use]
    pub fn provider(mut self, provider: impl Provider) -> Self {
        self.providers.push(Arc::new(provider));
        self
    }

    /// Put before every key and tag as `<namespace>:`, so that environments sharing a server do not see each other,
    /// however keys and tags are spelled: colons and percent signs in the name itself are written as `%3A` and `%25`.
    /// Default: `mc`.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Whether to cache at all. Off means straight through: loaders are called, nothing is contacted.
    /// Default: the environment variable `MEDUSA_FF_CACHING` (`true`, `1`, `yes` or `on`), otherwise off.
    #[must_use]
    pub fn caching(mut self, caching: bool) -> Self {
        self.caching = Some(caching);
        self
    }

    /// How long entries live that do not say so themselves. Default: one hour. Zero: no expiry.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long a loader may keep the others from loading the same key. Default: 30 seconds.
    ///
    /// A loader that takes longer is not cancelled: its own caller still gets its result. But its lease ends, and the
    /// next in line loads. After twice this time those who wait in a process wait for no other: one of them loads.
    /// Within a loader that is so after a quarter of it: the other process may wait for what is loaded here.
    #[must_use]
    pub fn loader_timeout(mut self, timeout: Duration) -> Self {
        self.loader_timeout = timeout;
        self
    }

    /// Values of at least this many encoded bytes are compressed. Default: 2,048. `None`: never.
    #[must_use]
    pub fn compress_from_bytes(mut self, threshold: Option<usize>) -> Self {
        self.compress_from_bytes = threshold;
        self
    }

    /// The version of the caller's types. Default: 0. A release that changes a type raises it instead of clearing the
    /// cache. Each version has entries of its own, so two releases that run side by side do not overwrite each other's;
    /// tags are the same, so an invalidation by either concerns both. [`Cache::clear`] removes the entry of its own
    /// version.
    #[must_use]
    pub fn schema_version(mut self, version: u16) -> Self {
        self.schema_version = version;
        self
    }

    /// Larger values are served but not kept, which is said once for each [family](crate::Entry::family) of keys.
    /// Default: 1 MiB. Large values hold up others on the way: from 64 KiB on they travel on a connection of their own,
    /// as far as their size is known beforehand.
    #[must_use]
    pub fn value_bytes_max(mut self, bytes: usize) -> Self {
        self.value_bytes_max = bytes;
        self
    }

    /// By what part of it, at most, the time to live of an entry is shortened: drawn anew for each, so that what was
    /// stored together does not expire together. Default: 0. From 0 to 1; 0.1 makes an hour 54 to 60 minutes.
    #[must_use]
    pub fn ttl_jitter(mut self, part: f64) -> Self {
        self.ttl_jitter = if part.is_nan() {
            0.0
        } else {
            part.clamp(0.0, 1.0)
        };
        self
    }

    /// After a loader failed or took too long while a stale value was at hand: how long that value is served before the
    /// source is asked again, by one caller. Default: 1 second. Zero: it is asked again at once.
    #[must_use]
    pub fn failure_pause(mut self, pause: Duration) -> Self {
        self.failure_pause = pause;
        self
    }

    /// How values become bytes. Default: [`Json`].
    #[must_use]
    pub fn codec<D: Codec>(self, codec: D) -> Builder<D> {
        Builder {
            url: self.url,
            redis: self.redis,
            providers: self.providers,
            codec,
            namespace: self.namespace,
            caching: self.caching,
            ttl: self.ttl,
            loader_timeout: self.loader_timeout,
            compress_from_bytes: self.compress_from_bytes,
            schema_version: self.schema_version,
            value_bytes_max: self.value_bytes_max,
            pending_max: self.pending_max,
            pending_bytes_max: self.pending_bytes_max,
            failure_pause: self.failure_pause,
            ttl_jitter: self.ttl_jitter,
            retry_min: self.retry_min,
            near: self.near,
            settles: self.settles,
        }
    }

    /// Keeps values in this process as well, in front of every provider that has a feed: those on Redis. Default: off.
    ///
    /// A hit then costs a fraction of a microsecond instead of a trip to the server, and nothing is given up for it:
    /// once an invalidation of any process is [settled](crate::Invalidation::is_settled), no caller is served from here
    /// what it concerns. That holds while this process is stopped or cut off as well, because it serves under a lease
    /// that it has to renew.
    ///
    /// The server must have `mcache.feed yes`; while it has not, nothing is kept, the log says so once, and
    /// [`Cache::near_stats`] names the reason. [`Entry::get_arc`](crate::Entry::get_arc) and
    /// [`Entry::get_or_load_arc`](crate::Entry::get_or_load_arc) share decoded values without a copy. See
    /// `docs/near.md`.
    ///
    /// ```no_run
    /// # use mcache::{Cache, NearOptions};
    /// # async fn example() -> mcache::Result<()> {
    /// let cache = Cache::builder("redis://127.0.0.1:6379")
    ///     .caching(true)
    ///     .near(NearOptions::new().bytes(128 << 20))
    ///     .build()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn near(mut self, options: NearOptions) -> Self {
        self.near = Some(options);
        self
    }

    /// Whether `invalidate`, its variants, `clear` and `clear_all` wait until no near cache of any process serves what
    /// they concern. Default: yes. It costs nothing where no process has a near cache; off, they return when the
    /// servers have acknowledged, and [`Invalidation::settled`](crate::Invalidation::settled) waits for the rest.
    #[must_use]
    pub fn settle(mut self, settle: bool) -> Self {
        self.settles = settle;
        self
    }

    /// How long one attempt to connect to the server may take: see [`RedisOptions::connect_timeout`]. Default: 2
    /// seconds.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.redis = self.redis.connect_timeout(timeout);
        self
    }

    /// How long one call to the server may take: see [`RedisOptions::command_deadline`]. Default: 500 milliseconds.
    #[must_use]
    pub fn command_deadline(mut self, deadline: Duration) -> Self {
        self.redis = self.redis.command_deadline(deadline);
        self
    }

    /// All options of the connection to the server. Replaces what was set before.
    #[must_use]
    pub fn redis(mut self, options: RedisOptions) -> Self {
        self.redis = options;
        self
    }

    /// How many unacknowledged tags and keys are remembered per provider while it is away. Default: 10,000. Beyond it
    /// they become one [`Cache::clear_all`], which includes them.
    #[must_use]
    pub fn pending_invalidations_max(mut self, count: usize) -> Self {
        self.pending_max = count.max(1);
        self
    }

    /// How many bytes the unacknowledged tags and keys of one provider may take, by the cache's own count and that of
    /// the callers that wait for them. Default: 4 MiB. Beyond it they become one [`Cache::clear_all`], as with
    /// [`pending_invalidations_max`](Self::pending_invalidations_max).
    #[must_use]
    pub fn pending_invalidations_bytes_max(mut self, bytes: usize) -> Self {
        self.pending_bytes_max = bytes;
        self
    }

    /// How long an unacknowledged invalidation is retried at least. Default: 24 hours. Longer if this cache has stored
    /// entries that live longer; without an end if some do not expire. Must not be shorter than the longest life (time
    /// to live and stale window) that any process gives to entries of the namespace.
    #[must_use]
    pub fn retry_invalidations_min(mut self, duration: Duration) -> Self {
        self.retry_min = duration;
        self
    }

    /// Builds the cache and, if caching is on, connects. A provider that cannot be reached is a warning, not an error:
    /// the cache starts as one that is down, and recovers by itself.
    ///
    /// Needs a Tokio runtime with time and I/O enabled, as do all operations.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the address or the providers cannot work.
    pub async fn build(mut self) -> Result<Cache<C>> {
        let enabled = self.caching.unwrap_or_else(flag_from_environment);
        if let Some(url) = &self.url {
            let options = self.redis.clone().client_name_if_none(&self.namespace);
            let server = RedisProvider::new(url, options)?;
            self.providers.insert(0, Arc::new(server));
        }
        check_ids(&self.providers)?;
        match enabled {
            true => warn_of_absent(&self.providers).await,
            false => tracing::info!(
                "this cache is switched off and every call goes straight through: turn it on with {FLAG_VARIABLE}=true or \
                 Builder::caching(true)"
            ),
        }
        let namespace = Namespace::new(&self.namespace, C::ID, self.schema_version);
        let background = Background::new();
        let limits = PendingLimits {
            items_max: self.pending_max,
            bytes_max: self.pending_bytes_max,
            retry_min: self.retry_min,
        };
        let near = self.near.filter(|_| enabled);
        let attach = |provider: Arc<dyn Provider>| {
            let near = near.as_ref().zip(provider.near()).map(|(options, server)| {
                Near::new(server.clone(), namespace.prefix().clone(), options)
            });
            Chosen {
                pending: Pending::new(
                    provider.clone(),
                    near.clone(),
                    &namespace,
                    limits,
                    background.clone(),
                ),
                provider,
                ttl: None,
                near,
                bypass_near: false,
            }
        };
        let providers: Vec<Chosen> = self.providers.into_iter().map(attach).collect();
        if near.is_some() {
            check_near(&providers)?;
        }
        let core = Core {
            enabled,
            envelope: Envelope {
                codec: C::ID,
                schema: self.schema_version,
                compress_from_bytes: self.compress_from_bytes,
                value_bytes_max: self.value_bytes_max,
            },
            ttl: self.ttl,
            loader_timeout: self.loader_timeout,
            providers,
            flights: Flights::new(),
            background,
            throttle: Throttle::new(self.failure_pause),
            complaints: Complaints::default(),
            ttl_jitter: self.ttl_jitter,
            settles: self.settles,
            namespace,
        };
        Ok(Cache::from_core(core, self.codec))
    }
}

/// Follows the feeds of those who have one.
fn check_near(providers: &[Chosen]) -> Result<()> {
    if !Near::CAN_BE {
        let what = "this system has no clock for a near cache: it must go on while the process is stopped and the machine sleeps";
        return Err(Error::new(ErrorKind::Config, what));
    }
    let mut any = false;
    for near in providers.iter().filter_map(|chosen| chosen.near.as_ref()) {
        near.follow();
        any = true;
    }
    match any {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Config,
            "a near cache needs a provider that has a feed, which tells of every invalidation: RedisProvider, on a server with the mcache module",
        )),
    }
}

fn check_ids(providers: &[Arc<dyn Provider>]) -> Result<()> {
    if providers.is_empty() {
        return Err(Error::new(ErrorKind::Config, "a cache needs a provider"));
    }
    let mut seen = HashSet::new();
    match providers
        .iter()
        .find(|provider| !seen.insert(provider.id()))
    {
        Some(twice) => Err(Error::new(
            ErrorKind::Config,
            format!("two providers are named `{}`", twice.id()),
        )),
        None => Ok(()),
    }
}

async fn warn_of_absent(providers: &[Arc<dyn Provider>]) {
    let pings = join_all(providers.iter().map(|provider| provider.ping())).await;
    for (provider, ping) in providers.iter().zip(pings) {
        if let Err(error) = ping {
            match error.kind() {
                ErrorKind::Config => tracing::error!(
                    provider = provider.id(),
                    %error,
                    "this provider cannot work as it is configured"
                ),
                ErrorKind::ModuleMissing => tracing::warn!(
                    provider = provider.id(),
                    %error,
                    "nothing will be cached: load the module mcache into the server"
                ),
                _ => tracing::warn!(
                    provider = provider.id(),
                    %error,
                    "starting without this provider; it is tried again"
                ),
            }
        }
    }
}

fn flag_from_environment() -> bool {
    std::env::var(FLAG_VARIABLE).is_ok_and(|value| is_on(&value))
}

fn is_on(value: &str) -> bool {
    ["true", "1", "yes", "on"]
        .iter()
        .any(|on| value.trim().eq_ignore_ascii_case(on))
}

/// Without the address, which may hold a password.
impl<C> fmt::Debug for Builder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("namespace", &self.namespace)
            .field("caching", &self.caching)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_on_only_for_words_that_say_so() {
        for on in ["true", "TRUE", "1", "yes", " on "] {
            assert!(is_on(on), "{on:?}");
        }
        for off in ["", "false", "0", "no", "off", "maybe"] {
            assert!(!is_on(off), "{off:?}");
        }
    }
}
