//! Whole slots that move at once, from one primary of a cluster to another, on servers that can do that.
//!
//! Owns a cluster of two primaries, and the commands with which Redis 8.4 and Valkey 9 move slots, which have nothing
//! in common.

use std::ops::RangeInclusive;

use mcache_core::host::SlotMigration;
use mcache_core::slots::slot;
use redis::Value;

use crate::topology::await_link;
use crate::{Server, ServerBuilder, host, wait};

/// The first slot of the second primary.
const MIDDLE: u16 = 8_192;

/// Two primaries with half of the slots each, and a replica for each if wanted.
pub struct Pair {
    /// The two primaries.
    pub primaries: [Server; 2],
    /// Their replicas: none, or one for each.
    pub replicas: Vec<Server>,
}

impl Pair {
    /// Starts it, with replicas or without; `None`, noted as left out, where slots move key by key only.
    pub fn start_with(options: ServerBuilder, replicated: bool) -> Option<Self> {
        if host::program().slot_migration() == SlotMigration::ByKey {
            host::skip("its slots move key by key only");
            return None;
        }
        Some(Self::start(options, replicated))
    }

    fn start(options: ServerBuilder, replicated: bool) -> Self {
        // No node may take another one for dead because the machine is busy.
        let options = options.set("cluster-node-timeout", 60_000).cluster();
        let primaries = [options.clone().start(), options.clone().start()];
        for (number, (node, slots)) in
            (1..).zip(primaries.iter().zip([0..=MIDDLE - 1, MIDDLE..=16_383]))
        {
            let mut session = node.session();
            session.ok(&format!("CLUSTER SET-CONFIG-EPOCH {number}"));
            session.ok(&format!(
                "CLUSTER ADDSLOTSRANGE {} {}",
                slots.start(),
                slots.end()
            ));
        }
        let mut pair = Self {
            primaries,
            replicas: Vec::new(),
        };
        pair.join(&pair.primaries[1]);
        pair.await_health();
        if replicated {
            for at in 0..2 {
                let replica = options.clone().start();
                pair.join(&replica);
                let id = id_of(&pair.primaries[at]);
                let mut session = replica.session();
                wait::until("the replica knows its primary", || {
                    session.try_run(&format!("CLUSTER REPLICATE {id}")).is_ok()
                });
                pair.replicas.push(replica);
            }
            pair.replicas.iter().for_each(await_link);
            pair.await_health();
        }
        pair
    }

    fn join(&self, node: &Server) {
        let bus = &node.session().list("CONFIG GET cluster-port")[1];
        self.primaries[0]
            .session()
            .ok(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port()));
    }

    fn nodes(&self) -> impl Iterator<Item = &Server> {
        self.primaries.iter().chain(&self.replicas)
    }

    /// Waits until every node knows every other and finds the cluster whole.
    pub fn await_health(&self) {
        let known = format!("cluster_known_nodes:{}", self.nodes().count());
        for node in self.nodes() {
            let mut session = node.session();
            wait::until("the cluster is healthy", || {
                let info: String = session.typed("CLUSTER INFO");
                info.contains(&known) && info.contains("cluster_state:ok")
            });
        }
    }

    /// The address to give a cluster client.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self
            .primaries
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port()))
            .collect();
        format!("redis+cluster://{}", addresses.join(","))
    }
}

/// The name by which its cluster knows a node.
pub fn id_of(node: &Server) -> String {
    node.session()
        .text("CLUSTER MYID")
        .expect("every node has an id")
}

/// The first `count` keys of the form `{prefix}{number}` in these slots.
pub fn keys_in(slots: RangeInclusive<u16>, prefix: &str, count: usize) -> Vec<String> {
    (0..)
        .map(|number| format!("{prefix}{number}"))
        .filter(|key| slots.contains(&slot(key.as_bytes())))
        .take(count)
        .collect()
}

/// Slots on their way.
pub struct Move<'a> {
    from: &'a Server,
    to: &'a Server,
    slots: RangeInclusive<u16>,
    /// What Redis calls it.
    task: String,
}

