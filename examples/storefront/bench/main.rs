//! `make storefront-bench`: the storefront with the cache off and on, in alternating rounds.
//!
//! `storefront-bench [quick] [OUT]`: `quick` makes every round short; OUT is where the report goes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use storefront::BoxError;
use storefront::bench::{Hop, Plan, outage, run, write};
use storefront::config::Config;
use storefront::load::Mix;
use storefront::servers::Servers;

/// What the requests are drawn from, so that a run can be repeated.
const SEED: u64 = 20_260_107;

#[tokio::main]
async fn main() -> ExitCode {
    // Ctrl-C at any time drops everything that was started.
    tokio::select! {
        outcome = bench() => match outcome {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("storefront-bench: {error}");
                ExitCode::FAILURE
            }
        },
        _ = tokio::signal::ctrl_c() => {
            eprintln!("Stopping everything that was started.");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing was stale and nothing failed.
async fn bench() -> Result<bool, BoxError> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.first().is_some_and(|first| first == "quick");
    if quick {
        arguments.remove(0);
    }
    let out = arguments
        .pop()
        .map_or_else(|| PathBuf::from("docs/results"), PathBuf::from);
    let began = Instant::now();
    eprintln!("Starting PostgreSQL and Redis, seeding:");
    let servers = Arc::new(tokio::task::spawn_blocking(Servers::start).await?);
    let local = servers.config(Config::load()?);
    servers.seed(&local).await?;
    let hop = Hop::to(servers.postgres.socket_dir(), Duration::from_millis(1))?;
    let away = Config {
        database: hop.conninfo(),
        ..local.clone()
    };

    let mut scenarios = Vec::new();
    for (mix, hop) in [
        (Mix::BROWSE, false),
        (Mix::ORDER, false),
        (Mix::HOT, false),
        (Mix::BROWSE, true),
        (Mix::ORDER, true),
        (Mix::HOT, true),
    ] {
        let plan = Plan {
            mix,
            hop,
            pairs: if quick { 1 } else { 4 },
            round: Duration::from_millis(if quick { 1_000 } else { 4_000 }),
            visitors: 2,
            seed: SEED,
        };
        let base = if hop { &away } else { &local };
        let scenario = run(&servers, base, plan).await?;
        println!("{}", scenario.markdown());
        scenarios.push(scenario);
    }
    let outage = outage(&servers, &local, SEED).await?;
    println!("Redis killed in mid-round: {outage:?}");
    let how = format!(
        "1,000 products, 11,142 variants, 33,426 prices; seed {SEED}; {} CPUs; {:.0} s.",
        std::thread::available_parallelism().map_or(0, usize::from),
        began.elapsed().as_secs_f64()
    );
    write(&out, &scenarios, &outage, &how)?;
    println!(
        "Written to {}/storefront.{{md,csv,svg,html}}",
        out.display()
    );
    let stale: usize = scenarios
        .iter()
        .map(|scenario| scenario.findings.stale.len())
        .sum();
    let failures: u64 = scenarios.iter().map(|scenario| scenario.failures).sum();
    Ok(stale + outage.findings.stale.len() == 0 && failures + outage.failures == 0)
}
