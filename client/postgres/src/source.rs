//! The outbox as a source of changes.
//!
//! Owns what was handed out and not yet acknowledged, the lease, and the way back after a lost connection. It must not
//! know tags or caches.
//!
//! A row of the outbox is work to do. What a consumer has done is a position in the database itself (see
//! `position.rs`), so nothing can disagree with it after a crash, a restore or a failover. Rows are deleted when the
//! last consumer has acknowledged them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, Row, Socket};

use mcache::change::{BoxError, BoxFuture, ChangeSource, Changes, Contact};

use super::decode::Decoder;
use super::error::PostgresError;
use super::install::Past;
use super::outbox::Outbox;
use super::pace::{AWAKE, Pace, STORE_PAUSE};
use super::position::{Ledger, Snapshot};
use super::replicas::{Position, Replicas};
use super::session::{Asks, Connect, Session, connector};
use super::timing::{in_time, milliseconds};

/// How long the holder of the lease may be silent before another source takes over.
const LEASE: Duration = Duration::from_secs(3);

/// How often a source without the lease asks for it.
const STANDBY: Duration = Duration::from_millis(200);

/// The changes that wait for one consumer in an [`Outbox`], to be driven by an
/// [`Invalidator`](mcache::change::Invalidator).
///
/// Several processes of a consumer may each drive one: they share a lease, one of them works and the others take over
/// when it ends, at once if its connection is gone, after three seconds if it is stuck. Other consumers are not
/// concerned.
///
/// ```no_run
/// # use mcache_graph::Graph;
/// # async fn f(outbox: mcache_postgres::Outbox, graph: Graph) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use mcache::change::Invalidator;
/// use tokio_postgres::NoTls;
///
/// let mut source = outbox
///     .source("host=/run/postgresql dbname=shop".parse()?, NoTls)
///     .look_interval(Duration::from_secs(30));
/// source.check().await?;
/// let invalidator = Invalidator::builder(source, graph.change_tags()).spawn();
/// # Ok(()) }
/// ```
pub struct OutboxSource {
    outbox: Outbox,
    /// The consumer's name, and the part of it that all its releases share.
    pub(super) names: [String; 2],
    pub(super) decoder: Decoder,
    connect: Connect,
    pub(super) backlog_max: i64,
    pub(super) look_every: Duration,
    replicas: Option<Replicas>,
    /// Names this source in the lease.
    holder: String,
    pub(super) session: Option<Session>,
    /// Counts sessions: what was handed out in an earlier one is not acknowledged in a later one, which may be of
    /// another server that never had it.
    pub(super) generation: u64,
    contact: Contact,
    wake: Arc<Notify>,
    /// The database does not know this consumer, and registering it has failed.
    unregistered: bool,
    /// When everything was cleared last because of that.
    cleared_unregistered: Option<Instant>,
    /// Said already; forgotten once it is registered.
    said_unregistered: bool,
    /// Until when no other process takes the lease.
    leased_until: Option<Instant>,
    pub(super) pace: Pace,
    /// When the last look was that found something.
    found_at: Option<Instant>,
    /// Where reading goes on. Known while the lease is held.
    pub(super) reading: Option<Reading>,
    pub(super) ledger: Ledger,
    /// What was acknowledged in the database.
    pub(super) stored: Snapshot,
    /// What is acknowledged and not yet stored.
    pub(super) to_store: Option<Snapshot>,
    /// Whether a batch is acknowledged with it, which is not to wait for the lease to be renewed.
    pub(super) is_owed: bool,
    /// When it was stored last.
    pub(super) stored_at: Option<Instant>,
    pub(super) looked: Option<Instant>,
    pub(super) swept: Option<Instant>,
}

/// How far was read.
#[derive(Debug)]
pub(super) struct Reading {
    /// Everything behind this was handed out.
    pub(super) from: Snapshot,
    /// What is being handed out in pages: everything behind a later snapshot, up to this row so far.
    pub(super) page: Option<Page>,
    /// Whether the backlog was counted.
    pub(super) counted: bool,
}

#[derive(Debug)]
pub(super) struct Page {
    pub(super) to: Snapshot,
    pub(super) after: (String, i64),
}

/// What acknowledges a batch of an [`OutboxSource`]. An [`Invalidator`](mcache::change::Invalidator) gives it back;
/// only a program that drives the source itself sees one.
///
/// ```no_run
/// # async fn f(mut source: mcache_postgres::OutboxSource) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use mcache::change::ChangeSource;
/// use mcache_postgres::OutboxReceipt;
///
/// let changes = source.next().await?;
/// // Here every cache is told of `changes.events`.
/// let mut receipts: Vec<OutboxReceipt> = vec![changes.receipt];
/// source.acknowledge(&mut receipts).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct OutboxReceipt {
    pub(super) what: Receipt,
    /// Beyond the commit of everything in the batch.
    pub(super) position: Position,
}

#[derive(Debug)]
pub(super) struct Receipt {
    pub(super) generation: u64,
    pub(super) number: u64,
    /// Everything the consumer had was cleared.
    pub(super) clears: bool,
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
            unregistered: false,
            cleared_unregistered: None,
            said_unregistered: false,
            leased_until: None,
            pace: Pace::new(self.notify),
            found_at: None,
            reading: None,
            ledger: Ledger::default(),
            stored: Snapshot::default(),
            to_store: None,
            is_owed: false,
            stored_at: None,
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

