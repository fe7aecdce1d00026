//! How an entry is to be kept: what the builders of one key and of several have in common.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{Loaded, Tags};

/// How entries are to be kept, said once and used for many: [`Entry`](crate::Entry) and [`Batch`](crate::Batch) take
/// one over with `policy`, and have the same setters.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use mcache::{Cache, MemoryProvider, Policy};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// let pages = Policy::new().ttl(Duration::from_secs(60)).swr(Duration::from_secs(600)).tags(["page"]);
/// cache.key("page:home").policy(pages.clone()).set("<h1>home</h1>").await?;
/// cache.key("page:about").policy(pages).set("<h1>about</h1>").await?;
/// assert_eq!(cache.invalidate(["page"]).await?.entries(), 2);
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a policy says how to keep entries; hand it to an entry or a batch"]
pub struct Policy {
    pub(crate) tags: Tags,
    pub(crate) ttl: Option<Duration>,
    pub(crate) swr: Duration,
    pub(crate) manual: bool,
    pub(crate) stale_if_error: bool,
    pub(crate) early: Duration,
    pub(crate) negative_ttl: Option<Duration>,
    pub(crate) targets: Vec<Target>,
    pub(crate) family: Option<Arc<str>>,
    pub(crate) bypass_near: bool,
}

/// A provider chosen for one operation, optionally with its own time to live.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use mcache::Target;
///
/// let _default_ttl = Target::from("redis");
/// let _own_ttl = Target::from(("memory", Duration::from_secs(5)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(crate) id: String,
    pub(crate) ttl: Option<Duration>,
}

impl From<&str> for Target {
    fn from(id: &str) -> Self {
        id.to_owned().into()
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

/// What is decided about a value once it is loaded.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// The entry's own and those of the loader.
    pub(crate) tags: Tags,
    /// `None`: the cache's default. Zero: no expiry.
    pub(crate) ttl: Option<Duration>,
    pub(crate) swr: Duration,
    pub(crate) manual: bool,
    /// When the entry ends at the latest.
    pub(crate) until: Option<Instant>,
    pub(crate) keep: bool,
    pub(crate) family: Option<Arc<str>>,
    /// How long a fill takes, for who refreshes early.
    pub(crate) early: Duration,
}

impl Terms {
    /// Time to live and stale window, ended where the value ends.
    pub(crate) fn ended(
        &self,
        ttl: Option<Duration>,
        swr: Duration,
    ) -> (Option<Duration>, Duration) {
        let Some(until) = self.until else {
            return (ttl, swr);
        };
        let left = until.saturating_duration_since(Instant::now());
        // Zero would mean for ever.
        let left = left.max(Duration::from_millis(1));
        (Some(ttl.map_or(left, |ttl| ttl.min(left))), Duration::ZERO)
    }
}

impl Policy {
    /// The defaults: the cache's time to live, no tags, nothing stale.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn family_label(&self) -> Option<&Arc<str>> {
        self.family.as_ref()
    }

    /// The terms for what a loader returned.
    pub(crate) fn terms<T>(&self, loaded: &Loaded<T>) -> Terms {
        let mut tags = self.tags.clone();
        tags.extend(&loaded.tags);
        Terms {
            tags,
            ttl: loaded.ttl.or(self.ttl),
            until: loaded.until,
            keep: loaded.keep && loaded.until.is_none_or(|until| until > Instant::now()),
            ..self.bare_terms()
        }
    }

    /// The terms for a value of which nothing more was said.
    pub(crate) fn bare_terms(&self) -> Terms {
        Terms {
            tags: self.tags.clone(),
            ttl: self.ttl,
            swr: self.swr,
            manual: self.manual,
            until: None,
            keep: true,
            family: self.family.clone(),
            early: self.early,
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

/// The setters of [`Policy`], on itself and on the builders that hold one: `$field` leads from `self` to it.
macro_rules! policy_setters {
    ($($field:ident)?) => {
        /// How long an entry is live. Default: the cache's. Zero: no expiry. At most
        /// 10,000 years; longer is as long.
        pub fn ttl(mut self, ttl: Duration) -> Self {
            self$(.$field)?.ttl = Some(ttl);
            self
        }

        /// Stale-while-revalidate: how long after its time to live, or after a
        /// [soft invalidation](crate::Cache::soft_invalidate), an entry may still be served while one caller refreshes
        /// it. Default: zero. An entry that never expires has no such window. At most 49 days; longer is as long.
        pub fn swr(mut self, window: Duration) -> Self {
            self$(.$field)?.swr = window;
            self
        }

        /// Early refresh: shortly before an entry expires one of its readers loads it anew while the others are still
        /// served, so that a key under load never expires. That reader is drawn by lot, the likelier the nearer the end
        /// (XFetch); `load` is how long a load takes, more refreshes earlier. If that load fails, its caller gets the
        /// value that is still live. Default: zero, never.
        pub fn early_refresh(mut self, load: Duration) -> Self {
            self$(.$field)?.early = load;
            self
        }

        /// If the source fails, or takes longer than the [loader timeout](crate::Builder::loader_timeout), while a
        /// stale value is at hand, serves that. There is one only within the [stale window](Self::swr). Default: no,
        /// the loader's error is the answer.
        pub fn stale_if_error(mut self, stale_if_error: bool) -> Self {
            self$(.$field)?.stale_if_error = stale_if_error;
            self
        }

        /// Adds tags.
        pub fn tags<I>(mut self, tags: I) -> Self
        where
            I: IntoIterator,
            I::Item: AsRef<[u8]>,
        {
            self$(.$field)?.tags.extend(tags);
            self
        }

        /// Automatic invalidation ([`Cache::invalidate_auto`](crate::Cache::invalidate_auto)) spares the entry.
        /// Default: it does not.
        pub fn manual(mut self, manual: bool) -> Self {
            self$(.$field)?.manual = manual;
            self
        }

        /// Keeps "there is nothing" for this long, where the loader can say so. Default: it is not kept, and the
        /// source is asked again each time.
        pub fn negative_ttl(mut self, ttl: Duration) -> Self {
            self$(.$field)?.negative_ttl = Some(ttl);
            self
        }

        /// What keys of this kind are called together, in metrics and in the log: `product`, not `product:42`. Default:
        /// no label; in the log what is before the first colon of the key. Use a bounded number of them.
        pub fn family(mut self, family: impl Into<std::sync::Arc<str>>) -> Self {
            self$(.$field)?.family = Some(family.into());
            self
        }

        /// Asks the server although the [near cache](crate::Builder::near) has the value, and puts nothing away.
        /// Default: no. What is read within a loader asks the server by itself; in tasks that the loader spawns, and
        /// between [`Entry::begin`](crate::Entry::begin) and what is stored then, this has to be said.
        pub fn bypass_near(mut self) -> Self {
            self$(.$field)?.bypass_near = true;
            self
        }

        /// The providers to use, in order, instead of all of them; each optionally with its own time to live, which
        /// then wins.
        pub fn providers<I>(mut self, providers: I) -> Self
        where
            I: IntoIterator,
            I::Item: Into<$crate::Target>,
        {
            self$(.$field)?.targets = providers.into_iter().map(Into::into).collect();
            self
        }
    };
}

impl Policy {
    policy_setters!();
}

pub(crate) use policy_setters;
