//! Everything at once: concurrent clients, every command, every way for an entry to leave. Afterwards, and in between,
//! the index is what the keyspace says, and both are what a naive model says.
//!
//! Two kinds of truth are checked. What a client alone has stored under names of its own is either there exactly as it
//! was stored or gone. What all of them share under shared tags carries a version; once an invalidation has been
//! answered, no value with a version from before it is served. `MCACHE_LONG=1` makes it minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Seed, Server, Session, host, wait};
use redis::Value;

const CLIENTS: usize = 4;
const SHARED_TAGS: usize = 6;
const SHARED_KEYS: u32 = 30;
const OWN_KEYS: u32 = 40;
const OWN_TAGS: u32 = 6;
/// Long enough for all values together to be several times `ROOM_BYTES`, which is more than what clients' buffers take.
const VALUE_BYTES: usize = 6_000;
const ROOM_BYTES: i64 = 500_000;

/// How long one world lasts.
fn lifetime() -> Duration {
    match std::env::var_os("MCACHE_LONG") {
        Some(_) => Duration::from_secs(20),
        None => Duration::from_millis(1_200),
    }
}

/// The source behind the shared keys: a version for each shared tag, and which versions have been invalidated and
/// answered for.
#[derive(Default)]
struct Source {
    written: [AtomicU64; SHARED_TAGS],
    answered: [AtomicU64; SHARED_TAGS],
    reads: AtomicU64,
    hits: AtomicU64,
    stale: AtomicU64,
}

/// What one client has stored under its own names.
struct Own {
    value: String,
    tags: BTreeSet<String>,
}

struct Client<'w> {
    redis: Session,
    seed: Seed,
    number: usize,
    source: &'w Source,
    model: BTreeMap<String, Own>,
    /// Whether entries may go by themselves, by eviction.
    lossy: bool,
}

