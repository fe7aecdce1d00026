//! The rules of the script as a model: versions, floors, groups, ring. Pure; time stands still, so the
//! stale window of a softly invalidated entry does not end.

use std::collections::{BTreeMap, BTreeSet};

use mcache::provider::{EntryState, Mode};

/// As in the script.
const RING: u64 = 1024;

/// Tags that one group remembers, in the model and in the room it is compared with.
pub const GROUP_MAX: usize = 4;

/// As `client/src/server/plain/digest.rs`.
pub fn digest(tag: &[u8]) -> u64 {
    let hash = tag.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

pub fn group_of(digest: u64) -> u8 {
    (digest >> 56) as u8
}

#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub incarnation: u64,
    pub birth: u64,
    pub who: u64,
}

/// What is in the server, and would be in its file.
#[derive(Clone, Debug, Default)]
pub struct Data {
    pub room: Option<Room>,
    pub ring: BTreeMap<u64, (u64, u64)>,
    pub groups: BTreeMap<u8, Group>,
    pub entries: BTreeMap<String, Entry>,
    /// By key, who holds it.
    pub leases: BTreeMap<String, u64>,
}

#[derive(Clone, Debug)]
pub struct Room {
    incarnation: u64,
    epoch: u64,
    used: BTreeSet<u8>,
}

#[derive(Clone, Debug, Default)]
pub struct Group {
    floor: u64,
    tags: BTreeMap<u64, Record>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    hard: u64,
    auto: u64,
    soft: u64,
    auto_soft: u64,
}

impl Record {
    fn latest(self) -> u64 {
        self.hard.max(self.auto).max(self.soft).max(self.auto_soft)
    }
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub value: String,
    manual: bool,
    incarnation: u64,
    checked: u64,
    has_window: bool,
    soft: bool,
    digests: Vec<u64>,
}

/// What an entry met since it was last looked at.
#[derive(Clone, Copy, PartialEq)]
enum Met {
    Nothing,
    Soft,
    Dead,
}

/// What a lookup came to: state, value, and the token if the caller may fill.
#[derive(Clone, Debug, PartialEq)]
pub enum Looked {
    Hit(String),
    Stale(String, Option<Token>),
    Miss(Token),
    Busy,
}

#[derive(Default)]
pub struct Model {
    pub data: Data,
    /// Which run of which server this is.
    run: u64,
    /// In which run the client loaded its text.
    loaded: Option<u64>,
    next: u64,
}

