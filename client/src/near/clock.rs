//! The clock by which leases are counted: one that goes on while the process is stopped and while the machine sleeps.
//!
//! It is read within each call that serves. A flag that a timer clears would still be set when a stopped process goes
//! on.

/// Milliseconds since the machine started, sleep included, rounded down.
///
/// Rounding down errs to the safe side: a lease that is counted from a moment rounded down ends earlier, and a moment
/// rounded down is before a whole millisecond only if the moment itself is.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[inline]
pub(super) fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Neither is negative: the clock starts at zero.
    now.tv_sec as u64 * 1_000 + now.tv_nsec as u64 / 1_000_000
}

/// Past the end of every lease: nothing is served.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn now_ms() -> u64 {
    u64::MAX
}

/// Whether this system has such a clock.
pub(super) const IS_THERE: bool = cfg!(any(target_os = "linux", target_os = "android"));
