//! Several caches in front of one server, and what each of them must find, one operation after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use harness::{Seed, Server};
use mcache::{Cache, Error, Loaded, PlainRedisProvider, Source};

use crate::support::runtime::run;

const HOUR: Duration = Duration::from_secs(3600);
const CACHES: usize = 3;
const KEYS: usize = 6;
const TAGS: usize = 5;
const STEPS: usize = 1_500;

#[derive(Clone, Debug)]
struct Entry {
    value: u64,
    tags: BTreeSet<usize>,
    is_stale: bool,
    may_be_stale: bool,
    is_manual: bool,
}

/// What there must be.
#[derive(Default)]
struct Oracle {
    entries: BTreeMap<usize, Entry>,
    /// Number of the last change that concerns a fill: of tags, of keys.
    now: u64,
    tags: BTreeMap<usize, u64>,
    keys: BTreeMap<usize, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Hard,
    Soft,
    Auto,
}

impl Oracle {
    fn live(&self, key: usize) -> Option<u64> {
        let entry = self.entries.get(&key)?;
        (!entry.is_stale).then_some(entry.value)
    }

    fn invalidate(&mut self, tags: &BTreeSet<usize>, kind: Kind) {
        self.now += 1;
        if kind != Kind::Auto {
            self.tags.extend(tags.iter().map(|tag| (*tag, self.now)));
        }
        self.entries.retain(|_, entry| {
            let is_spared = kind == Kind::Auto && entry.is_manual;
            let is_concerned = !is_spared && !entry.tags.is_disjoint(tags);
            if is_concerned && kind == Kind::Soft && entry.may_be_stale {
                entry.is_stale = true;
                return true;
            }
            !is_concerned
        });
    }

    fn clear(&mut self, key: usize) {
        self.now += 1;
        self.keys.insert(key, self.now);
        self.entries.remove(&key);
    }

    /// Whether a fill of these tags that began then may be stored.
    fn accepts(&self, key: usize, tags: &BTreeSet<usize>, began: u64) -> bool {
        let latest = tags.iter().filter_map(|tag| self.tags.get(tag)).max();
        latest.is_none_or(|at| *at <= began) && self.keys.get(&key).is_none_or(|at| *at <= began)
    }
}

fn names(tags: &BTreeSet<usize>) -> Vec<String> {
    tags.iter().map(|tag| format!("t{tag}")).collect()
}

