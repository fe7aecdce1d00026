//! A network that can be made bad.
//!
//! Owns a listening port and the bytes between it and a server. It must not understand them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Forwards a local TCP port to a server until told otherwise.
///
/// Connections are forwarded by two threads each, which end with the connection; dropping the proxy cuts everything.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<thread::JoinHandle<()>>,
}

#[derive(Clone)]
enum Upstream {
    Tcp(u16),
    Unix(PathBuf),
}

struct Shared {
    upstream: Upstream,
    weather: Mutex<Weather>,
    changed: Condvar,
}

/// What is wrong at the moment, and whom it concerns.
#[derive(Default)]
struct Weather {
    stalled: bool,
    /// Whose connections are stalled, by the address they come from.
    stalled_sources: Vec<IpAddr>,
    refusing: bool,
    delay: Duration,
    closed: bool,
    connections: Vec<Stream>,
}

impl Proxy {
    /// Forwards to a TCP port of this machine.
    pub fn to_port(port: u16) -> Self {
        Self::start(Upstream::Tcp(port))
    }

    /// Forwards to a unix socket.
    pub fn to_socket(socket: PathBuf) -> Self {
        Self::start(Upstream::Unix(socket))
    }

    fn start(upstream: Upstream) -> Self {
        let listener =
            TcpListener::bind("127.0.0.1:0").expect("the loopback address has a free port");
        let port = listener
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        let shared = Arc::new(Shared {
            upstream,
            weather: Mutex::default(),
            changed: Condvar::new(),
        });
        let for_acceptor = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accept(&listener, &for_acceptor));
        Self {
            port,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address for clients of Redis.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Closes every connection there is; new ones are accepted.
    pub fn cut(&self) {
        self.shared.weather().close_all();
    }

    /// Closes every connection and every new one at once, until [`Proxy::heal`].
    pub fn refuse(&self) {
        let mut weather = self.shared.weather();
        weather.refusing = true;
        weather.close_all();
    }

    /// Keeps connections open and delivers nothing, until [`Proxy::heal`].
    pub fn stall(&self) {
        self.shared.weather().stalled = true;
    }

    /// As [`Proxy::stall`], for connections that come from one address.
    pub fn stall_from(&self, source: IpAddr) {
        self.shared.weather().stalled_sources.push(source);
    }

    /// Delivers each chunk this much later, each way, until [`Proxy::heal`].
    pub fn delay(&self, delay: Duration) {
        self.shared.weather().delay = delay;
    }

    /// Forwards again, at once. What was stalled is delivered.
    pub fn heal(&self) {
        let mut weather = self.shared.weather();
        weather.stalled = false;
        weather.stalled_sources.clear();
        weather.refusing = false;
        weather.delay = Duration::ZERO;
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut weather = self.shared.weather();
            weather.closed = true;
            weather.close_all();
            self.shared.changed.notify_all();
        }
        // The acceptor sleeps in accept() and looks at `closed` when it wakes.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when a chunk of a connection from `source` may be delivered; false if the proxy is gone.
    fn clearance(&self, source: IpAddr) -> bool {
        let mut weather = self.weather();
        while (weather.stalled || weather.stalled_sources.contains(&source)) && !weather.closed {
            weather = self
                .changed
                .wait(weather)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let (delay, closed) = (weather.delay, weather.closed);
        drop(weather);
        thread::sleep(delay);
        !closed
    }

    fn dial(&self) -> io::Result<Stream> {
        match &self.upstream {
            Upstream::Tcp(port) => Stream::tcp(TcpStream::connect(("127.0.0.1", *port))?),
            Upstream::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path)?)),
        }
    }
}

impl Weather {
    fn close_all(&mut self) {
        for connection in self.connections.drain(..) {
            connection.shutdown();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.weather().closed {
            return;
        }
        // A client that is gone already, or a server that is down: the client sees a closed connection.
        let pair = client
            .and_then(Stream::tcp)
            .and_then(|client| Ok((client.source()?, client, shared.dial()?)));
        let Ok((source, client, server)) = pair else {
            continue;
        };
        let mut weather = shared.weather();
        if weather.refusing {
            client.shutdown();
            continue;
        }
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else {
                continue;
            };
            let shared = Arc::clone(shared);
            thread::spawn(move || pump(&mut from, &mut to, source, &shared));
        }
        weather.connections.extend([client, server]);
    }
}

fn pump(from: &mut Stream, to: &mut Stream, source: IpAddr, shared: &Shared) {
    let mut chunk = [0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut chunk) {
        if !shared.clearance(source) || to.write_all(&chunk[..length]).is_err() {
            break;
        }
    }
    from.shutdown();
    to.shutdown();
}

/// Either kind of socket.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
        })
    }

    /// Where it comes from.
    fn source(&self) -> io::Result<IpAddr> {
        match self {
            Self::Tcp(stream) => Ok(stream.peer_addr()?.ip()),
            Self::Unix(_) => Ok(Ipv4Addr::LOCALHOST.into()),
        }
    }

    /// Ends both directions; the other side may have been quicker.
    fn shutdown(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }
}
