//! The provider that talks to Redis with the mcache module: one server, the primary behind Sentinels, or a cluster.
//!
//! ```text
//!   RedisProvider ──▶ command   what to say, what the answer means (no I/O)
//!        │
//!        ▼
//!    Topology ─┬─▶ Link ──▶ Dialer        one shared connection to one node: deadline, breaker, redial
//!              │     └────▶ Idle          handles of the shared connection, apart for each thread
//!              │     └────▶ Ask           a command, and what becomes of an answer that comes too late
//!              │     └────▶ Parked        connections of their own for calls that wait in the server
//!              │     └────▶ Settlers     one SETTLE for all who wait until near caches have heard
//!              └─▶ Cluster               keys to the owner of their slot, invalidations to every primary
//!                    └────▶ Discovery    who owns what; a Link for each node
//! ```

mod address;
mod breaker;
mod call;
mod cluster;
mod command;
mod dial;
mod discovery;
#[cfg(test)]
pub(crate) mod fake;
mod idle;
mod large;
mod late;
mod link;
mod near;
mod options;
mod parked;
mod plain;
mod settle;
mod slots;
#[cfg(test)]
mod tests;
mod tls;

pub use self::plain::{PlainBuilder, PlainRedisProvider};

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use redis::{Cmd, RedisError, Value};

use self::{
    address::{Address, without_credentials},
    cluster::Cluster,
    dial::Dialer,
    large::{LARGE_BYTES, Large},
    late::{Ask, Leasing},
    link::{Link, Urgency},
    options::LinkOptions,
    tls::Tls,
};
pub(crate) use self::{
    near::{FeedError, FeedLine},
    settle::Settling,
    slots::{Node, slot_of},
};
use crate::{
    Error, ErrorKind, Result, Tags,
    provider::{BoxFuture, FetchOptions, Inspection, Lookup, Mode, Provider, Store, Token},
};

/// Tags named in one INVALIDATE at most: the server's cost is per tag, and other clients wait meanwhile.
const TAGS_PER_INVALIDATE: usize = 1000;

/// Keeps entries in Redis with the mcache module. Cheap to clone.
///
/// ```
/// use mcache::{RedisProvider, provider::Provider, server::RedisOptions};
///
/// // Nothing is contacted yet: that is for the cache it is given to.
/// let near = RedisProvider::new("redis://127.0.0.1:6379", RedisOptions::default().id("near"))?;
/// assert_eq!((near.id(), near.place()), ("near", "redis://127.0.0.1:6379"));
/// assert!(RedisProvider::new("gopher://127.0.0.1", RedisOptions::default()).is_err());
/// # Ok::<(), mcache::Error>(())
/// ```
#[derive(Clone)]
pub struct RedisProvider {
    id: Arc<str>,
    /// The address without credentials.
    place: Arc<str>,
    topology: Topology,
    large: Arc<Large>,
    /// A server has an older module, which answers FETCH with three parts always.
    knows_no_brief: Arc<AtomicBool>,
    /// How long one call may take.
    deadline: Duration,
}

#[derive(Clone)]
enum Topology {
    Single(Arc<Link>),
    Cluster(Cluster),
}

/// Times and limits of a [`RedisProvider`].
///
/// ```
/// use std::time::Duration;
/// use mcache::server::RedisOptions;
///
/// let options = RedisOptions::default().command_deadline(Duration::from_millis(100));
/// ```
#[derive(Debug, Clone)]
pub struct RedisOptions {
    id: String,
    link: LinkOptions,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            id: "redis".to_owned(),
            link: LinkOptions {
                connect_timeout: Duration::from_secs(2),
                command_deadline: Duration::from_millis(500),
                breaker_failures: 3,
                breaker_pause: Duration::from_secs(1),
                parked_max: 64,
                parked_idle_max: Duration::from_secs(30),
                client_name: None,
                tls: Tls::default(),
            },
        }
    }
}

