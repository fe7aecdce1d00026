//! How long a slice of reclaim may take, and how long it rests then: the whole budget and not at all while the event
//! loop is idle; while clients are being served a quarter of the budget, and as long a rest.
//!
//! How much processor time the server used since the last slice tells which it is. Falling asleep and waking up take
//! some, too, so the question is asked after every few slices, behind one that has no rest. The rest is not for the
//! clients' turn, which comes after each slice anyway: a process that never sleeps has to give way to others in the
//! middle of its work, for milliseconds where processors are few, and a process that sleeps half of the time has not.

/// A round of the event loop that used less processor time served no client: an empty one takes 5 us, one with a GET
/// 20.
const IDLE_ROUND_NS: u64 = 12_000;

/// So many slices while clients are served, the last one without a rest.
const ROW: u32 = 8;

/// After so many rounds in a row that served no client none is being served: between two calls of one client there are
/// some.
const QUIET: u32 = 4;

/// The pace of slices. Moments are of a monotonic clock, or of one that counts the processor time of this thread, in
/// nanoseconds from any beginning.
#[derive(Debug, Default)]
pub struct Pace {
    slice_us: u64,
    /// Processor time at the end of the last slice.
    used_ns: Option<u64>,
    serving: bool,
    /// Slices with a rest since the last one without.
    rests: u32,
    /// Rounds that served no client since the last one that did.
    quiet: u32,
}

impl Pace {
    /// A row of slices begins.
    pub fn start(&mut self, budget_us: u64) {
        self.slice_us = budget_us;
        self.used_ns = None;
        self.serving = false;
        self.rests = 0;
    }

    /// A slice begins, at a moment and after so much processor time; returns the moment when it must end.
    pub fn begin(&mut self, now_ns: u64, used_ns: u64, budget_us: u64) -> u64 {
        if self.rests == 0 {
            let used_ns = self
                .used_ns
                .map_or(0, |before| used_ns.saturating_sub(before));
            self.quiet = match used_ns < IDLE_ROUND_NS {
                true => self.quiet.saturating_add(1),
                false => 0,
            };
            self.serving = self.quiet == 0 || self.serving && self.quiet < QUIET;
        }
        let wanted_us = match self.serving {
            false => self.slice_us * 2,
            true => self.slice_us / 2,
        };
        self.slice_us = wanted_us.clamp((budget_us / 4).max(1), budget_us.max(1));
        now_ns + self.slice_us * 1_000
    }

    /// A slice ended, after so much processor time; returns how long to rest, in nanoseconds.
    pub fn end(&mut self, used_ns: u64) -> u64 {
        self.used_ns = Some(used_ns);
        self.rests = match self.serving && self.quiet == 0 {
            true => (self.rests + 1) % ROW,
            false => 0,
        };
        if self.rests == 0 {
            return 0;
        }
        self.slice_us * 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_shrink_and_rest_while_clients_are_served_and_grow_back() {
        let mut pace = Pace::default();
        pace.start(100);
        let mut used_ns = 0;
        let mut slice = |round_ns: u64| {
            used_ns += round_ns;
            let length_ns = pace.begin(7, used_ns, 100) - 7;
            used_ns += length_ns;
            (length_ns / 1_000, pace.end(used_ns) / 1_000)
        };
        assert_eq!(slice(0), (100, 0), "the first");
        assert_eq!(
            [slice(20_000), slice(20_000), slice(20_000)],
            [(50, 50), (25, 25), (25, 25)]
        );
        assert_eq!(
            [slice(5_000), slice(5_000), slice(5_000), slice(5_000)],
            [(25, 25); 4],
            "falling asleep and waking up may be all that was done, or less"
        );
        assert_eq!(slice(20_000), (25, 0), "one without a rest");
        assert_eq!([slice(5_000), slice(5_000), slice(5_000)], [(25, 0); 3]);
        assert_eq!(slice(20_000), (25, 25), "the client's next call");
        let last: Vec<_> = (0..6).map(|_| slice(5_000)).collect();
        assert_eq!(last, [(25, 25); 6]);
        assert_eq!(
            [slice(5_000), slice(5_000), slice(5_000), slice(5_000)],
            [(25, 0); 4]
        );
        assert_eq!([slice(5_000), slice(5_000)], [(50, 0), (100, 0)]);
        pace.start(100);
        assert_eq!(
            pace.begin(0, 1_000_000, 100),
            100_000,
            "what was before a row says nothing"
        );
    }

    #[test]
    fn a_slice_is_never_empty_and_never_longer_than_a_budget_lowered_meanwhile() {
        let mut pace = Pace::default();
        assert_eq!(
            pace.begin(0, 0, 20),
            5_000,
            "even one that was not announced"
        );
        pace.start(100_000);
        assert_eq!(pace.begin(0, 0, 20), 20_000);
    }
}
