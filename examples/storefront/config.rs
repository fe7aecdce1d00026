//! What can be set: in a file, and over it in the environment.

use serde::Deserialize;

use crate::BoxError;

/// Names the file; without it there is none.
const FILE_VARIABLE: &str = "STOREFRONT_CONFIG";

/// How the store is run. Every field has a default except where the two servers are.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen. Default: `127.0.0.1:9000`. Environment: `STOREFRONT_LISTEN`.
    pub listen: String,
    /// PostgreSQL, in libpq's words. Environment: `DATABASE_URL`.
    pub database: String,
    /// Redis with the module. Environment: `CACHE_REDIS_URL`.
    pub redis: String,
    /// Whether to cache. Default: what `MEDUSA_FF_CACHING` says, otherwise not.
    pub caching: Option<bool>,
    /// Whether what is cached is kept in this process as well. Default: no. Environment: `STOREFRONT_NEAR`.
    pub near: bool,
    /// What the store's entries begin with. Default: `storefront`. Two stores on one Redis have two.
    pub namespace: String,
    /// What the back office authenticates with. Default: `storefront-admin`. Environment: `STOREFRONT_ADMIN_TOKEN`.
    pub admin_token: String,
    /// Connections to PostgreSQL in each of three pools: catalogue, sales, writes. Default: 8.
    pub connections: usize,
    /// The largest body of a request in bytes. Default: 65,536.
    pub body_bytes_max: usize,
    /// Whether `Cache-Control: no-cache` makes a request go past the cache, for comparisons. Default: yes; a store that
    /// strangers may reach says no.
    pub honour_no_cache: bool,
    /// Products in the catalogue the store is seeded with. Default: 1,000. Environment: `STOREFRONT_PRODUCTS`.
    pub products: u32,
    /// Pieces of each variant at each location at the beginning. Default: 100,000.
    pub stock: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9000".to_owned(),
            database: String::new(),
            redis: String::new(),
            caching: None,
            near: false,
            namespace: "storefront".to_owned(),
            admin_token: "storefront-admin".to_owned(),
            connections: 8,
            body_bytes_max: 64 * 1024,
            honour_no_cache: true,
            products: 1_000,
            stock: 100_000,
        }
    }
}

impl Config {
    /// Reads the file that `STOREFRONT_CONFIG` names, if it names one, and the environment.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or says something unknown, or a number is none.
    pub fn load() -> Result<Self, BoxError> {
        let mut config = match std::env::var(FILE_VARIABLE) {
            Ok(path) => {
                let text =
                    std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
                serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))?
            }
            Err(_) => Self::default(),
        };
        for (variable, field) in [
            ("STOREFRONT_LISTEN", &mut config.listen),
            ("DATABASE_URL", &mut config.database),
            ("CACHE_REDIS_URL", &mut config.redis),
            ("STOREFRONT_ADMIN_TOKEN", &mut config.admin_token),
        ] {
            if let Ok(value) = std::env::var(variable) {
                *field = value;
            }
        }
        if let Ok(near) = std::env::var("STOREFRONT_NEAR") {
            config.near = near
                .parse()
                .map_err(|_| format!("STOREFRONT_NEAR: {near:?} is neither true nor false"))?;
        }
        if let Ok(products) = std::env::var("STOREFRONT_PRODUCTS") {
            config.products = products
                .parse()
                .map_err(|_| format!("STOREFRONT_PRODUCTS: {products:?} is not a number"))?;
        }
        Ok(config)
    }
}
