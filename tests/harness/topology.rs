//! Several servers that belong together.
//!
//! Owns how they find each other and when they are ready. It must not know how one server is run.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::server::free_port;
use crate::{KillOnDrop, Proxy, ScratchDir, Server, ServerBuilder, Session, line, locate, wait};

/// A primary and its replicas.
pub struct Replicated {
    /// Takes the writes.
    pub primary: Server,
    /// Follow it, or (after [`Replicated::chained`]) each the one before.
    pub replicas: Vec<Server>,
}

impl Replicated {
    /// Starts `replicas` replicas of one primary and waits until they follow.
    pub fn start(replicas: usize) -> Self {
        Self::start_with(replicas, Server::builder())
    }

    /// As [`Replicated::start`], every server with these options.
    pub fn start_with(replicas: usize, options: ServerBuilder) -> Self {
        let primary = options.clone().tcp().start();
        let replicas = (0..replicas)
            .map(|_| follow(&primary, options.clone()))
            .collect();
        let replicated = Self { primary, replicas };
        replicated.sync();
        replicated
    }

    /// A primary, its replica, that one's replica, and so on.
    pub fn chained(replicas: usize, options: ServerBuilder) -> Self {
        let primary = options.clone().tcp().start();
        let mut chain: Vec<Server> = Vec::new();
        for _ in 0..replicas {
            let next = follow(chain.last().unwrap_or(&primary), options.clone());
            chain.push(next);
        }
        let replicated = Self {
            primary,
            replicas: chain,
        };
        replicated.sync();
        replicated
    }

    /// Waits until every replica has applied what the primary has written so far.
    pub fn sync(&self) {
        let mut primary = self.primary.session();
        // Each command is replicated with what it decided, so the offset is final once a later command has answered.
        let written = primary.info("replication", "master_repl_offset");
        for replica in &self.replicas {
            let mut session = replica.session();
            wait::until("the replica has applied what the primary wrote", || {
                session.info_text("replication", "master_link_status") == "up"
                    && session.info("replication", "slave_repl_offset") >= written
            });
        }
    }

    /// Waits as [`Replicated::sync`] and compares the data sets.
    ///
    /// # Panics
    ///
    /// When a replica's digest differs from the primary's.
    pub fn assert_same(&self) {
        self.sync();
        let mut primary = self.primary.session();
        let expected = digest(&mut primary);
        for (number, replica) in self.replicas.iter().enumerate() {
            let mut replica = replica.session();
            if digest(&mut replica) != expected {
                let differing = differences(&mut primary, &mut replica);
                panic!("replica {number} differs from the primary in {differing:#?}");
            }
        }
    }
}

/// A replica of `primary`, linked to it.
pub fn follow(primary: &Server, options: ServerBuilder) -> Server {
    let replica = options
        .set("replicaof", format!("127.0.0.1 {}", primary.port()))
        .tcp()
        .start();
    await_link(&replica);
    replica
}

/// Waits until a replica's link to its primary is up.
pub fn await_link(replica: &Server) {
    let mut session = replica.session();
    wait::until("the replica is linked to its primary", || {
        session.info_text("replication", "master_link_status") == "up"
    });
}

/// Whether a server is a primary at this moment; it may be about to change, and then closes its connections.
pub fn is_primary(server: &Server) -> bool {
    let role = server.session().try_run("ROLE");
    matches!(role, Ok(redis::Value::Array(parts)) if parts.first() == Some(&redis::Value::BulkString(b"master".to_vec())))
}

/// What `DEBUG DIGEST` says of the data set.
pub fn digest(session: &mut Session) -> String {
    session.typed("DEBUG DIGEST")
}

/// The keys that one server has otherwise than the other, with both digests.
fn differences(ours: &mut Session, theirs: &mut Session) -> Vec<String> {
    let databases: usize = ours.list("CONFIG GET databases")[1]
        .parse()
        .expect("a number");
    let mut differing = Vec::new();
    for db in 0..databases {
        for session in [&mut *ours, &mut *theirs] {
            session.ok(&format!("SELECT {db}"));
        }
        let mut keys = ours.scan("SCAN {}");
        keys.extend(theirs.scan("SCAN {}"));
        keys.sort();
        keys.dedup();
        for key in keys {
            let line = format!("DEBUG DIGEST-VALUE {}", line::join(&[&key]));
            let (our, their) = (ours.list(&line), theirs.list(&line));
            let (our_end, their_end) = (expiry(ours, &key), expiry(theirs, &key));
            if our != their || our_end != their_end {
                differing.push(format!(
                    "{key} in database {db}: {our:?} until {our_end}, {their:?} until {their_end}"
                ));
            }
        }
    }
    differing
}

