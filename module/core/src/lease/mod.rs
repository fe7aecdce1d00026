//! Leases: of all who miss a key, one fills it and the others wait in line.
//!
//! ```text
//!              fetch                    fill
//!   (no one) ─────────▶ held by A ─────────────▶ (no one)        all who wait look again: the value is there
//!                          │  ▲
//!      release, lease end, │  │ next in line, with a token of its own
//!      refusal, disconnect └──┘                                   no one in line: (no one)
//! ```
//!
//! Pure: time and tokens come in as arguments, and a client that is to be woken goes out as a [`Wake`]. `W` is what the
//! edge knows a parked client by.
//!
//! Nothing takes long because many wait. What happens to a key, a client or a database only changes what is to come:
//! a line is set aside whole, a client's leases are, a database's leases become void by their numbers. Who is to be
//! told what is found by [`Leases::advance`], a few at a time. Everything is bounded: keys and their number here,
//! parked clients by the caller. No table is copied when it grows.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, Hash};

use crate::epoch::Token;
use crate::slots::slot;
use crate::table::Table;
use crate::work;

#[cfg(test)]
mod tests;

/// Leases kept at once; beyond, a miss is answered without one, so that fills of that key are not coalesced.
pub const MAX_LEASES: usize = 200_000;
/// Longest key for which a lease is kept, in bytes.
pub const MAX_KEY_BYTES: usize = 8 * 1024;
/// Bytes that all leases together may take, about.
pub const MAX_BYTES: usize = 128 << 20;
/// What a lease takes beside its key, about: its places in five tables.
const OVERHEAD_BYTES: usize = 400;
/// Bytes of values that one [`Leases::advance`] has clients reply, or one value.
pub const WAKE_BYTES: usize = 256 * 1024;

/// What the lease of a key takes, about.
fn bytes_of(key: &[u8]) -> usize {
    OVERHEAD_BYTES + key.len()
}

/// A client in line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter<W> {
    /// How the edge knows the parked client.
    pub handle: W,
    /// The client's id: it holds the lease once it is next.
    pub client: u64,
    /// How long its lease is to last.
    pub lease_ms: u64,
    /// Until when it waits, in milliseconds since 1970.
    pub until_ms: u64,
}

/// What a parked client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Something changed: look at the key again.
    Look,
    /// It is the one to fill the key now.
    Fill(Token),
    /// It has waited for as long as it wanted to.
    Busy,
    /// The key's slot went to another server of the cluster.
    Moved(u16),
}

/// A parked client and what it is told. It is no longer in line.
pub type Wake<W> = (W, Answer);

/// The outcome of asking for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The caller is the one to fill the key, with the token it offered.
    Granted(Token),
    /// Another caller is.
    Held,
}

impl Asked {
    /// The token of the fill, for the caller who is to fill.
    pub fn token(self) -> Option<Token> {
        match self {
            Asked::Granted(token) => Some(token),
            Asked::Held => None,
        }
    }
}

/// The outcome of giving a lease back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released<W> {
    /// That token does not hold the lease: nothing changed.
    NotHeld,
    /// No client was in line: the lease is gone.
    Freed,
    /// The next in line holds it now.
    PassedOn(Wake<W>),
}

/// In order of arrival.
type Line<W> = BTreeMap<u64, Waiter<W>>;

struct Lease<W> {
    db: usize,
    key: Box<[u8]>,
    client: u64,
    token: Token,
    ends_ms: u64,
    line: Line<W>,
}

/// A line whose lease ended: all in it look again.
struct Looking<W> {
    line: Line<W>,
    /// Bytes of the value that each of them will find.
    bytes: usize,
}

/// Where a parked client is: its lease's number, and its own in the line.
#[derive(Clone, Copy)]
struct Place<W> {
    handle: W,
    lease: u64,
    number: u64,
}