impl Model {
    fn draw(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The server ends and begins again, or another takes its place: it knows no script.
    pub fn restart_with(&mut self, data: Data) {
        self.data = data;
        self.run = self.draw();
    }

    /// What each call begins with: a client whose text this run does not know loads another, and makes the room with
    /// it.
    fn enter(&mut self) {
        if self.loaded.replace(self.run) == Some(self.run) {
            return;
        }
        self.make_room();
    }

    fn make_room(&mut self) {
        self.data.ring.clear();
        self.data.room = Some(Room {
            incarnation: self.draw(),
            epoch: 1,
            used: BTreeSet::new(),
        });
    }

    fn room(&mut self) -> Room {
        if self.data.room.is_none() {
            self.make_room();
        }
        self.data.room.clone().expect("made")
    }

    pub fn get(&mut self, key: &str) -> Option<String> {
        self.enter();
        let state = self.judge(key, true);
        (state == Some(EntryState::Live)).then(|| self.data.entries[key].value.clone())
    }

    pub fn inspect(&mut self, key: &str) -> Option<EntryState> {
        self.enter();
        self.data.room.as_ref()?;
        self.judge(key, false)
    }

    pub fn token(&mut self) -> Token {
        self.enter();
        let room = self.room();
        Token {
            incarnation: room.incarnation,
            birth: room.epoch,
            who: self.draw(),
        }
    }

    pub fn fetch(&mut self, key: &str) -> Looked {
        self.enter();
        self.room();
        let state = self.judge(key, true);
        let value = self.data.entries.get(key).map(|entry| entry.value.clone());
        if state == Some(EntryState::Live) {
            return Looked::Hit(value.expect("judged"));
        }
        let token = match self.data.leases.contains_key(key) {
            true => None,
            false => {
                let token = self.token();
                self.data.leases.insert(key.to_owned(), token.who);
                Some(token)
            }
        };
        if state == Some(EntryState::Stale) {
            return Looked::Stale(value.expect("judged"), token);
        }
        self.data.entries.remove(key);
        token.map_or(Looked::Busy, Looked::Miss)
    }

    pub fn store(
        &mut self,
        key: &str,
        value: &str,
        tags: &[&str],
        manual: bool,
        has_window: bool,
        token: Option<&Token>,
    ) -> bool {
        self.enter();
        if token.is_some() && self.data.room.is_none() {
            return false;
        }
        let room = self.room();
        let mut digests: Vec<u64> = tags.iter().map(|tag| digest(tag.as_bytes())).collect();
        digests.sort_unstable();
        digests.dedup();
        if let Some(token) = token {
            let mut refused = token.incarnation != room.incarnation;
            if !refused && token.birth < room.epoch {
                let asked: Vec<u64> = digests.iter().copied().chain([mark(key)]).collect();
                refused = self.since(token.birth, manual, &asked) != Met::Nothing;
            }
            if refused {
                self.release(key, token);
                return false;
            }
        }
        self.data.entries.insert(
            key.to_owned(),
            Entry {
                value: value.to_owned(),
                manual,
                incarnation: room.incarnation,
                checked: room.epoch,
                has_window,
                soft: false,
                digests,
            },
        );
        self.data.leases.remove(key);
        true
    }

    pub fn release(&mut self, key: &str, token: &Token) -> bool {
        self.enter();
        if self.data.room.is_none() || self.data.leases.get(key) != Some(&token.who) {
            return false;
        }
        self.data.leases.remove(key);
        true
    }

    pub fn clear(&mut self, key: &str) -> bool {
        self.enter();
        if self.data.room.is_none() {
            self.data.entries.remove(key);
            return false;
        }
        let state = self.judge(key, false);
        self.data.entries.remove(key);
        self.note(&[mark(key)], Mode::Hard);
        matches!(state, Some(EntryState::Live | EntryState::Stale))
    }

    pub fn invalidate(&mut self, tags: &[&str], mode: Mode) {
        self.enter();
        let mut digests: Vec<u64> = tags.iter().map(|tag| digest(tag.as_bytes())).collect();
        digests.sort_unstable();
        digests.dedup();
        self.note(&digests, mode);
    }

    /// What an entry is worth; what was found out is written into it if `note` is set.
    fn judge(&mut self, key: &str, note: bool) -> Option<EntryState> {
        let entry = self.data.entries.get(key)?.clone();
        let Some(room) = &self.data.room else {
            return Some(EntryState::Dead);
        };
        if entry.incarnation != room.incarnation || entry.checked > room.epoch {
            return Some(EntryState::Dead);
        }
        let (epoch, mut soft) = (room.epoch, entry.soft);
        if entry.checked < epoch {
            let met = self.since(entry.checked, entry.manual, &entry.digests);
            if met == Met::Dead || (met == Met::Soft && !entry.has_window) {
                return Some(EntryState::Dead);
            }
            soft |= met == Met::Soft;
            if note && (met == Met::Soft || epoch - entry.checked >= 16) {
                let kept = self.data.entries.get_mut(key).expect("judged");
                kept.checked = epoch;
                kept.soft = soft;
            }
        }
        Some(match soft {
            true => EntryState::Stale,
            false => EntryState::Live,
        })
    }

    fn since(&mut self, from: u64, manual: bool, digests: &[u64]) -> Met {
        let epoch = self.data.room.as_ref().expect("entered").epoch;
        if from == epoch || digests.is_empty() {
            return Met::Nothing;
        }
        match self.by_ring(from, epoch, digests) {
            Some(hit) if hit.is_empty() => Met::Nothing,
            Some(hit) => self.by_groups(from, manual, &hit),
            None => self.by_groups(from, manual, digests),
        }
    }

    fn by_ring(&self, from: u64, epoch: u64, digests: &[u64]) -> Option<Vec<u64>> {
        let count = epoch - from;
        if count > RING || count * 4 > digests.len() as u64 * 8 {
            return None;
        }
        let mut hit = Vec::new();
        for version in from + 1..=epoch {
            let (lap, digest) = *self.data.ring.get(&(version % RING))?;
            if lap != version / RING % 255 + 1 {
                return None;
            }
            if digests.contains(&digest) {
                hit.push(digest);
            }
        }
        Some(hit)
    }

    fn by_groups(&mut self, from: u64, manual: bool, digests: &[u64]) -> Met {
        let (used, epoch) = {
            let room = self.data.room.as_ref().expect("entered");
            (room.used.clone(), room.epoch)
        };
        let mut met = Met::Nothing;
        for run in digests.chunk_by(|a, b| group_of(*a) == group_of(*b)) {
            let number = group_of(run[0]);
            if !used.contains(&number) {
                continue;
            }
            let Some(group) = self.data.groups.get(&number) else {
                let group = Group {
                    floor: epoch,
                    ..Group::default()
                };
                self.data.groups.insert(number, group);
                return Met::Dead;
            };
            if group.floor > from {
                return Met::Dead;
            }
            for record in run.iter().filter_map(|digest| group.tags.get(digest)) {
                if record.hard > from || (record.auto > from && !manual) {
                    return Met::Dead;
                }
                if record.soft > from || (record.auto_soft > from && !manual) {
                    met = Met::Soft;
                }
            }
        }
        met
    }

    fn note(&mut self, digests: &[u64], mode: Mode) {
        let Some(room) = &mut self.data.room else {
            return;
        };
        let last = room.epoch + digests.len() as u64;
        let mut version = room.epoch;
        for run in digests.chunk_by(|a, b| group_of(*a) == group_of(*b)) {
            let number = group_of(run[0]);
            if room.used.insert(number) {
                self.data.groups.insert(number, Group::default());
            }
            let group = self.data.groups.entry(number).or_insert(Group {
                floor: last,
                ..Group::default()
            });
            for digest in run {
                version += 1;
                let slot = (version / RING % 255 + 1, *digest);
                self.data.ring.insert(version % RING, slot);
                let record = group.tags.entry(*digest).or_default();
                match (mode.is_auto(), mode.is_soft()) {
                    (false, false) => record.hard = version,
                    (true, false) => record.auto = version,
                    (false, true) => {
                        record.hard = record.hard.max(record.soft);
                        record.soft = version;
                    }
                    (true, true) => {
                        record.auto = record.auto.max(record.auto_soft);
                        record.auto_soft = version;
                    }
                }
            }
            if group.tags.len() > GROUP_MAX {
                let mut latest: Vec<u64> = group.tags.values().map(|tag| tag.latest()).collect();
                latest.sort_unstable();
                group.floor = group.floor.max(latest[latest.len().div_ceil(2) - 1]);
                let floor = group.floor;
                group.tags.retain(|_, record| record.latest() > floor);
            }
        }
        room.epoch = last;
    }
}

fn mark(key: &str) -> u64 {
    digest(&[b"\0cleared\0", key.as_bytes()].concat())
}
