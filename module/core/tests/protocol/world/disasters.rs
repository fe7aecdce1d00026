//! What goes wrong: failovers, restarts, full synchronisations, migrations.

use super::{Disaster, Event, KEYS, Key, SHARDS, SKEW_MS, World, started};
use crate::server::{Dump, Request, Server};

impl World {
    pub(super) fn disaster(&mut self, disaster: Disaster) {
        let shard = self.rng.usize(..SHARDS);
        match disaster {
            Disaster::Failover => self.failover(shard),
            Disaster::Restart => self.restart(shard),
            Disaster::ReplicaRestart => self.replica_restart(shard),
            Disaster::ClockJump => {
                self.counts.clock_jumps += 1;
                self.shards[shard].skew_ms = self.rng.i64(-SKEW_MS..=SKEW_MS);
            }
            Disaster::Migrate => self.migrate(shard),
            Disaster::Flush => {
                self.counts.flushes += 1;
                let now_ms = self.clock_ms(shard);
                let random = self.rng.u64(..);
                let server = &mut self.shards[shard].primary;
                server.handle(0, Request::Flush, random, now_ms);
                self.schedule_replication(shard);
            }
        }
    }

    /// The primary dies with what it had not replicated; clients that were connected to it hear so.
    pub(super) fn failover(&mut self, shard: usize) {
        self.counts.failovers += 1;
        let (incarnation, drop) = (self.rng.u64(..), !self.keep_on_promote);
        // The replica has a clock of its own.
        self.shards[shard].skew_ms = self.rng.i64(-SKEW_MS..=SKEW_MS);
        let now_ms = self.clock_ms(shard);
        let next = Server::new(self.rng.u64(..), now_ms, false);
        let this = &mut self.shards[shard];
        this.primary = std::mem::replace(&mut this.replica, next);
        this.primary.promote(incarnation, drop, now_ms);
        self.new_term(shard);
    }

    /// A replica is killed and starts again with a file of its own, written at any moment; it finds its primary and
    /// goes on with the operation behind the file.
    pub(super) fn replica_restart(&mut self, shard: usize) {
        self.counts.replica_restarts += 1;
        let now_ms = self.clock_ms(shard);
        let incarnation = self.rng.u64(..);
        let this = &mut self.shards[shard];
        let file = this.replica.data_set(now_ms);
        let mut replica = Server::new(incarnation, now_ms, false);
        replica.load(&file, true, now_ms);
        assert_eq!(
            replica.served(now_ms),
            [],
            "before its primary confirmed it"
        );
        this.replica = started(replica);
        this.replica.linked();
        this.replica.check();
    }

    /// The replica lost its link for too long: it takes the whole data set, in the middle of other steps.
    pub(super) fn full_sync(&mut self, shard: usize) {
        self.counts.full_syncs += 1;
        let now_ms = self.clock_ms(shard);
        let mut replica = started(Server::new(self.rng.u64(..), now_ms, false));
        let this = &mut self.shards[shard];
        let data_set = this.primary.data_set(now_ms);
        replica.load(&data_set, true, now_ms);
        this.replica = replica;
        this.applied = this.primary.log.len();
        self.compare(shard, now_ms);
    }

    /// When nothing is under way, a replica has what its primary has.
    pub(super) fn compare(&mut self, shard: usize, now_ms: u64) {
        self.counts.digests += 1;
        let this = &mut self.shards[shard];
        this.primary.tell_floor();
        for op in &this.primary.log[this.applied..] {
            this.replica.apply(op, now_ms);
        }
        this.applied = this.primary.log.len();
        this.replica.check();
        let (ours, mut theirs) = (this.primary.digest(), this.replica.digest());
        // RESTORE is Redis's command and is passed on as it came. If its primary did not believe the entry, a replica
        // hears so with the deletion, in the next slice.
        for key in this.primary.husks() {
            theirs.entry(key).and_modify(|kept| *kept = None);
        }
        assert_eq!(ours, theirs, "primary and replica");
    }

    /// The server is killed and starts again, with a file that is complete (`appendfsync always`).
    pub(super) fn restart(&mut self, shard: usize) {
        self.counts.restarts += 1;
        let now_ms = self.clock_ms(shard);
        let drop = self.rng.bool();
        let file = self.shards[shard].primary.data_set(now_ms);
        let mut primary = Server::new(self.rng.u64(..), now_ms, true);
        primary.load(&file, drop, now_ms);
        self.shards[shard].primary = started(primary);
        self.new_term(shard);
    }

    pub(super) fn new_term(&mut self, shard: usize) {
        let now_ms = self.clock_ms(shard);
        let replica = started(Server::new(self.rng.u64(..), now_ms, false));
        let this = &mut self.shards[shard];
        this.counts_of_the_dead(&mut self.counts);
        this.term += 1;
        // A full synchronisation.
        let data_set = this.primary.data_set(now_ms);
        this.primary.log.clear();
        this.replica = replica;
        this.replica.load(&data_set, true, now_ms);
        this.applied = 0;
        let held_up = this.held_up.take().unwrap_or_default();
        this.primary.check();
        this.replica.check();
        for (client, _) in held_up {
            self.lost(client);
        }
        // A client that was parked or in the middle of something finds the connection closed.
        let readers: Vec<u64> = self
            .readers
            .iter()
            .filter(|(_, reader)| reader.shard == shard)
            .map(|(client, _)| *client)
            .collect();
        for client in readers {
            let delay_ms = self.delay_ms();
            self.after(delay_ms, Event::Lost { client });
        }
        self.after(0, Event::Reclaim { shard });
    }

    /// MIGRATE of one key: the source waits until the other side has taken it, which may have heard of invalidations in
    /// the meantime.
    pub(super) fn migrate(&mut self, from: usize) {
        let key = self.rng.u8(..KEYS);
        let to = (from + 1) % SHARDS;
        let busy = self.shards.iter().any(|shard| shard.held_up.is_some());
        if busy || self.owner[usize::from(key)] != from {
            return;
        }
        self.counts.migrations += 1;
        let now_ms = self.clock_ms(from);
        let dump = self.shards[from].primary.dump(key, now_ms);
        self.shards[from].held_up = Some(Vec::new());
        let (term, to_term) = (self.shards[from].term, self.shards[to].term);
        let delay_ms = self.rng.u64(0..100);
        let event = Event::MigrateArrives {
            from,
            term,
            to,
            to_term,
            dump,
            key,
        };
        self.after(delay_ms, event);
    }

    pub(super) fn migrate_arrives(
        &mut self,
        from: usize,
        term: u64,
        to: usize,
        to_term: u64,
        dump: Option<Dump>,
        key: Key,
    ) {
        if self.shards[to].term == to_term
            && let Some(dump) = &dump
        {
            let now_ms = self.clock_ms(to);
            self.shards[to].primary.restore(dump, now_ms);
            self.after(0, Event::Reclaim { shard: to });
            self.schedule_replication(to);
        }
        let delay_ms = self.delay_ms();
        self.after(
            delay_ms,
            Event::MigrateEnds {
                from,
                term,
                to,
                key,
            },
        );
    }

    pub(super) fn migrate_ends(&mut self, from: usize, term: u64, to: usize, key: Key) {
        if self.shards[from].term != term {
            return;
        }
        self.shards[from].primary.migrated(key);
        self.owner[usize::from(key)] = to;
        self.schedule_replication(from);
        let held_up = self.shards[from].held_up.take().unwrap_or_default();
        for (client, request) in held_up {
            self.deliver(from, client, request);
        }
    }
}
