//! Runs simulated histories by seed. The seeds are printed; `MCACHE_SEED` replays one history, `MCACHE_LONG` runs many
//! more.

/// Runs `few` histories, or `many` of them with `MCACHE_LONG`, and has `each` do what is done with what came of one.
/// Returns whether it was more than the one that is replayed: only then something must have happened.
pub fn run<C>(few: u64, many: u64, history: impl Fn(u64) -> C, mut each: impl FnMut(C)) -> bool {
    let replayed = crate::seed::replayed();
    let histories = match (replayed, std::env::var_os("MCACHE_LONG")) {
        (Some(_), _) => 1,
        (None, Some(_)) => many,
        (None, None) => few,
    };
    let first = replayed.unwrap_or_else(|| fastrand::u64(..));
    println!("seeds {first} and the {histories} from there on");
    for seed in (0..histories).map(|n| first.wrapping_add(n)) {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| history(seed))) {
            Ok(counts) => each(counts),
            Err(panic) => {
                println!("replay it with MCACHE_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    histories != 1
}
