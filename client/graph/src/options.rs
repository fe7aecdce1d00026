//! The options of a query, with Medusa's names and meaning.

use std::time::Duration;

use mcache::{Policy, Target};

/// Options of a query beside what it asks for.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GraphOptions {
    /// Whether and how to cache the result. Default: not at all.
    pub cache: CacheOptions,
    /// The language the resolver should answer in. Part of the key.
    pub locale: Option<String>,
    /// Fail with [`GraphError::NotFound`](super::GraphError::NotFound) if a row that the filters
    /// name by id does not exist. Default false.
    pub throw_if_key_not_found: bool,
}

impl GraphOptions {
    /// The default options with caching enabled: `cache: { enable: true }`.
    pub fn cached() -> Self {
        Self::default().cache(CacheOptions::enabled())
    }

    /// Sets how to cache.
    #[must_use]
    pub fn cache(mut self, cache: CacheOptions) -> Self {
        self.cache = cache;
        self
    }

    /// Sets the language.
    #[must_use]
    pub fn locale(mut self, locale: impl Into<String>) -> Self {
        self.locale = Some(locale.into());
        self
    }

    /// Sets whether a missing id is an error.
    #[must_use]
    pub fn throw_if_key_not_found(mut self, throw: bool) -> Self {
        self.throw_if_key_not_found = throw;
        self
    }
}

/// `cache: { … }` of a query.
///
/// Caching is on if [`enable`](Self::enable) is true or any other option is given (in the sense of
/// JavaScript's truth, as in Medusa: a zero `ttl`, an empty `key` and a `false` do not count); an
/// `enable` of false wins over everything.
///
/// ```
/// use std::time::Duration;
/// use mcache_graph::CacheOptions;
///
/// assert!(CacheOptions::default().ttl(Duration::from_secs(60)).is_enabled());
/// assert!(!CacheOptions::default().auto_invalidate(false).is_enabled());
/// assert!(!CacheOptions::default().key("k").enable(false).is_enabled());
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CacheOptions {
    /// Whether to cache. Default: if any other option is given.
    pub enable: Option<bool>,
    /// The key, instead of [one computed from the query](super::compute_key).
    pub key: Option<String>,
    /// How long to keep the result. Zero: without end. Default: the cache's.
    pub ttl: Option<Duration>,
    /// How long after its time to live, or after a soft invalidation, the result may still be served while it is loaded
    /// anew in the background. Not one of Medusa's. Default: not at all.
    pub swr: Option<Duration>,
    /// Serve a stale result if the resolver fails; see [`Entry::stale_if_error`](mcache::Entry::stale_if_error). Not
    /// one of Medusa's. Default false.
    pub stale_if_error: Option<bool>,
    /// How long a load takes, to load the result anew in the background shortly before it expires; see
    /// [`Entry::early_refresh`](mcache::Entry::early_refresh). Not one of Medusa's. Default: not at all.
    pub early_refresh: Option<Duration>,
    /// Tags to use *instead of* those computed from the result. Changes of data clear the entry
    /// only if these follow the convention `Entity:id`, `Entity:list:*`.
    pub tags: Option<Vec<String>>,
    /// With `tags`: use the computed ones too. Default false.
    pub compute_automatic_tags: Option<bool>,
    /// Whether changes of data clear the entry. Default true.
    pub auto_invalidate: Option<bool>,
    /// The providers to read from (the first that has it wins) and to write to (all, in order).
    /// Default: the cache's.
    pub providers: Option<Vec<Target>>,
}

impl CacheOptions {
    /// `{ enable: true }`.
    pub fn enabled() -> Self {
        Self::default().enable(true)
    }

    /// Sets whether to cache.
    #[must_use]
    pub fn enable(mut self, enable: bool) -> Self {
        self.enable = Some(enable);
        self
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets how long to keep the result.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets how long the result may be served stale while it is loaded anew in the background.
    #[must_use]
    pub fn swr(mut self, window: Duration) -> Self {
        self.swr = Some(window);
        self
    }

    /// Sets whether a stale result is served if the resolver fails.
    #[must_use]
    pub fn stale_if_error(mut self, stale_if_error: bool) -> Self {
        self.stale_if_error = Some(stale_if_error);
        self
    }

    /// Sets how long a load takes, to load the result anew in the background shortly before it expires.
    #[must_use]
    pub fn early_refresh(mut self, load: Duration) -> Self {
        self.early_refresh = Some(load);
        self
    }

    /// Sets the tags to use instead of computed ones.
    #[must_use]
    pub fn tags<S: Into<String>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.tags = Some(tags.into_iter().map(Into::into).collect());
        self
    }

