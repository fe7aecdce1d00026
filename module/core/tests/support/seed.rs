//! Where the random numbers of a test of core come from, and how they are had again.

/// The seed that `MCACHE_SEED` names, if it does.
///
/// # Panics
/// When it is no number.
pub fn replayed() -> Option<u64> {
    let text = std::env::var("MCACHE_SEED").ok()?;
    match text.parse() {
        Ok(seed) => Some(seed),
        Err(_) => panic!("MCACHE_SEED={text} is not a number"),
    }
}

/// The seed of a test: that of `MCACHE_SEED`, else a new one, short enough to be typed. It is printed, and the test
/// runner shows what a failed test printed.
#[allow(dead_code, reason = "simulations only replay")]
pub fn seed() -> u64 {
    let seed = replayed().unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    println!("MCACHE_SEED={seed}");
    seed
}
