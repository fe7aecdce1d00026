//! `make releases`: two services on one database, one of which is released and rolled back while both run.
//!
//! Starts a PostgreSQL and a Redis with the module of its own. After each statement it asks every running process each
//! of its queries, twice: through its cache, and past it. It prints what was still cached, what had been cleared, and
//! how many answers differed. It ends with status 1 if one did.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Postgres, Server};
use mcache::change::Invalidator;
use mcache::{Cache, Source};
use mcache_graph::{Entity, Field, Graph, GraphOptions, GraphQuery, Relation, Schema};
use mcache_postgres::{Mapping, Outbox, PostgresResolver};
use serde_json::json;
use tokio_postgres::{Client, Config, NoTls};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long a change may take to be acknowledged before the example gives up.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("releases: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<usize> {
    let (postgres, redis) = tokio::task::spawn_blocking(|| {
        let redis = Server::builder().tcp().apart_from_terminal().start();
        (Postgres::start(), redis)
    })
    .await?;
    show(&redis.url(), &postgres.conninfo(), &mut io::stdout()).await
}

const TABLES: &str = "
    CREATE TABLE product (id text PRIMARY KEY, title text, price numeric, stocked int);
    CREATE TABLE review (id text PRIMARY KEY, product_id text, stars int);
    INSERT INTO product VALUES ('p1', 'Red shirt', 10, 3), ('p2', 'Blue shirt', 12, 0);";

