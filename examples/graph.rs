//! A graph query that stays cached until its data changes, also when another program changes it: here, `psql`.
//!
//! With a Redis that has the module and a PostgreSQL database to play in:
//! `REDIS_URL=redis://127.0.0.1:6379 DATABASE_URL=postgresql:///play cargo run -p mcache-examples --bin graph`

use std::{env, error::Error, io, io::Write, process::Command, sync::Arc, time::Duration};

use mcache::change::Invalidator;
use mcache::{Cache, Source};
use mcache_graph::{Entity, Graph, GraphOptions, GraphQuery, Relation, Schema};
use mcache_postgres::{Mapping, Outbox, PostgresResolver};
use tokio_postgres::{Config, NoTls};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let named =
        |name| env::var(name).map_err(|_| format!("{name} is not set: see the top of this file"));
    let (redis, database) = (named("REDIS_URL")?, named("DATABASE_URL")?);
    let mut out = io::stdout();
    let shown = show(&redis, &database, &mut out);
    // Without a Redis that answers nothing is ever cached, and the example would wait for ever.
    tokio::time::timeout(Duration::from_secs(30), shown).await?
}

/// What the README quotes: everything an application needs.
pub async fn show(redis: &str, database: &str, out: &mut impl Write) -> Result<()> {
    psql(database, TABLES)?;
    let config: Config = database.parse()?;

    // The data model; each entity is stored in the table of its name.
    let variants = Relation::has_many("variants", "ProductVariant", "product_id");
    let schema = Schema::builder()
        .entity(Entity::new("Product").field("title").relation(variants))
        .entity(Entity::new("ProductVariant").fields(["sku", "product_id"]))
        .build()?;
    let mapping = Arc::new(Mapping::builder(schema.into()).build()?);

    // Queries over it, cached in Redis.
    let cache = Cache::builder(redis).caching(true).build().await?;
    let resolver = PostgresResolver::new(config.clone(), NoTls, mapping.clone())?;
    let graph = Graph::builder(mapping.schema().clone(), resolver)
        .cache(cache.clone())
        .build();

    // Changes by any program are captured in the database, and what was made from them is invalidated.
    let outbox = Outbox::new(mapping, &cache);
    outbox.install_with(config.clone(), NoTls).await?;
    let source = outbox.source(config, NoTls);
    let _invalidator = Invalidator::builder(source, graph.change_tags())
        .targets(cache.invalidation_targets())
        .spawn();

    let query = GraphQuery::new("product").fields(["title", "variants.sku"]);
    for statement in STATEMENTS {
        psql(database, statement)?;
        writeln!(out, "{statement}")?;
        // The first answer after a change is made anew, the next one comes from the cache.
        for expected in [Source::Loaded, Source::Hit] {
            let mut served = graph.serve(&query, &GraphOptions::cached()).await?;
            while served.source != expected {
                tokio::time::sleep(Duration::from_millis(1)).await;
                served = graph.serve(&query, &GraphOptions::cached()).await?;
            }
            let data = serde_json::to_string(&served.value.data)?;
            writeln!(out, "  {}: {data}", served.source.as_str())?;
        }
    }
    Ok(())
}

const TABLES: &str = "
    CREATE TABLE product (id text PRIMARY KEY, title text);
    CREATE TABLE product_variant (id text PRIMARY KEY, sku text, product_id text);
    INSERT INTO product VALUES ('p1', 'Red shirt');";

const STATEMENTS: [&str; 3] = [
    "INSERT INTO product_variant VALUES ('v1', 'SHIRT-S', 'p1')",
    "UPDATE product SET title = 'Blue shirt'",
    "DELETE FROM product_variant",
];

fn psql(database: &str, statement: &str) -> Result<()> {
    let ended = Command::new("psql")
        .args(["--quiet", "--set=ON_ERROR_STOP=1", database, "--command"])
        .arg(statement)
        .status()?;
    if ended.success() {
        return Ok(());
    }
    Err(format!("psql, {statement}: {ended}").into())
}
