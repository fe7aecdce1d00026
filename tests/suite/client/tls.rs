//! `rediss://`: the server is authenticated before anything is said to it, and may want to know who asks.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use harness::{ScratchDir, Server, host};
use mcache::{ErrorKind, Provider, RedisProvider, server::RedisOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// An authority of this test's own, and what it has issued.
struct Authority {
    dir: ScratchDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let dir = ScratchDir::new("tls");
        fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("written");
        Self { dir, issuer }
    }

    /// Certificate and key for a name, as PEM, also as files of that name.
    fn issue(&self, name: &str, address: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([address.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let pair = (certificate.pem(), key.serialize_pem());
        fs::write(self.path().join(format!("{name}.pem")), &pair.0).expect("written");
        fs::write(self.path().join(format!("{name}.key")), &pair.1).expect("written");
        pair
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A server that lives at `address` and asks for certificates, and its port.
    fn server(&self, address: &str, ask_clients: bool) -> (Server, u16) {
        self.issue("server", address);
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let file = |name: &str| self.path().join(name).display().to_string();
        let server = Server::builder()
            .set("tls-port", port)
            .set("tls-cert-file", file("server.pem"))
            .set("tls-key-file", file("server.key"))
            .set("tls-ca-cert-file", file("ca.pem"))
            .set("tls-auth-clients", if ask_clients { "yes" } else { "no" })
            .start();
        (server, port)
    }

    fn trusted(&self) -> RedisOptions {
        RedisOptions::default().tls_root(self.issuer.pem())
    }
}

fn ping(port: u16, options: RedisOptions) -> mcache::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let provider = RedisProvider::new(&format!("rediss://127.0.0.1:{port}"), options)?;
    runtime.block_on(provider.ping())
}

/// Whether there is something to show here.
fn has_tls() -> bool {
    host::has(host::program().has_tls(), "it was built without TLS")
}

#[test]
fn a_server_with_a_certificate_of_a_trusted_authority_is_used() {
    if !has_tls() {
        return;
    }
    let authority = Authority::new();
    let (_server, port) = authority.server("127.0.0.1", false);
    ping(port, authority.trusted()).expect("it is trusted");
}

#[test]
fn a_server_nobody_vouches_for_is_not_used() {
    if !has_tls() {
        return;
    }
    let authority = Authority::new();
    let (_server, port) = authority.server("127.0.0.1", false);
    let stranger = Authority::new();
    for options in [RedisOptions::default(), stranger.trusted()] {
        assert!(
            ping(port, options)
                .expect_err("no authority vouches for it")
                .is_unavailable()
        );
    }
}

#[test]
fn a_server_with_the_certificate_of_another_is_not_used() {
    if !has_tls() {
        return;
    }
    let authority = Authority::new();
    let (_server, port) = authority.server("192.0.2.1", false);
    assert!(
        ping(port, authority.trusted())
            .expect_err("it is another")
            .is_unavailable()
    );
}

#[test]
fn a_server_that_wants_to_know_who_asks_is_told() {
    if !has_tls() {
        return;
    }
    let authority = Authority::new();
    let (_server, port) = authority.server("127.0.0.1", true);
    assert!(
        ping(port, authority.trusted()).is_err(),
        "not without a certificate"
    );
    let (certificate, key) = authority.issue("client", "client");
    ping(port, authority.trusted().tls_identity(certificate, key)).expect("it knows us");
}

#[test]
fn a_certificate_that_is_none_is_a_mistake_of_configuration() {
    let error = ping(1, RedisOptions::default().tls_root("nonsense")).expect_err("no certificate");
    assert!(error.kind() == ErrorKind::Config, "{error:?}");
}