impl Client<'_> {
    fn own_key(&mut self) -> String {
        format!("own:{}:{}", self.number, self.seed.u32(..OWN_KEYS))
    }

    fn own_tags(&mut self) -> BTreeSet<String> {
        (0..self.seed.u32(..4))
            .map(|_| format!("own:{}:t{}", self.number, self.seed.u32(..OWN_TAGS)))
            .collect()
    }

    /// Runs a line; without memory a fill may be refused, which changes nothing.
    fn run(&mut self, line: &str) -> Option<Value> {
        match self.redis.try_run(line) {
            Ok(value) => Some(value),
            Err(refusal) if refusal.starts_with("OOM") => None,
            Err(refusal) => panic!("{}: {line}: {refusal}", self.seed),
        }
    }

    fn step(&mut self) {
        match self.seed.u32(..100) {
            0..22 => self.store_own(),
            22..36 => self.read_own(),
            36..42 => self.invalidate_own(),
            42..46 => self.delete_own(),
            46..50 => self.rename_or_copy_own(),
            50..54 => self.short_lived(),
            54..68 => self.fill_shared(),
            68..88 => self.read_shared(),
            88..94 => self.change_shared(),
            94..97 => self.script(),
            97..99 => self.elsewhere(),
            _ => self.look_around(),
        }
    }

    fn store_own(&mut self) {
        let (key, tags) = (self.own_key(), self.own_tags());
        let value = format!("v{}{}", self.seed.u32(..), "x".repeat(VALUE_BYTES));
        let line = set_line(&key, "1000", &value, &tags);
        let stored = match self.seed.u32(..4) {
            0 => self.in_transaction(&line),
            _ => self.run(&line),
        };
        if stored.is_some() {
            self.model.insert(key, Own { value, tags });
        }
    }

    /// The reply of one line inside MULTI/EXEC; `None` when there was no memory.
    fn in_transaction(&mut self, line: &str) -> Option<Value> {
        self.redis.ok("MULTI");
        let queued = self.redis.try_run(line);
        match (queued, self.redis.try_run("EXEC")) {
            (Ok(_), Ok(Value::Array(mut replies))) => replies.pop().filter(|reply| !is_oom(reply)),
            (Err(refusal), _) if refusal.starts_with("OOM") => None,
            (_, Err(refusal)) if refusal.contains("OOM") => None,
            other => panic!("{}: {line} in MULTI: {other:?}", self.seed),
        }
    }

    fn read_own(&mut self) {
        let key = self.own_key();
        let found = self.redis.text(&format!("MCACHE.GET {key}"));
        let expected = self.model.get(&key).map(|own| own.value.as_str());
        match &found {
            None if self.lossy => {}
            found => assert_eq!(found.as_deref(), expected, "{}: {key}", self.seed),
        }
        if found.is_none() {
            // A value that is gone does not come back.
            self.model.remove(&key);
        }
    }

    fn invalidate_own(&mut self) {
        let tag = format!("own:{}:t{}", self.number, self.seed.u32(..OWN_TAGS));
        self.run(&format!("MCACHE.INVALIDATE TAGS {tag} nobody:has:this"));
        self.model.retain(|_, own| !own.tags.contains(&tag));
    }

    fn delete_own(&mut self) {
        let key = self.own_key();
        let line = match self.seed.u32(..4) {
            0 => format!("DEL {key}"),
            1 => format!("UNLINK {key}"),
            2 => format!("EXPIRE {key} -1"),
            _ => format!("SET {key} text"),
        };
        let done = self.run(&line);
        if line.starts_with("SET") {
            self.run(&format!("DEL {key}"));
        } else {
            assert!(done.is_some(), "{}: {line} needs no memory", self.seed);
        }
        self.model.remove(&key);
    }

    fn rename_or_copy_own(&mut self) {
        let (from, to) = (self.own_key(), self.own_key());
        if from == to {
            return;
        }
        let (line, copying) = match self.seed.u32(..4) {
            0 => (format!("COPY {from} {to} REPLACE"), true),
            1 => (format!("EVAL \"{RESTORE}\" 2 {from} {to}"), true),
            2 => (format!("RENAMENX {from} {to}"), false),
            _ => (format!("RENAME {from} {to}"), false),
        };
        let moved = match self.redis.try_run(&line) {
            Ok(reply) => reply == Value::Okay || reply == Value::Int(1),
            Err(refusal) => {
                let expected = refusal.contains("no such key") || refusal.contains("OOM");
                assert!(expected, "{}: {line}: {refusal}", self.seed);
                false
            }
        };
        if !moved {
            return;
        }
        self.model.remove(&to);
        // A dead entry that is still in the keyspace is moved and stays dead.
        let Some(own) = self.model.remove(&from) else {
            return;
        };
        if copying {
            let (value, tags) = (own.value.clone(), own.tags.clone());
            self.model.insert(from, Own { value, tags });
        }
        self.model.insert(to, own);
    }

    fn short_lived(&mut self) {
        let tags: BTreeSet<String> = ["brief".to_owned(), "shared:0".to_owned()].into();
        let key = format!("brief:{}", self.seed.u32(..1_000));
        self.run(&set_line(&key, "0.02", "v", &tags));
    }

    /// Loads what is true now, with a token from before it was read.
    fn fill_shared(&mut self) {
        let key = format!("shared:{}", self.seed.u32(..SHARED_KEYS));
        let tags: BTreeSet<usize> = (0..self.seed.usize(1..4))
            .map(|_| self.seed.usize(..SHARED_TAGS))
            .collect();
        let token = self.redis.token(&key);
        let versions: Vec<String> = tags
            .iter()
            .map(|tag| format!("{tag}={}", self.source.written[*tag].load(SeqCst)))
            .collect();
        let tags: Vec<String> = tags.iter().map(|tag| format!("shared:{tag}")).collect();
        self.run(&format!(
            "MCACHE.SET {key} 100 {}|{} TOKEN {token} TAGS {}",
            versions.join(","),
            "x".repeat(VALUE_BYTES),
            tags.join(" ")
        ));
    }

    fn read_shared(&mut self) {
        let key = format!("shared:{}", self.seed.u32(..SHARED_KEYS));
        let answered: Vec<u64> = self
            .source
            .answered
            .iter()
            .map(|v| v.load(SeqCst))
            .collect();
        let found = match self.seed.u32(..4) {
            0 => {
                self.redis
                    .typed::<(Option<String>,)>(&format!("MCACHE.MGET {key}"))
                    .0
            }
            1 => {
                let (state, value, token): (String, Option<String>, Option<String>) =
                    self.redis.typed(&format!("MCACHE.FETCH {key} LEASE 50"));
                if let Some(token) = token {
                    self.run(&format!("MCACHE.RELEASE {key} {token}"));
                }
                assert_ne!(state, "stale", "{}: nothing here has a window", self.seed);
                value
            }
            _ => self.redis.text(&format!("MCACHE.GET {key}")),
        };
        self.source.reads.fetch_add(1, SeqCst);
        let Some(found) = found else { return };
        self.source.hits.fetch_add(1, SeqCst);
        let (versions, _) = found.split_once('|').expect("versions and padding");
        for part in versions.split(',') {
            let (tag, version) = part.split_once('=').expect("tag=version");
            let tag: usize = tag.parse().expect("a tag");
            let version: u64 = version.parse().expect("a version");
            if version < answered[tag] {
                self.source.stale.fetch_add(1, SeqCst);
                eprintln!("{}: {key} is {versions}, answered {answered:?}", self.seed);
            }
        }
    }

    /// A write to the source, then its invalidation.
    fn change_shared(&mut self) {
        let tag = self.seed.usize(..SHARED_TAGS);
        let version = self.source.written[tag].fetch_add(1, SeqCst) + 1;
        self.run(&format!("MCACHE.INVALIDATE AUTO TAGS shared:{tag}"));
        self.source.answered[tag].fetch_max(version, SeqCst);
    }

    /// The same from inside a script and a function.
    fn script(&mut self) {
        let (key, tags) = (self.own_key(), self.own_tags());
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let value = format!("lua{}", self.seed.u32(..));
        let call = *self.seed.pick(&["EVAL", "FCALL"]);
        let body = match call {
            "EVAL" => {
                "redis.call('MCACHE.SET', KEYS[1], 1000, ARGV[1], unpack(ARGV, 2)); \
                 return redis.call('MCACHE.GET', KEYS[1])"
            }
            _ => "store",
        };
        let mut arguments = vec![call, body, "1", &key, &value];
        if !tags.is_empty() {
            arguments.push("TAGS");
            arguments.extend(&tags);
        }
        match self.redis.try_call(&arguments) {
            Ok(reply) => {
                assert_eq!(reply, Value::BulkString(value.clone().into_bytes()));
                let tags = tags.into_iter().map(str::to_owned).collect();
                self.model.insert(key, Own { value, tags });
            }
            Err(refusal) => assert!(refusal.contains("OOM"), "{}: {refusal}", self.seed),
        }
    }

    /// Work in a database that is not modelled: what moves there and is exchanged or flushed there must not disturb
    /// here.
    fn elsewhere(&mut self) {
        let tags: BTreeSet<String> = ["shared:1".to_owned(), "elsewhere".to_owned()].into();
        let key = format!("away:{}", self.seed.u32(..20));
        let line = *self.seed.pick(&[
            "SWAPDB 8 9",
            "FLUSHDB ASYNC",
            "FLUSHDB SYNC",
            "MOVE",
            "MCACHE.INVALIDATE TAGS elsewhere",
            "RANDOMKEY",
        ]);
        if line == "MOVE" && !host::program().is_accepted() {
            return;
        }
        if line == "MOVE" {
            self.run(&set_line(&key, "0", "v", &tags));
            self.run(&format!("COPY {key} {key} DB 9 REPLACE"));
            self.run(&format!("MOVE {key} 8"));
            self.run(&format!("DEL {key}"));
            return;
        }
        self.redis.ok("SELECT 8");
        self.run(&set_line(&key, "0", "v", &tags));
        self.run(line);
        self.redis.ok("SELECT 0");
    }

    fn look_around(&mut self) {
        match self.seed.u32(..8) {
            0 => drop(self.redis.tags()),
            1 => drop(self.redis.entries("shared:0")),
            2 => drop(self.redis.map("MCACHE.TAGINFO brief")),
            3 => drop(self.run("INFO everything")),
            4 => drop(self.run("DEBUG SLEEP 0.01")),
            // Takes all clients' entries, where that is nothing new.
            6 if self.lossy && self.seed.chance(10) => {
                let mode = *self.seed.pick(&["SYNC", "ASYNC"]);
                self.redis.ok(&format!("FLUSHALL {mode}"));
            }
            5 if self.seed.chance(20) && host::program().is_accepted() => {
                drop(self.run("DEBUG RELOAD"));
            }
            _ => drop(self.run("MCACHE.DEBUG SELFCHECK")),
        }
    }
}

