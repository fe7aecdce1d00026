//! How a connection is made: to a known address, or to the server that a Sentinel calls the primary now.

use std::fmt;

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisError, TlsMode,
    aio::{MultiplexedConnection, PubSub},
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use tokio::{sync::Mutex, time::timeout};

use super::{options::LinkOptions, tls::Tls};

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

    /// The server calls the connection by the client's name and what it is for: `CLIENT LIST` can be read.
    pub(super) async fn dial(
        &self,
        options: &LinkOptions,
        purpose: &str,
    ) -> Result<MultiplexedConnection, RedisError> {
        let connect_timeout = options.connect_timeout;
        let name = options
            .client_name
            .as_ref()
            .map(|name| format!("{name}:{purpose}"));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect_timeout))
            // Each call has its own deadline; a parked one's is much later.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        let dialled = async {
            let mut connection = self.connect(&config).await?;
            if let Some(name) = name {
                let mut cmd = redis::cmd("CLIENT");
                cmd.arg("SETNAME").arg(name);
                // A user who may not give it a name may still use it; if the connection is broken, its first call
                // tells.
                let _ = connection.send_packed_command(&cmd).await;
            }
            Ok(connection)
        };
        // The connection timeout covers one attempt at one address; a Sentinel asks several.
        timeout(connect_timeout, dialled)
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }

    /// A connection that hears what is said in this channel.
    pub(super) async fn subscribe(
        &self,
        options: &LinkOptions,
        channel: &[u8],
    ) -> Result<PubSub, RedisError> {
        let subscribed = async {
            let client = match self {
                Self::Direct(client) => (**client).clone(),
                Self::Sentinel { client, .. } => client.lock().await.async_get_client().await?,
            };
            let mut listening = client.get_async_pubsub().await?;
            listening.subscribe(channel).await?;
            Ok(listening)
        };
        timeout(options.connect_timeout, subscribed)
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }

    async fn connect(
        &self,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, RedisError> {
        match self {
            Self::Direct(client) => {
                client
                    .get_multiplexed_async_connection_with_config(config)
                    .await
            }
            Self::Sentinel { client, .. } => {
                let mut client = client.lock().await;
                client.get_async_connection_with_config(config).await
            }
        }
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
