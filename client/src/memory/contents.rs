//! The decisions of the in-process provider: entries, index, epochs, leases. Pure: no clock, no task, no lock;
//! `now` is passed in.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, futures::OwnedNotified},
    time::Instant,
};

use mcache_core::{
    early,
    epoch::{Epoch, Token as FillToken},
    fills::Fills,
    index::Scope,
};

use super::index::TagIndex;
use crate::{
    Tags,
    provider::{EntryState, FetchOptions, Inspection, Lookup, Mode, Store, Token},
};

/// What an entry and one membership take beside their bytes: maps, queue, sets. An estimate; it only has to keep
/// the bound honest for small values.
const ENTRY_OVERHEAD_BYTES: usize = 256;
const MEMBERSHIP_OVERHEAD_BYTES: usize = 64;

/// Expired entries are dropped along the way, so many at each change: enough to keep up with any mix, too few to
/// be felt by the caller who pays for it.
const EXPIRED_PER_CHANGE: usize = 8;

/// Invalidations of so many tags are remembered exactly; of more, one in doubt refuses a fill.
const REMEMBERED_TAGS: usize = 4096;

/// Before the clock starts there is room for what "before everything" means.
const CLOCK_STARTS_MS: u64 = 1_000;

/// As the server: no lease lasts longer.
const LEASE_MAX: Duration = Duration::from_secs(600);

pub(super) struct Limits {
    pub(super) entries_max: usize,
    pub(super) bytes_max: usize,
    pub(super) lease: Duration,
}

pub(super) struct Contents {
    limits: Limits,
    /// What the server decides by: tokens, and which fills came too late.
    fills: Fills,
    /// What the clock of `fills` counts from.
    zero: Instant,
    entries: HashMap<Bytes, Entry>,
    index: TagIndex,
    leases: HashMap<Bytes, Holder>,
    /// When entries stop being of any use, soonest first; the id says which.
    ends: BTreeMap<(Instant, u64), Bytes>,
    /// Eviction order: first in, first out, with a second chance for what was read since. Items whose entry is gone
    /// or replaced are skipped.
    queue: VecDeque<(Bytes, u64)>,
    bytes: usize,
    next_id: u64,
}

struct Entry {
    id: u64,
    value: Bytes,
    tags: Box<[Bytes]>,
    manual: bool,
    birth: u64,
    filled_at: Instant,
    /// Live until then; `None`: for ever.
    expires_at: Option<Instant>,
    swr: Duration,
    /// Set by a soft invalidation: stale until then, even if the time to live is longer.
    soft_until: Option<Instant>,
    read_since: bool,
}

struct Holder {
    token: Token,
    ends_at: Instant,
    /// Told whenever there is a reason to look again.
    changed: Arc<Notify>,
}

/// What a fetch came to: an answer, or a reason to wait.
pub(super) enum Fetched {
    Answer(Lookup),
    /// Another caller holds the lease: look again when told, or when it ends.
    Wait {
        changed: OwnedNotified,
        ends_at: Instant,
    },
}

impl Entry {
    fn state(&self, now: Instant) -> EntryState {
        if let Some(until) = self.soft_until {
            return match now < until {
                true => EntryState::Stale,
                false => EntryState::Dead,
            };
        }
        match self.expires_at {
            None => EntryState::Live,
            Some(at) if now < at => EntryState::Live,
            Some(at) if at.checked_add(self.swr).is_none_or(|end| now < end) => EntryState::Stale,
            Some(_) => EntryState::Dead,
        }
    }

    /// Whether a reader with this random number is to refresh it although it is live.
    fn is_due(&self, fill: Duration, random: u64, now: Instant) -> bool {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let is_due = |at: Instant| {
            let left = at.saturating_duration_since(now);
            early::is_due(ms(left), ms(fill), random)
        };
        self.expires_at.is_some_and(is_due)
    }

    /// When it will be of no use any more.
    fn ends_at(&self) -> Option<Instant> {
        self.soft_until
            .or_else(|| self.expires_at?.checked_add(self.swr))
    }

    fn weight(&self, key: &Bytes) -> usize {
        let tags: usize = self
            .tags
            .iter()
            .map(|tag| tag.len() + MEMBERSHIP_OVERHEAD_BYTES)
            .sum();
        key.len() + self.value.len() + tags + ENTRY_OVERHEAD_BYTES
    }
}

