//! What a server tells its replicas, word by word.
//!
//! Owns a connection that pretends to be a replica. It must not apply or interpret what it hears.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::{Server, Session, line, resp, wait};

/// Read time after which the primary is taken to be stuck.
const READ_TIMEOUT: Duration = wait::PATIENCE;

/// The channel on which the end of a batch is announced; PUBLISH is replicated and touches no key.
const MARK_CHANNEL: &str = "mcache:replication-stream:mark";

/// The replication stream of one server from the moment this was opened.
///
/// Speaks the old SYNC, which is one data set followed by commands: no offsets to acknowledge, no handshake to keep up
/// with. A primary drops such a replica only after `repl-timeout` (a minute) of silence.
pub struct ReplicationStream {
    reader: BufReader<UnixStream>,
    primary: Session,
    marks: u64,
}

impl ReplicationStream {
    /// Attaches to `server` and skips its data set.
    ///
    /// # Panics
    ///
    /// When the server does not answer as a primary does.
    pub fn open(server: &Server) -> Self {
        let mut socket = UnixStream::connect(server.socket()).expect("the server listens");
        socket
            .set_read_timeout(Some(READ_TIMEOUT))
            .expect("a socket takes a timeout");
        socket.write_all(b"SYNC\r\n").expect("the server reads");
        let mut stream = Self {
            reader: BufReader::new(socket),
            primary: server.session(),
            marks: 0,
        };
        stream.skip_data_set().expect("a data set from the primary");
        // Up to the first mark, which leaves the stream in database 0.
        stream.take();
        stream
    }

    /// Every command replicated since the last call, one line each (see [`line::join`]). The stream begins in database
    /// 0 each time, and SELECT is told as it comes; PINGs of the primary are not, because they come by the clock.
    pub fn take(&mut self) -> Vec<String> {
        self.marks += 1;
        let mark = line::join(&["PUBLISH", MARK_CHANNEL, &self.marks.to_string()]);
        self.primary.run(&mark);
        let mut commands = Vec::new();
        loop {
            let command = self.command().expect("a command from the primary");
            if command == mark {
                // The mark is published in database 0, so the way back there is ours.
                commands.pop_if(|last| *last == "SELECT 0");
                return commands;
            }
            if command != "PING" {
                commands.push(command);
            }
        }
    }

    /// `$<length>\r\n<RDB>`, preceded by newlines while the primary is busy saving.
    fn skip_data_set(&mut self) -> io::Result<()> {
        let mut header = String::new();
        while header.trim().is_empty() {
            header.clear();
            if self.reader.read_line(&mut header)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let length = header.trim().strip_prefix('$').and_then(|n| n.parse().ok());
        let length: u64 = length.ok_or_else(|| io::Error::other(header))?;
        let skipped = io::copy(&mut self.reader.by_ref().take(length), &mut io::sink())?;
        if skipped < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn command(&mut self) -> io::Result<String> {
        Ok(line::join(&resp::read_command(&mut self.reader)?))
    }
}
