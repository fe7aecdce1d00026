//! `MCACHE.SETTLE`, and how many leases an invalidation has to wait for.

use super::Feed;
use super::prefixes::Prefixes;
use super::settle::{Settled, Unsettled, Wait};

/// Comparisons of tags with prefixes that one INVALIDATE ... NEAR makes; beyond, every subscription counts.
const MAX_COMPARED: usize = 16_384;

/// What has to be waited for until an invalidation is settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Waits {
    /// Leases that may run, those of predecessors as one. With 0 it is settled.
    pub leases: u64,
    /// How long the longest of them runs at most, in microseconds.
    pub longest_us: u64,
}

impl Waits {
    fn add(&mut self, until_us: u64, now_us: u64) {
        self.leases += 1;
        self.longest_us = self.longest_us.max(until_us - now_us);
    }
}

/// What becomes of a SETTLE.
#[derive(Debug)]
pub enum Settling {
    /// It is answered at once.
    Now(Settled),
    /// It is to be parked: [`Feed::park_settle`].
    Wait(Unsettled),
}

impl<W: Copy + Ord> Feed<W> {
    /// What an invalidation of these tags, which was logged just now, has to wait for.
    pub fn waits<'a>(
        &self,
        db: u32,
        tags: impl Iterator<Item = &'a [u8]> + Clone,
        now_us: u64,
    ) -> Waits {
        let mut waits = Waits::default();
        if let Some(until_us) = self.grants.predecessors(now_us) {
            waits.add(until_us, now_us);
        }
        let mut compared = 0;
        let mut concerned = Vec::new();
        for (id, group) in self.groups.iter().filter(|(_, group)| group.db == db) {
            let covers = compared > MAX_COMPARED
                || tags.clone().any(|tag| {
                    compared += group.prefixes.weight();
                    compared > MAX_COMPARED || group.prefixes.cover(tag)
                });
            if covers {
                concerned.push(id);
            }
        }
        concerned.sort_unstable();
        for known in self.subscriptions.values() {
            if known.lease_end_us > now_us && concerned.binary_search(&known.group).is_ok() {
                waits.add(known.lease_end_us, now_us);
            }
        }
        waits
    }

    /// Asks whether everything logged so far is settled with the subscriptions of a database whose prefixes overlap.
    /// With a `timeout_us` of 0 it is answered at once.
    pub fn settle(
        &mut self,
        db: u32,
        prefixes: &Prefixes,
        timeout_us: u64,
        now_us: u64,
    ) -> Settling {
        self.tell_who_left();
        self.stats.settles += 1;
        let mut so_far = Settled::default();
        let mut waits = Vec::new();
        if let Some(ends_us) = self.grants.predecessors(now_us) {
            waits.push(Wait {
                subscription: None,
                target: u64::MAX,
                ends_us,
            });
        }
        let concerned: Vec<u32> = self
            .groups
            .iter()
            .filter(|(_, group)| group.db == db && group.prefixes.overlap(prefixes))
            .map(|(id, _)| id)
            .collect();
        // Where the log has stopped since, only time settles.
        let mut targets: Vec<(u32, u64)> = Vec::with_capacity(concerned.len());
        for id in concerned {
            let target = match (&self.log, self.groups.get_mut(id)) {
                (Some(log), Some(group)) => group.latest(log),
                _ => u64::MAX,
            };
            targets.push((id, target));
        }
        targets.sort_unstable();
        for (id, known) in &self.subscriptions {
            let Ok(at) = targets.binary_search_by_key(&known.group, |(group, _)| *group) else {
                continue;
            };
            let current = known.generation == self.generation;
            let target = if current { targets[at].1 } else { u64::MAX };
            if known.confirmed >= target {
                so_far.confirmed += 1;
            } else if known.lease_end_us <= now_us {
                so_far.ran_out += 1;
            } else {
                waits.push(Wait {
                    subscription: Some(*id),
                    target,
                    ends_us: known.lease_end_us,
                });
            }
        }
        so_far.waiting = waits.len() as u64;
        if waits.is_empty() || timeout_us == 0 || !self.settles.has_room_for(waits.len()) {
            self.stats.settles_at_once += u64::from(!waits.is_empty());
            return Settling::Now(so_far);
        }
        Settling::Wait(Unsettled {
            so_far,
            waits,
            began_us: now_us,
            until_us: now_us.saturating_add(timeout_us),
        })
    }

    /// Parks a SETTLE that is to wait.
    pub fn park_settle(&mut self, unsettled: Unsettled, handle: W) {
        self.settles.park(unsettled, handle);
    }

    /// A client that is parked in SETTLE is gone, or is not to wait any more: how it stands.
    pub fn unpark_settle(&mut self, handle: W, now_us: u64) -> Option<Settled> {
        self.settles.forget(handle, now_us)
    }
}
