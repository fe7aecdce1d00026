//! What an address says: which servers, in which topology, with which credentials.
//!
//! ```text
//! redis://[user:password@]host:port[/db]                            one server
//! rediss://...                                                      the same over TLS (feature `tls`)
//! unix:///path/to.sock[?db=1&user=u&pass=p]                         one server on this machine
//! redis+sentinel://[user:password@]host:port,host:port/name[/db]    the primary `name`, asked of Sentinels
//! redis+cluster://[user:password@]host:port,host:port               a cluster, discovered from these nodes
//! ```
//!
//! Everything a single address can say is left to the redis crate to understand; here only the lists are taken apart.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use crate::{Error, ErrorKind, Result};

#[derive(Debug)]
pub(super) enum Address {
    Single(Box<ConnectionInfo>),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        service: String,
        /// Credentials, database and protocol for the primary.
        primary: Box<ConnectionInfo>,
    },
    Cluster {
        seeds: Vec<ConnectionInfo>,
    },
}

/// The address without credentials, which is not an address any more but a name for it.
pub(super) fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return String::new();
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = match place.find('/') {
        Some(end) => place.split_at(end),
        None => (place, ""),
    };
    let hosts = authority
        .rsplit_once('@')
        .map_or(authority, |(_, hosts)| hosts);
    let database = query.split('&').find(|pair| pair.starts_with("db="));
    let database = database.map(|pair| format!("?{pair}")).unwrap_or_default();
    format!("{scheme}://{hosts}{path}{database}")
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| {
            bad(
                url,
                "it has no scheme; expected something like redis://127.0.0.1:6379",
            )
        })?;
        let (base, kind) = match scheme.split_once('+') {
            Some((base @ ("redis" | "rediss"), kind @ ("sentinel" | "cluster"))) => (base, kind),
            _ => return Ok(Self::Single(Box::new(info(url)?))),
        };
        let (authority, tail) = match rest.find(['/', '?', '#']) {
            Some(end) => rest.split_at(end),
            None => (rest, ""),
        };
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (format!("{credentials}@"), hosts),
            None => (String::new(), authority),
        };
        if hosts.split(',').any(str::is_empty) {
            return Err(bad(url, "a host is missing"));
        }
        let (path, query) = match tail.find(['?', '#']) {
            Some(end) => tail.split_at(end),
            None => (tail, ""),
        };
        let mut path = path.trim_start_matches('/').split('/');
        if kind == "cluster" {
            if path.any(|part| !part.is_empty() && part != "0") {
                return Err(bad(url, "a cluster has only database 0"));
            }
            let seeds = each(hosts, |host| {
                format!("{base}://{credentials}{host}/{query}")
            })?;
            return Ok(Self::Cluster { seeds });
        }
        let service = path.next().filter(|name| !name.is_empty());
        let service =
            service.ok_or_else(|| bad(url, "the primary's name is missing: host:port/name"))?;
        let db = path.next().unwrap_or_default();
        let first = hosts.split(',').next().unwrap_or_default();
        Ok(Self::Sentinel {
            service: service.to_owned(),
            primary: Box::new(info(&format!("{base}://{credentials}{first}/{db}{query}"))?),
            // Sentinels have their own credentials, usually none; those of the address are the primary's.
            sentinels: each(hosts, |host| {
                format!("{base}://{}/{query}", with_default_port(host))
            })?,
        })
    }
}

/// Sentinels listen on another port than servers.
fn with_default_port(host: &str) -> String {
    let has_port = match host.rfind(':') {
        Some(colon) => !host[colon..].contains(']'),
        None => false,
    };
    match has_port {
        true => host.to_owned(),
        false => format!("{host}:26379"),
    }
}

fn each(hosts: &str, url: impl Fn(&str) -> String) -> Result<Vec<ConnectionInfo>> {
    hosts.split(',').map(|host| info(&url(host))).collect()
}

fn info(url: &str) -> Result<ConnectionInfo> {
    let info = url
        .into_connection_info()
        .map_err(|error| bad(url, &error.to_string()))?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) && !info.addr().is_supported() {
        return Err(bad(url, "TLS needs the crate's feature `tls`"));
    }
    Ok(info)
}

/// Names the address without its password.
fn bad(url: &str, why: &str) -> Error {
    let shown = match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            format!("{}***{}", &url[..scheme + 3], &url[at..])
        }
        _ => url.to_owned(),
    };
    Error::new(ErrorKind::Config, format!("address `{shown}`: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_address_has_no_credentials_in_it() {
        for (url, name) in [
            ("redis://user:p@ss@host:1/2", "redis://host:1/2"),
            (
                "redis+sentinel://u:p@a:1,b:2/main",
                "redis+sentinel://a:1,b:2/main",
            ),
            ("unix:///r.sock?db=1&user=u&pass=p", "unix:///r.sock?db=1"),
            ("redis://host", "redis://host"),
            ("nonsense", ""),
        ] {
            assert_eq!(without_credentials(url), name);
        }
    }

    fn hosts(infos: &[ConnectionInfo]) -> Vec<String> {
        infos.iter().map(|info| info.addr().to_string()).collect()
    }

    #[test]
    fn single_servers_are_the_redis_crates_business() {
        for url in [
            "redis://127.0.0.1:6379/3",
            "unix:///tmp/redis.sock",
            "redis://u:p@host",
        ] {
            assert!(
                matches!(Address::parse(url), Ok(Address::Single(_))),
                "{url}"
            );
        }
    }

    #[test]
    fn a_sentinel_address_names_sentinels_and_primary() {
        let url = "redis+sentinel://u:p%40ss@a:1,b/main/2?protocol=resp3";
        let Ok(Address::Sentinel {
            sentinels,
            service,
            primary,
        }) = Address::parse(url)
        else {
            panic!("not understood");
        };
        assert_eq!(hosts(&sentinels), ["a:1", "b:26379"]);
        assert_eq!(service, "main");
        let redis = primary.redis_settings();
        assert_eq!(
            (redis.username(), redis.password(), redis.db()),
            (Some("u"), Some("p@ss"), 2)
        );
        assert_eq!(sentinels[0].redis_settings().password(), None);
    }

    #[test]
    fn a_cluster_address_names_seeds_with_the_same_credentials() {
        let Ok(Address::Cluster { seeds }) = Address::parse("redis+cluster://:p@a:1,b:2") else {
            panic!("not understood");
        };
        assert_eq!(hosts(&seeds), ["a:1", "b:2"]);
        assert!(
            seeds
                .iter()
                .all(|seed| seed.redis_settings().password() == Some("p"))
        );
    }

    #[test]
    fn mistakes_are_named_and_passwords_are_not() {
        for (url, why) in [
            ("127.0.0.1:6379", "no scheme"),
            ("http://host", "address `http://host`"),
            ("redis+sentinel://a:1", "name is missing"),
            ("redis+cluster://a:1,,b:2", "host is missing"),
            ("redis+cluster://a:1/3", "only database 0"),
            ("redis://u:secret@host:notaport", "***@host"),
        ] {
            let error = Address::parse(url).expect_err(url).to_string();
            assert!(error.contains(why), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
