//! A load: commands made in advance, sent in pipelines over several connections.
//!
//! Owns sending and counting replies. `redis-benchmark` draws every `__rand_int__` of a command anew, so it cannot say
//! "this key with its own tags", which is what most rows are about. It must not know what is measured.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Commands in wire form, sent over and over.
pub struct Load {
    batches: Vec<Calls>,
    connections: usize,
}

/// A pipeline.
struct Calls {
    bytes: Vec<u8>,
    operations: usize,
    replies: usize,
}

impl Load {
    /// A load of these commands, in this order, `pipeline` at a time.
    pub fn new(commands: impl IntoIterator<Item = Command>, pipeline: usize) -> Self {
        Self::grouped(commands.into_iter().map(|command| vec![command]), pipeline)
    }

    /// A load of operations that take several commands each, `pipeline` operations at a time.
    ///
    /// With a pipeline of one there are 50 connections, as with redis-benchmark, else 4: the server is busy all the
    /// time either way.
    pub fn grouped(operations: impl IntoIterator<Item = Vec<Command>>, pipeline: usize) -> Self {
        let mut operations = operations.into_iter().peekable();
        let mut batches = Vec::new();
        while operations.peek().is_some() {
            let mut batch = Calls {
                bytes: Vec::new(),
                operations: 0,
                replies: 0,
            };
            for operation in operations.by_ref().take(pipeline) {
                batch.operations += 1;
                batch.replies += operation.len();
                batch
                    .bytes
                    .extend(operation.into_iter().flat_map(|command| command.0));
            }
            batches.push(batch);
        }
        Self {
            batches,
            connections: if pipeline == 1 { 50 } else { 4 },
        }
    }

    /// The same load over one connection, which makes runs repeatable to the instruction.
    pub fn on_one_connection(mut self) -> Self {
        self.connections = 1;
        self
    }

    /// How many operations the load has, each counted once.
    pub fn len(&self) -> usize {
        self.batches.iter().map(|batch| batch.operations).sum()
    }

    /// Sends so many operations, beginning anew when all are through, and waits for their replies. Pipelines are sent
    /// whole, so it may be some more; returns how many.
    ///
    /// # Errors
    ///
    /// What broke the connection, or the first error reply.
    pub fn run(&self, socket: &Path, operations: usize) -> io::Result<usize> {
        let mut connections = (0..self.connections)
            .map(|_| UnixStream::connect(socket).map(BufReader::new))
            .collect::<io::Result<Vec<_>>>()?;
        let mut sent = 0;
        // The last pipeline of a load may be shorter than the others, so operations are counted, not pipelines.
        let mut batches = self.batches.iter().cycle().take_while(|batch| {
            let goes_on = sent < operations;
            sent += if goes_on { batch.operations } else { 0 };
            goes_on
        });
        loop {
            // All are written before the first is read, so the server finds several clients waiting.
            let mut round = Vec::with_capacity(connections.len());
            for (connection, batch) in connections.iter_mut().zip(batches.by_ref()) {
                connection.get_mut().write_all(&batch.bytes)?;
                round.push(batch.replies);
            }
            if round.is_empty() {
                break;
            }
            for (connection, replies) in connections.iter_mut().zip(round) {
                for _ in 0..replies {
                    skip_reply(connection)?;
                }
            }
        }
        Ok(sent)
    }
}

/// One command in wire form.
#[derive(Clone)]
pub struct Command(Vec<u8>);

impl Command {
    /// Encodes arguments.
    pub fn new<A: AsRef<[u8]>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let mut count = 0;
        let mut body = Vec::new();
        for argument in arguments {
            let argument = argument.as_ref();
            count += 1;
            body.extend(format!("${}\r\n", argument.len()).into_bytes());
            body.extend(argument);
            body.extend(b"\r\n");
        }
        let mut bytes = format!("*{count}\r\n").into_bytes();
        bytes.append(&mut body);
        Self(bytes)
    }
}

fn skip_reply(reader: &mut BufReader<UnixStream>) -> io::Result<()> {
    let mut header = String::new();
    if reader.read_line(&mut header)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let length = || {
        header[1..]
            .trim_end()
            .parse::<i64>()
            .map_err(io::Error::other)
    };
    match header.as_bytes()[0] {
        b'+' | b':' | b'_' => Ok(()),
        b'$' => match u64::try_from(length()?) {
            Ok(bytes) => io::copy(&mut reader.by_ref().take(bytes + 2), &mut io::sink()).map(drop),
            // Nil.
            Err(_) => Ok(()),
        },
        b'*' => (0..length()?).try_for_each(|_| skip_reply(reader)),
        _ => Err(io::Error::other(header)),
    }
}
