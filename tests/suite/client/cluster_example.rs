//! The example of a cluster runs against one.

#[allow(dead_code, reason = "its main reads an address from the command line")]
#[path = "../../../client/examples/cluster.rs"]
mod cluster;

use harness::topology::Cluster;

use crate::runtime::run;

#[test]
fn it_runs() {
    let nodes = Cluster::start();
    run(async { cluster::show(&nodes.url()).await.expect("it runs") });
}
