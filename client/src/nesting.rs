//! Loads within loads: a loader that reads other keys, or its own.
//!
//! **Nothing is derived from what is near.** A near value may be older than an invalidation that the server has carried
//! out and that is not settled yet. A fill that began after that invalidation is accepted: what a loader made of the
//! near value would be kept, and served long after the invalidation is settled. So reads within a loader ask the
//! server.
//!
//! **No load waits for itself.** One call of a loader fills several keys. If it reads a key whose loader reads one of
//! those, each would wait for the other:
//!
//! ```text
//!   load of {x, y} ──reads──▶ z ──its loader reads──▶ x ──is being filled by──▶ load of {x, y}
//! ```
//!
//! So it is written down which load waits for which fill, and a caller that would close a circle loads by itself. What
//! is known is what this process does, in the tasks of the loaders themselves. So a load within a load waits for others
//! no longer than a quarter of the loader timeout, which ends a circle over other processes; one through spawned tasks
//! ends when a load has taken as long as it may.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A fill or a call of a loader.
pub(crate) type Id = u64;

static WAITS: LazyLock<Mutex<Waits>> = LazyLock::new(Mutex::default);

tokio::task_local! {
    /// The call of a loader that runs.
    static LOADING: Id;
}

/// Who waits for whom.
#[derive(Default)]
struct Waits(HashMap<Id, Vec<Id>>);

impl Waits {
    fn shared() -> MutexGuard<'static, Self> {
        WAITS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `from` waits for `to`, itself or through others.
    fn leads(&self, from: Id, to: Id) -> bool {
        let (mut ways, mut seen) = (vec![from], Vec::new());
        while let Some(at) = ways.pop() {
            if at == to {
                return true;
            }
            if !seen.contains(&at) {
                seen.push(at);
                ways.extend(self.0.get(&at).into_iter().flatten());
            }
        }
        false
    }

    fn remove(&mut self, who: Id, whom: Id) {
        if let Some(all) = self.0.get_mut(&who) {
            if let Some(at) = all.iter().position(|id| *id == whom) {
                all.swap_remove(at);
            }
            if all.is_empty() {
                self.0.remove(&who);
            }
        }
    }
}

/// What is written down of waiting, until this is dropped.
pub(crate) struct Waiting(Vec<(Id, Id)>);

impl Waiting {
    fn note(waits: &mut Waits, pairs: Vec<(Id, Id)>) -> Self {
        for (who, whom) in &pairs {
            waits.0.entry(*who).or_default().push(*whom);
        }
        Self(pairs)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let mut waits = Waits::shared();
        for (who, whom) in self.0.drain(..) {
            waits.remove(who, whom);
        }
    }
}

/// An id that no fill and no load has had in this process.
pub(crate) fn next_id() -> Id {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Relaxed)
}

/// The load, in which [`is_loading`] is true: in its own task, not in those that it spawns. It fills `fills`, and the
/// load within which it was begun waits for it.
pub(crate) fn loading<Fut: Future>(
    fills: impl IntoIterator<Item = Id>,
    load: impl FnOnce() -> Fut,
) -> impl Future<Output = Fut::Output> {
    let id = next_id();
    let waiting = fills.into_iter().chain(current());
    let pairs: Vec<_> = waiting.map(|who| (who, id)).collect();
    let waiting = Waiting::note(&mut Waits::shared(), pairs);
    LOADING.scope(id, async move {
        let _waiting = waiting;
        load().await
    })
}

/// The call of a loader within which this is called.
pub(crate) fn current() -> Option<Id> {
    LOADING.try_with(|id| *id).ok()
}

/// Runs in a task of its own what the load `outer` waits for.
pub(crate) async fn within<Fut: Future>(outer: Option<Id>, run: Fut) -> Fut::Output {
    match outer {
        Some(outer) => LOADING.scope(outer, run).await,
        None => run.await,
    }
}

/// Whether what is read now may become part of what a loader returns.
#[inline]
pub(crate) fn is_loading() -> bool {
    LOADING.try_with(|_| ()).is_ok()
}

/// The caller is about to wait for a fill. `None`: the fill waits for the load that the caller is part of, so it must
/// not.
pub(crate) fn wait_for(fill: Id) -> Option<Waiting> {
    let Some(id) = current() else {
        return Some(Waiting(Vec::new()));
    };
    let mut waits = Waits::shared();
    (!waits.leads(fill, id)).then(|| Waiting::note(&mut waits, vec![(id, fill)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_circle_is_seen_however_long_and_ends_with_those_that_wait() {
        let (x, z) = (next_id(), next_id());
        assert!(wait_for(x).is_some(), "outside of a load no circle can be");
        let other = next_id();
        loading([x], || async {
            assert!(wait_for(x).is_none(), "its own");
            assert!(wait_for(other).is_some());
            loading([z], || async {
                assert!(wait_for(x).is_none(), "of the load around it");
                assert!(wait_for(z).is_none());
            })
            .await;
            let waiting = wait_for(z).expect("z is not being loaded any more");
            loading([z], || async {}).await;
            drop(waiting);
        })
        .await;
        loading([z], || async { assert!(wait_for(x).is_some()) }).await;
    }

    #[tokio::test]
    async fn two_loads_do_not_wait_for_each_other() {
        let (x, y) = (next_id(), next_id());
        let (one, two) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
        let first = loading([x], || async {
            two.notified().await;
            let waiting = wait_for(y).expect("the first may wait");
            one.notify_one();
            two.notified().await;
            drop(waiting);
        });
        let second = loading([y], || async {
            two.notify_one();
            one.notified().await;
            assert!(wait_for(x).is_none(), "the other waits for this one");
            two.notify_one();
        });
        tokio::join!(first, second);
    }

    #[test]
    fn what_waits_no_more_leaves_nothing_behind() {
        let mut waits = Waits::default();
        waits.0.insert(1, vec![2, 3, 2]);
        for whom in [2, 3, 2] {
            assert!(waits.leads(1, whom));
            waits.remove(1, whom);
        }
        assert!(!waits.leads(1, 2) && waits.0.is_empty());
    }
}
