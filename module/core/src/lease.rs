//! Leases: of all who miss a key, one fills it and the others wait in line.
//!
//! ```text
//!              fetch                    fill
//!   (nobody) ─────────▶ held by A ─────────────▶ (nobody)        all who wait look again: the value is there
//!                          │  ▲
//!      release, lease end, │  │ next in line, with a token of its own
//!      refusal, disconnect └──┘                                   nobody in line: (nobody)
//! ```
//!
//! Pure: time and tokens come in as arguments, and whoever is to be woken goes out as a [`Wake`]. `W` is whatever the
//! edge knows a parked client by. Everything is bounded: keys and their number here, parked clients by the caller.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use crate::epoch::Token;

/// Leases kept at once; beyond, a miss is answered without one, so that fills of that key are not coalesced.
pub const MAX_LEASES: usize = 200_000;
/// Longest key for which a lease is kept, in bytes.
pub const MAX_KEY_BYTES: usize = 8 * 1024;

/// Somebody in line.
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

struct Lease<W> {
    db: usize,
    key: Box<[u8]>,
    client: u64,
    token: Token,
    ends_ms: u64,
    /// In order of arrival.
    line: BTreeMap<u64, Waiter<W>>,
}

/// What ends at a moment: a lease, or somebody's patience.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum End {
    Patience { lease: u64, place: u64 },
    Lease(u64),
}

/// All leases of a server.
pub struct Leases<W> {
    leases: HashMap<u64, Lease<W>>,
    by_key: HashMap<(usize, Box<[u8]>), u64>,
    by_client: HashMap<u64, BTreeSet<u64>>,
    by_handle: HashMap<W, (u64, u64)>,
    ends: BTreeSet<(u64, End)>,
    /// Numbers leases and places in line.
    next: u64,
}

impl<W: Copy + Eq + Hash> Default for Leases<W> {
    fn default() -> Self {
        Leases {
            leases: HashMap::new(),
            by_key: HashMap::new(),
            by_client: HashMap::new(),
            by_handle: HashMap::new(),
            ends: BTreeSet::new(),
            next: 0,
        }
    }
}

impl<W: Copy + Eq + Hash> Leases<W> {
    /// Whether there is any lease at all: what every SET asks first.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// How many leases are held.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// How many clients are parked.
    pub fn parked(&self) -> usize {
        self.by_handle.len()
    }

    fn find(&self, db: usize, key: &[u8]) -> Option<u64> {
        if self.leases.is_empty() {
            return None;
        }
        self.by_key.get(&(db, Box::from(key))).copied()
    }

