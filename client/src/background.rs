//! What a cache does while no caller waits for it: how much of it is under way, and a way to wait for its end. And
//! tasks that others rely on, which may end with their runtime while the cache is used on another one.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts tasks. Clones share the count.
#[derive(Debug, Clone)]
pub(crate) struct Background {
    running: Arc<watch::Sender<usize>>,
}

/// One task; dropped when it ends, however it ends.
#[derive(Debug)]
pub(crate) struct Running(Background);

impl Background {
    pub(crate) fn new() -> Self {
        Self {
            running: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Begins a task.
    pub(crate) fn enter(&self) -> Running {
        self.running.send_modify(|count| *count += 1);
        Running(self.clone())
    }

    pub(crate) fn len(&self) -> usize {
        *self.running.borrow()
    }

    /// Returns once none is under way.
    ///
    /// Cancel-safe.
    pub(crate) async fn ended(&self) {
        let mut running = self.running.subscribe();
        // The sender lives as long as `self`.
        let _ = running.wait_for(|count| *count == 0).await;
    }
}

/// Spawns a task on the current runtime. If that ends before the task, or the task panics, `lost` is called.
///
/// No lock may be held that `lost` takes: where the runtime is ending, it is called at once.
pub(crate) fn spawn_or(
    task: impl Future<Output = ()> + Send + 'static,
    lost: impl FnOnce() + Send + 'static,
) {
    let unfinished = Unfinished::new((), move |()| lost());
    tokio::spawn(async move {
        task.await;
        unfinished.end();
    });
}

/// What belongs to something under way. Dropped before that has ended, it goes to the function.
pub(crate) struct Unfinished<T, F: FnOnce(T)>(Option<(T, F)>);

impl<T, F: FnOnce(T)> Unfinished<T, F> {
    pub(crate) fn new(belonging: T, dropped: F) -> Self {
        Self(Some((belonging, dropped)))
    }

    /// It has ended, and the function is not called. There is always something to give back.
    pub(crate) fn end(mut self) -> Option<T> {
        self.0.take().map(|(belonging, _)| belonging)
    }
}

impl<T, F: FnOnce(T)> Drop for Unfinished<T, F> {
    fn drop(&mut self) {
        if let Some((belonging, dropped)) = self.0.take() {
            dropped(belonging);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_task_is_lost_only_if_its_runtime_ends_before_it_or_it_panics() {
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let (told, lost) = mpsc::channel();
        let tell = |what: &'static str| {
            let told = told.clone();
            move || told.send(what).expect("heard")
        };
        runtime.block_on(async {
            spawn_or(async {}, tell("done"));
            spawn_or(async { panic!("on purpose") }, tell("panicked"));
            tokio::task::yield_now().await;
            spawn_or(std::future::pending(), tell("never done"));
        });
        assert_eq!(lost.try_iter().collect::<Vec<_>>(), ["panicked"]);
        let handle = runtime.handle().clone();
        drop(runtime);
        assert_eq!(lost.try_iter().collect::<Vec<_>>(), ["never done"]);
        let _entered = handle.enter();
        spawn_or(async {}, tell("too late"));
        assert_eq!(lost.try_iter().collect::<Vec<_>>(), ["too late"]);
    }
}
