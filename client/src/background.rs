//! What a cache does while no caller waits for it: how much of it is under way, and a way to wait for its end.

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

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|count| *count -= 1);
    }
}
