//! `make storefront-bench`: the storefront without the cache, with it and with a near cache, in alternating rounds.
//!
//! `storefront-bench [quick] [cold] [browse|order|hot] [local|hop] [OUT]`: `quick` makes every round short; `cold`
//! begins each with an empty cache; a mix, a place of the database or both pick what is measured; OUT is the directory
//! the report goes to (docs/results; if only a part is measured, target/storefront).

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use storefront::BoxError;
use storefront::config::Config;
use storefront::servers::Servers;
use storefront::stop;
use storefront_bench::{Hop, Plan, outage, run, write};
use storefront_load::Mix;

/// What the requests are drawn from, so that a run can be repeated.
const SEED: u64 = 20_260_107;

#[tokio::main]
async fn main() -> ExitCode {
    // Being asked at any time drops everything that was started.
    tokio::select! {
        outcome = bench() => match outcome {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("storefront-bench: {error}");
                ExitCode::FAILURE
            }
        },
        () = stop::asked() => {
            // A terminal that is gone is no reason to end badly.
            let _ = writeln!(std::io::stderr(), "Stopping everything that was started.");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing was stale and nothing failed.
async fn bench() -> Result<bool, BoxError> {
    let wanted = Wanted::parse(std::env::args().skip(1))?;
    let began = Instant::now();
    eprintln!("Starting PostgreSQL and Redis, seeding:");
    let servers = Arc::new(tokio::task::spawn_blocking(Servers::with_feed).await?);
    let local = servers.config(Config::load()?);
    servers.seed(&local).await?;
    let hop = Hop::to(servers.postgres.socket_dir(), Duration::from_millis(1))?;
    let away = Config {
        database: hop.conninfo(),
        ..local.clone()
    };

    let mut scenarios = Vec::new();
    for (mix, hop) in wanted.scenarios() {
        let plan = wanted.plan(mix, hop);
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
    write(&wanted.out, &scenarios, &outage, &how)?;
    println!(
        "Written to {}/storefront.{{md,csv,svg,html}}",
        wanted.out.display()
    );
    let stale: usize = scenarios
        .iter()
        .map(|scenario| scenario.findings.stale.len())
        .sum();
    let failures: u64 = scenarios.iter().map(|scenario| scenario.failures).sum();
    Ok(stale + outage.findings.stale.len() == 0 && failures + outage.failures == 0)
}

/// What the command line asks for.
struct Wanted {
    quick: bool,
    cold: bool,
    mixes: Vec<Mix>,
    /// Whether a millisecond lies between store and database.
    hops: Vec<bool>,
    out: PathBuf,
}

impl Wanted {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, BoxError> {
        let (mut quick, mut cold, mut mixes, mut hops, mut out) =
            (false, false, Vec::new(), Vec::new(), None);
        for argument in arguments {
            match &*argument {
                "quick" => quick = true,
                "cold" => cold = true,
                "browse" => mixes.push(Mix::BROWSE),
                "order" => mixes.push(Mix::ORDER),
                "hot" => mixes.push(Mix::HOT),
                "local" => hops.push(false),
                "hop" => hops.push(true),
                _ if argument.starts_with('-') || out.is_some() => {
                    return Err(format!(
                        "{argument:?}? usage: storefront-bench [quick] [cold] [browse|order|hot] [local|hop] [OUT]"
                    )
                    .into());
                }
                _ => out = Some(PathBuf::from(argument)),
            }
        }
        let whole = mixes.is_empty() && hops.is_empty() && !quick && !cold;
        let usual = if whole {
            "docs/results"
        } else {
            "target/storefront"
        };
        Ok(Self {
            quick,
            cold,
            mixes: or_all(mixes, [Mix::BROWSE, Mix::ORDER, Mix::HOT]),
            hops: or_all(hops, [false, true]),
            out: out.unwrap_or_else(|| PathBuf::from(usual)),
        })
    }

    fn scenarios(&self) -> impl Iterator<Item = (Mix, bool)> {
        let mixes = |&hop| self.mixes.iter().map(move |&mix| (mix, hop));
        self.hops.iter().flat_map(mixes)
    }

    fn plan(&self, mix: Mix, hop: bool) -> Plan {
        // Where few order, it takes long until thirty have.
        let seconds = match (mix, hop) {
            (Mix::BROWSE, true) => 32,
            (Mix::BROWSE, false) => 12,
            _ => 4,
        };
        Plan {
            mix,
            hop,
            pairs: if self.quick { 1 } else { 4 },
            round: Duration::from_secs(if self.quick { 1 } else { seconds }),
            visitors: 2,
            warm_up: match (self.cold, self.quick) {
                (true, _) => 0,
                (_, true) => 20,
                _ => 400,
            },
            seed: SEED,
        }
    }
}

/// What was picked; everything if nothing was.
fn or_all<T, const N: usize>(picked: Vec<T>, all: [T; N]) -> Vec<T> {
    match picked.is_empty() {
        true => all.into(),
        false => picked,
    }
}
