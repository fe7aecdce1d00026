//! `make run`: a shop's recorded day, replayed through the client crate against a real server.
//!
//! Starts Redis with the module on a free port, replays 4,190 recorded calls in order, and compares: hits, misses and
//! live entries must be the recorded ones, values the ones stored last, and the index must hold nothing that the
//! keyspace does not. Then it leaves the server running to be tried by hand, until Ctrl-C; without a terminal it ends
//! by itself, with status 1 if a comparison failed.

mod inside;
mod report;
mod shop;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use harness::Server;
use harness::trace::Trace;
use mcache::Cache;

use inside::{Comparison, Holdings};
use report::{Progress, Report};
use shop::Shop;

#[tokio::main]
async fn main() -> ExitCode {
    // Being asked to stop ends the replay and the waiting alike; the server is stopped on the way out, with its
    // directory.
    tokio::select! {
        outcome = run() => match outcome {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("replay: {error}");
                ExitCode::FAILURE
            }
        },
        () = storefront::stop::asked() => {
            // A terminal that is gone is no reason to end badly.
            let _ = writeln!(std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

/// The whole show; whether every comparison held.
async fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let start = || Server::builder().tcp().apart_from_terminal().start();
    let server = tokio::task::spawn_blocking(start).await?;
    let path = std::env::args_os()
        .nth(1)
        .map_or_else(Trace::recorded, PathBuf::from);
    let trace = Trace::read(&path)?;
    let mut redis = server.session();
    println!(
        "Redis {} with mcache on port {}",
        redis.info_text("server", "redis_version"),
        server.port()
    );
    println!(
        "Replaying {} calls over {} tags.\n",
        trace.calls().len(),
        trace.tag_count()
    );

    let cache = Cache::builder(server.tcp_url())
        .namespace("shop")
        .caching(true)
        .build()
        .await?;
    let mut shop = Shop::new(&cache, &trace);
    let mut fullest = Holdings::default();
    let mut progress = Progress::new(trace.calls().len());
    for (number, call) in trace.calls().iter().enumerate() {
        shop.replay(call).await?;
        if progress.is_due(number + 1) {
            let now = Holdings::ask(&mut redis, shop.live_json_bytes());
            progress.show(number + 1, shop.score(), &now);
            if now.memberships > fullest.memberships {
                fullest = now;
            }
        }
    }
    let comparison = Comparison::make(&mut redis);
    let at_end = Holdings::ask(&mut redis, shop.live_json_bytes());
    let held = Report {
        trace: &trace,
        score: shop.score(),
        fullest,
        at_end,
        comparison,
    }
    .print();

    if std::io::stdin().is_terminal() {
        report::invite(server.port());
        std::future::pending::<()>().await;
    }
    Ok(held)
}
