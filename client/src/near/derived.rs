//! Nothing is derived from what is near. A near value may be older than an invalidation that the server has carried out
//! and that is not settled yet. A fill that began after that invalidation is accepted: what a loader made of the near
//! value would be kept, and served long after the invalidation is settled. So reads within a loader ask the server.

use std::future::Future;

tokio::task_local! {
    static LOADING: ();
}

/// The load, in which [`is_loading`] is true: in its own task, not in those that it spawns.
pub(crate) fn loading<Fut: Future>(
    load: impl FnOnce() -> Fut,
) -> impl Future<Output = Fut::Output> {
    LOADING.scope((), async move { load().await })
}

/// Whether what is read now may become part of what a loader returns.
#[inline]
pub(crate) fn is_loading() -> bool {
    LOADING.try_with(|()| ()).is_ok()
}
