//! The near cache's protocol, simulated: the real logic of both its sides, several servers and processes in virtual
//! time, with messages that are lost, late, repeated or out of order, clocks that drift and jump, and everything that
//! may go wrong going wrong. Seeds are printed; `MCACHE_SEED` replays one history, `MCACHE_LONG` runs fifty times as
//! many.

mod cache;
mod clock;
mod counts;
mod histories;
mod node;
mod process;
#[path = "../support/seed.rs"]
mod seed;
#[path = "../support/histories.rs"]
mod simulated;
mod stage;
mod world;

use counts::Counts;
use world::World;

#[test]
fn no_near_cache_serves_what_a_settled_invalidation_concerns() {
    let mut all = Counts::default();
    let several = simulated::run(
        250,
        20_000,
        |seed| World::new(seed).run(),
        |counts| all.add(&counts),
    );
    println!("{all:#?}");
    // A simulation in which nothing happens proves nothing.
    for (what, count) in all.named() {
        assert!(count > 0 || !several, "{what} never happened");
    }
}
