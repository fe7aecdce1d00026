//! The back office at work, and the proof that nothing stale is served.
//!
//! It changes titles, prices, stock, drafts, taxes and categories, through the API and by `psql`. When a change is
//! acknowledged (the API has answered; the outbox has forgotten the transaction) it asks for every page that shows it
//! three times: past the cache, from the cache, past the cache. If the two fresh answers agree, the cached one must be
//! equal to them, byte for byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use storefront::BoxError;
use storefront::servers::Servers;
use storefront_load::{Client, RESERVED};

/// How long a change may stay unacknowledged before something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the checker found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Changes that were made and acknowledged.
    pub changes: u64,
    /// Answers compared.
    pub compared: u64,
    /// Comparisons that say nothing, because the data changed meanwhile.
    pub inconclusive: u64,
    /// Cached answers that were older than an acknowledged change, by what was asked for.
    pub stale: Vec<String>,
}

impl Findings {
    /// Adds another round's.
    pub fn add(&mut self, other: Self) {
        self.changes += other.changes;
        self.compared += other.compared;
        self.inconclusive += other.inconclusive;
        self.stale.extend(other.stale);
    }
}

/// A back office that checks.
pub struct Checker {
    client: Client,
    servers: Arc<Servers>,
    captured: bool,
    random: fastrand::Rng,
    made: u64,
    findings: Findings,
}

impl Checker {
    /// One for the store at this address. `captured`: whether the store captures changes, that is, caches.
    pub fn new(address: SocketAddr, servers: Arc<Servers>, captured: bool, seed: u64) -> Self {
        Self {
            client: Client::new(address),
            servers,
            captured,
            random: fastrand::Rng::with_seed(seed),
            made: 0,
            findings: Findings::default(),
        }
    }

    /// Changes and checks until told to stop, resting in between.
    ///
    /// # Errors
    ///
    /// If the store or the database does not answer.
    pub async fn run(
        mut self,
        stop: Arc<AtomicBool>,
        rest: Duration,
    ) -> Result<Findings, BoxError> {
        while !stop.load(Ordering::Relaxed) {
            self.step().await?;
            tokio::time::sleep(rest).await;
        }
        Ok(self.findings)
    }

    /// One change, acknowledged and checked.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn step(&mut self) -> Result<(), BoxError> {
        self.made += 1;
        let product = 1 + self.random.u32(..RESERVED);
        let variant = format!("variant_{product}_{}", 1 + self.random.u32(..11));
        let mark = format!("{}-{:08x}", self.made, self.random.u32(..));
        let number = self.random.u32(1..50_000);
        let id = format!("prod_{product}");
        let mut pages = vec![
            format!("/store/products/{id}?region_id=reg_eu"),
            reserved_list(),
        ];
        match self.made % 10 {
            0 => self.api(&format!("/admin/products/{id}"), json!({ "title": format!("Title {mark}") })).await?,
            1 => {
                let price = json!({ "currency_code": "eur", "amount": number });
                self.api(&format!("/admin/variants/{variant}/prices"), price).await?;
            }
            2 => {
                let stock = json!({ "location_id": "sloc_north", "stocked": number });
                self.api(&format!("/admin/variants/{variant}/stock"), stock).await?;
            }
            3 => self.api(&format!("/admin/products/{id}"), json!({ "published": false })).await?,
            4 => self.psql("UPDATE product SET status = 'published' WHERE status = 'draft' AND id IN (SELECT 'prod_' || n FROM generate_series(1, 20) AS n)".to_owned()).await?,
            5 => self.psql(format!("UPDATE product SET title = 'By psql {mark}' WHERE id = '{id}'")).await?,
            6 => self.psql(format!("UPDATE price SET amount = {number} WHERE variant_id = '{variant}'")).await?,
            7 => self.psql(format!("UPDATE inventory_level SET stocked = {number} WHERE variant_id = '{variant}'")).await?,
            8 => {
                self.psql(format!("UPDATE region SET name = 'Europe {mark}' WHERE id = 'reg_eu'")).await?;
                pages = vec!["/store/regions".to_owned()];
            }
            _ => {
                self.psql(format!("UPDATE product_category SET name = 'Aisle {mark}' WHERE id = 'pcat_1_1'")).await?;
                pages = vec!["/store/product-categories".to_owned()];
            }
        }
        self.findings.changes += 1;
        for page in pages {
            self.compare(&page).await?;
        }
        Ok(())
    }

    /// Asks past the cache, from it, and past it again.
    ///
    /// # Errors
    ///
    /// If the store does not answer.
    pub async fn compare(&mut self, page: &str) -> Result<(), BoxError> {
        let before = self.client.get_fresh(page).await?;
        let cached = self.client.get(page).await?;
        let after = self.client.get_fresh(page).await?;
        if (before.status, &before.body) != (after.status, &after.body) {
            self.findings.inconclusive += 1;
            return Ok(());
        }
        self.findings.compared += 1;
        if (cached.status, &cached.body) != (after.status, &after.body) {
            self.findings.stale.push(page.to_owned());
        }
        Ok(())
    }

    /// What was found so far.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// A change through the API: acknowledged when it answers, if the cache was there to be told.
    async fn api(&mut self, path: &str, body: serde_json::Value) -> Result<(), BoxError> {
        let reply = self.client.post(path, &body).await?;
        match reply.status.is_success() {
            true => Ok(()),
            false => Err(format!("{path}: {} {}", reply.status, reply.json()).into()),
        }
    }

    /// A change by `psql`: acknowledged when the outbox has forgotten its transaction.
    async fn psql(&self, sql: String) -> Result<(), BoxError> {
        let xid = self
            .run_psql(format!("{sql}; SELECT pg_current_xact_id()"))
            .await?;
        if !self.captured {
            return Ok(());
        }
        let waits = format!("SELECT EXISTS (SELECT FROM mcache.outbox WHERE xid = '{xid}'::xid8)");
        let began = Instant::now();
        while self.run_psql(waits.clone()).await? != "f" {
            if began.elapsed() > PATIENCE {
                return Err(format!("{sql}: not acknowledged in {PATIENCE:?}").into());
            }
        }
        Ok(())
    }

    async fn run_psql(&self, sql: String) -> Result<String, BoxError> {
        let servers = self.servers.clone();
        Ok(tokio::task::spawn_blocking(move || servers.postgres.try_psql(&sql)).await??)
    }
}

/// A list of everything only the back office changes.
fn reserved_list() -> String {
    let ids: Vec<String> = (1..=RESERVED).map(|n| format!("prod_{n}")).collect();
    format!(
        "/store/products?limit=100&region_id=reg_eu&id={}",
        ids.join(",")
    )
}
