//! Settling: who waits until every subscription has confirmed an invalidation or its lease is over.

use std::collections::{BTreeMap, BTreeSet};

/// SETTLEs parked at once; one more is answered at once.
pub const MAX_SETTLES: usize = 1_024;
/// Pairs of a parked SETTLE and a subscription that it waits for; one more SETTLE is answered at once.
pub const MAX_WAITS: usize = 65_536;

/// How it stands with what was to be settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settled {
    /// Subscriptions that have confirmed.
    pub confirmed: u64,
    /// Subscriptions whose lease is over.
    pub ran_out: u64,
    /// Subscriptions, and predecessors as one, that may still serve what was invalidated. With 0 it is settled.
    pub waiting: u64,
}

/// One subscription, or the predecessors, that a SETTLE waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    /// `None`: predecessors, who cannot confirm.
    pub subscription: Option<u64>,
    /// Confirmed by a position from here on.
    pub target: u64,
    /// When the lease ends that it had when the SETTLE arrived. Renewals do not prolong it: what serves under a lease
    /// granted later has applied what was logged before.
    pub ends_us: u64,
}

/// A SETTLE that has to wait, on its way to being parked.
#[derive(Debug)]
pub struct Unsettled {
    pub(super) so_far: Settled,
    pub(super) waits: Vec<Wait>,
    pub(super) began_us: u64,
    pub(super) until_us: u64,
}

impl Unsettled {
    /// What it is told if it is not parked.
    pub fn now(&self) -> Settled {
        self.so_far
    }

    /// How long it takes at most.
    pub fn left_us(&self) -> u64 {
        self.until_us - self.began_us
    }
}

struct Parked<W> {
    handle: W,
    state: Settled,
    began_us: u64,
    until_us: u64,
    /// What it still waits for: by subscription (`None`: predecessors) the number to be confirmed, and the end of the
    /// lease.
    open: BTreeMap<Option<u64>, (u64, u64)>,
}

/// What ends at a moment: a lease that is waited for, or the patience of a SETTLE. Leases first, so that an answer is
/// as good as it can be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum End {
    Lease { settle: u64, of: Option<u64> },
    Patience { settle: u64 },
}

/// All parked SETTLEs.
pub(super) struct Settles<W> {
    parked: BTreeMap<u64, Parked<W>>,
    by_handle: BTreeMap<W, u64>,
    /// By subscription: what number each SETTLE waits for it to confirm.
    waits: BTreeMap<u64, BTreeSet<(u64, u64)>>,
    pairs: usize,
    ends: BTreeSet<(u64, End)>,
    next: u64,
    /// The longest that any SETTLE took so far.
    pub longest_us: u64,
}

impl<W> Default for Settles<W> {
    fn default() -> Self {
        Settles {
            parked: BTreeMap::new(),
            by_handle: BTreeMap::new(),
            waits: BTreeMap::new(),
            pairs: 0,
            ends: BTreeSet::new(),
            next: 0,
            longest_us: 0,
        }
    }
}

impl<W: Copy + Ord> Settles<W> {
    /// How many are parked.
    pub fn len(&self) -> usize {
        self.parked.len()
    }

    /// Whether one more may be parked.
    pub fn has_room_for(&self, waits: usize) -> bool {
        self.parked.len() < MAX_SETTLES && self.pairs + waits <= MAX_WAITS
    }

    /// Parks one.
    pub fn park(&mut self, unsettled: Unsettled, handle: W) {
        self.next += 1;
        let settle = self.next;
        let mut open = BTreeMap::new();
        for wait in &unsettled.waits {
            let of = wait.subscription;
            if let Some(subscription) = of {
                let line = self.waits.entry(subscription).or_default();
                line.insert((wait.target, settle));
            }
            self.ends.insert((wait.ends_us, End::Lease { settle, of }));
            open.insert(of, (wait.target, wait.ends_us));
        }
        self.pairs += open.len();
        let Unsettled {
            so_far,
            began_us,
            until_us,
            ..
        } = unsettled;
        self.ends.insert((until_us, End::Patience { settle }));
        self.by_handle.insert(handle, settle);
        self.parked.insert(
            settle,
            Parked {
                handle,
                state: so_far,
                began_us,
                until_us,
                open,
            },
        );
    }

    /// A subscription has confirmed everything up to this number.
    pub fn confirmed(&mut self, subscription: u64, number: u64, now_us: u64) -> Vec<(W, Settled)> {
        let mut done = Vec::new();
        while let Some((target, settle)) = self
            .waits
            .get(&subscription)
            .and_then(|line| line.first().copied())
        {
            if target > number {
                break;
            }
            if self.close(settle, Some(subscription)) {
                if let Some(parked) = self.parked.get_mut(&settle) {
                    parked.state.confirmed += 1;
                }
                done.extend(self.finish_if_settled(settle, now_us));
            }
        }
        done
    }

    /// Ends what is to end by now.
    pub fn expire(&mut self, now_us: u64) -> Vec<(W, Settled)> {
        let mut done = Vec::new();
        while let Some((at_us, end)) = self.ends.first().copied() {
            if at_us > now_us {
                break;
            }
            match end {
                End::Lease { settle, of } => {
                    self.close(settle, of);
                    if let Some(parked) = self.parked.get_mut(&settle) {
                        parked.state.ran_out += 1;
                    }
                    done.extend(self.finish_if_settled(settle, now_us));
                }
                End::Patience { settle } => done.extend(self.finish(settle, now_us)),
            }
        }
        done
    }

