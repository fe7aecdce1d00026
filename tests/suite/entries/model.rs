//! Any sequence of operations leaves the server as a naive model says.
//!
//! The model keeps every key of every database in a map and visits all of them for each invalidation. It knows less
//! than the server in two ways, and allows for both: a dead entry may or may not have been reclaimed, and where the
//! contract leaves open whether an entry or a token is still good (it went to another database, say), either answer is
//! right, but it has to stay.

mod keyspace;

use std::collections::{BTreeMap, BTreeSet};

use harness::{Seed, Server, Session, host};
use redis::Value;

const DATABASES: usize = 3;
const KEYS: u32 = 12;
const TAGS: u32 = 8;
const OPERATIONS: usize = 15_000;
const CHECK_EVERY: usize = 250;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Life {
    Live,
    Dead,
    /// Either; the next GET decides.
    Open,
}

#[derive(Clone, Debug)]
struct Entry {
    value: String,
    tags: BTreeSet<String>,
    manual: bool,
    life: Life,
    born: u64,
}

#[derive(Clone, Debug)]
enum Held {
    Foreign,
    Entry(Entry),
}

/// A token in a client's hands and what the model remembers of it.
struct Token {
    text: String,
    db: usize,
    taken: u64,
}

/// A dump in a client's hands.
struct Dump {
    bytes: Vec<u8>,
    db: usize,
    entry: Entry,
}

#[derive(Default)]
struct Database {
    keys: BTreeMap<String, Held>,
    /// When a tag was last invalidated: for all entries, and for the ones that are not MANUAL.
    invalidated: BTreeMap<String, (u64, u64)>,
}

struct World {
    redis: Session,
    seed: Seed,
    exact_counts: bool,
    db: usize,
    databases: [Database; DATABASES],
    tokens: Vec<Token>,
    dumps: Vec<Dump>,
    /// Counts invalidations.
    clock: u64,
    /// What was done, for a failure to show.
    history: Vec<String>,
    /// The last time databases changed places or were emptied: what was taken before is the server's to judge.
    upheaval: u64,
}

impl Database {
    /// Whether a fill of an entry like this that began at `since` began before an invalidation that concerns it.
    fn outdated(&self, tags: &BTreeSet<String>, manual: bool, since: u64) -> bool {
        tags.iter().any(|tag| {
            let (all, auto) = self.invalidated.get(tag).copied().unwrap_or_default();
            all > since || (!manual && auto > since)
        })
    }
}

impl World {
    fn key(&mut self) -> String {
        format!("k{}", self.seed.u32(..KEYS))
    }

    fn tag(&mut self) -> String {
        format!("t{}", self.seed.u32(..TAGS))
    }

    fn some_tags(&mut self, most: usize) -> Vec<String> {
        (0..self.seed.usize(..=most)).map(|_| self.tag()).collect()
    }

    fn here(&mut self) -> &mut BTreeMap<String, Held> {
        &mut self.databases[self.db].keys
    }

    /// Notes a line that is about to be run.
    fn note(&mut self, line: &str) {
        self.history.push(format!("{}> {line}", self.db));
    }

    fn is_dead(&self, db: usize, key: &str) -> bool {
        matches!(self.databases[db].keys.get(key), Some(Held::Entry(e)) if e.life != Life::Live)
    }

    /// Runs a line in a transaction that first asks which of these keys exist, and forgets the dead ones that do not.
    fn run_knowing(&mut self, keys: &[&str], line: &str) -> Result<Value, String> {
        self.note(line);
        self.redis.ok("MULTI");
        for key in keys {
            self.redis.run(&format!("EXISTS {key}"));
        }
        let queued = self.redis.try_run(line);
        let Value::Array(mut replies) = self.redis.run("EXEC") else {
            panic!("EXEC gives an array")
        };
        assert!(queued.is_ok(), "{line}: {queued:?}");
        for (key, exists) in keys.iter().zip(&replies) {
            let exists = *exists == Value::Int(1);
            if !exists && self.is_dead(self.db, key) {
                self.here().remove(*key);
            }
            assert_eq!(
                exists,
                self.here().contains_key(*key),
                "EXISTS {key} before {line}"
            );
        }
        match replies.pop().expect("one reply a line") {
            Value::ServerError(error) => Err(format!("{error}")),
            value => Ok(value),
        }
    }

    fn step(&mut self) {
        match self.seed.u32(..100) {
            0..30 => self.set(),
            30..42 => self.get(),
            42..52 => self.invalidate(),
            52..58 => self.take_token(),
            58..62 => self.delete(),
            62..67 => self.rename(),
            67..71 => self.copy(),
            71..74 => self.move_(),
            74..77 => self.overwrite(),
            77..81 => self.dump(),
            81..85 => self.restore(),
            85..87 => self.deadline(),
            87..88 if self.seed.chance(50) => self.swap(),
            88..89 if self.seed.chance(30) => self.flush(),
            89..90 if self.seed.chance(20) => self.reload(),
            _ => {
                self.db = self.seed.usize(..DATABASES);
                self.redis.ok(&format!("SELECT {}", self.db));
            }
        }
    }

