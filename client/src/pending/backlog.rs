//! What a provider has still to be told, and how far it has been told. Pure: no clock, no task, no lock.
//!
//! Each order gets a number. An item (one tag in one mode, or one key) is kept once, with the numbers of the first and
//! of the last order that named it and is not confirmed; the oldest are sent first. So one number, below which
//! everything is confirmed, answers all callers who wait, and a caller who waits costs nothing here.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
};

use bytes::Bytes;
use tokio::time::Instant;

use super::Order;
use crate::{Settled, Tags, provider::Mode};

/// What one item takes beside its name: the two maps, the name's own allocation. An estimate that keeps the bound
/// honest.
const ITEM_OVERHEAD_BYTES: usize = 200;

/// Refusals that are remembered one by one for callers who have not asked yet.
const REFUSALS_MAX: usize = 1024;

/// Stretches of orders that were outlived and are remembered apart.
const STRETCHES_MAX: usize = 64;

/// How many different moments are kept at which orders are outlived; those in between wait for the next.
const MOMENTS_MAX: u32 = 1024;

/// One thing the provider must hear of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Tag(Mode, Bytes),
    Key(Bytes),
}

/// The orders that named an item and are not confirmed.
#[derive(Debug, Clone, Copy)]
struct Named {
    first: u64,
    last: u64,
    /// Its place among those of the same `first`.
    turn: u64,
}

/// How much a backlog may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

/// A bounded set of items, oldest first.
pub(super) struct Backlog {
    /// The tag that means all entries of the namespace.
    everything: Bytes,
    bounds: Bounds,
    items: HashMap<Item, Named>,
    /// The same in the order in which they are sent.
    line: BTreeMap<(u64, u64), Item>,
    tags: usize,
    bytes: usize,
    last_order: u64,
    last_turn: u64,
    /// Up to which order everything is outlived from which moment on; `None`: never.
    moments: VecDeque<Moment>,
}

/// The orders up to `through` are outlived at `at`.
struct Moment {
    through: u64,
    began: Instant,
    at: Option<Instant>,
}

/// Items to send in one go.
pub(super) struct Parcel {
    /// Its acknowledgement covers what orders up to this one named.
    through: u64,
    pub(super) items: Vec<Item>,
}

