//! Early refresh: of those who read an entry shortly before it expires, one may load it anew while the others are still
//! served, so that a key under load never expires at all.
//!
//! Every reader throws a die that is the likelier to win the nearer the end is (XFetch, after Vattani, Chierichetti and
//! Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015): refresh if
//! `now - fill * beta * ln(random) >= end`. So the first to win comes about as long before the end as a fill takes,
//! earlier where there are more readers, and needs to know nothing of them.

/// Whether this reader is to refresh an entry that has `left_ms` to live.
///
/// `fill_ms` is how long a fill takes, times `beta` if one wants it earlier (above 1) or later; 0 never refreshes
/// early. `random` is any number, evenly distributed.
pub fn is_due(left_ms: u64, fill_ms: u64, random: u64) -> bool {
    fill_ms > 0 && ahead_ms(fill_ms, random) >= left_ms as f64
}

/// How long before its end this reader would refresh an entry.
pub fn ahead_ms(fill_ms: u64, random: u64) -> f64 {
    // From above 0 to 1: 53 bits, as many as a float has.
    let uniform = ((random >> 11) + 1) as f64 / (1u64 << 53) as f64;
    -uniform.ln() * fill_ms as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The chance is `exp(-left / fill)`.
    #[test]
    fn the_nearer_the_end_the_likelier() {
        let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
        for (left_ms, fill_ms) in [
            (0, 50),
            (10, 50),
            (50, 50),
            (100, 50),
            (250, 50),
            (50, 5_000),
        ] {
            const TRIALS: u32 = 100_000;
            let won = (0..TRIALS)
                .filter(|_| is_due(left_ms, fill_ms, rng.u64(..)))
                .count();
            let expected = (-(left_ms as f64) / fill_ms as f64).exp();
            let measured = won as f64 / f64::from(TRIALS);
            // Five standard deviations.
            let tolerance = 5.0 * (expected * (1.0 - expected) / f64::from(TRIALS)).sqrt();
            assert!(
                (measured - expected).abs() <= tolerance,
                "{left_ms} of {fill_ms}: {measured}, expected {expected}"
            );
        }
    }

    #[test]
    fn never_without_a_time_and_never_by_accident() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(!is_due(0, 0, random));
            assert!(
                !is_due(1_000_000, 1_000, random),
                "the longest throw is 37 fills"
            );
        }
        assert!(is_due(0, 1, u64::MAX));
    }
}
