//! The whole protocol, simulated: the real logic of the crate on two shards with a replica each, in virtual time, with
//! every message delayed at random, and everything that may go wrong going wrong. Seeds are printed; `MCACHE_SEED`
//! replays one history, `MCACHE_LONG` runs fifty times as many.

#[path = "../support/seed.rs"]
mod seed;
mod server;
#[path = "../support/histories.rs"]
mod simulated;
mod world;

use world::{Counts, World};

#[test]
fn no_history_serves_what_was_invalidated_or_leaves_anybody_waiting() {
    let mut all = Counts::default();
    let several = simulated::run(
        2_000,
        100_000,
        |seed| World::new(seed).run(),
        |counts| all.add(&counts),
    );
    println!("{all:#?}");
    // A simulation in which nothing happens proves nothing.
    for (what, count) in all.named() {
        assert!(count > 0 || !several, "{what} never happened");
    }
}
