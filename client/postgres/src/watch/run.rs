//! What the program does once it knows its file: check, install, watch until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use mcache::change::{Backoff, BoxError, InvalidationTarget, Invalidator, InvalidatorStats};
use mcache::server::RedisOptions;
use mcache::{ErrorKind, Provider, RedisProvider};
use mcache_postgres::{Outbox, PostgresError};
use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;

use super::database::{Access, AccessError, causes, columns};
use super::file::{File, FileError};
use super::plan::{Columns, Plan, PlanError};
use super::target::Prefixed;

/// How often it is looked whether tables have other columns than at the start.
const LOOK_AT_COLUMNS: Duration = Duration::from_secs(5);
/// How often the log says how it goes, if anything happened.
const REPORT: Duration = Duration::from_secs(60);
/// A change that waits for longer is worth a warning.
const LAG_MAX: Duration = Duration::from_secs(5);
/// How long the end waits for what is under way.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an attempt to reach the database may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Why it cannot go on, or does not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("{}", causes(.0))]
    Plan(#[from] PlanError),
    #[error("the database: {}", causes(.0))]
    Database(tokio_postgres::Error),
    #[error("the database did not answer in {} s", CONNECT.as_secs())]
    Silent,
    #[error("the database: {}", causes(.0))]
    Capture(#[from] PostgresError),
    #[error("the cache: {0}")]
    Cache(#[from] mcache::Error),
    #[error("the cache: {0}")]
    Away(BoxError),
    #[error(
        "{0} batches of changes were not yet acknowledged; they wait in the database and come again at the next start"
    )]
    Unfinished(usize),
}

impl WatchError {
    /// Whether it may pass by itself: the server is not there yet, or is busy.
    fn may_pass(&self) -> bool {
        match self {
            Self::Silent | Self::Away(_) => true,
            Self::Database(error) => error
                .as_db_error()
                .is_none_or(|said| may_pass(said.code().code())),
            Self::Capture(PostgresError::Sql { cause, .. }) => cause
                .as_db_error()
                .is_none_or(|said| may_pass(said.code().code())),
            Self::Capture(PostgresError::Timeout { .. }) => true,
            _ => false,
        }
    }
}

/// Connections, resources, the operator's hand, locks, serialization; not what is wrong with rights, names or syntax.
fn may_pass(code: &str) -> bool {
    ["08", "53", "55", "57", "40"]
        .iter()
        .any(|class| code.starts_with(class))
}

/// Whether there is no outbox, as far as this role can tell.
fn is_missing(error: &PostgresError) -> bool {
    let PostgresError::Sql { cause, .. } = error else {
        return false;
    };
    let missing = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
    cause.code().is_some_and(|code| missing.contains(code))
}

/// One watcher.
pub(crate) struct Watch {
    file: File,
    access: Access,
    redis: Arc<Prefixed>,
    /// The cache's address and prefix: the name of the consumer, unless the file has one.
    name: String,
}

impl Watch {
    /// Reads addresses; asks no server.
    pub(crate) fn new(file: File) -> Result<Self, WatchError> {
        let access = Access::new(&file, file.database_url()?)?;
        let redis = connection(&file)?;
        let name = file.name.clone();
        let name = name.unwrap_or_else(|| format!("{}@{}", file.cache.prefix, redis.place()));
        let redis = Arc::new(Prefixed::new(
            redis,
            &file.cache.prefix,
            &file.cache.everything,
        ));
        Ok(Self {
            file,
            access,
            redis,
            name,
        })
    }

    /// Looks whether everything is there, and says what would be watched; changes nothing.
    pub(crate) async fn check(&self) -> Result<Vec<String>, WatchError> {
        let (plan, _) = self.plan().await?;
        connection(&self.file)?.ping().await?;
        let mut said = plan.rules.describe(&self.file);
        let outbox = self.outbox(&plan);
        let connected = self.connect().await?;
        let name = outbox.consumer_name();
        said.push(match outbox.status(&connected.client).await {
            Ok(status) => match status
                .consumers
                .into_iter()
                .find(|consumer| consumer.name == name)
            {
                Some(consumer) if consumer.expired => {
                    format!("{name}: away for so long that it will clear everything at its start")
                }
                Some(consumer) => format!(
                    "{name}: {} changes wait, the oldest for {} ms",
                    consumer.events, consumer.oldest_ms
                ),
                None => format!(
                    "{name}: not known to the database yet; {}",
                    self.who_installs()
                ),
            },
            Err(error) if is_missing(&error) => format!(
                "{name}: nothing is installed in this database yet; {}",
                self.who_installs()
            ),
            Err(error) => return Err(error.into()),
        });
        Ok(said)
    }

