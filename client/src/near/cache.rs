//! The near cache of one provider: what it holds, and the one step in which that changes.
//!
//! A value is put away or forgotten under one lock, together with the view that decides it. Readers do not take that
//! lock. A reader takes a value from the store first, reads the clock and the lease afterwards, and then asks whether
//! the value has left the store. So it serves only what was not forgotten when its call began, under a lease that
//! lasts when it serves, and that did not come with what made the value go.

use std::collections::HashMap;
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use mcache_core::near::{Answer, Asked, Change, Data, Own, OwnId, Sent, View, end_ms};
use tokio::sync::watch;

use super::index::{self, Index, Row};
use super::stats::{Counts, NearPrimary, NearStats, Why};
use super::store::{Held, Store};
use super::{NearOptions, clock};
use crate::server::{Node, RedisProvider, slot_of};
use crate::telemetry;

/// What a server says beside a value for the near cache.
#[derive(Debug)]
pub(crate) struct NearData {
    pub(crate) data: Data,
    /// How long it stays live; `None`: it does not expire.
    pub(crate) life_ms: Option<u64>,
}

/// One primary.
pub(crate) struct Origin {
    pub(super) id: u32,
    pub(super) node: Node,
    /// What came from it is served before this moment: a copy of the view's, for those who take no lock.
    lease_until_ms: AtomicU64,
    /// When it answered last; zero: never.
    heard_ms: AtomicU64,
    refusal: Mutex<Option<String>>,
}

/// A read for the near cache, noted before it is sent.
pub(super) struct Asking {
    origin: Arc<Origin>,
    pub(super) asked: Asked,
}

/// See the module.
pub(crate) struct Near {
    pub(super) redis: RedisProvider,
    /// The namespace: what is told and settled begins so.
    pub(super) prefix: Bytes,
    store: Store,
    state: Mutex<Followed>,
    origins: RwLock<HashMap<Node, Arc<Origin>>>,
    counts: Counts,
    /// Whether the feed is to be given up.
    pub(super) ending: watch::Sender<bool>,
    /// Whether a task follows the primaries.
    pub(super) follows: AtomicBool,
}

#[derive(Default)]
struct Followed {
    views: HashMap<u32, View>,
    index: Index,
    /// What this process has begun to change and is not acknowledged, with its number at each primary.
    own: HashMap<u64, (Own, Vec<(u32, OwnId)>)>,
    own_next: u64,
    origins_next: u32,
}

/// A change of this process that is under way. Dropped when it is acknowledged, or will never be.
pub(crate) struct OwnGuard {
    near: Arc<Near>,
    number: u64,
}

impl std::fmt::Debug for OwnGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnGuard").finish_non_exhaustive()
    }
}

impl Drop for OwnGuard {
    fn drop(&mut self) {
        self.near.own_ended(self.number);
    }
}

impl Near {
    /// Whether this system has the clock that a near cache needs.
    pub(crate) const CAN_BE: bool = clock::IS_THERE;

    /// Nothing is followed yet: see [`follow`](Self::follow).
    pub(crate) fn new(redis: RedisProvider, prefix: Bytes, options: &NearOptions) -> Arc<Self> {
        Arc::new(Self {
            redis,
            prefix,
            store: Store::new(options.bytes),
            state: Mutex::default(),
            origins: RwLock::default(),
            counts: Counts::default(),
            ending: watch::Sender::new(false),
            follows: AtomicBool::new(false),
        })
    }

    // ---- serving ----

