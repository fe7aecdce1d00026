//! What one can do with several keys at once: the builder behind [`Cache::keys`].

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
    hash::Hash,
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::{
    Codec, Json, Loaded, Result, Served, Source,
    core::{Chosen, Handle, Opened},
    load::{Asked, Errors, Fill, Loading, PATIENCE, Sealed},
    policy::{Policy, policy_setters},
    telemetry,
};

/// How often what is left is looked at as a whole, after one of it was waited for. Each time somebody else filled some and
/// others are still being filled; beyond that each is waited for by itself.
const ROUNDS_MAX: usize = 8;

/// Several keys, with how their entries are to be kept; ends in one of the operations.
#[must_use = "nothing happens until one of the operations is called"]
pub struct Batch<'c, K, C = Json> {
    handle: &'c Handle<C>,
    keys: Vec<K>,
    policy: Policy,
}

/// One key of a batch under way.
struct Item<K> {
    key: K,
    full_key: Bytes,
}

/// Where the first look at a key has come to.
enum First<T> {
    Found(Option<T>, Source),
    Fill(Fill<Option<T>>),
    /// Somebody else is filling it.
    Later,
}

impl<'c, K: AsRef<[u8]>, C: Codec> Batch<'c, K, C> {
    pub(crate) fn new(handle: &'c Handle<C>, keys: Vec<K>) -> Self {
        Self {
            handle,
            keys,
            policy: Policy::default(),
        }
    }

    policy_setters!(policy);

    /// Takes over how entries are kept, instead of what was set before.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The live values, in the order of the keys: each of the first provider that has it.
    ///
    /// # Errors
    ///
    /// As [`Entry::get`](crate::Entry::get).
    pub async fn get_many<T: DeserializeOwned>(self) -> Result<Vec<Option<T>>> {
        let namespace = &self.handle.core.namespace;
        let keys: Vec<Bytes> = self
            .keys
            .iter()
            .map(|key| namespace.qualify(key.as_ref()))
            .collect();
        let chosen = self.handle.core.choose(&self.policy)?;
        let values = self.live_values(&keys, &chosen).await?;
        let count = |wanted| {
            let sources = values.iter().flatten().map(|(_, source)| *source);
            sources.filter(|source| *source == wanted).count()
        };
        let (near, hits) = (count(Source::Near), count(Source::Hit));
        let family = self.policy.family_label();
        for (source, count) in [
            (Source::Near, near),
            (Source::Hit, hits),
            (Source::Loaded, keys.len() - near - hits),
        ] {
            if count > 0 {
                telemetry::reads(source, count, family);
            }
        }
        let values = values.into_iter();
        Ok(values.map(|found| found.map(|(value, _)| value)).collect())
    }

    /// The live values of these full keys, each of the first provider that has it, and where it came from.
    async fn live_values<T: DeserializeOwned>(
        &self,
        keys: &[Bytes],
        chosen: &[Chosen],
    ) -> Result<Vec<Option<(T, Source)>>> {
        let mut values: Vec<Option<(T, Source)>> = keys.iter().map(|_| None).collect();
        for chosen in chosen {
            let provider = &chosen.provider;
            let open = |bytes: &Bytes, source| {
                let opened = self.handle.open(bytes).and_then(Opened::value)?;
                Some((opened, source))
            };
            for (value, key) in values.iter_mut().zip(keys) {
                if value.is_none() {
                    let near = chosen.near_value(key);
                    *value = near.and_then(|held| open(held.bytes(), Source::Near));
                }
            }
            let missing: Vec<usize> = (0..keys.len())
                .filter(|at| values[*at].is_none() && !chosen.pending.holds_back(&keys[*at]))
                .collect();
            if missing.is_empty() {
                continue;
            }
            let asked: Vec<Bytes> = missing.iter().map(|at| keys[*at].clone()).collect();
            match chosen.get_many(&asked).await {
                Ok(found) => {
                    for (at, found) in missing.iter().zip(found) {
                        values[*at] = found.and_then(|found| open(&found, Source::Hit));
                    }
                }
                Err(error) if error.is_refused() => return Err(error),
                Err(error) => {
                    let family = self.handle.core.family_of(&keys[missing[0]], &self.policy);
                    let complaints = &self.handle.core.complaints;
                    complaints.failed_open(provider.id(), "get_many", &family, &error);
                }
            }
        }
        Ok(values)
    }

