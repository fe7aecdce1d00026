//! Rounds: a store is opened, warmed up, visited, closed; without the cache, with it, with a near cache as well, and
//! back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mcache_postgres::{Mapping, Outbox};
use storefront::config::Config;
use storefront::reads::Total;
use storefront::serve::Server;
use storefront::servers::Servers;
use storefront::{BoxError, schema};
use storefront_load::{ENDPOINTS, Figures, Mix, Recorder, Visitor};
use tokio::task::JoinSet;

use crate::checker::{Checker, Findings};

/// Between two changes of the back office.
const BACK_OFFICE_RESTS: Duration = Duration::from_millis(250);

/// Visits before a round without the cache: there is nothing to fill.
const OFF_WARM_UP: u32 = 20;

/// They come all at once: how long they take is not measured.
const WARM_UP_VISITORS: u32 = 8;

/// What is measured, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What visitors do.
    pub mix: Mix,
    /// Whether a millisecond lies between store and database.
    pub hop: bool,
    /// Rounds of each kind.
    pub pairs: u32,
    /// About how long the first round takes; all others send the same requests.
    pub round: Duration,
    /// Visitors at a time.
    pub visitors: u32,
    /// Visits before a round with the cache, other ones: what it has seen in the hour that an entry lives.
    pub warm_up: u32,
    /// What the requests are drawn from.
    pub seed: u64,
}

/// How the store of a round is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Without a cache.
    Off,
    /// With one on the server.
    Cache,
    /// With one in the process as well.
    Near,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Off, Self::Cache, Self::Near];

    fn caches(self) -> bool {
        self != Self::Off
    }
}

/// One endpoint, without the cache, with it, and with a near cache as well.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The endpoint.
    pub endpoint: &'static str,
    /// Without the cache.
    pub off: Figures,
    /// With it.
    pub on: Figures,
    /// With a near cache as well.
    pub near: Figures,
    /// Where the reads of the rounds with the cache alone came from.
    pub reads: Total,
    /// Where those of the rounds with a near cache came from.
    pub near_reads: Total,
    /// How much of its time without a cache an endpoint waits for what could be cached, from 0 to 1.
    pub cacheable: f64,
}

impl Row {
    /// How much of the median the cache saves, in percent.
    pub fn saved_percent(&self) -> f64 {
        saved_percent(self.off, self.on)
    }

    /// How much of it the cache saves with a near cache, in percent.
    pub fn near_saved_percent(&self) -> f64 {
        saved_percent(self.off, self.near)
    }

    /// How much of its time without a cache an endpoint waits for what could be cached, in percent.
    pub fn cacheable_percent(&self) -> f64 {
        self.cacheable.min(1.0) * 100.0
    }

    /// The share of cacheable reads that were hits, in percent.
    pub fn hit_percent(&self) -> f64 {
        percent(self.reads.hits, self.reads.reads)
    }

    /// The share of cacheable reads that the near cache answered, in percent.
    pub fn near_hit_percent(&self) -> f64 {
        percent(self.near_reads.near, self.near_reads.reads)
    }
}

fn saved_percent(off: Figures, on: Figures) -> f64 {
    match off.p50_ms {
        0.0 => 0.0,
        off => (1.0 - on.p50_ms / off) * 100.0,
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        whole => part as f64 / whole as f64 * 100.0,
    }
}

/// What one plan showed.
#[derive(Debug)]
pub struct Scenario {
    /// The plan.
    pub plan: Plan,
    /// Every endpoint that was asked.
    pub rows: Vec<Row>,
    /// Visits per round.
    pub visits: u32,
    /// What the checker found in the rounds with the cache.
    pub findings: Findings,
    /// Requests without an answer, or with a server error.
    pub failures: u64,
}

