//! Invalidations: what they reach, and when they are refused.

mod invalidate;
mod orphans;
mod reclaim;
mod refused;
mod soft;
