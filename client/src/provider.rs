//! What a place to keep entries must be able to do: the contract between the cache and its providers.
//!
//! Object-safe, so that a cache can hold several of different kinds. Speaks in bytes: names arrive with their
//! namespace already in front, values as the envelope. Knows nothing of types, codecs or loaders.

use std::{future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::future::try_join_all;

use crate::{Result, Tags};

/// A boxed future, so that [`Provider`] can be used as `dyn Provider`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place that keeps entries by key and finds them by tag.
///
/// The meaning of each word is the server's: once [`invalidate`](Provider::invalidate) has returned, no entry
/// whose fill began before it is served again, and a [`store`](Provider::store) with a token from before it
/// is refused. [`MemoryProvider`](crate::MemoryProvider) is the shortest complete implementation; the
/// `conformance` feature has the tests every provider must pass.
///
/// What later versions may add comes as methods with a default, and as fields and variants of types that are
/// `non_exhaustive`. Neither changes the methods that are here.
///
/// Every method keeps its own deadline and is cancel-safe: dropping the future may leave the command done or
/// not done, never half done.
///
/// ```
/// # use mcache::{MemoryProvider, Tags, provider::{Mode, Provider, Store}};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let provider = MemoryProvider::default();
/// let tags = Tags::from_iter(["eu:t"]);
/// provider.store(Store::new(b"eu:k", "value", &tags)).await?;
/// assert_eq!(provider.get(b"eu:k").await?.unwrap(), "value");
/// assert_eq!(provider.invalidate(&tags, Mode::Hard).await?, 1);
/// assert_eq!(provider.get(b"eu:k").await?, None);
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
pub trait Provider: Send + Sync + 'static {
    /// The name by which callers choose this provider.
    fn id(&self) -> &str;

    /// Where its entries are: the same for every process that shares them, another for other entries. Without
    /// credentials, since it is shown. Default: the [id](Provider::id).
    fn place(&self) -> &str {
        self.id()
    }

    /// The server whose feed a [near cache](crate::Builder::near) in front of this provider follows, and which is asked
    /// whether invalidations are settled. A provider that wraps a [`RedisProvider`](crate::RedisProvider) and changes
    /// neither keys nor values passes on its. Default: there is none, and no near cache.
    fn near(&self) -> Option<&crate::RedisProvider> {
        None
    }

    /// Whether it can be reached and do what is needed, and with what error if not. Default: it can.
    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    /// The live value of a key.
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>>;

    /// The live values of several keys, in their order. Default: [`get`](Provider::get) for each.
    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>>> {
        Box::pin(try_join_all(keys.iter().map(|key| self.get(key))))
    }

    /// The value, or the right to make it: see [`Lookup`].
    ///
    /// Given up, it leaves no lease behind: one that comes with a later answer is given back. Otherwise all other
    /// callers of the key would wait until it ends.
    fn fetch<'a>(&'a self, key: &'a [u8], options: FetchOptions) -> BoxFuture<'a, Result<Lookup>>;

    /// A token for a fill that did not begin with [`fetch`](Provider::fetch). It must be taken before the
    /// source is read.
    fn token<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Token>>;

    /// Keeps an entry, replacing value, tags and lifetime of an older one. `false`: refused, because one of
    /// the tags was invalidated after the token was handed out. Either way a lease held by the token ends.
    fn store<'a>(&'a self, entry: Store<'a>) -> BoxFuture<'a, Result<bool>>;

    /// Gives a lease back without a value, so that the next caller in line may try. `false`: the token held none.
    fn release<'a>(&'a self, key: &'a [u8], token: &'a Token) -> BoxFuture<'a, Result<bool>>;

    /// Removes one entry, with any options. `true` if there was one.
    fn clear<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<bool>>;

    /// Makes every entry dead (or stale, see [`Mode`]) that carries any of the tags. `Ok` means that every
    /// shard has acknowledged; the number is how many entries it was.
    fn invalidate<'a>(&'a self, tags: &'a Tags, mode: Mode) -> BoxFuture<'a, Result<u64>>;

    /// Whether [`invalidate`](Provider::invalidate) knows how many entries it met. `false`: it answers 0. Default: it
    /// does.
    fn counts_invalidated(&self) -> bool {
        true
    }

    /// What is known of a key, if it exists. Default: nothing is.
    fn inspect<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Inspection>>> {
        let _ = key;
        Box::pin(async { Ok(None) })
    }
}

