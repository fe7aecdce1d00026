//! The provider for servers that load no modules: Redis 7.0, Valkey 7.2 or later, with nothing but a script.
//!
//! What it promises and what it does not: the project's `docs/plain.md`.
//!
//! # How it decides
//!
//! A *room* is what is kept under one hash tag. Its *epoch* counts invalidations, one for each tag. An entry carries
//! the epoch at which its fill began, the one up to which it was looked at, and a digest of each of its tags. What was
//! invalidated is remembered twice: in a *ring* of the latest, and for each tag in one of 256 *groups*, each with
//! a *floor* below which it knows nothing. A read compares two numbers where nothing was invalidated since the last
//! one, looks through the ring where little was, and asks the groups where much was.
//!
//! A script cannot see that its server was started from an old file, or that it is another server. But a server forgets
//! its scripts when it ends, and hands them to no other server. So the text of the script has a random name in it, is
//! loaded by who drew it, once, and the room names the text that may speak for it: its *witness*. A server that does
//! not know that text is not the one that acknowledged what the room remembers, and the room is made anew: what was in
//! it is dead.
//!
//! # Histories that are easily got wrong
//!
//! Each is a step of the state machine test or a test of its own (`tests/suite/plain/`).
//!
//! | history | what keeps it from serving what is stale |
//! |---|---|
//! | the server is started from an old file | it does not know the witness; the room is made anew |
//! | a replica that lags is promoted | the same: scripts are not replicated |
//! | the client is reconnected by a proxy and does not know | the same: nothing is read when connecting |
//! | the old primary is asked after the failover, as a replica | each call writes, or begins as a write: a replica refuses |
//! | one loads the script into this server and calls it in another | a text is loaded once; the call does not find it, and the next one has another name |
//! | the room's own key is evicted | entries and tokens name an incarnation; the next room has another |
//! | FLUSHALL while a value is being loaded | the token names an incarnation that is gone |
//! | a group is evicted | it was used, the room knows, and it is not there: all entries of its tags that were not looked at since are dead, fills under way refused |
//! | the group is written anew by the next invalidation | with the floor of that moment, not of the beginning |
//! | the ring is evicted and begun anew in the middle | each slot says which lap it is of; one that does not fit is not believed, and the groups are asked |
//! | a value is evicted | it is a miss |
//! | a value comes late | its token has the epoch of its beginning, and its tags are asked since then |
//! | a token from before a floor | is refused |
//! | a value is looked at, and then its tag is forgotten | what was looked at up to a floor needs nothing from below it |
//! | soft, then hard | the hard one counts |
//! | soft twice, and no reader looked in between | the earlier one counts as hard: its time is not known |
//! | AUTO and MANUAL | are remembered apart for each tag |
//! | a key is cleared while its value is being loaded | the key's own mark is invalidated, which every fill is asked about |
//! | the script fails in the middle of an invalidation | the room's epoch is written last; until then nothing is acknowledged, and what is written makes too much dead, never too little |
//! | the clock goes back | no decision about tags looks at it; times to live are as wrong as Redis's own |
//! | two namespaces | nothing is shared |
//! | two processes find the witness gone at once | the second sees that the room has another witness than the one that it missed |

mod digest;
mod room;
mod script;
mod waking;

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use redis::{Cmd, Value};
use tokio::time::{Instant, timeout, timeout_at};

use self::{
    room::{Carry, How, Room, Rooms},
    script::{Call, Found},
    waking::Waking,
};
use super::{
    LARGE_BYTES, Leasing, Link, RedisOptions, RedisProvider, Topology, command::LEASE_OR_WAIT_MAX,
};
use crate::{
    Error, ErrorKind, Result, Tags,
    provider::{BoxFuture, FetchOptions, Inspection, Lookup, Mode, Provider, Store, Token},
};

/// Tags named in one call of the script at most: other clients wait meanwhile.
const TAGS_PER_CALL: usize = 256;

/// Groups of tags in a room; the script's own number.
const GROUPS: usize = 256;

