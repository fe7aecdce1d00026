//! A fill of one key: what a caller holds who is to load, and what becomes of it when the value or an error is there.
//!
//! How one comes to it is in `load`; loads of several keys at once are in `gather`.

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::{
    Policy, Served, Source,
    core::Core,
    flight::{Leader, Outcome, SharedError},
    grant::Grants,
    policy::Terms,
};

/// How an error is put where all can take it, and how it is taken.
pub(crate) type Sharing<E> = (fn(&E) -> SharedError, fn(&SharedError) -> Option<E>);

/// What becomes of a loader's error for those who waited for it.
pub(crate) struct Errors<E> {
    pub(crate) share: Option<Sharing<E>>,
}

impl<E> Errors<E> {
    /// Each caller has an error of its own, so each calls its loader, one after the other.
    pub(crate) fn own() -> Self {
        Self { share: None }
    }

    /// All who waited get a clone.
    pub(crate) fn shared() -> Self
    where
        E: Clone + Send + Sync + 'static,
    {
        Self {
            share: Some((|error| SharedError::new(error.clone()), SharedError::get)),
        }
    }
}

/// What a loaded value becomes in the cache: its bytes, if it has any, and the terms on which to keep them.
pub(crate) struct Sealed {
    pub(crate) value: Option<Bytes>,
    pub(crate) terms: Terms,
}

/// The caller is to load.
pub(crate) struct Fill<V> {
    pub(crate) grants: Grants,
    pub(crate) leader: Option<Leader>,
    /// What may be served if that fails.
    pub(crate) at_hand: Option<AtHand<V>>,
    /// There was such a value: if the source fails it is left alone for a while.
    pub(crate) refreshes: bool,
}

/// A value that is there while another is loaded in its place.
pub(crate) struct AtHand<V> {
    pub(crate) value: V,
    /// It is still live: the refresh is an early one.
    pub(crate) live: bool,
}

impl<V> Fill<V> {
    /// Where a value loaded for this fill comes from.
    pub(crate) fn source(&self) -> Source {
        match self.grants.is_empty() {
            true => Source::Bypass,
            false => Source::Loaded,
        }
    }

    /// The loader takes longer than others can be asked to wait: they look again. What is loaded may still be kept, by
    /// its token.
    pub(crate) fn overrun(&mut self, core: &Core, key: &Bytes) {
        self.grants.give_back_leases();
        self.leader = None;
        if self.refreshes {
            core.throttle.note(key, Instant::now());
        }
    }

    /// There is no value. Callers that wait are told; where another value is at hand, the next caller, here and in
    /// other processes, is served that for a while: the lease is kept so long.
    pub(crate) fn fail(self, core: &Core, key: &Bytes, error: Option<SharedError>) {
        if let Some(leader) = self.leader {
            leader.finish(Outcome::Failed(error));
        }
        if self.refreshes {
            let pause = core.throttle.pause();
            core.throttle.note(key, Instant::now());
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(async move {
                    sleep(pause).await;
                    drop(self.grants);
                });
            }
        }
    }

    /// There is one: keeps it, and shares it with those who wait.
    pub(crate) async fn complete(self, core: &Core, sealed: Sealed, began: Instant) {
        if self.refreshes {
            core.throttle.forget(self.grants.key());
        }
        match (sealed.value, self.leader) {
            (Some(value), leader) if sealed.terms.keep && !self.grants.is_empty() => {
                self.grants
                    .store_in_background(value, sealed.terms, leader, began)
                    .await;
            }
            (Some(value), Some(leader)) => leader.finish(Outcome::Unconfirmed { value, began }),
            (None, Some(leader)) => leader.finish(Outcome::Failed(None)),
            (_, None) => {}
        }
    }
}

impl<V> AtHand<V> {
    /// Whether it may be served if the loader fails.
    pub(crate) fn may_stand_in(&self, policy: &Policy) -> bool {
        self.live || policy.stale_if_error
    }

    /// It is what there is: served while another caller loads the next one.
    pub(crate) fn served(self) -> Served<V> {
        Served {
            value: self.value,
            source: if self.live {
                Source::Hit
            } else {
                Source::Stale
            },
        }
    }

    /// It is served because the loader did not do better.
    pub(crate) fn after(self, what: &str) -> Served<V> {
        tracing::warn!("the loader {what}; the value at hand is served instead");
        self.served()
    }
}
