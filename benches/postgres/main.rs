//! `make bench-postgres`: what capturing changes costs those who write, with no consumer, one, and ten.
//!
//! Three databases of one server hold the same table: one without an outbox, one whose changes one consumer is told of,
//! one whose changes ten are. Four connections write to one of them at a time, in turns, so that other work of the
//! machine hits all three. Beside commits a second stands the processor time of the server's processes, which such a
//! machine does not change: of those that write, and of those that consumers read with.

#[allow(dead_code, reason = "shared with server-bench, which uses all of it")]
#[path = "../server/results.rs"]
mod results;

use std::error::Error;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::Postgres;
use mcache::change::{BoxError, BoxFuture, ChangeEvent, InvalidationTarget, Invalidator};
use mcache_graph::{Entity, Field, Schema};
use mcache_postgres::{Mapping, Outbox};
use results::{Goal, Part};
use tokio_postgres::{Client, Config, NoTls};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Databases, and how many consumers each has.
const SIDES: [(&str, usize); 3] = [("none", 0), ("one", 1), ("ten", 10)];

/// Turns of each, and how long one lasts.
const ROUNDS: usize = 9;
const TURN: Duration = Duration::from_millis(1_500);

const WRITERS: usize = 4;

/// Ticks of `/proc/*/stat` in a second, on every Linux.
const TICKS: f64 = 100.0;

#[tokio::main]
async fn main() -> Result<()> {
    let mut part = Part::new(
        "Commits with capture",
        "make bench-postgres",
        "Four connections update and insert single rows of a table of eight columns, five of them captured, each statement a \
         commit. Consumers run in the process that writes, and read over connections of their own. Ratios of commits a \
         second are medians over nine rounds in turns; processor time is that of PostgreSQL's processes, per commit, medians.",
    );
    let mut version = String::new();
    for (name, fsync) in [("to memory (fsync off)", "off"), ("to the disk", "on")] {
        version = compare(&mut part, name, fsync).await?;
    }
    part.write_on(&version);
    Ok(())
}