    /// The cached values, and those the loader has for the rest, which are then kept.
    ///
    /// The loader is called once with all keys that nobody has and nobody is loading, and returns what it found; keys it
    /// leaves out have no value, which is remembered only with [`negative_ttl`](Self::negative_ttl). Values that another
    /// caller is loading are waited for; only if nothing comes of that, the loader is called again, for what is then left.
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # use mcache::{Cache, Error, Loaded, MemoryProvider};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let cache = Cache::builder_with(MemoryProvider::default()).caching(true).build().await?;
    /// let load = |missing: Vec<&'static str>| async move {
    ///     // One query for all of them.
    ///     let rows = missing.into_iter().map(|id| (id, Loaded::new(id.len()).tags([id])));
    ///     Ok::<_, Error>(rows.collect::<HashMap<_, _>>())
    /// };
    /// let lengths = cache.keys(["one", "three"]).get_or_load_many(load).await?;
    /// assert_eq!(lengths["three"], 5);
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Only the loader's own.
    pub async fn get_or_load_many<T, E, F, Fut>(self, loader: F) -> Result<HashMap<K, T>, E>
    where
        K: Eq + Hash + Clone,
        T: Serialize + DeserializeOwned,
        F: Fn(Vec<K>) -> Fut,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>>,
    {
        let served = self.load_many(loader).await?;
        Ok(served
            .into_iter()
            .map(|(key, served)| (key, served.value))
            .collect())
    }

