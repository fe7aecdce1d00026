//! Several keys loaded together: what is there, what another caller is filling, and one call of the loader for the
//! rest.
//!
//! ```text
//!                                     ┌─ there ────────────────────────────────────────────▶ values
//!   keys ── one MGET ── FETCH each ───┼─ ours ───── one call of the loader ── store each ──▶ values
//!                          ▲          └─ another caller's ─ wait for one of them ─┐
//!                          └────────────── the others ◀────────────────────────────┘
//! ```
//!
//! How one key comes to its value by itself is in `load`, what becomes of a fill in `fill`.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::Hash,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::{
    Codec, Error, Loaded, Policy, Result, Served, Source,
    core::{Chosen, Handle, Opened},
    fill::{AtHand, Errors, Fill, Sealed},
    flight::Leader,
    key::FullKey,
    load::{self, Asked, Loading},
    nesting, telemetry,
};

/// How often what is left is looked at as a whole, after one of it was waited for. Each time another caller filled some
/// and others are still being filled; beyond that each is waited for by itself.
const ROUNDS_MAX: usize = 8;

/// One caller's way to several values.
pub(crate) struct Gathering<'a, C> {
    pub(crate) handle: &'a Handle<C>,
    pub(crate) policy: &'a Policy,
    pub(crate) chosen: &'a [Chosen],
}

/// The same, for loads that may outlive their caller.
struct OwnedGathering<C> {
    handle: Handle<C>,
    policy: Policy,
    chosen: Vec<Chosen>,
}

/// What was found, under the caller's keys.
type Values<K, T> = HashMap<K, Served<T>>;

/// One key.
struct Item<K> {
    key: K,
    full_key: FullKey,
}

/// One that this caller is to load; `None` is a value too: there is nothing.
type Ours<K, T> = (Item<K>, Fill<Option<T>>);

/// What looking at several keys has come to, beside the values that were found.
struct Looked<K, T> {
    ours: Vec<Ours<K, T>>,
    /// Other callers are filling these.
    others: Vec<Item<K>>,
}

/// Where the first look at a key has come to.
enum First<T> {
    Found(Option<T>, Source),
    Fill(Fill<Option<T>>),
    /// Another caller is filling it.
    Later,
}

impl<C> Clone for Gathering<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Gathering<'_, C> {}

