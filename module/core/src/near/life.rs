//! How long an entry of a near cache lives.

use crate::early::ahead_ms;

/// When an entry ends: its life counts from before it was asked for, and by chance it ends a little earlier (see
/// `crate::early`), so that N processes do not miss a hot key at one moment. `fill_ms` is how long a fill takes, 0
/// without early refresh; `random` is any number, evenly distributed.
pub fn end_ms(asked_ms: u64, life_ms: Option<u64>, fill_ms: u64, random: u64) -> u64 {
    let Some(life_ms) = life_ms else {
        return u64::MAX;
    };
    let early_ms = ahead_ms(fill_ms, random) as u64;
    asked_ms.saturating_add(life_ms.saturating_sub(early_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ends_with_its_life_or_a_few_fills_earlier() {
        assert_eq!(end_ms(1_000, Some(500), 0, 0), 1_500);
        assert_eq!(end_ms(1_000, Some(500), 50, u64::MAX), 1_500);
        assert_eq!(
            end_ms(1_000, Some(500), 50, 0),
            1_000,
            "37 fills is the longest"
        );
        assert_eq!(end_ms(1_000, None, 50, 0), u64::MAX);
        assert_eq!(end_ms(u64::MAX, Some(u64::MAX), 1, 7), u64::MAX);
        let half = end_ms(1_000, Some(500), 100, u64::MAX / 2);
        assert_eq!(half, 1_500 - 69, "a fill times ln 2");
    }
}