/// A copy by way of DUMP and RESTORE.
const RESTORE: &str = "local dump = redis.call('DUMP', KEYS[1]) \
    if not dump then return 0 end \
    redis.call('RESTORE', KEYS[2], 0, dump, 'REPLACE') \
    return 1";

fn is_oom(reply: &Value) -> bool {
    matches!(reply, Value::ServerError(error) if error.code() == "OOM")
}

fn set_line(key: &str, ttl: &str, value: &str, tags: &BTreeSet<String>) -> String {
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    match tags.as_slice() {
        [] => format!("MCACHE.SET {key} {ttl} {value}"),
        tags => format!("MCACHE.SET {key} {ttl} {value} TAGS {}", tags.join(" ")),
    }
}

/// Reads every entry of the selected database, and compares what the index tells with what the entries tell.
fn compare_index_and_keyspace(redis: &mut Session, context: &str) {
    let mut by_tag: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for key in redis.scan("SCAN {} COUNT 1000") {
        if redis.text(&format!("TYPE {key}")).as_deref() == Some("string") {
            continue;
        }
        // It may expire between SCAN and here.
        let Some(mut report) = redis.map(&format!("MCACHE.INSPECT {key}")) else {
            continue;
        };
        let tags = report.remove("tags").expect("INSPECT tells the tags");
        let tags: Vec<String> = redis::from_redis_value(tags).expect("names");
        for tag in tags {
            by_tag.entry(tag).or_default().insert(key.clone());
        }
    }
    let counts: BTreeMap<String, i64> = by_tag
        .iter()
        .map(|(tag, keys)| (tag.clone(), keys.len() as i64))
        .collect();
    assert_eq!(redis.tags(), counts, "{context}");
    for (tag, keys) in by_tag {
        assert!(redis.entries(&tag).iter().eq(&keys), "{context}: {tag}");
    }
}

