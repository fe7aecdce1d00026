//! The outbox as a source of changes.
//!
//! Owns what was handed out and not yet acknowledged, the lease, and the way back after a lost connection. It must not
//! know tags or caches.
//!
//! A row of the outbox is work to do. What a consumer has done is a position in the database itself (see `position.rs`),
//! so nothing can disagree with it after a crash, a restore or a failover. Rows are deleted when the last consumer has
//! acknowledged them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, Row, Socket};

use mcache::change::{Batch, BoxError, BoxFuture, ChangeSource, Contact};

use super::decode::{self, Decoder};
use super::error::PostgresError;
use super::install::SWEEP_ROWS;
use super::outbox::Outbox;
use super::pace::{AWAKE, Pace};
use super::position::{Ledger, Snapshot};
use super::replicas::{Position, Replicas, position};
use super::session::{Asks, Connect, Session, connector, in_time};

/// Rows of the outbox in one batch, at most.
const BATCH_MAX: i64 = 256;

/// How long the holder of the lease may be silent before another source takes over.
const LEASE: Duration = Duration::from_secs(3);

/// How often a source without the lease asks for it.
const STANDBY: Duration = Duration::from_millis(200);

/// How often absent consumers are looked for, and rows that a crash left over.
const SWEEP_EVERY: Duration = Duration::from_secs(20);

/// The changes that wait for one consumer in an [`Outbox`], to be driven by an
/// [`Invalidator`](mcache::change::Invalidator).
///
/// Several processes of a consumer may each drive one: they share a lease, one of them works and the others take over
/// when it ends, at once if its connection is gone, after three seconds if it is stuck. Other consumers are not concerned.
pub struct OutboxSource {
    outbox: Outbox,
    /// The consumer's name, and the part of it that all its releases share.
    names: [String; 2],
    decoder: Decoder,
    connect: Connect,
    backlog_max: i64,
    look_every: Duration,
    replicas: Option<Replicas>,
    /// Names this source in the lease.
    holder: String,
    session: Option<Session>,
    /// Counts sessions: what was handed out in an earlier one is not acknowledged in a later one, which may be of another
    /// server that never had it.
    generation: u64,
    contact: Contact,
    wake: Arc<Notify>,
    /// Until when nobody else takes the lease.
    leased_until: Option<Instant>,
    pace: Pace,
    /// Where reading goes on. Known while the lease is held.
    reading: Option<Reading>,
    ledger: Ledger,
    /// What was acknowledged in the database.
    stored: Snapshot,
    /// What is acknowledged and not yet stored.
    to_store: Option<Snapshot>,
    looked: Option<Instant>,
    swept: Option<Instant>,
}

/// How far was read.
#[derive(Debug)]
struct Reading {
    /// Everything behind this was handed out.
    from: Snapshot,
    /// What is being handed out in pages: everything behind a later snapshot, up to this row so far.
    page: Option<Page>,
    /// Whether the backlog was counted.
    counted: bool,
}

#[derive(Debug)]
struct Page {
    to: Snapshot,
    after: (String, i64),
}

/// What acknowledges a batch of an [`OutboxSource`].
#[derive(Debug)]
pub struct OutboxReceipt {
    what: Receipt,
    /// Beyond the commit of everything in the batch.
    position: Position,
}

#[derive(Debug)]
struct Receipt {
    generation: u64,
    number: u64,
    /// Everything the consumer had was cleared.
    clears: bool,
}

