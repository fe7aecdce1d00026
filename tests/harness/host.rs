//! Which server the tests run on, and what it cannot do.
//!
//! Owns the question put to the server's program, once, and the note of what was left out. The rules about servers are
//! the module's own.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use mcache_core::host::{Host, Maker, Setting, SlotMigration};

use crate::{Server, locate};

/// The file to which [`skip`] writes, if it is set: `.ci/test-servers` reads it.
const SKIPS: &str = "MCACHE_SKIPS";

/// The server's program.
#[derive(Debug)]
pub struct Program {
    /// Its maker and version.
    pub host: Host,
    /// Its allocator, `jemalloc-5.3.0` or `libc`.
    pub allocator: String,
}

/// The program that [`Server`] starts.
///
/// # Panics
///
/// When it does not run, or does not say what it is.
pub fn program() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = locate::redis("redis-server");
        let output = Command::new(&program)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("{}: {e}; `make setup` installs it", program.display()));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        read(&text).unwrap_or_else(|| panic!("{} says {text:?}", program.display()))
    })
}

/// `Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64 build=1536df31c0395150`
fn read(text: &str) -> Option<Program> {
    let field = |name: &str| {
        text.split_whitespace()
            .find_map(|word| word.strip_prefix(name))
    };
    let version = field("v=");
    let host = match text.starts_with("Valkey") {
        true => Host::parse(Some("valkey"), None, version),
        false => Host::parse(None, version, None),
    };
    Some(Program {
        host: host.ok()?,
        allocator: field("malloc=")?.to_owned(),
    })
}

impl Program {
    /// Whether it is this maker's, of this version or a later one.
    pub fn is(&self, maker: Maker, major: u32, minor: u32) -> bool {
        self.host.maker == maker && self.host.version >= (major, minor, 0)
    }

    /// How it moves whole slots.
    pub fn slot_migration(&self) -> SlotMigration {
        self.host.slot_migration()
    }

    /// Whether the module loads into it without being told to.
    pub fn is_accepted(&self) -> bool {
        let setting = Setting {
            several_databases: true,
            accept_valkey_8_1: false,
        };
        self.host.check(setting).is_ok()
    }

    /// Whether it knows a configuration directive.
    pub fn has_directive(&self, directive: &str) -> bool {
        let server = Server::builder().without_module().start();
        let known = server.session().list(&format!("CONFIG GET {directive}"));
        !known.is_empty()
    }

    /// Whether it knows a command.
    pub fn has_command(&self, command: &str) -> bool {
        let server = Server::builder().without_module().start();
        server
            .session()
            .list("COMMAND LIST")
            .contains(&command.to_lowercase())
    }

    /// Whether it was built with TLS. Those built without know the directives as well; asked for a port, one with TLS
    /// ends for want of a certificate, one without for want of TLS.
    pub fn has_tls(&self) -> bool {
        static TLS: OnceLock<bool> = OnceLock::new();
        *TLS.get_or_init(|| {
            let program = locate::redis("redis-server");
            let output = Command::new(&program)
                .args(["--port", "0", "--tls-port", "65535", "--save", ""])
                .stdin(Stdio::null())
                .output()
                .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
            String::from_utf8_lossy(&output.stdout).contains("tls-cert-file")
        })
    }
}

/// Whether MOVE, COPY ... DB and DEBUG RELOAD leave a client in the wrong database, which is a fault of this server: it
/// is then noted as the reason why the running test, or a part of it, is left out.
pub fn loses_the_database() -> bool {
    let loses = !program().is_accepted();
    if loses {
        skip("MOVE, COPY ... DB and DEBUG RELOAD leave the client in the wrong database");
    }
    loses
}

/// Whether there is something to show here; if not, [`skip`]s.
pub fn has(it: bool, why_not: &str) -> bool {
    if !it {
        skip(why_not);
    }
    it
}

/// Notes that the running test has nothing to show on this server, or not all: said in the last line of
/// `make test-servers`.
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    println!("{test} is left out on {}: {why}", program().host);
    if let Some(path) = std::env::var_os(SKIPS) {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path);
        let noted = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
        noted.unwrap_or_else(|e| panic!("{SKIPS}, {}: {e}", path.display()));
    }
}
