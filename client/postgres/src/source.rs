//! The outbox as a source of changes.
//!
//! Owns what was handed out and not yet acknowledged, the lease, and the way back after a lost connection. It must not
//! know tags or caches.
//!
//! A row of the outbox is work to do, and deleting it is the acknowledgement: nothing else is kept, so nothing can
//! disagree with it after a crash, a restore or a failover. Transactions commit in another order than they took their
//! numbers in; reading therefore never remembers "everything up to number n is done", only which rows it has in hand,
//! and below which transaction id no row can appear any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, Row, Socket};

use mcache::change::{Batch, BoxError, BoxFuture, ChangeEvent, ChangeSource};

use super::decode;
use super::error::PostgresError;
use super::install::Outbox;
use super::pace::{AWAKE, Pace};
use super::replicas::{Position, Replicas, position};
use super::session::{Connect, Session, connector, in_time};

/// Rows of the outbox in one batch, at most.
const BATCH_MAX: i64 = 256;

/// Rows deleted by one statement, at most.
const DELETE_MAX: usize = 5_000;

/// How long the holder of the lease may be silent before another source takes over.
const LEASE: Duration = Duration::from_secs(3);

/// How often a source without the lease asks for it.
const STANDBY: Duration = Duration::from_millis(200);

/// The floor is a shortcut for what transactions write. Rows restored from a dump ignore it, so now and then it is too.
const FLOOR_LIFE: Duration = Duration::from_secs(60);

/// The changes that wait in an [`Outbox`], to be driven by an [`Invalidator`](mcache::change::Invalidator).
///
/// Several processes may each drive one: they share a lease, one of them works and the others take over when it ends,
/// at once if its connection is gone, after three seconds if it is stuck.
pub struct OutboxSource {
    outbox: Outbox,
    connect: Connect,
    backlog_max: i64,
    replicas: Option<Replicas>,
    /// Names this source in the lease.
    holder: String,
    session: Option<Session>,
    wake: Arc<Notify>,
    /// Until when nobody else takes the lease.
    leased_until: Option<Instant>,
    /// Whether the backlog was looked at since the lease was obtained.
    counted: bool,
    pace: Pace,
    /// Below this transaction id everything there is was handed out.
    floor: u64,
    floor_since: Instant,
    /// Below this one everything is in hand as one batch, until that is acknowledged.
    backlog_horizon: u64,
    /// Handed out, not yet acknowledged: transaction id and number.
    in_hand: BTreeSet<(u64, i64)>,
}

/// What acknowledges a batch of an [`OutboxSource`].
#[derive(Debug)]
pub struct OutboxReceipt {
    what: Receipt,
    /// Beyond the commit of everything in the batch.
    position: Position,
}

#[derive(Debug)]
enum Receipt {
    Rows(Vec<(u64, i64)>),
    /// Everything visible in this snapshot.
    Backlog(String),
}

impl Outbox {
    /// The changes that wait in this outbox, read over a connection of its own.
    ///
    /// The connection must be a direct one: behind a pooler that shares sessions there is no `LISTEN`, and changes are
    /// only seen each [`poll_interval`](OutboxSource::poll_interval). With several `host`s, say
    /// `target_session_attrs=read-write`: the outbox is on the primary.
    pub fn source<T>(&self, config: Config, tls: T) -> OutboxSource
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        OutboxSource {
            outbox: self.clone(),
            connect: connector(config, tls),
            backlog_max: 50_000,
            replicas: None,
            holder: format!("{:016x}", fastrand::u64(..)),
            session: None,
            wake: Arc::new(Notify::new()),
            leased_until: None,
            counted: false,
            pace: Pace::new(self.capture.notify),
            floor: 0,
            floor_since: Instant::now(),
            backlog_horizon: 0,
            in_hand: BTreeSet::new(),
        }
    }
}