impl RedisOptions {
    /// The name callers choose the provider by. Default: `redis`.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// How long one attempt to connect may take, authentication included. Default: 2 seconds. Calls do not wait that
    /// long; see [`command_deadline`](Self::command_deadline).
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.link.connect_timeout = timeout;
        self
    }

    /// How long one call may take, waiting for a connection included. Default: 500 milliseconds. After it a read is a
    /// miss, and an invalidation goes on in the background.
    #[must_use]
    pub fn command_deadline(mut self, deadline: Duration) -> Self {
        self.link.command_deadline = deadline;
        self
    }

    /// After how many moments in a row without an answer the server is not asked for a while, and how long that is.
    /// Default: 3, 1 second. Counted per node; calls that were under way together and failed together are one moment.
    /// Invalidations are sent nevertheless.
    #[must_use]
    pub fn breaker(mut self, failures: u32, pause: Duration) -> Self {
        self.link.breaker_failures = failures.max(1);
        self.link.breaker_pause = pause;
        self
    }

    /// What the server calls the connections, each with `:shared`, `:bulk` or `:wait` behind it for what it is used
    /// for; seen in `CLIENT LIST`. Default: `mcache:` and the cache's namespace. What a name may not contain becomes
    /// `_`.
    #[must_use]
    pub fn client_name(mut self, name: impl AsRef<str>) -> Self {
        let allowed = |letter: char| {
            if letter.is_ascii_graphic() {
                letter
            } else {
                '_'
            }
        };
        self.link.client_name = Some(name.as_ref().chars().map(allowed).collect());
        self
    }

    pub(crate) fn client_name_if_none(self, namespace: &str) -> Self {
        match self.link.client_name {
            Some(_) => self,
            None => self.client_name(format!("mcache:{namespace}")),
        }
    }

    /// How many callers may wait in one node at a time for fills of other processes, each on a connection of its own.
    /// Default: 64. Callers of one process who wait for the same key count as one; beyond the limit they wait for a
    /// connection first.
    #[must_use]
    pub fn parked_max(mut self, connections: usize) -> Self {
        self.link.parked_max = connections.max(1);
        self
    }

    /// How long a connection on which a caller has waited stays open for the next one. Default: 30 seconds.
    #[must_use]
    pub fn parked_idle_max(mut self, idle: Duration) -> Self {
        self.link.parked_idle_max = idle;
        self
    }

    /// Trusts servers whose certificate was issued by this authority (PEM) instead of the system's. Default: the
    /// system's; the variable `SSL_CERT_FILE` names others.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_root(mut self, certificate_pem: impl Into<Vec<u8>>) -> Self {
        self.link.tls.trust(certificate_pem.into());
        self
    }

    /// Shows servers this certificate (PEM, with its key). Default: none.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_identity(
        mut self,
        certificate_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        self.link
            .tls
            .identify(certificate_pem.into(), key_pem.into());
        self
    }
}

impl RedisProvider {
    /// A provider for the server, Sentinels or cluster at this address. Nothing is contacted yet.
    ///
    /// | address | means |
    /// |---|---|
    /// | `redis://[user:password@]host:port[/db]` | one server |
    /// | `rediss://...` | the same over TLS; needs the feature `tls` |
    /// | `unix:///path/to.sock[?db=1&user=u&pass=p]` | one server on this machine |
    /// | `redis+sentinel://[user:password@]host:port,host:port/name[/db]` | the primary `name`, asked of Sentinels |
    /// | `redis+cluster://[user:password@]host:port,host:port` | a cluster, discovered from these nodes |
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the address is not one of these.
    pub fn new(url: &str, options: RedisOptions) -> Result<Self> {
        let link = options.link;
        let deadline = link.command_deadline;
        let topology = match Address::parse(url)? {
            Address::Single(info) => {
                let dialer = Dialer::direct(*info, &link.tls).map_err(misconfigured)?;
                Topology::Single(Link::new(dialer, link))
            }
            Address::Sentinel {
                sentinels,
                service,
                primary,
            } => {
                let dialer = Dialer::sentinel(&sentinels, service, &primary, &link.tls);
                Topology::Single(Link::new(dialer.map_err(misconfigured)?, link))
            }
            Address::Cluster { seeds } => Topology::Cluster(Cluster::new(seeds, link)),
        };
        Ok(Self {
            id: options.id.into(),
            place: without_credentials(url).into(),
            topology,
            large: Arc::default(),
            knows_no_brief: Arc::default(),
            deadline,
        })
    }

    async fn call(&self, key: &[u8], ask: impl Ask) -> Result<Value> {
        match &self.topology {
            Topology::Single(link) => Ok(link.call(ask, Urgency::Optional).await?),
            // Boxed here and below, so that the usual way does not carry the size of the rarer one around.
            Topology::Cluster(cluster) => Box::pin(cluster.call(key, ask, Urgency::Optional)).await,
        }
    }

    /// A call for a key whose value may be large.
    async fn call_for_value(&self, key: &[u8], ask: impl Ask) -> Result<Value> {
        let answer = match self.large.bytes_of(key) {
            0 => self.call(key, ask).await,
            bytes => self.call_bulk(key, ask, bytes).await,
        };
        if let Ok(answer) = &answer {
            self.large.note(key, value_bytes(answer));
        }
        answer
    }

    async fn call_bulk(&self, key: &[u8], ask: impl Ask, bytes: usize) -> Result<Value> {
        match &self.topology {
            Topology::Single(link) => Ok(Box::pin(link.call_bulk(ask, bytes)).await?),
            Topology::Cluster(cluster) => Box::pin(cluster.call_bulk(key, ask, bytes)).await,
        }
    }

