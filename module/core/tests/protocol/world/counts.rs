//! What happened in a history, to see that it did.

/// What happened, to see that it did.
#[derive(Default, Debug)]
pub struct Counts {
    pub hits: u64,
    pub stale_hits: u64,
    pub early: u64,
    pub loads: u64,
    pub parked: u64,
    pub releases: u64,
    pub vanished: u64,
    pub invalidations: u64,
    pub retried: u64,
    pub in_doubt: u64,
    pub failovers: u64,
    pub restarts: u64,
    pub flushes: u64,
    pub migrations: u64,
    pub clock_jumps: u64,
    pub replica_restarts: u64,
    pub full_syncs: u64,
    pub digests: u64,
}

impl Counts {
    pub fn named(&self) -> [(&'static str, u64); 18] {
        [
            ("a hit", self.hits),
            ("a stale hit", self.stale_hits),
            ("an early refresh", self.early),
            ("a load", self.loads),
            ("a wait", self.parked),
            ("a release", self.releases),
            ("a disconnect", self.vanished),
            ("an invalidation", self.invalidations),
            ("a retry", self.retried),
            ("a refusal in doubt", self.in_doubt),
            ("a failover", self.failovers),
            ("a restart", self.restarts),
            ("a flush", self.flushes),
            ("a migration", self.migrations),
            ("a clock that jumps", self.clock_jumps),
            ("a replica that restarts", self.replica_restarts),
            ("a full synchronisation", self.full_syncs),
            ("a comparison of digests", self.digests),
        ]
    }

    pub fn add(&mut self, other: &Counts) {
        self.hits += other.hits;
        self.stale_hits += other.stale_hits;
        self.early += other.early;
        self.loads += other.loads;
        self.parked += other.parked;
        self.releases += other.releases;
        self.vanished += other.vanished;
        self.invalidations += other.invalidations;
        self.retried += other.retried;
        self.in_doubt += other.in_doubt;
        self.failovers += other.failovers;
        self.restarts += other.restarts;
        self.flushes += other.flushes;
        self.migrations += other.migrations;
        self.clock_jumps += other.clock_jumps;
        self.replica_restarts += other.replica_restarts;
        self.full_syncs += other.full_syncs;
        self.digests += other.digests;
    }
}