impl Contents {
    /// `incarnation` tells it apart from other instances, so that their tokens are refused.
    pub(super) fn new(limits: Limits, incarnation: u64, now: Instant) -> Self {
        Self {
            limits,
            fills: Fills::new(incarnation, CLOCK_STARTS_MS, REMEMBERED_TAGS),
            zero: now,
            entries: HashMap::new(),
            index: TagIndex::default(),
            leases: HashMap::new(),
            ends: BTreeMap::new(),
            queue: VecDeque::new(),
            bytes: 0,
            next_id: 0,
        }
    }

    pub(super) fn get(&mut self, key: &[u8], now: Instant) -> Option<Bytes> {
        let entry = self.entries.get_mut(key)?;
        (entry.state(now) == EntryState::Live).then(|| {
            entry.read_since = true;
            entry.value.clone()
        })
    }

    /// `random` decides who is to refresh a live entry early.
    pub(super) fn fetch(
        &mut self,
        key: &[u8],
        options: &FetchOptions,
        random: u64,
        now: Instant,
    ) -> Fetched {
        let lease = options.lease;
        let stale = match self.entries.get_mut(key) {
            Some(entry) => {
                entry.read_since = true;
                match entry.state(now) {
                    EntryState::Live => {
                        let value = entry.value.clone();
                        let due = entry.is_due(options.early, random, now);
                        return Fetched::Answer(if due && !self.is_leased(key, now) {
                            let token = self.grant(key, lease, now);
                            Lookup::Early { value, token }
                        } else {
                            Lookup::Hit(value)
                        });
                    }
                    EntryState::Stale => Some(entry.value.clone()),
                    EntryState::Dead => None,
                }
            }
            None => None,
        };
        let held = self.leases.get(key).filter(|lease| now < lease.ends_at);
        Fetched::Answer(match (stale, held) {
            (Some(value), Some(_)) => Lookup::Stale { value, token: None },
            (Some(value), None) => Lookup::Stale {
                value,
                token: Some(self.grant(key, lease, now)),
            },
            (None, Some(held)) => {
                return Fetched::Wait {
                    changed: held.changed.clone().notified_owned(),
                    ends_at: held.ends_at,
                };
            }
            (None, None) => Lookup::Miss {
                token: self.grant(key, lease, now),
            },
        })
    }

    fn is_leased(&self, key: &[u8], now: Instant) -> bool {
        self.leases
            .get(key)
            .is_some_and(|lease| now < lease.ends_at)
    }

    pub(super) fn token(&mut self, now: Instant) -> Token {
        let now_ms = self.clock_ms(now);
        Token::new(self.fills.token(now_ms).to_string())
    }

    fn clock_ms(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.zero).as_millis();
        CLOCK_STARTS_MS.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    pub(super) fn store(&mut self, entry: &Store<'_>, now: Instant) -> bool {
        self.drop_expired(now);
        let now_ms = self.clock_ms(now);
        let mark = mark_of(entry.key);
        let tags = entry.tags.iter().chain([&mark[..]]);
        // A token that is none is refused like one of another instance.
        let token = entry.token.map(|token| {
            FillToken::parse(token.as_bytes()).unwrap_or(FillToken {
                incarnation: !self.fills.incarnation(),
                epoch: self.fills.now(),
            })
        });
        let birth = match self
            .fills
            .birth(token, tags, entry.manual, Epoch::ZERO, now_ms)
        {
            Ok(birth) => birth.0,
            Err(_) => {
                // The holder has had its try: the next in line must not wait for the lease to end.
                if let Some(token) = entry.token {
                    self.release(entry.key, token);
                }
                return false;
            }
        };
        self.remove(entry.key);
        let key = Bytes::copy_from_slice(entry.key);
        self.next_id += 1;
        let new = Entry {
            id: self.next_id,
            value: entry.value.clone(),
            tags: self.index.insert(&key, entry.tags),
            manual: entry.manual,
            birth,
            filled_at: now,
            // What ends after the end of time does not end.
            expires_at: entry.ttl.and_then(|ttl| now.checked_add(ttl)),
            // What never expires has no time after its time.
            swr: entry.ttl.map_or(Duration::ZERO, |_| entry.swr),
            soft_until: None,
            read_since: false,
        };
        self.bytes += new.weight(&key);
        if let Some(at) = new.ends_at() {
            self.ends.insert((at, new.id), key.clone());
        }
        self.queue.push_back((key.clone(), new.id));
        self.entries.insert(key, new);
        self.end_lease(entry.key);
        self.evict();
        true
    }