/// Keeps entries in a Redis or Valkey that has no module. Cheap to clone.
///
/// ```no_run
/// use mcache::{Cache, PlainRedisProvider};
///
/// # async fn example() -> mcache::Result<()> {
/// let provider = PlainRedisProvider::builder("redis://127.0.0.1:6379")
///     .namespace("store-eu")
///     .build()?;
/// let cache = Cache::builder_with(provider).namespace("store-eu").caching(true).build().await?;
/// // With the module: Cache::builder("redis://127.0.0.1:6379").namespace("store-eu")...
/// # Ok(())
/// # }
/// ```
///
/// Everything the cache does works; what it does not give that the module gives is in the project's `docs/plain.md`.
/// Two differences are seen in the API: [`invalidate`](Provider::invalidate) does not know how many entries it met, and
/// answers 0; and nothing lists what carries a tag.
#[derive(Clone)]
pub struct PlainRedisProvider {
    wire: Wire,
    place: Arc<str>,
    rooms: Rooms,
    waking: Arc<[Arc<Waking>]>,
    lease: Duration,
    tags_max: usize,
}

/// Configures a [`PlainRedisProvider`].
///
/// ```
/// use mcache::PlainRedisProvider;
///
/// let provider = PlainRedisProvider::builder("redis://127.0.0.1:6379")
///     .namespace("store-eu")
///     .remembered_tags(1 << 20)
///     .build()?;
/// # let _ = provider;
/// # Ok::<(), mcache::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PlainBuilder {
    url: String,
    redis: RedisOptions,
    namespace: String,
    hash_tag: Option<String>,
    rooms: usize,
    lease: Duration,
    remembered_tags: usize,
    tags_max: usize,
}

impl PlainBuilder {
    /// Times and limits of the connections, and the [id](RedisOptions::id). Default: [`RedisOptions::default`].
    #[must_use]
    pub fn redis(mut self, options: RedisOptions) -> Self {
        self.redis = options;
        self
    }

    /// What stands before each of its keys, in braces: caches with different names here share nothing. The same as
    /// the [cache's](crate::Builder::namespace), usually. Default: `mcache`.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// The hash tag of its keys, which says on which node of a cluster they are. Default: the namespace.
    #[must_use]
    pub fn hash_tag(mut self, tag: impl Into<String>) -> Self {
        self.hash_tag = Some(tag.into());
        self
    }

    /// How many hash tags the entries are spread over, so that a namespace is on several nodes of a cluster: an
    /// invalidation is sent to each. The same in every process: another number is another namespace. Default: 1.
    #[must_use]
    pub fn spread(mut self, hash_tags: usize) -> Self {
        self.rooms = hash_tags.clamp(1, 1024);
        self
    }

    /// How long the right to fill lasts where the caller does not say. Default: 10 seconds.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Of how many tags the last invalidation is remembered, for each hash tag, at an estimated 130 bytes each. Beyond
    /// it the older half is forgotten, and entries that were not read since are dead. Who makes the room decides.
    /// Default: 131,072.
    #[must_use]
    pub fn remembered_tags(mut self, tags: usize) -> Self {
        self.remembered_tags = tags;
        self
    }

    /// How many tags an entry may carry. Default: 4,096.
    #[must_use]
    pub fn tags_max(mut self, tags: usize) -> Self {
        self.tags_max = tags;
        self
    }

    /// Builds the provider. Nothing is contacted yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the address is none of those that [`RedisProvider::new`] takes, or a name is empty.
    pub fn build(self) -> Result<PlainRedisProvider> {
        let hash_tag = self.hash_tag.as_deref().unwrap_or(&self.namespace);
        if self.namespace.is_empty() || hash_tag.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "a namespace on plain Redis needs a name: it is the hash tag of its keys",
            ));
        }
        let (name, tag) = (within_braces(&self.namespace), within_braces(hash_tag));
        let rest = match self.hash_tag {
            Some(_) => format!("{name}:"),
            None => String::new(),
        };
        let group_max = (self.remembered_tags / GROUPS).clamp(2, 2048);
        let rooms: Vec<Room> = (0..self.rooms)
            .map(|number| match self.rooms {
                1 => format!("{{{tag}}}:{rest}"),
                rooms => format!("{{{tag}%{number}of{rooms}}}:{rest}"),
            })
            .map(|prefix| Room::new(prefix, group_max))
            .collect();
        let redis = RedisProvider::new(&self.url, self.redis.client_name_if_none(&self.namespace))?;
        Ok(PlainRedisProvider {
            place: format!("{}#{{{tag}}}:{rest}", redis.place).into(),
            wire: Wire { redis },
            waking: rooms.iter().map(|_| Arc::default()).collect(),
            rooms: Rooms::new(rooms),
            lease: self.lease,
            tags_max: self.tags_max,
        })
    }
}

/// So that the braces around it are the first ones, and no name looks like another with something behind it.
fn within_braces(name: &str) -> String {
    name.replace('%', "%25")
        .replace('{', "%7B")
        .replace('}', "%7D")
}

