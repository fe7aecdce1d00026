//! One connection to a server, spoken to in lines.
//!
//! Owns the shape in which tests say commands and read replies. It must not know servers or processes.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{ConnectionLike, FromRedisValue, RedisError, Value};

use crate::{line, wait};

/// A reply that takes longer is a hang, and a hang should fail with a name. Some commands of tests take seconds of
/// processor time, of which a busy machine gives a small part.
const REPLY_TIMEOUT: Duration = Duration::from_secs(300);

/// A blocking connection. The `try_` methods give the server's error text; the others panic with it.
pub struct Session {
    connection: redis::Connection,
}

impl Session {
    /// Wraps a connection.
    ///
    /// # Panics
    ///
    /// When the socket takes no timeout.
    pub fn new(connection: redis::Connection) -> Self {
        connection
            .set_read_timeout(Some(REPLY_TIMEOUT))
            .expect("a socket takes a timeout");
        Self { connection }
    }

    /// The connection itself, for what lines cannot say (pub/sub, pipelines).
    pub fn connection(&mut self) -> &mut redis::Connection {
        &mut self.connection
    }

    /// Sends one command given as arguments.
    ///
    /// # Errors
    ///
    /// The error text as the server sent it, or what broke the connection.
    pub fn try_call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Value, String> {
        let mut command = redis::Cmd::new();
        for argument in arguments {
            command.arg(argument.as_ref());
        }
        match self.connection.req_command(&command) {
            Ok(Value::ServerError(error)) => Err(error_text(&error.into())),
            Ok(value) => Ok(value),
            Err(error) => Err(error_text(&error)),
        }
    }

    /// Sends one command given as a line (see [`line::split`]).
    ///
    /// # Errors
    ///
    /// As [`Session::try_call`].
    pub fn try_run(&mut self, line: &str) -> Result<Value, String> {
        self.try_call(&line::split(line))
    }

    /// Sends arguments, expects a reply that is no error.
    #[track_caller]
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Value {
        match self.try_call(arguments) {
            Ok(value) => value,
            Err(error) => panic!("{}\n  replied {error}", shortened(&line::join(arguments))),
        }
    }

