//! Placeholder until the first program lands.