    /// Sets whether computed tags are used beside given ones.
    #[must_use]
    pub fn compute_automatic_tags(mut self, compute: bool) -> Self {
        self.compute_automatic_tags = Some(compute);
        self
    }

    /// Sets whether changes of data clear the entry.
    #[must_use]
    pub fn auto_invalidate(mut self, auto: bool) -> Self {
        self.auto_invalidate = Some(auto);
        self
    }

    /// Sets the providers.
    #[must_use]
    pub fn providers<T: Into<Target>>(mut self, providers: impl IntoIterator<Item = T>) -> Self {
        self.providers = Some(providers.into_iter().map(Into::into).collect());
        self
    }

    /// Whether these options ask for caching.
    pub fn is_enabled(&self) -> bool {
        self.enable.unwrap_or_else(|| {
            self.key.as_ref().is_some_and(|key| !key.is_empty())
                || self.ttl.is_some_and(|ttl| !ttl.is_zero())
                || self.refreshes_in_background()
                || self.stale_if_error == Some(true)
                || self.tags.is_some()
                || self.compute_automatic_tags == Some(true)
                || self.auto_invalidate == Some(true)
                || self.providers.is_some()
        })
    }

    /// Whether tags are to be computed from query and result.
    pub fn computes_tags(&self) -> bool {
        self.tags.is_none() || self.compute_automatic_tags == Some(true)
    }

    /// Whether the entry is to be spared by automatic invalidation.
    pub fn is_manual(&self) -> bool {
        self.auto_invalidate == Some(false)
    }

    /// Whether a result may be loaded anew while another is served.
    pub(super) fn refreshes_in_background(&self) -> bool {
        let given = |duration: Option<Duration>| duration.is_some_and(|it| !it.is_zero());
        given(self.swr) || given(self.early_refresh)
    }

    /// The key, if one is given.
    pub(super) fn given_key(&self) -> Option<&str> {
        self.key.as_deref().filter(|key| !key.is_empty())
    }

    /// The same in terms of the cache.
    pub(super) fn policy(&self) -> Policy {
        let mut policy = Policy::new()
            .tags(self.tags.iter().flatten())
            .manual(self.is_manual())
            .stale_if_error(self.stale_if_error == Some(true))
            .swr(self.swr.unwrap_or_default())
            .early_refresh(self.early_refresh.unwrap_or_default())
            .providers(self.providers.iter().flatten().cloned());
        if let Some(ttl) = self.ttl {
            policy = policy.ttl(ttl);
        }
        policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> CacheOptions {
        CacheOptions::default()
    }

    #[test]
    fn any_truthy_option_enables_and_enable_false_wins() {
        assert!(!options().is_enabled());
        let truthy = [
            options().enable(true),
            options().key("k"),
            options().ttl(Duration::from_secs(1)),
            options().tags(Vec::<String>::new()),
            options().compute_automatic_tags(true),
            options().auto_invalidate(true),
            options().providers(Vec::<String>::new()),
            options().swr(Duration::from_secs(1)),
            options().early_refresh(Duration::from_secs(1)),
            options().stale_if_error(true),
        ];
        for given in truthy {
            assert!(given.is_enabled(), "{given:?}");
            assert!(!given.clone().enable(false).is_enabled(), "{given:?}");
        }
        let falsy = [
            options().key(""),
            options().ttl(Duration::ZERO),
            options().compute_automatic_tags(false),
            options().auto_invalidate(false),
            options().swr(Duration::ZERO),
            options().stale_if_error(false),
        ];
        for given in falsy {
            assert!(!given.is_enabled(), "{given:?}");
        }
    }

    #[test]
    fn given_tags_replace_computed_ones_unless_both_are_asked_for() {
        assert!(options().computes_tags());
        assert!(options().compute_automatic_tags(false).computes_tags());
        assert!(!options().tags(["a"]).computes_tags());
        assert!(
            options()
                .tags(["a"])
                .compute_automatic_tags(true)
                .computes_tags()
        );
    }
}
