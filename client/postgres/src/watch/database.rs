//! What the program asks the database itself: to be let in, over TLS or not, and which columns tables have.

use std::sync::Arc;

use mcache_postgres::{Outbox, OutboxSource, PostgresError};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::file::File;
use super::plan::Columns;

/// How to connect.
pub(crate) struct Access {
    config: Config,
    /// Only if the address asks for it: to a socket of this machine there is none.
    tls: Option<MakeRustlsConnect>,
}

/// Why it is not known how to connect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error("database.url: {}", causes(.0))]
    Url(tokio_postgres::Error),
    #[error("database.ca, {path}: {reason}")]
    Ca { path: String, reason: String },
    #[error(
        "sslmode=require, but this system has no certificates to trust and database.ca names none"
    )]
    NoRoots,
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Access {
    /// TLS is used if the address says `sslmode=require`, and then the server's certificate is always verified;
    /// `verify-full` and `verify-ca` mean the same.
    pub(crate) fn new(file: &File, url: &str) -> Result<Self, AccessError> {
        let url = url.replace("sslmode=verify-full", "sslmode=require");
        let url = url.replace("sslmode=verify-ca", "sslmode=require");
        let mut config: Config = url.parse().map_err(AccessError::Url)?;
        config.application_name("mcache-watch");
        if config.get_ssl_mode() != SslMode::Require {
            // Otherwise a server with a certificate of its own making would be refused although the file does not ask
            // for TLS.
            config.ssl_mode(SslMode::Disable);
            return Ok(Self { config, tls: None });
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted(file.database.ca.as_deref())?)
            .with_no_client_auth();
        Ok(Self {
            config,
            tls: Some(MakeRustlsConnect::new(tls)),
        })
    }

    /// Installs an outbox, over a connection of its own.
    pub(crate) async fn install(&self, outbox: &Outbox) -> Result<(), PostgresError> {
        match &self.tls {
            None => outbox.install_with(self.config.clone(), NoTls).await,
            Some(tls) => outbox.install_with(self.config.clone(), tls.clone()).await,
        }
    }

    /// The changes that wait in an outbox.
    pub(crate) fn source(&self, outbox: &Outbox) -> OutboxSource {
        match &self.tls {
            None => outbox.source(self.config.clone(), NoTls),
            Some(tls) => outbox.source(self.config.clone(), tls.clone()),
        }
    }

    /// A connection, driven by a task that ends with it.
    pub(crate) async fn connect(&self) -> Result<Connected, tokio_postgres::Error> {
        // The client's next statement says what went wrong.
        let (client, driver) = match &self.tls {
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                (client, tokio::spawn(async { drop(connection.await) }))
            }
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                (client, tokio::spawn(async { drop(connection.await) }))
            }
        };
        Ok(Connected { client, driver })
    }
}

/// A connection.
pub(crate) struct Connected {
    pub(crate) client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The columns of each table of the file, in its order; `None` for one that does not exist.
pub(crate) async fn columns(
    client: &Client,
    file: &File,
) -> Result<Vec<Option<Columns>>, tokio_postgres::Error> {
    let statement = "SELECT a.attname::text, coalesce(b.typname, t.typname)::text
         FROM pg_catalog.pg_class AS c
         JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
         JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
         LEFT JOIN pg_catalog.pg_type AS b ON t.typtype = 'd' AND b.oid = t.typbasetype
         WHERE n.nspname = $1::text AND c.relname = $2::text AND c.relkind IN ('r', 'p')";
    let statement = client.prepare(statement).await?;
    let mut all = Vec::new();
    for table in &file.tables {
        let schema = table.schema.as_deref().unwrap_or(&file.database.tables_in);
        let rows = client.query(&statement, &[&schema, &table.table]).await?;
        let columns = rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        let columns: Columns = columns.collect::<Result<_, tokio_postgres::Error>>()?;
        all.push(Some(columns).filter(|columns| !columns.is_empty()));
    }
    Ok(all)
}

fn trusted(ca: Option<&str>) -> Result<RootCertStore, AccessError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let wrong = |reason: String| AccessError::Ca {
            path: path.to_owned(),
            reason,
        };
        let certificates =
            CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| wrong(error.to_string()))?;
        }
    }
    match roots.is_empty() {
        true => Err(AccessError::NoRoots),
        false => Ok(roots),
    }
}

/// An error and what caused it, in one line: the driver's own words say only "db error" or "error connecting to
/// server".
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}