/// All leases of a server.
pub struct Leases<W> {
    leases: BTreeMap<u64, Lease<W>>,
    by_key: Table<u64>,
    by_client: BTreeMap<u64, BTreeSet<u64>>,
    by_handle: Table<Place<W>>,
    /// Parked clients by the client's id and their number in line.
    parked: BTreeMap<(u64, u64), W>,
    /// When waiting ends: the moment, the lease, the number in line.
    patience: BTreeSet<(u64, u64, u64)>,
    /// When leases end.
    ends: BTreeSet<(u64, u64)>,
    /// Lines to be told to look, by the number of the lease that ended.
    looking: BTreeMap<u64, Looking<W>>,
    /// Clients that are gone, and the leases they held.
    orphaned: VecDeque<(u64, BTreeSet<u64>)>,
    /// Leases up to these numbers ended when their data went: of all databases, and by database.
    void: u64,
    void_in: BTreeMap<usize, u64>,
    /// The highest of these numbers.
    newest_void: u64,
    /// Where the search for void leases goes on.
    sweep: Option<u64>,
    /// Up to which parked client it was looked whether its slot is still here.
    asked: (u64, u64),
    /// Numbers leases and places in line.
    next: u64,
    /// What the leases take, about.
    bytes: usize,
    /// Of the two tables of this crate's own kind; orders nothing.
    hasher: RandomState,
}

impl<W: Copy + Eq + Hash> Default for Leases<W> {
    fn default() -> Self {
        Leases {
            leases: BTreeMap::new(),
            by_key: Table::new(),
            by_client: BTreeMap::new(),
            by_handle: Table::new(),
            parked: BTreeMap::new(),
            patience: BTreeSet::new(),
            ends: BTreeSet::new(),
            looking: BTreeMap::new(),
            orphaned: VecDeque::new(),
            void: 0,
            void_in: BTreeMap::new(),
            newest_void: 0,
            sweep: None,
            asked: (0, 0),
            next: 0,
            bytes: 0,
            hasher: RandomState::new(),
        }
    }
}

impl<W: Copy + Eq + Hash> Leases<W> {
    /// Whether there is any lease at all: what every SET asks first.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// How many leases are held, void ones included until they are found.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// What they take, about; Redis's allocator counts it under `maxmemory` as well.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a caller would be told that another fills the key.
    pub fn is_held(&mut self, db: usize, key: &[u8], now_ms: u64) -> bool {
        self.find(db, key).is_some_and(|id| {
            let lease = &self.leases[&id];
            lease.ends_ms > now_ms || !lease.line.is_empty()
        })
    }

    /// How many clients are parked.
    pub fn parked(&self) -> usize {
        self.by_handle.len()
    }

    fn find(&mut self, db: usize, key: &[u8]) -> Option<u64> {
        if self.leases.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one((db, key));
        let leases = &self.leases;
        let is_it = |id: &u64| leases.get(id).is_some_and(|l| l.db == db && *l.key == *key);
        let id = *self.by_key.find(hash, is_it)?;
        if self.is_void(id) {
            self.end(id, 0);
            return None;
        }
        Some(id)
    }

    fn is_void(&self, id: u64) -> bool {
        let in_its_db = |lease: &Lease<W>| self.void_in.get(&lease.db).is_some_and(|n| id <= *n);
        id <= self.void || !self.void_in.is_empty() && self.leases.get(&id).is_some_and(in_its_db)
    }

    /// Asks for the right to fill a key. A lease that ran out while no client was in line is taken over.
    ///
    /// `token` is what the caller will be told if it is granted.
    pub fn ask(
        &mut self,
        db: usize,
        key: &[u8],
        client: u64,
        token: Token,
        now_ms: u64,
        lease_ms: u64,
    ) -> Asked {
        if let Some(id) = self.find(db, key) {
            let lease = &self.leases[&id];
            if lease.ends_ms > now_ms || !lease.line.is_empty() {
                return Asked::Held;
            }
            self.end(id, 0);
        }
        let is_full = self.leases.len() >= MAX_LEASES || self.bytes + bytes_of(key) > MAX_BYTES;
        if is_full || key.len() > MAX_KEY_BYTES {
            return Asked::Granted(token);
        }
        self.bytes += bytes_of(key);
        self.next += 1;
        let id = self.next;
        let ends_ms = now_ms.saturating_add(lease_ms);
        self.by_client.entry(client).or_default().insert(id);
        self.ends.insert((ends_ms, id));
        self.leases.insert(
            id,
            Lease {
                db,
                key: key.into(),
                client,
                token,
                ends_ms,
                line: BTreeMap::new(),
            },
        );
        let (hasher, leases) = (&self.hasher, &self.leases);
        let hash = |id: &u64| hash_of(hasher, leases, *id);
        self.by_key.insert(hash(&id), id, hash);
        Asked::Granted(token)
    }

