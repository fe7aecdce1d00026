//! How an entry is to be kept: what the builders of one key and of several have in common.

use std::time::Duration;

use crate::{Loaded, Tags, entry::Target};

#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) tags: Tags,
    pub(crate) ttl: Option<Duration>,
    pub(crate) swr: Duration,
    pub(crate) manual: bool,
    pub(crate) stale_if_error: bool,
    pub(crate) early: Duration,
    pub(crate) negative_ttl: Option<Duration>,
    pub(crate) targets: Vec<Target>,
}

/// What is decided about a value once it is loaded.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// The entry's own and those of the loader.
    pub(crate) tags: Tags,
    /// `None`: the cache's default. Zero: no expiry.
    pub(crate) ttl: Option<Duration>,
    pub(crate) swr: Duration,
    pub(crate) manual: bool,
    pub(crate) keep: bool,
}

impl Policy {
    /// The terms for what a loader returned.
    pub(crate) fn terms<T>(&self, loaded: &Loaded<T>) -> Terms {
        let mut tags = self.tags.clone();
        tags.extend(&loaded.tags);
        Terms {
            tags,
            ttl: loaded.ttl.or(self.ttl),
            keep: loaded.keep,
            ..self.bare_terms()
        }
    }

    /// The terms for a value nobody said more about.
    pub(crate) fn bare_terms(&self) -> Terms {
        Terms {
            tags: self.tags.clone(),
            ttl: self.ttl,
            swr: self.swr,
            manual: self.manual,
            keep: true,
        }
    }

    /// The terms for "there is nothing".
    pub(crate) fn negative_terms<T>(&self, loaded: &Loaded<T>) -> Terms {
        let terms = self.terms(loaded);
        Terms {
            keep: terms.keep && self.negative_ttl.is_some(),
            ttl: self.negative_ttl,
            // What is not there is not worth serving stale.
            swr: Duration::ZERO,
            ..terms
        }
    }
}

/// The setters of [`Policy`] on a builder with a field `policy`.
macro_rules! policy_setters {
    () => {
        /// Takes over what was decided elsewhere.
        pub(crate) fn policy(mut self, policy: Policy) -> Self {
            self.policy = policy;
            self
        }

        /// How long an entry is live. Default: the cache's. Zero: no expiry.
        pub fn ttl(mut self, ttl: Duration) -> Self {
            self.policy.ttl = Some(ttl);
            self
        }

        /// Stale-while-revalidate: how long after its time to live, or after a
        /// [soft invalidation](Cache::soft_invalidate), an entry may still be served while one caller refreshes it.
        /// Default: zero. An entry that never expires has no such window.
        pub fn swr(mut self, window: Duration) -> Self {
            self.policy.swr = window;
            self
        }

        /// Early refresh: shortly before an entry expires one of its readers loads it anew while the others are still
        /// served, so that a key under load never expires. Who does is drawn by lot, the likelier the nearer the end
        /// (XFetch); `load` is how long a load takes, more refreshes earlier. If that load fails, its caller gets the
        /// value that is still live. Default: zero, never.
        pub fn early_refresh(mut self, load: Duration) -> Self {
            self.policy.early = load;
            self
        }

        /// Adds tags.
        pub fn tags<I>(mut self, tags: I) -> Self
        where
            I: IntoIterator,
            I::Item: AsRef<[u8]>,
        {
            self.policy.tags.extend(tags);
            self
        }

        /// Automatic invalidation ([`Cache::invalidate_auto`]) spares the entry. Default: it does not.
        pub fn manual(mut self, manual: bool) -> Self {
            self.policy.manual = manual;
            self
        }

        /// Keeps "there is nothing" for this long, where the loader can say so. Default: it is not kept, and the
        /// source is asked again each time.
        pub fn negative_ttl(mut self, ttl: Duration) -> Self {
            self.policy.negative_ttl = Some(ttl);
            self
        }

        /// The providers to use, in order, instead of all of them; each optionally with its own time to live, which
        /// then wins.
        pub fn providers<I>(mut self, providers: I) -> Self
        where
            I: IntoIterator,
            I::Item: Into<Target>,
        {
            self.policy.targets = providers.into_iter().map(Into::into).collect();
            self
        }
    };
}

pub(crate) use policy_setters;
