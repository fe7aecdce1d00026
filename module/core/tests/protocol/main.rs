//! The whole protocol, simulated: the real logic of the crate on two shards with a replica each, in virtual time, with
//! every message delayed at random, and everything that may go wrong going wrong. Seeds are printed; `MCACHE_SEED`
//! replays one history, `MCACHE_LONG` runs fifty times as many.

mod server;
mod world;

use world::{Counts, World};

fn main_seed() -> (u64, u64) {
    let replayed = std::env::var("MCACHE_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let histories = match (replayed, std::env::var_os("MCACHE_LONG")) {
        (Some(_), _) => 1,
        (None, Some(_)) => 100_000,
        (None, None) => 2_000,
    };
    (replayed.unwrap_or_else(|| fastrand::u64(..)), histories)
}

#[test]
fn no_history_serves_what_was_invalidated_or_leaves_anybody_waiting() {
    let (first, histories) = main_seed();
    println!("seeds {first} and the {histories} from there on");
    let mut all = Counts::default();
    for seed in (0..histories).map(|n| first.wrapping_add(n)) {
        match std::panic::catch_unwind(|| World::new(seed).run()) {
            Ok(counts) => all.add(&counts),
            Err(panic) => {
                println!("replay it with MCACHE_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{all:#?}");
    // A simulation in which nothing happens proves nothing.
    for (what, count) in all.named() {
        assert!(count > 0 || histories == 1, "{what} never happened");
    }
}
