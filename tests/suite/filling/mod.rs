//! Filling: leases, and clients that wait for the fill of another.

mod waking;