/// Carries out a plan.
///
/// # Errors
///
/// If a server cannot be reached or a store does not open.
pub async fn run(servers: &Arc<Servers>, base: &Config, plan: Plan) -> Result<Scenario, BoxError> {
    let recorders = Kind::ALL.map(|_| Recorder::default());
    let mut totals = Kind::ALL.map(|_| [Total::default(); ENDPOINTS.len()]);
    let mut findings = Findings::default();
    let mut visits = None;
    for pair in 0..plan.pairs {
        // The order alternates, so what slows the last third of a turn slows the first and the last kind alike.
        let mut order = Kind::ALL;
        if pair % 2 > 0 {
            order.reverse();
        }
        for kind in order {
            let round = Round {
                servers,
                plan: &plan,
                kind,
                pair,
                recorder: &recorders[kind as usize],
                products: base.products,
            };
            let outcome = round.run(base, &mut visits).await?;
            for (sum, (endpoint, server)) in totals[kind as usize].iter_mut().zip(outcome.totals) {
                debug_assert!(ENDPOINTS.contains(&endpoint));
                sum.reads += server.reads;
                sum.hits += server.hits;
                sum.near += server.near;
                sum.waited += server.waited;
                sum.took += server.took;
            }
            if kind.caches() {
                findings.add(outcome.findings);
            }
        }
    }
    let rows = (0..ENDPOINTS.len()).map(|at| Row {
        endpoint: ENDPOINTS[at],
        off: recorders[0].figures(ENDPOINTS[at]),
        on: recorders[1].figures(ENDPOINTS[at]),
        near: recorders[2].figures(ENDPOINTS[at]),
        reads: totals[1][at],
        near_reads: totals[2][at],
        cacheable: totals[0][at].waited.as_secs_f64() / totals[0][at].took.as_secs_f64().max(1e-9),
    });
    Ok(Scenario {
        rows: rows.filter(|row| row.off.requests > 0).collect(),
        visits: visits.unwrap_or_default(),
        findings,
        failures: recorders.iter().map(Recorder::failures).sum(),
        plan,
    })
}

/// One round.
struct Round<'a> {
    servers: &'a Arc<Servers>,
    plan: &'a Plan,
    kind: Kind,
    pair: u32,
    recorder: &'a Recorder,
    /// How many there are in the store.
    products: u32,
}

struct Outcome {
    totals: Vec<(&'static str, Total)>,
    findings: Findings,
}

impl Round<'_> {
    async fn run(&self, base: &Config, visits: &mut Option<u32>) -> Result<Outcome, BoxError> {
        if !self.kind.caches() {
            // A store without a cache has no use for triggers, and does not pay for them.
            remove_triggers(base).await?;
        }
        let config = Config {
            caching: Some(self.kind.caches()),
            near: self.kind == Kind::Near,
            listen: "127.0.0.1:0".to_owned(),
            ..base.clone()
        };
        let server = Server::start(config).await?;
        let seed = self.plan.seed + u64::from(self.pair);
        self.warm_up(server.address, seed).await?;
        server.totals.reset();

        let stop = Arc::new(AtomicBool::new(false));
        let checker = Checker::new(
            server.address,
            self.servers.clone(),
            self.kind.caches(),
            seed,
        );
        let back_office = tokio::spawn(checker.run(stop.clone(), BACK_OFFICE_RESTS));
        let made = self
            .visit(server.address, self.recorder, seed, *visits)
            .await?;
        visits.get_or_insert(made);
        let totals = ENDPOINTS
            .map(|endpoint| (endpoint, server.totals.of(endpoint)))
            .to_vec();
        stop.store(true, Ordering::Relaxed);
        let mut findings = back_office.await??;
        if self.kind.caches() && self.pair + 1 >= self.plan.pairs {
            findings.add(at_rest(&server, self.servers, seed).await?);
        }
        server.stop().await?;
        Ok(Outcome { totals, findings })
    }

    /// Visits that are not measured: they open connections, prepare statements and, with the cache on, fill it.
    async fn warm_up(&self, address: SocketAddr, seed: u64) -> Result<(), BoxError> {
        let visits = match self.kind.caches() {
            true => self.plan.warm_up,
            false => self.plan.warm_up.min(OFF_WARM_UP),
        };
        let plan = Plan {
            visitors: WARM_UP_VISITORS,
            ..self.plan.clone()
        };
        let others = Round {
            plan: &plan,
            ..*self
        };
        let (unread, seed) = (Recorder::default(), seed ^ 0xAAAA);
        others.visit(address, &unread, seed, Some(visits)).await?;
        Ok(())
    }