impl<'a, C: Codec> Gathering<'a, C> {
    /// The live values of these full keys, each of the first provider that has it, and where it came from.
    ///
    /// # Errors
    ///
    /// What a provider refuses for good, and which one it is.
    pub(crate) async fn live_values<T: DeserializeOwned>(
        self,
        keys: &[Bytes],
    ) -> Result<Vec<Option<(T, Source)>>, (&'a str, Error)> {
        let mut values: Vec<Option<(T, Source)>> = keys.iter().map(|_| None).collect();
        for chosen in self.chosen {
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
                Err(error) if error.is_refused() => return Err((provider.id(), error)),
                Err(error) => self.complain(provider.id(), &keys[missing[0]], &error),
            }
        }
        Ok(values)
    }

    /// Several keys, this among them, could not be read at once.
    fn complain(self, provider: &str, key: &[u8], error: &Error) {
        let core = &self.handle.core;
        let family = core.family_of(key, self.policy);
        core.complaints
            .failed_open(provider, "get_many", &family, error);
    }

    /// Everything, loaded here and now if it must be.
    pub(crate) async fn run<K, T, E, F, Fut>(self, keys: &[K], loader: F) -> Result<Values<K, T>, E>
    where
        K: AsRef<[u8]> + Eq + Hash + Clone,
        T: Serialize + DeserializeOwned,
        F: Fn(Vec<K>) -> Fut,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>>,
    {
        let mut values = HashMap::with_capacity(keys.len());
        let left = self.read(self.items(keys), &mut values).await;
        let looked = self.look(left, &mut values).await;
        self.go_on(looked, values, &loader).await
    }

    /// As [`run`](Self::run), with the loads in tasks of their own: they are finished whether or not the caller waits
    /// for them. The caller does not wait for loads where a stale value is at hand.
    pub(crate) async fn run_detached<K, T, E, F, Fut>(
        self,
        keys: &[K],
        loader: F,
    ) -> Result<Values<K, T>, E>
    where
        K: AsRef<[u8]> + Eq + Hash + Clone + Send + Sync + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
        E: fmt::Display + Send + 'static,
        F: Fn(Vec<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>> + Send + 'static,
    {
        let mut values = HashMap::with_capacity(keys.len());
        let left = self.read(self.items(keys), &mut values).await;
        let mut looked = self.look(left, &mut values).await;
        let loader = Arc::new(loader);
        let (refreshes, ours): (Vec<_>, Vec<_>) = looked
            .ours
            .into_iter()
            .partition(|(_, fill)| fill.at_hand.is_some());
        looked.ours = ours;
        let mut refreshes = refreshes;
        for (item, fill) in &mut refreshes {
            if let Some(at_hand) = fill.at_hand.take() {
                self.put(&mut values, item, at_hand.served());
            }
        }
        if !refreshes.is_empty() {
            let (own, loader) = (self.to_owned(), loader.clone());
            let running = self.handle.core.background.enter();
            let refresh = async move {
                let _running = running;
                let count = refreshes.len();
                if let Err(error) = own.borrow().fill_all(refreshes, &*loader).await {
                    tracing::warn!(keys = count, %error, "a refresh in the background failed");
                    telemetry::refresh_failed();
                }
            };
            tokio::spawn(refresh.in_current_span());
        }
        if looked.ours.is_empty() && looked.others.is_empty() {
            return Ok(values);
        }
        let own = self.to_owned();
        let running = self.handle.core.background.enter();
        let outer = nesting::current();
        let load = async move {
            let _running = running;
            let load = own.borrow().go_on(looked, values, &*loader);
            nesting::within(outer, load).await
        };
        match tokio::spawn(load.in_current_span()).await {
            Ok(loaded) => loaded,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down, and this future with it.
            Err(_) => std::future::pending().await,
        }
    }

    /// One command reads what is there; returns the rest.
    async fn read<K, T>(self, items: Vec<Item<K>>, values: &mut Values<K, T>) -> Vec<Item<K>>
    where
        K: Eq + Hash + Clone,
        T: DeserializeOwned,
    {
        // The provider cannot tell which caller is to refresh early.
        if items.len() < 2 || !self.policy.early.is_zero() {
            return items;
        }
        let keys: Vec<Bytes> = items
            .iter()
            .map(|item| item.full_key.bytes().clone())
            .collect();
        let live = self.live_values(&keys).await;
        // What may not be read at once is asked for one by one.
        let live = live.unwrap_or_else(|(provider, error)| {
            self.complain(provider, &keys[0], &error);
            Vec::new()
        });
        for (item, found) in items.iter().zip(live) {
            let Some((value, source)) = found else {
                continue;
            };
            telemetry::reads(source, 1, self.policy.family_label());
            values.insert(item.key.clone(), Served { value, source });
        }
        let is_left = |item: &Item<K>| !values.contains_key(&item.key);
        items.into_iter().filter(is_left).collect()
    }

    /// Looks at each, without waiting for another caller.
    async fn look<K, T>(self, items: Vec<Item<K>>, values: &mut Values<K, T>) -> Looked<K, T>
    where
        K: Eq + Hash + Clone,
        T: DeserializeOwned,
    {
        let looks = join_all(items.iter().map(|item| self.first_look(&item.full_key))).await;
        let mut looked = Looked {
            ours: Vec::new(),
            others: Vec::new(),
        };
        for (item, look) in items.into_iter().zip(looks) {
            match look {
                First::Found(value, source) => {
                    self.put(values, &item, Served { value, source });
                }
                First::Fill(fill) => looked.ours.push((item, fill)),
                First::Later => looked.others.push(item),
            }
        }
        looked
    }

    /// Loads and waits until nothing is left.
    async fn go_on<K, T, E, F, Fut>(
        self,
        mut looked: Looked<K, T>,
        mut values: Values<K, T>,
        loader: &F,
    ) -> Result<Values<K, T>, E>
    where
        K: Eq + Hash + Clone,
        T: Serialize + DeserializeOwned,
        F: Fn(Vec<K>) -> Fut,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>>,
    {
        let patience = load::patience(&self.handle.core);
        let began = Instant::now();
        for round in 1.. {
            // Ours first, and to the end: another caller may wait for them while it fills what we wait for next.
            if !looked.ours.is_empty() {
                let ours = std::mem::take(&mut looked.ours);
                values.extend(self.fill_all(ours, loader).await?);
            }
            // One is waited for, over one connection. The others are mostly filled by the same caller at the same time:
            // then they are there, or all of them are ours.
            let Some(one) = looked.others.pop() else {
                break;
            };
            values.extend(self.wait_for(one, loader).await?);
            if round >= ROUNDS_MAX || began.elapsed() >= patience {
                break;
            }
            looked = self.look(looked.others, &mut values).await;
        }
        // All of them stall, or they are invalidated as fast as they are filled: an end in bounded time matters more
        // now than connections and calls of the loader.
        let rest = looked.others.into_iter();
        for found in join_all(rest.map(|item| self.wait_for(item, loader))).await {
            values.extend(found?);
        }
        Ok(values)
    }

    fn items<K: AsRef<[u8]> + Eq + Hash + Clone>(self, keys: &[K]) -> Vec<Item<K>> {
        let mut seen = HashSet::with_capacity(keys.len());
        let distinct = keys.iter().filter(|key| seen.insert(*key));
        distinct
            .map(|key| Item {
                key: key.clone(),
                full_key: FullKey::new(&self.handle.core.namespace, key.as_ref()),
            })
            .collect()
    }

    async fn first_look<T: DeserializeOwned>(self, key: &FullKey) -> First<T> {
        let loading = self.loading(key);
        if self.handle.core.flights.follow(key.as_slice()).is_some() {
            return First::Later;
        }
        let fill = match loading.ask(Duration::ZERO, &|bytes| self.open(bytes)).await {
            Asked::Found(value, source) => return First::Found(value, source),
            Asked::Grants(_, Some(at_hand)) if loading.leaves_alone() => {
                let Served { value, source } = at_hand.served();
                return First::Found(value, source);
            }
            Asked::Busy => None,
            Asked::Grants(grants, at_hand) => loading.take_off(grants, at_hand),
            Asked::Away => loading.take_off(loading.nothing_granted(), None),
        };
        fill.map_or(First::Later, First::Fill)
    }

    /// One call of the loader for all of them; each is then kept by itself. If it fails or takes too long, and there is
    /// another value at hand for each, those are the answer.
    async fn fill_all<K, T, E, F, Fut>(
        self,
        mut ours: Vec<Ours<K, T>>,
        loader: &F,
    ) -> Result<Values<K, T>, E>
    where
        K: Eq + Hash + Clone,
        T: Serialize,
        F: Fn(Vec<K>) -> Fut,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>>,
    {
        let core = &self.handle.core;
        let began = Instant::now();
        let mut stand_ins = self.stand_ins(&mut ours);
        let missing = ours.iter().map(|(item, _)| item.key.clone()).collect();
        let fills = ours.iter().filter_map(|(_, fill)| fill.leader.as_ref());
        let fills: Vec<_> = fills.map(Leader::id).collect();
        let mut load = pin!(nesting::loading(fills, || loader(missing)));
        let loaded = match timeout(core.loader_timeout, &mut load).await {
            Ok(loaded) => loaded,
            Err(_) => {
                telemetry::loader_overran();
                for (item, fill) in &mut ours {
                    fill.overrun(core, item.full_key.bytes());
                }
                match stand_ins.take() {
                    Some(stand_ins) => return Ok(self.after("timed out", stand_ins)),
                    None => load.await,
                }
            }
        };
        telemetry::loaded(loaded.is_ok(), began.elapsed(), self.policy.family_label());
        let mut loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                for (item, fill) in ours {
                    fill.fail(core, item.full_key.bytes(), None);
                }
                return match stand_ins {
                    Some(stand_ins) => Ok(self.after("failed", stand_ins)),
                    None => Err(error),
                };
            }
        };
        let mut values = HashMap::with_capacity(ours.len());
        for (item, fill) in ours {
            let source = fill.source();
            let found = optional(loaded.remove(&item.key));
            fill.complete(core, self.seal(&found, &item.full_key), began)
                .await;
            let value = found.value;
            self.put(&mut values, &item, Served { value, source });
        }
        Ok(values)
    }

    /// What is served if the loader fails: there must be something for each.
    fn stand_ins<K: Clone, T>(
        self,
        ours: &mut [Ours<K, T>],
    ) -> Option<Vec<(K, AtHand<Option<T>>)>> {
        let stand_in = |(item, fill): &mut Ours<K, T>| {
            let at_hand = fill.at_hand.take();
            let at_hand = at_hand.filter(|at_hand| at_hand.may_stand_in(self.policy));
            at_hand.map(|at_hand| (item.key.clone(), at_hand))
        };
        let stand_ins: Vec<_> = ours.iter_mut().map(stand_in).collect();
        stand_ins.into_iter().collect()
    }

    fn after<K: Eq + Hash, T>(
        self,
        what: &str,
        stand_ins: Vec<(K, AtHand<Option<T>>)>,
    ) -> Values<K, T> {
        let mut values = HashMap::with_capacity(stand_ins.len());
        for (key, at_hand) in stand_ins {
            let Served { value, source } = at_hand.after(what);
            telemetry::reads(source, 1, self.policy.family_label());
            values.extend(value.map(|value| (key, Served { value, source })));
        }
        values
    }

    /// A value that another caller is loading, or ours if nothing comes of that.
    async fn wait_for<K, T, E, F, Fut>(
        self,
        item: Item<K>,
        loader: &F,
    ) -> Result<Option<(K, Served<T>)>, E>
    where
        K: Clone + Eq + Hash,
        T: Serialize + DeserializeOwned,
        F: Fn(Vec<K>) -> Fut,
        Fut: Future<Output = Result<HashMap<K, Loaded<T>>, E>>,
    {
        let load = || async {
            let mut loaded = loader(vec![item.key.clone()]).await?;
            Ok(optional(loaded.remove(&item.key)))
        };
        let Served { value, source } = self
            .loading(&item.full_key)
            .run(
                Instant::now(),
                |bytes| self.open(bytes),
                |loaded| self.seal(loaded, &item.full_key),
                load,
                Errors::own(),
            )
            .await?;
        telemetry::reads(source, 1, self.policy.family_label());
        Ok(value.map(|value| (item.key, Served { value, source })))
    }

    fn put<K: Clone + Eq + Hash, T>(
        self,
        values: &mut Values<K, T>,
        item: &Item<K>,
        Served { value, source }: Served<Option<T>>,
    ) {
        telemetry::reads(source, 1, self.policy.family_label());
        values.extend(value.map(|value| (item.key.clone(), Served { value, source })));
    }

    fn loading<'k>(self, key: &'k FullKey) -> Loading<'k>
    where
        Self: 'k,
    {
        Loading {
            core: &self.handle.core,
            key,
            chosen: self.chosen,
            policy: self.policy,
        }
    }

    fn open<T: DeserializeOwned>(self, bytes: &Bytes) -> Option<Option<T>> {
        self.handle.open(bytes).map(Opened::value)
    }

    fn seal<T: Serialize>(self, loaded: &Loaded<Option<T>>, key: &FullKey) -> Sealed {
        match &loaded.value {
            Some(value) => Sealed {
                value: self.handle.seal(value, || {
                    self.handle.core.family_of(key.as_slice(), self.policy)
                }),
                terms: self.policy.terms(loaded),
            },
            None => Sealed {
                value: Some(self.handle.core.envelope.absent()),
                terms: self.policy.negative_terms(loaded),
            },
        }
    }

    fn to_owned(self) -> OwnedGathering<C> {
        OwnedGathering {
            handle: self.handle.clone(),
            policy: self.policy.clone(),
            chosen: self.chosen.to_vec(),
        }
    }
}

impl<C> OwnedGathering<C> {
    fn borrow(&self) -> Gathering<'_, C> {
        Gathering {
            handle: &self.handle,
            policy: &self.policy,
            chosen: &self.chosen,
        }
    }
}

fn optional<T>(loaded: Option<Loaded<T>>) -> Loaded<Option<T>> {
    match loaded {
        Some(loaded) => loaded.map(Some),
        None => Loaded::new(None),
    }
}
