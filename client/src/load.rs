//! The value from the cache, or from the loader exactly once: the protocol behind `get_or_load`.
//!
//! ```text
//!                     ┌─ a caller of this process fills ── wait ──▶ share ────────────▶ value
//!   arrive ──▶ look ──┤                                      └────▶ look again
//!                ▲    │          ┌─ hit, or stale and being refreshed ────────────────▶ value
//!                │    └─ FETCH ──┼─ busy: another process fills ── park ──▶ as if FETCH
//!                │               ├─ miss, stale or early, leased ──┐
//!                │               └─ no answer ── lead in process ──┴──▶ loader ──▶ store ──▶ value
//!                │                                                       │
//!                └───────────── the others, if nothing came of it ◀──────┘
//! ```
//!
//! The loader is reached within a bounded time, also when the cache does not answer or fails: calls have deadlines,
//! waiting ends after two loader timeouts (three where another caller of this process tries at last; within a loader a
//! quarter of one), and the rounds are counted. A fill's token is taken before the loader is called.
//!
//! A source that fails is asked by one caller at a time: those who waited either get the error or take turns. While a
//! stale value is at hand it is not asked at all for a moment.

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    select,
    time::{Instant, timeout},
};
use tracing::Instrument;

use crate::{
    Loaded, Policy, Served, Source,
    core::{Chosen, Core},
    fill::{AtHand, Errors, Fill, Sealed},
    flight::{Arrival, Leader, Outcome, SharedError},
    grant::Grants,
    key::FullKey,
    nesting,
    provider::{FetchOptions, Lookup},
    telemetry,
};

/// How often a caller looks again before loading on its own. Each round but the last has waited for another caller, so
/// this is reached only by a key that is invalidated as fast as it can be filled.
const ROUNDS_MAX: usize = 8;

/// How many loader timeouts a caller waits for others before it loads on its own. More than one: when a holder of the
/// lease stalls until it ends, the next in line takes over, and those behind that one must still be there to get its
/// result. With one they would all run out of patience at the moment at which the lease ends, and all load at once.
const PATIENCE: u32 = 2;

/// As what part of the loader timeout a load within a load waits for others. Another process may load what it waits for
/// and wait for what it loads, which neither can know: see [`nesting`]. Then both have their values long before the
/// outer loads have overrun.
const NESTED_PATIENCE: u32 = 4;

/// How long a caller waits for others before it loads on its own.
pub(crate) fn patience(core: &Core) -> Duration {
    match nesting::is_loading() {
        true => core.loader_timeout / NESTED_PATIENCE,
        false => core.loader_timeout.saturating_mul(PATIENCE),
    }
}

/// One caller's way to one value.
#[derive(Clone, Copy)]
pub(crate) struct Loading<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) key: &'a FullKey,
    pub(crate) chosen: &'a [Chosen],
    pub(crate) policy: &'a Policy,
}

/// The same, for a load that may outlive its caller.
pub(crate) struct OwnedLoading {
    core: Arc<Core>,
    key: FullKey,
    chosen: Vec<Chosen>,
    policy: Policy,
}

/// How far looking has come.
enum Look<V> {
    Found(V, Source),
    Fill(Fill<V>),
    /// The one who was waited for failed with this.
    Failed(SharedError),
}

/// What the providers said.
pub(crate) enum Asked<V> {
    Found(V, Source),
    /// Load; with the value that may be served if that fails.
    Grants(Grants, Option<AtHand<V>>),
    /// Another process is loading.
    Busy,
    /// None of them could be reached.
    Away,
}

