//! How an invalidation comes to be settled: by a SETTLE, or by waiting.

use crate::feed::lease;

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Step {
    /// No near cache serves what it concerns any more.
    Settled,
    /// Ask the server with SETTLE, at most until this moment; then it is settled by itself.
    Ask { until_ms: u64 },
}

/// One invalidation at one server, from its acknowledgement on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settle {
    until_ms: u64,
    leases: u64,
}

impl Settle {
    /// `INVALIDATE ... NEAR` was acknowledged, just now by the clock of this process: so many leases may run, the
    /// longest for so many milliseconds.
    pub fn acknowledged(leases: u64, longest_ms: u64, now_ms: u64) -> Self {
        Settle {
            until_ms: now_ms.saturating_add(lease::waiting_ms(longest_ms)),
            leases,
        }
    }

    /// For an acknowledgement that does not name the leases: the longest lease there can be.
    pub fn unknown(now_ms: u64) -> Self {
        Settle::acknowledged(1, lease::predecessors_us().div_ceil(1_000), now_ms)
    }

    /// How it stands by time alone. Whether or not a process answers SETTLE, when the leases of that moment are over,
    /// it is settled.
    pub fn step(&self, now_ms: u64) -> Step {
        match self.leases == 0 || now_ms >= self.until_ms {
            true => Step::Settled,
            false => Step::Ask {
                until_ms: self.until_ms,
            },
        }
    }

    /// SETTLE replied that so many are still waiting.
    pub fn replied(&mut self, waiting: u64) {
        if waiting == 0 {
            self.leases = 0;
        }
    }
}