impl PlainRedisProvider {
    /// Begins to configure one, for the server, Sentinels or cluster at this [address](RedisProvider::new).
    pub fn builder(url: impl Into<String>) -> PlainBuilder {
        PlainBuilder {
            url: url.into(),
            redis: RedisOptions::default(),
            namespace: "mcache".to_owned(),
            hash_tag: None,
            rooms: 1,
            lease: Duration::from_secs(10),
            remembered_tags: 131_072,
            tags_max: 4096,
        }
    }

    async fn call(&self, room: &Room, key: &[u8], call: &Call, how: How) -> Result<Vec<Value>> {
        // Once more what one command has: finding out with which text to talk is part of it. A value has the more the
        // larger it is.
        let bytes = match how {
            How::Value | How::Leasing => self.wire.redis.large.bytes_of(key),
            How::Large(bytes) => bytes,
            How::Optional | How::Urgent => 0,
        };
        let mebibytes = u32::try_from(bytes >> 20).unwrap_or(u32::MAX - 2);
        let deadline = self.wire.redis.deadline.saturating_mul(2 + mebibytes);
        let called = room.call(&self.wire, key, call, how);
        timeout(deadline, called).await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!("no answer within {} ms", deadline.as_millis()),
            ))
        })
    }

    async fn look(&self, key: &[u8], options: &FetchOptions) -> Result<Found> {
        let room = self.rooms.of(key);
        let entry = room.entry(key);
        let call = script::fetch(room.place(), &entry, options, self.lease);
        script::read_lookup(self.call(room, &entry, &call, How::Leasing).await?)
    }

    async fn fetch_or_wait(&self, key: &[u8], options: FetchOptions) -> Result<Lookup> {
        let gives_up_at = Instant::now() + options.wait.min(LEASE_OR_WAIT_MAX);
        let asked = FetchOptions {
            wait: Duration::ZERO,
            ..options
        };
        // Most find what they look for, and need not be told of anything.
        match self.look(key, &asked).await? {
            Found::Answer(lookup) => return Ok(lookup),
            Found::Busy { .. } if options.wait.is_zero() => return Ok(Lookup::Busy),
            Found::Busy { .. } => {}
        }
        let room = self.rooms.of(key);
        let waking = &self.waking[self.rooms.index(key)];
        let mut waiter = waking.wait(&self.wire, room.place(), room.channel(), key);
        loop {
            let told = waiter.told();
            let ends_in = match self.look(key, &options).await? {
                Found::Answer(lookup) => return Ok(lookup),
                Found::Busy { ends_in } => ends_in,
            };
            let now = Instant::now();
            if now >= gives_up_at {
                return Ok(Lookup::Busy);
            }
            let look = waiter.next_look().min(ends_in + Duration::from_millis(1));
            // Told or not, the answer is in the server.
            let _ = timeout_at((now + look).min(gives_up_at), told).await;
        }
    }
}

impl Provider for PlainRedisProvider {
    fn id(&self) -> &str {
        self.wire.redis.id()
    }

    fn place(&self) -> &str {
        &self.place
    }

