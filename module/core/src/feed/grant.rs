//! Who may grant near leases, and whose leases may still run.
//!
//! Only a primary that executes writes hears of every invalidation, so only it grants. The server that takes over from
//! it does not know whom it granted leases to, so it waits for the longest there can be: its *predecessor*.

use super::lease;

/// What the server knows about itself; asked at each call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// It is a primary, as far as it knows.
    pub primary: bool,
    /// It is reading its data set.
    pub loading: bool,
    /// In a cluster: it is up, sees the majority and owns slots. True outside of one.
    pub cluster_ok: bool,
    /// As many replicas as `min-replicas-to-write` asks for are connected, and no failed save refuses writes.
    pub writes_allowed: bool,
}

impl Standing {
    /// A primary in order.
    pub const GOOD: Standing = Standing {
        primary: true,
        loading: false,
        cluster_ok: true,
        writes_allowed: true,
    };
}

/// Why no near lease is granted. The text is the reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Refusal {
    #[error(
        "NONEAR the feed is switched off here: CONFIG SET mcache.feed yes, on all servers alike"
    )]
    Off,
    #[error("NONEAR a replica grants no near leases: subscribe to the primary")]
    Replica,
    #[error("NONEAR this server is loading its data set")]
    Loading,
    #[error("NONEAR this cluster node is down, does not see the majority or owns no slots")]
    Cluster,
    #[error("NONEAR this server does not execute writes: min-replicas-to-write, or a failed save")]
    Writes,
    #[error("NONEAR this server did not run for a while and grants nothing for one lease")]
    Frozen,
    #[error("NONEAR too many subscriptions: mcache.max-subscribers is {0}")]
    Full(usize),
    #[error("NONEAR a later call of this subscription took the place of this one")]
    Replaced,
}

/// Decides who may be granted a lease.
#[derive(Debug)]
pub(super) struct Grants {
    /// When the server was last seen running.
    ran_us: u64,
    /// Until then it grants nothing, because it did not run.
    none_until_us: u64,
    /// Until then a predecessor's leases may run.
    predecessors_until_us: u64,
}

/// A server that did not run for less than this was busy, not frozen. Nothing can have been granted by a successor that
/// soon: it waits for its predecessors first, and the cron runs ten times a second.
const BUSY_US: u64 = 300_000;

impl Grants {
    pub fn new(now_us: u64) -> Self {
        Grants {
            ran_us: now_us,
            none_until_us: 0,
            predecessors_until_us: 0,
        }
    }

    /// The server runs. To be said at least ten times a second, and before anything is granted.
    pub fn run(&mut self, lease_ms: u64, now_us: u64) {
        let lease_us = lease_ms * 1_000;
        if now_us.saturating_sub(self.ran_us) >= lease_us.max(BUSY_US) {
            self.none_until_us = now_us + lease_us;
        }
        self.ran_us = now_us;
    }

    /// The server runs, and need not have said so while the feed was off.
    pub fn resumed(&mut self, now_us: u64) {
        self.ran_us = now_us;
    }

    /// From now on there may be leases that another server granted, or this one before.
    pub fn succeed(&mut self, now_us: u64) {
        let until_us = now_us + lease::predecessors_us();
        self.predecessors_until_us = self.predecessors_until_us.max(until_us);
    }

    /// Until when predecessors' leases may run; `None` if none does.
    pub fn predecessors(&self, now_us: u64) -> Option<u64> {
        (self.predecessors_until_us > now_us).then_some(self.predecessors_until_us)
    }

    /// Whether a lease may be granted now.
    pub fn may(&self, standing: Standing, now_us: u64) -> Result<(), Refusal> {
        match standing {
            Standing { primary: false, .. } => Err(Refusal::Replica),
            Standing { loading: true, .. } => Err(Refusal::Loading),
            Standing {
                cluster_ok: false, ..
            } => Err(Refusal::Cluster),
            Standing {
                writes_allowed: false,
                ..
            } => Err(Refusal::Writes),
            _ if self.none_until_us > now_us => Err(Refusal::Frozen),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_primary_that_executes_writes_grants() {
        let grants = Grants::new(0);
        let good = Standing::GOOD;
        assert_eq!(grants.may(good, 1), Ok(()));
        for (standing, refusal) in [
            (
                Standing {
                    primary: false,
                    ..good
                },
                Refusal::Replica,
            ),
            (
                Standing {
                    loading: true,
                    ..good
                },
                Refusal::Loading,
            ),
            (
                Standing {
                    cluster_ok: false,
                    ..good
                },
                Refusal::Cluster,
            ),
            (
                Standing {
                    writes_allowed: false,
                    ..good
                },
                Refusal::Writes,
            ),
        ] {
            assert_eq!(grants.may(standing, 1), Err(refusal));
        }
    }

    #[test]
    fn a_server_that_did_not_run_for_one_lease_grants_nothing_for_the_next() {
        let mut grants = Grants::new(0);
        grants.run(1_000, 900_000);
        assert_eq!(grants.may(Standing::GOOD, 900_000), Ok(()));
        grants.run(1_000, 1_900_000);
        assert_eq!(grants.may(Standing::GOOD, 2_899_999), Err(Refusal::Frozen));
        assert_eq!(grants.may(Standing::GOOD, 2_900_000), Ok(()));
    }

    #[test]
    fn predecessors_are_waited_for_as_long_as_the_longest_lease() {
        let mut grants = Grants::new(0);
        assert_eq!(grants.predecessors(0), None);
        grants.succeed(1_000);
        assert_eq!(grants.predecessors(5_201_000), Some(5_201_001));
        assert_eq!(grants.predecessors(5_201_001), None);
        grants.succeed(6_000_000);
        assert!(grants.predecessors(11_200_000).is_some());
    }
}