    /// SET of a value of so many bytes.
    async fn call_store(&self, key: &[u8], cmd: &Cmd, bytes: usize) -> Result<Value> {
        self.large.note(key, bytes);
        let answer = match bytes < LARGE_BYTES {
            true => self.call(key, cmd).await,
            false => self.call_bulk(key, cmd, bytes).await,
        };
        match answer {
            // A server that does not know the command repeats it in its refusal, and a value is no text.
            Err(error) if error.kind() == ErrorKind::Protocol => {
                let help = redis::cmd("MCACHE.HELP");
                match Box::pin(self.call(key, &help)).await {
                    Err(missing) if missing.kind() == ErrorKind::ModuleMissing => Err(missing),
                    _ => Err(error),
                }
            }
            answer => answer,
        }
    }

    async fn call_parked(&self, key: &[u8], cmd: &Cmd, wait: Duration) -> Result<Value> {
        match &self.topology {
            Topology::Single(link) => Ok(link.call_parked(cmd, wait).await?),
            Topology::Cluster(cluster) => cluster.call_parked(key, cmd, wait).await,
        }
    }

    /// FETCH, spelled with these options: an answer that comes too late gives its lease back.
    async fn call_fetch(&self, key: &[u8], cmd: Arc<Cmd>, options: &FetchOptions) -> Result<Value> {
        if !options.wait.is_zero() {
            return Box::pin(self.call_parked(key, &cmd, options.wait)).await;
        }
        let lease = options.lease.unwrap_or(command::LEASE_OR_WAIT_MAX);
        let ask = Leasing::new(&cmd, lease, command::give_back);
        self.call_for_value(key, ask).await
    }

    async fn call_urgently(&self, key: &[u8], cmd: &Cmd) -> Result<Value> {
        match &self.topology {
            Topology::Single(link) => Ok(link.call(cmd, Urgency::MustArrive).await?),
            Topology::Cluster(cluster) => cluster.call(key, cmd, Urgency::MustArrive).await,
        }
    }

    async fn call_primaries(&self, cmd: &Cmd) -> Result<u64> {
        match &self.topology {
            Topology::Single(link) => {
                command::read_count(link.call(cmd, Urgency::MustArrive).await?)
            }
            Topology::Cluster(cluster) => {
                let counts = cluster.call_primaries(cmd, command::read_count).await?;
                Ok(counts.into_iter().map(|(_, count)| count).sum())
            }
        }
    }

    /// The server has answered as a replica: look for its successor.
    fn is_replica(&self) -> Error {
        self.topology.is_another();
        Error::with_code(
            ErrorKind::Unavailable,
            Some("READONLY"),
            "the server is a replica, which takes no entries and no invalidations",
        )
    }
}

/// How large a value an answer brings: it is the value, or a part of the answer.
fn value_bytes(answer: &Value) -> usize {
    match answer {
        Value::BulkString(bytes) => bytes.len(),
        Value::Array(parts) => parts.iter().map(value_bytes).max().unwrap_or(0),
        _ => 0,
    }
}

/// Before anything is contacted, a failure is a mistake in the configuration.
fn misconfigured(error: RedisError) -> Error {
    Error::new(ErrorKind::Config, error.to_string())
}

/// Whether the server behind it can do what we need.
///
/// # Errors
///
/// [`ErrorKind::ModuleMissing`] if it cannot, and what keeps us from knowing.
async fn has_module(link: &Arc<Link>) -> Result<()> {
    let asked = link
        .call(&redis::cmd("MCACHE.HELP"), Urgency::Optional)
        .await;
    match asked.map_err(Error::from) {
        // A user that may not call MCACHE.HELP may still use the cache.
        Err(error) if error.code() == Some("NOPERM") => Ok(()),
        asked => asked.map(drop),
    }
}

/// Whether a server is one by itself, as its address says.
///
/// # Errors
///
/// [`ErrorKind::Config`]: one of several nodes of a cluster would serve some keys, and the others would not hear of
/// invalidations; a Sentinel keeps nothing.
async fn is_one_server(link: &Arc<Link>) -> Result<()> {
    let ask = async |command: &str, section: &str| {
        let mut cmd = redis::cmd(command);
        cmd.arg(section);
        // Where it cannot be asked nothing is known against it.
        link.call(&cmd, Urgency::Optional).await.ok()
    };
    let cluster = ask("CLUSTER", "INFO").await;
    let view = cluster.and_then(|info| slots::View::read(&info).ok());
    if view.is_some_and(|view| view.size > 1) {
        return Err(Error::new(
            ErrorKind::Config,
            "the server is one of several nodes of a cluster, and the others would not hear of invalidations: its address \
             begins with redis+cluster://",
        ));
    }
    match has_module(link).await {
        Err(error) if error.kind() == ErrorKind::ModuleMissing => {
            let server = ask("INFO", "server").await;
            let text = server.and_then(|info| command::read_text(info).ok());
            let text = text.map(|text| String::from_utf8_lossy(&text).into_owned());
            // `redis_mode`, `server_mode` on Valkey.
            match text.is_some_and(|text| text.contains("_mode:sentinel")) {
                true => Err(Error::new(
                    ErrorKind::Config,
                    "the server is a Sentinel: its address begins with redis+sentinel:// and ends with the name of the primary",
                )),
                false => Err(error),
            }
        }
        asked => asked,
    }
}