    /// Sends a line, expects a reply that is no error.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> Value {
        self.call(&line::split(line))
    }

    /// Sends a line, expects an error, returns its text.
    #[track_caller]
    pub fn error(&mut self, line: &str) -> String {
        match self.try_run(line) {
            Ok(value) => panic!(
                "{}\n  should be refused, replied {value:?}",
                shortened(line)
            ),
            Err(error) => error,
        }
    }

    /// Sends a line, expects `OK`.
    #[track_caller]
    pub fn ok(&mut self, line: &str) {
        let reply = self.run(line);
        assert_eq!(reply, Value::Okay, "{}", shortened(line));
    }

    /// Sends many lines, a thousand in one round trip, and expects that none is refused.
    #[track_caller]
    pub fn run_all(&mut self, lines: impl IntoIterator<Item = String>) {
        const BATCH: usize = 1_000;
        let mut lines = lines.into_iter().peekable();
        while lines.peek().is_some() {
            let mut pipeline = redis::pipe();
            for line in lines.by_ref().take(BATCH) {
                let mut command = redis::Cmd::new();
                command.arg(line::split(&line));
                pipeline.add_command(command).ignore();
            }
            let done = pipeline.exec(&mut self.connection);
            done.expect("none is refused");
        }
    }

    /// Sends a line, expects an integer.
    #[track_caller]
    pub fn int(&mut self, line: &str) -> i64 {
        self.typed(line)
    }

    /// Sends a line, expects a string or nil.
    #[track_caller]
    pub fn text(&mut self, line: &str) -> Option<String> {
        self.typed(line)
    }

    /// Sends a line, expects an array of strings.
    #[track_caller]
    pub fn list(&mut self, line: &str) -> Vec<String> {
        self.typed(line)
    }

    /// Sends a line, expects an array of strings; sorts it.
    #[track_caller]
    pub fn sorted(&mut self, line: &str) -> Vec<String> {
        let mut list = self.list(line);
        list.sort();
        list
    }

    /// Sends a line, expects a map (a flat array in RESP2) or nil.
    #[track_caller]
    pub fn map(&mut self, line: &str) -> Option<BTreeMap<String, Value>> {
        self.typed(line)
    }

    /// What DUMP says of a key that is there.
    #[track_caller]
    pub fn dump(&mut self, key: &str) -> Vec<u8> {
        match self.call(&["DUMP", key]) {
            Value::BulkString(dump) => dump,
            other => panic!("DUMP {key} gives a string, not {other:?}"),
        }
    }

    /// Sends a line, expects what `T` is read from.
    #[track_caller]
    pub fn typed<T: FromRedisValue>(&mut self, line: &str) -> T {
        let reply = self.run(line);
        let shown = format!("{reply:?}");
        T::from_redis_value(reply)
            .unwrap_or_else(|error| panic!("{}\n  replied {shown}: {error}", shortened(line)))
    }

    /// One numeric field of INFO's `section`.
    #[track_caller]
    pub fn info(&mut self, section: &str, field: &str) -> i64 {
        let text = self.info_text(section, field);
        text.parse()
            .unwrap_or_else(|_| panic!("INFO {section}: {field}:{text} is not a number"))
    }

    /// One field of INFO's `section`.
    #[track_caller]
    pub fn info_text(&mut self, section: &str, field: &str) -> String {
        let report: String = self.typed(&format!("INFO {section}"));
        report
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .unwrap_or_else(|| panic!("INFO {section} has no {field}:\n{report}"))
            .to_owned()
    }

    /// One counter or gauge of the module: `entries` for INFO's `mcache_entries`.
    #[track_caller]
    pub fn stat(&mut self, name: &str) -> i64 {
        self.info("mcache", &format!("mcache_{name}"))
    }

    /// Waits until no rewrite of the append-only file is under way or asked for.
    #[track_caller]
    pub fn await_rewrite(&mut self) {
        wait::until("the append-only file is rewritten", || {
            self.info("persistence", "aof_rewrite_in_progress") == 0
                && self.info("persistence", "aof_rewrite_scheduled") == 0
        });
    }

    /// Waits until no near cache can hold a lease that a server before this one granted.
    #[track_caller]
    pub fn await_predecessors(&mut self) {
        wait::until("predecessors' leases are over", || {
            self.stat("near_predecessors_us") == 0
        });
    }

    /// How often each command was called, by INFO's commandstats; zero if it never was.
    #[track_caller]
    pub fn calls<const N: usize>(&mut self, commands: [&str; N]) -> [u64; N] {
        let report: String = self.typed("INFO commandstats");
        commands.map(|command| {
            let calls = report.lines().find_map(|line| {
                let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
                let (calls, _) = rest.split_once(',')?;
                name.eq_ignore_ascii_case(command).then_some(calls)
            });
            calls.map_or(0, |calls| calls.parse().expect("a number"))
        })
    }

    /// Seconds of processor time: the sum of two fields of INFO's cpu, such as [`CPU`](Self::CPU).
    #[track_caller]
    pub fn cpu_s(&mut self, fields: [&str; 2]) -> f64 {
        let seconds = |field| -> f64 { self.info_text("cpu", field).parse().expect("seconds") };
        fields.map(seconds).iter().sum()
    }

    /// What the server's process has used, in user code and in the kernel.
    pub const CPU: [&str; 2] = ["used_cpu_user", "used_cpu_sys"];

    /// The next message of a connection that has subscribed: its last part, or the last key of an invalidation message.
    #[track_caller]
    pub fn message(&mut self) -> String {
        let mut part = self.connection.recv_response().expect("a message");
        while let Value::Array(mut parts) = part {
            part = parts.pop().expect("a message has parts");
        }
        redis::from_redis_value(part).expect("a string")
    }

    /// Everything a SCAN-like command finds: `line` with `{}` where the cursor goes.
    #[track_caller]
    pub fn scan(&mut self, line: &str) -> Vec<String> {
        self.scan_from(line, "0".to_owned())
    }

    /// As [`scan`](Self::scan), from a cursor on.
    #[track_caller]
    pub fn scan_from(&mut self, line: &str, mut cursor: String) -> Vec<String> {
        let mut found = Vec::new();
        loop {
            let (next, page): (String, Vec<String>) = self.typed(&line.replacen("{}", &cursor, 1));
            found.extend(page);
            if next == "0" {
                return found;
            }
            cursor = next;
        }
    }
}

/// The error as it stood on the wire.
fn error_text(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        _ => error.to_string(),
    }
}

/// Half a gigabyte of argument tells nothing in a failure.
fn shortened(line: &str) -> String {
    const SHOWN: usize = 300;
    match line.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}... ({} bytes)", &line[..cut], line.len()),
        None => line.to_owned(),
    }
}