/// What a miss hands out: opaque bytes that say when the fill began.
///
/// ```
/// # use mcache::{MemoryProvider, Tags, provider::{Mode, Provider, Store}};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let provider = MemoryProvider::default();
/// let token = provider.token(b"k").await?;
/// // Too late: what it was made from has changed since.
/// let tags = Tags::from_iter(["t"]);
/// provider.invalidate(&tags, Mode::Hard).await?;
/// assert!(!provider.store(Store::new(b"k", "old", &tags).token(&token)).await?);
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token(Bytes);

impl Token {
    /// Wraps what the provider handed out.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes as handed out.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// How to look a key up with [`Provider::fetch`].
///
/// ```
/// use std::time::Duration;
/// use mcache::provider::FetchOptions;
///
/// let options = FetchOptions::new().wait(Duration::from_secs(1));
/// assert_eq!(options.lease, None);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchOptions {
    /// How long to wait for another caller's fill. Zero (the default): answer [`Lookup::Busy`] at once.
    pub wait: Duration,
    /// How long the right to fill lasts if it is handed out. `None` (the default): as the provider is
    /// configured.
    pub lease: Option<Duration>,
    /// How long a fill takes, for [`Lookup::Early`]: the nearer the end of a live entry, measured in this, the likelier
    /// it is handed out. Zero (the default): never.
    pub early: Duration,
}

impl FetchOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`wait`](Self::wait).
    #[must_use]
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets [`lease`](Self::lease).
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Sets [`early`](Self::early).
    #[must_use]
    pub fn early(mut self, early: Duration) -> Self {
        self.early = early;
        self
    }
}

/// What a lookup found.
///
/// ```
/// # use mcache::{MemoryProvider, Tags, provider::{FetchOptions, Lookup, Provider, Store}};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let provider = MemoryProvider::default();
/// let Lookup::Miss { token } = provider.fetch(b"k", FetchOptions::new()).await? else {
///     panic!("nothing is there");
/// };
/// // A caller that comes now is told that another one is filling it.
/// assert_eq!(provider.fetch(b"k", FetchOptions::new()).await?, Lookup::Busy);
/// provider.store(Store::new(b"k", "v", &Tags::new()).token(&token)).await?;
/// assert_eq!(provider.fetch(b"k", FetchOptions::new()).await?, Lookup::Hit("v".into()));
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lookup {
    /// A live value.
    Hit(Bytes),
    /// A live value that is soon to expire, and this caller is the one who refreshes it. Only for who
    /// [asked for it](FetchOptions::early).
    Early {
        /// The value.
        value: Bytes,
        /// The right to refresh, for one caller only.
        token: Token,
    },
    /// A value past its time to live but within its stale window. With a token, this caller is the one who
    /// refreshes it.
    Stale {
        /// The value.
        value: Bytes,
        /// The right to refresh, for one caller only.
        token: Option<Token>,
    },
    /// Nothing; this caller holds the lease and should fill.
    Miss {
        /// When the fill began, to be given back with the value.
        token: Token,
    },
    /// Nothing, and another caller was still filling when the wait ended.
    Busy,
}

/// An entry to keep.
///
/// ```
/// use std::time::Duration;
/// use mcache::{MemoryProvider, Provider, Tags, provider::Store};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let tags = Tags::from_iter(["t"]);
/// let entry = Store::new(b"key", "value", &tags).ttl(Duration::from_secs(60));
/// assert!(MemoryProvider::default().store(entry).await?);
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Store<'a> {
    /// The full key.
    pub key: &'a [u8],
    /// The bytes to serve.
    pub value: Bytes,
    /// How long the entry is live. `None`: no expiry.
    pub ttl: Option<Duration>,
    /// How long after `ttl` it may be served stale while one caller refreshes it. Without a `ttl`: never.
    pub swr: Duration,
    /// The full tags.
    pub tags: &'a Tags,
    /// Spared by [`Mode::Auto`] invalidations.
    pub manual: bool,
    /// When the fill began. `None`: when this call arrives.
    pub token: Option<&'a Token>,
}

impl<'a> Store<'a> {
    /// An entry without end, stale window or token, and not manual.
    pub fn new(key: &'a [u8], value: impl Into<Bytes>, tags: &'a Tags) -> Self {
        Self {
            key,
            value: value.into(),
            ttl: None,
            swr: Duration::ZERO,
            tags,
            manual: false,
            token: None,
        }
    }

