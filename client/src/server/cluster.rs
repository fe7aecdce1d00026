//! A Redis Cluster: keys go to the primary that owns their slot, invalidations to every primary.
//!
//! The redis crate has a cluster connection, and it is not used here for two reasons. Sent to all primaries, a command
//! skips nodes it has no connection to and reports success: an invalidation must not. And it has no connection of
//! one's own to a node, which a parked call needs. What is left to do is small, because a cache may give up where a
//! database client must try on: one redirection is followed, anything else is a miss.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use redis::{
    Cmd, ConnectionAddr, ConnectionInfo, ErrorKind as RedisKind, RedisError, ServerErrorKind, Value,
};

use super::{
    dial::Dialer,
    link::{CallError, Link, LinkOptions, Urgency},
    slots::{Node, Ownership, View, slot_of},
};
use crate::{Error, ErrorKind, Result};

/// How often the owners are asked for at most when redirections say that they changed.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// How often an invalidation follows a topology that changes under it before it leaves the rest to the retry.
const INVALIDATION_ROUNDS: usize = 4;

pub(super) struct Cluster {
    seeds: Vec<ConnectionInfo>,
    options: LinkOptions,
    links: Mutex<HashMap<Node, Arc<Link>>>,
    map: RwLock<Option<Arc<Map>>>,
    /// One refresh at a time; when the last one was.
    refreshing: tokio::sync::Mutex<Option<Instant>>,
}

/// The cluster as one node described it.
struct Map {
    ownership: Ownership,
    links: Vec<Arc<Link>>,
    view: View,
}

impl Map {
    fn link_for(&self, key: &[u8]) -> Result<(&Node, &Arc<Link>)> {
        let owner = self.ownership.owner(slot_of(key));
        owner
            .map(|owner| (&self.ownership.primaries[owner], &self.links[owner]))
            .ok_or_else(|| {
                Error::new(ErrorKind::Unavailable(
                    "no node owns the key's slot".to_owned(),
                ))
            })
    }
}

impl Cluster {
    pub(super) fn new(seeds: Vec<ConnectionInfo>, options: LinkOptions) -> Arc<Self> {
        Arc::new(Self {
            seeds,
            options,
            links: Mutex::new(HashMap::new()),
            map: RwLock::new(None),
            refreshing: tokio::sync::Mutex::new(None),
        })
    }

