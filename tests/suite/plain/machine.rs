//! Random operations and everything that can happen to a server's memory, against the model alone and against the model
//! and a real server at once. An oracle that forgets nothing judges what is served.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::{Seed, Session};
use mcache::provider::{EntryState, FetchOptions, Lookup, Mode, Provider, Store, Token};
use mcache::{Bytes, PlainRedisProvider, Tags};
use redis::Value;

use super::bare;
use super::model::{Data, GROUP_MAX, Looked, Model, digest, group_of};
use crate::support::runtime::runtime;

const KEYS: usize = 8;
const TAGS: usize = 24;
const MODES: [Mode; 4] = [Mode::Hard, Mode::Auto, Mode::Soft, Mode::AutoSoft];
const LONG: Duration = Duration::from_secs(3_600);

/// The most tags of one call.
const FLOOD: usize = 250;

/// Tags of these groups: few, so that they are shared and folded.
fn tags_where(is_wanted: impl Fn(u8) -> bool, count: usize) -> Vec<String> {
    (0..)
        .map(|number| format!("t{number}"))
        .filter(|tag| is_wanted(group_of(digest(tag.as_bytes()))))
        .take(count)
        .collect()
}

/// This tag, and so many others that nothing carries.
fn flood<'a>(names: &'a [String], others: &'a [String], tag: usize, count: usize) -> Vec<&'a str> {
    let others = others[..count].iter().map(String::as_str);
    others.chain([&names[tag][..]]).collect()
}

#[derive(Debug, Clone)]
enum Step {
    Get {
        key: usize,
    },
    Inspect {
        key: usize,
    },
    Fetch {
        key: usize,
    },
    /// With the token at this place, if there is one.
    Store {
        key: usize,
        tags: Vec<usize>,
        manual: bool,
        window: bool,
        token: Option<usize>,
    },
    Token {
        key: usize,
    },
    Release {
        token: usize,
    },
    Clear {
        key: usize,
    },
    Invalidate {
        tags: Vec<usize>,
        mode: Mode,
    },
    /// Many at once, so that the ring goes round.
    Flood {
        tag: usize,
        times: usize,
    },
    EvictRoom,
    EvictRing,
    EvictGroup {
        group: u8,
    },
    EvictEntry {
        key: usize,
    },
    EvictLease {
        key: usize,
    },
    FlushAll,
    FlushScripts,
    /// The file is written.
    Save,
    /// The server is started from the file; or a replica that was as far takes its place.
    Restart,
}

impl Step {
    fn draw(seed: &mut Seed) -> Self {
        let key = seed.usize(..KEYS);
        let some = |seed: &mut Seed| (0..seed.usize(1..6)).map(|_| seed.usize(..TAGS)).collect();
        match seed.u32(..200) {
            0..40 => Self::Get { key },
            40..45 => Self::Inspect { key },
            45..80 => Self::Fetch { key },
            80..130 => Self::Store {
                key,
                tags: some(seed),
                manual: seed.u32(..4) == 0,
                window: seed.bool(),
                token: seed.bool().then(|| seed.usize(..6)),
            },
            130..138 => Self::Token { key },
            138..143 => Self::Release {
                token: seed.usize(..6),
            },
            143..148 => Self::Clear { key },
            148..180 => Self::Invalidate {
                tags: some(seed),
                mode: MODES[seed.usize(..4)],
            },
            180..182 => Self::Flood {
                tag: seed.usize(..TAGS),
                times: seed.usize(1..FLOOD),
            },
            182 => Self::EvictRoom,
            183..185 => Self::EvictRing,
            185..189 => Self::EvictGroup {
                group: seed.u8(..5),
            },
            189..191 => Self::EvictEntry { key },
            191..193 => Self::EvictLease { key },
            193 => Self::FlushAll,
            194 => Self::FlushScripts,
            195..198 => Self::Save,
            _ => Self::Restart,
        }
    }
}

/// What a step came to, as far as it can be seen.
#[derive(Debug, PartialEq)]
enum Seen {
    Nothing,
    Value(Option<String>),
    State(Option<EntryState>),
    Looked(&'static str, Option<String>, bool),
    Yes(bool),
}

/// When what was invalidated last, by the number of the step: it forgets nothing.
#[derive(Default)]
struct Oracle {
    now: usize,
    by_tag: BTreeMap<(usize, bool, bool), usize>,
    by_key: BTreeMap<usize, usize>,
    /// Value to when its fill began, its key, its tags, whether it is manual.
    fills: BTreeMap<String, (usize, usize, Vec<usize>, bool)>,
    hits: usize,
    stale: usize,
}

impl Oracle {
    fn invalidated(&mut self, tag: usize, mode: Mode) {
        self.by_tag
            .insert((tag, mode.is_auto(), mode.is_soft()), self.now);
    }

