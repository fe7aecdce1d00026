//! The small examples run, each to its end. The one of a cluster needs one: the suite of real servers runs it.

#[path = "../examples/batch.rs"]
mod batch;
#[path = "../examples/bus.rs"]
mod bus;
#[path = "../examples/provider.rs"]
mod provider;
#[path = "../examples/stale.rs"]
mod stale;
#[path = "../examples/tagged.rs"]
mod tagged;

#[test]
fn batch_runs() {
    batch::main().expect("it runs");
}

#[test]
fn bus_runs() {
    bus::main().expect("it runs");
}

#[test]
fn provider_runs() {
    provider::main().expect("it runs");
}

#[test]
fn stale_runs() {
    stale::main().expect("it runs");
}

#[test]
fn tagged_runs() {
    tagged::main().expect("it runs");
}