const LIBRARY: &str = "#!lua name=chaos\n\
    redis.register_function('store', function(keys, args)\n\
      redis.call('MCACHE.SET', keys[1], 1000, args[1], unpack(args, 2))\n\
      return redis.call('MCACHE.GET', keys[1])\n\
    end)";

/// One world: a server, clients that do everything for a while, then silence and comparison.
fn live(test: &str, policy: &str, limited: bool, inline_max: u64) {
    // Notes it; the rest of the test is run.
    host::loses_the_database();
    let server = Server::builder()
        .set("maxmemory-policy", policy)
        .set("mcache.reclaim-inline-max", inline_max)
        .set("mcache.on-restart", "keep")
        .set("hz", 50)
        // Its histograms, one for each command ever used, would take the room that is meant for entries.
        .set("latency-tracking", "no")
        .start();
    let mut redis = server.session();
    redis.call(&["FUNCTION", "LOAD", LIBRARY]);
    let sessions: Vec<Session> = (0..CLIENTS).map(|_| server.session()).collect();
    if limited {
        let limit = redis.info("memory", "used_memory") + ROOM_BYTES;
        redis.ok(&format!("CONFIG SET maxmemory {limit}"));
    }
    let mut seed = Seed::draw(test);
    let source = Source::default();
    let over = AtomicBool::new(false);
    let seeds: Vec<u64> = (0..CLIENTS).map(|_| seed.u64(..)).collect();
    let models = thread::scope(|scope| {
        let clients: Vec<_> = sessions
            .into_iter()
            .zip(seeds)
            .enumerate()
            .map(|(number, (redis, client_seed))| {
                let mut client = Client {
                    redis,
                    seed: Seed::fixed(client_seed),
                    number,
                    source: &source,
                    model: BTreeMap::new(),
                    lossy: limited && policy != "noeviction",
                };
                let over = &over;
                scope.spawn(move || {
                    let mut steps = 0;
                    while !over.load(SeqCst) {
                        client.step();
                        steps += 1;
                    }
                    (client.model, steps)
                })
            })
            .collect();
        let end = Instant::now() + lifetime();
        wait::within(lifetime() * 2, || Instant::now() >= end);
        over.store(true, SeqCst);
        let results = clients.into_iter().map(|client| client.join());
        results
            .map(|result| result.unwrap_or_else(|_| panic!("{seed}, policy {policy}")))
            .collect::<Vec<_>>()
    });
    let context = format!("{seed}, policy {policy}");
    let evicted = redis.info("stats", "evicted_keys");
    redis.ok("CONFIG SET maxmemory 0");
    wait::until("what ends soon has ended, what is dead is freed", || {
        redis.entries("brief").is_empty() && redis.stat("pending_reclaim") == 0
    });
    redis.ok("MCACHE.DEBUG SELFCHECK");
    compare_index_and_keyspace(&mut redis, &context);
    let steps: u64 = models.iter().map(|(_, steps)| steps).sum();
    let mut kept = 0;
    for (model, _) in &models {
        for (key, own) in model {
            let found = redis.text(&format!("MCACHE.GET {key}"));
            if found.is_none() && evicted > 0 {
                continue;
            }
            assert_eq!(
                found.as_deref(),
                Some(own.value.as_str()),
                "{context}: {key}"
            );
            for tag in &own.tags {
                assert!(
                    redis.entries(tag).contains(key),
                    "{context}: {key} under {tag}"
                );
            }
            kept += 1;
        }
    }
    println!(
        "{policy}: {steps} steps, {evicted} evicted, {kept} of the clients' own entries kept; {} shared reads, {} hits, {} stale",
        source.reads.load(SeqCst),
        source.hits.load(SeqCst),
        source.stale.load(SeqCst),
    );
    assert_eq!(source.stale.load(SeqCst), 0, "{context}");
    assert_eq!(redis.stat("panics"), 0, "{context}");
    assert!(
        source.hits.load(SeqCst) > 0,
        "{context}: reads that hit nothing prove nothing"
    );
    if policy != "noeviction" {
        assert!(evicted > 0, "{context}: nothing was evicted");
    }
    // And away with it all: no tag without entries is left.
    redis.ok("FLUSHALL");
    assert_eq!(
        (redis.stat("tags"), redis.stat("memberships")),
        (0, 0),
        "{context}"
    );
}

#[test]
fn without_a_limit_everything_is_as_the_model_says() {
    live("without_a_limit", "noeviction", false, 0);
    live("without_a_limit", "noeviction", false, 1_000);
}

#[test]
fn without_memory_nothing_is_half_done() {
    live("without_memory", "noeviction", true, 10);
}

#[test]
fn under_every_policy_of_eviction_index_and_keyspace_agree() {
    for policy in [
        "allkeys-lru",
        "allkeys-lfu",
        "allkeys-random",
        "volatile-lru",
        "volatile-lfu",
        "volatile-random",
        "volatile-ttl",
    ] {
        live("every_policy", policy, true, 10);
    }
}
