//! A store that listens, until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::reads::Totals;
use crate::store::Store;
use crate::{BoxError, api};

/// A running server.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it serves.
    pub store: Arc<Store>,
    /// Where its answers came from.
    pub totals: Totals,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Opens the store and listens where the configuration says.
    ///
    /// # Errors
    ///
    /// As [`Store::open`], and if the address is taken.
    pub async fn start(config: Config) -> Result<Self, BoxError> {
        Self::start_with(config, Router::new()).await
    }

    /// As [`start`](Self::start), with `beside` next to the store's API.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(config: Config, beside: Router) -> Result<Self, BoxError> {
        let listener = TcpListener::bind(&config.listen)
            .await
            .map_err(|error| format!("{}: {error}", config.listen))?;
        let store = Store::open(config).await?;
        let totals = Totals::default();
        let router = beside.merge(api::router(store.clone(), totals.clone()));
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = axum::serve(listener, router).with_graceful_shutdown(async {
            // A dropped sender stops it, too.
            let _ = stopped.await;
        });
        let task = tokio::spawn(async move { serving.await });
        Ok(Self {
            address,
            store,
            totals,
            stop,
            task,
        })
    }

    /// Finishes the requests there are and stops listening.
    ///
    /// # Errors
    ///
    /// If serving ended with an error.
    pub async fn stop(self) -> Result<(), BoxError> {
        let _ = self.stop.send(());
        Ok(self.task.await??)
    }
}