impl Backlog {
    pub(super) fn new(everything: &[u8], bounds: Bounds) -> Self {
        Self {
            everything: Bytes::copy_from_slice(everything),
            bounds,
            items: HashMap::new(),
            line: BTreeMap::new(),
            tags: 0,
            bytes: 0,
            last_order: 0,
            last_turn: 0,
            moments: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// How much it holds, by its own count.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether a tag is among the items: what carries it is not known, so every reader is concerned.
    pub(super) fn has_tags(&self) -> bool {
        self.tags > 0
    }

    pub(super) fn has_key(&self, key: &[u8]) -> bool {
        let key = Item::Key(Bytes::copy_from_slice(key));
        self.items.contains_key(&key)
    }

    /// Adds an order and returns its number, and whether the set was full and became one item.
    pub(super) fn add(
        &mut self,
        order: &Order,
        now: Instant,
        outlived_at: Option<Instant>,
    ) -> (u64, bool) {
        self.last_order += 1;
        let number = self.last_order;
        self.note_moment(now, outlived_at);
        let mut full = false;
        for item in items_of(order) {
            match self.items.get_mut(&item) {
                Some(named) => named.last = number,
                None => self.insert(item, number, number),
            }
            // Looked at for each item: one order may name more than all that may be kept.
            if self.items.len() > self.bounds.items || self.bytes > self.bounds.bytes {
                full |= self.fold();
            }
        }
        (number, full)
    }

    /// The oldest items, at most so many.
    pub(super) fn parcel(&self, items_max: usize) -> Parcel {
        Parcel {
            through: self.last_order,
            items: self.line.values().take(items_max).cloned().collect(),
        }
    }

    /// The provider has confirmed this item of a parcel, or refused it for good. Returns the orders that concerns.
    pub(super) fn done(&mut self, item: &Item, parcel: &Parcel) -> Option<(u64, u64)> {
        let named = self.remove(item)?;
        let through = parcel.through.min(named.last);
        // Named again while it was on its way: it has to be sent once more for those.
        if named.last > parcel.through {
            self.insert(item.clone(), parcel.through + 1, named.last);
        }
        Some((named.first, through))
    }

    /// Drops what no entry can be concerned by any more; returns up to which order that goes.
    pub(super) fn drop_outlived(&mut self, now: Instant) -> Option<u64> {
        let mut through = None;
        while let Some(moment) = self.moments.front()
            && moment.at.is_some_and(|at| at <= now)
        {
            through = Some(moment.through);
            self.moments.pop_front();
        }
        let through = through?;
        let concerned: Vec<Item> = self
            .line
            .range(..=(through, u64::MAX))
            .map(|(_, item)| item.clone())
            .collect();
        for item in concerned {
            if let Some(named) = self.remove(&item)
                && named.last > through
            {
                self.insert(item, through + 1, named.last);
            }
        }
        Some(through)
    }

    /// Up to which order everything is confirmed, refused or outlived.
    pub(super) fn through(&self) -> u64 {
        match self.line.first_key_value() {
            Some(((first, _), _)) => first - 1,
            None => self.last_order,
        }
    }

    pub(super) fn is_everything(&self, item: &Item) -> bool {
        matches!(item, Item::Tag(_, tag) if *tag == self.everything)
    }

    /// Everything becomes one item: the namespace, as hard as the hardest of what it replaces. `false` if it is one
    /// already.
    fn fold(&mut self) -> bool {
        if self.items.len() <= 1 {
            return false;
        }
        let whole = self
            .items
            .drain()
            .map(|(item, named)| match item {
                Item::Tag(mode, _) => (mode, named.first, named.last),
                Item::Key(_) => (Mode::Hard, named.first, named.last),
            })
            .reduce(|one, other| {
                (
                    one.0.strongest(other.0),
                    one.1.min(other.1),
                    one.2.max(other.2),
                )
            });
        self.line.clear();
        (self.tags, self.bytes) = (0, 0);
        if let Some((mode, first, last)) = whole {
            self.insert(Item::Tag(mode, self.everything.clone()), first, last);
        }
        true
    }

    fn insert(&mut self, item: Item, first: u64, last: u64) {
        self.last_turn += 1;
        let turn = self.last_turn;
        self.tags += usize::from(matches!(item, Item::Tag(..)));
        self.bytes += weight(&item);
        self.line.insert((first, turn), item.clone());
        self.items.insert(item, Named { first, last, turn });
    }

    fn remove(&mut self, item: &Item) -> Option<Named> {
        let named = self.items.remove(item)?;
        self.line.remove(&(named.first, named.turn));
        self.tags -= usize::from(matches!(item, Item::Tag(..)));
        self.bytes -= weight(item);
        Some(named)
    }

    /// Orders that come close together share a moment, the later one: a bounded number of moments is enough.
    fn note_moment(&mut self, now: Instant, at: Option<Instant>) {
        let through = self.last_order;
        if let Some(last) = self.moments.back_mut() {
            let apart = match (at, last.at) {
                (Some(at), Some(_)) => {
                    let step = at.saturating_duration_since(now) / MOMENTS_MAX;
                    now.saturating_duration_since(last.began) > step
                }
                (None, None) => false,
                _ => true,
            };
            if !apart {
                last.through = through;
                last.at = at;
                return;
            }
        }
        self.moments.push_back(Moment {
            through,
            began: now,
            at,
        });
    }
}

/// How far the provider has come: what callers who wait look at.
pub(super) struct Progress {
    hasher: RandomState,
    /// Everything up to this order is decided.
    through: u64,
    /// Of those, the ones that were outlived.
    outlived: VecDeque<(u64, u64)>,
    refused: VecDeque<Refusal>,
    /// Refusals of orders up to this one are no longer remembered one by one.
    refusals_forgotten: u64,
    pub(super) is_empty: bool,
}

/// The orders `first..=last` named something that was refused: this item, or anything.
struct Refusal {
    item: Option<u64>,
    first: u64,
    last: u64,
}

/// Held by a caller that wants to know when its items are confirmed.
#[derive(Debug)]
pub(super) struct Ticket {
    number: u64,
    /// Of the items named.
    hashes: Hashes,
}

#[derive(Debug)]
enum Hashes {
    One(u64),
    Many(Box<[u64]>),
}

impl Progress {
    /// Nothing has been asked for.
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            through: 0,
            outlived: VecDeque::new(),
            refused: VecDeque::new(),
            refusals_forgotten: 0,
            is_empty: true,
        }
    }

