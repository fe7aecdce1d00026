//! A Redis Cluster: keys go to the primary that owns their slot, invalidations to every primary.
//!
//! The redis crate has a cluster connection, and it is not used here for two reasons. Sent to all primaries, a command
//! skips nodes it has no connection to and reports success: an invalidation must not. And it has no connection of
//! one's own to a node, which a parked call needs. What is left to do is small, because a cache may give up where a
//! database client must try on: one redirection is followed, anything else is a miss.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::{Cmd, ConnectionInfo, ErrorKind as RedisKind, RedisError, ServerErrorKind, Value};

use super::{
    call::CallError,
    discovery::{Discovery, Map},
    late::Ask,
    link::{Link, Urgency},
    options::LinkOptions,
    slots::{Node, View, slot_of},
};
use crate::{Error, ErrorKind, Result};

/// How often an invalidation follows a topology that changes under it before it leaves the rest to the retry.
const INVALIDATION_ROUNDS: usize = 4;

/// See the module.
#[derive(Clone)]
pub(super) struct Cluster {
    discovery: Arc<Discovery>,
}

impl Cluster {
    pub(super) fn new(seeds: Vec<ConnectionInfo>, options: LinkOptions) -> Self {
        Self {
            discovery: Discovery::new(seeds, options),
        }
    }

    /// The topology may have changed.
    pub(super) fn refresh_soon(&self) {
        self.discovery.refresh_soon();
    }

    /// The primaries, if the cluster describes itself and every slot has an owner.
    pub(super) async fn primaries(&self) -> Result<Vec<Arc<Link>>> {
        let map = self.discovery.map().await?;
        match map.ownership.is_complete() {
            true => Ok(map.links.clone()),
            false => Err(Error::new(
                ErrorKind::Unavailable,
                "some slots have no owner".to_owned(),
            )),
        }
    }

    /// What is known of the cluster.
    pub(super) async fn map(&self) -> Result<Arc<Map>> {
        self.discovery.map().await
    }

    /// The primaries, whether or not every slot has an owner.
    pub(super) async fn nodes(&self) -> Result<Vec<Node>> {
        Ok(self.discovery.map().await?.ownership.primaries.clone())
    }

    /// The primary that owns the key.
    pub(super) async fn node_of(&self, key: &[u8]) -> Result<Node> {
        let map = self.discovery.map().await?;
        Ok(map.link_for(key)?.0.clone())
    }

    pub(super) fn link(&self, node: &Node) -> Result<Arc<Link>> {
        self.discovery.link(node)
    }

    /// The node that owns the key's slot.
    pub(super) async fn link_for(&self, key: &[u8]) -> Result<Arc<Link>> {
        Ok(self.discovery.map().await?.link_for(key)?.1.clone())
    }

    /// A command for one key, to the node that owns it.
    pub(super) async fn call(&self, key: &[u8], ask: impl Ask, urgency: Urgency) -> Result<Value> {
        let map = self.discovery.map().await?;
        let (node, link) = map.link_for(key)?;
        match link.call(ask, urgency).await {
            Err(CallError::Redis(error)) if error.is_cluster_error() => {
                self.redirect(&error, node, ask, urgency).await
            }
            answer => self.doubt_silence(answer),
        }
    }

    /// As [`call`](Self::call), for a value of so many bytes. A redirection ends it: the topology is looked at again.
    pub(super) async fn call_bulk(&self, key: &[u8], ask: impl Ask, bytes: usize) -> Result<Value> {
        let map = self.discovery.map().await?;
        let answer = map.link_for(key)?.1.call_bulk(ask, bytes).await;
        if let Err(CallError::Redis(error)) = &answer
            && error.is_cluster_error()
        {
            self.refresh_soon();
        }
        self.doubt_silence(answer)
    }

    /// As [`call`](Self::call), parked. A redirection ends it: the caller asks again by itself.
    pub(super) async fn call_parked(&self, key: &[u8], cmd: &Cmd, wait: Duration) -> Result<Value> {
        let map = self.discovery.map().await?;
        self.doubt_silence(map.link_for(key)?.1.call_parked(cmd, wait).await)
    }