impl Loading<'_> {
    /// The caller came at `began`. `open` reads stored bytes, `seal` makes them.
    pub(crate) async fn run<V, E, Fut>(
        &self,
        began: Instant,
        open: impl Fn(&Bytes) -> Option<V>,
        seal: impl FnOnce(&Loaded<V>) -> Sealed,
        loader: impl FnOnce() -> Fut,
        errors: Errors<E>,
    ) -> Result<Served<V>, E>
    where
        Fut: Future<Output = Result<Loaded<V>, E>>,
    {
        match self.look(began, &open, errors.share.is_some()).await {
            Look::Found(value, source) => Ok(Served { value, source }),
            // Boxed, as everything here that a hit does not need: it should not pay for the size of a miss.
            Look::Fill(fill) => Box::pin(self.fill(fill, seal, loader, errors)).await,
            Look::Failed(error) => match errors.share.and_then(|(_, take)| take(&error)) {
                Some(error) => Err(error),
                // Of another type: the caller that failed asks the same key for something else.
                None => {
                    let fill = Box::pin(self.fill_alone(None)).await;
                    Box::pin(self.fill(fill, seal, loader, errors)).await
                }
            },
        }
    }

    /// `shares_errors`: the caller can be given the error of the one it waits for.
    async fn look<V>(
        &self,
        began: Instant,
        open: &impl Fn(&Bytes) -> Option<V>,
        shares_errors: bool,
    ) -> Look<V> {
        let arrival = Arrival {
            at: began,
            in_doubt: self
                .chosen
                .iter()
                .any(|chosen| chosen.pending.holds_back(self.key.as_slice())),
        };
        let patience_max = patience(self.core);
        let patience = || patience_max.saturating_sub(arrival.at.elapsed());
        let (mut rounds, mut has_waited) = (0, false);
        if let Some(first) = self.chosen.first()
            && let Some(value) = near_value(first, self.key.as_slice(), open)
        {
            return Look::Found(value, Source::Near);
        }
        while rounds < ROUNDS_MAX && !patience_max.is_zero() {
            // Nearly every caller finds what it looks for at once: it does not pay for the clock again.
            let now = match std::mem::replace(&mut has_waited, true) {
                true if patience().is_zero() => break,
                true => Instant::now(),
                false => began,
            };
            let leader = if let Some(follower) = self.core.flights.follow(self.key.as_slice()) {
                let Some(_waiting) = follower.waits() else {
                    return Look::Fill(Box::pin(self.fill_alone(None)).await);
                };
                let outcome = Box::pin(timeout(patience(), follower.outcome())).await;
                match outcome.ok().flatten() {
                    Some(Outcome::Failed(Some(error))) if shares_errors => {
                        return Look::Failed(error);
                    }
                    // Those who waited take turns, which is a matter of patience and not of rounds.
                    Some(Outcome::Failed(_)) => self.core.flights.enter(self.key.bytes()),
                    Some(outcome) => {
                        if let Some(value) = outcome.shared_with(arrival).and_then(open) {
                            return Look::Found(value, Source::Joined);
                        }
                        rounds += 1;
                        None
                    }
                    None => {
                        rounds += 1;
                        None
                    }
                }
            } else {
                rounds += 1;
                match self.ask(Duration::ZERO, open).await {
                    Asked::Found(value, source) => return Look::Found(value, source),
                    Asked::Grants(grants, Some(at_hand)) if self.leaves_alone() => {
                        drop(grants);
                        let Served { value, source } = at_hand.served();
                        return Look::Found(value, source);
                    }
                    Asked::Grants(grants, at_hand) => match self.take_off(grants, at_hand) {
                        Some(fill) => return Look::Fill(fill),
                        None => None,
                    },
                    Asked::Busy => self.core.flights.enter(self.key.bytes()),
                    // No call takes that long by itself: this process did not run meanwhile, which says nothing of the
                    // server, and by now another process may have filled the key.
                    Asked::Away if now.elapsed() >= self.core.loader_timeout => None,
                    Asked::Away => match self.core.flights.enter(self.key.bytes()) {
                        Some(leader) => return Look::Fill(self.fill_without_cache(leader)),
                        None => None,
                    },
                }
            };
            // One of us waits in the server; the others wait for that one and then look again.
            let Some(leader) = leader else { continue };
            let asked = select! {
                biased;
                asked = Box::pin(self.ask(patience(), open)) => asked,
                // Another caller of this process already holds the lease; stop waiting. If it stops, this one would be
                // given the next lease as well.
                () = leader.overtaken() => continue,
            };
            match asked {
                Asked::Found(value, source) => return Look::Found(value, source),
                Asked::Grants(grants, at_hand) => {
                    return Look::Fill(Fill {
                        grants,
                        leader: Some(leader),
                        refreshes: at_hand.is_some(),
                        at_hand,
                    });
                }
                Asked::Busy => break,
                Asked::Away => return Look::Fill(self.fill_without_cache(leader)),
            }
        }
        Box::pin(self.look_at_last(arrival, open, shares_errors)).await
    }

    /// Waiting has led to nothing, for all callers that came when this one did: one of this process loads without
    /// regard to other processes, or all would at once, and the source that keeps them waiting would have to bear that
    /// too.
    async fn look_at_last<V>(
        &self,
        arrival: Arrival,
        open: &impl Fn(&Bytes) -> Option<V>,
        shares_errors: bool,
    ) -> Look<V> {
        let began = Instant::now();
        loop {
            if let Some(leader) = self.core.flights.enter(self.key.bytes()) {
                return Look::Fill(self.fill_alone(Some(leader)).await);
            }
            let patience = self.core.loader_timeout.saturating_sub(began.elapsed());
            let Some(follower) = self.core.flights.follow(self.key.as_slice()) else {
                continue;
            };
            let Some(_waiting) = follower.waits() else {
                break;
            };
            // Nothing came of it, for this caller or at all: the next one tries. All of them at once would be what is
            // to be avoided, also where the process was stopped so long that all ran out of patience at one moment.
            match timeout(patience, follower.outcome()).await {
                Ok(Some(Outcome::Failed(Some(error)))) if shares_errors => {
                    return Look::Failed(error);
                }
                Ok(outcome) => {
                    let shared = outcome.as_ref().and_then(|it| it.shared_with(arrival));
                    if let Some(value) = shared.and_then(open) {
                        return Look::Found(value, Source::Joined);
                    }
                }
                Err(_) => break,
            }
            if patience.is_zero() {
                break;
            }
        }
        Look::Fill(self.fill_alone(None).await)
    }

    /// The source failed a moment ago, and there is something else to serve.
    pub(crate) fn leaves_alone(&self) -> bool {
        self.core.throttle.holds(self.key.bytes(), Instant::now())
    }

    fn complain(&self, chosen: &Chosen, operation: &'static str, error: &crate::Error) {
        let family = self.core.family_of(self.key.as_slice(), self.policy);
        let provider = chosen.provider.id();
        self.core
            .complaints
            .failed_open(provider, operation, &family, error);
    }

    /// Asks the providers in order. Waits, if at all, for the first that is filling.
    pub(crate) async fn ask<V>(
        &self,
        wait: Duration,
        open: &impl Fn(&Bytes) -> Option<V>,
    ) -> Asked<V> {
        // Made when there is something to be granted, which a hit does not need.
        let mut grants = None;
        let is_granted = |grants: &Option<Grants>| grants.as_ref().is_some_and(|it| !it.is_empty());
        let mut at_hand = None;
        for chosen in self.reachable() {
            if let Some(value) = near_value(chosen, self.key.as_slice(), open) {
                return Asked::Found(value, Source::Near);
            }
            let options = FetchOptions {
                wait: match is_granted(&grants) {
                    false => wait,
                    true => Duration::ZERO,
                },
                lease: Some(self.core.loader_timeout),
                early: self.policy.early,
            };
            match chosen.fetch(self.key.as_slice(), options).await {
                Ok(Lookup::Hit(bytes)) => match open(&bytes) {
                    Some(value) => return Asked::Found(value, Source::Hit),
                    // An entry that is no use to us: ours will replace it.
                    None => self.take_token(chosen, self.begun(&mut grants)).await,
                },
                Ok(Lookup::Early { value, token }) => {
                    self.begun(&mut grants).add(chosen, token, true);
                    let value = open(&value);
                    at_hand = at_hand.or(value.map(|value| AtHand { value, live: true }));
                }
                Ok(Lookup::Stale { value, token }) => match (open(&value), token) {
                    (Some(value), None) => return Asked::Found(value, Source::Stale),
                    (value, Some(token)) => {
                        self.begun(&mut grants).add(chosen, token, true);
                        at_hand = at_hand.or(value.map(|value| AtHand { value, live: false }));
                    }
                    (None, None) => self.take_token(chosen, self.begun(&mut grants)).await,
                },
                Ok(Lookup::Miss { token }) => {
                    self.begun(&mut grants).add(chosen, token, true);
                }
                Ok(Lookup::Busy) if !is_granted(&grants) => return Asked::Busy,
                Ok(Lookup::Busy) => self.take_token(chosen, self.begun(&mut grants)).await,
                Err(error) => self.complain(chosen, "fetch", &error),
            }
        }
        match grants {
            Some(grants) if !grants.is_empty() => Asked::Grants(grants, at_hand),
            _ => Asked::Away,
        }
    }

    fn begun<'g>(&self, grants: &'g mut Option<Grants>) -> &'g mut Grants {
        grants.get_or_insert_with(|| Grants::none(self.core, self.key.bytes()))
    }

    /// The fill these grants allow; `None` if another caller of this process is filling already and they do not say
    /// that it is our turn.
    pub(crate) fn take_off<V>(
        &self,
        grants: Grants,
        at_hand: Option<AtHand<V>>,
    ) -> Option<Fill<V>> {
        // A refresher has no followers: the others have the value that is at hand.
        let leader = match &at_hand {
            Some(_) => None,
            None if grants.is_leased() => Some(self.core.flights.lead(self.key.bytes())),
            None => Some(self.core.flights.enter(self.key.bytes())?),
        };
        Some(Fill {
            grants,
            leader,
            refreshes: at_hand.is_some(),
            at_hand,
        })
    }

    async fn take_token(&self, chosen: &Chosen, grants: &mut Grants) {
        let provider = &chosen.provider;
        match provider.token(self.key.as_slice()).await {
            Ok(token) => grants.add(chosen, token, false),
            Err(error) => self.complain(chosen, "token", &error),
        }
    }

    /// Loads without regard to other processes, but keeps the result if it is still good.
    async fn fill_alone<V>(&self, leader: Option<Leader>) -> Fill<V> {
        Fill {
            grants: self.tokens().await,
            leader,
            at_hand: None,
            refreshes: false,
        }
    }

    /// For a fill that no provider knows of.
    pub(crate) fn nothing_granted(&self) -> Grants {
        Grants::none(self.core, self.key.bytes())
    }

    fn fill_without_cache<V>(&self, leader: Leader) -> Fill<V> {
        Fill {
            grants: self.nothing_granted(),
            leader: Some(leader),
            at_hand: None,
            refreshes: false,
        }
    }

    /// When a fill begun now began, according to each provider that can be reached.
    pub(crate) async fn tokens(&self) -> Grants {
        let mut grants = Grants::none(self.core, self.key.bytes());
        for chosen in self.reachable() {
            self.take_token(chosen, &mut grants).await;
        }
        grants
    }

    async fn fill<V, E, Fut>(
        &self,
        mut fill: Fill<V>,
        seal: impl FnOnce(&Loaded<V>) -> Sealed,
        loader: impl FnOnce() -> Fut,
        errors: Errors<E>,
    ) -> Result<Served<V>, E>
    where
        Fut: Future<Output = Result<Loaded<V>, E>>,
    {
        let may_stand_in = |at_hand: &AtHand<V>| at_hand.may_stand_in(self.policy);
        let mut at_hand = fill.at_hand.take().filter(may_stand_in);
        let source = fill.source();
        let began = Instant::now();
        let leader = fill.leader.as_ref().map(Leader::id);
        let mut load = pin!(nesting::loading(leader, loader));
        let loaded = match timeout(self.core.loader_timeout, &mut load).await {
            Ok(loaded) => loaded,
            Err(_) => {
                telemetry::loader_overran();
                fill.overrun(self.core, self.key.bytes());
                match at_hand.take() {
                    Some(at_hand) => return Ok(at_hand.after("timed out")),
                    None => load.await,
                }
            }
        };
        telemetry::loaded(loaded.is_ok(), began.elapsed(), self.policy.family_label());
        match loaded {
            Ok(loaded) => {
                fill.complete(self.core, seal(&loaded), began).await;
                Ok(Served {
                    value: loaded.value,
                    source,
                })
            }
            Err(error) => {
                let shared = errors.share.map(|(share, _)| share(&error));
                fill.fail(self.core, self.key.bytes(), shared);
                at_hand.map(|at_hand| at_hand.after("failed")).ok_or(error)
            }
        }
    }

    pub(crate) fn to_owned(self) -> OwnedLoading {
        OwnedLoading {
            core: self.core.clone(),
            key: FullKey::of(self.key.bytes().clone()),
            chosen: self.chosen.to_vec(),
            policy: self.policy.clone(),
        }
    }

    /// The providers that may be read: not those that have still to hear of an invalidation of ours.
    fn reachable(&self) -> impl Iterator<Item = &Chosen> {
        self.chosen
            .iter()
            .filter(|chosen| !chosen.pending.holds_back(self.key.as_slice()))
    }
}

