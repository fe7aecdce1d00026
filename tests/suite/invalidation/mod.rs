//! Invalidations: what they reach, and when they are refused.

mod refused;
