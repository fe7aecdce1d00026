//! The example of a cluster runs against one.

#[expect(
    dead_code,
    reason = "its `main` starts the runtime that the test brings along"
)]
#[path = "../../../client/examples/cluster.rs"]
mod cluster;

use harness::topology::Cluster;

use crate::support::runtime::run;

#[test]
fn it_runs() {
    let nodes = Cluster::start();
    run(async { cluster::show(&nodes.url()).await.expect("it runs") });
}
