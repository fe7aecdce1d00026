//! A network hop: everything sent over it arrives a little later, and nothing else changes.
//!
//! Bytes are stamped when they come in and passed on when their time has come, so that the hop costs time and not
//! throughput: ten statements sent together wait once. Only the way to the server is long; per round trip that is the
//! same as half of it each way.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Listens on a port of this machine and passes on to PostgreSQL's socket. Runs until the process ends.
pub struct Hop {
    port: u16,
}

impl Hop {
    /// A hop of this length to the server whose socket is in this directory.
    ///
    /// # Errors
    ///
    /// If there is no free port.
    pub fn to(socket_dir: &Path, delay: Duration) -> io::Result<Self> {
        let socket = socket_dir.join(".s.PGSQL.5432");
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is away is seen by the client as a connection that ends.
                let _ = pass(client, socket.clone(), delay);
            }
        });
        Ok(Self { port })
    }

    /// How to connect through it.
    pub fn conninfo(&self) -> String {
        format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres",
            self.port
        )
    }
}

fn pass(client: TcpStream, socket: PathBuf, delay: Duration) -> io::Result<()> {
    client.set_nodelay(true)?;
    let server = UnixStream::connect(socket)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(std::net::Shutdown::Both);
    });
    let (send, arrive) = mpsc::channel();
    thread::spawn(move || read_stamped(client, &send, delay));
    thread::spawn(move || write_in_time(server, &arrive));
    Ok(())
}

fn read_stamped(mut client: TcpStream, send: &mpsc::Sender<(Instant, Vec<u8>)>, delay: Duration) {
    let mut chunk = [0; 64 * 1024];
    while let Ok(length @ 1..) = client.read(&mut chunk) {
        if send
            .send((Instant::now() + delay, chunk[..length].to_vec()))
            .is_err()
        {
            return;
        }
    }
}

fn write_in_time(mut server: UnixStream, arrive: &mpsc::Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, bytes)) = arrive.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if server.write_all(&bytes).is_err() {
            return;
        }
    }
    // The client is gone: so is what it has open.
    let _ = server.shutdown(std::net::Shutdown::Both);
}
