//! Who is in a cluster and who owns what, as far as is known, and how to know better.
//!
//! Owns the map of slots and one [`Link`] for each node in use. Knows nothing of caching.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::{ConnectionAddr, ConnectionInfo, RedisError};
use tokio::time::timeout;

use super::{
    call::CallError,
    dial::Dialer,
    link::{Link, Urgency},
    options::LinkOptions,
    slots::{Node, Ownership, View, slot_of},
};
use crate::{Error, ErrorKind, Result, background::spawn_or};

/// How often the owners are asked for at most when redirections say that they changed.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// How many nodes are asked at a time how they see the cluster, and how long those are waited for who are slower than
/// the first.
const ASKED_MAX: usize = 8;
const STRAGGLERS: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct Discovery {
    seeds: Vec<ConnectionInfo>,
    options: LinkOptions,
    links: Mutex<HashMap<Node, Arc<Link>>>,
    map: RwLock<Option<Arc<Map>>>,
    /// One refresh at a time; when the last one was.
    refreshing: tokio::sync::Mutex<Option<Instant>>,
    /// Whether a refresh in the background is under way.
    refresh_wanted: AtomicBool,
}

/// The cluster as one node described it.
pub(super) struct Map {
    pub(super) ownership: Ownership,
    /// One for each of the owners.
    pub(super) links: Vec<Arc<Link>>,
    pub(super) view: View,
}

impl Map {
    pub(super) fn link_for(&self, key: &[u8]) -> Result<(&Node, &Arc<Link>)> {
        let owner = self.ownership.owner(slot_of(key));
        owner
            .map(|owner| (&self.ownership.primaries[owner], &self.links[owner]))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Unavailable,
                    "no node owns the key's slot".to_owned(),
                )
            })
    }
}

impl Discovery {
    pub(super) fn new(seeds: Vec<ConnectionInfo>, options: LinkOptions) -> Arc<Self> {
        Arc::new(Self {
            seeds,
            options,
            links: Mutex::new(HashMap::new()),
            map: RwLock::new(None),
            refreshing: tokio::sync::Mutex::new(None),
            refresh_wanted: AtomicBool::new(false),
        })
    }

    pub(super) async fn map(self: &Arc<Self>) -> Result<Arc<Map>> {
        if let Some(map) = self.known() {
            return Ok(map);
        }
        let mut last = self.refreshing.lock().await;
        if let Some(map) = self.known() {
            return Ok(map);
        }
        let map = self.discover().await;
        *last = Some(Instant::now());
        map
    }