    /// Takes one out without an answer: its client is gone, or must not wait. How it stands.
    pub fn forget(&mut self, handle: W, now_us: u64) -> Option<Settled> {
        let settle = *self.by_handle.get(&handle)?;
        self.finish(settle, now_us).map(|(_, state)| state)
    }

    /// When something ends next.
    pub fn next_us(&self) -> Option<u64> {
        self.ends.first().map(|(at_us, _)| *at_us)
    }

    /// A SETTLE no longer waits for this one; false if it did not.
    fn close(&mut self, settle: u64, of: Option<u64>) -> bool {
        let Some(parked) = self.parked.get_mut(&settle) else {
            return false;
        };
        let Some((target, ends_us)) = parked.open.remove(&of) else {
            return false;
        };
        parked.state.waiting -= 1;
        self.pairs -= 1;
        self.ends.remove(&(ends_us, End::Lease { settle, of }));
        if let Some(subscription) = of
            && let Some(line) = self.waits.get_mut(&subscription)
        {
            line.remove(&(target, settle));
            if line.is_empty() {
                self.waits.remove(&subscription);
            }
        }
        true
    }

    fn finish_if_settled(&mut self, settle: u64, now_us: u64) -> Option<(W, Settled)> {
        let waiting = self.parked.get(&settle)?.state.waiting;
        (waiting == 0).then(|| self.finish(settle, now_us))?
    }

    fn finish(&mut self, settle: u64, now_us: u64) -> Option<(W, Settled)> {
        let parked = self.parked.get(&settle)?;
        let state = parked.state;
        let open: Vec<Option<u64>> = parked.open.keys().copied().collect();
        for of in open {
            self.close(settle, of);
        }
        let parked = self.parked.remove(&settle)?;
        self.by_handle.remove(&parked.handle);
        self.ends
            .remove(&(parked.until_us, End::Patience { settle }));
        let took_us = now_us.saturating_sub(parked.began_us);
        self.longest_us = self.longest_us.max(took_us);
        Some((parked.handle, state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(subscription: u64, target: u64, ends_us: u64) -> Wait {
        Wait {
            subscription: Some(subscription),
            target,
            ends_us,
        }
    }

    fn unsettled(waits: Vec<Wait>) -> Unsettled {
        Unsettled {
            so_far: Settled {
                waiting: waits.len() as u64,
                ..Settled::default()
            },
            waits,
            began_us: 10,
            until_us: 1_000,
        }
    }

    fn state(confirmed: u64, ran_out: u64, waiting: u64) -> Settled {
        Settled {
            confirmed,
            ran_out,
            waiting,
        }
    }

    #[test]
    fn it_is_settled_when_each_has_confirmed_or_run_out() {
        let mut settles = Settles::default();
        settles.park(unsettled(vec![wait(1, 5, 100), wait(2, 5, 200)]), 'a');
        settles.park(unsettled(vec![wait(1, 7, 100)]), 'b');
        assert_eq!(settles.confirmed(1, 4, 20), []);
        assert_eq!(settles.confirmed(1, 6, 20), []);
        assert_eq!(settles.confirmed(2, 9, 30), [('a', state(2, 0, 0))]);
        assert_eq!(settles.next_us(), Some(100));
        assert_eq!(settles.expire(100), [('b', state(0, 1, 0))]);
        assert_eq!(
            (settles.len(), settles.pairs, settles.next_us()),
            (0, 0, None)
        );
        assert!(settles.waits.is_empty() && settles.by_handle.is_empty());
        assert_eq!(settles.longest_us, 90);
    }

    #[test]
    fn patience_ends_with_what_is_still_open() {
        let mut settles = Settles::default();
        settles.park(unsettled(vec![wait(1, 5, 900), wait(2, 5, 5_000)]), 'a');
        assert_eq!(settles.expire(999), []);
        assert_eq!(settles.expire(1_000), [('a', state(0, 1, 1))]);
        assert_eq!(
            (settles.len(), settles.pairs, settles.next_us()),
            (0, 0, None)
        );
        settles.park(unsettled(vec![wait(1, 5, 900)]), 'b');
        assert_eq!(settles.forget('b', 20), Some(state(0, 0, 1)));
        assert_eq!(settles.forget('b', 20), None);
        assert_eq!((settles.len(), settles.pairs), (0, 0));
    }

    /// The predecessors are one that cannot confirm.
    #[test]
    fn predecessors_are_waited_for_to_the_end() {
        let mut settles = Settles::default();
        let predecessors = Wait {
            subscription: None,
            target: 0,
            ends_us: 500,
        };
        settles.park(unsettled(vec![predecessors]), 'a');
        assert_eq!(settles.confirmed(0, u64::MAX, 20), []);
        assert_eq!(settles.expire(500), [('a', state(0, 1, 0))]);
    }

    #[test]
    fn how_many_wait_for_how_many_is_bounded() {
        let mut settles = Settles::default();
        for n in 0..MAX_SETTLES {
            assert!(settles.has_room_for(64));
            settles.park(unsettled((0..64).map(|s| wait(s, 5, 900)).collect()), n);
        }
        assert!(!settles.has_room_for(0));
        assert_eq!(settles.pairs, MAX_WAITS);
        for s in 0..64 {
            settles.confirmed(s, 5, 20);
        }
        assert!(settles.has_room_for(MAX_WAITS));
        assert!(!settles.has_room_for(MAX_WAITS + 1));
    }
}