    /// As [`get_or_load_many`](Self::get_or_load_many), with answers that say where each value came from.
    ///
    /// # Errors
    ///
    /// Only the loader's own.
    pub async fn load_many<T, E, F, Fut>(self, loader: F) -> Result<HashMap<K, Served<T>>, E>
    where
        K: Eq + Hash + Clone,
        T: Serialize + DeserializeOwned,
        F: Fn(Vec<K>) -> Fut,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>>,
    {
        let chosen = self
            .handle
            .core
            .choose(&self.policy)
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "loading without a cache");
                Cow::default()
            });
        if chosen.is_empty() {
            telemetry::reads(Source::Bypass, self.keys.len(), self.policy.family_label());
            let loaded = loader(self.keys).await?;
            let bypassed = |value| Served {
                value,
                source: Source::Bypass,
            };
            return Ok(loaded
                .into_iter()
                .map(|(key, loaded)| (key, bypassed(loaded.value)))
                .collect());
        }
        let span = tracing::debug_span!("mcache.load_many", keys = self.keys.len());
        self.run(&chosen, loader).instrument(span).await
    }

    async fn run<T, E, F, Fut>(
        self,
        chosen: &[Chosen],
        loader: F,
    ) -> Result<HashMap<K, Served<T>>, E>
    where
        K: Eq + Hash + Clone,
        T: Serialize + DeserializeOwned,
        F: Fn(Vec<K>) -> Fut,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>>,
    {
        let items = self.items();
        let mut values = HashMap::with_capacity(items.len());
        let mut left: Vec<&Item<K>> = items.iter().collect();
        // One command reads what is there. It cannot tell who is to refresh early.
        if left.len() > 1 && self.policy.early.is_zero() {
            let keys: Vec<Bytes> = items.iter().map(|item| item.full_key.clone()).collect();
            // What may not be read is not there.
            let live = self.live_values(&keys, chosen).await.unwrap_or_default();
            for (item, found) in items.iter().zip(live) {
                let Some((value, source)) = found else {
                    continue;
                };
                telemetry::read(source, self.policy.family_label());
                values.insert(item.key.clone(), Served { value, source });
            }
            left.retain(|item| !values.contains_key(&item.key));
        }
        let patience = self.handle.core.loader_timeout.saturating_mul(PATIENCE);
        let began = Instant::now();
        let mut rounds = 0;
        while !left.is_empty() && rounds < ROUNDS_MAX && (rounds == 0 || began.elapsed() < patience)
        {
            rounds += 1;
            let looks = join_all(left.iter().map(|item| self.first_look(item, chosen))).await;
            let mut fills = Vec::new();
            let mut later = Vec::new();
            for (item, look) in left.into_iter().zip(looks) {
                match look {
                    First::Found(value, source) => {
                        telemetry::read(source, self.policy.family_label());
                        let served = value.map(|value| Served { value, source });
                        values.extend(served.map(|served| (item.key.clone(), served)));
                    }
                    First::Fill(fill) => fills.push((item, fill)),
                    First::Later => later.push(item),
                }
            }
            // Ours first, and to the end: somebody may be waiting for them while he fills what we wait for next.
            if !fills.is_empty() {
                values.extend(self.fill_all(fills, &loader).await?);
            }
            // One is waited for, over one connection. The others are mostly filled by the same caller at the same time: then
            // they are there, or all of them are ours.
            let Some(one) = later.pop() else {
                return Ok(values);
            };
            values.extend(self.wait_for(one, chosen, &loader).await?);
            left = later;
        }
        // Everybody stalls, or they are invalidated as fast as they are filled: an end in bounded time matters more now than
        // connections and calls of the loader.
        let rest = left
            .into_iter()
            .map(|item| self.wait_for(item, chosen, &loader));
        for found in join_all(rest).await {
            values.extend(found?);
        }
        Ok(values)
    }

    fn items(&self) -> Vec<Item<K>>
    where
        K: Eq + Hash + Clone,
    {
        let mut seen = HashSet::with_capacity(self.keys.len());
        let distinct = self.keys.iter().filter(|key| seen.insert(*key));
        distinct
            .map(|key| Item {
                key: key.clone(),
                full_key: self.handle.core.namespace.qualify(key.as_ref()),
            })
            .collect()
    }

    async fn first_look<T: DeserializeOwned>(&self, item: &Item<K>, chosen: &[Chosen]) -> First<T> {
        let loading = self.loading(item, chosen);
        if self.handle.core.flights.follow(&item.full_key).is_some() {
            return First::Later;
        }
        let fill = match loading.ask(Duration::ZERO, &|bytes| self.open(bytes)).await {
            Asked::Found(value, source) => return First::Found(value, source),
            Asked::Busy => None,
            Asked::Grants(grants, at_hand) => loading.take_off(grants, at_hand),
            Asked::Away => loading.take_off(loading.nothing_granted(), None),
        };
        fill.map_or(First::Later, First::Fill)
    }

    /// One call of the loader for all of them; each is then kept by itself.
    async fn fill_all<T, E, F, Fut>(
        &self,
        mut fills: Vec<(&Item<K>, Fill<Option<T>>)>,
        loader: &F,
    ) -> Result<Vec<(K, Served<T>)>, E>
    where
        K: Eq + Hash + Clone,
        T: Serialize,
        F: Fn(Vec<K>) -> Fut,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>>,
    {
        let core = &self.handle.core;
        let began = Instant::now();
        let missing = fills.iter().map(|(item, _)| item.key.clone()).collect();
        let mut load = pin!(loader(missing));
        let loaded = match timeout(core.loader_timeout, &mut load).await {
            Ok(loaded) => loaded,
            Err(_) => {
                for (_, fill) in &mut fills {
                    fill.overrun();
                }
                load.await
            }
        };
        let mut loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                for (item, fill) in fills {
                    fill.fail(core, &item.full_key, None);
                }
                return Err(error);
            }
        };
        let mut values = Vec::with_capacity(fills.len());
        for (item, fill) in fills {
            let source = fill.source();
            telemetry::read(source, self.policy.family_label());
            let found = optional(loaded.remove(&item.key));
            fill.complete(core, self.seal(&found, &item.full_key), began)
                .await;
            let served = found.value.map(|value| Served { value, source });
            values.extend(served.map(|served| (item.key.clone(), served)));
        }
        Ok(values)
    }

    /// A value that somebody else is loading, or ours if nothing comes of that.
    async fn wait_for<T, E, F, Fut>(
        &self,
        item: &Item<K>,
        chosen: &[Chosen],
        loader: &F,
    ) -> Result<Option<(K, Served<T>)>, E>
    where
        K: Eq + Hash + Clone,
        T: Serialize + DeserializeOwned,
        F: Fn(Vec<K>) -> Fut,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>>,
    {
        let load = || async {
            let mut loaded = loader(vec![item.key.clone()]).await?;
            Ok(optional(loaded.remove(&item.key)))
        };
        let served = self
            .loading(item, chosen)
            .run(
                |bytes| self.open(bytes),
                |loaded| self.seal(loaded, &item.full_key),
                load,
                Errors::own(),
            )
            .await?;
        let source = served.source;
        let served = served.value.map(|value| Served { value, source });
        Ok(served.map(|served| (item.key.clone(), served)))
    }

    fn loading<'a>(&'a self, item: &'a Item<K>, chosen: &'a [Chosen]) -> Loading<'a> {
        Loading {
            core: &self.handle.core,
            key: &item.full_key,
            chosen,
            policy: &self.policy,
        }
    }

    fn open<T: DeserializeOwned>(&self, bytes: &Bytes) -> Option<Option<T>> {
        self.handle.open(bytes).map(Opened::value)
    }

    fn seal<T: Serialize>(&self, loaded: &Loaded<Option<T>>, key: &Bytes) -> Sealed {
        match &loaded.value {
            Some(value) => Sealed {
                value: self
                    .handle
                    .seal(value, || self.handle.core.family_of(key, &self.policy)),
                terms: self.policy.terms(loaded),
            },
            None => Sealed {
                value: Some(self.handle.core.envelope.absent()),
                terms: self.policy.negative_terms(loaded),
            },
        }
    }
}

fn optional<T>(loaded: Option<Loaded<T>>) -> Loaded<Option<T>> {
    match loaded {
        Some(loaded) => loaded.map(Some),
        None => Loaded::new(None),
    }
}

impl<K: fmt::Debug, C> fmt::Debug for Batch<'_, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("keys", &self.keys)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