/// Everything there is to see; the number of stale answers.
///
/// # Errors
///
/// When a server cannot be reached, or a change is not acknowledged in time.
pub async fn show(redis: &str, database: &str, out: &mut impl Write) -> Result<usize> {
    let (client, connection) = database.parse::<Config>()?.connect(NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute(TABLES).await?;
    let start = |service: Service, number| Process::start(redis, database, service, number);
    let mut street = Street {
        client,
        running: Vec::new(),
        stale: 0,
        compared: 0,
        out,
    };

    street.says("Release 1 of both services. Each reads one table through a schema of its own, into a namespace of its own.")?;
    street.add(start(Service::Shop, 1).await?);
    street.add(start(Service::Stock, 1).await?);
    street.compare().await?;
    street
        .run("UPDATE product SET stocked = 2 WHERE id = 'p1'")
        .await?;
    street
        .run("UPDATE product SET price = 11 WHERE id = 'p1'")
        .await?;

    street.says("Release 2 of shop begins beside release 1: it knows prices and reviews. That more is recorded counts once as a change of the table.")?;
    street.add(start(Service::Shop, 2).await?);
    street.compare().await?;
    street
        .run("UPDATE product SET price = 12 WHERE id = 'p1'")
        .await?;
    street
        .run("INSERT INTO review VALUES ('r1', 'p1', 5)")
        .await?;
    street
        .run("UPDATE product SET title = 'Crimson shirt' WHERE id = 'p1'")
        .await?;

    street.says("Release 1 of shop ends. What it is not told of waits for it.")?;
    street.end("shop 1");
    street.run("DELETE FROM product WHERE id = 'p2'").await?;
    street
        .run("SELECT mcache.invalidate(ARRAY['sale banner'])")
        .await?;

    street.says("Rolled back: release 1 begins again and is told first, release 2 ends.")?;
    street.add(start(Service::Shop, 1).await?);
    street.compare().await?;
    street.end("shop 2");
    street
        .run("INSERT INTO product VALUES ('p3', 'Green shirt', 9, 1)")
        .await?;

    let (stale, compared) = (street.stale, street.compared);
    writeln!(
        street.out,
        "\n{compared} answers of caches compared with the database, {stale} stale"
    )?;
    Ok(stale)
}

#[derive(Clone, Copy, Debug)]
enum Service {
    Shop,
    Stock,
}

/// One process of one release of a service.
struct Process {
    name: String,
    graph: Graph,
    outbox: Outbox,
    queries: Vec<(&'static str, GraphQuery)>,
    _invalidator: Invalidator,
}

impl Process {
    /// What a process of an application does at its start.
    async fn start(redis: &str, database: &str, service: Service, number: u32) -> Result<Self> {
        let config: Config = database.parse()?;
        let namespace = match service {
            Service::Shop => "shop",
            Service::Stock => "stock",
        };
        let cache = Cache::builder(redis)
            .namespace(namespace)
            .caching(true)
            .build()
            .await?;
        let mapping = Arc::new(Mapping::builder(schema(service, number)?.into()).build()?);
        let resolver = PostgresResolver::new(config.clone(), NoTls, mapping.clone())?;
        let graph = Graph::builder(mapping.schema().clone(), resolver)
            .cache(cache.clone())
            .build();
        let outbox = Outbox::new(mapping, &cache);
        // Makes sure that what this release needs is captured; takes nothing from another release.
        outbox.install_with(config.clone(), NoTls).await?;
        let source = outbox.source(config, NoTls);
        let invalidator = Invalidator::builder(source, graph.change_tags())
            .targets(cache.invalidation_targets())
            .spawn();
        Ok(Self {
            name: format!("{namespace} {number}"),
            graph,
            outbox,
            queries: queries(service, number),
            _invalidator: invalidator,
        })
    }
}

fn schema(service: Service, number: u32) -> Result<Schema> {
    let product = Entity::new("Product");
    let schema = match (service, number) {
        (Service::Stock, _) => Schema::builder().entity(product.field(Field::integer("stocked"))),
        (Service::Shop, 1) => Schema::builder().entity(product.field("title")),
        (Service::Shop, _) => Schema::builder()
            .entity(
                product
                    .field("title")
                    .field(Field::number("price"))
                    .relation(Relation::has_many("reviews", "Review", "product_id")),
            )
            .entity(
                Entity::new("Review")
                    .field("product_id")
                    .field(Field::integer("stars")),
            ),
    };
    Ok(schema.build()?)
}

fn queries(service: Service, number: u32) -> Vec<(&'static str, GraphQuery)> {
    let all = || GraphQuery::new("product");
    let one = || all().filters(json!({ "id": "p1" }));
    match (service, number) {
        (Service::Stock, _) => vec![
            ("p1's stock", one().fields(["stocked"])),
            (
                "what is sold out",
                all().filters(json!({ "stocked": 0 })).fields(["id"]),
            ),
        ],
        (Service::Shop, 1) => vec![
            ("p1's title", one().fields(["title"])),
            ("all titles", all().fields(["title"])),
        ],
        (Service::Shop, _) => vec![
            ("p1's title", one().fields(["title"])),
            ("all titles", all().fields(["title"])),
            ("p1's price", one().fields(["price"])),
            ("p1's reviews", one().fields(["reviews.stars"])),
        ],
    }
}

/// The processes that run, and what is said of them.
struct Street<'a, W> {
    client: Client,
    running: Vec<Process>,
    stale: usize,
    compared: usize,
    out: &'a mut W,
}

impl<W: Write> Street<'_, W> {
    fn says(&mut self, what: &str) -> Result<()> {
        Ok(writeln!(self.out, "\n{what}")?)
    }

    fn add(&mut self, process: Process) {
        self.running.push(process);
    }

    /// Ends a process as a signal would.
    fn end(&mut self, name: &str) {
        self.running.retain(|process| process.name != name);
    }

    async fn run(&mut self, statement: &str) -> Result<()> {
        self.client.batch_execute(statement).await?;
        writeln!(self.out, "  {statement}")?;
        self.compare().await
    }

    /// Waits until every process that runs has acknowledged all committed changes.
    async fn settle(&self) -> Result<()> {
        let began = Instant::now();
        // A change for every consumer: behind it a process that had something to clear at its start has done that, too.
        let mark = "SELECT mcache.invalidate(ARRAY['mark'])";
        self.client.batch_execute(mark).await?;
        for process in &self.running {
            let name = process.outbox.consumer_name();
            loop {
                let status = process.outbox.status(&self.client).await?;
                let waits = |consumer: &&mcache_postgres::ConsumerStatus| {
                    consumer.name == name && consumer.events > 0
                };
                if !status.consumers.iter().any(|consumer| waits(&consumer)) {
                    break;
                }
                if began.elapsed() > PATIENCE {
                    return Err(format!("{} does not acknowledge a change", process.name).into());
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        Ok(())
    }

    /// Asks every process each of its queries, through its cache and past it.
    async fn compare(&mut self) -> Result<()> {
        self.settle().await?;
        for process in &self.running {
            let (mut kept, mut anew) = (Vec::new(), Vec::new());
            for (what, query) in &process.queries {
                let served = process.graph.serve(query, &GraphOptions::cached()).await?;
                let fresh = process.graph.load(query, &GraphOptions::default()).await?;
                self.compared += 1;
                self.stale += usize::from(served.value.data != fresh.into_result().data);
                match served.source {
                    Source::Hit => kept.push(*what),
                    _ => anew.push(*what),
                }
            }
            let list = |queries: &[&str]| match queries {
                [] => "-".to_owned(),
                some => some.join(", "),
            };
            writeln!(
                self.out,
                "    {:8} still cached: {:48} made anew: {}",
                process.name,
                list(&kept),
                list(&anew)
            )?;
        }
        // What waits for those who are not there.
        let Some(process) = self.running.first() else {
            return Ok(());
        };
        for consumer in process.outbox.status(&self.client).await?.consumers {
            let runs = |process: &Process| process.outbox.consumer_name() == consumer.name;
            if !self.running.iter().any(runs) && consumer.events > 0 {
                writeln!(
                    self.out,
                    "    {} changes wait for a consumer that is away",
                    consumer.events
                )?;
            }
        }
        Ok(())
    }
}