    fn who_installs(&self) -> &'static str {
        match self.file.database.install {
            true => "the start does it",
            false => "install = false: run mcache-watch --install as the owner of the tables",
        }
    }

    /// Installs the capture and ends: for a role that may, where the watcher's own may not.
    pub(crate) async fn install(&self) -> Result<usize, WatchError> {
        let (plan, _) = self.plan().await?;
        self.install_plan(&plan).await?;
        Ok(self.file.tables.len())
    }

    /// Watches until `stop` ends.
    pub(crate) async fn run(
        &self,
        stop: impl Future<Output = &'static str>,
    ) -> Result<(), WatchError> {
        let mut stop = std::pin::pin!(stop);
        match connection(&self.file)?.ping().await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::ModuleMissing => return Err(error.into()),
            Err(error) => {
                tracing::warn!("the cache cannot be reached: {error}; changes wait until it can")
            }
        }
        let mut known: Option<Vec<Option<Columns>>> = None;
        loop {
            let begun = tokio::select! {
                begun = self.begin(known.as_deref()) => begun?,
                why = &mut stop => {
                    tracing::info!("{why}: stopped before watching began");
                    return Ok(());
                }
            };
            let (plan, invalidator, now) = begun;
            tracing::info!(
                "watching {} tables for {} as {}",
                self.file.tables.len(),
                self.redis.name(),
                self.outbox(&plan).consumer_name()
            );
            let ended = tokio::select! {
                () = self.until_columns_differ(&now) => None,
                () = report(&invalidator) => None,
                why = &mut stop => Some(why),
            };
            let stats = invalidator.stats();
            let unfinished = invalidator.shutdown(PATIENCE).await.err();
            if let Some(why) = ended {
                tracing::info!("{why}: stopped after {} changes", stats.events);
                return match unfinished {
                    Some(unfinished) => Err(WatchError::Unfinished(unfinished.batches)),
                    None => Ok(()),
                };
            }
            match self.file.database.install {
                true => tracing::info!(
                    "tables have other columns than at the start; the capture is made anew"
                ),
                false => tracing::warn!(
                    "tables have other columns than at the start; everything is cleared again and again until \
                     mcache-watch --install has run as their owner"
                ),
            }
            known = Some(now);
        }
    }

    /// Installs and begins to watch, as often as it takes while the database is away.
    async fn begin(
        &self,
        before: Option<&[Option<Columns>]>,
    ) -> Result<(Plan, Invalidator, Vec<Option<Columns>>), WatchError> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            match self.try_to_begin(before).await {
                Err(error) if error.may_pass() => {
                    tracing::warn!("{error}; trying again");
                    sleep(backoff.after_failure(fastrand::f64())).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_to_begin(
        &self,
        before: Option<&[Option<Columns>]>,
    ) -> Result<(Plan, Invalidator, Vec<Option<Columns>>), WatchError> {
        let (plan, now) = self.plan().await?;
        if self.file.database.install {
            self.install_plan(&plan).await?;
        }
        if let Some(before) = before {
            // What was written into a new column before it was captured is not known.
            let differ = before.iter().zip(&now).zip(&self.file.tables);
            let differ = differ
                .filter(|((before, now), _)| before != now)
                .map(|(_, table)| table);
            let tags: Vec<String> = differ.flat_map(|table| plan.rules.of_any(table)).collect();
            let named: Vec<&[u8]> = tags.iter().map(String::as_bytes).collect();
            self.redis
                .invalidate_auto(&named)
                .await
                .map_err(WatchError::Away)?;
        }
        let source = self.access.source(&self.outbox(&plan));
        let invalidator = Invalidator::builder(source, plan.rules.clone())
            .target(self.redis.clone())
            .spawn();
        Ok((plan, invalidator, now))
    }

    async fn plan(&self) -> Result<(Plan, Vec<Option<Columns>>), WatchError> {
        let connected = self.connect().await?;
        let columns = columns(&connected.client, &self.file)
            .await
            .map_err(WatchError::Database)?;
        Ok((Plan::new(&self.file, &columns)?, columns))
    }

    async fn connect(&self) -> Result<super::database::Connected, WatchError> {
        match tokio::time::timeout(CONNECT, self.access.connect()).await {
            Ok(connected) => connected.map_err(WatchError::Database),
            Err(_elapsed) => Err(WatchError::Silent),
        }
    }

    fn outbox(&self, plan: &Plan) -> Outbox {
        let hold = Duration::from_secs(u64::from(self.file.database.hold_hours) * 3600);
        Outbox::new(plan.mapping.clone(), self.name.as_str())
            .schema(&self.file.database.capture_in)
            .hold(hold)
    }

    async fn install_plan(&self, plan: &Plan) -> Result<(), WatchError> {
        Ok(self.access.install(&self.outbox(plan)).await?)
    }

    /// Ends when a table has other columns than these, or is gone or back.
    async fn until_columns_differ(&self, known: &[Option<Columns>]) {
        let mut connected = None;
        loop {
            sleep(LOOK_AT_COLUMNS).await;
            if connected.is_none() {
                connected = self.connect().await.ok();
            }
            let Some(of) = &connected else { continue };
            match tokio::time::timeout(CONNECT, columns(&of.client, &self.file)).await {
                // A table that is gone for a moment is being replaced; without it no plan can be made.
                Ok(Ok(now)) if now.iter().all(Option::is_some) && now != known => return,
                Ok(Ok(_)) => {}
                _ => connected = None,
            }
        }
    }
}

fn connection(file: &File) -> Result<RedisProvider, WatchError> {
    let options = RedisOptions::default()
        .id("cache")
        .client_name("mcache-watch");
    Ok(RedisProvider::new(file.cache_url()?, options)?)
}

/// Says from time to time how it goes; never ends.
async fn report(invalidator: &Invalidator) {
    let mut last = InvalidatorStats::default();
    let mut due = Instant::now() + REPORT;
    let mut lags = false;
    loop {
        sleep(Duration::from_secs(1)).await;
        let stats = invalidator.stats();
        if (stats.lag > LAG_MAX) != lags {
            lags = !lags;
            match lags {
                true => tracing::warn!(
                    "changes wait to be invalidated, the oldest for {:.1} s",
                    stats.lag.as_secs_f64()
                ),
                false => tracing::info!("no change waits any more"),
            }
        }
        if Instant::now() >= due {
            due = Instant::now() + REPORT;
            if stats.events != last.events {
                let tags = |stats: &InvalidatorStats| {
                    stats.targets.iter().map(|target| target.tags).sum::<u64>()
                };
                tracing::info!(
                    "{} changes became {} tags; the slowest took {} ms so far",
                    stats.events - last.events,
                    tags(&stats) - tags(&last),
                    stats.max_latency.as_millis()
                );
            }
            last = stats;
        }
    }
}