    pub(super) fn ticket(&self, number: u64, order: &Order) -> Ticket {
        let mut hashes: Vec<u64> = items_of(order)
            .map(|item| self.hasher.hash_one(&item))
            .collect();
        let hashes = match hashes.len() {
            1 => Hashes::One(hashes.remove(0)),
            _ => Hashes::Many(hashes.into()),
        };
        Ticket { number, hashes }
    }

    /// `None`: not decided yet.
    pub(super) fn verdict(&self, ticket: &Ticket) -> Option<Settled> {
        if ticket.number > self.through {
            return None;
        }
        let within = |(first, last): (u64, u64)| (first..=last).contains(&ticket.number);
        let names = |item: u64| match &ticket.hashes {
            Hashes::One(hash) => *hash == item,
            Hashes::Many(hashes) => hashes.contains(&item),
        };
        let is_refused = ticket.number <= self.refusals_forgotten
            || self.refused.iter().any(|refusal| {
                within((refusal.first, refusal.last)) && refusal.item.is_none_or(names)
            });
        Some(if is_refused {
            Settled::Refused
        } else if self.outlived.iter().any(|stretch| within(*stretch)) {
            Settled::Outlived
        } else {
            Settled::Acknowledged
        })
    }

    pub(super) fn refuse(&mut self, item: &Item, orders: (u64, u64), is_everything: bool) {
        let item = (!is_everything).then(|| self.hasher.hash_one(item));
        self.refused.push_back(Refusal {
            item,
            first: orders.0,
            last: orders.1,
        });
        // When in doubt, a caller is told "refused" of what was acknowledged and not the other way round.
        if self.refused.len() > REFUSALS_MAX
            && let Some(oldest) = self.refused.pop_front()
        {
            self.refusals_forgotten = self.refusals_forgotten.max(oldest.last);
        }
    }

    pub(super) fn outlive(&mut self, through: u64) {
        let first = self.through + 1;
        if through < first {
            return;
        }
        match self.outlived.back_mut() {
            Some(last) if last.1 + 1 >= first => last.1 = through,
            _ => self.outlived.push_back((first, through)),
        }
        if self.outlived.len() > STRETCHES_MAX
            && let Some(oldest) = self.outlived.pop_front()
            && let Some(next) = self.outlived.front_mut()
        {
            next.0 = oldest.0;
        }
    }

    /// `true` if that is news for callers who wait.
    pub(super) fn reached(&mut self, backlog: &Backlog) -> bool {
        let before = (self.through, self.is_empty);
        self.through = self.through.max(backlog.through());
        self.is_empty = backlog.is_empty();
        before != (self.through, self.is_empty)
    }
}

/// What an order consists of.
pub(super) fn items_of(order: &Order) -> impl Iterator<Item = Item> + '_ {
    let (tags, key) = match order {
        Order::Invalidate(tags, mode) => (Some((tags, *mode)), None),
        Order::Clear(key) => (None, Some(Item::Key(key.clone()))),
    };
    tags.into_iter()
        .flat_map(|(tags, mode)| {
            tags.iter()
                .map(move |tag| Item::Tag(mode, Bytes::copy_from_slice(tag)))
        })
        .chain(key)
}

/// The orders for these items: one for each mode, one for each key.
pub(super) fn orders_of(items: &[Item]) -> Vec<(Order, Vec<Item>)> {
    let mut orders = Vec::new();
    let mut by_mode: HashMap<Mode, (Tags, Vec<Item>)> = HashMap::new();
    for item in items {
        match item {
            Item::Tag(mode, tag) => {
                let (tags, items) = by_mode.entry(*mode).or_default();
                tags.push(tag);
                items.push(item.clone());
            }
            Item::Key(key) => orders.push((Order::Clear(key.clone()), vec![item.clone()])),
        }
    }
    let tags = by_mode.into_iter();
    orders.extend(tags.map(|(mode, (tags, items))| (Order::Invalidate(tags, mode), items)));
    orders
}

fn weight(item: &Item) -> usize {
    let (Item::Tag(_, name) | Item::Key(name)) = item;
    name.len() + ITEM_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests;
