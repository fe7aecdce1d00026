//! The access patterns: 100,000 keys of 22 bytes, evenly and by Zipf's law, in an order drawn beforehand.

/// How many keys there are.
pub const KEYS: usize = 100_000;

/// How many reads a turn has.
pub const READS: usize = 1_000_000;

/// All keys.
pub fn all() -> Vec<String> {
    (0..KEYS)
        .map(|number| format!("store:product:{number:08}"))
        .collect()
}

/// Each key as likely as any other.
pub fn uniform(rng: &mut fastrand::Rng) -> Vec<usize> {
    (0..READS).map(|_| rng.usize(..KEYS)).collect()
}

/// The n-th key as likely as 1 / n^0.99, as YCSB has it.
pub fn zipf(rng: &mut fastrand::Rng) -> Vec<usize> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=KEYS)
        .map(|n| {
            sum += (n as f64).powf(-0.99);
            sum
        })
        .collect();
    // The likely ones are not neighbours in memory.
    let mut places: Vec<usize> = (0..KEYS).collect();
    rng.shuffle(&mut places);
    (0..READS)
        .map(|_| {
            let drawn = rng.f64() * sum;
            places[sums.partition_point(|sum| *sum < drawn).min(KEYS - 1)]
        })
        .collect()
}