impl Topology {
    /// What we are connected to is not what it was: look again.
    fn is_another(&self) {
        match self {
            Self::Single(link) => link.leads_to_replica(),
            Self::Cluster(cluster) => cluster.refresh_soon(),
        }
    }
}

impl Provider for RedisProvider {
    fn id(&self) -> &str {
        &self.id
    }

    fn place(&self) -> &str {
        &self.place
    }

    fn near(&self) -> Option<&RedisProvider> {
        Some(self)
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            match &self.topology {
                Topology::Single(link) => {
                    link.call(&redis::cmd("PING"), Urgency::Optional).await?;
                    is_one_server(link).await
                }
                Topology::Cluster(cluster) => {
                    for link in cluster.primaries().await? {
                        has_module(&link).await?;
                    }
                    Ok(())
                }
            }
        })
    }

    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(
            async move { command::read_value(self.call_for_value(key, &command::get(key)).await?) },
        )
    }

    fn get_many<'a>(&'a self, keys: &'a [Bytes]) -> BoxFuture<'a, Result<Vec<Option<Bytes>>>> {
        Box::pin(async move {
            let Some(first) = keys.first() else {
                return Ok(Vec::new());
            };
            match &self.topology {
                Topology::Single(_) => {
                    let cmd = command::get_many(keys);
                    let bytes: usize = keys.iter().map(|key| self.large.bytes_of(key)).sum();
                    let answer = match bytes {
                        0 => self.call(first, &cmd).await?,
                        bytes => self.call_bulk(first, &cmd, bytes).await?,
                    };
                    let values = command::read_values(answer, keys.len())?;
                    for (key, value) in keys.iter().zip(&values) {
                        self.large.note(key, value.as_ref().map_or(0, Bytes::len));
                    }
                    Ok(values)
                }
                Topology::Cluster(cluster) => {
                    cluster
                        .call_split(
                            keys,
                            |keys| (command::get_many(keys), ()),
                            |answer, expected, ()| command::read_values(answer, expected),
                        )
                        .await
                }
            }
        })
    }

    fn fetch<'a>(&'a self, key: &'a [u8], options: FetchOptions) -> BoxFuture<'a, Result<Lookup>> {
        Box::pin(async move {
            let brief = !self.knows_no_brief.load(Relaxed);
            let cmd = Arc::new(command::fetch(key, options, brief));
            match self.call_fetch(key, cmd, &options).await {
                Err(error) if brief && command::knows_no_brief(&error) => {
                    self.knows_no_brief.store(true, Relaxed);
                    self.fetch(key, options).await
                }
                answer => command::read_lookup(answer?)?.ok_or_else(|| self.is_replica()),
            }
        })
    }

    fn token<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Token>> {
        Box::pin(async move { command::read_token(self.call(key, &command::token(key)).await?) })
    }

    fn store<'a>(&'a self, entry: Store<'a>) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let (cmd, bytes) = (command::set(&entry, None), entry.value.len());
            command::read_stored(self.call_store(entry.key, &cmd, bytes).await?)
        })
    }

    fn release<'a>(&'a self, key: &'a [u8], token: &'a Token) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let answer = self.call(key, &command::release(key, token)).await?;
            Ok(command::read_count(answer)? > 0)
        })
    }

    fn clear<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move {
            let cleared = match self.call_urgently(key, &command::clear(key)).await {
                // An older module, without the command: it removes the entry, and a fill under way may store it again.
                Err(error) if error.kind() == ErrorKind::ModuleMissing => {
                    self.call_urgently(key, &command::unlink(key)).await
                }
                answer => answer,
            };
            Ok(command::read_count(cleared?)? > 0)
        })
    }

    fn invalidate<'a>(&'a self, tags: &'a Tags, mode: Mode) -> BoxFuture<'a, Result<u64>> {
        Box::pin(async move {
            let mut entries = 0;
            let mut rest = tags.iter();
            while rest.len() > 0 {
                let cmd = command::invalidate(rest.by_ref().take(TAGS_PER_INVALIDATE), mode, false);
                entries += self.call_primaries(&cmd).await?;
            }
            Ok(entries)
        })
    }

    fn inspect<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<Inspection>>> {
        Box::pin(
            async move { command::read_inspection(self.call(key, &command::inspect(key)).await?) },
        )
    }
}

impl fmt::Debug for RedisProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisProvider")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