    /// Whether the cluster describes itself and every slot has an owner.
    pub(super) async fn ping(self: &Arc<Self>) -> Result<()> {
        match self.map().await?.ownership.is_complete() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Unavailable(
                "some slots have no owner".to_owned(),
            ))),
        }
    }

    /// A command for one key, to the node that owns it.
    pub(super) async fn call(
        self: &Arc<Self>,
        key: &[u8],
        cmd: &Cmd,
        urgency: Urgency,
    ) -> Result<Value> {
        let map = self.map().await?;
        let (node, link) = map.link_for(key)?;
        match link.call(cmd, urgency).await {
            Err(CallError::Redis(error)) if error.is_cluster_error() => {
                self.redirect(&error, node, cmd, urgency).await
            }
            answer => Ok(answer?),
        }
    }

    /// As [`call`](Self::call), parked. A redirection ends it: the caller asks again by itself.
    pub(super) async fn call_parked(
        self: &Arc<Self>,
        key: &[u8],
        cmd: &Cmd,
        wait: Duration,
    ) -> Result<Value> {
        let map = self.map().await?;
        let answer = map.link_for(key)?.1.call_parked(cmd, wait).await;
        if matches!(&answer, Err(CallError::Redis(error)) if error.is_cluster_error()) {
            self.refresh_soon();
        }
        Ok(answer?)
    }

    /// One command per slot for keys that are spread over them, in their order.
    pub(super) async fn call_split<'a, T>(
        self: &Arc<Self>,
        keys: &'a [T],
        command: impl Fn(Vec<&'a T>) -> Cmd,
        read: impl Fn(Value, usize) -> Result<Vec<Option<bytes::Bytes>>>,
    ) -> Result<Vec<Option<bytes::Bytes>>>
    where
        T: AsRef<[u8]>,
    {
        let mut by_slot: HashMap<usize, Vec<usize>> = HashMap::new();
        for (position, key) in keys.iter().enumerate() {
            by_slot
                .entry(slot_of(key.as_ref()))
                .or_default()
                .push(position);
        }
        let parts: Vec<(Vec<usize>, Cmd)> = by_slot
            .into_values()
            .map(|positions| {
                let cmd = command(positions.iter().map(|position| &keys[*position]).collect());
                (positions, cmd)
            })
            .collect();
        let answers = futures_util::future::join_all(parts.iter().map(|(positions, cmd)| {
            let first = keys[positions[0]].as_ref();
            self.call(first, cmd, Urgency::Optional)
        }))
        .await;
        let mut found = vec![None; keys.len()];
        for ((positions, _), answer) in parts.iter().zip(answers) {
            for (position, value) in positions.iter().zip(read(answer?, positions.len())?) {
                found[*position] = value;
            }
        }
        Ok(found)
    }

    /// A command without a key, to every primary; the sum of what they answer.
    ///
    /// Success means that every slot's owner has executed it, and that each of them sees the cluster as we do. If one
    /// knows of a newer topology, the command goes to those we did not know of as well. Executing it twice does no
    /// harm.
    pub(super) async fn call_primaries(
        self: &Arc<Self>,
        cmd: &Cmd,
        read: impl Fn(Value) -> Result<u64>,
    ) -> Result<u64> {
        let mut acknowledged: HashMap<Node, u64> = HashMap::new();
        for _ in 0..INVALIDATION_ROUNDS {
            let map = self.map().await?;
            let mut pipeline = redis::pipe();
            pipeline.add_command(cmd.clone());
            pipeline.cmd("CLUSTER").arg("INFO");
            let open: Vec<(&Node, &Arc<Link>)> = map
                .ownership
                .primaries
                .iter()
                .zip(&map.links)
                .filter(|(node, _)| !acknowledged.contains_key(node))
                .collect();
            let answers = futures_util::future::join_all(
                open.iter()
                    .map(|(_, link)| link.call_all(&pipeline, Urgency::MustArrive)),
            )
            .await;
            let mut agreed = map.ownership.is_complete();
            let mut failure = None;
            for ((node, _), answers) in open.iter().zip(answers) {
                match acknowledgement(answers, &read) {
                    Ok((count, view)) => {
                        agreed &= view == map.view;
                        acknowledged.insert((*node).clone(), count);
                    }
                    // One that is down must not keep the others from being told.
                    Err(error) => failure = Some(error),
                }
            }
            match failure {
                Some(error) => {
                    self.refresh_soon();
                    return Err(error);
                }
                None if agreed => return Ok(acknowledged.values().sum()),
                None => self.refresh(&map).await?,
            }
        }
        Err(Error::new(ErrorKind::Unavailable(
            "the cluster's topology is changing".to_owned(),
        )))
    }

    async fn redirect(
        self: &Arc<Self>,
        error: &RedisError,
        from: &Node,
        cmd: &Cmd,
        urgency: Urgency,
    ) -> Result<Value> {
        let asking = error.kind() == RedisKind::Server(ServerErrorKind::Ask);
        if !asking {
            self.refresh_soon();
        }
        let to = error
            .redirect_node()
            .and_then(|(to, _)| Node::parse(to, from));
        let Some(to) = to else {
            return Err(CallError::from(error.clone()).into());
        };
        let link = self.link(&to)?;
        if !asking {
            return Ok(link.call(cmd, urgency).await?);
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("ASKING");
        pipeline.add_command(cmd.clone());
        let mut answers = link.call_all(&pipeline, urgency).await?;
        match answers.pop() {
            Some(answer) => Ok(answer.map_err(CallError::from)?),
            None => Err(Error::new(ErrorKind::Protocol(
                "no answer after ASKING".to_owned(),
            ))),
        }
    }

    async fn map(self: &Arc<Self>) -> Result<Arc<Map>> {
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

    /// Replaces `seen` unless somebody else already has.
    async fn refresh(self: &Arc<Self>, seen: &Arc<Map>) -> Result<()> {
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
        let cluster = self.clone();
        tokio::spawn(async move {
            if let Some(seen) = cluster.known()
                && let Err(error) = cluster.refresh(&seen).await
            {
                tracing::debug!(%error, "the cluster's topology could not be refreshed");
            }
        });
    }

    /// Asks known primaries, then seeds, until one describes the cluster.
    async fn discover(self: &Arc<Self>) -> Result<Arc<Map>> {
        let known = self.known();
        let known = known
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
        let mut failure = Error::new(ErrorKind::Unavailable(
            "no node of the cluster is known".to_owned(),
        ));
        for node in known.chain(seeds) {
            match self.ask(&node).await {
                Ok(map) => {
                    let map = Arc::new(map);
                    self.forget_all_but(&map);
                    *self.map.write().unwrap_or_else(PoisonError::into_inner) = Some(map.clone());
                    return Ok(map);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
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
            return Err(Error::new(ErrorKind::Protocol(
                "one answer for two commands".to_owned(),
            )));
        };
        let view = View::read(&info.map_err(CallError::from)?)?;
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

    fn link(&self, node: &Node) -> Result<Arc<Link>> {
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
            Error::new(ErrorKind::Config(
                "a cluster needs at least one node".to_owned(),
            ))
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

/// What one primary answered to the command and to the question how it sees the cluster.
fn acknowledgement(
    answers: Result<Vec<Result<Value, RedisError>>, CallError>,
    read: impl Fn(Value) -> Result<u64>,
) -> Result<(u64, View)> {
    let Ok([count, view]) = <[_; 2]>::try_from(answers?) else {
        return Err(Error::new(ErrorKind::Protocol(
            "one answer for two commands".to_owned(),
        )));
    };
    let count = read(count.map_err(CallError::from)?)?;
    let view = View::read(&view.map_err(CallError::from)?)?;
    Ok((count, view))
}
