//! Real servers for tests, benches and examples.
//!
//! ```no_run
//! let server = harness::Server::start();
//! let mut redis = server.session();
//! redis.ok("MCACHE.SET product:42 60 tea TAGS Product:42");
//! assert_eq!(redis.int("MCACHE.INVALIDATE TAGS Product:42"), 1);
//! assert_eq!(redis.text("MCACHE.GET product:42"), None);
//! ```
//!
//! Everything here fails by panicking with what a person needs to see: the command that was refused, the server's log,
//! the seed. Nothing here sleeps to let something happen; [`wait::until`] polls a condition to a deadline. Every server
//! lives in its own directory on its own socket, so that tests run side by side and leave nothing behind.
//!
//! | to | use |
//! |---|---|
//! | start, restart, kill or pause a Redis server with the module | [`Server`] |
//! | talk to it in lines, as `redis-cli` would | [`Session`] |
//! | know which server it is, and leave out what it cannot do | [`host`] |
//! | have replicas, a Sentinel, a Cluster | [`topology`] |
//! | move whole slots of a cluster at once | [`slots`] |
//! | have a PostgreSQL server | [`Postgres`] |
//! | cut, delay or stall the network | [`Proxy`] |
//! | read what a server tells its replicas | [`ReplicationStream`] |
//! | read commands from a connection | [`resp`] |
//! | start other programs, and end them | [`KillOnDrop`] |
//! | replay a shop's recorded calls, with values of the recorded sizes | [`trace`], [`page`] |
//! | compare figures with those in a table that is kept | [`figures`] |
//! | draw random operations that can be drawn again | [`Seed`] |

pub mod figures;
pub mod host;
mod index;
pub mod line;
pub mod locate;
pub mod page;
mod postgres;
mod process;
mod proxy;
pub mod resp;
mod rng;
mod scratch;
mod server;
mod session;
pub mod slots;
mod stream;
pub mod topology;
pub mod trace;
pub mod wait;

pub use postgres::{PgBouncer, Postgres};
pub use process::KillOnDrop;
pub use proxy::Proxy;
pub use rng::Seed;
pub use scratch::ScratchDir;
pub use server::{Server, ServerBuilder};
pub use session::Session;
pub use stream::ReplicationStream;
