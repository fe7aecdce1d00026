//! Times and limits of the connections to one node.

use std::time::Duration;

use super::tls::Tls;

/// Times and limits of one connection.
#[derive(Debug, Clone)]
pub(super) struct LinkOptions {
    pub(super) connect_timeout: Duration,
    pub(super) command_deadline: Duration,
    pub(super) breaker_failures: u32,
    pub(super) breaker_pause: Duration,
    pub(super) parked_max: usize,
    pub(super) parked_idle_max: Duration,
    /// What the server calls our connections; each adds what it is for.
    pub(super) client_name: Option<String>,
    pub(super) tls: Tls,
}
