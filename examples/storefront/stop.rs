//! When to stop.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves when this program is told to end: Ctrl-C at a terminal, a terminal that is closed, or SIGTERM, which is
/// what `kill`, `timeout` and service managers send. The caller that waits for it drops what was started.
pub async fn asked() {
    if let Err(error) = signalled().await {
        // Signals then end the program by themselves.
        tracing::warn!(%error, "signals are not heard");
        std::future::pending::<()>().await;
    }
}

async fn signalled() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