impl OutboxSource {
    /// How often to look without having been woken. Default: 500 ms, or 10 ms for an outbox that does not
    /// [notify](Outbox::notify).
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.pace.idle_pause = interval;
        self
    }

    /// If more rows than this wait when the source begins, everything is invalidated at once instead of reading them.
    /// Default: 50,000.
    #[must_use]
    pub fn backlog_max(mut self, rows: u32) -> Self {
        self.backlog_max = i64::from(rows);
        self
    }

    /// Names the read replicas that fills read from: each change is invalidated a second time once they have all
    /// replayed it, which removes what was filled from a replica that had not. Default: none.
    ///
    /// Take a replica that is gone for good out of this list: it is waited for.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn read_replicas<T>(mut self, replicas: impl IntoIterator<Item = Config>, tls: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let replicas = replicas
            .into_iter()
            .map(|config| connector(config, tls.clone()));
        self.replicas = Some(Replicas::watch(replicas.collect()));
        self
    }

    /// Waits for rows. Changes nothing of `self` that matters before it returns, so it can be dropped at any point.
    async fn wait_for_rows(&mut self) -> Result<Batch<OutboxReceipt>, PostgresError> {
        loop {
            self.connect().await?;
            if !self.holds_lease().await? {
                tokio::time::sleep(STANDBY).await;
                continue;
            }
            if !self.counted {
                let backlog = self.backlog().await?;
                self.counted = true;
                if let Some(batch) = backlog {
                    return Ok(batch);
                }
            }
            if self.pace.should_tell(Instant::now()) {
                self.tell_awake().await?;
            }
            if let Some(batch) = self.read().await? {
                self.pace.found(batch.events.len(), Instant::now());
                return Ok(batch);
            }
            // Awaited after the read: a notification in between has left its permit.
            let pause = self.pace.pause(Instant::now());
            let _ = tokio::time::timeout(pause, self.wake.notified()).await;
        }
    }

    /// Makes a session if there is none, and forgets what was known of the server: it may be another one.
    async fn connect(&mut self) -> Result<(), PostgresError> {
        if self.session.is_none() {
            self.floor = self.backlog_horizon;
            self.leased_until = None;
            let schema = &self.outbox.capture.schema;
            self.session = Some(Session::open(&self.connect, self.wake.clone(), schema).await?);
        }
        Ok(())
    }

    fn session(&self) -> Result<&Session, PostgresError> {
        self.session.as_ref().ok_or(PostgresError::Timeout {
            doing: "using a connection that was given up",
        })
    }

    /// Takes or renews the lease when its time is half over.
    async fn holds_lease(&mut self) -> Result<bool, PostgresError> {
        let now = Instant::now();
        if self
            .leased_until
            .is_some_and(|until| until > now + LEASE / 2)
        {
            return Ok(true);
        }
        let session = self.session()?;
        let taken = in_time(
            "taking the lease of the outbox",
            session
                .link
                .client
                .execute(&session.lease, &[&self.holder, &milliseconds(LEASE)]),
        )
        .await?;
        if taken == 0 {
            self.leased_until = None;
            self.counted = false;
            // Another source has the rows meanwhile; begin without assumptions when it is our turn again.
            self.floor = self.backlog_horizon;
            return Ok(false);
        }
        if self.leased_until.is_none() {
            self.pace.taken_over(now);
        }
        self.leased_until = Some(now + LEASE);
        Ok(true)
    }

    /// Lets commits know that they need not wake us.
    async fn tell_awake(&mut self) -> Result<(), PostgresError> {
        let session = self.session()?;
        in_time(
            "staying awake",
            session
                .link
                .client
                .execute(&session.stay_awake, &[&self.holder, &milliseconds(AWAKE)]),
        )
        .await?;
        self.pace.told(Instant::now());
        Ok(())
    }

    /// Everything at once, if too much has gathered while nobody was reading.
    async fn backlog(&mut self) -> Result<Option<Batch<OutboxReceipt>>, PostgresError> {
        let session = self.session()?;
        let limit = self.backlog_max.saturating_add(1);
        let row = in_time(
            "counting the outbox",
            session.link.client.query_one(&session.count, &[&limit]),
        )
        .await?;
        let count: i64 = get(&row, 0)?;
        if count <= self.backlog_max {
            return Ok(None);
        }
        tracing::warn!(
            rows = count,
            "more changes wait than are worth reading; invalidating everything"
        );
        let snapshot: String = get(&row, 1)?;
        self.backlog_horizon = number(get(&row, 2)?);
        self.floor = self.backlog_horizon;
        let entities = self.outbox.mapping.entities();
        Ok(Some(Batch {
            events: entities
                .map(|(entity, _)| ChangeEvent::everything(entity.name()))
                .collect(),
            age: Duration::ZERO,
            receipt: OutboxReceipt {
                what: Receipt::Backlog(snapshot),
                position: position(get(&row, 3)?).unwrap_or(Position::MAX),
            },
        }))
    }

    /// What is there and not in hand.
    async fn read(&mut self) -> Result<Option<Batch<OutboxReceipt>>, PostgresError> {
        if self.floor_since.elapsed() > FLOOR_LIFE {
            self.floor = self.backlog_horizon;
            self.floor_since = Instant::now();
        }
        let session = self.session()?;
        let in_hand: Vec<i64> = self
            .in_hand
            .range((self.floor, i64::MIN)..)
            .map(|(_, id)| *id)
            .collect();
        let rows = in_time(
            "reading the outbox",
            session.link.client.query(
                &session.read,
                &[&self.floor.to_string(), &in_hand, &BATCH_MAX],
            ),
        )
        .await?;
        let mut read = Vec::new();
        let mut events = Vec::new();
        let mut age_ms = 0;
        let mut reached = 0;
        for row in &rows {
            reached = position(get(row, 1)?).unwrap_or(Position::MAX);
            let Some(xid) = get::<Option<&str>>(row, 2)? else {
                break;
            };
            read.push((number(xid), get(row, 3)?));
            let (entity, operation) = (get(row, 4)?, get(row, 5)?);
            if let Some(trouble) = get::<Option<&str>>(row, 7)? {
                tracing::warn!(
                    entity,
                    trouble,
                    "a change could not be described and counts as a change of all rows; install the outbox again"
                );
            }
            events.push(decode::event(
                &self.outbox.mapping,
                entity,
                operation,
                get(row, 6)?,
            ));
            age_ms = age_ms.max(get::<i64>(row, 8)?);
        }
        if (read.len() as i64) < BATCH_MAX
            && let Some(row) = rows.first()
        {
            self.floor = self.floor.max(number(get(row, 0)?));
        }
        if read.is_empty() {
            return Ok(None);
        }
        self.in_hand.extend(read.iter().copied());
        Ok(Some(Batch {
            events,
            age: Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)),
            receipt: OutboxReceipt {
                what: Receipt::Rows(read),
                position: reached,
            },
        }))
    }

    async fn delete_rows(&self, rows: &[(u64, i64)]) -> Result<(), PostgresError> {
        let session = self.session()?;
        for rows in rows.chunks(DELETE_MAX) {
            let (xids, ids): (Vec<String>, Vec<i64>) =
                rows.iter().map(|(xid, id)| (xid.to_string(), *id)).unzip();
            in_time(
                "acknowledging changes",
                session.link.client.execute(&session.delete, &[&xids, &ids]),
            )
            .await?;
        }
        Ok(())
    }

    async fn delete_backlog(&self, snapshot: &str) -> Result<(), PostgresError> {
        let session = self.session()?;
        loop {
            let deleted = in_time(
                "acknowledging a backlog",
                session
                    .link
                    .client
                    .execute(&session.delete_before, &[&snapshot]),
            )
            .await?;
            if deleted == 0 {
                return Ok(());
            }
        }
    }

    async fn forget(&mut self, receipts: &mut Vec<OutboxReceipt>) -> Result<(), PostgresError> {
        self.connect().await?;
        let mut rows = Vec::new();
        for receipt in receipts.iter() {
            match &receipt.what {
                Receipt::Rows(more) => rows.extend_from_slice(more),
                Receipt::Backlog(snapshot) => {
                    self.delete_backlog(snapshot).await?;
                    self.backlog_horizon = 0;
                }
            }
        }
        self.delete_rows(&rows).await?;
        for row in &rows {
            self.in_hand.remove(row);
        }
        receipts.clear();
        Ok(())
    }
}

