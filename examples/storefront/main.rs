//! `make storefront`: the store on PostgreSQL and Redis servers of its own, and a page that shows it at work, until
//! Ctrl-C.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use storefront::BoxError;
use storefront::config::Config;
use storefront::live::Live;
use storefront::serve::Server;
use storefront::servers::Servers;
use storefront::stop;

#[tokio::main]
async fn main() -> ExitCode {
    // Being asked at any time, in the middle of seeding too, drops everything that was started.
    tokio::select! {
        outcome = run() => match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("storefront: {error}");
                ExitCode::FAILURE
            }
        },
        () = stop::asked() => {
            // A terminal that is gone is no reason to end badly.
            let _ = writeln!(std::io::stdout(), "\nStopping everything that was started.");
            ExitCode::SUCCESS
        }
    }
}

async fn run() -> Result<(), BoxError> {
    let base = Config::load()?;
    println!(
        "Starting PostgreSQL and Redis in temporary directories, seeding {} products:",
        base.products
    );
    let servers = Arc::new(tokio::task::spawn_blocking(Servers::with_feed).await?);
    let config = servers.config(base);
    servers.seed(&config).await?;

    let without = Config {
        caching: Some(false),
        listen: "127.0.0.1:0".to_owned(),
        ..config.clone()
    };
    let near = Config {
        near: true,
        namespace: format!("{}-near", config.namespace),
        listen: "127.0.0.1:0".to_owned(),
        ..config.clone()
    };
    let live = Live::new(servers.clone());
    let on = Server::start_with(config, live.router()).await?;
    let off = Server::start(without).await?;
    let near = Server::start(near).await?;
    let caching = if on.store.cache.is_enabled() {
        "on"
    } else {
        "off: set MEDUSA_FF_CACHING=true"
    };
    let key = "-H 'x-publishable-api-key: pk_storefront'";
    println!("\n  the table, live   http://{}/", on.address);
    println!(
        "  the store         curl -i {key} 'http://{}/store/products?limit=2&region_id=reg_eu'",
        on.address
    );
    println!("  without a cache   http://{}/", off.address);
    println!("  with a near cache http://{}/", near.address);
    println!("  its database      psql '{}'", servers.postgres.conninfo());
    println!(
        "  its cache         redis-cli -s {}",
        servers.redis().socket().display()
    );
    println!("\nCaching is {caching}. Ctrl-C stops everything.");
    let mut visitors = live.visitors(&off, &on, &near);
    while visitors.join_next().await.is_some() {}
    Ok(())
}