fn expiry(session: &mut Session, key: &str) -> i64 {
    session.int(&format!("PEXPIRETIME {}", line::join(&[key])))
}

/// After how long they take a server for dead. One that is short of processor time must not be.
const SILENCE_MS: u32 = 2_000;

/// Sentinels that watch one primary.
pub struct Sentinels {
    _dirs: Vec<ScratchDir>,
    children: Vec<KillOnDrop>,
    /// Their ports.
    pub ports: Vec<u16>,
    /// The name under which they know the primary.
    pub name: &'static str,
}

impl Sentinels {
    /// Starts three that fail over after two seconds of silence and waits until they know each other and the replicas.
    pub fn watch(replicated: &Replicated) -> Self {
        const COUNT: usize = 3;
        let mut sentinels = Self {
            _dirs: Vec::new(),
            children: Vec::new(),
            ports: Vec::new(),
            name: "store",
        };
        for _ in 0..COUNT {
            sentinels.add(replicated.primary.port());
        }
        let replicas = replicated.replicas.len();
        wait::until("the sentinels know each other and the replicas", || {
            sentinels.ports.iter().all(|port| {
                let line = format!("SENTINEL MASTER {}", sentinels.name);
                let Some(state) = ask::<BTreeMap<String, String>>(*port, &line) else {
                    return false;
                };
                state["num-slaves"] == replicas.to_string()
                    && state["num-other-sentinels"] == (COUNT - 1).to_string()
            })
        });
        sentinels
    }

    /// Waits until each of them leads to this server.
    pub fn await_primary(&self, primary: &Server) {
        let line = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {}", self.name);
        let port = primary.port().to_string();
        wait::until("all sentinels name the new primary", || {
            self.ports.iter().all(|sentinel| {
                ask::<(String, String)>(*sentinel, &line).is_some_and(|(_, named)| named == port)
            })
        });
    }

    fn add(&mut self, primary_port: u16) {
        let dir = ScratchDir::new("sentinel");
        let port = free_port();
        let name = self.name;
        let config = dir.path().join("sentinel.conf");
        let lines = format!(
            "port {port}\nbind 127.0.0.1\ndir {dir}\nlogfile sentinel.log\n\
             sentinel monitor {name} 127.0.0.1 {primary_port} 2\n\
             sentinel down-after-milliseconds {name} {SILENCE_MS}\n\
             sentinel failover-timeout {name} 5000\n",
            dir = dir.path().display()
        );
        fs::write(&config, lines).expect("the scratch directory takes a file");
        let child = Command::new(locate::redis("redis-server"))
            .arg(&config)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("redis-server: {e}; `make setup` installs it"));
        self.ports.push(port);
        self.children.push(KillOnDrop(child));
        self._dirs.push(dir);
    }
}

/// A cluster whose nodes can be cut off from each other: each knows the others by the addresses of proxies, and tells
/// by the loopback address it comes from who it is.
pub struct DividableCluster {
    /// The nodes; [`Server::session`] goes past the proxies.
    pub cluster: Cluster,
    /// In the order of the nodes.
    ways: Vec<Way>,
}

/// The way to a node.
struct Way {
    clients: Proxy,
    bus: Proxy,
    /// Where the connections of the node itself come from.
    source: Ipv4Addr,
}

impl DividableCluster {
    /// As [`Cluster::start_with`].
    pub fn start_with(options: ServerBuilder) -> Self {
        let nodes = Cluster::nodes(options);
        let ways: Vec<Way> = (2..)
            .zip(&nodes)
            .map(|(number, node)| {
                let mut session = node.session();
                let bus_port = &session.list("CONFIG GET cluster-port")[1];
                let way = Way {
                    clients: Proxy::to_port(node.port()),
                    bus: Proxy::to_port(bus_port.parse().expect("a port")),
                    source: Ipv4Addr::new(127, 0, 0, number),
                };
                for (directive, value) in [
                    ("bind-source-addr", way.source.to_string()),
                    ("cluster-announce-ip", "127.0.0.1".to_owned()),
                    ("cluster-announce-port", way.clients.port().to_string()),
                    ("cluster-announce-bus-port", way.bus.port().to_string()),
                ] {
                    session.ok(&format!("CONFIG SET {directive} {value}"));
                }
                way
            })
            .collect();
        let addresses: Vec<_> = ways
            .iter()
            .map(|way| format!("127.0.0.1:{}@{}", way.clients.port(), way.bus.port()))
            .collect();
        let cluster = Cluster::join(nodes, &addresses);
        Self { cluster, ways }
    }