    fn served(&mut self, value: &str, is_stale: bool) {
        let (began, key, tags, manual) = &self.fills[value];
        for ((tag, auto, soft), at) in &self.by_tag {
            let concerns = tags.contains(tag) && !(*auto && *manual) && !(*soft && is_stale);
            assert!(
                !concerns || at < began,
                "{value} of tags {tags:?} began at {began}; tag {tag} was invalidated at {at}"
            );
        }
        let cleared = self.by_key.get(key).copied().unwrap_or(0);
        assert!(cleared == 0 || cleared < *began, "{value} was cleared");
        match is_stale {
            true => self.stale += 1,
            false => self.hits += 1,
        }
    }
}

/// A token: of which key, when it was handed out, and as either side knows it.
struct Held {
    key: usize,
    at: usize,
    model: super::model::Token,
    real: Option<Token>,
}

struct Machine {
    names: Vec<String>,
    /// Of other groups.
    others: Vec<String>,
    model: Model,
    saved: Data,
    oracle: Oracle,
    tokens: Vec<Held>,
    real: Option<Real>,
}

/// The server that is compared with the model.
struct Real {
    runtime: tokio::runtime::Runtime,
    provider: PlainRedisProvider,
    session: Session,
    saved: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Real {
    fn at(url: &str, session: Session) -> Self {
        let provider = PlainRedisProvider::builder(url)
            .namespace("plain")
            .remembered_tags(GROUP_MAX * 256)
            .build()
            .expect("an address");
        Self {
            runtime: runtime(),
            provider,
            session,
            saved: Vec::new(),
        }
    }

    fn looked(&mut self, key: &str) -> (Seen, Option<Token>) {
        let options = FetchOptions::new().lease(Duration::from_secs(600));
        let found = self
            .runtime
            .block_on(self.provider.fetch(key.as_bytes(), options));
        let text = |value: Bytes| Some(String::from_utf8_lossy(&value).into_owned());
        let (state, value, token) = match found.expect("fetch") {
            Lookup::Hit(value) => ("hit", text(value), None),
            Lookup::Stale { value, token } => ("stale", text(value), token),
            Lookup::Miss { token } => ("miss", None, Some(token)),
            Lookup::Busy => ("busy", None, None),
            other => panic!("{other:?}"),
        };
        (Seen::Looked(state, value, token.is_some()), token)
    }

    fn unlink(&mut self, key: String) {
        self.session.call(&["UNLINK", &key]);
    }

    fn save(&mut self) {
        let keys = self.session.list("KEYS *");
        self.saved.clear();
        for key in keys {
            if let Value::BulkString(dump) = self.session.call(&["DUMP", &key]) {
                self.saved.push((key.into_bytes(), dump));
            }
        }
    }

    fn restart(&mut self) {
        self.session.ok("FLUSHALL");
        self.session.ok("SCRIPT FLUSH");
        for (key, dump) in &self.saved {
            self.session.call(&[&b"RESTORE"[..], key, b"0", dump]);
        }
    }
}

impl Machine {
    fn new(real: Option<Real>) -> Self {
        Self {
            names: tags_where(|group| group < 5, TAGS),
            others: tags_where(|group| group >= 5, FLOOD),
            model: Model::default(),
            saved: Data::default(),
            oracle: Oracle::default(),
            tokens: Vec::new(),
            real,
        }
    }

    fn step(&mut self, step: &Step) {
        self.oracle.now += 1;
        let now = self.oracle.now;
        let (expected, token) = self.apply_to_model(step);
        let mut real_token = None;
        if let Some(mut real) = self.real.take() {
            let (seen, token) = self.apply_to_server(&mut real, step);
            assert_eq!(seen, expected, "{step:?}");
            real_token = token;
            self.real = Some(real);
        }
        if let Some((key, model)) = token {
            self.tokens.insert(
                0,
                Held {
                    key,
                    at: now,
                    model,
                    real: real_token,
                },
            );
            self.tokens.truncate(6);
        }
        match (&expected, step) {
            (Seen::Value(Some(value)), _) | (Seen::Looked("hit", Some(value), _), _) => {
                self.oracle.served(value, false);
            }
            (Seen::Looked("stale", Some(value), _), _) => self.oracle.served(value, true),
            _ => {}
        }
        match step {
            Step::Invalidate { tags, mode } => {
                for tag in tags {
                    self.oracle.invalidated(*tag, *mode);
                }
            }
            Step::Flood { tag, .. } => self.oracle.invalidated(*tag, Mode::Hard),
            Step::Clear { key } => drop(self.oracle.by_key.insert(*key, now)),
            _ => {}
        }
    }