    /// Puts a client in line; false if no client holds the lease, so that it should ask again.
    pub fn park(&mut self, db: usize, key: &[u8], waiter: Waiter<W>) -> bool {
        let Some(id) = self.find(db, key) else {
            return false;
        };
        let Some(lease) = self.leases.get_mut(&id) else {
            return false;
        };
        self.next += 1;
        let number = self.next;
        let place = Place {
            handle: waiter.handle,
            lease: id,
            number,
        };
        let hasher = &self.hasher;
        let hash = |place: &Place<W>| hasher.hash_one(place.handle);
        self.by_handle.insert(hash(&place), place, hash);
        self.parked.insert((waiter.client, number), waiter.handle);
        self.patience.insert((waiter.until_ms, id, number));
        lease.line.insert(number, waiter);
        true
    }

    /// The key was filled, by whomever, with so many bytes: all in line are to look at it.
    pub fn filled(&mut self, db: usize, key: &[u8], bytes: usize) {
        if let Some(id) = self.find(db, key) {
            self.end(id, bytes);
        }
    }

    /// Gives a lease back: the fill failed or was refused.
    pub fn release(
        &mut self,
        db: usize,
        key: &[u8],
        token: Token,
        now_ms: u64,
        fresh: impl FnOnce() -> Token,
    ) -> Released<W> {
        match self.find(db, key) {
            Some(id) if self.leases[&id].token == token => self
                .pass_on(id, now_ms, fresh)
                .map_or(Released::Freed, Released::PassedOn),
            _ => Released::NotHeld,
        }
    }

    /// The places in which a client waits for itself: it holds the lease and is in line, over one connection. They are
    /// to be forgotten before it is [`Leases::disconnected`], or it would be handed its own lease.
    pub fn behind_itself(&self, client: u64) -> Vec<W> {
        let own = self.parked.range((client, 0)..=(client, u64::MAX));
        own.filter(|(_, handle)| {
            let lease = self.place(**handle).map(|place| place.lease);
            let lease = lease.and_then(|id| self.leases.get(&id));
            lease.is_some_and(|lease| lease.client == client)
        })
        .map(|(_, handle)| *handle)
        .collect()
    }

    fn place(&self, handle: W) -> Option<Place<W>> {
        let hash = self.hasher.hash_one(handle);
        self.by_handle.find(hash, |p| p.handle == handle).copied()
    }

    /// A client is gone; the leases it held are to be passed on.
    pub fn disconnected(&mut self, client: u64) {
        if let Some(held) = self.by_client.remove(&client) {
            self.orphaned.push_back((client, held));
        }
    }

    /// Takes a client out of line without a word; false if it is not in line.
    pub fn forget(&mut self, handle: W) -> bool {
        let Some(Place { lease, number, .. }) = self.place(handle) else {
            return false;
        };
        let line = match self.leases.get_mut(&lease) {
            Some(lease) => Some(&mut lease.line),
            None => self
                .looking
                .get_mut(&lease)
                .map(|looking| &mut looking.line),
        };
        if let Some(waiter) = line.and_then(|line| line.remove(&number)) {
            self.left(lease, number, &waiter);
        }
        true
    }

    /// Ends every lease of a database, or of all: its data went away, so all in line are to look again.
    pub fn clear(&mut self, db: Option<usize>) {
        if self.leases.is_empty() {
            return;
        }
        match db {
            Some(db) => _ = self.void_in.insert(db, self.next),
            None => self.void = self.next,
        }
        self.newest_void = self.next;
        self.sweep = Some(0);
    }

