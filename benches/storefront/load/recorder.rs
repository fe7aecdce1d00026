//! How long each endpoint took, and where its answers came from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Reply;

/// Measurements kept per endpoint; of more than these the newest replace the oldest.
const SAMPLES_MAX: usize = 20_000;

/// What many visitors measured together.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<BTreeMap<&'static str, Endpoint>>>);

#[derive(Debug, Default)]
struct Endpoint {
    took_us: Vec<u32>,
    next: usize,
    requests: u64,
    failures: u64,
}

/// What was measured of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Requests answered.
    pub requests: u64,
    /// Answered with a status of 500 or more, or not at all.
    pub failures: u64,
    /// Half of the requests took no longer, in milliseconds.
    pub p50_ms: f64,
    /// Nineteen of twenty took no longer, in milliseconds.
    pub p95_ms: f64,
}

impl Recorder {
    /// Records an answer.
    pub fn record(&self, endpoint: &'static str, reply: &Reply) {
        self.with(endpoint, |seen| {
            seen.requests += 1;
            seen.failures += u64::from(reply.status.is_server_error());
            let took_us = u32::try_from(reply.took.as_micros()).unwrap_or(u32::MAX);
            if seen.took_us.len() < SAMPLES_MAX {
                seen.took_us.push(took_us);
            } else {
                seen.took_us[seen.next] = took_us;
                seen.next = (seen.next + 1) % SAMPLES_MAX;
            }
        });
    }

    /// Records that no answer came.
    pub fn record_failure(&self, endpoint: &'static str) {
        self.with(endpoint, |seen| seen.failures += 1);
    }

    /// What was measured of an endpoint so far.
    pub fn figures(&self, endpoint: &'static str) -> Figures {
        self.with(endpoint, |seen| {
            let mut sorted = seen.took_us.clone();
            sorted.sort_unstable();
            Figures {
                requests: seen.requests,
                failures: seen.failures,
                p50_ms: quantile_ms(&sorted, 0.50),
                p95_ms: quantile_ms(&sorted, 0.95),
            }
        })
    }

    /// Requests that were answered with a server error, or not at all, on all endpoints.
    pub fn failures(&self) -> u64 {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.values().map(|endpoint| endpoint.failures).sum()
    }

    fn with<T>(&self, endpoint: &'static str, act: impl FnOnce(&mut Endpoint) -> T) -> T {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(seen.entry(endpoint).or_default())
    }
}

fn quantile_ms(sorted_us: &[u32], quantile: f64) -> f64 {
    let last = sorted_us.len().saturating_sub(1);
    let at = (last as f64 * quantile).round() as usize;
    let took_us = sorted_us.get(at).copied().unwrap_or(0);
    Duration::from_micros(u64::from(took_us)).as_secs_f64() * 1e3
}