    fn counts_invalidated(&self) -> bool {
        false
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let asked = self.rooms.all().iter().map(|room| async move {
                let call = script::token(room.place(), &room.entry(b""));
                self.call(room, room.place(), &call, How::Optional).await
            });
            try_join_all(asked).await.map(drop)
        })
    }

    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(async move {
            let room = self.rooms.of(key);
            let entry = room.entry(key);
            let call = script::get(room.place(), &entry);
            script::read_value(self.call(room, &entry, &call, How::Value).await?)
        })
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>>> {
        Box::pin(async move {
            let rooms = self.rooms.all().iter().enumerate();
            let asked = rooms.map(|(number, room)| async move {
                let mine = keys.iter().enumerate();
                let (positions, entries): (Vec<usize>, Vec<Bytes>) = mine
                    .filter(|(_, key)| self.rooms.index(key) == number)
                    .map(|(position, key)| (position, room.entry(key)))
                    .unzip();
                if positions.is_empty() {
                    return Ok((positions, Vec::new()));
                }
                let entries: Vec<&[u8]> = entries.iter().map(|entry| &entry[..]).collect();
                let call = script::get_many(room.place(), &entries);
                // Whether one of them is large is remembered by key.
                let large = entries
                    .iter()
                    .map(|entry| self.wire.redis.large.bytes_of(entry))
                    .sum();
                let how = match large {
                    0 => How::Optional,
                    bytes => How::Large(bytes),
                };
                let parts = self.call(room, entries[0], &call, how).await?;
                let values = script::read_values(parts, entries.len())?;
                for (entry, value) in entries.iter().zip(&values) {
                    self.wire
                        .redis
                        .large
                        .note(entry, value.as_ref().map_or(0, Bytes::len));
                }
                Ok::<_, Error>((positions, values))
            });
            let mut found = vec![None; keys.len()];
            for (positions, values) in try_join_all(asked).await? {
                for (position, value) in positions.into_iter().zip(values) {
                    found[position] = value;
                }
            }
            Ok(found)
        })
    }

    fn fetch<'a>(&'a self, key: &'a [u8], options: FetchOptions) -> BoxFuture<'a, Result<Lookup>> {
        Box::pin(self.fetch_or_wait(key, options))
    }

    fn token<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Token>> {
        Box::pin(async move {
            let room = self.rooms.of(key);
            let call = script::token(room.place(), &room.entry(key));
            script::read_token(self.call(room, room.place(), &call, How::Optional).await?)
        })
    }

    fn store<'a>(&'a self, entry: Store<'a>) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            if entry.tags.len() > self.tags_max {
                let (tags, most) = (entry.tags.len(), self.tags_max);
                return Err(Error::new(
                    ErrorKind::Refused,
                    format!("{tags} tags, at most {most}"),
                ));
            }
            let room = self.rooms.of(entry.key);
            let key = room.entry(entry.key);
            let (call, bytes) = (script::store(room.place(), &key, &entry), entry.value.len());
            self.wire.redis.large.note(&key, bytes);
            let how = match bytes < LARGE_BYTES {
                true => How::Optional,
                false => How::Large(bytes),
            };
            script::read_yes(self.call(room, &key, &call, how).await?)
        })
    }

    fn release<'a>(&'a self, key: &'a [u8], token: &'a Token) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let room = self.rooms.of(key);
            let call = script::release(room.place(), &room.entry(key), token);
            script::read_yes(self.call(room, room.place(), &call, How::Optional).await?)
        })
    }

    fn clear<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let room = self.rooms.of(key);
            let call = script::clear(room.place(), &room.entry(key), key);
            script::read_yes(self.call(room, room.place(), &call, How::Urgent).await?)
        })
    }

    fn invalidate<'a>(&'a self, tags: &'a Tags, mode: Mode) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let told = self.rooms.all().iter().map(|room| async move {
                let mut rest = tags.iter();
                while rest.len() > 0 {
                    let part = rest.by_ref().take(TAGS_PER_CALL);
                    let call = script::invalidate(room.place(), part, mode);
                    self.call(room, room.place(), &call, How::Urgent).await?;
                }
                Ok(())
            });
            // One that is away must not keep the others from being told.
            let told: Vec<Result<()>> = join_all(told).await;
            told.into_iter().collect::<Result<()>>().map(|()| 0)
        })
    }

    fn inspect<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Inspection>>> {
        Box::pin(async move {
            let room = self.rooms.of(key);
            let call = script::inspect(room.place(), &room.entry(key));
            script::read_inspection(self.call(room, room.place(), &call, How::Optional).await?)
        })
    }
}

impl fmt::Debug for PlainRedisProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainRedisProvider")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// The connections: those of the provider that talks to the module.
#[derive(Clone)]
struct Wire {
    redis: RedisProvider,
}

impl Wire {
    /// Listens at the node of this key.
    async fn subscribe(&self, key: &[u8], channel: &[u8]) -> Result<redis::aio::PubSub> {
        let link: Arc<Link> = match &self.redis.topology {
            Topology::Single(link) => link.clone(),
            Topology::Cluster(cluster) => cluster.link_for(key).await?,
        };
        Ok(link.subscribe(channel).await?)
    }
}

impl Carry for Wire {
    fn carry<'a>(
        &'a self,
        key: &'a [u8],
        cmd: &'a Arc<Cmd>,
        how: How,
    ) -> Pin<Box<dyn Future<Output = Result<Value>> + Send + 'a>> {
        Box::pin(async move {
            match how {
                How::Optional => self.redis.call(key, &**cmd).await,
                How::Value => self.redis.call_for_value(key, &**cmd).await,
                How::Leasing => {
                    let ask = Leasing::new(cmd, LEASE_OR_WAIT_MAX, script::give_back);
                    self.redis.call_for_value(key, ask).await
                }
                How::Large(bytes) => self.redis.call_bulk(key, &**cmd, bytes).await,
                How::Urgent => self.redis.call_urgently(key, cmd).await,
            }
        })
    }
}