    fn set(&mut self) {
        let (key, tags) = (self.key(), self.some_tags(4));
        let value = format!("v{}", self.seed.u32(..1_000_000));
        let manual = self.seed.chance(20);
        let condition = *self.seed.pick(&["", "", "", "NX", "XX"]);
        let token = if self.tokens.is_empty() || self.seed.chance(50) {
            None
        } else {
            let at = self.seed.usize(..self.tokens.len());
            Some(self.tokens.swap_remove(at))
        };
        let mut line = format!("MCACHE.SET {key} 0 {value} {condition}");
        if manual {
            line += " MANUAL";
        }
        if let Some(token) = &token {
            line += &format!(" TOKEN {}", token.text);
        }
        if !tags.is_empty() {
            line += &format!(" TAGS {}", tags.join(" "));
        }
        let tags: BTreeSet<String> = tags.into_iter().collect();
        let taken = token.as_ref().map_or(self.clock, |token| token.taken);
        // An entry of which the contract does not say whether it is live answers NX and XX either way.
        let open = matches!(self.here().get(&key), Some(Held::Entry(e)) if e.life == Life::Open);
        let served = match self.here().get(&key) {
            Some(Held::Foreign) => {
                assert!(self.redis.error(&line).starts_with("WRONGTYPE"), "{line}");
                return;
            }
            Some(Held::Entry(entry)) => entry.life != Life::Dead,
            None => false,
        };
        let refused_by_condition = (condition == "NX" && served) || (condition == "XX" && !served);
        let db = &self.databases[self.db];
        let must_refuse = db.outdated(&tags, manual, taken)
            && token
                .as_ref()
                .is_some_and(|t| t.db == self.db && t.taken >= self.upheaval);
        let may_refuse = taken < self.clock || (open && !condition.is_empty());

        self.note(&line);
        let stored = match self.redis.run(&line) {
            Value::Okay => true,
            Value::Nil => false,
            other => panic!("{line}: {other:?}"),
        };
        if open && !condition.is_empty() {
            // Undecided before, and still.
        } else if refused_by_condition || must_refuse {
            assert!(
                !stored,
                "stored although outdated or refused by {condition}: {line}"
            );
        } else if !may_refuse {
            assert!(stored, "refused for no reason: {line}");
        }
        if stored {
            let entry = Entry {
                value,
                tags,
                manual,
                life: Life::Live,
                born: taken,
            };
            self.here().insert(key, Held::Entry(entry));
        }
    }

    fn get(&mut self) {
        let key = self.key();
        self.look_at(&key);
    }

    /// Reads a key, compares, and learns what was open.
    fn look_at(&mut self, key: &str) {
        let line = format!("MCACHE.GET {key}");
        self.note(&line);
        match self.databases[self.db].keys.get_mut(key) {
            None => assert_eq!(self.redis.text(&line), None, "{line}"),
            Some(Held::Foreign) => assert!(self.redis.error(&line).starts_with("WRONGTYPE")),
            Some(Held::Entry(entry)) => {
                let got = self.redis.text(&line);
                if entry.life == Life::Open {
                    entry.life = if got.is_some() {
                        Life::Live
                    } else {
                        Life::Dead
                    };
                }
                let expected = (entry.life == Life::Live).then(|| entry.value.clone());
                assert_eq!(got, expected, "{line}");
            }
        }
    }

    fn invalidate(&mut self) {
        let mut tags = self.some_tags(2);
        tags.push(self.tag());
        let auto = self.seed.chance(40);
        let word = if auto { "AUTO " } else { "" };
        let line = format!("MCACHE.INVALIDATE {word}TAGS {}", tags.join(" "));
        let tags: BTreeSet<String> = tags.into_iter().collect();
        self.clock += 1;
        let (mut died, mut undecided, mut memberships) = (0, 0, 0);
        let database = &mut self.databases[self.db];
        for held in database.keys.values_mut() {
            let Held::Entry(entry) = held else { continue };
            let named = entry.tags.intersection(&tags).count() as i64;
            if named == 0 || (auto && entry.manual) {
                continue;
            }
            memberships += named;
            died += i64::from(entry.life == Life::Live);
            undecided += i64::from(entry.life == Life::Open);
            entry.life = Life::Dead;
        }
        for tag in tags {
            let (all, automatic) = database.invalidated.entry(tag).or_default();
            *automatic = self.clock;
            if !auto {
                *all = self.clock;
            }
        }
        // What is freed at once is counted one by one; what is left to the reclaimer is counted by membership, since
        // the command is O(tags).
        let most = if self.exact_counts {
            died + undecided
        } else {
            memberships
        };
        let reply = self.redis.int(&line);
        assert!(
            (died..=most).contains(&reply),
            "{line}: {reply}, not {died} to {most}"
        );
    }

