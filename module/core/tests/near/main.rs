//! The near cache's protocol, simulated: the real logic of both its sides, several servers and processes in virtual time, with
//! messages that are lost, late, repeated or out of order, clocks that drift and jump, and everything that may go wrong going
//! wrong. Seeds are printed; `MCACHE_SEED` replays one history, `MCACHE_LONG` runs fifty times as many.

mod cache;
mod clock;
mod counts;
mod histories;
mod node;
mod process;
mod stage;
mod world;

use counts::Counts;
use world::World;

fn main_seed() -> (u64, u64) {
    let replayed = std::env::var("MCACHE_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let histories = match (replayed, std::env::var_os("MCACHE_LONG")) {
        (Some(_), _) => 1,
        (None, Some(_)) => 20_000,
        (None, None) => 250,
    };
    (replayed.unwrap_or_else(|| fastrand::u64(..)), histories)
}

#[test]
fn no_near_cache_serves_what_a_settled_invalidation_concerns() {
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
