//! Near leases: how long they last on which clock.
//!
//! A near cache counts its lease on its own clock from before it sent the call. The server counts the same lease on its
//! own monotonic clock from when it executed the call, which is later, and 2 % longer: so it is over here after it is
//! over there, as long as the two clocks do not run apart by more than that.

/// The longest near lease that can be configured, in milliseconds.
pub const LONGEST_MS: u64 = 5_000;
/// The shortest.
pub const SHORTEST_MS: u64 = 100;

/// How long the server waits for a lease of so many milliseconds, in microseconds. The last one is for a clock that
/// tells whole microseconds.
pub fn server_us(lease_ms: u64) -> u64 {
    lease_ms * 1_020 + 1
}

/// How long predecessors' leases are waited for: the longest there can be, and as long as a server may take to notice
/// that it lost slots. A former owner grants for that long after they are gone.
pub fn predecessors_us() -> u64 {
    server_us(LONGEST_MS) + LOOK_US
}

/// How old what a server knows of its cluster may be, in microseconds.
pub const LOOK_US: u64 = 100_000;

/// How long a process waits, by its own clock and from an acknowledgement that it has received, for a lease that a
/// server may have granted before: both clocks may be off.
pub fn waiting_ms(lease_ms: u64) -> u64 {
    lease_ms * 104 / 100 + 1
}

/// The longest call of FEED: a third of the lease, so that the next one renews in time even if it is repeated.
pub fn longest_wait_ms(lease_ms: u64) -> u64 {
    lease_ms / 3
}
