//! The right to fill a key, and the giving back of it.

use std::{pin::Pin, sync::Arc, task::Poll};

use bytes::Bytes;
use tokio::{runtime::Handle, time::Instant};

use crate::{
    Result,
    complaints::{self, RELEASE},
    core::{Chosen, Core},
    flight::{Leader, Outcome},
    policy::Terms,
    provider::{Store, Token},
    telemetry,
};

/// When a fill of a key began, according to each provider that was reached. Dropped with leases unused, it gives them
/// back, so that a caller that waits in another process need not wait for them to end.
pub(crate) struct Grants {
    core: Arc<Core>,
    key: Bytes,
    grants: Vec<Grant>,
    /// On which leases are given back, if they are dropped where no other is.
    runtime: Option<Handle>,
}

#[derive(Clone)]
struct Grant {
    chosen: Chosen,
    token: Token,
    /// Others are waiting for us to finish.
    leased: bool,
}

impl Grants {
    pub(crate) fn none(core: &Arc<Core>, key: &Bytes) -> Self {
        Self {
            core: core.clone(),
            key: key.clone(),
            grants: Vec::new(),
            runtime: Handle::try_current().ok(),
        }
    }

    pub(crate) fn add(&mut self, chosen: &Chosen, token: Token, leased: bool) {
        self.grants.push(Grant {
            chosen: chosen.clone(),
            token,
            leased,
        });
    }

    pub(crate) fn key(&self) -> &Bytes {
        &self.key
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }

    /// Whether a provider made us the one who fills.
    pub(crate) fn is_leased(&self) -> bool {
        self.grants.iter().any(|grant| grant.leased)
    }

    /// Lets others fill. The tokens are still good: a value may be stored later, if it comes.
    pub(crate) fn give_back_leases(&mut self) {
        let leased: Vec<Grant> = self
            .grants
            .iter()
            .filter(|grant| grant.leased)
            .cloned()
            .collect();
        if leased.is_empty() {
            return;
        }
        for grant in &mut self.grants {
            grant.leased = false;
        }
        let runtime = Handle::try_current().ok().or_else(|| self.runtime.clone());
        // Without a runtime there is no task to send it; the lease ends by itself.
        let Some(runtime) = runtime else { return };
        let (core, key) = (self.core.clone(), self.key.clone());
        runtime.spawn(async move {
            for grant in leased {
                let provider = &grant.chosen.provider;
                if let Err(error) = provider.release(&key, &grant.token).await {
                    let family = complaints::family_of(core.namespace.key_of(&key));
                    core.complaints
                        .failed_open(provider.id(), RELEASE, &family, &error);
                }
            }
        });
    }

    /// Gives the value to each provider, in order.
    ///
    /// # Errors
    ///
    /// The first provider's that failed, after all were tried.
    pub(crate) async fn store(mut self, value: Bytes, terms: &Terms) -> Result<Stored> {
        let core = self.core.clone();
        let tags = core.namespace.stored_tags(&terms.tags);
        let mut stored = Stored::default();
        let mut failure = None;
        for grant in &mut self.grants {
            let ttl = core.lifetime(&grant.chosen, terms.ttl);
            let swr = core.stale_window(terms.swr);
            let (ttl, swr) = terms.ended(ttl, swr);
            let provider = &grant.chosen.provider;
            let entry = Store {
                key: &self.key,
                value: value.clone(),
                ttl,
                swr,
                tags: &tags,
                manual: terms.manual,
                token: Some(&grant.token),
            };
            grant.chosen.pending.note_life(ttl, swr);
            match grant.chosen.store(entry, terms.early).await {
                Ok(accepted) => {
                    telemetry::store(provider.id(), if accepted { "stored" } else { "refused" });
                    stored.accepted += usize::from(accepted);
                    stored.refused += usize::from(!accepted);
                    // Either way the lease has ended.
                    grant.leased = false;
                }
                Err(error) => {
                    telemetry::store(provider.id(), "failed");
                    let name = core.namespace.key_of(&self.key);
                    let family = match &terms.family {
                        Some(family) => family.to_string(),
                        None => complaints::family_of(name),
                    };
                    core.complaints
                        .failed_open(provider.id(), "store", &family, &error);
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(stored),
        }
    }

    /// Gives the value to the providers without keeping the caller waiting for their answers, and then tells those who
    /// waits in this process.
    ///
    /// The commands are on their way when this returns, so what the caller sends next on the same connection comes
    /// after them.
    pub(crate) async fn store_in_background(
        self,
        value: Bytes,
        terms: Terms,
        leader: Option<Leader>,
        began: Instant,
    ) {
        if let Some(leader) = &leader {
            leader.close();
        }
        let running = self.core.background.enter();
        let mut store = Box::pin(async move {
            let _running = running;
            let stored = self.store(value.clone(), &terms).await;
            let Some(leader) = leader else { return };
            // One provider that accepted the token is proof: an invalidation that a caller has seen acknowledged would
            // have reached that provider too, and made it refuse.
            leader.finish(match stored {
                Ok(stored) if stored.accepted > 0 => Outcome::Confirmed { value, began },
                _ => Outcome::Unconfirmed { value, began },
            });
        });
        if !is_ready(store.as_mut()).await {
            tokio::spawn(store);
        }
    }
}

/// What the providers made of a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) accepted: usize,
    pub(crate) refused: usize,
}

/// Polls once.
async fn is_ready(mut future: Pin<&mut impl Future<Output = ()>>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

impl Drop for Grants {
    fn drop(&mut self) {
        self.give_back_leases();
    }
}
