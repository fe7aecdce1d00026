//! A server of a few words, for tests of what the client makes of answers: each test says what is answered, and when.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{RedisOptions, RedisProvider, Topology, link::Link};

/// What a command is answered with, as it stands on the wire. `None`: nothing, and the connection ends.
pub(crate) type Reply = Option<Vec<u8>>;

/// A command, in words.
type Words = Vec<String>;

/// See the module. It lives as long as the process.
#[derive(Clone)]
pub(crate) struct Fake {
    port: u16,
    said: Arc<Mutex<Vec<Words>>>,
}

impl Fake {
    /// Each connection has a thread of its own: `answer` may wait. It is asked for commands of ours only.
    pub(crate) fn start(answer: impl Fn(&[String]) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let fake = Self {
            port: listener.local_addr().expect("bound").port(),
            said: Arc::default(),
        };
        let (answer, said) = (Arc::new(answer), fake.said.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, said) = (answer.clone(), said.clone());
                std::thread::spawn(move || serve(stream, &*answer, &said));
            }
        });
        fake
    }

    /// A provider that talks to it, and does not wait long.
    pub(crate) fn provider(&self) -> RedisProvider {
        self.provider_with(Self::options())
    }

    /// The link of such a provider, which rests for long after so many failures.
    pub(super) fn link(&self, failures: u32) -> Arc<Link> {
        let long = Duration::from_secs(3600);
        self.link_with(|options| options.breaker(failures, long))
    }

    /// The link of such a provider with other options.
    pub(super) fn link_with(&self, change: impl FnOnce(RedisOptions) -> RedisOptions) -> Arc<Link> {
        match self.provider_with(change(Self::options())).topology {
            Topology::Single(link) => link,
            Topology::Cluster(_) => unreachable!("the address of one server"),
        }
    }

    fn options() -> RedisOptions {
        RedisOptions::default().command_deadline(Duration::from_millis(200))
    }

    fn provider_with(&self, options: RedisOptions) -> RedisProvider {
        let url = format!("redis://127.0.0.1:{}", self.port);
        RedisProvider::new(&url, options).expect("an address")
    }

    /// Every call of this command so far, without its name.
    pub(crate) fn said(&self, command: &str) -> Vec<Words> {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = said.iter().filter(|words| words[0] == command);
        calls.map(|words| words[1..].to_vec()).collect()
    }

    /// How often this command was called.
    pub(crate) fn calls(&self, command: &str) -> usize {
        self.said(command).len()
    }
}

fn serve(stream: TcpStream, answer: &dyn Fn(&[String]) -> Reply, said: &Mutex<Vec<Words>>) {
    let Ok(reading) = stream.try_clone() else {
        return;
    };
    let (mut reading, mut writing) = (BufReader::new(reading), stream);
    while let Some(words) = read(&mut reading) {
        let reply = match words[0].starts_with("MCACHE.") {
            true => {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                said.push(words.clone());
                drop(said);
                answer(&words)
            }
            false => Some(b"+OK\r\n".to_vec()),
        };
        let Some(reply) = reply else { return };
        if writing.write_all(&reply).is_err() {
            return;
        }
    }
}

fn read(from: &mut impl BufRead) -> Option<Words> {
    let length = |from: &mut dyn BufRead| {
        let mut header = String::new();
        from.read_line(&mut header).ok()?;
        header.trim_end().get(1..)?.parse::<usize>().ok()
    };
    let count = length(from)?;
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let mut word = vec![0; length(from)? + 2];
        from.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    (!words.is_empty()).then_some(words)
}

/// Replies as they stand on the wire.
pub(crate) mod reply {
    pub(crate) fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
        let text = text.as_ref();
        let mut reply = format!("${}\r\n", text.len()).into_bytes();
        reply.extend_from_slice(text);
        reply.extend_from_slice(b"\r\n");
        reply
    }

    pub(crate) fn int(number: i64) -> Vec<u8> {
        format!(":{number}\r\n").into_bytes()
    }

    pub(crate) fn nil() -> Vec<u8> {
        b"$-1\r\n".to_vec()
    }

    pub(crate) fn list(parts: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
        let parts: Vec<_> = parts.into_iter().collect();
        let mut reply = format!("*{}\r\n", parts.len()).into_bytes();
        parts.iter().for_each(|part| reply.extend_from_slice(part));
        reply
    }
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