    fn take_token(&mut self) {
        let key = self.key();
        if matches!(self.here().get(&key), Some(Held::Foreign)) {
            return;
        }
        let text = self.redis.token(&key);
        self.note(&format!("MCACHE.TOKEN {key}: {text}"));
        let token = Token {
            text,
            db: self.db,
            taken: self.clock,
        };
        self.tokens.push(token);
    }

    fn upheave(&mut self) {
        self.clock += 1;
        self.upheaval = self.clock;
    }

    /// Compares everything there is.
    fn check(&mut self) {
        for db in 0..DATABASES {
            self.db = db;
            self.redis.ok(&format!("SELECT {db}"));
            for key in self.here().keys().cloned().collect::<Vec<_>>() {
                self.look_at(&key);
            }
            for (tag, keys) in self.live_by_tag(db) {
                assert_eq!(self.redis.entries(&tag), keys, "entries of {tag} in {db}");
            }
        }
        self.redis.ok("MCACHE.DEBUG SELFCHECK");
        self.redis.drain();
        let (mut entries, mut memberships) = (0, 0);
        for db in 0..DATABASES {
            self.redis.ok(&format!("SELECT {db}"));
            self.databases[db]
                .keys
                .retain(|_, held| !matches!(held, Held::Entry(e) if e.life == Life::Dead));
            assert_eq!(
                self.redis.int("DBSIZE"),
                self.databases[db].keys.len() as i64,
                "keys of {db}"
            );
            let expected: BTreeMap<String, i64> = self
                .live_by_tag(db)
                .into_iter()
                .filter(|(_, keys)| !keys.is_empty())
                .map(|(tag, keys)| (tag, keys.len() as i64))
                .collect();
            assert_eq!(self.redis.tags(), expected, "tags of {db}");
            memberships += expected.values().sum::<i64>();
            entries += self.databases[db]
                .keys
                .values()
                .filter(|held| matches!(held, Held::Entry(_)))
                .count();
        }
        self.redis.ok(&format!("SELECT {}", self.db));
        assert_eq!(self.redis.stat("entries"), entries as i64);
        assert_eq!(self.redis.stat("memberships"), memberships);
        assert_eq!(self.redis.stat("pending_reclaim"), 0);
    }

    /// Every tag there can be, with the live keys that carry it.
    fn live_by_tag(&self, db: usize) -> BTreeMap<String, Vec<String>> {
        let mut by_tag: BTreeMap<String, Vec<String>> =
            (0..TAGS).map(|t| (format!("t{t}"), Vec::new())).collect();
        for (key, held) in &self.databases[db].keys {
            let Held::Entry(entry) = held else { continue };
            for tag in entry.tags.iter().filter(|_| entry.life == Life::Live) {
                by_tag
                    .get_mut(tag)
                    .expect("one of the tags")
                    .push(key.clone());
            }
        }
        by_tag.values_mut().for_each(|keys| keys.sort());
        by_tag
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            const SHOWN: usize = 40;
            let skipped = self.history.len().saturating_sub(SHOWN);
            eprintln!("after {skipped} others, with the database in front:");
            self.history
                .iter()
                .skip(skipped)
                .for_each(|line| eprintln!("  {line}"));
        }
    }
}

fn run(test: &str, inline_max: u64, operations: usize) {
    if host::loses_the_database() {
        return;
    }
    let server = Server::builder()
        .set("mcache.reclaim-inline-max", inline_max)
        .start();
    let mut world = World {
        redis: server.session(),
        seed: Seed::draw(test),
        exact_counts: inline_max > 0,
        db: 0,
        databases: Default::default(),
        tokens: Vec::new(),
        dumps: Vec::new(),
        clock: 0,
        upheaval: 0,
        history: Vec::new(),
    };
    for step in 1..=operations {
        world.step();
        if step % CHECK_EVERY == 0 {
            world.check();
        }
    }
}

#[test]
fn the_server_is_as_the_model_says_when_the_dead_are_freed_at_once() {
    run("freed_at_once", 10_000, OPERATIONS);
}

#[test]
fn the_server_is_as_the_model_says_when_the_dead_wait_for_the_reclaimer() {
    run("reclaimed_later", 0, OPERATIONS);
}

#[test]
#[ignore = "long: make test-long"]
fn the_server_is_as_the_model_says_for_a_million_operations() {
    run("a_million_operations", 0, 500_000);
    run("a_million_operations", 10_000, 500_000);
}
