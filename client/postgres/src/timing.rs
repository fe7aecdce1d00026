//! How long a statement may take, and durations as PostgreSQL takes them.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use super::error::PostgresError;

/// How long any one statement, or connecting, may take before the connection counts as broken.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A hundred years.
const CENTURY_MS: i64 = 100 * 366 * 24 * 3_600 * 1_000;

/// `work`, or an error that says what was being done.
pub(super) async fn in_time<T>(
    doing: &'static str,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, PostgresError> {
    match tokio::time::timeout(STATEMENT_TIMEOUT, pin!(work)).await {
        Ok(outcome) => outcome.map_err(PostgresError::sql(doing)),
        Err(_elapsed) => Err(PostgresError::Timeout { doing }),
    }
}

/// For an `interval`: no more than that, and arithmetic with it, can hold.
pub(super) fn milliseconds(duration: Duration) -> i64 {
    let all = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    all.min(CENTURY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_duration_is_more_than_an_interval_holds() {
        assert_eq!(milliseconds(Duration::ZERO), 0);
        assert_eq!(milliseconds(Duration::from_nanos(1)), 0);
        assert_eq!(milliseconds(Duration::from_secs(5)), 5_000);
        assert_eq!(milliseconds(Duration::MAX), CENTURY_MS);
    }
}
