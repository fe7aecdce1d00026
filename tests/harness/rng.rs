//! Random numbers that can be had again.
//!
//! Owns where a test's seed comes from and how it is told. It must not know what is drawn.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// A seeded source of random numbers for one test.
///
/// The seed is random unless `MCACHE_SEED` names one. It is printed when drawn, and the test runner shows what a failed
/// test printed, so a failure always tells how to have it again.
#[derive(Debug)]
pub struct Seed {
    seed: u64,
    rng: fastrand::Rng,
}

impl Seed {
    /// Draws the seed of `test` and prints it.
    ///
    /// # Panics
    ///
    /// When `MCACHE_SEED` is set but no number.
    pub fn draw(test: &str) -> Self {
        let seed = match std::env::var("MCACHE_SEED") {
            Ok(text) => text
                .parse()
                .unwrap_or_else(|_| panic!("MCACHE_SEED={text} is not a number")),
            // Short enough to be typed again.
            Err(_) => fastrand::u64(..1_000_000_000),
        };
        println!("{test}: MCACHE_SEED={seed}");
        Self::fixed(seed)
    }

    /// A source with this seed: for the parts of a test that are not meant to vary.
    pub fn fixed(seed: u64) -> Self {
        Self {
            seed,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// One of `choices`.
    ///
    /// # Panics
    ///
    /// When there is nothing to choose from.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.rng.usize(..choices.len())]
    }

    /// True in `percent` of a hundred draws.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(..100) < percent
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MCACHE_SEED={}", self.seed)
    }
}

impl Deref for Seed {
    type Target = fastrand::Rng;

    fn deref(&self) -> &Self::Target {
        &self.rng
    }
}

impl DerefMut for Seed {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.rng
    }
}
