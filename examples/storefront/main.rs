//! `make storefront`: the store on PostgreSQL and Redis servers of its own, until Ctrl-C.

use std::process::ExitCode;

use axum::Router;
use storefront::BoxError;
use storefront::config::Config;
use storefront::serve::Server;
use storefront::servers::Servers;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storefront: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> Result<(), BoxError> {
    let servers = tokio::task::spawn_blocking(Servers::start).await?;
    let config = servers.config(Config::load()?);
    servers.seed(&config).await?;
    let server = Server::start(config, Router::new()).await?;
    println!("http://{}", server.address);
    tokio::signal::ctrl_c().await?;
    server.stop().await
}