impl Outbox {
    /// The changes that wait in this outbox, read over a connection of its own.
    ///
    /// The connection must be a direct one, or one of a pooler that does not share sessions; the source refuses to work
    /// over another. With several `host`s, say
    /// `target_session_attrs=read-write`: the outbox is on the primary.
    pub fn source<T>(&self, config: Config, tls: T) -> OutboxSource
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        OutboxSource {
            names: [self.consumer_name(), self.consumer.as_str().to_owned()],
            decoder: Decoder::new(&self.mapping),
            outbox: self.clone(),
            connect: connector(config, tls),
            backlog_max: 50_000,
            look_every: Duration::from_secs(5),
            replicas: None,
            holder: format!("{:016x}", fastrand::u64(..)),
            session: None,
            generation: 0,
            contact: Contact::new(),
            wake: Arc::new(Notify::new()),
            leased_until: None,
            pace: Pace::new(self.notify),
            reading: None,
            ledger: Ledger::default(),
            stored: Snapshot::default(),
            to_store: None,
            looked: None,
            swept: None,
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

    /// How often to look at the catalogue for what no trigger sees: tables swapped, partitions attached, columns
    /// rewritten, triggers disabled. Until then such a change is not noticed, unless the event trigger could be made.
    /// Default: 5 s. All consumers of a database share one look.
    #[must_use]
    pub fn look_interval(mut self, interval: Duration) -> Self {
        self.look_every = interval;
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

    /// Connects, and finds out whether this consumer is registered and can be worked for: what otherwise shows at the
    /// first look, as an error that the [`Invalidator`](mcache::change::Invalidator) repeats and logs.
    ///
    /// # Errors
    ///
    /// [`PostgresError::Pooler`] behind a pooler that shares sessions, [`PostgresError::Mismatch`] and others of
    /// [`Outbox::install`] if the consumer had to be registered again and could not be.
    pub async fn check(&mut self) -> Result<(), PostgresError> {
        self.connect().await
    }

    /// Waits for rows. Changes nothing of `self` that matters before it returns, so it can be dropped at any point.
    async fn wait_for_rows(&mut self) -> Result<Batch<OutboxReceipt>, PostgresError> {
        loop {
            self.connect().await?;
            let leads = self.holds_lease().await?;
            self.contact.made();
            if !leads {
                tokio::time::sleep(STANDBY).await;
                continue;
            }
            if let Some(batch) = self.begin().await? {
                return Ok(batch);
            }
            self.housekeeping().await?;
            if self.pace.should_tell(Instant::now()) {
                self.tell_awake().await?;
            }
            if let Some(batch) = self.read().await? {
                self.pace.found(
                    batch.events.len() + usize::from(!batch.tags.is_empty()),
                    Instant::now(),
                );
                return Ok(batch);
            }
            if self
                .reading
                .as_ref()
                .is_some_and(|reading| reading.page.is_some())
            {
                continue;
            }
            // Awaited after the read: a notification in between has left its permit.
            let pause = self.pace.pause(Instant::now());
            let _ = tokio::time::timeout(pause, self.wake.notified()).await;
        }
    }

    /// Makes a session if there is none, and forgets what was known of the server: it may be another one.
    async fn connect(&mut self) -> Result<(), PostgresError> {
        if self.session.is_some() {
            return Ok(());
        }
        self.leased_until = None;
        self.reading = None;
        let asks = Asks {
            schema: &self.outbox.schema,
            name: &self.names[0],
        };
        let session = match Session::open(&self.connect, self.wake.clone(), &asks).await {
            Ok(Some(session)) => session,
            unregistered => {
                // Expired, or lost with unlogged tables in a crash. Whoever may install registers it again.
                if let Err(error) = unregistered
                    && !error.is_undefined()
                {
                    return Err(error);
                }
                tracing::warn!(
                    consumer = self.names[0],
                    "this consumer is not registered (any more); registering it"
                );
                let mut link = (self.connect)(Arc::default()).await?;
                self.outbox.install(&mut link.client).await?;
                let session = Session::open(&self.connect, self.wake.clone(), &asks).await?;
                session.ok_or(PostgresError::Timeout {
                    doing: "registering a consumer that expires at once",
                })?
            }
        };
        self.pace.notified(session.notified);
        self.session = Some(session);
        self.generation += 1;
        self.ledger = Ledger::default();
        self.to_store = None;
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
            session.link.client.execute(
                &session.lease,
                &[&self.holder, &milliseconds(LEASE), &session.consumer],
            ),
        )
        .await?;
        if taken == 0 {
            let was_expired = self.position().await?.is_none_or(|found| found.expired);
            self.leased_until = None;
            // Another source has the rows meanwhile; begin without assumptions when it is our turn again.
            self.reading = None;
            if was_expired {
                self.session = None;
                self.connect().await?;
            }
            return Ok(false);
        }
        if self.leased_until.is_none() {
            self.pace.taken_over(now);
        }
        self.leased_until = Some(now + LEASE);
        // Renewed every other second anyway: what was passed over without a row for us is stored with it.
        self.store().await?;
        Ok(true)
    }

    /// Where the consumer is, as stored.
    async fn position(&self) -> Result<Option<Stored>, PostgresError> {
        let session = self.session()?;
        let row = in_time(
            "reading the position",
            session
                .link
                .client
                .query_opt(&session.begin, &[&session.consumer]),
        )
        .await?;
        row.map(|row| {
            Ok(Stored {
                acknowledged: snapshot(get(&row, 0)?)?,
                clear: get(&row, 1)?,
                expired: get(&row, 2)?,
            })
        })
        .transpose()
    }

    /// Finds out where to go on, once the lease is ours.
    async fn begin(&mut self) -> Result<Option<Batch<OutboxReceipt>>, PostgresError> {
        if self.reading.is_none() {
            let Some(stored) = self.position().await? else {
                self.session = None;
                self.connect().await?;
                return Ok(None);
            };
            self.generation += 1;
            self.ledger = Ledger::default();
            self.to_store = None;
            self.stored = stored.acknowledged.clone();
            self.reading = Some(Reading {
                from: stored.acknowledged,
                page: None,
                counted: false,
            });
            if stored.clear {
                tracing::warn!(
                    consumer = self.names[0],
                    "this consumer may have missed changes; it clears everything it has"
                );
                let number = self.ledger.hand_out(None);
                return Ok(Some(self.everything(number, true, Position::MAX)));
            }
        }
        if self.reading.as_ref().is_some_and(|reading| reading.counted) {
            return Ok(None);
        }
        let backlog = self.backlog().await?;
        if let Some(reading) = &mut self.reading {
            reading.counted = true;
        }
        Ok(backlog)
    }

    fn everything(&self, number: u64, clears: bool, reached: Position) -> Batch<OutboxReceipt> {
        Batch {
            events: self.decoder.everything(),
            tags: Vec::new(),
            age: Duration::ZERO,
            receipt: OutboxReceipt {
                what: Receipt {
                    generation: self.generation,
                    number,
                    clears,
                },
                position: reached,
            },
        }
    }

    /// Lets commits know that they need not wake us.
    async fn tell_awake(&mut self) -> Result<(), PostgresError> {
        let session = self.session()?;
        in_time(
            "staying awake",
            session.link.client.execute(
                &session.stay_awake,
                &[&self.holder, &milliseconds(AWAKE), &session.consumer],
            ),
        )
        .await?;
        self.pace.told(Instant::now());
        Ok(())
    }

    /// What is done for all consumers, by whichever comes first: looking at the catalogue, ending what absent consumers
    /// hold, deleting what a crash left over.
    async fn housekeeping(&mut self) -> Result<(), PostgresError> {
        let now = Instant::now();
        let due = |last: Option<Instant>, every| last.is_none_or(|last| now >= last + every);
        if due(self.looked, self.look_every) {
            let session = self.session()?;
            let interval = milliseconds(self.look_every / 2);
            let rows = in_time(
                "looking at the catalogue",
                session.link.client.query(&session.look, &[&interval]),
            )
            .await?;
            for row in &rows {
                let (table, complete): (&str, bool) = (get(row, 0)?, get(row, 1)?);
                match complete {
                    true => tracing::info!(
                        table,
                        "a table has changed otherwise than by statements; its entities are cleared"
                    ),
                    false => tracing::warn!(
                        table,
                        "changes of this table are not all captured, so its entities are cleared at each look; install the outbox again"
                    ),
                }
            }
            self.looked = Some(now);
        }
        if due(self.swept, SWEEP_EVERY) {
            let session = self.session()?;
            let row = in_time(
                "deleting acknowledged changes",
                session.link.client.query_opt(
                    &session.sweep,
                    &[&milliseconds(SWEEP_EVERY / 2), &SWEEP_ROWS],
                ),
            )
            .await?;
            let mut again = false;
            if let Some(row) = row {
                for consumer in get::<Vec<String>>(&row, 0)? {
                    tracing::warn!(
                        consumer,
                        "no process of this consumer was there for too long; changes do not wait for it any more"
                    );
                }
                again = get::<i64>(&row, 1)? >= SWEEP_ROWS;
            }
            self.swept = (!again).then_some(now);
        }
        Ok(())
    }

    /// Everything at once, if too much has gathered while no process was reading.
    async fn backlog(&mut self) -> Result<Option<Batch<OutboxReceipt>>, PostgresError> {
        let Some(reading) = &self.reading else {
            return Ok(None);
        };
        let session = self.session()?;
        let limit = self.backlog_max.saturating_add(1);
        let row = in_time(
            "counting the outbox",
            session.link.client.query_one(
                &session.count,
                &[
                    &reading.from.xmax(),
                    &reading.from.open(),
                    &self.decoder.relations(),
                    &self.names.as_slice(),
                    &limit,
                ],
            ),
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
        let to = snapshot(get(&row, 1)?)?;
        let reached = position(get(&row, 2)?).unwrap_or(Position::MAX);
        self.reading = Some(Reading {
            from: to.clone(),
            page: None,
            counted: true,
        });
        let number = self.ledger.hand_out(Some(to));
        Ok(Some(self.everything(number, false, reached)))
    }

    /// What is there and was not handed out.
    async fn read(&mut self) -> Result<Option<Batch<OutboxReceipt>>, PostgresError> {
        let Some(reading) = &self.reading else {
            return Ok(None);
        };
        let session = self.session()?;
        let page = reading.page.as_ref();
        let after = page.map_or(("0", i64::MIN), |page| {
            (page.after.0.as_str(), page.after.1)
        });
        let within = page.map(|page| page.to.as_text());
        let rows = in_time(
            "reading the outbox",
            session.link.client.query(
                &session.read,
                &[
                    &reading.from.xmax(),
                    &reading.from.open(),
                    &self.decoder.relations(),
                    &self.names.as_slice(),
                    &after.0,
                    &after.1,
                    &within,
                    &BATCH_MAX,
                ],
            ),
        )
        .await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let to = match page {
            Some(page) => page.to.clone(),
            None => snapshot(get(first, 0)?)?,
        };
        let reached = position(get(first, 1)?).unwrap_or(Position::MAX);
        let mut batch = Batch {
            events: Vec::new(),
            tags: Vec::new(),
            age: Duration::ZERO,
            receipt: OutboxReceipt {
                what: Receipt {
                    generation: self.generation,
                    number: 0,
                    clears: false,
                },
                position: reached,
            },
        };
        let mut last = None;
        for row in &rows {
            let Some(xid) = get::<Option<&str>>(row, 2)? else {
                break;
            };
            last = Some((xid.to_owned(), get::<i64>(row, 3)?));
            self.add(&mut batch, row)?;
        }
        let is_full = rows.len() as i64 >= BATCH_MAX;
        let Some(reading) = &mut self.reading else {
            return Ok(None);
        };
        let position = match (is_full, last) {
            (true, Some(after)) => {
                reading.page = Some(Page { to, after });
                None
            }
            _ => {
                reading.page = None;
                reading.from = to.clone();
                Some(to)
            }
        };
        if batch.events.is_empty() && batch.tags.is_empty() {
            // Nothing, or nothing that this consumer can see.
            self.to_store = match position {
                Some(to) => self.ledger.pass(to).or(self.to_store.take()),
                None => self.to_store.take(),
            };
            return Ok(None);
        }
        batch.receipt.what.number = self.ledger.hand_out(position);
        Ok(Some(batch))
    }

    /// Adds what a row of the outbox says.
    fn add(&self, batch: &mut Batch<OutboxReceipt>, row: &Row) -> Result<(), PostgresError> {
        let rows: Option<&str> = get(row, 6)?;
        match get::<Option<&str>>(row, 4)? {
            None => batch.tags.extend(decode::tags(rows)),
            Some(relation) => {
                if let Some(trouble) = get::<Option<&str>>(row, 7)? {
                    tracing::warn!(
                        relation,
                        trouble,
                        "a change could not be described and counts as a change of all rows; install the outbox again"
                    );
                }
                batch
                    .events
                    .extend(self.decoder.events(relation, get(row, 5)?, rows));
            }
        }
        let age_ms = u64::try_from(get::<i64>(row, 8)?).unwrap_or(0);
        batch.age = batch.age.max(Duration::from_millis(age_ms));
        Ok(())
    }

    /// Stores how far was acknowledged, and deletes what all others have acknowledged as well.
    async fn store(&mut self) -> Result<(), PostgresError> {
        // Forgotten only when it is stored: this may be dropped while it waits.
        let Some(position) = self.to_store.clone() else {
            return Ok(());
        };
        let session = self.session()?;
        in_time(
            "acknowledging changes",
            session.link.client.execute(
                &session.acknowledge,
                &[&session.consumer, &position.as_text()],
            ),
        )
        .await?;
        let (from, to) = (self.stored.xmax(), position.xmax());
        let open = self.stored.open();
        loop {
            let deleted = in_time(
                "deleting acknowledged changes",
                session
                    .link
                    .client
                    .execute(&session.delete, &[&from, &open, &to, &SWEEP_ROWS]),
            )
            .await?;
            if (deleted as i64) < SWEEP_ROWS {
                break;
            }
        }
        if position.is_beyond(&self.stored) {
            self.stored = position;
        }
        self.to_store = None;
        Ok(())
    }

    async fn forget(&mut self, receipts: &mut Vec<OutboxReceipt>) -> Result<(), PostgresError> {
        self.connect().await?;
        let current = |receipt: &&OutboxReceipt| receipt.what.generation == self.generation;
        if receipts
            .iter()
            .filter(current)
            .any(|receipt| receipt.what.clears)
        {
            let session = self.session()?;
            in_time(
                "acknowledging that everything was cleared",
                session
                    .link
                    .client
                    .execute(&session.cleared, &[&session.consumer]),
            )
            .await?;
        }
        // Of an earlier session: handed out again in this one.
        for receipt in receipts.drain(..) {
            if receipt.what.generation == self.generation
                && let Some(position) = self.ledger.acknowledged(receipt.what.number)
            {
                self.to_store = Some(position);
            }
        }
        self.store().await
    }
}

/// What the database says of a consumer.
struct Stored {
    acknowledged: Snapshot,
    clear: bool,
    expired: bool,
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

    fn contact(&self) -> Option<Contact> {
        Some(self.contact.clone())
    }

    fn settled(&mut self, receipt: &OutboxReceipt) -> Option<BoxFuture<'static, ()>> {
        let replicas = self.replicas.as_ref()?;
        Some(Box::pin(replicas.reached(receipt.position)))
    }
}

impl std::fmt::Debug for OutboxSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboxSource")
            .field("schema", &self.outbox.schema)
            .field("consumer", &self.names[0])
            .field("holder", &self.holder)
            .field("connected", &self.session.is_some())
            .field("in_hand", &self.ledger.in_hand())
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

/// A snapshot as the server wrote it.
fn snapshot(text: &str) -> Result<Snapshot, PostgresError> {
    Snapshot::parse(text).ok_or(PostgresError::Timeout {
        doing: "reading a snapshot",
    })
}
