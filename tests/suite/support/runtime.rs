//! The runtime that tests of the client run on.

use tokio::runtime::{Builder, Runtime};

/// Enough threads that a test may block one of them.
pub fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Runs a test on a runtime of its own.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    runtime().block_on(test)
}