impl<'a> Move<'a> {
    /// Has slots of one primary move to another one.
    ///
    /// # Panics
    ///
    /// When it is refused for good; until every node has heard of the last move it is asked for again.
    pub fn start(from: &'a Server, to: &'a Server, slots: RangeInclusive<u16>) -> Self {
        let (first, last) = (slots.start(), slots.end());
        let task = wait::until_some("the slots begin to move", || {
            match host::program().slot_migration() {
                SlotMigration::Redis => {
                    let line = format!("CLUSTER MIGRATION IMPORT {first} {last}");
                    to.session()
                        .try_run(&line)
                        .map(|task| redis::from_redis_value(task).expect("a name"))
                }
                _ => {
                    let line = format!(
                        "CLUSTER MIGRATESLOTS SLOTSRANGE {first} {last} NODE {}",
                        id_of(to)
                    );
                    from.session().try_run(&line).map(|_| String::new())
                }
            }
        });
        Self {
            from,
            to,
            slots,
            task,
        }
    }

    /// The state that the server names; both words are there while it is under way.
    pub fn state(&self) -> String {
        self.field("state")
    }

    /// What the server says of the migration under this name; nothing if it does not name it.
    fn field(&self, wanted: &str) -> String {
        let (line, server) = match host::program().slot_migration() {
            SlotMigration::Redis => (
                format!("CLUSTER MIGRATION STATUS ID {}", self.task),
                self.to,
            ),
            _ => ("CLUSTER GETSLOTMIGRATIONS".to_owned(), self.from),
        };
        let reply = server.session().run(&line);
        let ours = format!("{}-{}", self.slots.start(), self.slots.end());
        let Value::Array(jobs) = reply else {
            panic!("{line}: {reply:?}")
        };
        // The newest stands first.
        let job = jobs.iter().map(fields).find(|job| {
            Self::is_an_export(job)
                && (!self.task.is_empty() || job.iter().any(|(_, text)| *text == ours))
        });
        let field = job.and_then(|job| job.into_iter().find(|(name, _)| name == wanted));
        field.map(|(_, text)| text).unwrap_or_default()
    }

    /// On Valkey, jobs of both directions are listed.
    fn is_an_export(job: &[(String, String)]) -> bool {
        !job.iter()
            .any(|(name, text)| name == "operation" && text == "IMPORT")
            || host::program().slot_migration() == SlotMigration::Redis
    }

    /// Takes it back.
    pub fn cancel(&self) {
        match host::program().slot_migration() {
            SlotMigration::Redis => self.to.session().run("CLUSTER MIGRATION CANCEL ALL"),
            _ => self.from.session().run("CLUSTER CANCELSLOTMIGRATIONS"),
        };
    }

    /// Waits until it is over and nothing is left to clean up. False if it failed.
    pub fn finish(self) -> bool {
        let moved = wait::until_some("the slots have moved, or not", || {
            let state = self.state();
            moved(host::program().slot_migration(), &state)
                .ok_or_else(|| format!("{state}, {}", self.field("last_error")))
        });
        for server in [self.from, self.to] {
            await_agreement(server);
        }
        moved
    }
}

/// Whether a migration in this state has moved its slots; `None` as long as it is under way.
///
/// Redis tries one that failed again each second, until it is cancelled. The first attempt of a new cluster fails if
/// the nodes have not agreed on their internal password yet.
fn moved(by: SlotMigration, state: &str) -> Option<bool> {
    match state {
        "completed" | "success" => Some(true),
        "canceled" | "cancelled" => Some(false),
        "failed" if by != SlotMigration::Redis => Some(false),
        _ => None,
    }
}

fn fields(job: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    };
    match job {
        Value::Array(flat) => flat
            .chunks(2)
            .map(|pair| (text(&pair[0]), text(&pair[1])))
            .collect(),
        Value::Map(pairs) => pairs
            .iter()
            .map(|(name, value)| (text(name), text(value)))
            .collect(),
        other => panic!("{other:?} is no map"),
    }
}

/// Waits until index and keyspace agree and no key is hidden: a server hides keys of slots that have left, or have not
/// arrived yet, until it has deleted them, or owns them.
pub fn await_agreement(server: &Server) {
    let mut session = server.session();
    wait::until_some("index and keyspace agree", || {
        session.try_run("MCACHE.DEBUG SELFCHECK")?;
        if host::program().slot_migration() != SlotMigration::Redis {
            return Ok(());
        }
        // The self-check finds hidden keys there. A cluster has one database.
        let shown = session.scan("SCAN {} COUNT 1000").len() as i64;
        let entries = session.stat("entries");
        match entries <= shown {
            true => Ok(()),
            false => Err(format!("{entries} entries, {shown} keys are shown")),
        }
    });
}