    /// Lets visitors in: so many visits, or as many as fit into the time. Returns how many it were.
    async fn visit(
        &self,
        address: SocketAddr,
        recorder: &Recorder,
        seed: u64,
        visits: Option<u32>,
    ) -> Result<u32, BoxError> {
        let next = Arc::new(AtomicU32::new(0));
        let began = Instant::now();
        let mut visitors = JoinSet::new();
        for _ in 0..self.plan.visitors {
            let (next, plan, recorder) = (next.clone(), self.plan.clone(), recorder.clone());
            let products = self.products;
            visitors.spawn(async move {
                loop {
                    // Each visit has its own draw: who makes it does not matter.
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if visits.map_or(began.elapsed() >= plan.round, |visits| number >= visits) {
                        return Ok::<(), BoxError>(());
                    }
                    let draw = seed << 20 ^ u64::from(number);
                    let mut visitor = Visitor::new(address, recorder.clone(), draw, products);
                    visitor.visit(plan.mix).await?;
                }
            });
        }
        while let Some(ended) = visitors.join_next().await {
            ended??;
        }
        Ok(visits.unwrap_or_else(|| next.load(Ordering::Relaxed) - self.plan.visitors))
    }
}

async fn remove_triggers(config: &Config) -> Result<(), BoxError> {
    let (mut client, connection) =
        tokio_postgres::connect(&config.database, tokio_postgres::NoTls).await?;
    let driver = tokio::spawn(connection);
    let mapping = Mapping::builder(schema::catalogue()?.into()).build()?;
    Outbox::new(Arc::new(mapping), "storefront")
        .uninstall(&mut client)
        .await?;
    drop(client);
    Ok(driver.await??)
}

/// When everything has come to rest, what is cached must be what is in the database, no matter who changed it.
async fn at_rest(server: &Server, servers: &Arc<Servers>, seed: u64) -> Result<Findings, BoxError> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut checker = Checker::new(server.address, servers.clone(), true, seed);
    for number in 0..40 {
        let region = ["eu", "us", "uk"][number % 3];
        let page = match number % 4 {
            0 => format!(
                "/store/products?limit=20&offset={}&region_id=reg_{region}",
                random.u32(..3) * 20
            ),
            1 => format!(
                "/store/products?limit=20&collection_id=pcol_{}&region_id=reg_{region}",
                1 + random.u32(..20)
            ),
            _ => format!(
                "/store/products/prod_{}?region_id=reg_{region}",
                1 + random.u32(..server.store.config.products.min(200))
            ),
        };
        checker.compare(&page).await?;
    }
    Ok(checker.findings().clone())
}

/// What happened while Redis was away in mid-round.
#[derive(Debug)]
pub struct Outage {
    /// Requests answered meanwhile and before and after.
    pub requests: u64,
    /// Requests without an answer, or with a server error.
    pub failures: u64,
    /// What the checker found, before, meanwhile and after.
    pub findings: Findings,
}

/// Kills Redis in the middle of a round with a near cache, starts it again, and goes on.
///
/// # Errors
///
/// As [`run`].
pub async fn outage(servers: &Arc<Servers>, base: &Config, seed: u64) -> Result<Outage, BoxError> {
    let config = Config {
        caching: Some(true),
        near: true,
        listen: "127.0.0.1:0".to_owned(),
        ..base.clone()
    };
    let server = Server::start(config).await?;
    let plan = Plan {
        mix: Mix {
            orders_percent: 30,
            ..Mix::BROWSE
        },
        hop: false,
        pairs: 1,
        round: Duration::from_secs(2),
        visitors: 2,
        warm_up: 0,
        seed,
    };
    let recorder = Recorder::default();
    let round = Round {
        servers,
        plan: &plan,
        kind: Kind::Near,
        pair: 0,
        recorder: &recorder,
        products: base.products,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let checker = Checker::new(server.address, servers.clone(), true, seed);
    let back_office = tokio::spawn(checker.run(stop.clone(), BACK_OFFICE_RESTS));
    let address = server.address;
    round.visit(address, &recorder, seed, None).await?;
    let killed = servers.clone();
    tokio::task::spawn_blocking(move || killed.redis().kill9()).await?;
    round.visit(address, &recorder, seed + 1, None).await?;
    let again = servers.clone();
    tokio::task::spawn_blocking(move || again.redis().start_again()).await?;
    round.visit(address, &recorder, seed + 2, None).await?;
    stop.store(true, Ordering::Relaxed);
    let mut findings = back_office.await??;
    findings.add(at_rest(&server, servers, seed).await?);
    server.stop().await?;
    Ok(Outage {
        requests: ENDPOINTS
            .iter()
            .map(|endpoint| recorder.figures(endpoint).requests)
            .sum(),
        failures: recorder.failures(),
        findings,
    })
}
