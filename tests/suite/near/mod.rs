//! Near caches, from the server's side: what is told, who is granted a lease, and when an invalidation is settled.

mod granting;
pub mod process;
mod settling;
mod telling;
mod values;

use harness::Server;

/// A server with the feed on. The lease is as long as it can be, for a busy machine.
pub fn server() -> Server {
    Server::builder().feed(5_000).start()
}