/// One server; its version.
async fn compare(part: &mut Part, name: &str, fsync: &str) -> Result<String> {
    let settings = [("fsync", fsync), ("max_connections", "200")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let postgres = tokio::task::spawn_blocking(move || {
        let settings: Vec<(&str, &str)> = settings.iter().map(|(n, v)| (&**n, &**v)).collect();
        Postgres::start_with(&settings)
    })
    .await?;
    let mut sides = Vec::new();
    for (database, consumers) in SIDES {
        postgres.psql(&format!("CREATE DATABASE {database}"));
        sides.push(Side::prepare(&postgres, database, consumers).await?);
    }
    // Statements are prepared, pages are there.
    for side in &mut sides {
        side.turn().await?;
    }
    let mut measured: [Vec<Turn>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (side, measured) in sides.iter_mut().zip(&mut measured) {
            measured.push(side.turn().await?);
        }
    }
    let [none, one, ten] = &measured;
    let rate = |turns: &[Turn]| median(turns.iter().map(|turn| turn.rate));
    let cpu = |turns: &[Turn]| median(turns.iter().map(|turn| turn.writers_us));
    let readers = |turns: &[Turn]| median(turns.iter().map(|turn| turn.others_us));
    for (what, turns, goal) in [("one consumer", one, 0.6), ("ten consumers", ten, 0.55)] {
        part.add(
            format!("commits a second {name}, {what} / no capture"),
            format!("{:.0} / {:.0} a second", rate(turns), rate(none)),
            median(
                turns
                    .iter()
                    .zip(none)
                    .map(|(with, without)| with.rate / without.rate),
            ),
            Goal::AtLeast(goal),
        );
    }
    for (what, turns) in [("one consumer", one), ("ten consumers", ten)] {
        part.add(
            format!("processor time of a commit {name}, {what} / no capture"),
            format!(
                "writers {:.0} / {:.0} us, consumers' connections {:.0} us a commit",
                cpu(turns),
                cpu(none),
                readers(turns)
            ),
            cpu(turns) / cpu(none),
            Goal::None,
        );
    }
    Ok(format!(
        "PostgreSQL {}",
        postgres.psql("SHOW server_version")
    ))
}

/// What one turn took.
struct Turn {
    /// Commits a second.
    rate: f64,
    /// Processor time of the writers' server processes, and of all others of the database, per commit.
    writers_us: f64,
    others_us: f64,
}

/// A database, those who write to it and those who are told.
struct Side {
    writers: Vec<Client>,
    pids: Vec<i32>,
    watch: Client,
    written: u64,
    invalidators: Vec<Invalidator>,
}

impl Side {
    async fn prepare(postgres: &Postgres, database: &str, consumers: usize) -> Result<Self> {
        let mut config: Config = postgres.conninfo().parse()?;
        config.dbname(database);
        let watch = connect(&config).await?;
        watch
            .batch_execute(
                "CREATE TABLE product (id bigint PRIMARY KEY, title text, handle text, price numeric, stocked int,
                   metadata jsonb, created_at timestamptz DEFAULT now(), updated_at timestamptz);
                 INSERT INTO product SELECT -i, 'title ' || i, 'handle-' || i, i, i FROM generate_series(1, 1000) AS i",
            )
            .await?;
        let mut invalidators = Vec::new();
        for number in 0..consumers {
            let outbox = Outbox::new(mapping()?, format!("consumer {number}"));
            outbox.install_with(config.clone(), NoTls).await?;
            let tags = |event: &ChangeEvent| -> std::result::Result<Vec<String>, BoxError> {
                Ok(event.ids.clone())
            };
            let builder = Invalidator::builder(outbox.source(config.clone(), NoTls), tags);
            invalidators.push(builder.target(Arc::new(Obedient)).spawn());
        }
        let (mut writers, mut pids) = (Vec::new(), Vec::new());
        for _ in 0..WRITERS {
            let writer = connect(&config).await?;
            pids.push(
                writer
                    .query_one("SELECT pg_backend_pid()", &[])
                    .await?
                    .get(0),
            );
            writers.push(writer);
        }
        Ok(Self {
            writers,
            pids,
            watch,
            written: 0,
            invalidators,
        })
    }

    async fn turn(&mut self) -> Result<Turn> {
        let (writers_before, others_before) = self.ticks().await?;
        let began = Instant::now();
        let first = self.written;
        let turns =
            self.writers
                .iter()
                .enumerate()
                .map(async |(place, writer)| {
                    let insert = writer
                .prepare("INSERT INTO product (id, title, price, stocked) VALUES ($1, 'new', 1, 1)")
                .await?;
                    let update = writer
                .prepare("UPDATE product SET price = price + 1, updated_at = now() WHERE id = $1")
                .await?;
                    let mut commits = 0_u64;
                    while began.elapsed() < TURN {
                        let number =
                            i64::try_from(first + commits)? * WRITERS as i64 + place as i64;
                        // Three updates of what was there to one insert.
                        match commits % 4 {
                            0 => writer.execute(&insert, &[&number]).await?,
                            _ => writer.execute(&update, &[&(-1 - number % 1_000)]).await?,
                        };
                        commits += 1;
                    }
                    Ok::<u64, Box<dyn Error>>(commits)
                });
        let commits = futures_util::future::try_join_all(turns).await?;
        let seconds = began.elapsed().as_secs_f64();
        let all: u64 = commits.iter().sum();
        self.written += commits.iter().max().copied().unwrap_or(0) + 1;
        // What consumers have still to read belongs to this turn.
        self.until_told().await?;
        let (writers_after, others_after) = self.ticks().await?;
        let per_commit = |ticks: u64| ticks as f64 / TICKS * 1e6 / all as f64;
        Ok(Turn {
            rate: all as f64 / seconds,
            writers_us: per_commit(writers_after - writers_before),
            others_us: per_commit(others_after.saturating_sub(others_before)),
        })
    }

    async fn until_told(&self) -> Result<()> {
        if self.invalidators.is_empty() {
            return Ok(());
        }
        let waiting = "SELECT count(*) FROM mcache.outbox";
        loop {
            let waiting: i64 = self.watch.query_one(waiting, &[]).await?.get(0);
            if waiting == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Processor time so far of the processes that serve the writers, and of all others of the database but ours.
    async fn ticks(&self) -> Result<(u64, u64)> {
        let pids = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let (mut writers, mut others) = (0, 0);
        for row in self.watch.query(pids, &[]).await? {
            let pid: i32 = row.get(0);
            match self.pids.contains(&pid) {
                true => writers += ticks(pid),
                false => others += ticks(pid),
            }
        }
        Ok((writers, others))
    }
}

/// User and system time of a process.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let fields = after_name.split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// A cache that has done what it is told.
struct Obedient;

impl InvalidationTarget for Obedient {
    fn name(&self) -> &str {
        "obedient"
    }

    fn invalidate_auto<'a>(
        &'a self,
        _tags: &'a [&'a [u8]],
    ) -> BoxFuture<'a, std::result::Result<(), BoxError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn invalidate_auto_all(&self) -> BoxFuture<'_, std::result::Result<(), BoxError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

fn mapping() -> Result<Arc<Mapping>> {
    let product = Entity::new("Product")
        .id_type(mcache_graph::FieldType::Integer)
        .fields(["title", "handle"])
        .field(Field::number("price"))
        .field(Field::integer("stocked"));
    let schema = Schema::builder().entity(product).build()?;
    Ok(Arc::new(Mapping::builder(schema.into()).build()?))
}

async fn connect(config: &Config) -> Result<Client> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