    /// What may be served now.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Option<Arc<Held>> {
        let held = self.store.get(key)?;
        // After the value was found, and within this call: the process may have been stopped until now.
        let now_ms = clock::now_ms();
        let serves = now_ms < held.origin.lease_until_ms.load(Acquire) && now_ms < held.end_ms;
        // The lease may have been over when this call began, and be renewed by now, together with what concerns the
        // value.
        if !serves || held.is_gone() {
            return None;
        }
        self.counts.hits.fetch_add(1, Relaxed);
        Some(held)
    }

    // ---- putting away ----

    /// Notes a read before it is sent. `None`: that primary is not followed, or has not answered yet.
    pub(super) fn ask(&self, node: &Node) -> Option<Asking> {
        let origin = self.origins().get(node)?.clone();
        let asked = self.lock().views.get(&origin.id)?.ask(clock::now_ms())?;
        Some(Asking { origin, asked })
    }

    /// Puts a value away that was read or stored, unless something concerns it. `fill`: how long a fill takes, if it
    /// is to be refreshed early.
    pub(super) fn put(
        &self,
        asking: &Asking,
        key: &[u8],
        bytes: &Bytes,
        near: NearData,
        fill: Duration,
    ) {
        let NearData { data, life_ms } = near;
        let fill_ms = u64::try_from(fill.as_millis()).unwrap_or(u64::MAX);
        let end_ms = end_ms(asking.asked.sent_ms, life_ms, fill_ms, fastrand::u64(..));
        let weight = index::weight(key.len(), bytes.len(), data.digests.len());
        let origin = &asking.origin;
        let mut state = self.lock();
        let Some(view) = state.views.get(&origin.id) else {
            return self.count_not_kept();
        };
        let cell = match (view.admit(&asking.asked, key, &data), view.cell(key)) {
            (Ok(()), Some(cell)) => cell,
            _ => return self.count_not_kept(),
        };
        // A read that took long must not take the place of a later one's value.
        if let Some(other) = self.store.peek(key) {
            if other.origin.id == origin.id && state.index.number(other.id) > Some(data.number) {
                return self.count_not_kept();
            }
            self.remove(&mut state, other.id);
            self.count_drops(Why::Replaced, 1);
        }
        let key: Arc<[u8]> = key.into();
        let id = state.index.add(Row {
            key: key.clone(),
            origin: origin.id,
            number: data.number,
            manual: data.manual,
            cell,
            slot: slot_of(&key) as u16,
            digests: data.digests,
        });
        let held = Held::new(bytes.clone(), origin.clone(), end_ms, id, weight);
        let gone = self.store.insert(key, Arc::new(held));
        for held in &gone {
            state.index.remove(held.id);
        }
        drop(state);
        self.counts.kept.fetch_add(1, Relaxed);
        telemetry::near_kept(true);
        self.count_drops(Why::Evicted, gone.len());
    }

    pub(super) fn count_not_kept(&self) {
        self.counts.not_kept.fetch_add(1, Relaxed);
        telemetry::near_kept(false);
    }

    /// What was stored under the key is not what is held.
    pub(super) fn forget_key(&self, key: &[u8]) {
        let mut state = self.lock();
        if let Some(held) = self.store.peek(key) {
            self.remove(&mut state, held.id);
            drop(state);
            self.count_drops(Why::Replaced, 1);
        }
    }

    /// Under the lock: from index and store.
    fn remove(&self, state: &mut Followed, id: u32) {
        if let Some(row) = state.index.remove(id) {
            self.store.remove(&row.key);
        }
    }

    fn apply(&self, state: &mut Followed, origin: &Origin, changes: &[Change], own: bool) {
        for change in changes {
            let concerned = state.index.concerned(origin.id, change);
            for id in &concerned {
                self.remove(state, *id);
            }
            let why = match change {
                Change::Everything => Why::Gap,
                _ if own => Why::Own,
                Change::Tag { .. } => Why::Tag,
                Change::Cell { .. } => Why::Key,
                Change::Slots { .. } => Why::Slots,
                Change::Flush { .. } => Why::Flush,
            };
            self.count_drops(why, concerned.len());
        }
    }

    fn count_drops(&self, why: Why, count: usize) {
        if count > 0 {
            self.counts.dropped(why, count);
            telemetry::near_dropped(why.label(), count);
        }
    }

    // ---- changes of this process ----

    /// This process is about to change something: what that concerns is forgotten now, and again when the guard is
    /// dropped, and not put away in between.
    pub(crate) fn begin(self: &Arc<Self>, own: Own) -> OwnGuard {
        let mut state = self.lock();
        state.own_next += 1;
        let number = state.own_next;
        let mut ids = Vec::new();
        for origin in self.origins().values() {
            if let Some(view) = state.views.get_mut(&origin.id) {
                let (id, changes) = view.invalidating(own.clone());
                ids.push((origin.id, id));
                self.apply(&mut state, origin, &changes, true);
            }
        }
        state.own.insert(number, (own, ids));
        drop(state);
        OwnGuard {
            near: self.clone(),
            number,
        }
    }

    fn own_ended(&self, number: u64) {
        let mut state = self.lock();
        let Some((_, ids)) = state.own.remove(&number) else {
            return;
        };
        for origin in self.origins().values() {
            let Some((_, id)) = ids.iter().find(|(at, _)| *at == origin.id) else {
                continue;
            };
            if let Some(view) = state.views.get_mut(&origin.id) {
                let changes = view.acknowledged(*id);
                self.apply(&mut state, origin, &changes, true);
            }
        }
    }

    // ---- the feed ----

    /// The primary of this name, from now on followed.
    pub(super) fn add_origin(&self, node: &Node) -> Arc<Origin> {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.origins_next += 1;
        let origin = Arc::new(Origin {
            id: state.origins_next,
            node: node.clone(),
            lease_until_ms: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            refusal: Mutex::default(),
        });
        let mut view = View::default();
        // What began before it was known concerns it as well.
        for (own, ids) in state.own.values_mut() {
            ids.push((origin.id, view.invalidating(own.clone()).0));
        }
        state.views.insert(origin.id, view);
        let mut origins = self.origins.write().unwrap_or_else(PoisonError::into_inner);
        origins.insert(node.clone(), origin.clone());
        origin
    }

    /// It is not a primary any more.
    pub(super) fn drop_origin(&self, origin: &Arc<Origin>) {
        self.forget(origin);
        let mut state = self.lock();
        state.views.remove(&origin.id);
        let mut origins = self.origins.write().unwrap_or_else(PoisonError::into_inner);
        if origins
            .get(&origin.node)
            .is_some_and(|known| Arc::ptr_eq(known, origin))
        {
            origins.remove(&origin.node);
        }
    }

    /// The next call of FEED.
    pub(super) fn call(&self, origin: &Origin) -> Option<Sent> {
        let now_ms = clock::now_ms();
        Some(self.lock().views.get_mut(&origin.id)?.call(now_ms))
    }

    /// Applies an answer of FEED; only then what came with it may be served longer.
    pub(super) fn answered(&self, origin: &Origin, sent: &Sent, answer: Answer) {
        let mut state = self.lock();
        let Some(view) = state.views.get_mut(&origin.id) else {
            return;
        };
        let changes = view.answered(sent, answer);
        let until_ms = view.lease_until_ms();
        self.apply(&mut state, origin, &changes, false);
        origin.lease_until_ms.store(until_ms, Release);
        drop(state);
        let now_ms = clock::now_ms();
        let heard_ms = origin.heard_ms.swap(now_ms.max(1), Relaxed);
        if heard_ms > 0 {
            telemetry::near_feed_age(now_ms.saturating_sub(heard_ms));
        }
        self.refused(origin, None);
        self.tell_lease();
        telemetry::near_bytes(self.store.bytes());
    }

    /// Tells a collector how long the near cache may serve without hearing from its primaries again: of the lease that
    /// ends first. To be told also while no answer comes, or a collector would not see that it serves nothing.
    pub(super) fn tell_lease(&self) {
        let origins = self.origins();
        let leases = origins.values().map(|it| it.lease_until_ms.load(Acquire));
        let left_ms = leases.min().unwrap_or(0).saturating_sub(clock::now_ms());
        telemetry::near_lease(left_ms);
    }

    /// Values that came from it are not served any more, even under a lease that runs.
    pub(super) fn forget(&self, origin: &Origin) {
        let mut state = self.lock();
        origin.lease_until_ms.store(0, Release);
        if let Some(view) = state.views.get_mut(&origin.id) {
            let change = view.forget();
            self.apply(&mut state, origin, &[change], false);
        }
    }

    /// Why it grants no lease. `true` if that is news.
    pub(super) fn refused(&self, origin: &Origin, refusal: Option<&str>) -> bool {
        let known = &mut *origin
            .refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_news = known.as_deref() != refusal;
        if is_news {
            *known = refusal.map(str::to_owned);
        }
        is_news
    }

    pub(crate) fn stats(&self, provider: &str) -> NearStats {
        let now_ms = clock::now_ms();
        let left = |moment_ms: u64| Duration::from_millis(moment_ms.saturating_sub(now_ms));
        let primary = |origin: &Arc<Origin>| NearPrimary {
            name: origin.node.to_string(),
            lease_left: left(origin.lease_until_ms.load(Acquire)),
            heard: match origin.heard_ms.load(Relaxed) {
                0 => None,
                heard_ms => Some(Duration::from_millis(now_ms.saturating_sub(heard_ms))),
            },
            refusal: origin
                .refusal
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        };
        NearStats {
            provider: provider.to_owned(),
            hits: self.counts.hits.load(Relaxed),
            kept: self.counts.kept.load(Relaxed),
            not_kept: self.counts.not_kept.load(Relaxed),
            entries: self.store.len() as u64,
            bytes: self.store.bytes(),
            drops: self.counts.drops(),
            primaries: self.origins().values().map(primary).collect(),
        }
    }

    /// The primaries that are followed.
    pub(super) fn origins_now(&self) -> Vec<Arc<Origin>> {
        self.origins().values().cloned().collect()
    }

    fn origins(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Node, Arc<Origin>>> {
        self.origins.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never held across an await. Where both are taken, before the primaries.
    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
