//! One PostgreSQL server.
//!
//! Owns its data directory, process and end. It must not know what is stored in it.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::{KillOnDrop, ScratchDir, locate, wait};

/// The role and the database that exist from the start.
const USER: &str = "postgres";

/// A PostgreSQL server of its own on a unix socket, without a password; ended and removed on drop.
pub struct Postgres {
    dir: ScratchDir,
    owner: Option<Owner>,
    settings: Vec<(String, String)>,
    child: Option<Child>,
}

/// A PgBouncer in front of a [`Postgres`], ended on drop.
pub struct PgBouncer {
    conninfo: String,
    _child: KillOnDrop,
}

impl PgBouncer {
    /// How to connect, in libpq's words.
    pub fn conninfo(&self) -> &str {
        &self.conninfo
    }
}

/// Whom the server runs as when the tests run as root, which PostgreSQL refuses to be.
#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// Starts one that does not wait for the disk: what is committed outlives the server, not the machine.
    pub fn start() -> Self {
        Self::start_with(&[("fsync", "off")])
    }

    /// Starts one with these settings of `postgresql.conf`.
    ///
    /// # Panics
    ///
    /// When PostgreSQL is not installed or does not start, with its log.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut postgres = Self::prepared(settings);
        postgres.create_cluster();
        postgres.start_again();
        postgres
    }

    /// One without data that is not started yet.
    fn prepared(settings: &[(&str, &str)]) -> Self {
        let dir = ScratchDir::new("postgres");
        let owner = Owner::needed();
        if let Some(owner) = owner {
            chown(dir.path(), Some(owner.uid), Some(owner.gid))
                .expect("root may give a directory away");
        }
        Self {
            dir,
            owner,
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            child: None,
        }
    }

    /// Starts a read replica of it, which streams its log and can be stopped from replaying it with
    /// `SELECT pg_wal_replay_pause()`.
    ///
    /// # Panics
    ///
    /// When it cannot be copied or does not start, with the log.
    pub fn replica(&self) -> Self {
        let mut replica = Self::prepared(&[("fsync", "off")]);
        let output = replica
            .program("pg_basebackup")
            .args(["--no-sync", "--checkpoint=fast", "--write-recovery-conf"])
            .args(["--dbname", &self.conninfo()])
            .arg("--pgdata")
            .arg(replica.data_dir())
            .output()
            .unwrap_or_else(|e| panic!("pg_basebackup: {e}; `make setup` installs it"));
        assert!(
            output.status.success(),
            "pg_basebackup failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        replica.start_again();
        replica
    }

    /// Dumps its database and restores it in another server, which should be empty.
    ///
    /// # Panics
    ///
    /// When a part of it cannot be dumped or restored.
    pub fn dump_into(&self, other: &Self) {
        let file = other.dir.path().join("dump.sql");
        let dump = self
            .program("pg_dump")
            .arg(self.conninfo())
            .output()
            .unwrap_or_else(|e| panic!("pg_dump: {e}; `make setup` installs it"));
        let error = String::from_utf8_lossy(&dump.stderr);
        assert!(dump.status.success(), "pg_dump failed:\n{error}");
        fs::write(&file, dump.stdout).expect("the scratch directory takes a file");
        other.psql(&format!("\\i {}", file.display()));
    }

    /// Puts a PgBouncer in front of it, in a pool mode and with these lines of its configuration.
    ///
    /// # Panics
    ///
    /// When PgBouncer is not installed or does not start, with its log.
    pub fn pgbouncer(&self, mode: &str, lines: &str) -> PgBouncer {
        let dir = self.dir.path();
        let config = format!(
            "[databases]\n{USER} = host={socket} dbname={USER}\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\n\
             unix_socket_dir = {socket}\nauth_type = any\npool_mode = {mode}\nlogfile = {socket}/pgbouncer.log\n{lines}\n",
            socket = dir.display(),
        );
        let config = config.replace(
            &format!("dbname={USER}\n"),
            &format!("dbname={USER} user={USER}\n"),
        );
        let file = dir.join("pgbouncer.ini");
        fs::write(&file, config).expect("the scratch directory takes a file");
        let mut command = self.program("pgbouncer");
        let child = command
            .arg("--quiet")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("pgbouncer: {e}; `make setup` installs it"));
        let bouncer = PgBouncer {
            conninfo: format!("host={} port=6432 user={USER} dbname={USER}", dir.display()),
            _child: KillOnDrop(child),
        };
        let socket = dir.join(".s.PGSQL.6432");
        wait::until("PgBouncer listens", || {
            assert!(
                !fs::read_to_string(dir.join("pgbouncer.log"))
                    .unwrap_or_default()
                    .contains("FATAL"),
                "{}",
                fs::read_to_string(dir.join("pgbouncer.log")).unwrap_or_default()
            );
            UnixStream::connect(&socket).is_ok()
        });
        bouncer
    }

    /// The directory of its socket: libpq's `host`.
    pub fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// How to connect, in libpq's words.
    pub fn conninfo(&self) -> String {
        format!(
            "host={} user={USER} dbname={USER}",
            self.socket_dir().display()
        )
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Runs SQL through `psql`, returns what it prints: one line a row, columns separated by `|`.
    ///
    /// # Panics
    ///
    /// When a statement fails, with what psql says.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        match self.try_psql(sql) {
            Ok(rows) => rows,
            Err(error) => panic!("{sql}\n  {error}"),
        }
    }

    /// As [`Postgres::psql`].
    ///
    /// # Errors
    ///
    /// What psql printed to standard error.
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        let output = self
            .program("psql")
            .args([
                "--no-psqlrc",
                "--quiet",
                "--no-align",
                "--tuples-only",
                "--set=ON_ERROR_STOP=1",
            ])
            .arg(self.conninfo())
            .args(["--command", sql])
            .output()
            .unwrap_or_else(|e| panic!("psql: {e}; `make setup` installs it"));
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout)
                .trim_end()
                .to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr)
                .trim_end()
                .to_owned())
        }
    }

    /// Ends it with "fast shutdown": open transactions are rolled back, what is committed is kept.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// Ends it with "immediate shutdown", as a crash would: it recovers from its log at the next start.
    pub fn crash(&mut self) {
        self.end(Signal::QUIT);
    }

    /// Kills every process of it at once, as a machine that loses its power does.
    ///
    /// # Panics
    ///
    /// When it is not running.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a running server");
        let parent = child.id();
        // Stopped first: it starts no more processes.
        let _ = kill_process(Pid::from_child(&child), Signal::STOP);
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children: Vec<i32> = children
            .expect("Linux says which processes a server has")
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect();
        let _ = kill_process(Pid::from_child(&child), Signal::KILL);
        for pid in children.iter().filter_map(|&pid| Pid::from_raw(pid)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        child.wait().expect("a child can be waited for");
        // A process that is left is adopted by another process and gone when that has reaped it, or a zombie: it holds
        // no memory.
        wait::until("its processes have ended", || {
            children.iter().all(|pid| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.rsplit(')')
                    .next()
                    .is_none_or(|rest| rest.trim().is_empty() || rest.trim_start().starts_with('Z'))
            })
        });
    }

    /// Starts it again after [`Postgres::stop`], [`Postgres::crash`] or [`Postgres::kill`].
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it is running");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the scratch directory takes a file");
        let child = self
            .program("postgres")
            .arg("-D")
            .arg(self.data_dir())
            .arg("-k")
            .arg(self.socket_dir())
            .args(["-c", "listen_addresses="])
            .args(
                self.settings
                    .iter()
                    .map(|(name, value)| format!("--{name}={value}")),
            )
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be cloned"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("postgres: {e}; `make setup` installs it"));
        self.child = Some(child);
        wait::until_some("PostgreSQL answers", || {
            let child = self.child.as_mut().expect("spawned");
            if let Ok(Some(status)) = child.try_wait() {
                panic!("postgres ended with {status}\n{}", self.log());
            }
            self.try_psql("SELECT 1")
        });
    }

    /// [`Postgres::stop`], then [`Postgres::start_again`].
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    fn end(&mut self, how: Signal) {
        let mut child = self.child.take().expect("a running server");
        kill_process(Pid::from_child(&child), how).expect("a child can be signalled");
        child.wait().expect("a child can be waited for");
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("postgres.log")
    }

    fn create_cluster(&self) {
        let output: Output = self
            .program("initdb")
            .args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C"])
            .arg(format!("--username={USER}"))
            .arg("-D")
            .arg(self.data_dir())
            .output()
            .unwrap_or_else(|e| panic!("initdb: {e}; `make setup` installs it"));
        assert!(
            output.status.success(),
            "initdb failed:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// One of PostgreSQL's programs, run as whom the cluster belongs to.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(locate::postgres(name));
        command.current_dir(self.dir.path());
        if let Some(owner) = self.owner {
            // Dropping the user id drops the supplementary groups of root as well.
            command.gid(owner.gid).uid(owner.uid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "--- end of postgres.log\n{}\n---",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
        if self.child.is_some() {
            self.crash();
        }
    }
}

impl Owner {
    /// The user `postgres` when we are root, no other user otherwise.
    fn needed() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").expect("a system with users");
        let fields: Vec<&str> = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields[0] == USER)
            .expect("PostgreSQL does not run as root, and there is no user `postgres`: `make setup` installs it");
        let number = |text: &str| text.parse().expect("/etc/passwd holds numbers");
        Some(Self {
            uid: number(fields[2]),
            gid: number(fields[3]),
        })
    }
}