    pub(super) fn release(&mut self, key: &[u8], token: &Token) -> bool {
        let held = self
            .leases
            .get(key)
            .is_some_and(|lease| lease.token == *token);
        if held {
            self.end_lease(key);
        }
        held
    }

    /// A fill of the key that is under way began before this and is refused.
    pub(super) fn clear(&mut self, key: &[u8], now: Instant) -> bool {
        let now_ms = self.clock_ms(now);
        let mark = mark_of(key);
        self.fills.note([&mark[..]].into_iter(), Scope::All, now_ms);
        self.remove(key).is_some()
    }

    pub(super) fn invalidate(&mut self, tags: &Tags, mode: Mode, now: Instant) -> u64 {
        self.drop_expired(now);
        let now_ms = self.clock_ms(now);
        let scope = match mode.is_auto() {
            true => Scope::Auto,
            false => Scope::All,
        };
        self.fills.note(tags.iter(), scope, now_ms);
        let mut hit = 0;
        for tag in tags {
            for key in self.index.members(tag) {
                hit += u64::from(self.invalidate_entry(&key, mode, now));
            }
        }
        hit
    }

    pub(super) fn inspect(&self, key: &[u8], now: Instant) -> Option<Inspection> {
        let entry = self.entries.get(key)?;
        let state = entry.state(now);
        Some(Inspection {
            ttl: entry.expires_at.map(|at| at.saturating_duration_since(now)),
            age: now.saturating_duration_since(entry.filled_at),
            manual: entry.manual,
            birth: entry.birth,
            tags: entry.tags.to_vec(),
            reason: (state == EntryState::Dead).then(|| "expired".to_owned()),
            ..Inspection::new(state, entry.value.len() as u64)
        })
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Invalidates one entry; whether that changed it.
    fn invalidate_entry(&mut self, key: &Bytes, mode: Mode, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        if mode.is_auto() && entry.manual {
            return false;
        }
        if !mode.is_soft() || entry.swr.is_zero() {
            self.remove(key);
            return true;
        }
        if entry.state(now) != EntryState::Live {
            return false;
        }
        // Stale from now on, but not for longer than it would have been anyway.
        let natural_end = entry.ends_at();
        let until = match (natural_end, now.checked_add(entry.swr)) {
            (Some(end), Some(window)) => end.min(window),
            (Some(end), None) | (None, Some(end)) => end,
            (None, None) => now,
        };
        let id = entry.id;
        entry.soft_until = Some(until);
        if let Some(end) = natural_end {
            self.ends.remove(&(end, id));
        }
        self.ends.insert((until, id), key.clone());
        true
    }

    fn grant(&mut self, key: &[u8], lease: Option<Duration>, now: Instant) -> Token {
        let now_ms = self.clock_ms(now);
        let token = Token::new(self.fills.unique_token(now_ms).to_string());
        // Leases that ended unnoticed go here, so that the map stays as small as what is in use.
        if self.leases.len() > 2 * self.entries.len().max(1024) {
            self.leases.retain(|_, lease| now < lease.ends_at);
        }
        let ended = self.leases.insert(
            Bytes::copy_from_slice(key),
            Holder {
                token: token.clone(),
                ends_at: now + lease.unwrap_or(self.limits.lease).min(LEASE_MAX),
                changed: Arc::new(Notify::new()),
            },
        );
        if let Some(ended) = ended {
            ended.changed.notify_waiters();
        }
        token
    }

    fn end_lease(&mut self, key: &[u8]) {
        if let Some(lease) = self.leases.remove(key) {
            lease.changed.notify_waiters();
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let (key, entry) = self.entries.remove_entry(key)?;
        self.index.remove(&key, &entry.tags);
        if let Some(at) = entry.ends_at() {
            self.ends.remove(&(at, entry.id));
        }
        self.bytes -= entry.weight(&key);
        Some(entry)
    }

    fn drop_expired(&mut self, now: Instant) {
        for _ in 0..EXPIRED_PER_CHANGE {
            match self.ends.first_key_value() {
                Some(((at, _), key)) if *at <= now => {
                    let key = key.clone();
                    self.remove(&key);
                }
                _ => return,
            }
        }
    }

    fn evict(&mut self) {
        while self.entries.len() > self.limits.entries_max || self.bytes > self.limits.bytes_max {
            let Some((key, id)) = self.queue.pop_front() else {
                return;
            };
            match self.entries.get_mut(&key) {
                Some(entry) if entry.id != id => {}
                Some(entry) if entry.read_since => {
                    entry.read_since = false;
                    self.queue.push_back((key, id));
                }
                Some(_) => {
                    self.remove(&key);
                }
                None => {}
            }
        }
        // What was removed or replaced leaves its item behind; swept when most of the queue is such items.
        if self.queue.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            self.queue
                .retain(|(key, id)| entries.get(key).is_some_and(|entry| entry.id == *id));
        }
    }
}

/// What is remembered when a key is cleared: no tag of a cache looks like it, and if one did, a fill too many would be
/// refused.
fn mark_of(key: &[u8]) -> Vec<u8> {
    [&b"\0cleared\0"[..], key].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(entries_max: usize, bytes_max: usize) -> Contents {
        let limits = Limits {
            entries_max,
            bytes_max,
            lease: Duration::from_secs(10),
        };
        Contents::new(limits, 1, Instant::now())
    }

    fn put(state: &mut Contents, key: &str, tags: &Tags, now: Instant) {
        assert!(state.store(
            &Store {
                key: key.as_bytes(),
                value: Bytes::from_static(b"value"),
                ttl: Some(Duration::from_secs(10)),
                swr: Duration::ZERO,
                tags,
                manual: false,
                token: None,
            },
            now
        ));
    }

    #[test]
    fn index_queue_and_ends_hold_exactly_the_entries_through_random_operations() {
        let seed = 0x5EED_u64;
        println!("seed {seed:#x}");
        let mut random = seed;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 11) % below
        };
        let mut state = state(50, 1_000_000);
        let mut now = Instant::now();
        for _ in 0..20_000 {
            let key = format!("k{}", next(100));
            let tags = Tags::from_iter((0..next(4)).map(|_| format!("t{}", next(10))));
            match next(6) {
                0..=2 => put(&mut state, &key, &tags, now),
                3 => drop(state.clear(key.as_bytes(), now)),
                4 => drop(state.invalidate(&tags, Mode::Hard, now)),
                _ => now += Duration::from_millis(next(500)),
            }
            let memberships: usize = state.entries.values().map(|entry| entry.tags.len()).sum();
            assert_eq!(state.index.memberships(), memberships);
            assert_eq!(state.ends.len(), state.entries.len());
            assert!(state.entries.len() <= 50);
            assert!(state.queue.len() <= 2 * 50 + 64);
            let weight: usize = state
                .entries
                .iter()
                .map(|(key, entry)| entry.weight(key))
                .sum();
            assert_eq!(state.bytes, weight);
        }
        let everything: Vec<Bytes> = state.entries.keys().cloned().collect();
        for key in everything {
            state.clear(&key, now);
        }
        assert_eq!((state.index.tags(), state.bytes), (0, 0));
    }

    #[test]
    fn what_was_read_outlives_what_was_not() {
        let mut state = state(2, usize::MAX);
        let now = Instant::now();
        put(&mut state, "read", &Tags::new(), now);
        put(&mut state, "unread", &Tags::new(), now);
        assert!(state.get(b"read", now).is_some());
        put(&mut state, "new", &Tags::new(), now);
        assert!(state.get(b"read", now).is_some());
        assert!(state.get(b"unread", now).is_none());
        assert!(state.get(b"new", now).is_some());
    }

    #[test]
    fn the_bound_in_bytes_holds_even_for_one_entry_that_is_too_large() {
        let mut state = state(usize::MAX, 100);
        put(&mut state, "k", &Tags::new(), Instant::now());
        assert_eq!((state.len(), state.bytes()), (0, 0));
    }

    #[test]
    fn leases_nobody_ended_do_not_accumulate() {
        let mut state = state(10, usize::MAX);
        let mut now = Instant::now();
        for number in 0..10_000 {
            now += Duration::from_millis(10);
            state.fetch(
                format!("k{number}").as_bytes(),
                &FetchOptions::default(),
                u64::MAX,
                now,
            );
        }
        assert!(state.leases.len() < 4_000, "{}", state.leases.len());
    }
}