/// What the near cache of a provider may serve, if it can be read.
fn near_value<V>(chosen: &Chosen, key: &[u8], open: &impl Fn(&Bytes) -> Option<V>) -> Option<V> {
    open(chosen.near_value(key)?.bytes())
}

impl OwnedLoading {
    fn borrow(&self) -> Loading<'_> {
        Loading {
            core: &self.core,
            key: &self.key,
            chosen: &self.chosen,
            policy: &self.policy,
        }
    }

    /// As [`Loading::run`], with the load in a task of its own: it is finished whether or not the caller waits for it,
    /// and if a value is at hand the caller does not.
    pub(crate) async fn run_detached<V, E, Fut>(
        self,
        began: Instant,
        open: impl Fn(&Bytes) -> Option<V>,
        seal: impl FnOnce(&Loaded<V>) -> Sealed + Send + 'static,
        loader: impl FnOnce() -> Fut + Send + 'static,
    ) -> Result<Served<V>, E>
    where
        V: Send + 'static,
        E: fmt::Display + Send + 'static,
        Fut: Future<Output = Result<Loaded<V>, E>> + Send + 'static,
    {
        let mut fill = match self.borrow().look(began, &open, false).await {
            Look::Found(value, source) => return Ok(Served { value, source }),
            Look::Fill(fill) => fill,
            Look::Failed(_) => self.borrow().fill_alone(None).await,
        };
        let at_hand = fill.at_hand.take();
        let is_awaited = at_hand.is_none();
        let running = self.core.background.enter();
        let outer = nesting::current().filter(|_| is_awaited);
        let load = async move {
            let _running = running;
            let loading = self.borrow();
            let load = loading.fill(fill, seal, loader, Errors::own());
            let loaded = nesting::within(outer, load).await;
            if let (Err(error), false) = (&loaded, is_awaited) {
                tracing::warn!(key = %self.key.as_slice().escape_ascii(), %error, "a refresh in the background failed");
                telemetry::refresh_failed();
            }
            loaded
        };
        let task = tokio::spawn(load.in_current_span());
        match at_hand {
            Some(at_hand) => Ok(at_hand.served()),
            None => match task.await {
                Ok(loaded) => loaded,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime is shutting down, and this future with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
