//! The page at `/`: the table, filling while a built-in load runs against a store without the cache, one with it and
//! one with a near cache as well.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::response::Html;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use storefront_load::{Mix, PUBLISHED, Recorder, Visitor};
use tokio::task::JoinSet;

use crate::reads::Totals;
use crate::serve::Server;
use crate::servers::Servers;

const PAGE: &str = include_str!("page.html");

/// Between two visits of one visitor: the page is to be alive, not the machine to be busy.
const VISITOR_RESTS: Duration = Duration::from_millis(100);

/// What the page shows.
#[derive(Clone)]
pub struct Live {
    servers: Arc<Servers>,
    off: Recorder,
    on: Recorder,
    near: Recorder,
    /// What the stores with the cache and with a near cache count themselves, once they are there.
    reads: Arc<OnceLock<[Totals; 2]>>,
}

impl Live {
    /// A page without figures yet.
    pub fn new(servers: Arc<Servers>) -> Self {
        Self {
            servers,
            off: Recorder::default(),
            on: Recorder::default(),
            near: Recorder::default(),
            reads: Arc::default(),
        }
    }

    /// The page, and `/live.json` which it asks.
    pub fn router(&self) -> Router {
        let live = self.clone();
        Router::new()
            .route("/", get(async || Html(PAGE)))
            .route("/live.json", get(async move || Json(live.figures().await)))
    }

    /// Sends one visitor at a time to each store, with the same wishes, until it is dropped. One visit in three orders.
    pub fn visitors(&self, off: &Server, on: &Server, near: &Server) -> JoinSet<()> {
        let products = on.store.config.products;
        self.reads
            .get_or_init(|| [on.totals.clone(), near.totals.clone()]);
        let mix = Mix {
            name: "live",
            orders_percent: 33,
            pages: 3,
        };
        let mut visitors = JoinSet::new();
        for (address, recorder) in [
            (off.address, &self.off),
            (on.address, &self.on),
            (near.address, &self.near),
        ] {
            let recorder = recorder.clone();
            visitors.spawn(async move {
                for number in 0.. {
                    let mut visitor = Visitor::new(address, recorder.clone(), number, products);
                    // What fails is recorded; the next visitor tries again.
                    if let Err(error) = visitor.visit(mix).await {
                        tracing::warn!(%error, "a visit ended early");
                    }
                    tokio::time::sleep(VISITOR_RESTS).await;
                }
            });
        }
        visitors
    }

    async fn figures(&self) -> Value {
        let rows: Vec<Value> = PUBLISHED
            .iter()
            .map(|known| {
                let recorders = [&self.off, &self.on, &self.near];
                let [off, on, near] = recorders.map(|recorder| recorder.figures(known.endpoint));
                let totals = self.reads.get();
                let reads = totals.map(|totals| totals.each_ref().map(|it| it.of(known.endpoint)));
                let [reads, near_reads] = reads.unwrap_or_default();
                json!({
                    "endpoint": known.endpoint, "published": known.saved_percent, "requests": on.requests,
                    "off_p50_ms": off.p50_ms, "on_p50_ms": on.p50_ms, "near_p50_ms": near.p50_ms, "off_p95_ms": off.p95_ms,
                    "on_p95_ms": on.p95_ms, "near_p95_ms": near.p95_ms, "reads": reads.reads, "read_hits": reads.hits,
                    "near_reads": near_reads.reads, "near_hits": near_reads.near,
                    "failures": off.failures + on.failures + near.failures,
                })
            })
            .collect();
        json!({ "rows": rows, "cache": self.cache_figures().await })
    }

    /// What Redis says of itself; nothing while it is away.
    async fn cache_figures(&self) -> Value {
        let servers = self.servers.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let redis = servers.redis();
            let mut session = redis.session();
            let names = [
                "entries",
                "tags",
                "hits",
                "misses",
                "invalidations",
                "entries_invalidated",
                "payload_bytes",
            ];
            let figures = names.map(|name| (name.to_owned(), json!(session.stat(name))));
            Value::Object(figures.into_iter().collect())
        });
        asked.await.unwrap_or_default()
    }
}
