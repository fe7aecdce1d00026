//! mcache.