    fn known(&self) -> Option<Arc<Map>> {
        self.map
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces `seen` unless another caller already has.
    pub(super) async fn refresh(self: &Arc<Self>, seen: &Arc<Map>) -> Result<()> {
        let mut last = self.refreshing.lock().await;
        if self.known().is_some_and(|known| !Arc::ptr_eq(&known, seen)) {
            return Ok(());
        }
        if let Some(elapsed) = last.map(|last| last.elapsed()) {
            tokio::time::sleep(REFRESH_PAUSE.saturating_sub(elapsed)).await;
        }
        let map = self.discover().await;
        *last = Some(Instant::now());
        map.map(drop)
    }

    /// Without keeping the caller waiting.
    pub(super) fn refresh_soon(self: &Arc<Self>) {
        if self.refresh_wanted.swap(true, Ordering::AcqRel) {
            return;
        }
        let discovery = self.clone();
        let done = {
            let discovery = self.clone();
            move || discovery.refresh_wanted.store(false, Ordering::Release)
        };
        let refresh = {
            let done = done.clone();
            async move {
                if let Some(seen) = discovery.known()
                    && let Err(error) = discovery.refresh(&seen).await
                {
                    tracing::debug!(%error, "the cluster's topology could not be refreshed");
                }
                done();
            }
        };
        spawn_or(refresh, done);
    }

    /// Asks several nodes how they see the cluster and believes the one that knows most: a node that was cut off does
    /// not know that it was replaced. Which ones is drawn anew each time, so that no bad choice lasts.
    async fn discover(self: &Arc<Self>) -> Result<Arc<Map>> {
        let mut nodes = self.acquaintances();
        fastrand::shuffle(&mut nodes);
        nodes.truncate(ASKED_MAX);
        let mut asked: FuturesUnordered<_> = nodes.iter().map(|node| self.ask(node)).collect();
        let mut best: Option<Map> = None;
        let mut failure = Error::new(
            ErrorKind::Unavailable,
            "no node of the cluster is known".to_owned(),
        );
        loop {
            let answer = match best {
                None => asked.next().await,
                Some(_) => timeout(STRAGGLERS, asked.next()).await.ok().flatten(),
            };
            match answer {
                Some(Ok(map))
                    if best
                        .as_ref()
                        .is_none_or(|best| best.view.epoch < map.view.epoch) =>
                {
                    best = Some(map)
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => failure = error,
                None => break,
            }
        }
        let map = Arc::new(best.ok_or(failure)?);
        self.forget_all_but(&map);
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Some(map.clone());
        Ok(map)
    }

    /// The nodes we have heard of: primaries, as far as they are known, and those the address named.
    fn acquaintances(&self) -> Vec<Node> {
        let known = self.known();
        let primaries = known
            .iter()
            .flat_map(|map| map.ownership.primaries.iter().cloned());
        let seeds = self.seeds.iter().filter_map(|seed| match seed.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(Node {
                    host: host.clone(),
                    port: *port,
                })
            }
            _ => None,
        });
        let all: HashSet<Node> = primaries.chain(seeds).collect();
        all.into_iter().collect()
    }

    async fn ask(self: &Arc<Self>, node: &Node) -> Result<Map> {
        let mut pipeline = redis::pipe();
        // The view before the owners: if they change in between, the view is the older one and will be doubted.
        pipeline.cmd("CLUSTER").arg("INFO");
        pipeline.cmd("CLUSTER").arg("SLOTS");
        let answers = self
            .link(node)?
            .call_all(&pipeline, Urgency::MustArrive)
            .await?;
        let Ok([info, slots]) = <[_; 2]>::try_from(answers) else {
            return Err(Error::new(
                ErrorKind::Protocol,
                "one answer for two commands".to_owned(),
            ));
        };
        let view = View::read(&info.map_err(refusal)?)?;
        let ownership = Ownership::read(slots.map_err(CallError::from)?, node)?;
        let links = ownership
            .primaries
            .iter()
            .map(|node| self.link(node))
            .collect::<Result<_>>()?;
        Ok(Map {
            ownership,
            links,
            view,
        })
    }

    pub(super) fn link(&self, node: &Node) -> Result<Arc<Link>> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(node) {
            return Ok(link.clone());
        }
        let link = Link::new(self.dialer(node)?, self.options.clone());
        links.insert(node.clone(), link.clone());
        Ok(link)
    }

    /// The way to a node, with credentials and encryption as the first seed's.
    fn dialer(&self, node: &Node) -> Result<Dialer> {
        let seed = self.seeds.first().ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "a cluster needs at least one node".to_owned(),
            )
        })?;
        let mut addr = seed.addr().clone();
        match &mut addr {
            ConnectionAddr::TcpTls { host, port, .. } | ConnectionAddr::Tcp(host, port) => {
                *host = node.host.clone();
                *port = node.port;
            }
            _ => {}
        }
        Dialer::direct(seed.clone().set_addr(addr), &self.options.tls)
            .map_err(|error| CallError::from(error).into())
    }

    /// Closes connections to nodes that are no longer primaries.
    fn forget_all_but(&self, map: &Map) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|node, _| map.ownership.primaries.contains(node));
    }
}

/// Why a server does not say what it knows of its cluster.
fn refusal(error: RedisError) -> Error {
    match error.to_string().contains("cluster support disabled") {
        true => Error::new(
            ErrorKind::Refused,
            "the server is no node of a cluster: its address begins with redis:// or rediss://",
        ),
        false => CallError::from(error).into(),
    }
}
