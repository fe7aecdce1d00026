//! Which server the module runs in, told by its name and version, and what follows from that.
//!
//! Owns what is known of servers: which are too old, which have a fault that cannot be borne, which move slots in a way
//! that the module must take part in. Never told by which functions a server offers: these come and go for other
//! reasons.

use std::fmt;

/// Who made the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Maker {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
}

/// Major, minor and patch.
pub type Version = (u32, u32, u32);

/// A server's name and version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// Who made it.
    pub maker: Maker,
    /// Its own version, not the one of Redis that it is compatible with.
    pub version: Version,
}

/// What a server is set up for, as far as a refusal depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Keys can be moved and copied to another database.
    pub several_databases: bool,
    /// `mcache.accept-valkey-8-1`.
    pub accept_valkey_8_1: bool,
}

/// How a server moves whole slots at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotMigration {
    /// Key by key only, with MIGRATE.
    ByKey,
    /// Redis 8.4: `CLUSTER MIGRATION IMPORT`.
    Redis,
    /// Valkey 9.0: `CLUSTER MIGRATESLOTS`.
    Valkey,
}

impl Host {
    /// Reads what INFO says: `server_name` and `valkey_version` where there are such fields, and `redis_version`.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub fn parse(
        server_name: Option<&str>,
        redis_version: Option<&str>,
        valkey_version: Option<&str>,
    ) -> Result<Self, String> {
        let (maker, version) = match server_name {
            None | Some("" | "redis") => (Maker::Redis, redis_version),
            Some("valkey") => (Maker::Valkey, valkey_version),
            Some(other) => {
                return Err(format!(
                    "this server calls itself '{other}'; only Redis and Valkey are known"
                ));
            }
        };
        let text = version.unwrap_or_default();
        let version = parse_version(text)
            .ok_or_else(|| format!("this server's version, '{text}', cannot be read"))?;
        Ok(Host { maker, version })
    }

    /// Whether everything that is promised can be kept here.
    ///
    /// # Errors
    /// Why not and what to do, as a sentence.
    pub fn check(self, setting: Setting) -> Result<(), String> {
        const TOO_OLD: &str = "Redis 7.0.5, Valkey 7.2 or later is needed";
        match (self.maker, self.version) {
            (Maker::Redis, version) if version < (7, 0, 0) => {
                Err(format!("this is {self}; {TOO_OLD}"))
            }
            (Maker::Redis, version) if version < (7, 0, 5) => Err(format!(
                "this is {self}, and Redis 7.0.0 to 7.0.4 do not let a module set or read an absolute expiry; {TOO_OLD}"
            )),
            (Maker::Valkey, version) if version < (7, 2, 0) => {
                Err(format!("this is {self}; {TOO_OLD}"))
            }
            (Maker::Valkey, (8, 1, 0..=8))
                if setting.several_databases && !setting.accept_valkey_8_1 =>
            {
                Err(format!(
                    "this is {self}, and in Valkey 8.1.0 to 8.1.8, while a module hears of keys, COPY ... DB and MOVE of any key \
                     leave the client in the wrong database, so that later commands read and write there. Set 'databases 1', or \
                     'mcache.accept-valkey-8-1 yes' if no client uses COPY ... DB or MOVE, or take another version"
                ))
            }
            _ => Ok(()),
        }
    }

    /// Whether the user `default` of the ACL is one and the same for as long as the server runs: ACL DELUSER refuses to
    /// delete it, and ACL LOAD copies the new rules into it, because every client that did not authenticate points to
    /// it. True of the versions that were looked at; of a later one it must be found out before it is said here.
    pub fn keeps_default_user(self) -> bool {
        let (major, minor, _) = self.version;
        match self.maker {
            Maker::Redis => (major, minor) <= (8, 6),
            Maker::Valkey => (major, minor) <= (9, 1),
        }
    }

    /// Whether the server can end the wait of a parked client (its own timeout, CLIENT UNBLOCK) also in the turn of the
    /// event loop in which the module has woken it. Before Redis 7.4 and Valkey 8.0 it forgets in that case that the
    /// client is still to be answered: Redis 7.0 gives it the answer to its next command instead, Redis and Valkey 7.2
    /// end themselves by an assertion (Redis's pull request 13015).
    pub fn can_end_waits(self) -> bool {
        match self.maker {
            Maker::Redis => self.version >= (7, 4, 0),
            Maker::Valkey => self.version >= (8, 0, 0),
        }
    }

    /// How slots can move whole here.
    pub fn slot_migration(self) -> SlotMigration {
        match (self.maker, self.version) {
            (Maker::Redis, version) if version >= (8, 4, 0) => SlotMigration::Redis,
            (Maker::Valkey, version) if version >= (9, 0, 0) => SlotMigration::Valkey,
            _ => SlotMigration::ByKey,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = self.version;
        write!(f, "{:?} {major}.{minor}.{patch}", self.maker)
    }
}