    /// From now on nothing passes between this node and the others, nor between it and clients, except those of
    /// [`Server::session`]. No peer is told: connections stay open, as when a cable is cut.
    pub fn cut_off(&self, node: &Server) {
        self.cut_off_from_nodes(node);
        self.ways[self.number(node)].clients.stall();
    }

    /// As [`DividableCluster::cut_off`], but clients reach every node.
    pub fn cut_off_from_nodes(&self, node: &Server) {
        let cut = self.number(node);
        for other in (0..self.ways.len()).filter(|n| *n != cut) {
            for (way, source) in [(cut, other), (other, cut)] {
                let source = self.ways[source].source.into();
                self.ways[way].clients.stall_from(source);
                self.ways[way].bus.stall_from(source);
            }
        }
    }

    fn number(&self, node: &Server) -> usize {
        let same = |n: &Server| n.pid() == node.pid();
        let number = self.cluster.nodes.iter().position(same);
        number.expect("one of ours")
    }

    /// Delivers everything again, what was kept back as well.
    pub fn heal(&self) {
        for way in &self.ways {
            way.clients.heal();
            way.bus.heal();
        }
    }

    /// The address to give a cluster client.
    pub fn url(&self) -> String {
        cluster_url(self.ways.iter().map(|way| way.clients.port()))
    }
}

fn cluster_url(ports: impl Iterator<Item = u16>) -> String {
    let nodes: Vec<_> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
    format!("redis+cluster://{}", nodes.join(","))
}

/// Three primaries, each with one replica, all slots covered.
pub struct Cluster {
    /// Every node, in no order that means anything: roles change.
    pub nodes: Vec<Server>,
}

impl Cluster {
    /// Starts it through `redis-cli --cluster create` and waits until every node finds it healthy.
    pub fn start() -> Self {
        Self::start_with(Server::builder())
    }

    /// As [`Cluster::start`], every node with these options.
    pub fn start_with(options: ServerBuilder) -> Self {
        let nodes = Self::nodes(options);
        let addresses: Vec<_> = nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        Self::join(nodes, &addresses)
    }

    fn nodes(options: ServerBuilder) -> Vec<Server> {
        const NODES: usize = 6;
        let options = options.set("cluster-node-timeout", 2000).cluster();
        (0..NODES).map(|_| options.clone().start()).collect()
    }

    fn join(nodes: Vec<Server>, addresses: &[String]) -> Self {
        let output = Command::new(cli())
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap_or_else(|e| panic!("redis-cli: {e}; `make setup` installs it"));
        assert!(
            output.status.success(),
            "redis-cli --cluster create:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let cluster = Self { nodes };
        cluster.await_health();
        cluster
    }

    /// Waits until every running node says the cluster is up and its replicas are linked.
    pub fn await_health(&self) {
        for node in &self.nodes {
            let mut session = node.session();
            wait::until("the cluster is healthy", || {
                let info: String = session.typed("CLUSTER INFO");
                let known = info.contains(&format!("cluster_known_nodes:{}", self.nodes.len()));
                let linked = session.info_text("replication", "role") == "master"
                    || session.info_text("replication", "master_link_status") == "up";
                info.contains("cluster_state:ok") && known && linked
            });
        }
    }

    /// The address to give a cluster client of ours.
    pub fn url(&self) -> String {
        cluster_url(self.nodes.iter().map(Server::port))
    }

    /// The nodes that are primaries at this moment.
    pub fn primaries(&self) -> impl Iterator<Item = &Server> {
        self.nodes.iter().filter(|node| is_primary(node))
    }
}

fn cli() -> PathBuf {
    locate::redis("redis-cli")
}

/// What a server that may not be there yet says to this; `None` if it says nothing, or something else.
fn ask<T: redis::FromRedisValue>(port: u16, line: &str) -> Option<T> {
    let client = redis::Client::open(("127.0.0.1", port)).ok()?;
    let mut session = Session::new(client.get_connection().ok()?);
    redis::from_redis_value(session.try_run(line).ok()?).ok()
}