    /// Asks for the right to fill a key. A lease that ran out while nobody was in line is taken over.
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
            self.end(id);
        }
        if self.leases.len() >= MAX_LEASES || key.len() > MAX_KEY_BYTES {
            return Asked::Granted(token);
        }
        self.next += 1;
        let id = self.next;
        let ends_ms = now_ms.saturating_add(lease_ms);
        self.by_key.insert((db, key.into()), id);
        self.by_client.entry(client).or_default().insert(id);
        self.ends.insert((ends_ms, End::Lease(id)));
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
        Asked::Granted(token)
    }

    /// Puts a client in line; false if nobody holds the lease, so that it should ask again.
    pub fn park(&mut self, db: usize, key: &[u8], waiter: Waiter<W>) -> bool {
        let Some(id) = self.find(db, key) else {
            return false;
        };
        let Some(lease) = self.leases.get_mut(&id) else {
            return false;
        };
        self.next += 1;
        let place = self.next;
        self.by_handle.insert(waiter.handle, (id, place));
        self.ends
            .insert((waiter.until_ms, End::Patience { lease: id, place }));
        lease.line.insert(place, waiter);
        true
    }

    /// The key was filled, by whomever: everybody in line looks at it.
    pub fn filled(&mut self, db: usize, key: &[u8]) -> Vec<Wake<W>> {
        match self.find(db, key) {
            Some(id) => self
                .end(id)
                .into_iter()
                .map(|w| (w.handle, Answer::Look))
                .collect(),
            None => Vec::new(),
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

    /// The places in which a client waits for itself: it holds the lease and is in line, over one connection. They are to
    /// be forgotten before it is [`Leases::disconnected`], or it would be handed its own lease.
    pub fn behind_itself(&self, client: u64) -> Vec<W> {
        let held = self.by_client.get(&client).into_iter().flatten();
        held.filter_map(|id| self.leases.get(id))
            .flat_map(|lease| lease.line.values())
            .filter(|waiter| waiter.client == client)
            .map(|waiter| waiter.handle)
            .collect()
    }

    /// A client is gone, and with it the leases it held.
    pub fn disconnected(
        &mut self,
        client: u64,
        now_ms: u64,
        mut fresh: impl FnMut() -> Token,
    ) -> Vec<Wake<W>> {
        let held = self.by_client.remove(&client).unwrap_or_default();
        held.into_iter()
            .filter_map(|id| self.pass_on(id, now_ms, &mut fresh))
            .collect()
    }

    /// Takes a client out of line without a word; false if it is not in line.
    pub fn forget(&mut self, handle: W) -> bool {
        let Some((id, place)) = self.by_handle.remove(&handle) else {
            return false;
        };
        if let Some(waiter) = self
            .leases
            .get_mut(&id)
            .and_then(|lease| lease.line.remove(&place))
        {
            self.ends
                .remove(&(waiter.until_ms, End::Patience { lease: id, place }));
        }
        true
    }

    /// Ends every lease of a database, or of all: its data went away, so everybody in line looks again.
    pub fn clear(&mut self, db: Option<usize>) -> Vec<Wake<W>> {
        let ended: Vec<u64> = self
            .leases
            .iter()
            .filter(|(_, l)| db.is_none_or(|db| db == l.db))
            .map(|(id, _)| *id)
            .collect();
        ended
            .into_iter()
            .flat_map(|id| self.end(id))
            .map(|w| (w.handle, Answer::Look))
            .collect()
    }

    /// When something ends next, in milliseconds since 1970.
    pub fn next_end_ms(&self) -> Option<u64> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Ends what is to end by now: patience first, so that nobody is handed a lease it no longer waits for.
    pub fn expire(&mut self, now_ms: u64, mut fresh: impl FnMut() -> Token) -> Vec<Wake<W>> {
        let mut due: Vec<End> = self
            .ends
            .iter()
            .take_while(|(at, _)| *at <= now_ms)
            .map(|(_, end)| *end)
            .collect();
        due.sort_unstable();
        let mut wakes = Vec::new();
        for end in due {
            match end {
                End::Patience { lease, place } => {
                    let waiter = self.leases.get(&lease).and_then(|l| l.line.get(&place));
                    if let Some(handle) = waiter.map(|w| w.handle) {
                        self.forget(handle);
                        wakes.push((handle, Answer::Busy));
                    }
                }
                End::Lease(id) => wakes.extend(self.pass_on(id, now_ms, &mut fresh)),
            }
        }
        wakes
    }

    /// The next in line becomes the holder; with nobody in line the lease is gone.
    fn pass_on(&mut self, id: u64, now_ms: u64, fresh: impl FnOnce() -> Token) -> Option<Wake<W>> {
        let lease = self.leases.get_mut(&id)?;
        let Some((place, next)) = lease.line.pop_first() else {
            self.end(id);
            return None;
        };
        self.by_handle.remove(&next.handle);
        self.ends
            .remove(&(next.until_ms, End::Patience { lease: id, place }));
        self.ends.remove(&(lease.ends_ms, End::Lease(id)));
        if let Some(held) = self.by_client.get_mut(&lease.client) {
            held.remove(&id);
            if held.is_empty() {
                self.by_client.remove(&lease.client);
            }
        }
        lease.client = next.client;
        lease.token = fresh();
        lease.ends_ms = now_ms.saturating_add(next.lease_ms);
        self.by_client.entry(next.client).or_default().insert(id);
        self.ends.insert((lease.ends_ms, End::Lease(id)));
        Some((next.handle, Answer::Fill(lease.token)))
    }

    /// Removes a lease and returns who was in line.
    fn end(&mut self, id: u64) -> Vec<Waiter<W>> {
        let Some(lease) = self.leases.remove(&id) else {
            return Vec::new();
        };
        self.by_key.remove(&(lease.db, lease.key));
        self.ends.remove(&(lease.ends_ms, End::Lease(id)));
        if let Some(held) = self.by_client.get_mut(&lease.client) {
            held.remove(&id);
            if held.is_empty() {
                self.by_client.remove(&lease.client);
            }
        }
        for (place, waiter) in &lease.line {
            self.by_handle.remove(&waiter.handle);
            self.ends.remove(&(
                waiter.until_ms,
                End::Patience {
                    lease: id,
                    place: *place,
                },
            ));
        }
        lease.line.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::Epoch;

    fn token(n: u64) -> Token {
        Token {
            incarnation: 1,
            epoch: Epoch(n),
        }
    }

    fn waiter(handle: u32, until_ms: u64) -> Waiter<u32> {
        Waiter {
            handle,
            client: 100 + u64::from(handle),
            lease_ms: 50,
            until_ms,
        }
    }

    fn held() -> Leases<u32> {
        let mut leases = Leases::default();
        let asked = leases.ask(0, b"k", 1, token(1), 1_000, 50);
        assert_eq!(asked, Asked::Granted(token(1)));
        leases
    }

    #[test]
    fn one_fills_and_the_others_look_when_it_has() {
        let mut leases = held();
        assert_eq!(leases.ask(0, b"k", 2, token(2), 1_000, 50), Asked::Held);
        assert_eq!(
            leases.ask(1, b"k", 2, token(2), 1_000, 50),
            Asked::Granted(token(2)),
            "another database"
        );
        assert!(leases.park(0, b"k", waiter(7, 2_000)) && leases.park(0, b"k", waiter(8, 2_000)));
        assert_eq!(
            leases.filled(0, b"k"),
            [(7, Answer::Look), (8, Answer::Look)]
        );
        assert_eq!((leases.len(), leases.parked()), (1, 0));
        assert!(
            !leases.park(0, b"k", waiter(9, 2_000)),
            "nobody to wait for"
        );
    }

    #[test]
    fn a_failed_fill_makes_the_next_in_line_the_holder() {
        let mut leases = held();
        leases.park(0, b"k", waiter(7, 2_000));
        leases.park(0, b"k", waiter(8, 2_000));
        assert_eq!(
            leases.release(0, b"k", token(9), 1_010, || token(2)),
            Released::NotHeld,
            "not the holder's token"
        );
        assert_eq!(
            leases.release(0, b"k", token(1), 1_010, || token(2)),
            Released::PassedOn((7, Answer::Fill(token(2))))
        );
        assert_eq!(
            leases.disconnected(1, 1_020, || token(3)),
            [],
            "no longer the holder"
        );
        assert_eq!(
            leases.disconnected(107, 1_020, || token(3)),
            [(8, Answer::Fill(token(3)))]
        );
        assert_eq!(leases.expire(1_069, || token(4)), []);
        assert_eq!(leases.expire(1_070, || token(4)), []);
        assert!(leases.is_empty() && leases.next_end_ms().is_none());
    }

    #[test]
    fn patience_ends_before_the_lease_is_handed_on() {
        let mut leases = held();
        leases.park(0, b"k", waiter(7, 1_050));
        leases.park(0, b"k", waiter(8, 1_051));
        assert_eq!(leases.next_end_ms(), Some(1_050));
        let wakes = leases.expire(1_050, || token(2));
        assert_eq!(wakes, [(7, Answer::Busy), (8, Answer::Fill(token(2)))]);
    }

    #[test]
    fn a_client_in_line_behind_itself_vanishes_from_both_places() {
        let mut leases = held();
        leases.park(
            0,
            b"k",
            Waiter {
                client: 1,
                ..waiter(7, 2_000)
            },
        );
        assert_eq!(leases.behind_itself(1), [7]);
        assert!(leases.forget(7));
        assert_eq!(leases.disconnected(1, 1_010, || token(2)), []);
        assert!(leases.is_empty() && leases.parked() == 0);
    }

    #[test]
    fn an_abandoned_lease_is_taken_over() {
        let mut leases = held();
        let asked = leases.ask(0, b"k", 2, token(2), 1_050, 50);
        assert_eq!(asked, Asked::Granted(token(2)));
        let released = leases.release(0, b"k", token(1), 1_050, || token(3));
        assert_eq!(released, Released::NotHeld);
        assert_eq!(leases.clear(Some(1)), []);
        assert_eq!(leases.len(), 1);
        assert_eq!(leases.clear(None), []);
        assert!(leases.is_empty());
    }

    /// Random histories: nobody is told twice, nobody waits for ever, one holder a key, all tables agree.
    #[test]
    fn nobody_is_forgotten() {
        let seed = std::env::var("MCACHE_SEED")
            .ok()
            .and_then(|s| s.parse().ok())
            .unwrap_or_else(|| fastrand::u64(..));
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut leases: Leases<u32> = Leases::default();
        let mut waiting = std::collections::HashMap::new();
        let epoch = std::cell::Cell::new(0);
        let (mut now_ms, mut handle) = (1_000, 0);
        for _ in 0..50_000 {
            let key = [rng.u8(..5)];
            let client = rng.u64(..20);
            let fresh = || {
                epoch.set(epoch.get() + 1);
                token(epoch.get())
            };
            let wakes = match rng.u8(..12) {
                0..5 => {
                    let mine = fresh();
                    if leases.ask(0, &key, client, mine, now_ms, rng.u64(1..30)) == Asked::Held {
                        handle += 1;
                        let until_ms = now_ms + rng.u64(1..40);
                        let waiter = Waiter {
                            handle,
                            client,
                            lease_ms: rng.u64(1..30),
                            until_ms,
                        };
                        assert!(leases.park(0, &key, waiter));
                        waiting.insert(handle, until_ms);
                    }
                    Vec::new()
                }
                5 => leases.filled(0, &key),
                6 => {
                    let old = token(rng.u64(epoch.get().saturating_sub(30)..=epoch.get()));
                    match leases.release(0, &key, old, now_ms, fresh) {
                        Released::PassedOn(wake) => vec![wake],
                        Released::Freed | Released::NotHeld => Vec::new(),
                    }
                }
                7 => leases.disconnected(client, now_ms, fresh),
                8 if rng.u8(..) < 10 => leases.clear(None),
                9 => {
                    if let Some(gone) = waiting.keys().next().copied() {
                        assert!(leases.forget(gone));
                        waiting.remove(&gone);
                    }
                    Vec::new()
                }
                _ => {
                    now_ms += rng.u64(1..10);
                    leases.expire(now_ms, fresh)
                }
            };
            for (woken, _) in wakes {
                assert!(
                    waiting.remove(&woken).is_some(),
                    "woken twice or never parked"
                );
            }
            assert_eq!(leases.parked(), waiting.len());
            assert_eq!(leases.by_key.len(), leases.len());
            assert_eq!(
                leases.by_client.values().map(BTreeSet::len).sum::<usize>(),
                leases.len()
            );
            assert_eq!(leases.ends.len(), leases.len() + leases.parked());
        }
        now_ms += 1_000;
        while !leases.is_empty() {
            let wakes = leases.expire(now_ms, || token(u64::MAX));
            wakes
                .into_iter()
                .for_each(|(woken, _)| assert!(waiting.remove(&woken).is_some()));
            now_ms += 1_000;
        }
        assert!(waiting.is_empty(), "{} callers stuck", waiting.len());
    }
}
