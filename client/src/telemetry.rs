//! What is counted. One place, so that names do not drift; they are listed in the crate's documentation.

use metrics::{counter, gauge};

use crate::{Error, Source};

pub(crate) fn read(source: Source) {
    counter!("mcache_client_reads_total", "outcome" => source.as_str()).increment(1);
}

pub(crate) fn reads(source: Source, count: usize) {
    counter!("mcache_client_reads_total", "outcome" => source.as_str()).increment(count as u64);
}

pub(crate) fn store(provider: &str, outcome: &'static str) {
    counter!("mcache_client_stores_total", "provider" => provider.to_owned(), "outcome" => outcome)
        .increment(1);
}

pub(crate) fn unreadable(reason: &'static str) {
    counter!("mcache_client_unreadable_total", "reason" => reason).increment(1);
}

pub(crate) fn unkept(reason: &'static str) {
    counter!("mcache_client_unkept_total", "reason" => reason).increment(1);
}

/// A call that failed and is answered as if nothing were cached.
pub(crate) fn failed_open(provider: &str, operation: &'static str, error: &Error) {
    tracing::debug!(provider, operation, %error, "the cache did not help");
    counter!("mcache_client_errors_total", "provider" => provider.to_owned(), "operation" => operation)
        .increment(1);
}

pub(crate) fn loader_overran() {
    counter!("mcache_client_loader_overruns_total").increment(1);
}

pub(crate) fn invalidation(provider: &str, outcome: &'static str) {
    counter!("mcache_client_invalidations_total", "provider" => provider.to_owned(), "outcome" => outcome)
        .increment(1);
}

pub(crate) fn invalidations_pending(provider: &str, count: usize) {
    gauge!("mcache_client_invalidations_pending", "provider" => provider.to_owned())
        .set(count as f64);
}

pub(crate) fn invalidations_folded(provider: &str) {
    counter!("mcache_client_invalidations_folded_total", "provider" => provider.to_owned())
        .increment(1);
}
