//! What is counted. One place, so that names do not drift; they are listed in the crate's documentation.

use std::{sync::Arc, time::Duration};

use metrics::{Counter, Histogram, IntoF64, SharedString, counter, gauge, histogram};
use tokio::time::Instant;

use crate::{Error, Source};

/// A read by one caller, which began then.
pub(crate) fn read(source: Source, began: Instant, family: Option<&Arc<str>>) {
    counted(source, family).increment(1);
    seconds(source, family).record(Since(began));
}

/// The seconds since then. The clock is read only where a recorder is installed.
struct Since(Instant);

impl IntoF64 for Since {
    fn into_f64(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// A read served by the near cache without anything else. It is not timed: the clock would cost as much as the read.
#[inline]
pub(crate) fn near_read(family: Option<&Arc<str>>) {
    counted(Source::Near, family).increment(1);
}

/// Entries left the near cache.
pub(crate) fn near_dropped(reason: &'static str, count: usize) {
    counter!("mcache_client_near_drops_total", "reason" => reason).increment(count as u64);
}

/// A value was read or stored; whether it was put away.
pub(crate) fn near_kept(is_kept: bool) {
    let outcome = if is_kept { "kept" } else { "not_kept" };
    counter!("mcache_client_near_puts_total", "outcome" => outcome).increment(1);
}

/// The feed answered: how long what came from that server may be served from now on.
pub(crate) fn near_lease(left_ms: u64) {
    gauge!("mcache_client_near_lease_seconds").set(left_ms as f64 / 1e3);
}

/// How old what an answer of the feed says was when it came: since the answer before.
pub(crate) fn near_feed_age(age_ms: u64) {
    histogram!("mcache_client_near_feed_age_seconds").record(age_ms as f64 / 1e3);
}

pub(crate) fn near_bytes(bytes: u64) {
    gauge!("mcache_client_near_bytes").set(bytes as f64);
}

/// Keys that were read as a part of a [`batch`].
pub(crate) fn reads(source: Source, count: usize, family: Option<&Arc<str>>) {
    counted(source, family).increment(count as u64);
}

/// A read of several keys, which began then.
pub(crate) fn batch(began: Instant, family: Option<&Arc<str>>) {
    let histogram = match family {
        None => histogram!("mcache_client_batch_seconds"),
        Some(family) => histogram!("mcache_client_batch_seconds", "family" => label(family)),
    };
    histogram.record(Since(began));
}

/// A metric of each outcome. Spelled out: labels that are literals cost a read no allocation.
macro_rules! by_outcome {
    ($metric:ident, $name:literal, $source:expr, $family:expr) => {
        match ($family, $source) {
            (Some(family), source) => {
                $metric!($name, "outcome" => source.as_str(), "family" => label(family))
            }
            (None, Source::Hit) => $metric!($name, "outcome" => "hit"),
            (None, Source::Near) => $metric!($name, "outcome" => "near"),
            (None, Source::Stale) => $metric!($name, "outcome" => "stale"),
            (None, Source::Loaded) => $metric!($name, "outcome" => "miss"),
            (None, Source::Joined) => $metric!($name, "outcome" => "joined"),
            (None, Source::Bypass) => $metric!($name, "outcome" => "bypass"),
        }
    };
}

fn counted(source: Source, family: Option<&Arc<str>>) -> Counter {
    by_outcome!(counter, "mcache_client_reads_total", source, family)
}

fn seconds(source: Source, family: Option<&Arc<str>>) -> Histogram {
    by_outcome!(histogram, "mcache_client_read_seconds", source, family)
}

fn label(family: &Arc<str>) -> SharedString {
    SharedString::from_shared(family.clone())
}

/// A loader was called and has ended.
pub(crate) fn loaded(is_ok: bool, took: Duration, family: Option<&Arc<str>>) {
    let outcome = if is_ok { "loaded" } else { "failed" };
    let histogram = match family {
        None => histogram!("mcache_client_loader_seconds", "outcome" => outcome),
        Some(family) => {
            histogram!("mcache_client_loader_seconds", "outcome" => outcome, "family" => label(family))
        }
    };
    histogram.record(took.as_secs_f64());
}

/// A refresh for which no caller waited.
pub(crate) fn refresh_failed() {
    counter!("mcache_client_refreshes_failed_total").increment(1);
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