    /// If more rows than this wait when the source begins, the whole namespace is invalidated at once instead of
    /// reading them. Default: 50,000.
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
    async fn wait_for_rows(&mut self) -> Result<Changes<OutboxReceipt>, PostgresError> {
        loop {
            if let Err(error) = self.connect().await {
                return self.clear_unregistered().ok_or(error);
            }
            let leads = self.holds_lease().await?;
            self.contact.made();
            if !leads {
                tokio::time::sleep(STANDBY).await;
                continue;
            }
            if let Some(batch) = self.begin().await? {
                return Ok(batch);
            }
            self.store_if_due().await?;
            self.housekeeping().await?;
            if self.pace.should_tell(Instant::now()) {
                self.tell_awake().await?;
            }
            if let Some(last) = self.found_at
                && self
                    .reading
                    .as_ref()
                    .is_some_and(|reading| reading.page.is_none())
            {
                let again = self.pace.again(last, Instant::now());
                tokio::time::sleep_until(again).await;
            }
            if let Some(batch) = self.read().await? {
                self.found_at = Some(Instant::now());
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
            let mut pause = self.pace.pause(Instant::now());
            if self.is_owed {
                pause = pause.min(STORE_PAUSE);
            }
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
        self.unregistered = false;
        let asks = Asks {
            schema: &self.outbox.schema,
            name: &self.names[0],
        };
        let session = match Session::open(&self.connect, self.wake.clone(), &asks).await {
            Ok(Some(session)) => session,
            unregistered => {
                // Expired, or lost with unlogged tables in a crash. A role that may install registers it again.
                if let Err(error) = unregistered
                    && !error.is_undefined()
                {
                    return Err(error);
                }
                if !self.said_unregistered {
                    tracing::warn!(
                        consumer = self.names[0],
                        "this consumer is not registered (any more); registering it"
                    );
                }
                self.unregistered = true;
                let mut link = (self.connect)(Arc::default()).await?;
                self.outbox
                    .install_after(&mut link.client, Past::Missed)
                    .await?;
                self.unregistered = false;
                let session = Session::open(&self.connect, self.wake.clone(), &asks).await?;
                session.ok_or(PostgresError::Timeout {
                    doing: "registering a consumer that expires at once",
                })?
            }
        };
        self.said_unregistered = false;
        self.pace.notified(session.notified);
        self.session = Some(session);
        self.hand_out_anew();
        Ok(())
    }

    /// What was handed out and is not acknowledged is handed out again: receipts of before count no more.
    fn hand_out_anew(&mut self) {
        self.generation += 1;
        self.ledger = Ledger::default();
        self.to_store = None;
        self.is_owed = false;
    }

    /// Everything, every so often, while no change is captured for this consumer and none can be: it may not install,
    /// say. So no entry is stale for longer, until a role that may does.
    fn clear_unregistered(&mut self) -> Option<Changes<OutboxReceipt>> {
        let now = Instant::now();
        let is_due = self
            .cleared_unregistered
            .is_none_or(|last| now.saturating_duration_since(last) >= self.look_every);
        if !self.unregistered || !is_due {
            return None;
        }
        self.cleared_unregistered = Some(now);
        if !std::mem::replace(&mut self.said_unregistered, true) {
            tracing::warn!(
                consumer = self.names[0],
                "no change is recorded for this consumer, which is not registered and could not be; it clears everything \
                 it has, again and again, until the outbox is installed (said once)"
            );
        }
        Some(self.everything(0, false, Position::MAX))
    }

    pub(super) fn session(&self) -> Result<&Session, PostgresError> {
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
    async fn begin(&mut self) -> Result<Option<Changes<OutboxReceipt>>, PostgresError> {
        if self.reading.is_none() {
            let Some(stored) = self.position().await? else {
                self.session = None;
                self.connect().await?;
                return Ok(None);
            };
            self.hand_out_anew();
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

    pub(super) fn everything(
        &self,
        number: u64,
        clears: bool,
        reached: Position,
    ) -> Changes<OutboxReceipt> {
        let receipt = OutboxReceipt {
            what: Receipt {
                generation: self.generation,
                number,
                clears,
            },
            position: reached,
        };
        let mut changes = Changes::new(self.decoder.everything(), receipt);
        // Tags named in SQL may be among what is not read, and belong to no entity.
        changes.everything = true;
        changes
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
}

/// What the database says of a consumer.
struct Stored {
    acknowledged: Snapshot,
    clear: bool,
    expired: bool,
}

impl ChangeSource for OutboxSource {
    type Receipt = OutboxReceipt;

    async fn next(&mut self) -> Result<Changes<OutboxReceipt>, BoxError> {
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

pub(super) fn get<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    column: usize,
) -> Result<T, PostgresError> {
    row.try_get(column)
        .map_err(PostgresError::sql("reading a row of the outbox"))
}

/// A snapshot as the server wrote it.
pub(super) fn snapshot(text: &str) -> Result<Snapshot, PostgresError> {
    Snapshot::parse(text).ok_or(PostgresError::Timeout {
        doing: "reading a snapshot",
    })
}
