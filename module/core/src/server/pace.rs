//! How long a slice of reclaim may take: the whole budget while the event loop is idle, a quarter of it while clients
//! are being served. How long the loop took since the last slice tells which it is.

/// A round of the event loop that took less served no client: an empty one takes 5 us, one with a GET 20.
const IDLE_ROUND_NS: u64 = 12_000;

/// The pace of slices. Times are of a monotonic clock, in nanoseconds from any beginning.
#[derive(Debug, Default)]
pub struct Pace {
    slice_us: u64,
    ended_ns: Option<u64>,
}

impl Pace {
    /// A row of slices begins.
    pub fn start(&mut self, budget_us: u64) {
        self.slice_us = budget_us;
    }

    /// A slice begins; returns when it must end.
    pub fn begin(&mut self, now_ns: u64, budget_us: u64) -> u64 {
        let idle = self
            .ended_ns
            .is_none_or(|ended| now_ns.saturating_sub(ended) < IDLE_ROUND_NS);
        let wanted_us = match idle {
            true => self.slice_us * 2,
            false => self.slice_us / 2,
        };
        self.slice_us = wanted_us.clamp((budget_us / 4).max(1), budget_us.max(1));
        now_ns + self.slice_us * 1_000
    }

    /// A slice ended.
    pub fn end(&mut self, now_ns: u64) {
        self.ended_ns = Some(now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_shrink_to_a_quarter_while_clients_are_served_and_grow_back() {
        let mut pace = Pace::default();
        pace.start(100);
        let mut now_ns = 0;
        let mut slice = |round_ns: u64| {
            now_ns += round_ns;
            let length_ns = pace.begin(now_ns, 100) - now_ns;
            now_ns += length_ns;
            pace.end(now_ns);
            length_ns / 1_000
        };
        assert_eq!(slice(0), 100, "the first");
        assert_eq!([slice(20_000), slice(20_000), slice(20_000)], [50, 25, 25]);
        assert_eq!([slice(5_000), slice(5_000), slice(5_000)], [50, 100, 100]);
    }

    #[test]
    fn a_slice_is_never_empty_and_never_longer_than_a_budget_lowered_meanwhile() {
        let mut pace = Pace::default();
        assert_eq!(pace.begin(0, 20), 5_000, "even one that was not announced");
        pace.start(100_000);
        assert_eq!(pace.begin(0, 20), 20_000);
    }
}
