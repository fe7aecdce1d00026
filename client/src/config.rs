//! The builder: every option, its default, and the order in which they are read.

use std::{sync::Arc, time::Duration};

use crate::{
    Cache, Codec, Json, Provider, Result,
    cache::{Core, Defaults},
    envelope::Envelope,
    tags::Namespace,
};

/// Turns caching on where the builder does not say: the same variable Medusa uses.
const FLAG_VARIABLE: &str = "MEDUSA_FF_CACHING";

/// Configures a [`Cache`]. Every option has a default; only where the cache lives must be said.
#[derive(Clone)]
pub struct Builder<C = Json> {
    url: Option<String>,
    providers: Vec<Arc<dyn Provider>>,
    codec: C,
    namespace: String,
    caching: Option<bool>,
    ttl: Duration,
    loader_timeout: Duration,
    compress_from_bytes: Option<usize>,
    schema_version: u16,
    value_bytes_max: usize,
}

impl Builder<Json> {
    pub(crate) fn new(url: Option<String>) -> Self {
        Self {
            url,
            providers: Vec::new(),
            codec: Json,
            namespace: "mc".to_owned(),
            caching: None,
            ttl: Duration::from_secs(60 * 60),
            loader_timeout: Duration::from_secs(30),
            compress_from_bytes: Some(2048),
            schema_version: 0,
            value_bytes_max: 64 * 1024 * 1024,
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

    /// Put before every key and tag as `<namespace>:`, so that environments sharing a server do not see each
    /// other. Default: `mc`. Empty: no prefix.
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

    /// How long a loader may keep others waiting for the same key. Default: 30 seconds.
    ///
    /// A loader that takes longer is not cancelled: its own caller still gets its result. But the lease ends,
    /// and whoever waited loads for itself.
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

    /// The version of the caller's types. Default: 0. Entries written under another version read as misses,
    /// so a deployment that changes a type raises it instead of clearing the cache.
    #[must_use]
    pub fn schema_version(mut self, version: u16) -> Self {
        self.schema_version = version;
        self
    }

    /// Larger values are served but not kept. Default: 64 MiB.
    #[must_use]
    pub fn value_bytes_max(mut self, bytes: usize) -> Self {
        self.value_bytes_max = bytes;
        self
    }

    /// How values become bytes. Default: [`Json`].
    #[must_use]
    pub fn codec<D: Codec>(self, codec: D) -> Builder<D> {
        Builder {
            url: self.url,
            providers: self.providers,
            codec,
            namespace: self.namespace,
            caching: self.caching,
            ttl: self.ttl,
            loader_timeout: self.loader_timeout,
            compress_from_bytes: self.compress_from_bytes,
            schema_version: self.schema_version,
            value_bytes_max: self.value_bytes_max,
        }
    }

    /// Builds the cache and, if caching is on, connects. A server that cannot be reached is a warning, not an
    /// error: the cache starts as one that is down, and recovers by itself.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the address or the providers cannot work.
    pub async fn build(self) -> Result<Cache<C>> {
        let enabled = self.caching.unwrap_or_else(flag_from_environment);
        let core = Core {
            enabled,
            namespace: Namespace::new(&self.namespace),
            envelope: Envelope {
                codec: C::ID,
                schema: self.schema_version,
                compress_from_bytes: self.compress_from_bytes,
                value_bytes_max: self.value_bytes_max,
            },
            defaults: Defaults {
                ttl: self.ttl,
                loader_timeout: self.loader_timeout,
            },
            providers: self.providers,
        };
        Ok(Cache::from_core(core, self.codec))
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