    /// Sets [`ttl`](Self::ttl).
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Sets [`swr`](Self::swr).
    #[must_use]
    pub fn swr(mut self, swr: Duration) -> Self {
        self.swr = swr;
        self
    }

    /// Sets [`manual`](Self::manual).
    #[must_use]
    pub fn manual(mut self, manual: bool) -> Self {
        self.manual = manual;
        self
    }

    /// Sets [`token`](Self::token).
    #[must_use]
    pub fn token(mut self, token: &'a Token) -> Self {
        self.token = Some(token);
        self
    }
}

/// How far an invalidation goes.
///
/// ```
/// use mcache::provider::Mode;
///
/// assert_eq!(Mode::Auto.strongest(Mode::Soft), Mode::Hard);
/// assert!(Mode::AutoSoft.is_auto() && Mode::AutoSoft.is_soft());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// Every entry with the tag is dead. The default.
    #[default]
    Hard,
    /// As `Hard`, but entries stored as manual are spared. What automatic invalidation uses.
    Auto,
    /// Entries become stale instead of dead: served within their stale window while one caller refreshes.
    Soft,
    /// As `Soft`, sparing manual entries.
    AutoSoft,
}

impl Mode {
    /// Spares manual entries.
    pub fn is_auto(self) -> bool {
        matches!(self, Self::Auto | Self::AutoSoft)
    }

    /// Makes stale instead of dead.
    pub fn is_soft(self) -> bool {
        matches!(self, Self::Soft | Self::AutoSoft)
    }

    /// The mildest mode that does everything either of the two would do.
    #[must_use]
    pub fn strongest(self, other: Self) -> Self {
        match (
            self.is_auto() && other.is_auto(),
            self.is_soft() && other.is_soft(),
        ) {
            (false, false) => Self::Hard,
            (true, false) => Self::Auto,
            (false, true) => Self::Soft,
            (true, true) => Self::AutoSoft,
        }
    }
}

/// Whether an entry is served.
///
/// ```
/// # use std::time::Duration;
/// # use mcache::{Cache, MemoryProvider};
/// # use mcache::provider::EntryState;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// cache.key("k").swr(Duration::from_secs(60)).tags(["t"]).set(&1).await?;
/// assert_eq!(cache.inspect("k").await?.unwrap().state, EntryState::Live);
/// cache.soft_invalidate(["t"]).await?;
/// assert_eq!(cache.inspect("k").await?.unwrap().state, EntryState::Stale);
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryState {
    /// Served.
    Live,
    /// Served only while one caller refreshes it.
    Stale,
    /// Never served again.
    Dead,
}

/// What is known of an entry.
///
/// ```
/// # use mcache::{Cache, MemoryProvider};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
/// cache.key("k").tags(["Product:1"]).manual(true).set(&1).await?;
/// let found = cache.inspect("k").await?.expect("it is there");
/// assert_eq!(found.tags, ["Product:1"]);
/// assert!(found.manual && found.reason.is_none());
/// # Ok::<(), mcache::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// Whether it is served.
    pub state: EntryState,
    /// How long it stays live; `None` if it does not expire.
    pub ttl: Option<Duration>,
    /// How long ago its fill began.
    pub age: Duration,
    /// What the entry takes, as the provider counts it: at least its value.
    pub bytes: u64,
    /// Spared by automatic invalidation.
    pub manual: bool,
    /// When its fill began, on the provider's clock.
    pub birth: u64,
    /// The tags it carries.
    pub tags: Vec<Bytes>,
    /// Why it is dead, if it is.
    pub reason: Option<String>,
}

impl Inspection {
    /// A live entry of this size with everything else empty; fields are public to fill in the rest.
    pub fn new(state: EntryState, bytes: u64) -> Self {
        Self {
            state,
            ttl: None,
            age: Duration::ZERO,
            bytes,
            manual: false,
            birth: 0,
            tags: Vec::new(),
            reason: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mode::{self, *};

    #[test]
    fn the_strongest_of_two_modes_spares_nothing_either_would_hit() {
        for mode in [Hard, Auto, Soft, AutoSoft] {
            assert_eq!(mode.strongest(mode), mode);
            assert_eq!(mode.strongest(Hard), Hard);
        }
        assert_eq!(Auto.strongest(Soft), Hard);
        assert_eq!(Auto.strongest(AutoSoft), Auto);
        assert_eq!(Mode::Soft.strongest(AutoSoft), Soft);
    }
}
