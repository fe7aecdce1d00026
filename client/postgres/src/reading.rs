//! Reading the outbox, and what is done for all consumers on the way.
//!
//! Owns batches, pages and housekeeping of an [`OutboxSource`]. When to read, and what becomes of a batch, is in
//! `source.rs`.

use std::time::Duration;

use mcache::change::Changes;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::decode::{self, One};
use super::error::PostgresError;
use super::prune::SWEEP_ROWS;
use super::replicas::{Position, position};
use super::source::{OutboxReceipt, OutboxSource, Page, Reading, Receipt, get, snapshot};
use super::timing::{in_time, milliseconds};

/// Rows of the outbox in one batch, at most.
const BATCH_MAX: i64 = 256;

/// How often absent consumers are looked for, and rows that a crash left over.
const SWEEP_EVERY: Duration = Duration::from_secs(20);

impl OutboxSource {
    /// What is done for all consumers, by whichever comes first: looking at the catalogue, ending what absent consumers
    /// hold, deleting what a crash left over.
    pub(super) async fn housekeeping(&mut self) -> Result<(), PostgresError> {
        let now = Instant::now();
        let due = |last: Option<Instant>, every| {
            last.is_none_or(|last| now.saturating_duration_since(last) >= every)
        };
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
                        "changes of this table are not all captured, so its entities are cleared at each look; install the outbox \
                         again, unless it is a view or filled by a subscription"
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
    pub(super) async fn backlog(
        &mut self,
    ) -> Result<Option<Changes<OutboxReceipt>>, PostgresError> {
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
                    &reading.from.open(),
                    &self.decoder.relations(),
                    &self.names.as_slice(),
                    &reading.from.xmax(),
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
    pub(super) async fn read(&mut self) -> Result<Option<Changes<OutboxReceipt>>, PostgresError> {
        let Some(reading) = &self.reading else {
            return Ok(None);
        };
        let session = self.session()?;
        let page = reading.page.as_ref();
        let after = page.map_or(("0", i64::MIN), |page| {
            (page.after.0.as_str(), page.after.1)
        });
        let xmax = reading.from.xmax();
        let later = match page {
            Some(page) if reading.from.is_before(&page.after.0) => after,
            _ => (xmax.as_str(), i64::MIN),
        };
        let within = page.map(|page| page.to.as_text());
        let began = Instant::now();
        let (open, relations, names) = (
            reading.from.open(),
            self.decoder.relations(),
            self.names.as_slice(),
        );
        let params: [&(dyn ToSql + Sync); 9] = [
            &open, &relations, &names, &later.0, &later.1, &after.0, &after.1, &within, &BATCH_MAX,
        ];
        let query = |statement| {
            let rows = session.link.client.query(statement, &params);
            in_time("reading the outbox", rows)
        };
        let mut is_bare = false;
        let rows = match query(&session.read).await {
            Err(error) if error.is_unreadable() => {
                tracing::warn!(
                    %error,
                    "changes of texts that are not in the encoding of the database count as changes of whole tables"
                );
                is_bare = true;
                let bare = session.link.client.prepare(&session.read_bare);
                query(&in_time("preparing to read the outbox", bare).await?).await?
            }
            read => read?,
        };
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let now = snapshot(get(first, 0)?)?;
        self.pace.looked(began, &now);
        let to = page.map_or(now, |page| page.to.clone());
        let reached = position(get(first, 1)?).unwrap_or(Position::MAX);
        let receipt = OutboxReceipt {
            what: Receipt {
                generation: self.generation,
                number: 0,
                clears: false,
            },
            position: reached,
        };
        let mut batch = Changes::new([], receipt);
        let mut last = None;
        for row in &rows {
            let Some(xid) = get::<Option<&str>>(row, 2)? else {
                break;
            };
            last = Some((xid.to_owned(), get::<i64>(row, 3)?));
            // Tags named in SQL that cannot be read may be any.
            batch.everything |= is_bare && get::<Option<&str>>(row, 4)?.is_none();
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
        if batch.events.is_empty() && batch.tags.is_empty() && !batch.everything {
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
    fn add(&self, batch: &mut Changes<OutboxReceipt>, row: &Row) -> Result<(), PostgresError> {
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
                let one = match get(row, 8)? {
                    Some(columns) => Some(One {
                        columns,
                        was: get(row, 9)?,
                        is_now: get(row, 10)?,
                    }),
                    None => None,
                };
                batch
                    .events
                    .extend(self.decoder.events(relation, get(row, 5)?, rows, one));
            }
        }
        let age_ms = u64::try_from(get::<i64>(row, 11)?).unwrap_or(0);
        batch.age = batch.age.max(Duration::from_millis(age_ms));
        Ok(())
    }
}