    /// The value of this step's store, and the token it is given back with.
    fn store_of(&self, key: usize, token: &Option<usize>) -> (String, Option<usize>) {
        let token =
            token.filter(|place| self.tokens.get(*place).is_some_and(|held| held.key == key));
        (format!("v{}", self.oracle.now), token)
    }

    fn apply_to_model(&mut self, step: &Step) -> (Seen, Option<(usize, super::model::Token)>) {
        let name = |key: &usize| format!("k{key}");
        match step {
            Step::Get { key } => (Seen::Value(self.model.get(&name(key))), None),
            Step::Inspect { key } => (Seen::State(self.model.inspect(&name(key))), None),
            Step::Token { key } => (Seen::Nothing, Some((*key, self.model.token()))),
            Step::Fetch { key } => {
                let (state, value, token) = match self.model.fetch(&name(key)) {
                    Looked::Hit(value) => ("hit", Some(value), None),
                    Looked::Stale(value, token) => ("stale", Some(value), token),
                    Looked::Miss(token) => ("miss", None, Some(token)),
                    Looked::Busy => ("busy", None, None),
                };
                let seen = Seen::Looked(state, value, token.is_some());
                (seen, token.map(|token| (*key, token)))
            }
            Step::Store {
                key,
                tags,
                manual,
                window,
                token,
            } => {
                let (value, token) = self.store_of(*key, token);
                let held = token.map(|place| &self.tokens[place]);
                let began = held.map_or(self.oracle.now, |held| held.at);
                let fill = (began, *key, tags.clone(), *manual);
                self.oracle.fills.insert(value.clone(), fill);
                let tags: Vec<&str> = tags.iter().map(|tag| &self.names[*tag][..]).collect();
                let token = held.map(|held| &held.model);
                let stored = self
                    .model
                    .store(&name(key), &value, &tags, *manual, *window, token);
                (Seen::Yes(stored), None)
            }
            Step::Release { token } => match self.tokens.get(*token) {
                Some(held) => {
                    let released = self.model.release(&name(&held.key), &held.model);
                    (Seen::Yes(released), None)
                }
                None => (Seen::Nothing, None),
            },
            Step::Clear { key } => (Seen::Yes(self.model.clear(&name(key))), None),
            Step::Invalidate { tags, mode } => {
                let tags: Vec<&str> = tags.iter().map(|tag| &self.names[*tag][..]).collect();
                self.model.invalidate(&tags, *mode);
                (Seen::Nothing, None)
            }
            Step::Flood { tag, times } => {
                let flood = flood(&self.names, &self.others, *tag, *times);
                self.model.invalidate(&flood, Mode::Hard);
                (Seen::Nothing, None)
            }
            other => {
                match other {
                    Step::EvictRoom => self.model.data.room = None,
                    Step::EvictRing => self.model.data.ring.clear(),
                    Step::EvictGroup { group } => drop(self.model.data.groups.remove(group)),
                    Step::EvictEntry { key } => drop(self.model.data.entries.remove(&name(key))),
                    Step::EvictLease { key } => drop(self.model.data.leases.remove(&name(key))),
                    Step::FlushAll => self.model.data = Data::default(),
                    Step::FlushScripts => {
                        let data = self.model.data.clone();
                        self.model.restart_with(data);
                    }
                    Step::Save => self.saved = self.model.data.clone(),
                    _ => self.model.restart_with(self.saved.clone()),
                }
                (Seen::Nothing, None)
            }
        }
    }

