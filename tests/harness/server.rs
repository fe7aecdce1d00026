//! One redis-server with the module.
//!
//! Owns the process, its directory and its end: a test that leaves a server whose index and keyspace disagree, that
//! crashed or whose module panicked has failed, even if all its assertions held. It must not know about other servers.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};
use rustix::process::Signal;

use crate::process::signal;
use crate::{ScratchDir, Session, host, locate, wait};

/// How often a server is started anew because another program took the port it had been given.
const PORT_ATTEMPTS: usize = 10;

/// How much of a log a failure shows.
const SHOWN_LINES: usize = 60;

/// What a server is started with. Every setter states its default.
#[derive(Debug, Clone)]
pub struct ServerBuilder {
    directives: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    module: bool,
    tcp: bool,
    cluster: bool,
    apart_from_terminal: bool,
    self_check: bool,
    accepted: bool,
}

impl ServerBuilder {
    /// Adds a line to redis.conf, options of the module (`mcache.*`) included. Default: no persistence, DEBUG allowed.
    pub fn set(mut self, directive: &str, value: impl ToString) -> Self {
        self.directives
            .push((directive.to_owned(), value.to_string()));
        self
    }

    /// Sets a variable of the server's environment: the module is to panic. Default: those of the test, and a panic
    /// fails it.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Listens on a free TCP port as well, on the loopback address only. Default: the unix socket only.
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Runs as a Cluster node (with a TCP port). Default: standalone.
    pub fn cluster(mut self) -> Self {
        self.cluster = true;
        self.tcp()
    }

    /// Has a feed for near caches, which grants leases of so many milliseconds; 5,000 is the most. Default: no feed.
    pub fn feed(self, lease_ms: u64) -> Self {
        self.set("mcache.feed", "yes")
            .set("mcache.near-lease-ms", lease_ms)
    }

    /// Loads no module: plain Redis. Default: the built module is loaded.
    pub fn without_module(mut self) -> Self {
        self.module = false;
        self
    }

    /// Does not hear a Ctrl-C in the terminal: the program that started it hears it, and ends it. Default: both do, and
    /// an interrupted test run leaves no server behind.
    pub fn apart_from_terminal(mut self) -> Self {
        self.apart_from_terminal = true;
        self
    }

    /// Leaves it to the module whether it loads into this server. Default: where only an option stands between the two,
    /// it is set.
    pub fn as_it_is(mut self) -> Self {
        self.accepted = false;
        self
    }

    /// Does not compare index and keyspace at the end. Default: compared on drop.
    pub fn without_self_check(mut self) -> Self {
        self.self_check = false;
        self
    }