async fn one_after_the_other(caches: Vec<Cache>, name: &str) {
    let mut seed = Seed::draw(name);
    let mut oracle = Oracle::default();
    let mut drawn = 0;
    for step in 0..STEPS {
        let cache = &caches[seed.usize(..CACHES)];
        let key = seed.usize(..KEYS);
        let tags: BTreeSet<usize> = (0..seed.usize(..3)).map(|_| seed.usize(..TAGS)).collect();
        let (may_be_stale, is_manual) = (seed.usize(..2) == 0, seed.usize(..4) == 0);
        drawn += 1;
        let fresh = Entry {
            value: drawn,
            tags: tags.clone(),
            is_stale: false,
            may_be_stale,
            is_manual,
        };
        let entry = || {
            let swr = if may_be_stale { HOUR } else { Duration::ZERO };
            let entry = cache.key(format!("k{key}")).tags(names(&tags));
            entry.swr(swr).manual(is_manual)
        };
        let what = format!("{name}, step {step}: k{key} {tags:?}");
        match seed.usize(..12) {
            0 | 1 => {
                assert!(entry().set(&drawn).await.expect("stored"), "{what}");
                oracle.entries.insert(key, fresh);
            }
            2 | 3 => {
                let found = entry().get::<u64>().await.expect("read");
                assert_eq!(found, oracle.live(key), "{what}");
            }
            4 | 5 => {
                let load = || async { Ok::<_, Error>(Loaded::new(drawn)) };
                let served = entry().load(load).await.expect("loaded");
                // What was loaded is on its way: other caches have other connections.
                assert!(cache.shutdown(HOUR).await.is_nothing());
                match oracle.live(key) {
                    Some(value) => assert_eq!(
                        (served.value, served.source),
                        (value, Source::Hit),
                        "{what}"
                    ),
                    None => {
                        assert_eq!(
                            (served.value, served.source),
                            (drawn, Source::Loaded),
                            "{what}"
                        );
                        oracle.entries.insert(key, fresh);
                    }
                }
            }
            6 => {
                let keys: Vec<String> = (0..KEYS).map(|key| format!("k{key}")).collect();
                let found = cache.get_many::<u64>(&keys).await.expect("read");
                let live: Vec<_> = (0..KEYS).map(|key| oracle.live(key)).collect();
                assert_eq!(found, live, "{what}");
            }
            7 => {
                // Of the tags of what is there, more is cleared than of tags drawn.
                let kind = [Kind::Hard, Kind::Soft, Kind::Auto][seed.usize(..3)];
                let of = match oracle.entries.get(&key) {
                    Some(entry) => entry.tags.clone(),
                    None => tags.clone(),
                };
                let before = oracle.entries.len();
                let sent = match kind {
                    Kind::Hard => cache.invalidate(names(&of)).await,
                    Kind::Soft => cache.soft_invalidate(names(&of)).await,
                    Kind::Auto => cache.invalidate_auto(names(&of)).await,
                };
                assert!(sent.expect("sent").is_acknowledged(), "{what}");
                oracle.invalidate(&of, kind);
                assert!(oracle.entries.len() <= before);
            }
            8 => {
                assert!(
                    cache
                        .clear(format!("k{key}"))
                        .await
                        .expect("sent")
                        .is_acknowledged()
                );
                oracle.clear(key);
            }
            9 if seed.usize(..8) == 0 => {
                assert!(cache.clear_all().await.expect("sent").is_acknowledged());
                oracle.entries.clear();
            }
            _ => {
                let filling = entry().begin().await.expect("a token");
                let began = oracle.now;
                let other = &caches[seed.usize(..CACHES)];
                let changed: BTreeSet<usize> = [seed.usize(..TAGS)].into();
                match seed.usize(..4) {
                    0 => {
                        other.invalidate(names(&changed)).await.expect("sent");
                        oracle.invalidate(&changed, Kind::Hard);
                    }
                    1 => {
                        other.soft_invalidate(names(&changed)).await.expect("sent");
                        oracle.invalidate(&changed, Kind::Soft);
                    }
                    2 => {
                        other.clear(format!("k{key}")).await.expect("sent");
                        oracle.clear(key);
                    }
                    _ => {}
                }
                let stored = filling.store(&drawn).await.expect("answered");
                if stored {
                    assert!(oracle.accepts(key, &tags, began), "{what}: stored");
                    oracle.entries.insert(key, fresh);
                } else {
                    assert!(!oracle.accepts(key, &tags, began), "{what}: refused");
                }
            }
        }
    }
}

#[test]
fn several_caches_find_what_there_must_be() {
    let server = Server::start();
    run(async {
        let mut caches = Vec::new();
        for _ in 0..CACHES {
            let builder = Cache::builder(server.url()).caching(true);
            caches.push(builder.build().await.expect("a cache"));
        }
        one_after_the_other(caches, "several caches").await;
    });
}

#[test]
fn several_caches_on_a_plain_server_find_what_there_must_be() {
    let server = Server::builder().without_module().start();
    run(async {
        let mut caches = Vec::new();
        for number in 0..CACHES {
            let plain = PlainRedisProvider::builder(server.url()).build();
            let builder = Cache::builder_with(plain.expect("an address")).caching(true);
            caches.push(
                builder
                    .build()
                    .await
                    .unwrap_or_else(|error| panic!("{number}: {error}")),
            );
        }
        one_after_the_other(caches, "several caches on a plain server").await;
    });
}