    /// Slots went to other servers: clients that wait for a key that is not here any more are to be told so. Looks at
    /// `most` parked clients, fewer where keys are long, and goes on where it stopped; true once it has looked at all.
    /// One that parks meanwhile waits for a key that is here.
    pub fn slots_left(
        &mut self,
        most: usize,
        is_here: impl Fn(u16) -> bool,
    ) -> (Vec<Wake<W>>, bool) {
        /// Bytes of a key that count as one client.
        const BYTES: usize = 64;
        let (mut wakes, mut looks) = (Vec::new(), most);
        while let Some((place, handle)) = self.parked.range(self.asked..).next() {
            if looks == 0 {
                return (wakes, false);
            }
            work::step(1);
            let ((client, number), handle) = (*place, *handle);
            self.asked = (client, number + 1);
            let id = self.place(handle).map(|place| place.lease);
            // Who stands in a line that was set aside looks again anyhow.
            let waiting = id.and_then(|id| Some((id, self.leases.get(&id)?)));
            let Some((id, lease)) = waiting else {
                looks -= 1;
                continue;
            };
            looks = looks.saturating_sub(1 + lease.key.len() / BYTES);
            let slot = slot(&lease.key);
            if !is_here(slot) {
                self.forget(handle);
                wakes.push((handle, Answer::Moved(slot)));
                if self
                    .leases
                    .get(&id)
                    .is_some_and(|lease| lease.line.is_empty())
                {
                    self.end(id, 0);
                }
            }
        }
        self.asked = (0, 0);
        (wakes, true)
    }

    /// When something ends next, in milliseconds since 1970.
    pub fn next_end_ms(&self) -> Option<u64> {
        let patience = self.patience.first().map(|(at, ..)| *at);
        let lease = self.ends.first().map(|(at, _)| *at);
        patience.into_iter().chain(lease).min()
    }

    /// Whether [`Leases::advance`] has something to do now.
    pub fn is_behind(&self, now_ms: u64) -> bool {
        !self.looking.is_empty()
            || !self.orphaned.is_empty()
            || self.sweep.is_some()
            || self.next_end_ms().is_some_and(|at_ms| at_ms <= now_ms)
    }

    /// Does up to `most` of what is to be done by now, and says who is to be told what: those who are to look; those
    /// who have waited for long enough, before any lease that ends is handed on; the heirs of clients that are gone and
    /// of leases that ended. It also stops once the woken will reply [`WAKE_BYTES`].
    pub fn advance(
        &mut self,
        now_ms: u64,
        most: usize,
        mut fresh: impl FnMut() -> Token,
    ) -> Vec<Wake<W>> {
        let (mut wakes, mut bytes) = (Vec::new(), 0);
        for _ in 0..most {
            work::step(1);
            if bytes >= WAKE_BYTES {
                break;
            }
            if let Some((handle, value)) = self.next_to_look() {
                bytes += value;
                wakes.push((handle, Answer::Look));
            } else if let Some(handle) = self.next_out_of_patience(now_ms) {
                wakes.push((handle, Answer::Busy));
            } else if let Some(orphan) = self.next_orphan() {
                wakes.extend(orphan.and_then(|id| self.pass_on(id, now_ms, &mut fresh)));
            } else if self.sweep.is_some() {
                self.sweep_one();
            } else if let Some(id) = self.next_ended(now_ms) {
                wakes.extend(self.pass_on(id, now_ms, &mut fresh));
            } else {
                break;
            }
        }
        wakes
    }

    fn next_to_look(&mut self) -> Option<(W, usize)> {
        let (lease, looking) = self.looking.iter_mut().next()?;
        let (lease, bytes) = (*lease, looking.bytes);
        let (number, waiter) = looking.line.pop_first()?;
        self.left(lease, number, &waiter);
        Some((waiter.handle, bytes))
    }

    fn next_out_of_patience(&mut self, now_ms: u64) -> Option<W> {
        let (at_ms, lease, number) = *self.patience.first()?;
        let lease = self.leases.get(&lease).filter(|_| at_ms <= now_ms)?;
        let handle = lease.line.get(&number)?.handle;
        self.forget(handle).then_some(handle)
    }