impl ChangeSource for OutboxSource {
    type Receipt = OutboxReceipt;

    async fn next(&mut self) -> Result<Batch<OutboxReceipt>, BoxError> {
        match self.wait_for_rows().await {
            Ok(batch) => Ok(batch),
            Err(error) => {
                self.session = None;
                Err(error.into())
            }
        }
    }

    async fn acknowledge(&mut self, receipts: &mut Vec<OutboxReceipt>) -> Result<(), BoxError> {
        match self.forget(receipts).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.session = None;
                Err(error.into())
            }
        }
    }

    fn settled(&mut self, receipt: &OutboxReceipt) -> Option<BoxFuture<'static, ()>> {
        let replicas = self.replicas.as_ref()?;
        Some(Box::pin(replicas.reached(receipt.position)))
    }
}

impl std::fmt::Debug for OutboxSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboxSource")
            .field("schema", &self.outbox.capture.schema)
            .field("holder", &self.holder)
            .field("connected", &self.session.is_some())
            .field("floor", &self.floor)
            .field("in_hand", &self.in_hand.len())
            .finish_non_exhaustive()
    }
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: usize,
) -> Result<T, PostgresError> {
    row.try_get(column)
        .map_err(PostgresError::sql("reading a row of the outbox"))
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A transaction id. They are written by the server as digits; zero, below all of them, costs a second look and no more.
fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}
