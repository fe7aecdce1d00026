//! What loaders may say about a value, and what callers may learn about where it came from.

use std::time::Duration;

use tokio::time::Instant;

use crate::Tags;

/// A loaded value together with what only the loader can know: the tags of what it was made from, and whether
/// and how long it is worth keeping.
///
/// ```
/// use mcache::Loaded;
///
/// let loaded = Loaded::new(vec!["a", "b"]).tags(["Product:1", "Product:2"]);
/// assert_eq!(loaded.value.len(), 2);
/// ```
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The value.
    pub value: T,
    pub(crate) tags: Tags,
    pub(crate) ttl: Option<Duration>,
    pub(crate) until: Option<Instant>,
    pub(crate) keep: bool,
}

impl<T> Loaded<T> {
    /// A value without tags of its own; those of the entry still apply.
    pub fn new(value: T) -> Self {
        Self {
            value,
            tags: Tags::new(),
            ttl: None,
            until: None,
            keep: true,
        }
    }

    /// Adds tags to those of the entry.
    #[must_use]
    pub fn tags<I>(mut self, tags: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        self.tags.extend(tags);
        self
    }

    /// Overrides the entry's time to live. Zero: no expiry.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Ends the entry at this moment at the latest, even if its time to live is longer, and does not serve it stale
    /// afterwards: for a value that changes without a write, like the prices of a list that starts tomorrow. Said
    /// again, the earlier counts.
    ///
    /// The moment is by the clock of this process; one that is past means that the value is not kept.
    #[must_use]
    pub fn valid_until(mut self, moment: Instant) -> Self {
        self.until = Some(self.until.map_or(moment, |until| until.min(moment)));
        self
    }

    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Loaded<U> {
        Loaded {
            value: change(self.value),
            tags: self.tags,
            ttl: self.ttl,
            until: self.until,
            keep: self.keep,
        }
    }

    /// Returns the value to the caller without keeping it.
    #[must_use]
    pub fn uncached(mut self) -> Self {
        self.keep = false;
        self
    }
}

impl<T> From<T> for Loaded<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

/// A value and where it came from.
///
/// ```
/// # use mcache::{Cache, Error, Loaded, MemoryProvider, Source};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// let load = || async { Ok::<_, Error>(Loaded::new(42)) };
/// let first = cache.key("k").load(load).await?;
/// let second = cache.key("k").load(load).await?;
/// assert_eq!((first.value, first.source), (42, Source::Loaded));
/// assert_eq!((second.value, second.source), (42, Source::Hit));
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Served<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub source: Source,
}

impl<T> Served<T> {
    /// The same, of something made from the value.
    #[must_use]
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Served<U> {
        Served {
            value: change(self.value),
            source: self.source,
        }
    }

    /// A value that no cache was asked for.
    pub fn bypass(value: T) -> Self {
        Self {
            value,
            source: Source::Bypass,
        }
    }
}

/// Where a value came from.
///
/// ```
/// use mcache::Source;
///
/// assert_eq!(Source::Hit.as_str(), "hit");
/// assert_eq!(Source::Loaded.as_str(), "miss");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The cache held it.
    Hit,
    /// The [near cache](crate::Builder::near) of this process held it: no server was asked.
    Near,
    /// The cache held it past its time to live; another caller refreshes it, or the source failed and the caller
    /// asked for [`stale_if_error`](crate::Entry::stale_if_error).
    Stale,
    /// This caller's loader made it.
    Loaded,
    /// Another caller of this process was loading it; its result was shared.
    Joined,
    /// Caching is off or the cache is away: the loader was called without it.
    Bypass,
}

impl Source {
    /// Lower-case name, for headers, logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Near => "near",
            Self::Stale => "stale",
            Self::Loaded => "miss",
            Self::Joined => "joined",
            Self::Bypass => "bypass",
        }
    }
}