    /// A lease whose holder is gone; `Some(None)` if the one looked at was passed on or ended meanwhile.
    fn next_orphan(&mut self) -> Option<Option<u64>> {
        let (client, held) = self.orphaned.front_mut()?;
        let (client, id) = (*client, held.pop_first());
        if held.is_empty() {
            self.orphaned.pop_front();
        }
        let still_its = |id: &u64| self.leases.get(id).is_some_and(|l| l.client == client);
        Some(id.filter(still_its))
    }

    fn sweep_one(&mut self) {
        let newest = self.newest_void;
        let from = self.sweep.unwrap_or(0);
        match self.leases.range(from..=newest.max(from)).next() {
            Some((id, _)) if *id <= newest => {
                let id = *id;
                self.sweep = Some(id + 1);
                if self.is_void(id) {
                    self.end(id, 0);
                }
            }
            _ => {
                self.sweep = None;
                self.void_in.clear();
            }
        }
    }

    fn next_ended(&self, now_ms: u64) -> Option<u64> {
        let (at_ms, id) = *self.ends.first()?;
        (at_ms <= now_ms).then_some(id)
    }

    /// The next in line becomes the holder; with no client in line the lease is gone.
    fn pass_on(&mut self, id: u64, now_ms: u64, fresh: impl FnOnce() -> Token) -> Option<Wake<W>> {
        if self.is_void(id) {
            self.end(id, 0);
            return None;
        }
        let lease = self.leases.get_mut(&id)?;
        let Some((number, next)) = lease.line.pop_first() else {
            self.end(id, 0);
            return None;
        };
        let (before, ended_ms) = (lease.client, lease.ends_ms);
        lease.client = next.client;
        lease.token = fresh();
        lease.ends_ms = now_ms.saturating_add(next.lease_ms);
        let (token, ends_ms) = (lease.token, lease.ends_ms);
        self.left(id, number, &next);
        self.let_go(before, id);
        self.ends.remove(&(ended_ms, id));
        self.ends.insert((ends_ms, id));
        self.by_client.entry(next.client).or_default().insert(id);
        Some((next.handle, Answer::Fill(token)))
    }

    /// Removes a lease; those who were in line are to look again, at a value of so many bytes.
    fn end(&mut self, id: u64, bytes: usize) {
        let (hasher, leases) = (&self.hasher, &self.leases);
        let hash = |id: &u64| hash_of(hasher, leases, *id);
        self.by_key.remove(hash(&id), |other| *other == id, hash);
        let Some(lease) = self.leases.remove(&id) else {
            return;
        };
        self.bytes -= bytes_of(&lease.key);
        self.ends.remove(&(lease.ends_ms, id));
        self.let_go(lease.client, id);
        if !lease.line.is_empty() {
            let line = lease.line;
            self.looking.insert(id, Looking { line, bytes });
        }
    }

    /// A client holds this lease no longer.
    fn let_go(&mut self, client: u64, id: u64) {
        if let Some(held) = self.by_client.get_mut(&client) {
            held.remove(&id);
            if held.is_empty() {
                self.by_client.remove(&client);
            }
        }
    }

    /// A client was taken out of its line.
    fn left(&mut self, lease: u64, number: u64, waiter: &Waiter<W>) {
        let hasher = &self.hasher;
        let hash = |place: &Place<W>| hasher.hash_one(place.handle);
        let is_it = |place: &Place<W>| place.handle == waiter.handle;
        let hash_of_it = hasher.hash_one(waiter.handle);
        self.by_handle.remove(hash_of_it, is_it, hash);
        self.parked.remove(&(waiter.client, number));
        self.patience.remove(&(waiter.until_ms, lease, number));
        if self.looking.get(&lease).is_some_and(|l| l.line.is_empty()) {
            self.looking.remove(&lease);
        }
    }
}

fn hash_of<W>(hasher: &RandomState, leases: &BTreeMap<u64, Lease<W>>, id: u64) -> u64 {
    leases
        .get(&id)
        .map_or(0, |lease| hasher.hash_one((lease.db, &*lease.key)))
}
