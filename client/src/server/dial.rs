//! How a connection is made: to a known address, or to whatever a Sentinel says is the primary now.

use std::{fmt, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisError, TlsMode,
    aio::MultiplexedConnection,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use tokio::{sync::Mutex, time::timeout};

use super::tls::Tls;

/// Commands under way on one connection before further callers wait for room. The crate's own 50 is for applications
/// with a few connections in use at a time; ours is shared by all of them.
const PIPELINE_BUFFER: usize = 1024;

pub(super) enum Dialer {
    Direct(Box<Client>),
    Sentinel {
        /// The primary's name, for messages.
        service: String,
        /// One dial at a time, which is all a link asks for.
        client: Mutex<Box<SentinelClient>>,
    },
}

impl Dialer {
    /// To this address.
    pub(super) fn direct(info: ConnectionInfo, tls: &Tls) -> Result<Self, RedisError> {
        Ok(Self::Direct(Box::new(tls.client(info)?)))
    }

    /// To the primary of this name, with credentials, database, protocol and encryption as in `primary`.
    pub(super) fn sentinel(
        sentinels: &[ConnectionInfo],
        service: String,
        primary: &ConnectionInfo,
        tls: &Tls,
    ) -> Result<Self, RedisError> {
        let redis = primary.redis_settings();
        let addresses = sentinels.iter().map(|sentinel| sentinel.addr().clone());
        let mut builder =
            SentinelClientBuilder::new(addresses, &service, SentinelServerType::Master)?
                .set_client_to_redis_db(redis.db())
                .set_client_to_redis_protocol(redis.protocol());
        if let Some(username) = redis.username() {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = redis.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if let ConnectionAddr::TcpTls { insecure, .. } = primary.addr() {
            builder = tls.sentinels(builder.set_client_to_redis_tls_mode(match insecure {
                true => TlsMode::Insecure,
                false => TlsMode::Secure,
            }));
        }
        Ok(Self::Sentinel {
            service,
            client: Mutex::new(Box::new(builder.build()?)),
        })
    }

    pub(super) async fn dial(
        &self,
        connect_timeout: Duration,
    ) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect_timeout))
            // Each call has its own deadline; a parked one's is much later.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        let dialled = async {
            match self {
                Self::Direct(client) => {
                    client
                        .get_multiplexed_async_connection_with_config(&config)
                        .await
                }
                Self::Sentinel { client, .. } => {
                    client
                        .lock()
                        .await
                        .get_async_connection_with_config(&config)
                        .await
                }
            }
        };
        // The connection timeout covers one attempt at one address; a Sentinel asks several.
        timeout(connect_timeout, dialled)
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }
}

impl fmt::Display for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(client) => client.get_connection_info().addr().fmt(f),
            Self::Sentinel { service, .. } => write!(f, "primary of {service}"),
        }
    }
}
