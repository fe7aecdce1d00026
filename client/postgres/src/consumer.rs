//! Consumers: who must be told of every change.
//!
//! Owns their names, and the SQL that registers one and says how all are doing. It must not know tables of the
//! application.
//!
//! A consumer is a namespace in a cache, read through one schema: its entries are known by tags that only this schema
//! explains. Two releases of one service are two consumers, and so are two services, two namespaces and two tenants.

use tokio_postgres::{GenericClient, Transaction};

use mcache::{Cache, Codec};

use super::error::PostgresError;
use super::interest::Interest;
use super::mapping::Mapping;
use super::sql::identifier;

/// What a consumer is called, before the release.
///
/// Made from a [`Cache`], it is its namespace and where it is, so that two caches are two consumers. A name given by
/// hand must do the same: everything that reads and writes the same entries, and nothing else, has the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerName(String);

impl From<&str> for ConsumerName {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl From<String> for ConsumerName {
    fn from(name: String) -> Self {
        Self(name)
    }
}

impl<C: Codec> From<&Cache<C>> for ConsumerName {
    fn from(cache: &Cache<C>) -> Self {
        Self(cache.name())
    }
}

impl ConsumerName {
    /// As given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of one release: with what its schema and mapping are.
    pub(super) fn of_release(&self, mapping: &Mapping) -> String {
        format!("{}#{:016x}", self.0, mapping.fingerprint())
    }
}

/// How one consumer is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// Its name: what it was given, `#`, and the fingerprint of its schema and mapping.
    pub name: String,
    /// Statements that concern it and are not acknowledged.
    pub events: i64,
    /// Age of the oldest of these in milliseconds, zero if there is none.
    pub oldest_ms: i64,
    /// For how long no process of it has been there, in milliseconds; zero if one is.
    pub absent_ms: i64,
    /// Whether it was absent for so long that it holds no rows any more. When it comes back it clears everything it
    /// has.
    pub expired: bool,
}

/// How a consumer is registered.
pub(super) struct Registering<'a> {
    pub(super) schema: &'a str,
    pub(super) name: &'a str,
    pub(super) base: &'a str,
    pub(super) hold_ms: i64,
    pub(super) notify: bool,
    pub(super) rows_max: i64,
    pub(super) bytes_max: i64,
    /// Whether entries may be left from a time of which the database knows nothing.
    pub(super) clear_if_new: bool,
}

impl Registering<'_> {
    /// Makes the consumer, or brings it up to date and back to life.
    ///
    /// One that was expired has missed changes, so it clears everything it knows before it goes on; so does one of
    /// which nothing is known where that proves nothing.
    pub(super) async fn register<'i>(
        &self,
        work: &Transaction<'_>,
        interests: impl Iterator<Item = (&'i String, &'i Interest)>,
    ) -> Result<(), PostgresError> {
        let failed = || PostgresError::sql("registering a consumer");
        let schema = identifier(self.schema);
        let found = work
            .query_opt(
                &format!("SELECT expired_at IS NOT NULL FROM {schema}.consumer WHERE name = $1 FOR UPDATE"),
                &[&self.name],
            )
            .await
            .map_err(failed())?;
        let is_new = found.is_none();
        let expired: bool = match found {
            Some(row) => row.try_get(0).map_err(failed())?,
            None => false,
        };
        let id: i32 = work
            .query_one(
                &format!(
                    "INSERT INTO {schema}.consumer AS c (name, base, hold, notify, rows_max, bytes_max)
                     VALUES ($1, $2, $3::bigint * interval '1 millisecond', $4, $5, $6)
                     ON CONFLICT (name) DO UPDATE SET hold = excluded.hold, notify = excluded.notify,
                       rows_max = excluded.rows_max, bytes_max = excluded.bytes_max, expired_at = NULL
                     RETURNING id"
                ),
                &[&self.name, &self.base, &self.hold_ms, &self.notify, &self.rows_max, &self.bytes_max],
            )
            .await
            .and_then(|row| row.try_get(0))
            .map_err(failed())?;
        if is_new || expired {
            let clear = expired || self.clear_if_new;
            work.execute(
                &format!(
                    "INSERT INTO {schema}.position AS p VALUES ($1, pg_current_snapshot(), $2)
                     ON CONFLICT (consumer) DO UPDATE
                     SET acknowledged = excluded.acknowledged, clear = p.clear OR excluded.clear"
                ),
                &[&id, &clear],
            )
            .await
            .map_err(failed())?;
        }
        // Registering counts as a sign of life: a process will follow.
        work.execute(
            &format!(
                "INSERT INTO {schema}.lease AS l (consumer, until) VALUES ($1, clock_timestamp())
                 ON CONFLICT (consumer) DO UPDATE SET until = greatest(l.until, excluded.until)"
            ),
            &[&id],
        )
        .await
        .map_err(failed())?;
        work.execute(
            &format!("DELETE FROM {schema}.interest WHERE consumer = $1"),
            &[&id],
        )
        .await
        .map_err(failed())?;
        for (relation, interest) in interests {
            let keys: Vec<&String> = interest.keys.iter().collect();
            let columns: Vec<&String> = interest.columns.iter().collect();
            work.execute(
                &format!("INSERT INTO {schema}.interest VALUES ($1, $2, $3, $4)"),
                &[&relation, &id, &keys, &columns],
            )
            .await
            .map_err(failed())?;
        }
        Ok(())
    }
}

/// How every consumer is doing, by name.
pub(super) async fn statuses(
    client: &impl GenericClient,
    schema: &str,
) -> Result<Vec<ConsumerStatus>, PostgresError> {
    let failed = || PostgresError::sql("reading the consumers");
    let schema = identifier(schema);
    let rows = client
        .query(
            &format!(
                "SELECT c.name, coalesce(w.events, 0), coalesce(w.oldest_ms, 0),
                   CASE WHEN l.until >= clock_timestamp() THEN 0
                        ELSE floor(extract(epoch FROM clock_timestamp() - l.until) * 1000)::bigint END,
                   c.expired_at IS NOT NULL
                 FROM {schema}.consumer AS c
                 JOIN {schema}.lease AS l ON l.consumer = c.id
                 JOIN {schema}.position AS p ON p.consumer = c.id
                 LEFT JOIN LATERAL (
                   SELECT count(*) AS events, floor(extract(epoch FROM
                            clock_timestamp() - min(o.captured_at)) * 1000)::bigint AS oldest_ms
                   FROM {schema}.outbox AS o
                   WHERE c.expired_at IS NULL AND NOT pg_visible_in_snapshot(o.xid, p.acknowledged)
                     AND (o.relation IN (SELECT i.relation FROM {schema}.interest AS i WHERE i.consumer = c.id)
                          OR (o.relation IS NULL AND (o.target IS NULL OR o.target IN (c.name, c.base))))
                 ) AS w ON true
                 ORDER BY c.name"
            ),
            &[],
        )
        .await
        .map_err(failed())?;
    rows.iter()
        .map(|row| {
            let get = |column: usize| row.try_get::<_, i64>(column);
            Ok(ConsumerStatus {
                name: row.try_get(0)?,
                events: get(1)?,
                oldest_ms: get(2)?,
                absent_ms: get(3)?,
                expired: row.try_get(4)?,
            })
        })
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(failed())
}