    fn apply_to_server(&self, real: &mut Real, step: &Step) -> (Seen, Option<Token>) {
        let name = |key: &usize| format!("k{key}");
        let named = |tags: &[usize]| tags.iter().map(|tag| &self.names[*tag]).collect::<Tags>();
        match step {
            Step::Get { key } => {
                let key = name(key);
                let value = real.runtime.block_on(real.provider.get(key.as_bytes()));
                let value = value.expect("get");
                let text = value.map(|value| String::from_utf8_lossy(&value).into_owned());
                (Seen::Value(text), None)
            }
            Step::Inspect { key } => {
                let key = name(key);
                let found = real.runtime.block_on(real.provider.inspect(key.as_bytes()));
                (
                    Seen::State(found.expect("inspect").map(|found| found.state)),
                    None,
                )
            }
            Step::Token { key } => {
                let key = name(key);
                let token = real.runtime.block_on(real.provider.token(key.as_bytes()));
                (Seen::Nothing, Some(token.expect("token")))
            }
            Step::Fetch { key } => real.looked(&name(key)),
            Step::Store {
                key,
                tags,
                manual,
                window,
                token,
            } => {
                let (value, token) = self.store_of(*key, token);
                let (name, tags) = (name(key), named(tags));
                let mut entry = Store::new(name.as_bytes(), value, &tags)
                    .ttl(LONG)
                    .manual(*manual);
                if *window {
                    entry = entry.swr(LONG);
                }
                let held = token.and_then(|place| self.tokens[place].real.clone());
                if let Some(token) = &held {
                    entry = entry.token(token);
                }
                let stored = real.runtime.block_on(real.provider.store(entry));
                (Seen::Yes(stored.expect("store")), None)
            }
            Step::Release { token } => match self.tokens.get(*token) {
                Some(Held {
                    key,
                    real: Some(token),
                    ..
                }) => {
                    let key = name(key);
                    let released = real.provider.release(key.as_bytes(), token);
                    let released = real.runtime.block_on(released);
                    (Seen::Yes(released.expect("release")), None)
                }
                _ => (Seen::Nothing, None),
            },
            Step::Clear { key } => {
                let key = name(key);
                let cleared = real.runtime.block_on(real.provider.clear(key.as_bytes()));
                (Seen::Yes(cleared.expect("clear")), None)
            }
            Step::Invalidate { tags, mode } => {
                let tags = named(tags);
                let told = real
                    .runtime
                    .block_on(real.provider.invalidate(&tags, *mode));
                told.expect("invalidate");
                (Seen::Nothing, None)
            }
            Step::Flood { tag, times } => {
                let flood = flood(&self.names, &self.others, *tag, *times)
                    .into_iter()
                    .collect::<Tags>();
                let told = real.provider.invalidate(&flood, Mode::Hard);
                real.runtime.block_on(told).expect("invalidate");
                (Seen::Nothing, None)
            }
            other => {
                match other {
                    Step::EvictRoom => real.unlink("{plain}:c".to_owned()),
                    Step::EvictRing => real.unlink("{plain}:r".to_owned()),
                    Step::EvictGroup { group } => real.unlink(format!("{{plain}}:g{group}")),
                    Step::EvictEntry { key } => real.unlink(format!("{{plain}}:v:{}", name(key))),
                    Step::EvictLease { key } => real.unlink(format!("{{plain}}:l:{}", name(key))),
                    Step::FlushAll => real.session.ok("FLUSHALL"),
                    Step::FlushScripts => real.session.ok("SCRIPT FLUSH"),
                    Step::Save => real.save(),
                    _ => real.restart(),
                }
                (Seen::Nothing, None)
            }
        }
    }
}

#[test]
fn the_rules_serve_nothing_stale_whatever_is_evicted_flushed_or_restored() {
    let mut seed = Seed::draw("plain rules");
    let (mut hits, mut stale) = (0, 0);
    for _ in 0..200 {
        let mut machine = Machine::new(None);
        for _ in 0..1_000 {
            let step = Step::draw(&mut seed);
            machine.step(&step);
        }
        hits += machine.oracle.hits;
        stale += machine.oracle.stale;
    }
    println!("{hits} hits, {stale} stale");
    assert!(hits > 5_000 && stale > 300, "{hits} hits, {stale} stale");
}

#[test]
fn the_script_does_what_the_rules_say() {
    let server = bare().start();
    let steps = match std::env::var_os("MCACHE_LONG") {
        Some(_) => 200_000,
        None => 4_000,
    };
    compare(&server.url(), server.session(), steps);
}

/// So many random steps at the rules and at the server with this address.
pub fn compare(url: &str, session: Session, steps: usize) {
    let mut seed = Seed::draw("plain script");
    let mut machine = Machine::new(Some(Real::at(url, session)));
    for _ in 0..steps {
        let step = Step::draw(&mut seed);
        machine.step(&step);
    }
    let oracle = &machine.oracle;
    println!("{} hits, {} stale", oracle.hits, oracle.stale);
    // About ten in four thousand steps are stale: few enough that a seed may meet one only.
    assert!(oracle.hits > 100 && oracle.stale > 0);
}