    /// Starts a server that must not come up, and returns its log once it has ended.
    ///
    /// # Panics
    ///
    /// When it comes up.
    pub fn refusal(self) -> String {
        let mut server = Server {
            dir: ScratchDir::new("redis"),
            builder: ServerBuilder {
                self_check: false,
                ..self
            },
            self_check: false,
            port: None,
            child: None,
        };
        server.write_config(None);
        server.spawn();
        let answered = server.await_answer().is_ok();
        let log = server.log();
        assert!(!answered, "it came up:\n{log}");
        // It has ended by itself, which is not to be found again when it is dropped.
        server.child = None;
        log
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Panics
    ///
    /// When it does not start, with its log.
    pub fn start(self) -> Server {
        let self_check = self.self_check && self.module;
        let mut server = Server {
            dir: ScratchDir::new("redis"),
            builder: self,
            self_check,
            port: None,
            child: None,
        };
        server.start_on_free_port();
        server
    }
}

/// A running (or stopped) redis-server, ended on drop.
pub struct Server {
    dir: ScratchDir,
    builder: ServerBuilder,
    self_check: bool,
    port: Option<u16>,
    child: Option<Child>,
}

impl Server {
    /// A server with the module on a unix socket, nothing else set.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Options first.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            directives: Vec::new(),
            environment: Vec::new(),
            module: true,
            tcp: false,
            cluster: false,
            apart_from_terminal: false,
            self_check: true,
            accepted: true,
        }
    }

    /// The directory it runs in: its RDB, AOF and log.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("redis.sock")
    }

    /// Its TCP port.
    ///
    /// # Panics
    ///
    /// When it was started without [`ServerBuilder::tcp`].
    pub fn port(&self) -> u16 {
        self.port
            .expect("a server with a port: Server::builder().tcp()")
    }

    /// Its address for clients, over the unix socket.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its address for clients, over TCP.
    pub fn tcp_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Its process id.
    ///
    /// # Panics
    ///
    /// When it is stopped.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("redis.log")).unwrap_or_default()
    }

    /// A connection in RESP2.
    pub fn session(&self) -> Session {
        self.session_with(RedisConnectionInfo::default())
    }

    /// A connection in RESP3.
    pub fn session_resp3(&self) -> Session {
        self.session_with(RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3))
    }

    /// A connection of an ACL user.
    pub fn session_as(&self, user: &str, password: &str) -> Session {
        let login = RedisConnectionInfo::default()
            .set_username(user)
            .set_password(password);
        self.session_with(login)
    }

    fn session_with(&self, settings: RedisConnectionInfo) -> Session {
        Session::new(
            self.connect(settings)
                .unwrap_or_else(|e| self.fail(&format!("no connection: {e}"))),
        )
    }

    fn connect(&self, settings: RedisConnectionInfo) -> redis::RedisResult<redis::Connection> {
        let info = ConnectionAddr::Unix(self.socket())
            .into_connection_info()?
            // A MONITOR or SLOWLOG of a test should show the test's commands only.
            .set_redis_settings(settings.set_skip_set_lib_name());
        redis::Client::open(info)?.get_connection()
    }

    /// Runs `redis-cli` against it with these arguments, `input` on standard input.
    pub fn cli(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = Command::new(locate::redis("redis-cli"))
            .arg("-s")
            .arg(self.socket())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("redis-cli: {e}; `make setup` installs it"));
        child
            .stdin
            .take()
            .expect("piped")
            .write_all(input.as_bytes())
            .expect("redis-cli reads its input");
        child.wait_with_output().expect("redis-cli ends")
    }

    /// Compares index, epochs and keyspace, entry by entry, in every database.
    ///
    /// # Errors
    ///
    /// The first disagreement.
    pub fn check(&self) -> Result<(), String> {
        let mut session = self.session();
        let mut verdict = Err(String::new());
        wait::until("the data set is loaded", || {
            verdict = session.try_run("MCACHE.DEBUG SELFCHECK").map(drop);
            !matches!(&verdict, Err(text) if text.starts_with("LOADING"))
        });
        verdict
    }

    /// Ends it as an administrator would (SIGTERM: saves if it has save points) and waits until it is gone.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("a running server");
        signal(&child, Signal::TERM);
        let status = child.wait().expect("a child can be waited for");
        assert!(status.success(), "ended with {status}:\n{}", self.log());
    }

    /// Ends it as a power failure would.
    pub fn kill9(&mut self) {
        let mut child = self.child.take().expect("a running server");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
    }

    /// Starts it again after [`Server::stop`] or [`Server::kill9`], on the same socket and port, with what it left on
    /// disk.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it is running");
        self.spawn();
        if let Err(reason) = self.await_answer() {
            self.fail(&reason);
        }
    }

    /// [`Server::stop`], then [`Server::start_again`].
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Freezes the process (SIGSTOP): connections stay, nothing answers.
    pub fn pause(&self) {
        signal(self.child.as_ref().expect("a running server"), Signal::STOP);
    }

    /// Ends [`Server::pause`].
    pub fn resume(&self) {
        signal(self.child.as_ref().expect("a running server"), Signal::CONT);
    }

    fn start_on_free_port(&mut self) {
        for _ in 0..PORT_ATTEMPTS {
            let bus_port = self.builder.cluster.then(free_port);
            self.port = self.builder.tcp.then(free_port);
            self.write_config(bus_port);
            self.spawn();
            match self.await_answer() {
                Ok(()) => return,
                // Another program was faster: a port is only ours once the server has it.
                Err(_) if self.log().contains("Address already in use") => {
                    self.child = None;
                    let _ = fs::remove_file(self.dir().join("redis.log"));
                }
                Err(reason) => self.fail(&reason),
            }
        }
        self.fail("no free port");
    }

    fn write_config(&self, bus_port: Option<u16>) {
        let mut lines = vec![
            format!("port {}", self.port.unwrap_or(0)),
            "bind 127.0.0.1".to_owned(),
            format!("unixsocket {}", self.socket().display()),
            format!("dir {}", self.dir().display()),
            "logfile redis.log".to_owned(),
            "save \"\"".to_owned(),
            "enable-debug-command yes".to_owned(),
            "crash-memcheck-enabled no".to_owned(),
            // A replica that meets a write it cannot apply must not go on as if nothing were.
            "propagation-error-behavior panic".to_owned(),
            // Tests attach replicas and do not want to wait for more of them.
            "repl-diskless-sync-delay 0".to_owned(),
        ];
        if let Some(bus_port) = bus_port {
            lines.push("cluster-enabled yes".to_owned());
            lines.push(format!("cluster-port {bus_port}"));
        }
        if self.builder.module {
            lines.push(format!("loadmodule {}", locate::module().display()));
        }
        if self.builder.module && self.builder.accepted && !host::program().is_accepted() {
            lines.push("mcache.accept-valkey-8-1 yes".to_owned());
        }
        for (directive, value) in &self.builder.directives {
            lines.push(format!("{directive} {value}"));
        }
        fs::write(self.dir().join("redis.conf"), lines.join("\n") + "\n")
            .expect("the scratch directory takes a file");
    }

    fn spawn(&mut self) {
        let program = locate::redis("redis-server");
        let mut command = Command::new(&program);
        if self.builder.apart_from_terminal {
            command.process_group(0);
        }
        let child = command
            .arg(self.dir().join("redis.conf"))
            .envs(self.builder.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}; `make setup` installs it", program.display()));
        self.child = Some(child);
    }

    /// Waits for the answer to PING; a server that is still loading has answered only when it is done.
    fn await_answer(&mut self) -> Result<(), String> {
        let mut outcome = Err("no answer".to_owned());
        wait::within(wait::PATIENCE, || {
            let child = self.child.as_mut().expect("spawned");
            if let Ok(Some(status)) = child.try_wait() {
                outcome = Err(format!("redis-server ended with {status}"));
                return true;
            }
            let answer = self
                .connect(RedisConnectionInfo::default())
                .and_then(|mut connection| redis::cmd("PING").exec(&mut connection));
            // NOAUTH is an answer, too.
            let answered = match &answer {
                Ok(()) => true,
                Err(e) => e.code() == Some("NOAUTH"),
            };
            if answered {
                outcome = Ok(());
            }
            answered
        });
        outcome
    }

    /// Panics with the reason, what was configured and the end of the log.
    fn fail(&self, reason: &str) -> ! {
        panic!("{reason}\n{}", self.report())
    }

    fn report(&self) -> String {
        let config = fs::read_to_string(self.dir().join("redis.conf")).unwrap_or_default();
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        // A crash is told at the beginning of its report, which is long.
        let crash = lines
            .iter()
            .position(|line| line.contains("REDIS BUG REPORT START"))
            .map(|start| start..lines.len().min(start + SHOWN_LINES));
        let shown = crash.unwrap_or(lines.len().saturating_sub(SHOWN_LINES)..lines.len());
        let log = lines[shown].join("\n");
        format!("--- redis.conf\n{config}--- from redis.log\n{log}\n---")
    }

    /// What is wrong with how this server's life went, if anything.
    fn verdict(&mut self) -> Option<String> {
        if let Ok(Some(status)) = self.child.as_mut()?.try_wait() {
            return Some(format!("redis-server ended by itself with {status}"));
        }
        if self.self_check {
            self.resume();
            if let Err(disagreement) = self.check() {
                return Some(format!("self-check: {disagreement}"));
            }
        }
        // Some are asked for.
        let panicked = self.builder.environment.is_empty() && self.log().contains("panicked at");
        panicked.then(|| "the module panicked".to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let failure = if thread::panicking() {
            eprintln!("{}", self.report());
            None
        } else {
            self.verdict()
                .map(|reason| format!("{reason}\n{}", self.report()))
        };
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(failure) = failure {
            panic!("{failure}");
        }
    }
}

/// A port that no program listens on at this moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("the loopback address has a free port")
        .port()
}
