//! Near caches, from the server's side: what is told, who is granted a lease, and when an invalidation is settled.

mod granting;
mod process;
mod settling;
mod telling;
mod values;

use harness::Server;

/// A server with the feed on, whose predecessors' leases are over: it has just started, and nothing ran before it.
pub fn server() -> Server {
    Server::builder().set("mcache.feed", "yes").start()
}
