//! What a provider has still to be told, and who wants to know when it has been. Pure: no clock, no task, no lock.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};

use super::Order;
use crate::{Settled, Tags, provider::Mode};

/// One thing the provider must hear of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Tag(Mode, Bytes),
    Key(Bytes),
}

#[derive(Debug, Clone, Copy)]
struct Due {
    /// The last submission that named it.
    seq: u64,
    /// When no entry it concerns can still be alive. `None`: never.
    outlived_at: Option<Instant>,
}

struct Submission {
    seq: u64,
    outlived_at: Option<Instant>,
    items: Vec<Item>,
    settled: oneshot::Sender<Settled>,
}

/// A bounded set of items, and the submissions they came from.
pub(super) struct Pending {
    /// The tag that means all entries of the namespace.
    everything: Bytes,
    items_max: usize,
    items: HashMap<Item, Due>,
    /// Whoever stopped waiting is dropped on the way.
    submissions: Vec<Submission>,
    last_seq: u64,
}

/// What is to be sent in one go.
pub(super) struct Batch {
    /// Its acknowledgement covers submissions up to this one.
    pub(super) through: u64,
    pub(super) orders: Vec<Order>,
}

impl Pending {
    pub(super) fn new(everything: &[u8], items_max: usize) -> Self {
        Self {
            everything: Bytes::copy_from_slice(everything),
            items_max,
            items: HashMap::new(),
            submissions: Vec::new(),
            last_seq: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds an order; tells when it is settled, and whether the set was full and became one item.
    pub(super) fn add(
        &mut self,
        order: &Order,
        outlived_at: Option<Instant>,
    ) -> (oneshot::Receiver<Settled>, bool) {
        self.last_seq += 1;
        let due = Due {
            seq: self.last_seq,
            outlived_at,
        };
        let items = items_of(order);
        for item in &items {
            self.items
                .entry(item.clone())
                .and_modify(|known| *known = known.later(due))
                .or_insert(due);
        }
        let full = self.items.len() > self.items_max;
        if full {
            self.fold();
        }
        let (settled, receiver) = oneshot::channel();
        self.submissions.push(Submission {
            seq: due.seq,
            outlived_at,
            items,
            settled,
        });
        (receiver, full)
    }

    pub(super) fn batch(&self) -> Batch {
        let mut orders = Vec::new();
        let mut by_mode: HashMap<Mode, Tags> = HashMap::new();
        for item in self.items.keys() {
            match item {
                Item::Tag(mode, tag) => by_mode.entry(*mode).or_default().push(tag),
                Item::Key(key) => orders.push(Order::Clear(key.clone())),
            }
        }
        let tags = by_mode.into_iter();
        orders.extend(tags.map(|(mode, tags)| Order::Invalidate(tags, mode)));
        Batch {
            through: self.last_seq,
            orders,
        }
    }

    /// The provider has dealt with a batch, but for what it refused.
    pub(super) fn acknowledge(&mut self, through: u64, refused: &HashSet<Item>) {
        self.items.retain(|_, due| due.seq > through);
        let everything_refused = refused
            .iter()
            .any(|item| matches!(item, Item::Tag(_, tag) if *tag == self.everything));
        self.settle(|submission| {
            if submission.seq > through {
                return None;
            }
            let is_refused =
                everything_refused || submission.items.iter().any(|item| refused.contains(item));
            Some(if is_refused {
                Settled::Refused
            } else {
                Settled::Acknowledged
            })
        });
    }

    pub(super) fn drop_outlived(&mut self, now: Instant) {
        let is_outlived = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.items.retain(|_, due| !is_outlived(due.outlived_at));
        self.settle(|submission| is_outlived(submission.outlived_at).then_some(Settled::Outlived));
    }

    /// Everything becomes one: the namespace, as hard as the hardest of what it replaces.
    fn fold(&mut self) {
        let items = self.items.drain();
        let folded = items
            .map(|(item, due)| match item {
                Item::Tag(mode, _) => (mode, due),
                Item::Key(_) => (Mode::Hard, due),
            })
            .reduce(|(mode, due), (other_mode, other_due)| {
                (mode.strongest(other_mode), due.later(other_due))
            });
        if let Some((mode, due)) = folded {
            self.items
                .insert(Item::Tag(mode, self.everything.clone()), due);
        }
    }

    fn settle(&mut self, how: impl Fn(&Submission) -> Option<Settled>) {
        self.submissions
            .retain(|submission| !submission.settled.is_closed());
        let settled = self
            .submissions
            .extract_if(.., |submission| how(submission).is_some());
        for submission in settled {
            if let Some(settled) = how(&submission) {
                // Whoever is gone does not want to know.
                let _ = submission.settled.send(settled);
            }
        }
    }
}

impl Due {
    fn later(self, other: Self) -> Self {
        Self {
            seq: self.seq.max(other.seq),
            outlived_at: match (self.outlived_at, other.outlived_at) {
                (Some(one), Some(other)) => Some(one.max(other)),
                _ => None,
            },
        }
    }
}

/// What an order consists of.
pub(super) fn items_of(order: &Order) -> Vec<Item> {
    match order {
        Order::Invalidate(tags, mode) => tags
            .iter()
            .map(|tag| Item::Tag(*mode, Bytes::copy_from_slice(tag)))
            .collect(),
        Order::Clear(key) => vec![Item::Key(key.clone())],
    }
}

/// The order for one item alone.
pub(super) fn order_of(item: &Item) -> Order {
    match item {
        Item::Tag(mode, tag) => Order::Invalidate(Tags::from_iter([tag]), *mode),
        Item::Key(key) => Order::Clear(key.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(mode: Mode, tags: &[&str]) -> Order {
        Order::Invalidate(Tags::from_iter(tags), mode)
    }

    #[test]
    fn what_is_added_during_a_batch_is_not_covered_by_it() {
        let mut pending = Pending::new(b"*", 10);
        let (mut first, _) = pending.add(&order(Mode::Hard, &["a", "b"]), None);
        let batch = pending.batch();
        let (mut second, _) = pending.add(&order(Mode::Hard, &["b"]), None);
        pending.acknowledge(batch.through, &HashSet::new());
        assert_eq!(first.try_recv(), Ok(Settled::Acknowledged));
        assert!(second.try_recv().is_err(), "`b` has to be sent once more");
        assert_eq!(pending.len(), 1);
        pending.acknowledge(pending.batch().through, &HashSet::new());
        assert_eq!(second.try_recv(), Ok(Settled::Acknowledged));
        assert!(pending.is_empty());
    }

    #[test]
    fn only_those_who_named_what_was_refused_are_told_so() {
        let mut pending = Pending::new(b"*", 10);
        let (mut allowed, _) = pending.add(&order(Mode::Hard, &["a"]), None);
        let (mut forbidden, _) = pending.add(&order(Mode::Hard, &["a", "x"]), None);
        let refused = HashSet::from([Item::Tag(Mode::Hard, "x".into())]);
        pending.acknowledge(pending.batch().through, &refused);
        assert_eq!(allowed.try_recv(), Ok(Settled::Acknowledged));
        assert_eq!(forbidden.try_recv(), Ok(Settled::Refused));
        assert!(pending.is_empty(), "sending it again would not help");
    }

    #[test]
    fn a_full_set_becomes_the_namespace_as_hard_as_the_hardest() {
        let now = Instant::now();
        let mut pending = Pending::new(b"ns:*", 2);
        pending.add(&order(Mode::AutoSoft, &["a"]), Some(now));
        pending.add(&order(Mode::Auto, &["b"]), None);
        let (_, full) = pending.add(&order(Mode::AutoSoft, &["c"]), Some(now));
        assert!(full);
        let [Order::Invalidate(tags, Mode::Auto)] = &pending.batch().orders[..] else {
            panic!("expected one order");
        };
        assert!(tags.len() == 1 && tags.contains("ns:*"));
        pending.drop_outlived(now);
        assert_eq!(pending.len(), 1, "one of the three must never be given up");
    }

    #[test]
    fn what_is_outlived_is_dropped_alone() {
        let now = Instant::now();
        let later = now + std::time::Duration::from_secs(1);
        let mut pending = Pending::new(b"*", 10);
        let (mut early, _) = pending.add(&order(Mode::Hard, &["a", "b"]), Some(now));
        let (mut late, _) = pending.add(&order(Mode::Hard, &["b"]), Some(later));
        pending.drop_outlived(now);
        assert_eq!(early.try_recv(), Ok(Settled::Outlived));
        assert!(late.try_recv().is_err());
        assert_eq!(pending.len(), 1, "`b` is still of concern");
    }

    #[test]
    fn those_who_stopped_waiting_are_forgotten() {
        let mut pending = Pending::new(b"*", 10);
        for _ in 0..100 {
            pending.add(&order(Mode::Hard, &["a"]), None);
        }
        pending.drop_outlived(Instant::now());
        assert!(pending.submissions.is_empty());
        assert_eq!(pending.len(), 1);
    }
}