/// `8.1.3`, `9.1.0-rc2`, `8.2`; what follows the numbers does not count.
fn parse_version(text: &str) -> Option<Version> {
    let mut numbers = text.split('.').map(|part| {
        let end = part.bytes().position(|b| !b.is_ascii_digit());
        part[..end.unwrap_or(part.len())].parse::<u32>().ok()
    });
    let major = numbers.next()??;
    let minor = numbers.next()??;
    let patch = numbers.next().flatten().unwrap_or(0);
    Some((major, minor, patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEVERAL: Setting = Setting {
        several_databases: true,
        accept_valkey_8_1: false,
    };

    fn redis(version: &str) -> Host {
        Host::parse(None, Some(version), None).expect("a version")
    }

    fn valkey(version: &str) -> Host {
        Host::parse(Some("valkey"), Some("7.2.4"), Some(version)).expect("a version")
    }

    #[test]
    fn a_server_is_known_by_its_own_name_and_version() {
        assert_eq!(redis("7.0.15").version, (7, 0, 15));
        assert_eq!(redis("8.2").version, (8, 2, 0));
        assert_eq!(redis("255.255.255").version, (255, 255, 255));
        assert_eq!(valkey("9.1.0-rc2").version, (9, 1, 0));
        assert_eq!(valkey("8.1.8").to_string(), "Valkey 8.1.8");
        for (name, version) in [
            (Some("keydb"), Some("6.3.4")),
            (None, None),
            (None, Some("")),
            (None, Some("seven")),
            (Some("valkey"), Some("7.2.4")),
        ] {
            let refusal = Host::parse(name, version, None).expect_err("unknown");
            assert!(refusal.starts_with("this server"), "{refusal}");
        }
    }

    #[test]
    fn only_versions_that_were_looked_at_keep_their_default_user() {
        for (host, expected) in [
            (redis("7.0.5"), true),
            (redis("8.6.3"), true),
            (redis("8.8.0"), false),
            (redis("9.0.0"), false),
            (valkey("7.2.0"), true),
            (valkey("9.1.2"), true),
            (valkey("9.2.0"), false),
            (valkey("10.0.0"), false),
        ] {
            assert_eq!(host.keeps_default_user(), expected, "{host}");
        }
    }

    #[test]
    fn older_servers_do_not_end_waits() {
        for (host, expected) in [
            (redis("7.0.15"), false),
            (redis("7.2.11"), false),
            (redis("7.4.0"), true),
            (redis("8.0.6"), true),
            (valkey("7.2.11"), false),
            (valkey("8.0.1"), true),
        ] {
            assert_eq!(host.can_end_waits(), expected, "{host}");
        }
    }

    #[test]
    fn servers_that_lack_what_is_needed_are_refused_with_the_version_that_has_it() {
        for host in [
            redis("6.2.14"),
            redis("7.0.0"),
            redis("7.0.4"),
            valkey("7.1.9"),
        ] {
            let refusal = host.check(SEVERAL).expect_err("too old");
            assert!(refusal.contains("Redis 7.0.5, Valkey 7.2"), "{refusal}");
            assert!(refusal.contains(&host.to_string()), "{refusal}");
        }
        for host in [
            redis("7.0.5"),
            redis("7.4.1"),
            redis("8.10.2"),
            valkey("7.2.0"),
            valkey("8.0.1"),
            valkey("8.1.9"),
            valkey("9.1.2"),
        ] {
            assert_eq!(host.check(SEVERAL), Ok(()), "{host}");
        }
    }

    #[test]
    fn valkey_8_1_before_its_repair_is_refused_unless_one_database_or_the_option_says_otherwise() {
        for version in ["8.1.0", "8.1.4", "8.1.8"] {
            let host = valkey(version);
            let refusal = host.check(SEVERAL).expect_err("a fault of the server");
            for word in [
                "databases 1",
                "mcache.accept-valkey-8-1 yes",
                "COPY",
                "MOVE",
            ] {
                assert!(refusal.contains(word), "{refusal}");
            }
            for (several_databases, accept_valkey_8_1) in [(false, false), (true, true)] {
                let setting = Setting {
                    several_databases,
                    accept_valkey_8_1,
                };
                assert_eq!(host.check(setting), Ok(()), "{setting:?}");
            }
        }
        assert_eq!(redis("8.1.3").check(SEVERAL), Ok(()));
    }

    #[test]
    fn only_servers_that_move_slots_whole_are_told_that_the_module_takes_part() {
        for (host, expected) in [
            (redis("8.2.3"), SlotMigration::ByKey),
            (redis("8.4.0"), SlotMigration::Redis),
            (redis("8.10.2"), SlotMigration::Redis),
            (valkey("8.1.8"), SlotMigration::ByKey),
            (valkey("9.0.0"), SlotMigration::Valkey),
            (valkey("9.1.2"), SlotMigration::Valkey),
        ] {
            assert_eq!(host.slot_migration(), expected, "{host}");
        }
    }
}
