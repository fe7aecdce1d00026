//! Whom to trust, and who to be, on `rediss://` connections. Without the feature `tls` there are none.

use redis::{Client, ConnectionInfo, RedisError, sentinel::SentinelClientBuilder};

/// The certificates of one provider.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    #[cfg(feature = "tls")]
    certificates: Option<redis::TlsCertificates>,
}

#[cfg(feature = "tls")]
impl Tls {
    pub(super) fn trust(&mut self, root_pem: Vec<u8>) {
        self.certificates().root_cert = Some(root_pem);
    }

    pub(super) fn identify(&mut self, client_cert: Vec<u8>, client_key: Vec<u8>) {
        self.certificates().client_tls = Some(redis::ClientTlsConfig {
            client_cert,
            client_key,
        });
    }

    fn certificates(&mut self) -> &mut redis::TlsCertificates {
        self.certificates.get_or_insert(redis::TlsCertificates {
            client_tls: None,
            root_cert: None,
        })
    }

    /// A client for this address.
    pub(super) fn client(&self, info: ConnectionInfo) -> Result<Client, RedisError> {
        choose_cryptography();
        match (&self.certificates, info.addr()) {
            (Some(certificates), redis::ConnectionAddr::TcpTls { .. }) => {
                check_root(certificates)?;
                Client::build_with_tls(info, certificates.clone())
            }
            _ => Client::open(info),
        }
    }

    /// The same for Sentinels and the primary they name.
    pub(super) fn sentinels(&self, builder: SentinelClientBuilder) -> SentinelClientBuilder {
        choose_cryptography();
        match &self.certificates {
            Some(certificates) => builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates.clone()),
            None => builder,
        }
    }
}

/// Text without a certificate in it would mean: trust no authority.
#[cfg(feature = "tls")]
fn check_root(certificates: &redis::TlsCertificates) -> Result<(), RedisError> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};

    let holds_one =
        |pem: &Vec<u8>| matches!(CertificateDer::pem_slice_iter(pem).next(), Some(Ok(_)));
    match certificates.root_cert.as_ref().is_none_or(holds_one) {
        true => Ok(()),
        false => Err((
            redis::ErrorKind::InvalidClientConfig,
            "the root holds no certificate",
        )
            .into()),
    }
}

/// rustls panics at the first connection if several implementations are compiled in and none was chosen, which is for
/// the application to do; where it has not, ours is as good as any.
#[cfg(feature = "tls")]
fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Another thread may have been faster, which is just as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

#[cfg(not(feature = "tls"))]
impl Tls {
    /// A client for this address.
    pub(super) fn client(&self, info: ConnectionInfo) -> Result<Client, RedisError> {
        Client::open(info)
    }

    /// The same for Sentinels and the primary they name.
    pub(super) fn sentinels(&self, builder: SentinelClientBuilder) -> SentinelClientBuilder {
        builder
    }
}