    /// A node that cannot be used may have a successor by now, and we learn of it only by asking.
    fn doubt_silence(&self, answer: Result<Value, CallError>) -> Result<Value> {
        let answer = answer.map_err(Error::from);
        if answer.as_ref().is_err_and(Error::is_unavailable) {
            self.refresh_soon();
        }
        answer
    }

    /// One command per slot for keys that are spread over them, in their order.
    ///
    /// `command` may say with what an answer is to be read.
    pub(super) async fn call_split<'a, T, A, V>(
        &self,
        keys: &'a [T],
        mut command: impl FnMut(Vec<&'a T>) -> (Cmd, A),
        read: impl Fn(Value, usize, A) -> Result<Vec<Option<V>>>,
    ) -> Result<Vec<Option<V>>>
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
        let parts: Vec<(Vec<usize>, (Cmd, A))> = by_slot
            .into_values()
            .map(|positions| {
                let cmd = command(positions.iter().map(|position| &keys[*position]).collect());
                (positions, cmd)
            })
            .collect();
        let answers = join_all(parts.iter().map(|(positions, (cmd, _))| {
            let first = keys[positions[0]].as_ref();
            self.call(first, cmd, Urgency::Optional)
        }))
        .await;
        let mut found: Vec<Option<V>> = keys.iter().map(|_| None).collect();
        for ((positions, (_, asked)), answer) in parts.into_iter().zip(answers) {
            let values = read(answer?, positions.len(), asked)?;
            for (position, value) in positions.into_iter().zip(values) {
                found[position] = value;
            }
        }
        Ok(found)
    }

    /// A command without a key, to every primary; what each of them answers.
    ///
    /// Success means that every slot's owner has executed it, and that each of them sees the cluster as we do. If one
    /// knows of a newer topology, the command goes to those we did not know of as well. Executing it twice does no
    /// harm.
    pub(super) async fn call_primaries<T>(
        &self,
        cmd: &Cmd,
        read: impl Fn(Value) -> Result<T>,
    ) -> Result<Vec<(Arc<Link>, T)>> {
        let mut acknowledged: HashMap<Node, (Arc<Link>, T)> = HashMap::new();
        for _ in 0..INVALIDATION_ROUNDS {
            let map = self.discovery.map().await?;
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
            let answers = join_all(
                open.iter()
                    .map(|(_, link)| link.call_all(&pipeline, Urgency::MustArrive)),
            )
            .await;
            let mut agreed = map.ownership.is_complete();
            let mut failure = None;
            for ((node, link), answers) in open.into_iter().zip(answers) {
                match acknowledgement(answers, &read) {
                    Ok((answer, view)) => {
                        agreed &= view == map.view;
                        acknowledged.insert(node.clone(), (link.clone(), answer));
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
                None if agreed => return Ok(acknowledged.into_values().collect()),
                None => self.discovery.refresh(&map).await?,
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the cluster's topology is changing".to_owned(),
        ))
    }

    async fn redirect(
        &self,
        error: &RedisError,
        from: &Node,
        ask: impl Ask,
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
        let link = self.discovery.link(&to)?;
        Ok(match asking {
            true => link.call(ask.asking(), urgency).await,
            false => link.call(ask, urgency).await,
        }?)
    }
}

/// What one primary answered to the command and to the question how it sees the cluster.
fn acknowledgement<T>(
    answers: Result<Vec<Result<Value, RedisError>>, CallError>,
    read: impl Fn(Value) -> Result<T>,
) -> Result<(T, View)> {
    let Ok([count, view]) = <[_; 2]>::try_from(answers?) else {
        return Err(Error::new(
            ErrorKind::Protocol,
            "one answer for two commands".to_owned(),
        ));
    };
    let count = read(count.map_err(CallError::from)?)?;
    let view = View::read(&view.map_err(CallError::from)?)?;
    Ok((count, view))
}
